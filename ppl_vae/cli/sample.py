"""``ppl-vae sample``: new data from a run."""

from __future__ import annotations

import warnings

import numpy as np
from jsonargparse import ArgumentParser

from ppl_vae import plots, runs
from ppl_vae.cli.options import run_options
from ppl_vae.cli.output import TABLES, as_arrays, as_table, done, writer
from ppl_vae.data.native import decoded
from ppl_vae.fitting import Fit
from ppl_vae.types import FitWarning

__all__ = ["options", "run"]

DATES = ("date", "datetime")


def run(
    *,
    run: str,
    n: int,
    out: str,
    y: str | None,
    means: bool,
    draws: bool,
    temperature: float,
    seed: int,
    device: str,
    trust: list[str],
    json: bool,
) -> None:
    """Draw new data from the declared prior through the decoder: a picture (.png), an array (.npy) or a table (.csv, .parquet).

    Arrays and tables are in the units of the run's own data. A model conditioned on labels draws its classes in turn, or one;
    one that completes data completes the first test data.
    """
    write = writer(out, ".png", ".npy", *TABLES)
    if draws:
        if means:
            raise ValueError("expected draws or means, got --draws and --means: leave one out")
        warnings.warn("--draws is what ppl-vae sample does unless it is told --means: leave it out", FitWarning, stacklevel=2)
    fitted = runs.load_run(run, trust=trust, device=device)
    if out.endswith(TABLES) and len(fitted.spec.event_shape) != 1:
        raise ValueError(f"expected rows of one axis for a table, got {fitted.spec.event_shape}: write .npy or .png")
    given = None
    if fitted.pair.model_facts.known_entries is not None:
        given = fitted.rows(fitted.data, "test")[:n]
        n = min(n, len(given))
    x = fitted.sample(n, x=given, y=y, means=means, seed=seed, temperature=temperature, seen=out.endswith(".png")).cpu()
    title = f"{'means of p(x | z)' if means else 'draws'} from {run}"
    drawn = {
        ".png": lambda path: plots.save(plots.grid(x, kind=fitted.spec.kind, title=title, names=fitted.spec.columns), path)
    }
    table = as_table(_columns(fitted, x.numpy(), y, means=means)) if out.endswith(TABLES) else {}
    write(drawn | as_arrays({"x": x.numpy()}) | table)
    done({"n": n, "shape": list(x.shape), "out": out}, as_json=json)


def _columns(fitted: Fit, x: np.ndarray, y: str | None, *, means: bool) -> dict[str, np.ndarray]:
    """The columns of new rows ``(n, D)`` as the data had them, and their classes where they were drawn by class.

    Means are no whole numbers and no booleans.
    """
    names = fitted.spec.columns or [f"x{place}" for place in range(1, x.shape[1] + 1)]
    table = {column.name: column for column in fitted.spec.table if column.coded or column.dtype in DATES or not means}
    if fitted.spec.kind.discrete and not means:
        x = x.astype(np.int64)
    numbers = dict(zip(names, x.T, strict=True))
    columns = {name: decoded(column, table[name]) if name in table else column for name, column in numbers.items()}
    if fitted.pair.model_facts.labelled:
        classes = np.array(fitted.spec.classes if y is None else [y])
        columns[fitted.data.label or "y"] = classes[np.arange(len(x)) % len(classes)]
    return columns


def options(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    run_options(parser)
    parser.add_argument("--n", type=int, default=64, help="how many data")
    parser.add_argument("--out", type=str, required=True, help="a .png picture, an .npy array or a table: .csv, .parquet")
    parser.add_argument("--y", type=str | None, help="a class, by its name, of a model conditioned on labels")
    parser.add_argument("--means", action="store_true", help="take the means of p(x | z) instead of draws from it")
    parser.add_argument("--draws", action="store_true", help="what is done anyway; taken for older scripts")
    parser.add_argument("--temperature", type=float, default=1.0, help="times the scales of p(z), of normal latent variables")
