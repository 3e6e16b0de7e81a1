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

    nu = D + excess and Psi = diag(scale^2): the mean, Psi / (nu - D - 1), is Psi at an excess of 2. Gelman et al., *Bayesian
    Data Analysis* (2013), section 3.6.

    Args:
        excess: degrees of freedom above the number of columns D; more is stronger.
        scale: standard deviation that the prior expects, one for all columns or one each, in the units of what the model sees.

    Raises:
        ValueError: an excess of -1 or less, where there is no density, or a scale that is not positive; on building, a
            number of scales that is not that of the columns.

    Examples:
        >>> InverseWishart().build((4, 3, 3))().event_shape
        torch.Size([4, 3, 3])
    """

    support: ClassVar[Support] = "covariance"

    excess: float = 2.0
    scale: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", tuple(self.scale) if isinstance(self.scale, (tuple, list)) else self.scale)
        scales = self.scale if isinstance(self.scale, tuple) else (self.scale,)
        require(-1 < self.excess < math.inf, "an excess above -1", self.excess)
        require(bool(scales) and all(0 < scale < math.inf for scale in scales), "a positive scale", self.scale)

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """A module whose call returns the distribution on ``(*batch, D, D)``, matrices independent.

        Raises:
            ValueError: a shape that does not end in a square.
        """
        require(len(shape) >= 2 and shape[-1] == shape[-2], "a shape (..., D, D)", shape)
        several = isinstance(self.scale, tuple)
        if isinstance(self.scale, tuple) and len(self.scale) != shape[-1]:
            raise ValueError(f"expected one scale or {shape[-1]}, one for each column, got {len(self.scale)}")
        scale = torch.as_tensor(self.scale, dtype=torch.get_default_dtype())
        return InverseWishartModule(self.excess, (scale if several else scale.expand(shape[-1])).expand(shape[:-1]).clone())

    def story(self, shape: tuple[int, ...]) -> str:
        """The density as text."""
        if isinstance(self.scale, tuple):
            return f"InverseWishart(D + {self.excess:g}, diag({', '.join(f'{s:g}' for s in self.scale)})^2)"
        return f"InverseWishart(D + {self.excess:g}, {self.scale:g}^2 I)"


class InverseWishartModule(nn.Module):
    """The scales ``(*batch, D)`` are a buffer, so they follow ``.to(device)``."""

    scale: Tensor

    def __init__(self, excess: float, scale: Tensor) -> None:
        super().__init__()
        self.excess = excess
        self.register_buffer("scale", scale, persistent=False)

    @property
    def freedom(self) -> Tensor:
        """nu, of each matrix, ``(*batch,)``."""
        return torch.full_like(self.scale[..., 0], self.scale.shape[-1] + self.excess)

    def forward(self) -> dist.Distribution:
        """p(Sigma)."""
        return InverseWishartDistribution(self.freedom, self.scale.diag_embed()).to_event(self.scale.dim() - 1)


class Covariance(type(constraints.positive_definite)):  # type: ignore[misc]
    """Positive definite matrices; its own class, because torch's has no bijection registered."""


covariance = Covariance()


class InverseWishartDistribution(dist.TorchDistribution):
    """Inverse-Wishart.

    Args:
        freedom: nu, ``(*batch,)``.
        scale_tril: the Cholesky factor of Psi, ``(*batch, D, D)``.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"freedom": constraints.positive, "scale_tril": constraints.lower_cholesky}
    support = covariance
    has_rsample = True

    def __init__(self, freedom: Tensor, scale_tril: Tensor, validate_args: bool | None = None) -> None:
        batch = torch.broadcast_shapes(freedom.shape, scale_tril.shape[:-2])
        self.freedom = freedom.expand(batch)
        self.scale_tril = scale_tril.expand(*batch, *scale_tril.shape[-2:])
        super().__init__(batch, scale_tril.shape[-2:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> InverseWishartDistribution:
        """The same distribution over a larger batch."""
        shape = torch.Size(batch_shape)
        scale_tril = self.scale_tril.expand(*shape, *self.event_shape)
        return InverseWishartDistribution(self.freedom.expand(shape), scale_tril, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Psi / (nu - D - 1), where nu is above D + 1."""
        less = self.freedom - self.event_shape[0] - 1
        return self.scale_tril @ self.scale_tril.mT / torch.where(less > 0, less, math.nan)[..., None, None]

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws through Bartlett's A: Sigma = L (A^-1)^T A^-1 L^T, where A A^T ~ Wishart(nu, I) and Psi = L L^T."""
        D = self.event_shape[0]
        shape = torch.Size(sample_shape) + self.batch_shape
        freedom = self.freedom[..., None] - torch.arange(D, dtype=self.freedom.dtype, device=self.freedom.device)
        diagonal = torch.distributions.Chi2(freedom).rsample(torch.Size(sample_shape)).sqrt()
        A = self.scale_tril.new_empty(*shape, D, D).normal_().tril(-1) + diagonal.diag_embed()
        factor = torch.linalg.solve_triangular(A, self.scale_tril.mT.expand_as(A), upper=False)
        return factor.mT @ factor

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of Sigma ``(..., D, D)`` in nats."""
        if self._validate_args:
            self._validate_sample(value)
        D, nu = self.event_shape[0], self.freedom
        L = torch.linalg.cholesky(value)
        log_det = 2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        trace = torch.linalg.solve_triangular(L, self.scale_tril.expand_as(L), upper=False).square().sum((-2, -1))
        constant = nu * (self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1) - D * math.log(2) / 2)
        return constant - torch.special.multigammaln(nu / 2, D) - (nu + D + 1) / 2 * log_det - trace / 2


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
