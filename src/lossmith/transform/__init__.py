"""From a loss to another loss."""
