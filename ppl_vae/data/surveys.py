"""What a column holds, found from its cells piece by piece: what :func:`~ppl_vae.data.cells.encoded` says of all at once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal

import numpy as np

from ppl_vae.data.cells import (
    WHOLE,
    Cells,
    Numbers,
    check_told_apart,
    encoded,
    is_numeric,
    numbers_spelled,
    refuse_odd_numbers,
    times_spelled,
)
from ppl_vae.data.missing import absent
from ppl_vae.types import Column

__all__ = ["Survey", "keep_within", "key_of"]

EACH = 120  # bytes that a short text takes in a set, beside its letters


class Texts:
    """The different texts of a column: those that spell numbers, those that spell times, and the others.

    The first two matter only where there are others as well, and are forgotten, ``None``, when there is no room for them.
    """

    def __init__(self) -> None:
        self.numbers: set[str] | None = set()
        self.times: set[str] | None = set()
        self.others: set[str] = set()
        self.first: str | None = None
        self.forgotten = 0  # how many that spell numbers
        self.longest_time = 0
        self.nbytes = 0

    def add(self, texts: Iterable[str]) -> None:
        """Take note of different texts."""
        for text in texts:
            self.first = text if self.first is None else min(self.first, text)
            if text in self.others or text in (self.numbers or ()) or text in (self.times or ()):
                continue
            number, time = is_numeric(text, ()), times_spelled(np.array([text])) is not None
            self.longest_time = max(self.longest_time, len(text)) if time else self.longest_time
            held = self.numbers if number else self.times if time else self.others
            if held is not None:
                held.add(text)
                self.nbytes += len(text) + EACH

    def forget(self) -> None:
        """Keep no texts that spell numbers or times, if all texts so far are such."""
        if self.others or not (self.numbers or self.times):
            return
        self.forgotten = max(self.forgotten, len(self.numbers or ()))
        self.numbers, self.times = (None if held is None or held else held for held in (self.numbers, self.times))
        self.nbytes = 0

    @property
    def timed(self) -> bool:
        """Whether all spell times."""
        return not self.others and self.numbers is not None and not self.numbers and self.times != set()

    def all(self, name: str) -> list[str]:
        """Each different one, sorted.

        Raises:
            ValueError: some had to be forgotten.
        """
        if self.numbers is None or self.times is None:
            raise too_many(name)
        return sorted(self.numbers | self.times | self.others)


class Survey:
    """What is known of a column from the cells that were seen of it.

    Args:
        name: of the column.
        spelled: texts that stand for a missing entry, in lower case.
        keep: whether its different texts are kept, as they must be where it is to be data.
        count: whether different cells are counted, as those of labels are.
        numbering: whether it might number the rows, by its name.

    Attributes:
        rows: how many cells were seen.
        there: how many of them are not missing.
        numeric: of a column that might number the rows whether all cells are numbers.
        rising: whether these are whole, each larger than the one before.
        texts: the different ones.
        counts: how often each cell was seen, by :func:`key_of`, where they are counted.
    """

    def __init__(
        self, name: str, spelled: Collection[str], *, keep: bool = True, count: bool = False, numbering: bool = False
    ) -> None:
        self.name, self.spelled, self.keep, self.count = name, spelled, keep, count
        self.counts: Counter[Any] = Counter()
        self.rows = self.there = 0
        self.numeric = self.rising = numbering
        self.texts = Texts()
        self._last = -np.inf
        self._found: set[str] = set()  # of numbers, booleans, times, texts, categories
        self._numbers, self._dtypes, self._seen = Numbers(), set[np.dtype](), set[np.dtype]()
        self._integers = self._timed = self._typed = False
        self._spelled = self._written_whole = True
        self._categories: dict[str, None] = {}
        self._error: ValueError | None = None

    def add(self, cells: Cells) -> None:
        """Take note of some cells, which follow those before."""
        values = cells.values
        missing = absent(values, self.spelled)
        there = values[~missing]
        self.rows, self.there = self.rows + len(values), self.there + len(there)
        self._rise(values)
        self._seen.add(values.dtype)
        if self.count:
            self.counts.update(map(key_of, values.tolist()))
        if cells.categories is not None:
            self._found.add("categories")
            self._categories |= dict.fromkeys(cells.categories)
        elif values.dtype.kind == "M":
            self._found.add("times")
            self._timed = self._timed or not (cells.dtype == "date" or np.datetime_data(values.dtype)[0] == "D")
        elif values.dtype.kind in "iuf":
            self._found.add("numbers")
            self._dtypes.add(values.dtype)
            self._integers = self._integers or cells.dtype == "integer"
            self._numbers.add(there)
        elif values.dtype.kind == "b" or (len(there) and all(isinstance(cell, bool | np.bool_) for cell in there.tolist())):
            self._found.add("booleans")
        elif len(there) and all(isinstance(cell, str) for cell in there.tolist()):
            self._found.add("texts")
            self._add_texts(there.astype(str), typed=cells.dtype == "text")
        elif len(there):
            self._refuse(cells)

    @property
    def nbytes(self) -> int:
        """What the different texts and cells take in memory."""
        return self.texts.nbytes + EACH * len(self.counts)

    @property
    def distinct(self) -> np.ndarray:
        """The different cells that were counted, ``(n,)``, in the order of :attr:`counts`."""
        kinds = {dtype.kind for dtype in self._seen}
        if "O" not in kinds:
            return np.array(list(self.counts), dtype=str if "U" in kinds else np.result_type(*self._seen))
        cells = np.empty(len(self.counts), dtype=object)
        cells[:] = list(self.counts)
        return cells

    @property
    def dtype(self) -> np.dtype:
        """Of the numbers that stand for all cells, once :attr:`column` is known."""
        column, complete = self.column, self.there == self.rows
        if "numbers" in self._found:
            return np.result_type(*self._dtypes)
        if column.dtype == "boolean":
            return np.dtype(bool if complete else np.float64)
        return np.dtype(np.int64 if complete and (column.coded or column.dtype == "integer") else np.float64)

    @property
    def column(self) -> Column:
        """What all cells hold.

        Raises:
            ValueError: what :func:`~ppl_vae.data.cells.encoded` refuses, or more different texts than there was room for.
        """
        if self._error is not None:
            raise self._error
        if len(self._found) > 1:
            raise ValueError(f"expected one kind of values in column {self.name!r}, got {' and '.join(sorted(self._found))}")
        if "categories" in self._found:
            return self._coded(list(self._categories), "category")
        if "times" in self._found:
            return Column(name=self.name, kind="real", dtype="datetime" if self._timed else "date")
        if "numbers" in self._found:
            return self._number()
        if "booleans" in self._found:
            return Column(name=self.name, kind="binary", dtype="boolean")
        return self._of_texts() if "texts" in self._found else Column(name=self.name, kind="real", dtype="float")

    def _number(self) -> Column:
        whole = all(dtype.kind in "iu" for dtype in self._dtypes)
        if whole and self.rows:
            check_told_apart(self.name, self._numbers.low, self._numbers.high)
        dtype: Literal["integer", "float"] = "integer" if self._integers or whole else "float"
        return Column(name=self.name, kind=self._numbers.kind, dtype=dtype)

    def _of_texts(self) -> Column:
        if self._spelled and not self._typed:
            whole = self._written_whole and self._numbers.whole
            if whole:
                check_told_apart(self.name, self._numbers.low, self._numbers.high)
            return Column(name=self.name, kind=self._numbers.kind, dtype="integer" if whole else "float")
        found = self.texts
        alone = found.numbers == found.times == set()
        if not self._typed and alone and {text.lower() for text in found.others} <= {"true", "false"}:
            return Column(name=self.name, kind="binary", dtype="boolean")
        if found.timed:
            return Column(name=self.name, kind="real", dtype="datetime" if found.longest_time > 10 else "date")
        if found.times is None:
            raise too_many(self.name)
        numbers = max(found.forgotten, len(found.numbers or ()))  # at least so many
        refuse_odd_numbers(self.name, sorted(found.others | found.times), numbers=numbers, first=str(found.first))
        return self._coded(found.all(self.name), "text")

    def _coded(self, categories: Sequence[str], dtype: str) -> Column:
        kind = "binary" if len(categories) <= 2 else "category"
        return Column(name=self.name, kind=kind, dtype=dtype, categories=tuple(categories))  # type: ignore[arg-type]

    def _add_texts(self, there: np.ndarray, *, typed: bool) -> None:
        self._typed = self._typed or typed
        if self._spelled and not typed:
            numbers = numbers_spelled(there)
            self._spelled = numbers is not None
            if numbers is not None:
                self._numbers.add(numbers)
                self._written_whole = self._written_whole and all(WHOLE.fullmatch(text) for text in there.tolist())
                if self.texts.numbers is None:
                    return
        if self.keep:
            self.texts.add(np.unique(there).tolist())

    def _rise(self, values: np.ndarray) -> None:
        if not self.numeric or not len(values):
            return
        numbers = values if values.dtype.kind in "biuf" else numbers_spelled(values) if values.dtype.kind == "U" else None
        self.numeric = numbers is not None
        if numbers is not None and self.rising:
            x = numbers.astype(np.float64)
            self.rising = bool((x == np.floor(x)).all() and (np.diff(x, prepend=self._last) > 0).all())
            self._last = float(x[-1])

    def _refuse(self, cells: Cells) -> None:
        """Keep the error of cells that no numbers stand for; it is told if the column is data."""
        try:
            encoded(cells, self.spelled)
            raise ValueError(f"expected numbers, text, booleans or dates in column {self.name!r}, got objects: convert it")
        except ValueError as error:
            self._error = self._error or error


def keep_within(surveys: Sequence[Survey], most: int, source: str) -> None:
    """Forget texts that are not needed until those of all columns take at most so many bytes.

    Raises:
        ValueError: those that are needed take more.
    """
    if sum(survey.nbytes for survey in surveys) <= most:
        return
    for survey in surveys:
        survey.texts.forget()
    if sum(survey.nbytes for survey in surveys) > most:
        raise ValueError(f"{source}: {too_many(max(surveys, key=lambda survey: survey.nbytes).name)}")


def key_of(cell: Any) -> Any:
    """A cell as one that equals itself, as NaN does not."""
    return cell if cell == cell else math.nan


def too_many(name: str) -> ValueError:
    """The error for a column with more different texts than are kept."""
    return ValueError(
        f"expected a column whose different texts fit in the block of stream=, got more in column {name!r}: leave it out "
        f"(drop, --data.drop {name}) if it names the rows, or declare a larger stream"
    )
