"""``ppl-vae encode``: the latent codes of data."""

from __future__ import annotations

from typing import Any

import numpy as np
from jsonargparse import ArgumentParser

from ppl_vae import runs
from ppl_vae.cli.options import data_options, rows_of, run_options
from ppl_vae.cli.output import done, save_atomically, writer

__all__ = ["options", "run"]


def run(
    *,
    run: str,
    data: str | None,
    data_root: str | None,
    split: str | None,
    samples: int | None,
    out: str,
    seed: int,
    device: str,
    trust: list[str],
    json: bool,
) -> None:
    """Write the posterior of the latent variables: means `z`, draws `samples`, labels `y` (.npz)."""
    write = writer(out, ".npz")
    fitted = runs.load_run(run, trust=trust, device=device)
    _, rows = rows_of(fitted, data, data_root, split or "all")
    arrays = {"z": fitted.encode(rows)}
    if samples is not None:
        arrays["samples"] = fitted.encode(rows, samples=samples, seed=seed)
    if rows.y is not None:
        arrays["y"] = rows.y
    plain: dict[str, Any] = {name: array.cpu().numpy() for name, array in arrays.items()}
    write({".npz": lambda path: save_atomically(path, lambda file: np.savez_compressed(file, **plain))})
    done({"n": len(rows), "arrays": {name: list(array.shape) for name, array in plain.items()}, "out": out}, as_json=json)


def options(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    run_options(parser)
    data_options(parser, default="all")
    parser.add_argument("--samples", type=int | None, help="also draw so many codes per datum")
    parser.add_argument("--out", type=str, required=True, help="a .npz file")
