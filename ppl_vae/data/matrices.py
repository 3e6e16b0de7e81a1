"""A split in its order, for what is computed from all data in a few passes."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ppl_vae.data.sparse import ELEMENTS, Sparse
from ppl_vae.data.split import Split

__all__ = ["Batches", "Matrices"]


ROWS_AT_ONCE = 8192


class Batches:
    """A split as the model sees it, ``(B, *event)`` in the order of the data, walked anew at every pass; never held whole.

    Its ``weights (N,)`` are those of the rows, ``None`` if all count once.
    """

    def __init__(self, split: Split, batch_size: int) -> None:
        self.split = split
        self.batch_size = batch_size
        self.weights = split.weights

    def __iter__(self) -> Iterator[Tensor]:
        return self.split.batches(self.batch_size)


class Matrices:
    """A split as matrices ``(B, D)`` in the order of the data, walked anew at every pass; never held whole.

    Args:
        split: the rows.
        relative: the weights are such that rows which count at all count once on average: nothing is to depend on their scale,
            as a likelihood's maximum does not. By default they are the rows' own.

    Attributes:
        weights: of the rows ``(N,)``; ``None`` if all count once.
    """

    def __init__(self, split: Split, *, relative: bool = False) -> None:
        self.split = split
        self.weights = split.weights
        if relative and self.weights is not None:
            self.weights = self.weights * ((self.weights > 0).sum() / self.weights.sum())

    def check_fixed(self) -> None:
        """Raise ``ValueError`` if the data are others at every pass."""
        if self.split.transform.noisy:
            raise ValueError(
                "EM, CAVI and closed forms need data that stay the same at every pass: draw their noise once "
                "(dequantize='static', binarize='static') or leave the values as they are (dequantize='none', binarize='none')"
            )

    def __iter__(self) -> Iterator[Tensor]:
        self.check_fixed()
        held = self.split.raw
        size = min(ROWS_AT_ONCE, max(1, ELEMENTS // held.columns)) if isinstance(held, Sparse) else ROWS_AT_ONCE
        return (x.flatten(1) for x in self.split.batches(size))
