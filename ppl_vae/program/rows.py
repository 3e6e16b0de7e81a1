"""The plate over the data: how many they are in all, and which rows of them a batch holds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

__all__ = ["Counting", "Looked", "data_plate", "grown", "last_rows", "numbered"]

_ROWS: ContextVar[Tensor | None] = ContextVar("rows", default=None)


@contextlib.contextmanager
def numbered(rows: Tensor | None) -> Iterator[None]:
    """Inside, batches consist of these rows ``(B,)`` of the training data, as :func:`data_plate` then tells."""
    token = _ROWS.set(rows)
    try:
        yield
    finally:
        _ROWS.reset(token)


def data_plate(size: int | None, x: Tensor) -> pyro.plate:
    """The plate over the data: ``size`` data in all (N), of which the batch ``x`` holds ``len(x)``; ``None`` for all of them.

    Sites inside are scaled by N / B, so a batch's ELBO estimates that of the whole data set. In a fit of plain programs,
    ``with data_plate(N, x) as rows`` gives the numbers ``(B,)`` of the batch's rows among the training data, for parameters
    that each datum has of its own: ``pyro.param("loc", torch.zeros(N))[rows]``.
    """
    rows = _ROWS.get()
    if rows is None or len(rows) != len(x):
        rows = torch.arange(len(x), device=x.device)
    return pyro.plate("data", max(size or 0, len(x)), subsample=rows)


def last_rows(size: int | None, x: Tensor) -> Tensor:
    """Rows of the largest numbers that there are, so that what they are wrong for fails."""
    return torch.arange(len(x), device=x.device) + max(0, (size or 0) - len(x))


class Counting(Messenger):
    """The plate over the data as the fit knows it.

    Args:
        names: of the plate; none if that is not known yet.
        batch: B.
        dim: of the plate; 0 if that is not known yet.
        size: N, as the plate counts it; B if that is not known yet.
        total: N, as the fit knows it.

    Sites of a plate that is as large as its batch of B count N / B times, as those of a plate of N with the batch as its
    subsample do. A plate that would draw a subsample of B gets the rows of the batch instead.
    """

    def __init__(self, names: tuple[str, ...], batch: int, dim: int, size: int, *, total: int | None) -> None:
        super().__init__()
        self.names = names
        self.batch = batch
        self.dim = dim
        self.size = size
        self.total = total

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            known = msg["name"] in self.names or (not self.names and msg["fn"].size == self.total)
            drawn = known and msg["value"] is None and msg["fn"].subsample_size == self.batch
            if drawn and _ROWS.get() is not None and self.batch < msg["fn"].size:
                msg["value"] = _ROWS.get()
        elif self.size != self.batch and any(self._grown(frame) for frame in msg["cond_indep_stack"]):
            msg["cond_indep_stack"] = tuple(
                frame._replace(size=self.batch, full_size=self.size) if self._grown(frame) else frame
                for frame in msg["cond_indep_stack"]
            )
            msg["scale"] = msg["scale"] * (self.size / self.batch)

    def _grown(self, frame: Any) -> bool:
        return frame.name in self.names and frame.dim == self.dim and grown(frame, self.batch)


def grown(frame: Any, batch: int) -> bool:
    """Whether a plate is as large as its batch, and would be as large as any other."""
    return frame.full_size in (batch, -1)


class Looked(TorchFunctionMode):
    """Whether a program uses a tensor for more than its size."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.tensor = tensor
        self.used = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in SIZES:
            self.used |= any(part is self.tensor for part in tree_leaves((args, kwargs)))
        return func(*args, **(kwargs or {}))


SIZES = {Tensor.size, Tensor.__len__, Tensor.dim, Tensor.shape.__get__, Tensor.device.__get__}  # type: ignore[attr-defined]
