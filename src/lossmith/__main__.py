"""``python -m lossmith``."""

from lossmith.cli import main

main()
