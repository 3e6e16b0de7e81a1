"""``ppl-vae interpolate``: what lies between two data of a run, by their codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ppl_vae import plots, runs
from ppl_vae.cli.options import data_options, rows_of, run_options
from ppl_vae.cli.output import TABLES, as_arrays, as_table, done, print_json, save_lines, writer
from ppl_vae.cli.walks import as_pictured
from ppl_vae.types import STROKES, CodePath

if TYPE_CHECKING:
    import torch
    from jsonargparse import ArgumentParser

    from ppl_vae.data import Split
    from ppl_vae.fitting import Fit

__all__ = ["options", "run"]


def run(
    *,
    run: str,
    start: str,
    end: str,
    steps: int,
    path: CodePath,
    data: str | None,
    data_root: str | None,
    label: str | None,
    y: str | None,
    split: str | None,
    out: str | None,
    seed: int,
    device: str,
    trust: list[str],
    json: bool,
) -> None:
    """Decode codes on the way from one datum to another: a picture (.png), an array (.npy) or a table (.csv, .parquet).

    The data are rows of a split by their numbers, from 0; of a run of texts also texts. Texts are printed, or written a line
    each (.txt); drawings are a picture (.png, .svg) or `points` and `offsets`; `x` and the codes come together (.npz).
    """
    fitted = runs.load_run(run, trust=trust, device=device)
    told = fitted.data.tokens is not None and fitted.spec.ragged
    rows: Split | None = None
    if any(_is_number(end_) for end_ in (start, end)) or not told:
        _, rows = rows_of(fitted, data, data_root, split or "test", label=label, y=y)
    ends = [_datum(each, rows, texts=told) for each in (start, end)]
    codes, decoded = fitted.interpolate(*ends, steps=steps, path=path, y=y, seen=as_pictured(fitted, out))
    if isinstance(decoded, list) and out is None:
        print_json({"steps": steps, "texts": decoded}) if json else print("\n".join(decoded))
        return
    if out is None:
        raise ValueError("expected a file to write the data to, got none: give --out x.png, x.npy or x.npz")
    if isinstance(decoded, list):
        writer(out, ".txt")({".txt": lambda file: save_lines(file, decoded)})
    else:
        from ppl_vae.program.sites import leaves

        arrays = {name: code.cpu().numpy() for name, code in leaves(codes).items()}
        _write(fitted, decoded, arrays, out, title=f"from {start} to {end}")
    done({"steps": steps, "path": path, "out": out}, as_json=json)


def _write(fitted: Fit, decoded: Any, codes: dict[str, Any], out: str, *, title: str) -> None:
    """Write data and their codes by the suffix of the file."""
    from ppl_vae.data import Ragged
    from ppl_vae.data.native import MEANS
    from ppl_vae.fitting.outputs import data_columns

    if isinstance(decoded, Ragged):
        name = "points" if fitted.spec.kind == STROKES else "x_values"
        values = {name: decoded.values.numpy(), "offsets" if name == "points" else "x_offsets": decoded.offsets.numpy()}
        each = [decoded[place] for place in range(len(decoded))]
        drawn = {suffix: lambda path: plots.save(_picture(fitted, each, title), path) for suffix in (".png", ".svg")}
        writer(out, ".npz", ".png", ".svg")(drawn | as_arrays(values | codes))
        return
    x = decoded.cpu()
    if out.endswith(TABLES) and x.dim() != 2:
        raise ValueError(f"expected rows of one axis for a table, got {fitted.spec.event_shape}: write .npy or .png")
    grid: dict[str, Any] = {"columns": len(x), "kind": fitted.spec.kind, "title": title, "names": fitted.spec.columns}
    picture = {".png": lambda path: plots.save(plots.grid(x, **grid), path)}
    table = as_table(data_columns(x, fitted.spec, between=MEANS)) if out.endswith(TABLES) else {}
    writer(out, ".png", ".npy", ".npz", *TABLES)(picture | as_arrays({"x": x.numpy()} | codes) | table)


def _picture(fitted: Fit, rows: list[torch.Tensor], title: str) -> Any:
    """Drawings beside each other, or other rows as series."""
    if fitted.spec.kind == STROKES:
        return plots.drawings(rows, columns=len(rows), title=title)
    return plots.series(rows, title=title, discrete=fitted.spec.kind.levelled)


def _is_number(given: str) -> bool:
    return given.isascii() and given.isdigit()


def _datum(given: str, rows: Split | None, *, texts: bool) -> Any:
    """A row by its number, or a text."""
    if not _is_number(given):
        if texts:
            return given
        raise ValueError(f"expected the number of a row, from 0, got {given!r}: texts are taken by runs of texts alone")
    assert rows is not None
    if int(given) >= len(rows):
        raise ValueError(f"expected the number of a row below {len(rows)}, got {given}")
    return rows[int(given)]


def options(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    run_options(parser)
    row = "a row by its number in the split, from 0; of a run of texts also a text"
    parser.add_argument("--start", "--from", type=str, required=True, help=f"the first datum: {row}")
    parser.add_argument("--end", "--to", type=str, required=True, help="the last one, likewise")
    parser.add_argument("--steps", type=int, default=8, help="how many codes, both ends among them")
    parser.add_argument(
        "--path", type=CodePath, default="linear", help="on the line, on an arc, or through the quantiles of p(z)"
    )
    data_options(parser, default="test")
    parser.add_argument("--out", type=str | None, help="a .png picture, .npy, .npz or a table; of texts .txt, of drawings .svg")
