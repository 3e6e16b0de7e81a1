"""``ppl-vae explore``: one page on which a run's codes are moved, or a server that decodes for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import ppl_vae
from ppl_vae import runs
from ppl_vae.cli.options import data_options, rows_of, run_options
from ppl_vae.cli.output import done
from ppl_vae.explore.limits import ROWS

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["options", "run"]


def run(
    *,
    run: str,
    out: str | None,
    serve: bool,
    port: int,
    rows: int,
    data: str | None,
    data_root: str | None,
    label: str | None,
    y: str | None,
    split: str | None,
    seed: int,
    device: str,
    trust: list[str],
    json: bool,
) -> None:
    """Write one self-contained page to move about in a run's codes, or with --serve decode any of them from a page that asks.

    The page has the plane of any two dimensions, a slider for each, data and their codes, ways between two data, classes,
    components and levels, as far as the run has such.
    """
    from ppl_vae.explore import serve as serving
    from ppl_vae.report.document import checked

    page = checked(Path(run) / "explore.html" if out is None else out)
    fitted = runs.load_run(run, trust=trust, device=device)
    _, held_out = rows_of(fitted, data, data_root, split or "test", label=label, y=y)
    title = Path(run).resolve().name
    if serve:
        told = "Ctrl-C ends it"
        serving(fitted, held_out, rows=rows, title=title, port=port, announce=lambda url: _say(url, told, json=json))
        return
    page = ppl_vae.explore(fitted, page, held_out, rows=rows, title=title)
    done({"out": str(page), "bytes": page.stat().st_size}, as_json=json)


def _say(url: str, told: str, *, json: bool) -> None:
    done({"url": url} if json else {"url": url, "listening": told}, as_json=json)


def options(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    run_options(parser)
    data_options(parser, default="test")
    parser.add_argument("--rows", type=int, default=ROWS, help="how many data are shown at most")
    parser.add_argument("--out", type=str | None, help="the page, a .html file; explore.html in the run folder by default")
    parser.add_argument("--serve", action="store_true", help="decode any code from a page on 127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="where --serve listens; any that is free by default")
