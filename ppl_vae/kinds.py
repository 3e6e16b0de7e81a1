"""The sets that the elements of data lie in, as a model sees them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ppl_vae.named import Named

__all__ = ["BINARY", "CATEGORICAL", "COUNT", "KINDS", "REAL", "STROKES", "UNIT_INTERVAL", "Kind", "KindName"]

KindName = Literal["binary", "unit_interval", "real", "count", "categorical", "strokes"]
"""What declarations and YAML call the kinds."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Kind(Named):
    """The set that every element of a datum lies in. It equals its name: ``spec.kind == "binary"``.

    Args:
        name: as declarations and YAML have it.
        low: the least value.
        high: the largest; of levels, the one that the data do not exceed is :attr:`ppl_vae.DataSpec.limits`'.
        discrete: whether only whole numbers are in it.
        levelled: whether the values are the levels 0 to L - 1, L told by the data, in no order that a likelihood knows.
        composite: whether the elements of a datum are not all of one sort.
        remedy: what helps data that are to be of this kind and are not.

    Examples:
        >>> [kind.name for kind in KINDS.values() if kind.includes(COUNT)]
        ['real', 'count', 'categorical']
    """

    name: str
    low: float = -math.inf
    high: float = math.inf
    discrete: bool = False
    levelled: bool = False
    composite: bool = False
    remedy: str = ""

    @property
    def bounded(self) -> bool:
        """Whether both ends are known without the data."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def includes(self, other: Kind) -> bool:
        """Whether all values of another kind are of this one too, so that such data may be declared as this."""
        if self.composite and not other.composite:
            return False
        return self.low <= other.low and other.high <= self.high and (other.discrete or not self.discrete)

    @staticmethod
    def of(value: object) -> Kind:
        """The kind of a name, or the kind itself.

        Raises:
            ValueError: no kind of data; the message lists them.
        """
        kind = KINDS.get(str(value)) if isinstance(value, (str, Kind)) else None
        if kind is None:
            raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {str(value)[:80]!r}")
        return kind


WHOLE = "give integers >= 0 and use scale='none'"
BINARY = Kind(
    name="binary",
    low=0,
    high=1,
    discrete=True,
    remedy="recode two values as 0 and 1, threshold them, or draw from values in [0, 1] with binarize='dynamic'",
)
UNIT_INTERVAL = Kind(name="unit_interval", low=0, high=1, remedy="scale them with scale='unit'")
REAL = Kind(name="real")
COUNT = Kind(name="count", low=0, discrete=True, remedy=WHOLE)
CATEGORICAL = Kind(name="categorical", low=0, discrete=True, levelled=True, remedy=WHOLE)
STROKES = Kind(
    name="strokes", composite=True, remedy="give rows (dx, dy, pen), pen 1 where it is lifted after a point, 0 elsewhere"
)
"""Points of drawings: two offsets, and what the pen does then: 0 it stays on the paper, 1 it is lifted, 2 the drawing ends."""

KINDS: dict[str, Kind] = {kind.name: kind for kind in (BINARY, UNIT_INTERVAL, REAL, COUNT, CATEGORICAL, STROKES)}
"""Every kind by its name."""
