"""The softmax family by blocks of rows that stay in the cache, value and gradient together."""
