"""One file for each family of rows; each ends in its ``FAMILY``."""
