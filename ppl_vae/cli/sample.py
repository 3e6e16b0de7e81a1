"""``ppl-vae sample``: new data from a run."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_vae import plots, runs
from ppl_vae.cli.options import declared_rows, run_options
from ppl_vae.cli.output import TABLES, as_arrays, as_table, done, print_json, save_lines, writer
from ppl_vae.data.native import decoded
from ppl_vae.types import STROKES, FitWarning

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from ppl_vae.fitting import Fit

__all__ = ["options", "run"]

DATES = ("date", "datetime")


def run(
    *,
    run: str,
    n: int,
    out: str | None,
    y: str | None,
    given: str | None,
    length: int | None,
    temperature: float,
    top_p: float,
    steps: int | None,
    guidance: float,
    means: bool,
    draws: bool,
    seed: int,
    device: str,
    trust: list[str],
    json: bool,
) -> None:
    """Draw new data from the declared prior through the decoder: a picture (.png), an array (.npy) or a table (.csv, .parquet).

    Arrays and tables are in the units of the run's own data. A model conditioned on labels draws its classes in turn, or one;
    one that completes data completes the first test data. A model of rows draws them element after element, after those that
    are given: texts are printed, or written a line each (.txt), other rows as `values` and `offsets` (.npz), drawings also as a
    picture (.png, .svg).
    """
    if draws:
        if means:
            raise ValueError("expected draws or means, got --draws and --means: leave one out")
        warnings.warn("--draws is what ppl-vae sample does unless it is told --means: leave it out", FitWarning, stacklevel=2)
    fitted = runs.load_run(run, trust=trust, device=device)
    bold: dict[str, Any] = {"temperature": temperature, "top_p": top_p}
    if fitted.spec.ragged or given is not None or length is not None:
        _rows(fitted, n, out, given, length, y=y, means=means, seed=seed, as_json=json, **bold)
        return
    if out is None:
        raise ValueError("expected a file to write the data to, got none: give --out x.png, x.npy or x.csv")
    write = writer(out, ".png", ".npy", *TABLES)
    if out.endswith(TABLES) and len(fitted.spec.event_shape) != 1:
        raise ValueError(f"expected rows of one axis for a table, got {fitted.spec.event_shape}: write .npy or .png")
    known = None
    if fitted.pair.model_facts.known_entries is not None:
        known = fitted.rows(fitted.data, "test")[:n]
        n = min(n, len(known))
    x = fitted.sample(
        n, x=known, y=y, steps=steps, guidance=guidance, means=means, seed=seed, seen=out.endswith(".png"), **bold
    ).cpu()
    title = f"{'means of p(x | z)' if means else 'draws'} from {run}"
    drawn = {
        ".png": lambda path: plots.save(plots.grid(x, kind=fitted.spec.kind, title=title, names=fitted.spec.columns), path)
    }
    table = as_table(_columns(fitted, x.numpy(), y, means=means)) if out.endswith(TABLES) else {}
    write(drawn | as_arrays({"x": x.numpy()}) | table)
    done({"n": n, "shape": list(x.shape), "out": out}, as_json=json)


def _rows(
    fitted: Fit,
    n: int,
    out: str | None,
    given: str | None,
    length: int | None,
    *,
    y: str | None,
    means: bool,
    seed: int,
    as_json: bool,
    temperature: float,
    top_p: float,
) -> None:
    """Draw rows, element after element, and print or write them."""
    import torch

    from ppl_vae.data import Ragged

    begun: Any = given
    if given is not None and fitted.data.tokens is None:
        begun = fitted.rows(declared_rows(fitted, given, None), "all").as_read().raw
        if fitted.spec.kind == STROKES:  # drawings whose ends are where they are to go on
            begun = begun.mapped(lambda points: torch.cat([points[:, :2], points[:, 2:].clamp_max(1)], 1))
    rows = fitted.sample(n, y=y, given=begun, length=length, means=means, seed=seed, temperature=temperature, top_p=top_p)
    if isinstance(rows, list) and out is None:
        if as_json:
            print_json({"n": n, "texts": rows})
        else:
            print(_parted(rows))
        return
    if out is None:
        raise ValueError("expected a file to write the rows to, got none: give --out x.npz")
    if isinstance(rows, list):
        write = writer(out, ".txt")
        write({".txt": lambda path: save_lines(path, rows)})
    elif fitted.spec.kind == STROKES:
        drawn = dict.fromkeys((".png", ".svg"), lambda path: plots.save(plots.drawings(rows), path))
        writer(out, ".npz", ".png", ".svg")(drawn | as_arrays({"points": rows.values.numpy(), "offsets": rows.offsets.numpy()}))
    else:
        arrays = {"x_values": rows.values, "x_offsets": rows.offsets} if isinstance(rows, Ragged) else {"x": rows.cpu()}
        writer(out, ".npz")(as_arrays({name: array.numpy() for name, array in arrays.items()}))
    done({"n": n, "out": out}, as_json=as_json)


def _parted(texts: list[str]) -> str:
    r"""Texts a line each, or parted by a line of dashes where some have several lines.

    Examples:
        >>> _parted(["to be", "or not"]), _parted(["to be,\nor not", "to be"])
        ('to be\nor not', 'to be,\nor not\n---\nto be')
    """
    return ("\n---\n" if any("\n" in text for text in texts) else "\n").join(texts)


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
    parser.add_argument("--out", type=str | None, help="a .png picture, an .npy array or a table: .csv, .parquet")
    parser.add_argument("--y", type=str | None, help="a class, by its name, of a model conditioned on labels")
    parser.add_argument("--given", type=str | None, help="how rows begin: a text, or a file of rows as the run's data are")
    parser.add_argument("--length", type=int | None, help="how many elements rows have at most, those given among them")
    what = "below 1 draws are more timid: log-probabilities of elements or codes are divided by it, scales of p(z) multiplied"
    parser.add_argument("--temperature", type=float, default=1.0, help=what)
    what = "of each element of a row only the likeliest that together have this probability"
    parser.add_argument("--top_p", "--top-p", type=float, default=1.0, help=what)
    parser.add_argument("--steps", type=int | None, help="of a diffusion, fewer steps than it has: sooner, nearly the same")
    what = "of a diffusion given classes, how far what a class changes is exaggerated; at 0 data are draws of the model"
    parser.add_argument("--guidance", type=float, default=0.0, help=what)
    parser.add_argument("--means", action="store_true", help="take the means of p(x | z) instead of draws from it")
    parser.add_argument("--draws", action="store_true", help="what is done anyway; taken for older scripts")
