"""``ppl-vae encode``: the latent codes of data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_vae import runs
from ppl_vae.cli.options import data_options, rows_of, run_options
from ppl_vae.cli.output import TABLES, as_arrays, as_table, done, writer

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["options", "run"]


def run(
    *,
    run: str,
    data: str | None,
    data_root: str | None,
    label: str | None,
    y: str | None,
    split: str | None,
    samples: int | None,
    path: bool,
    out: str,
    seed: int,
    device: str,
    trust: list[str],
    json: bool,
) -> None:
    """Write the posterior of the latent variables: means `z`, draws `samples`, labels `y`, which number the names `classes`.

    Where a latent variable is called `y`, as the class of a semi-supervised model is, the labels are `labels`.
    Of several latent variables there is an array for each under its own name, such as `z1`, and its draws as `samples_z1`. A
    table (.csv, .parquet) has a column for each dimension, `z1` of a lone `z` and `z1_1` of a `z1` among others, and the names
    of the classes. Of rows whose elements have a state each there is an entry for every element, those of row i from
    `offsets[i]` on, or the number of its `row` in a table; with `--path` it is the number of the most probable state.
    """
    write = writer(out, ".npz", *TABLES)
    if samples is not None and out.endswith(TABLES):
        raise ValueError(f"expected --out to end in .npz for --samples, which a table has no place for, got {out!r}")
    fitted = runs.load_run(run, trust=trust, device=device)
    _, rows = rows_of(fitted, data, data_root, split or "all", label=label, y=y)
    if path or fitted.elementwise:
        if samples is not None:
            raise ValueError("expected means or paths of elements, got --samples: draw them by fit.encode(x, samples=...)")
        _elements(fitted.encode(rows, path=path), write, out, as_json=json)
        return
    from ppl_vae.program.sites import leaves

    codes = fitted.encode(rows)
    arrays: dict[str, Any] = leaves(codes)
    if samples is not None:
        drawn = leaves(fitted.encode(rows, samples=samples, seed=seed), "")
        arrays |= {f"samples_{name}".rstrip("_"): draws for name, draws in drawn.items()}
    labels = "labels" if "y" in arrays else "y"
    if rows.y is not None:
        arrays[labels] = rows.y
    plain = {name: array.cpu().numpy() for name, array in arrays.items()}
    if rows.y is not None:
        plain["classes"] = np.array(rows.classes)
    own = {name: plain[name].reshape(len(rows), -1) for name in leaves(codes) if name not in fitted.shared}
    columns = _columns(own, between="_" if len(leaves(codes)) > 1 else "")
    if rows.y is not None:
        columns[labels] = np.array([*rows.classes, ""])[plain[labels]]
    write(as_arrays(plain) | as_table(columns))
    done({"n": len(rows), "arrays": {name: list(array.shape) for name, array in plain.items()}, "out": out}, as_json=json)


def _elements(codes: Any, write: Any, out: str, *, as_json: bool) -> None:
    """Write a code for each element of each row."""
    from ppl_vae.data import Ragged

    codes = codes if isinstance(codes, Ragged) else Ragged.from_list(list(codes.cpu()))
    values = codes.values.numpy().reshape(len(codes.values), -1)
    rows = np.repeat(np.arange(len(codes)), codes.lengths.numpy())
    columns = {"row": rows} | _columns({"z": values}, between="")
    write(as_arrays({"z": codes.values.numpy(), "offsets": codes.offsets.numpy()}) | as_table(columns))
    done({"n": len(codes), "elements": len(values), "out": out}, as_json=as_json)


def _columns(codes: dict[str, np.ndarray], *, between: str) -> dict[str, np.ndarray]:
    """A column for each dimension of each latent variable that a datum has of its own, of codes ``(n, K)`` by name."""
    return {f"{name}{between}{place}": column for name, code in codes.items() for place, column in enumerate(code.T, start=1)}


def options(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    run_options(parser)
    data_options(parser, default="all")
    parser.add_argument("--samples", type=int | None, help="also draw so many codes per datum")
    parser.add_argument("--path", action="store_true", help="the most probable states of each row together, in place of means")
    parser.add_argument("--out", type=str, required=True, help="an .npz file, or a table: .csv, .parquet")
