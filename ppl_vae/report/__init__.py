"""One self-contained page about a run."""

from ppl_vae.report.page import report

__all__ = ["report"]
