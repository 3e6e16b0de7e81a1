"""How much is put on a page."""

__all__ = ["MOST_BYTES", "ROWS"]

MOST_BYTES = 6_000_000
"""Of the file."""

ROWS = 1000
"""Data on it, if nothing else is said."""
