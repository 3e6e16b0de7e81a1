"""How the vectors of a codebook follow the encoder's outputs (van den Oord, Vinyals and Kavukcuoglu 2017).

Of the outputs z_n of a batch, those nearest to vector e_k are its own, n in C_k.
"""

from __future__ import annotations

import abc
import dataclasses

import torch
from torch import Tensor, nn

from ppl_vae.declaration import Declaration, require

__all__ = ["EMA", "CodebookUpdate", "Gradient", "Vectors"]

LEAST = 1e-6  # outputs that a vector must have to be their mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodebookUpdate(Declaration, abc.ABC):
    """How a codebook's vectors learn; nothing else moves them but their start and restarts."""

    @abc.abstractmethod
    def build(self, size: int, dim: int) -> Vectors:
        """K vectors of D numbers each."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EMA(CodebookUpdate):
    r"""Each vector is the moving average of the outputs that are nearest to it; no gradient is taken.

    .. math:: N_k \leftarrow \gamma N_k + (1 - \gamma) |C_k|, \quad
        m_k \leftarrow \gamma m_k + (1 - \gamma) \sum_{n \in C_k} z_n, \quad e_k = m_k / N_k

    With a decay of 0 a step is one of Lloyd's k-means on the batch; with 1 the vectors stand still.

    Args:
        decay: gamma, what a step leaves of the sums before it.

    Raises:
        ValueError: a decay outside [0, 1].

    Examples:
        >>> EMA(decay=0.9)
        EMA(decay=0.9)
    """

    decay: float = 0.99

    def __post_init__(self) -> None:
        require(0 <= self.decay <= 1, "a decay in [0, 1]", self.decay)

    def build(self, size: int, dim: int) -> Vectors:
        """Vectors with the sums that they are made of."""
        return AveragedVectors(size, dim, self.decay)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gradient(CodebookUpdate):
    r"""The vectors are parameters, and climb beside the ELBO by the loss :math:`\sum_n |z_n - e_{k_n}|^2`, z held still.

    Examples:
        >>> Gradient()
        Gradient()
    """

    def build(self, size: int, dim: int) -> Vectors:
        """Vectors that an optimizer moves."""
        return TrainedVectors(size, dim)


class Vectors(nn.Module, abc.ABC):
    """K vectors of D numbers; a subclass says how they learn."""

    @property
    @abc.abstractmethod
    def values(self) -> Tensor:
        """The vectors ``(K, D)``."""

    @abc.abstractmethod
    def loss(self, outputs: Tensor, codes: Tensor) -> Tensor:
        """What the vectors lose by outputs ``(N, D)`` of these codes ``(N,)``, each ``(N,)``."""

    @abc.abstractmethod
    def follow(self, outputs: Tensor, codes: Tensor, counts: Tensor) -> None:
        """Learn from outputs ``(N, D)``, their codes ``(N,)`` and how many each code has ``(K,)``."""

    @abc.abstractmethod
    def put(self, chosen: Tensor, vectors: Tensor) -> None:
        """Let the chosen of the vectors ``(K,)`` be those of ``vectors (K, D)``, as if they had begun there."""


class AveragedVectors(Vectors):
    """Moving averages."""

    vectors: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, size: int, dim: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        start = _start(size, dim)
        self.register_buffer("vectors", start)
        self.register_buffer("counts", torch.ones(size))
        self.register_buffer("sums", start.clone())

    @property
    def values(self) -> Tensor:
        """The averages."""
        return self.vectors

    def loss(self, outputs: Tensor, codes: Tensor) -> Tensor:
        """Nothing."""
        return outputs.new_zeros(len(outputs))

    def follow(self, outputs: Tensor, codes: Tensor, counts: Tensor) -> None:
        """Average on."""
        sums = torch.zeros_like(self.sums).index_add_(0, codes, outputs)
        self.counts.mul_(self.decay).add_(counts, alpha=1 - self.decay)
        self.sums.mul_(self.decay).add_(sums, alpha=1 - self.decay)
        means = self.sums / self.counts.clamp_min(LEAST)[:, None]
        self.vectors.copy_(torch.where(self.counts[:, None] > LEAST, means, self.vectors))

    @torch.no_grad()
    def put(self, chosen: Tensor, vectors: Tensor) -> None:
        """Begin the averages there, each with one output."""
        self.vectors.copy_(torch.where(chosen[:, None], vectors, self.vectors))
        self.sums.copy_(torch.where(chosen[:, None], vectors, self.sums))
        self.counts.copy_(torch.where(chosen, 1.0, self.counts))


class TrainedVectors(Vectors):
    """Parameters, and a shift of each to where it was put: an optimizer's parameters change at its steps alone."""

    shift: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(_start(size, dim))
        self.register_buffer("shift", torch.zeros(size, dim))

    @property
    def values(self) -> Tensor:
        """The parameters, shifted."""
        return self.weight + self.shift

    def loss(self, outputs: Tensor, codes: Tensor) -> Tensor:
        """Squared distances, by which the vectors alone move."""
        return (outputs.detach() - self.values[codes]).square().sum(-1)

    def follow(self, outputs: Tensor, codes: Tensor, counts: Tensor) -> None:
        """Nothing: the optimizer does."""

    @torch.no_grad()
    def put(self, chosen: Tensor, vectors: Tensor) -> None:
        """Shift them."""
        self.shift.copy_(torch.where(chosen[:, None], vectors - self.weight, self.shift))


def _start(size: int, dim: int) -> Tensor:
    return torch.empty(size, dim).uniform_(-1 / size, 1 / size)
