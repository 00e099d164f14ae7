"""Training with other libraries."""
