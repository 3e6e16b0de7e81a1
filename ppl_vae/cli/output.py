"""What verbs print and write: JSON, tables, notes, files."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import json
import math
import sys
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppl_vae.storage.atomic import replaced
from ppl_vae.types import FitWarning, Score

__all__ = [
    "TABLES",
    "as_arrays",
    "as_table",
    "cell",
    "done",
    "heading",
    "notes",
    "print_json",
    "print_table",
    "save_atomically",
    "save_lines",
    "save_table",
    "say_saved",
    "writer",
]

TABLES = (".csv", ".parquet")
"""Suffixes of tables with named columns."""


def print_json(content: dict[str, Any]) -> None:
    """Print one JSON object; a number that is none, or infinite, is null, since JSON has neither."""
    print(json.dumps(_plain(content), allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def heading(name: str, score: Score) -> str:
    """What people read in place of a number's name: of a score its label."""
    return score.label if name == score.name else name


def print_table(splits: dict[str, dict[str, Any]], unit: str, score: Score) -> None:
    """Print a column of numbers for each split, their standard errors beside them, among them that of the fit's score."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=unit, title_justify="left")
    for column in ["", *splits]:
        table.add_column(column, justify="right" if column else "left")
    names = list(dict.fromkeys(name for numbers in splits.values() for name in numbers))
    for name in names:
        if name.removesuffix("_se") not in names or not name.endswith("_se"):
            table.add_row(heading(name, score), *(_cell(numbers, name) for numbers in splits.values()))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def cell(value: Any) -> str:
    """A number as people read it, or several."""
    if isinstance(value, list):
        return " ".join(map(cell, value))
    if value is None:
        return "not to be trusted"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _cell(numbers: Mapping[str, Any], name: str) -> str:
    """A number with its standard error, as far as they are there."""
    if name not in numbers:
        return ""
    error = numbers.get(f"{name}_se")
    return cell(numbers[name]) if error is None else f"{cell(numbers[name])} ± {cell(error)}"


def say_saved(folder: Path | None) -> None:
    """Name what was written, if anything was."""
    if folder is not None:
        print(f"saved in {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")


def done(content: dict[str, Any], *, as_json: bool) -> None:
    """Print the one result of a verb that writes a file."""
    if as_json:
        print_json(content)
    else:
        print(", ".join(f"{name}: {_words(value)}" for name, value in content.items()))


def _words(value: Any) -> str:
    """A value as people read it, of several each after its name."""
    if isinstance(value, Mapping):
        return f"({', '.join(f'{name}: {inner}' for name, inner in value.items())})"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@contextlib.contextmanager
def notes(*, quiet: bool) -> Iterator[None]:
    """What a fit remarks on is one line on standard error, said once."""
    said = set()
    others: Callable[..., None] = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if not issubclass(category, FitWarning):
            others(message, category, *where, **more)
        elif str(message) not in said:
            said.add(str(message))
            print(f"ppl-vae: note: {' '.join(str(message).split())}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore" if quiet else "always", category=FitWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def writer(out: str, *suffixes: str) -> Callable[[Mapping[str, Callable[[Path], None]]], None]:
    """Check the output's suffix before any work is done; the result writes by it."""
    path = Path(out)
    if path.suffix not in suffixes:
        raise ValueError(f"expected --out to end in {' or '.join(suffixes)}, got {out!r}")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ValueError(f"{out}: writing parquet needs pyarrow: pip install 'ppl_vae[parquet]', or write .csv")

    def write(by_suffix: Mapping[str, Callable[[Path], None]]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        by_suffix[path.suffix](path)

    return write


def save_atomically(path: Path, save: Callable[[typing.BinaryIO], None]) -> None:
    """Write a file that appears whole or not at all."""
    with replaced(path) as partial, partial.open("wb") as file:
        save(file)


def save_lines(path: Path, texts: Sequence[str]) -> None:
    """Write texts, a line each, whole or not at all."""
    save_atomically(path, lambda file: file.write("".join(f"{text}\n" for text in texts).encode()))  # type: ignore[arg-type, return-value]


def as_table(columns: Mapping[str, np.ndarray]) -> dict[str, Callable[[Path], None]]:
    """What :func:`writer` writes of named columns of one length, by each suffix of :data:`TABLES`."""
    return {suffix: lambda path: save_table(path, columns) for suffix in TABLES}


def as_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, Callable[[Path], None]]:
    """What :func:`writer` writes of named arrays: all as .npz, the first alone as .npy."""
    first, named = next(iter(arrays.values())), dict[str, Any](arrays)
    return {
        ".npz": lambda path: save_atomically(path, lambda file: np.savez_compressed(file, **named)),
        ".npy": lambda path: save_atomically(path, lambda file: np.save(file, first)),
    }


def save_table(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write columns ``(n,)`` under their names, as comma-separated values or parquet by the suffix, whole or not at all.

    Parquet keeps dtypes; texts of a csv are the shortest that stand for the values, whole numbers as such. What is missing, NaN
    or ``None``, is an empty cell of a csv and null in parquet.
    """
    write = _write_parquet if path.suffix == ".parquet" else _write_csv
    save_atomically(path, lambda file: write(file, columns))


def _write_csv(file: typing.BinaryIO, columns: Mapping[str, np.ndarray]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(columns)
    rows.writerows(zip(*map(_cells, columns.values()), strict=True))
    text.detach()


def _write_parquet(file: typing.BinaryIO, columns: Mapping[str, np.ndarray]) -> None:
    import pyarrow
    from pyarrow import parquet

    missing = {name: _missing(column) for name, column in columns.items()}
    table = {
        name: pyarrow.array(column.tolist() if column.dtype.kind in "OU" else column, mask=missing[name])
        for name, column in columns.items()
    }
    parquet.write_table(pyarrow.table(table), file)


def _missing(column: np.ndarray) -> np.ndarray:
    """Which entries of a column are NaN, no date or ``None``."""
    if column.dtype.kind == "O":
        return np.array([value is None or value != value for value in column], dtype=bool)
    if column.dtype.kind in "fM":
        return np.isnat(column) if column.dtype.kind == "M" else np.isnan(column)
    return np.zeros(len(column), dtype=bool)


def _cells(column: np.ndarray) -> np.ndarray:
    """Shortest texts that stand for the values."""
    missing = _missing(column)
    known = column[~missing]
    if column.dtype.kind == "f" and bool((np.isfinite(known) & (known == np.floor(known)) & (abs(known) < 2**53)).all()):
        known = known.astype(np.int64)
    elif column.dtype.kind == "f" and bool((known == known.astype(np.float32)).all()):
        known = known.astype(np.float32)  # as which the data are held; more digits would be those of its rounding
    cells = np.full(column.shape, "", dtype=object)
    cells[~missing] = known.astype(str)
    return cells
