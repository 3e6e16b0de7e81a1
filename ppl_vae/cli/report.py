"""``ppl-vae report``: one page about a run."""

from __future__ import annotations

from jsonargparse import ArgumentParser

import ppl_vae
from ppl_vae.cli.output import done

__all__ = ["options", "run"]


def run(*, run: str, out: str | None, trust: list[str], json: bool) -> None:
    """Write one self-contained HTML page about a run: its mathematics, numbers, curves, pictures, and how to rerun it."""
    page = ppl_vae.report(run, out, trust=trust)
    done({"out": str(page), "bytes": page.stat().st_size}, as_json=json)


def options(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("run", type=str, help="a run folder")
    parser.add_argument("--out", type=str | None, help="the page, a .html file; report.html in the run folder by default")
    parser.add_argument("--trust", type=str, nargs="+", default=[], help="modules of yours whose classes the run may name")
