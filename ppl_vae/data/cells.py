"""Columns as they come, numbers, text, booleans, dates, to numbers, and what tells them apart.

================  ========================================  ==============================
cells             numbers in x                              kind
================  ========================================  ==============================
booleans          0 and 1                                   binary
text, categories  codes 0, ..., L - 1                       binary of two, else category
dates, times      days since 1970-01-01 (UTC)               real
numbers           as they are                               see :func:`guessed_kind`
================  ========================================  ==============================
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Collection, Sequence
from numbers import Integral, Number
from typing import Any, Literal, NamedTuple

import numpy as np

from ppl_vae.data.missing import absent, is_absent
from ppl_vae.types import Column

__all__ = [
    "WHOLE",
    "Cells",
    "Encoded",
    "Numbers",
    "check_told_apart",
    "codes_of",
    "encoded",
    "encoded_as",
    "guessed_kind",
    "is_numeric",
    "looks_like_an_identifier",
    "numbers_spelled",
    "refuse_odd_numbers",
    "times_spelled",
]

DAY = np.timedelta64(1, "D")
EPOCH = np.datetime64("1970-01-01", "us")
DATE, TIME = r"\d{4}-\d{2}-\d{2}", r"[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?"
ODD_NUMBERS = (
    (r"[-+\d.,' ]*\d,\d[\d.,' ]*", "write numbers with a decimal point and without separators of thousands"),
    (r"[-+]?\d{1,3}(_\d{3})+(\.\d*)?", "write numbers without _ between digits"),
    (r"[-+\d.,]+([;\t]\s*[-+\d.,]+)+", "separate cells by commas, or all of them by semicolons or tabs and decimals by points"),
    (r"[-+\d.]+( +[-+\d.eE]+)+", "separate cells by commas"),
)
"""How texts look that were meant for numbers, and what to do about them."""
AMOUNT = r"[-+]?\d+(\.\d+)?"
ODD_QUANTITIES = (
    (rf"{AMOUNT}\s*%", "write percentages as numbers, without %"),
    (rf"[-+]?[$€£¥]\s*{AMOUNT}|{AMOUNT}\s*[$€£¥]", "write amounts as numbers, without the sign of a currency"),
    (r"\d{1,2}[./-]\d{1,2}[./-]\d{4}|\d{4}[./]\d{1,2}[./]\d{1,2}", "write dates as 2024-03-05 (ISO 8601)"),
)
"""How texts look that were meant for quantities where all do, and there are more than a few: else they may be categories."""
FEW = 10
WHOLE = re.compile(r"[+-]?\d+")
IDENTIFIERS, DIFFERENT = 20, 0.9  # more texts than this, and more of the rows than this, name the rows
HEAD = 1000
EXACT = 2**53  # up to which float64 has every whole number
LOW = 0.1  # counts begin at this share of their mean, or below


class Cells(NamedTuple):
    """A column as a reader gives it.

    Args:
        name: of the column.
        values: numbers, booleans, times of numpy, text or objects, ``(N,)``; text of numpy may spell numbers.
        categories: the texts that there may be, in their order, where the source knows them.
        dtype: what it holds, where the source says it better than the values.
    """

    name: str
    values: np.ndarray
    categories: tuple[str, ...] | None = None
    dtype: Literal["date", "integer", "text"] | None = None


class Encoded(NamedTuple):
    """The numbers ``(N,)`` of a column, with NaN where it is missing, and what they are."""

    values: np.ndarray
    column: Column


def encoded(cells: Cells, spelled: Collection[str]) -> Encoded:
    """The numbers that stand for cells.

    Args:
        cells: of a column.
        spelled: texts that stand for a missing entry, in lower case.

    Raises:
        ValueError: what is neither numbers, text, booleans nor dates, or numbers among which some are none.

    Examples:
        >>> encoded(Cells("sex", np.array(["m", "f", "NA"], dtype=object)), {"na"}).values
        array([ 1.,  0., nan])
    """
    name, values = cells.name, cells.values
    if cells.categories is not None:
        return _coded(name, values, absent(values, spelled), cells.categories, "category")
    if values.dtype.kind == "M":
        return _dated(name, values, time=not (cells.dtype == "date" or np.datetime_data(values.dtype)[0] == "D"))
    if values.dtype.kind in "biuf":
        return _number(name, values, "integer" if cells.dtype == "integer" else None)
    if values.dtype.kind not in "UO":
        raise ValueError(f"expected numbers, text, booleans or dates in column {name!r}, got {values.dtype}: convert it")
    missing = absent(values, spelled)
    there = values[~missing]
    if not len(there):
        return Encoded(np.full(values.shape, np.nan), Column(name=name, kind="real", dtype="float"))
    if all(isinstance(cell, str) for cell in there.tolist()):
        return _of_text(cells, there.astype(str), missing, spelled)
    return _of_objects(name, there, missing)


def encoded_as(cells: Cells, column: Column, spelled: Collection[str]) -> np.ndarray:
    """The numbers ``(n,)`` that stand for some of the cells of a column of which it is known what all of them are.

    Args:
        cells: some of a column's.
        column: what :func:`encoded` says of all of them.
        spelled: texts that stand for a missing entry, in lower case.
    """
    if column.coded:
        return encoded(cells._replace(categories=column.categories), spelled).values
    if cells.values.dtype.kind in "biuf":
        return cells.values
    if column.dtype == "float" and cells.values.dtype.kind in "UO":  # whole numbers among them may be of any size
        missing = absent(cells.values, spelled)
        return _placed(cells.values[~missing].astype(np.float64), missing)
    return encoded(cells, spelled).values


class Numbers:
    """What is to be known of numbers to tell their kind, from all of them or piece by piece.

    Attributes:
        whole: whether all are whole.
        low: the smallest.
        high: the largest.
    """

    def __init__(self) -> None:
        self.whole = True
        self.low: float = math.inf
        self.high: float = -math.inf
        self._number, self._total = 0, 0.0

    def add(self, values: np.ndarray) -> None:
        """Take note of numbers ``(n,)``, of which none is missing."""
        if not len(values):
            return
        self.whole = self.whole and (values.dtype.kind != "f" or bool((values == np.floor(values)).all()))
        self.low, self.high = min(self.low, values.min().item()), max(self.high, values.max().item())
        self._number += len(values)
        self._total += float(values.sum(dtype=np.float64))

    @property
    def kind(self) -> Literal["real", "count", "binary"]:
        """What they probably are, see :func:`guessed_kind`."""
        if not self._number or not self.whole or self.low < 0:
            return "real"
        if self.high <= 1:
            return "binary"
        return "count" if self.low <= LOW * (self._total / self._number) else "real"


def codes_of(name: str, texts: Sequence[str], categories: Sequence[str]) -> np.ndarray:
    """The places of texts among categories, ``(N,)``.

    Raises:
        ValueError: a text that is none of them.
    """
    places = {text: place for place, text in enumerate(categories)}
    if unknown := sorted(set(texts) - places.keys()):
        known = ", ".join(categories[:20]) + (f", ... ({len(categories)})" if len(categories) > 20 else "")
        got = ", ".join(repr(text[:40]) for text in unknown[:5])
        raise ValueError(
            f"expected in column {name!r} one of {known}, got {got}: leave out or correct those rows, or fit again with them"
        )
    return np.array([places[text] for text in texts], dtype=np.int64)


def guessed_kind(values: np.ndarray) -> Literal["real", "count", "binary"]:
    """What numbers ``(N,)`` probably are, missing ones left out.

    ``binary`` if there is nothing but 0 and 1; ``count`` if all are whole, none is negative and the smallest is at most a tenth
    of the mean; else ``real``: whole numbers far above zero, such as years and ages, are described by a density, and codes of
    categories cannot be told from them (declare those as text, or as categories of the frame).

    Examples:
        >>> [guessed_kind(np.array(x)) for x in ([0, 1], [0, 3, 12], [1990, 2003], [0.5, 2])]
        ['binary', 'count', 'real', 'real']
    """
    for rows in (values[:HEAD], values):  # of most columns that hold fractions the first rows do
        there = rows[~np.isnan(rows)] if rows.dtype.kind == "f" else rows
        if bool((there != np.floor(there)).any()):
            return "real"
    numbers = Numbers()
    numbers.add(there)
    return numbers.kind


def is_numeric(cell: object, spelled: Collection[str]) -> bool:
    """Whether a cell holds a number, or stands for a missing one."""
    if isinstance(cell, str) and "_" in cell:  # between digits Python's numbers have it
        return is_absent(cell, spelled)
    try:
        return is_absent(cell, spelled) or (not np.iscomplexobj(cell) and float(cell) is not None)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return False


def looks_like_an_identifier(column: Column, there: int) -> bool:
    """Whether nearly every one of so many rows that are not missing has another text: more than 20, more than nine of ten."""
    return column.dtype == "text" and len(column.categories) > max(IDENTIFIERS, DIFFERENT * there)


def _coded(name: str, values: np.ndarray, missing: np.ndarray, categories: Sequence[str], dtype: Any) -> Encoded:
    codes = codes_of(name, [str(cell) for cell in values[~missing].tolist()], categories)
    kind: Literal["binary", "category"] = "binary" if len(categories) <= 2 else "category"
    return Encoded(_placed(codes, missing), Column(name=name, kind=kind, dtype=dtype, categories=tuple(categories)))


def _dated(name: str, values: np.ndarray, *, time: bool) -> Encoded:
    """Times of numpy as days."""
    missing = np.isnat(values)
    days = _placed((values[~missing].astype("datetime64[us]") - EPOCH) / DAY, missing)
    return Encoded(days, Column(name=name, kind="real", dtype="datetime" if time else "date"))


def _number(name: str, values: np.ndarray, dtype: Literal["float", "integer", "boolean"] | None = None) -> Encoded:
    """Numbers, and booleans as 0 and 1."""
    if values.dtype.kind in "iu" and len(values):
        check_told_apart(name, int(values.min()), int(values.max()))
    found = dtype or {"b": "boolean", "f": "float"}.get(values.dtype.kind, "integer")
    kind = "binary" if found == "boolean" else guessed_kind(values)
    return Encoded(values, Column(name=name, kind=kind, dtype=found))  # type: ignore[arg-type]


def check_told_apart(name: str, *numbers: float) -> None:
    """Raise ``ValueError`` if a whole number is so large that floats have not all of its neighbours."""
    if (largest := max(numbers, key=abs)) and abs(largest) > EXACT:
        raise ValueError(
            f"expected whole numbers up to 2^53 in column {name!r}, which floats tell apart, got {largest:.0f}: leave it out "
            "(drop, --data.drop), subtract a constant, or convert it to text if it names things"
        )


def _of_text(cells: Cells, there: np.ndarray, missing: np.ndarray, spelled: Collection[str]) -> Encoded:
    """Text, or what it spells: numbers and booleans where cells have no dtype (csv), dates everywhere."""
    name, typed = cells.name, cells.dtype == "text"
    numbers = None if typed else numbers_spelled(there)
    if numbers is not None:
        whole = bool((numbers == np.floor(numbers)).all()) and all(WHOLE.fullmatch(text) for text in there.tolist())
        if whole:
            check_told_apart(name, numbers.min(), numbers.max())
        return _number(name, _placed(numbers.astype(np.int64) if whole else numbers, missing), "integer" if whole else "float")
    texts, places = np.unique(there, return_inverse=True)
    if not typed and set(np.char.lower(texts)) <= {"true", "false"}:
        return _number(name, _placed(np.char.lower(there) == "true", missing), "boolean")
    times = times_spelled(texts)
    if times is not None:
        values = np.full(missing.shape, np.datetime64("NaT"), dtype="datetime64[us]")
        values[~missing] = times[places]
        return _dated(name, values, time=any(len(text) > 10 for text in texts.tolist()))
    numeric = np.array([is_numeric(text, ()) for text in texts.tolist()])
    refuse_odd_numbers(name, texts[~numeric].tolist(), numbers=int(numeric.sum()), first=texts[0])
    return _coded(name, cells.values, missing, texts.tolist(), "text")


def _of_objects(name: str, there: np.ndarray, missing: np.ndarray) -> Encoded:
    """Objects of Python that are not text: booleans, numbers, dates."""
    cells = there.tolist()
    if all(isinstance(cell, bool | np.bool_) for cell in cells):
        return _number(name, _placed(there.astype(bool), missing), "boolean")
    if all(isinstance(cell, Number) and not isinstance(cell, complex) for cell in cells):
        whole = all(isinstance(cell, Integral) for cell in cells)
        if whole:
            check_told_apart(name, min(cells), max(cells))
        return _number(name, _placed(there.astype(np.float64), missing), "integer" if whole else "float")
    if all(isinstance(cell, datetime.date) for cell in cells):
        values = np.full(missing.shape, np.datetime64("NaT"), dtype="datetime64[us]")
        values[~missing] = [_universal(cell) for cell in cells]
        return _dated(name, values, time=any(isinstance(cell, datetime.datetime) for cell in cells))
    kinds = sorted({type(cell).__name__ for cell in cells})
    raise ValueError(f"expected numbers, text, booleans or dates in column {name!r}, got {', '.join(kinds)}: convert it to one")


def _placed(values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """The values where something is there, NaN elsewhere; as they are if nothing is missing."""
    if not missing.any():
        return values
    placed = np.full(missing.shape, np.nan)
    placed[~missing] = values
    return placed


def numbers_spelled(texts: np.ndarray) -> np.ndarray | None:
    """The numbers that all of the texts spell, or none; with ``_`` between digits, as Python's, they spell none."""
    try:
        found: np.ndarray = texts.astype(np.float64)
    except ValueError:
        return None
    return None if (np.char.find(texts.astype(str), "_") >= 0).any() else found


