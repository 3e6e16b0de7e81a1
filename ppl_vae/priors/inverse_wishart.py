"""The inverse-Wishart prior of covariance matrices, and their coordinates on the whole real space."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Transform, biject_to, constraints, transform_to

from ppl_vae.declaration import require
from ppl_vae.priors.base import Prior, Support

__all__ = ["InverseWishart", "InverseWishartDistribution", "covariance"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class InverseWishart(Prior):
    """p(Sigma) proportional to |Sigma|^(-(nu + D + 1) / 2) exp(-tr(Psi Sigma^-1) / 2), conjugate to a normal's covariance.

    nu = D + excess and Psi = scale^2 I: the mean, Psi / (nu - D - 1), is scale^2 I at an excess of 2. Gelman et al., *Bayesian
    Data Analysis* (2013), section 3.6.

    Args:
        excess: degrees of freedom above the number of columns D; more is stronger.
        scale: standard deviation that the prior expects, in the units of what the model sees.

    Raises:
        ValueError: an excess of -1 or less, where there is no density, or a scale that is not positive.

    Example:
        >>> InverseWishart().build((4, 3, 3))().event_shape
        torch.Size([4, 3, 3])
    """

    support: ClassVar[Support] = "covariance"

    excess: float = 2.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        require(-1 < self.excess < math.inf, "an excess above -1", self.excess)
        require(0 < self.scale < math.inf, "a positive scale", self.scale)

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """A module whose call returns the distribution on ``(*batch, D, D)``, matrices independent.

        Raises:
            ValueError: a shape that does not end in a square.
        """
        require(len(shape) >= 2 and shape[-1] == shape[-2], "a shape (..., D, D)", shape)
        return InverseWishartModule(self.excess, torch.full(shape[:-2], float(self.scale)), shape[-1])

    def story(self, shape: tuple[int, ...]) -> str:
        """The density as text."""
        return f"InverseWishart(D + {self.excess:g}, {self.scale:g}^2 I)"


class InverseWishartModule(nn.Module):
    """Its scale is a buffer, so it follows ``.to(device)``."""

    scale: Tensor

    def __init__(self, excess: float, scale: Tensor, columns: int) -> None:
        super().__init__()
        self.excess = excess
        self.columns = columns
        self.register_buffer("scale", scale, persistent=False)

    def forward(self) -> dist.Distribution:
        """p(Sigma)."""
        return InverseWishartDistribution(self.excess, self.scale, self.columns).to_event(self.scale.dim())


class Covariance(type(constraints.positive_definite)):  # type: ignore[misc]
    """Positive definite matrices; its own class, because torch's has no bijection registered."""


covariance = Covariance()


class InverseWishartDistribution(dist.TorchDistribution):
    """Inverse-Wishart with nu = D + excess and Psi = scale^2 I, ``scale`` of the batch shape."""

    arg_constraints: ClassVar[dict[str, Any]] = {"scale": constraints.positive}
    support = covariance
    has_rsample = True

    def __init__(self, excess: float, scale: Tensor, columns: int, validate_args: bool | None = None) -> None:
        self.excess = excess
        self.scale = scale
        super().__init__(scale.shape, torch.Size((columns, columns)), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> InverseWishartDistribution:
        """The same distribution over a larger batch."""
        expanded = self.scale.expand(torch.Size(batch_shape))
        return InverseWishartDistribution(self.excess, expanded, self.event_shape[0], validate_args=False)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws through Bartlett's A: Sigma = (A^-1)^T Psi A^-1, where A A^T ~ Wishart(nu, I)."""
        D = self.event_shape[0]
        shape = torch.Size(sample_shape) + self.batch_shape
        freedom = D + self.excess - torch.arange(D, dtype=self.scale.dtype, device=self.scale.device)
        diagonal = torch.distributions.Chi2(freedom).rsample(shape).sqrt()
        A = self.scale.new_empty(*shape, D, D).normal_().tril(-1) + diagonal.diag_embed()
        inverse = torch.linalg.solve_triangular(A, torch.eye(D, dtype=A.dtype, device=A.device).expand_as(A), upper=False)
        return self.scale[..., None, None].square() * (inverse.mT @ inverse)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of Sigma ``(..., D, D)`` in nats."""
        if self._validate_args:
            self._validate_sample(value)
        D = self.event_shape[0]
        nu = D + self.excess
        L = torch.linalg.cholesky(value)
        log_det = 2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        identity = torch.eye(D, dtype=L.dtype, device=L.device).expand_as(L)
        trace = self.scale.square() * torch.linalg.solve_triangular(L, identity, upper=False).square().sum((-2, -1))
        constant = nu * D * (self.scale.log() - math.log(2) / 2) - _log_multigamma(nu / 2, D)
        return constant - (nu + D + 1) / 2 * log_det - trace / 2


class CovarianceTransform(Transform):
    """R^(D (D + 1) / 2) -> positive definite matrices: the rows of log-Cholesky's lower triangle (Pinheiro and Bates 1996)."""

    domain = constraints.real_vector
    codomain = covariance
    bijective = True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CovarianceTransform)

    def __hash__(self) -> int:
        return hash(CovarianceTransform)

    def _call(self, x: Tensor) -> Tensor:
        D = _side(x.shape[-1])
        rows, columns = torch.tril_indices(D, D, device=x.device)
        raw = x.new_zeros(*x.shape[:-1], D * D).index_copy(-1, rows * D + columns, x).unflatten(-1, (D, D))
        L = raw.tril(-1) + raw.diagonal(dim1=-2, dim2=-1).exp().diag_embed()
        return L @ L.mT

    def _inverse(self, y: Tensor) -> Tensor:
        L = torch.linalg.cholesky(y)
        raw = L.tril(-1) + L.diagonal(dim1=-2, dim2=-1).log().diag_embed()
        rows, columns = torch.tril_indices(*y.shape[-2:], device=y.device)
        return raw[..., rows, columns]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """D log 2 + sum_i (D - i + 2) log L_ii, i = 1..D: one power more than of L -> L L^T, for the diagonal's exponential."""
        D = _side(x.shape[-1])
        i = torch.arange(D, device=x.device)
        return D * math.log(2) + ((D - i + 1) * x[..., i * (i + 3) // 2]).sum(-1)

    def forward_shape(self, shape: Any) -> torch.Size:
        """``(..., D (D + 1) / 2)`` to ``(..., D, D)``."""
        D = _side(shape[-1])
        return torch.Size((*shape[:-1], D, D))

    def inverse_shape(self, shape: Any) -> torch.Size:
        """``(..., D, D)`` to ``(..., D (D + 1) / 2)``."""
        return torch.Size((*shape[:-2], shape[-1] * (shape[-1] + 1) // 2))


@biject_to.register(covariance)
@transform_to.register(covariance)
def _to_covariance(constraint: Any) -> CovarianceTransform:
    return CovarianceTransform()


def _side(entries: int) -> int:
    return (math.isqrt(8 * entries + 1) - 1) // 2


def _log_multigamma(a: float, columns: int) -> float:
    """Log Gamma_D(a), D columns."""
    return columns * (columns - 1) / 4 * math.log(math.pi) + sum(math.lgamma(a - i / 2) for i in range(columns))
