"""The words that every layer shares.

Legend of axes, used in every docstring:

====  ==========================================================
N     data in the training set
B     data in a batch
S     samples (particles) of a latent variable per datum
K     latent dimensions
P     likelihood parameters per data element (decoder features)
====  ==========================================================

``*event`` is the shape of one datum, such as ``(1, 28, 28)``. A decoder's features are
``(..., P, *event)``. Log-probabilities are in nats, and per datum wherever a number is reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ppl_vae.deprecation import renamed_in
from ppl_vae.kinds import BINARY, CATEGORICAL, COUNT, KINDS, REAL, STROKES, UNIT_INTERVAL, Kind, KindName
from ppl_vae.scores import SCORES, Score, score_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "BINARY",
    "CATEGORICAL",
    "COUNT",
    "FOUND_LABELS",
    "KINDS",
    "REAL",
    "SCORES",
    "STROKES",
    "UNIT_INTERVAL",
    "Channels",
    "CodePath",
    "Column",
    "DataSpec",
    "DirectionBy",
    "ELBOTerms",
    "Field",
    "FitWarning",
    "Kind",
    "KindName",
    "OutlierScore",
    "Record",
    "Report",
    "Score",
    "pass_name",
    "score_of",
]

Channels = Literal["joint", "each"]
"""How the channels of an image are restored: as one datum, or each by itself."""

CodePath = Literal["linear", "spherical", "prior"]
"""Ways from one code to another."""

DirectionBy = Literal["means", "probe"]
"""How a direction between codes of two kinds is found."""

OutlierScore = Literal["log_prob", "elbo", "iwae", "reconstruction", "kl", "regret", "typicality", "complexity"]
"""By what rows are strange."""

FOUND_LABELS = "(labels)"
"""By which programs read the class of each row that has one, while rows without make batches of their own."""

Record = dict[str, Any]
"""What a history says of one iteration: values by name."""

Report = Callable[[Record], None]
"""What is called with each row as soon as it is known."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """A named part of a datum, which a plain program takes as an argument.

    Args:
        name: of the argument; ``"0"``, ``"1"``, ... where programs are called by position.
        event_shape: shape of one datum's.
        kind: ``boolean``, ``integer`` or ``real`` numbers.
        partial: whether some rows lack it.
        ragged: whether rows differ in length: a batch of it is ``(B, T, *event_shape)``, T one of the ``buckets``.
        buckets: the lengths to which rows are padded, rising.
        length: of a ragged field the name of the field with the lengths of its rows, which programs read beside it.
        levels: of tokens, or of a category, how many there are.
        vocabulary: these, in the order of their numbers, where they are known.
        loc: what is subtracted from each element ``(*event_shape)``, in order, before programs get it; nothing if empty.
        scale: what it is divided by then.

    Raises:
        ValueError: a ragged field without buckets or a length.
    """

    name: str
    event_shape: tuple[int, ...]
    kind: Literal["boolean", "integer", "real"]
    partial: bool = False
    ragged: bool = False
    buckets: tuple[int, ...] = ()
    length: str = ""
    levels: int | None = None
    vocabulary: tuple[str, ...] = ()
    loc: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.ragged != bool(self.buckets) or self.ragged != bool(self.length):
            raise ValueError(f"expected buckets and a length of a ragged field alone, got {self.buckets} and {self.length!r}")

    @property
    def longest(self) -> int | None:
        """The longest that a row is padded to, of a ragged field."""
        return self.buckets[-1] if self.buckets else None


COLUMN_KINDS = ("real", "count", "binary", "category")
COLUMN_DTYPES = ("float", "integer", "boolean", "text", "category", "date", "datetime")


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table: one element of x, whatever it holds.

    Text and categories stand in x as codes 0, ..., L - 1, booleans as 0 and 1, dates and times as days since 1970-01-01 (UTC),
    which are fractions where there is a time of day; what is missing is NaN.

    Args:
        name: of the column.
        kind: what its numbers are: ``real``, ``count``, ``binary`` (two values, 0 and 1) or ``category`` (codes in no order).
        dtype: what the source holds: ``float``, ``integer``, ``boolean``, ``text``, ``category`` (as frames have them, in an
            order of their own), ``date`` or ``datetime``.
        categories: the texts that codes stand for, in the order of the codes; none of columns that hold no codes.

    Raises:
        ValueError: a field that is not what it should be.

    Examples:
        >>> Column(name="sex", kind="binary", dtype="text", categories=("female", "male")).levels
        2
    """

    name: str
    kind: Literal["real", "count", "binary", "category"]
    dtype: Literal["float", "integer", "boolean", "text", "category", "date", "datetime"]
    categories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, expected, found in (
            ("name", "a name", isinstance(self.name, str)),
            ("kind", f"one of {', '.join(COLUMN_KINDS)}", self.kind in COLUMN_KINDS),
            ("dtype", f"one of {', '.join(COLUMN_DTYPES)}", self.dtype in COLUMN_DTYPES),
            ("categories", "different texts", _names(self.categories) and len(set(self.categories)) == len(self.categories)),
        ):
            if not found:
                raise ValueError(f"expected {name} of a column: {expected}, got {str(getattr(self, name))[:80]!r}")

    @property
    def coded(self) -> bool:
        """Whether its numbers are codes of texts."""
        return self.dtype in ("text", "category")

    @property
    def levels(self) -> int:
        """How many values its codes can take; 0 of columns that hold no codes."""
        return 2 if self.kind == "binary" else len(self.categories)


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """What a model needs to know of the data before it can be built.

    Args:
        event_shape: shape of one datum as the model sees it, ``(channels, height, width)`` for images; of ragged data that of
            one element of a row.
        kind: the set the values lie in, or its name: ``binary`` {0, 1}, ``unit_interval`` [0, 1], ``real``,
            ``count`` {0, 1, 2, ...}, ``categorical`` {0, ..., levels - 1} or ``strokes``, rows (dx, dy, pen).
        size: N, the number of training data; scales a batch's ELBO to the whole set.
        weight: W, the sum of their weights, where they have some: how many rows the data count as beside parameters that carry
            priors.
        classes: names of the classes where the data are labelled.
        levels: number of categories of categorical data.
        missing: whether entries may be missing (NaN).
        columns: names of a table's columns, in the order of the event's elements, where they are known.
        fields: of data that were given as several, x the first; none of a lone x.
        table: what the columns of a table hold, in the same order, where they came with their dtypes.

    Raises:
        ValueError: a field that is not what it should be.
    """

    event_shape: tuple[int, ...]
    kind: Kind
    size: int
    classes: tuple[str, ...] = ()
    levels: int | None = None
    missing: bool = False
    columns: tuple[str, ...] = ()
    fields: tuple[Field, ...] = ()
    table: tuple[Column, ...] = ()
    weight: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.kind, (str, Kind)) and self.kind in KINDS:
            object.__setattr__(self, "kind", Kind.of(self.kind))
        sized = isinstance(self.event_shape, tuple) and all(_whole(size, 1) for size in self.event_shape)
        headed = sized and _names(self.columns) and len(self.columns) in (0, *self.event_shape[:1])
        parts = isinstance(self.fields, tuple) and all(isinstance(field, Field) for field in self.fields)
        tabled = isinstance(self.table, tuple) and all(isinstance(column, Column) for column in self.table)
        for name, expected, found in (
            ("event_shape", "whole numbers of at least 1", sized),
            ("kind", f"one of {', '.join(KINDS)}", isinstance(self.kind, Kind) and self.kind in KINDS),
            ("size", "a whole number", _whole(self.size, 0)),
            ("classes", "names", _names(self.classes)),
            ("columns", "names, one for each", headed),
            ("levels", "a whole number of at least 1, or none", self.levels is None or _whole(self.levels, 1)),
            ("missing", "true or false", isinstance(self.missing, bool)),
            ("fields", "fields", parts),
            ("table", "a column for each name", tabled and (not self.table or self._named(self.table))),
            ("weight", "a positive number, or none", self.weight is None or _positive(self.weight)),
        ):
            if not found:
                raise ValueError(f"expected {name} of data: {expected}, got {str(getattr(self, name))[:80]!r}")

    def _named(self, table: tuple[Column, ...]) -> bool:
        return tuple(column.name for column in table) == self.columns

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the largest value that an element can have."""
        high = self.levels - 1 if self.kind.levelled and self.levels is not None else self.kind.high
        return self.kind.low, high

    @property
    def ragged(self) -> bool:
        """Whether the rows of x differ in length."""
        return bool(self.fields) and self.fields[0].ragged

    @property
    def lengths(self) -> tuple[str, ...]:
        """The names of the fields that hold lengths of rows, each once."""
        return tuple(dict.fromkeys(field.length for field in self.fields if field.ragged))


def _names(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(name, str) for name in value)


def _positive(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def pass_name(history: Sequence[Mapping[str, Any]]) -> str:
    """What a row of a history is of: an epoch where there is a learning rate of its steps, else an iteration, as of EM."""
    return "epoch" if any("learning_rate" in row for row in history) else "iteration"


class ELBOTerms(NamedTuple):
    """The ELBO of each datum and its two halves, ``elbo = reconstruction - kl``, each ``(B,)`` in nats."""

    elbo: Tensor
    reconstruction: Tensor
    kl: Tensor


class FitWarning(UserWarning):
    """What there is to tell of data that are taken, or a result that is returned nevertheless, such as a dead component."""


if not TYPE_CHECKING:  # for which every name would exist
    __getattr__ = renamed_in(__name__, {"Remark": "FitWarning", "Row": "Record", "Terms": "ELBOTerms"})
