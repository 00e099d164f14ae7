"""Losses measured against their peers and against the limits of the machine."""
