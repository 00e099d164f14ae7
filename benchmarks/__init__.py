"""Measurements against peers; results as JSON under ``benchmarks/results``."""