def times_spelled(texts: np.ndarray) -> np.ndarray | None:
    """The times that all of the texts spell by ISO 8601, or none."""
    if not all(re.fullmatch(f"{DATE}({TIME})?", text) for text in texts.tolist()):
        return None
    try:
        return np.array([_universal(datetime.datetime.fromisoformat(text)) for text in texts.tolist()], dtype="datetime64[us]")
    except ValueError:  # a thirteenth month
        return None


def _universal(time: datetime.date) -> np.datetime64:
    """A date, or a time in UTC, where it says its zone."""
    if isinstance(time, datetime.datetime) and time.tzinfo is not None:
        time = time.astimezone(datetime.UTC).replace(tzinfo=None)
    return np.datetime64(time, "us")


def refuse_odd_numbers(name: str, others: Sequence[str], *, numbers: int, first: str) -> None:
    """Raise ``ValueError`` if texts were meant for numbers: half of them are, or look like others' ways of writing them.

    Args:
        name: of their column.
        others: the different texts that spell no numbers, sorted.
        numbers: how many different ones do.
        first: the first text of all.
    """
    told = f"expected numbers in column {name!r}, got"
    for text in others:
        for pattern, remedy in ODD_NUMBERS:
            if re.fullmatch(pattern, text):
                raise ValueError(f"{told} {text[:40]!r}: {remedy}")
    for pattern, remedy in ODD_QUANTITIES if len(others) > FEW else ():
        if all(re.fullmatch(pattern, text) for text in others):
            raise ValueError(
                f"expected numbers or dates in column {name!r}, got {others[0][:40]!r}: {remedy}, or leave the column out "
                f"(--data.drop {name})"
            )
    if not others:
        raise ValueError(f"{told} {first[:40]!r}: convert the text of this column to numbers or to categories, or drop it")
    if numbers >= len(others):
        raise ValueError(
            f"{told} {others[0][:40]!r}: drop or encode it, make it the label, or name it in missing_text if it "
            f"stands for a missing entry (--data.drop {name} leaves the column out)"
        )
