"""One self-contained HTML page for the outcome of a tournament."""

from lossmith.report.page import render, write

__all__ = ["render", "write"]
