"""``ppl-vae parameters``: what the parameters of a run are, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ppl_vae import runs
from ppl_vae.cli.options import run_options
from ppl_vae.cli.output import TABLES, as_table, print_json, writer

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["options", "run"]


def run(*, run: str, out: str | None, seed: int, device: str, trust: list[str], json: bool) -> None:
    """Print weights, means, covariances, loadings, noise, in the units of the data and by the names of its columns.

    A table (.csv, .parquet) has a row for each number: `parameter`, its place, `value`, and `se` where a posterior over
    parameters was fitted.
    """
    write = None if out is None else writer(out, *TABLES)
    fitted = runs.load_run(run, trust=trust, device=device)
    found = fitted.parameters(seed=seed)
    if write is not None:
        write(as_table({name: np.array(column) for name, column in found.columns().items()}))
    if json:
        return print_json(found.to_dict())
    print(found)
    return None


def options(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    run_options(parser)
    parser.add_argument("--out", type=str | None, help="also write a table: .csv, .parquet")
