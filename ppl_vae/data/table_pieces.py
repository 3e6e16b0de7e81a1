"""Tables in files, read in pieces that fit in memory: as often as needed, each time the same."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from ppl_vae.data.arrays import unreadable
from ppl_vae.data.cells import Cells, is_numeric
from ppl_vae.data.conversions import Plan
from ppl_vae.data.delimited import Written, has_names, lines_of
from ppl_vae.data.frames import cells_of_frame
from ppl_vae.data.missing import spellings
from ppl_vae.data.source import DataSource
from ppl_vae.data.stream import budget
from ppl_vae.data.surveys import Survey, keep_within
from ppl_vae.data.tables import INDEX, index_of, opened_parquet

__all__ = ["CsvFile", "ParquetFile", "TableFile"]

CELL, LETTER = 150, 6  # bytes that a cell takes while it is read, and each of its letters
SAMPLE = 2**16  # bytes of a csv file by which the number of its rows is guessed


class TableFile(ABC):
    """A table in a file, which is read in pieces.

    Attributes:
        path: of the file.
        source: its declaration.
        index: names of columns that are no data.
        room: bytes that a piece may take.
    """

    def __init__(self, path: Path, source: DataSource) -> None:
        self.path, self.source = path, source
        self.spelled = spellings(source.missing_text)
        self.index: Collection[str] = ()
        self.room = budget(source.stream or 1) // 2

    @abstractmethod
    def plan(self) -> Plan:
        """What a conversion will take."""

    @abstractmethod
    def surveyed(self) -> list[Survey]:
        """What is known of each column, from one pass over all rows."""

    @abstractmethod
    def pieces(self) -> Iterator[list[Cells]]:
        """The columns of some rows after the other, once they are surveyed."""

    def surveys(self, *names: Sequence[str]) -> list[Survey]:
        """Surveys of columns that may have these names, nothing seen yet."""
        return [
            Survey(
                each[0],
                self.spelled,
                keep=any(map(self._is_wanted, each)),
                count=self.source.label in each,
                numbering=INDEX.fullmatch(each[0]) is not None,
            )
            for each in zip(*names, strict=True)
        ]

    def look(self, surveys: Sequence[Survey], piece: Sequence[Cells]) -> None:
        """Add some rows to surveys."""
        for survey, cells in zip(surveys, piece, strict=True):
            survey.add(cells)
        keep_within(surveys, self.room, str(self.path))

    def _is_wanted(self, name: str) -> bool:
        """Whether a column of this name may be data or a field."""
        source = self.source
        if name in (source.label, source.weights):
            return False
        return name in source.fields or (name not in source.drop and (not source.columns or name in source.columns))


class CsvFile(TableFile):
    """A csv or tsv file, whose lines are read one by one."""

    def __init__(self, path: Path, source: DataSource) -> None:
        super().__init__(path, source)
        self.names: list[str] = []
        self.named = False

    def plan(self) -> Plan:
        """By the number of lines in the first bytes."""
        size, columns = self.path.stat().st_size, len(next(lines_of(self.path, strict=True)))
        with self.path.open("rb") as file:
            sample = file.read(SAMPLE)
        rows = round(size * (sample.count(b"\n") + 1) / max(1, len(sample)))
        return Plan(2, rows, 8 * rows * (len(self.source.columns) or columns - len(self.source.drop)))

    def surveyed(self) -> list[Survey]:
        """Of the lines below the first, and of the first if it holds no names."""
        lines = lines_of(self.path, strict=True)
        first = next(lines)
        positions = [str(place) for place in range(len(first))]
        found = self.surveys(first, positions)
        below: list[Written] = []
        asks = self.source.header is None and all(is_numeric(cell, self.spelled) for cell in first)
        for piece in self._texts(lines):
            self.look(found, [Cells(name, values) for name, values in zip(first, piece, strict=True)])
            if asks:
                now = [Written.of(np.unique(values).tolist(), self.spelled) for values in piece]
                below = [one | other for one, other in zip(below, now, strict=True)] if below else now
        self.named = has_names(self.path, first, lambda: below, self.source)
        self.names = first if self.named else positions
        if not self.named:
            self.look(found, [Cells(name, np.array([cell])) for name, cell in zip(positions, first, strict=True)])
        for survey, name in zip(found, self.names, strict=True):
            survey.name = name
        return found

    def pieces(self) -> Iterator[list[Cells]]:
        """As many lines at once as there is room for."""
        lines = lines_of(self.path, strict=True)
        if self.named:
            next(lines)
        for piece in self._texts(lines):
            yield [Cells(name, values) for name, values in zip(self.names, piece, strict=True)]

    def _texts(self, lines: Iterator[list[str]]) -> Iterator[list[np.ndarray]]:
        """The columns of as many lines as there is room for."""
        rows: list[list[str]] = []
        taken = longest = 0
        for row in lines:
            letters = max(map(len, row))
            longest, taken = max(longest, letters), taken + CELL * len(row) + LETTER * sum(map(len, row))
            if rows and taken + 4 * longest * (len(rows) + 1) > self.room:
                yield [np.array(column, dtype=str) for column in zip(*rows, strict=True)]
                rows, longest, taken = [], letters, CELL * len(row) + LETTER * sum(map(len, row))
            rows.append(row)
        if rows:
            yield [np.array(column, dtype=str) for column in zip(*rows, strict=True)]


class ParquetFile(TableFile):
    """A parquet file, of which some rows of a group are read at once."""

    def __init__(self, path: Path, source: DataSource) -> None:
        super().__init__(path, source)
        self.file = opened_parquet(path)
        self.index = index_of(self.file.schema_arrow)

    def plan(self) -> Plan:
        """By the numbers of rows and columns that the file tells."""
        about = self.file.metadata
        columns = len(self.source.columns) or about.num_columns - len(self.source.drop)
        return Plan(2, about.num_rows, 8 * about.num_rows * columns)

    def surveyed(self) -> list[Survey]:
        """Of all rows."""
        found = self.surveys(self.file.schema_arrow.names)
        for piece in self.pieces():
            self.look(found, piece)
        return found

    def pieces(self) -> Iterator[list[Cells]]:
        """As many rows at once as there is room for, at most those of a group."""
        import pyarrow

        size = max(1, self.room // (CELL * max(1, self.file.metadata.num_columns)))
        batches = self.file.iter_batches(size)
        while True:
            try:
                batch = next(batches, None)
            except Exception as error:  # pyarrow's errors have no common base but Exception
                raise unreadable(self.path, error) from None
            if batch is None:
                return
            yield cells_of_frame(pyarrow.Table.from_batches([batch]), str(self.path))
