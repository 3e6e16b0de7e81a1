"""``ppl-vae sample``: new data from a run."""

from __future__ import annotations

import numpy as np
from jsonargparse import ArgumentParser

from ppl_vae import plots, runs
from ppl_vae.cli.options import run_options
from ppl_vae.cli.output import done, save_atomically, writer

__all__ = ["options", "run"]


def run(
    *,
    run: str,
    n: int,
    out: str,
    y: str | None,
    draws: bool,
    seed: int,
    device: str,
    trust: list[str],
    json: bool,
) -> None:
    """Draw new data from the declared prior through the decoder: a picture (.png) or an array (.npy).

    A model conditioned on labels draws its classes in turn, or one; one that completes data completes the first test data.
    """
    write = writer(out, ".png", ".npy")
    fitted = runs.load_run(run, trust=trust, device=device)
    given = None
    if getattr(fitted.pair.model, "known_entries", None) is not None:
        given = fitted.rows(fitted.data, "test")[:n]
        n = min(n, len(given))
    x = fitted.sample(n, x=given, y=y, draws=draws, seed=seed).cpu()
    write(
        {
            ".png": lambda path: plots.save(plots.grid(x, kind=fitted.spec.kind, title=f"samples from {run}"), path),
            ".npy": lambda path: save_atomically(path, lambda file: np.save(file, x.numpy())),
        }
    )
    done({"n": n, "shape": list(x.shape), "out": out}, as_json=json)


def options(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    run_options(parser)
    parser.add_argument("--n", type=int, default=64, help="how many data")
    parser.add_argument("--out", type=str, required=True, help="a .png picture or a .npy array")
    parser.add_argument("--y", type=str | None, help="a class, by its name, of a model conditioned on labels")
    parser.add_argument("--draws", action="store_true", help="draw from p(x | z) instead of taking its mean")
