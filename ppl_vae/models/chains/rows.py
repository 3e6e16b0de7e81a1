"""What programs of rows share: padded rows, their distribution, and how long new ones are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from ppl_vae.data.matrices import Matrices
from ppl_vae.data.ragged import sequence_mask
from ppl_vae.exact.sharing import add_up, own
from ppl_vae.program.base import ModelProgram
from ppl_vae.program.lengths import RowLengths
from ppl_vae.program.rows import data_plate
from ppl_vae.types import DataSpec

__all__ = ["Block", "RowDistribution", "RowProgram", "all_and_own", "check_elements", "row_blocks", "total_of", "widened"]

ROWS_AT_ONCE = 512  # whose states at one time stay in the cache


class Block(NamedTuple):
    """Padded rows ``(B, T, *element)``, which elements are no padding ``(B, T)``, and weights ``(B,)`` where rows have such."""

    x: Tensor
    inside: Tensor
    weights: Tensor | None

    @property
    def total(self) -> Tensor:
        """How many rows they count as."""
        return self.inside.new_tensor(len(self.x), dtype=torch.float64) if self.weights is None else self.weights.sum()

    def spread(self, values: Tensor) -> Tensor:
        """Values of all elements ``(B, T, K)`` of those that are no padding ``(M, K)``, times their rows' weights."""
        found = values if self.weights is None else values * self.weights.to(values)[:, None, None]
        return found[self.inside]


class RowDistribution(dist.TorchDistribution):
    """p(row) of padded rows of given lengths.

    Args:
        density: log p of rows ``(B, T, *element)``, ``(B,)``.
        draw: rows of these lengths.
        batch_shape: ``(B,)``.
        event_shape: ``(T, *element)``.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    has_rsample = False

    def __init__(
        self, density: Callable[[Tensor], Tensor], draw: Callable[[], Tensor], batch_shape: Any, event_shape: Any
    ) -> None:
        self.density, self.draw = density, draw
        super().__init__(torch.Size(batch_shape), torch.Size(event_shape), validate_args=False)

    @property
    def support(self) -> Any:
        """Rows of numbers."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> RowDistribution:
        """The same with a larger batch shape."""
        return RowDistribution(self.density, self.draw, batch_shape, self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """In nats, of each row."""
        return self.density(value).expand(self.batch_shape)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """New rows, of the same lengths."""
        shape = (*torch.Size(sample_shape), *self.batch_shape)
        several = shape[:-1]
        drawn = torch.stack([self.draw() for _ in range(torch.Size(several).numel())])
        return drawn.reshape(*several, *drawn.shape[1:])


class RowProgram(ModelProgram):
    """p(row): what a program of rows is beside ``log_density`` and ``continued``, which it says itself.

    Args:
        spec: of the data: rows that differ in length, ``(T, *element)``, read with their lengths; or rows of one length.
    """

    latent = "discrete"
    takes_weights = True

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.size = spec.size
        self.ragged = spec.ragged
        self.reads = ("x", "length") if spec.ragged else ("x",)
        self.element = spec.event_shape if spec.ragged else spec.event_shape[1:]
        self.tokens = spec.kind.levelled
        self.lengths = RowLengths(1 if spec.ragged else spec.event_shape[0])

    def forward(self, *batch: Any, **fields: Any) -> Any:
        """The story, with the batch's x observed; what is hidden is summed out."""
        batch = (*batch, *fields.values())
        x, inside = self.padded(*batch)

        def draw() -> Tensor:
            nothing = x[:, :0]
            return self.continued(nothing, inside.new_zeros(len(x), dtype=torch.int64), x.shape[1]).to(batch[0].dtype)

        with data_plate(self.size, x):
            p = RowDistribution(lambda value: self.log_density(*self.padded(value, *batch[1:])), draw, (len(x),), x.shape[1:])
            return pyro.sample("x", p, obs=batch[0])

    def padded(self, x: Tensor, length: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Rows ``(B, T, *element)``, tokens as whole numbers, and which elements are no padding ``(B, T)``."""
        inside = x.new_ones(x.shape[:2], dtype=torch.bool) if length is None else sequence_mask(length, x.shape[1])
        return (x.long() if self.tokens else x), inside

    def log_density(self, x: Tensor, inside: Tensor) -> Tensor:
        """Log p of each row ``(B,)``, with gradients."""
        raise NotImplementedError

    def continued(self, given: Tensor, length: Tensor, steps: int, *, end: int | None = None) -> Tensor:
        """What may follow given elements."""
        raise NotImplementedError

    def drawn_lengths(self, least: Tensor) -> Tensor:
        """Lengths of new rows, as those of the training rows."""
        return self.lengths.drawn(least)


def row_blocks(program: RowProgram, rows: Any) -> Iterator[Block]:
    """The rows of a split in blocks, in float64 where they are numbers; or rows ``(N, T, *element)`` as they are.

    Raises:
        ValueError: noise that is drawn anew at every pass, or a row of length 0.
    """
    if not isinstance(rows, Matrices):
        yield Block(*program.padded(widened(rows)), None)
        return
    rows.check_fixed()
    split = rows.split
    if split.sizes is not None and bool((split.sizes == 0).any()):
        place = int((split.sizes == 0).nonzero()[0])
        raise ValueError(f"expected rows with at least one element, got none in row {place} (from 0): leave it out")
    order, start = split.order(program.reads), 0
    for batch in split.read(program.reads, ROWS_AT_ONCE):
        part = order[start : start + len(batch[0])]
        start += len(part)
        x, inside = program.padded(*batch)
        yield Block(widened(x), inside, None if rows.weights is None else rows.weights[part])


def all_and_own(program: RowProgram, rows: Any) -> tuple[Iterable[Block], list[Block]]:
    """The blocks of all rows, and those of the own ones of rows that are shared: of a lone process the same, read once."""
    mine = own(rows)
    blocks = list(row_blocks(program, mine))
    return blocks if mine is rows else row_blocks(program, rows), blocks


def total_of(rows: Any, blocks: Iterable[Block]) -> float:
    """How many rows they all count as; ``blocks`` are the own ones of rows that are shared."""
    total = torch.stack([block.total for block in blocks]).sum()
    add_up(rows, [total])
    return float(total)


def widened(x: Tensor) -> Tensor:
    """Numbers in float64; tokens as they are."""
    return x.double() if x.is_floating_point() else x


def check_elements(what: str, spec: DataSpec, most: int) -> None:
    """Raise ``ValueError`` if data are no rows of elements with at most so many axes."""
    element = spec.event_shape if spec.ragged else spec.event_shape[1:]
    if not spec.ragged and not spec.event_shape:
        raise ValueError(f"{what} is a model of rows of elements, but these data are single numbers: give rows (N, T)")
    if len(element) > most:
        expected = "one symbol" if most == 0 else "numbers (D,)"
        raise ValueError(
            f"{what} is a model of rows whose elements are {expected}, but these are of shape {element}: give rows "
            f"{'(N, T)' if most == 0 else '(N, T) or (N, T, D)'}, or Ragged"
        )
    if spec.missing:
        raise ValueError(f"{what} takes no missing entries: load the data with missing='error', or fill them")
