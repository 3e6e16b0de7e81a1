"""What verbs print and write: JSON, tables, notes, files."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
import typing
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ppl_vae.storage.atomic import replaced
from ppl_vae.types import FitWarning

__all__ = ["done", "notes", "print_json", "print_table", "save_atomically", "save_table", "say_saved", "writer"]


def print_json(content: dict[str, Any]) -> None:
    """Print one JSON object."""
    print(json.dumps(content))


def print_table(splits: dict[str, dict[str, Any]], unit: str) -> None:
    """Print a row of numbers for each split."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=unit, title_justify="left")
    columns = list(dict.fromkeys(name for numbers in splits.values() for name in numbers))
    for column in ["", *columns]:
        table.add_column(column, justify="right")
    for split, numbers in splits.items():
        table.add_row(split, *(f"{value:.3f}" if isinstance(value, float) else str(value) for value in numbers.values()))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def say_saved(folder: Path | None) -> None:
    """Name what was written, if anything was."""
    if folder is not None:
        print(f"saved in {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")


def done(content: dict[str, Any], *, as_json: bool) -> None:
    """Print the one result of a verb that writes a file."""
    if as_json:
        print_json(content)
    else:
        print(", ".join(f"{name}: {value}" for name, value in content.items()))


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


def writer(out: str, *suffixes: str) -> Callable[[dict[str, Callable[[Path], None]]], None]:
    """Check the output's suffix before any work is done; the result writes by it."""
    path = Path(out)
    if path.suffix not in suffixes:
        raise ValueError(f"expected --out to end in {' or '.join(suffixes)}, got {out!r}")

    def write(by_suffix: dict[str, Callable[[Path], None]]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        by_suffix[path.suffix](path)

    return write


def save_atomically(path: Path, save: Callable[[typing.BinaryIO], None]) -> None:
    """Write a file that appears whole or not at all."""
    with replaced(path) as partial, partial.open("wb") as file:
        save(file)


def save_table(path: Path, columns: dict[str, np.ndarray]) -> None:
    """Write columns of one length as comma-separated values under their names; whole numbers as such."""

    def save(file: typing.BinaryIO) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(columns)
        rows.writerows(zip(*map(_cells, columns.values()), strict=True))
        text.detach()

    save_atomically(path, save)


def _cells(column: np.ndarray) -> np.ndarray:
    """Shortest texts that stand for the values."""
    if column.dtype.kind == "f" and bool((np.isfinite(column) & (column == np.floor(column)) & (abs(column) < 2**53)).all()):
        column = column.astype(np.int64)
    return column.astype(str)
