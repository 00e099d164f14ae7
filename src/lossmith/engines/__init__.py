"""How a coupling is evaluated faster than by the plain function, and no less accurately."""
