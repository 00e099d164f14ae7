"""A small network on a table: what the tournament and the estimators have in common."""
