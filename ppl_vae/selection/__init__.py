"""Choosing: one experiment with several values of a field, and which of them the data favour."""

from ppl_vae.selection.result import Selection
from ppl_vae.selection.select import select

__all__ = ["Selection", "select"]
