"""The four covariance structures of a Gaussian mixture, as exponential families.

With phi(x) the second-order features of x, every component's log-density is linear in (1, x, phi(x))::

    log N(x | m, S) = a + b^T x + q^T phi(x)        b = S^-1 m,   q from S^-1,   a = -1/2 (D log 2 pi + log|S| + m^T S^-1 m)

so the E-step is one matrix product with the coefficients and the sufficient statistics are one with the responsibilities. The
terms of this expanded square cancel where the mean is many deviations away from zero: :meth:`Covariance.condition` tells by how
much, and :meth:`Covariance.distance` and :meth:`Covariance.scatter` are the same quantities about the component's own mean.

=========  =======================================  =================  ================
structure  features phi(x)                          covariances        features P
=========  =======================================  =================  ================
full       products x_i x_j, i <= j                 ``(C, D, D)``      D (D + 1) / 2
tied       the same; one q and one sum for all      ``(D, D)``         D (D + 1) / 2
diagonal   squares x_i^2                            ``(C, D)``         D
spherical  their sum                                ``(C,)``           1
=========  =======================================  =================  ================

C components, D columns, P features, B rows. Whatever differs between the structures is here and nowhere else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from ppl_vae.exact.floors import common
from ppl_vae.program.recording import being_recorded

__all__ = ["COVARIANCES", "Covariance", "Diagonal", "Full", "Natural", "Spherical", "Tied", "covariance"]


class Natural(NamedTuple):
    """Coefficients of C Gaussians: b ``(C, D)``, q ``(C, P)``, log|S| ``(C,)``; the last two have one row if it serves all."""

    linear: Tensor
    quadratic: Tensor
    log_det: Tensor


class Covariance(ABC):
    """A covariance structure."""

    shared = False

    @abstractmethod
    def size(self, columns: int) -> int:
        """P for D columns."""

    @abstractmethod
    def features(self, x: Tensor, out: Tensor) -> None:
        """Write phi of the rows, which are the columns of x ``(D, B)``, into ``out`` ``(P, B)``."""

    @abstractmethod
    def natural(self, covariances: Tensor, locs: Tensor) -> Natural:
        """Coefficients of N(locs, covariances); raises ``ValueError`` if a covariance is not positive definite."""

    @abstractmethod
    def estimate(self, second: Tensor, locs: Tensor, counts: Tensor) -> Tensor:
        """Maximum-likelihood covariances from sum_n r_nc phi(x_n) ``(C or 1, P)``, means ``(C, D)`` and sum_n r_nc ``(C,)``."""

    def floor_of(self, floor: Tensor) -> Tensor:
        """What bounds a component, of the columns' floors ``(D,)``."""
        return floor

    @abstractmethod
    def bound(self, covariances: Tensor, floor: Tensor) -> Tensor:
        """The maximizer under S >= diag(floor) in every direction, floor ``(D,)`` or ``()``: clamped eigenvalues."""

    @abstractmethod
    def inflate(self, covariances: Tensor, ridge: float) -> Tensor:
        """Covariances + ridge * I."""

    @abstractmethod
    def distance(self, covariances: Tensor, deviations: Tensor) -> Tensor:
        """d^T S^-1 d ``(C, B)`` of the deviations from each component's mean, ``(C, D, B)``: a sum of squares."""

    @abstractmethod
    def scatter(self, deviations: Tensor, weights: Tensor) -> Tensor:
        """sum_n w_nc phi(d_nc) ``(C or 1, P)`` of deviations ``(C, D, B)`` and weights ``(C, B)``."""

    def variances(self, covariances: Tensor, locs: Tensor) -> Tensor:
        """Of each component and column, ``(C, D)``."""
        return covariances.diagonal(dim1=-2, dim2=-1).expand_as(locs)

    def condition(self, natural: Natural, reach: Tensor) -> Tensor:
        """sum_ij |P_ij| r_i r_j ``(C,)``, P = S^-1: how large terms of the expanded square get at ``reach (C, D)``."""
        phi = reach.new_empty(self.size(reach.shape[1]), reach.shape[0])
        self.features(reach.abs().T.contiguous(), phi)
        return (natural.quadratic.abs() * phi.T).sum(1)

    @abstractmethod
    def expand(self, covariances: Tensor, locs: Tensor) -> Tensor:
        """The same covariances as full matrices, ``(C, D, D)``."""

    @abstractmethod
    def project(self, second: Tensor) -> Tensor:
        """sum_n r_nc phi(x_n) ``(C or 1, P)`` from the full second moments sum_n r_nc x_n x_n^T ``(C, D, D)``."""


class Full(Covariance):
    """One matrix per component."""

    def size(self, columns: int) -> int:
        """D (D + 1) / 2."""
        return columns * (columns + 1) // 2

    def features(self, x: Tensor, out: Tensor) -> None:
        """Products of row i with rows i, i + 1, ...: each a contiguous slab of ``out``."""
        start, columns = 0, x.shape[0]
        for i in range(columns):
            torch.mul(x[i], x[i:], out=out[start : start + columns - i])
            start += columns - i

    def natural(self, covariances: Tensor, locs: Tensor) -> Natural:
        """q_ij = -P_ij for i < j (both triangles), q_ii = -P_ii / 2 with P = S^-1."""
        try:
            cholesky = torch.linalg.cholesky(covariances)
        except torch.linalg.LinAlgError:
            _require_definite(torch.linalg.cholesky_ex(covariances).info == 0)
            raise
        precision = torch.cholesky_inverse(cholesky)
        quadratic = -self.project(precision * (1 - 0.5 * torch.eye(locs.shape[1]).to(precision)))
        linear = (precision @ locs[..., None])[..., 0]
        return Natural(linear, quadratic, 2 * cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1).reshape(-1))

    def estimate(self, second: Tensor, locs: Tensor, counts: Tensor) -> Tensor:
        """E[x x^T] - m m^T."""
        return self._unpack(second / counts[:, None], locs.shape[1]) - locs[:, :, None] * locs[:, None, :]

    def bound(self, covariances: Tensor, floor: Tensor) -> Tensor:
        """Eigenvalues in units of the floor are clamped, and only where S - diag(floor) is not positive definite."""
        columns = covariances.shape[-1]
        low = torch.linalg.cholesky_ex(covariances - floor.expand(columns).diag_embed()).info != 0
        if not low.any():
            return covariances
        unit = torch.where(floor > 0, floor, 1.0).sqrt().expand(columns)
        units = torch.outer(unit, unit)
        values, vectors = torch.linalg.eigh(covariances[low] / units)
        # A hair above the floor, so that rounding does not take it below when this matrix is factorized.
        least = float((floor > 0).all()) * (1 + 1e-9)
        clamped = (vectors * values.clamp_min(least)[..., None, :]) @ vectors.mT * units
        return covariances.masked_scatter(low[..., None, None].expand_as(covariances), (clamped + clamped.mT) / 2)

    def distance(self, covariances: Tensor, deviations: Tensor) -> Tensor:
        """|L^-1 d|^2 with S = L L^T."""
        return torch.linalg.solve_triangular(torch.linalg.cholesky(covariances), deviations, upper=False).square().sum(-2)

    def scatter(self, deviations: Tensor, weights: Tensor) -> Tensor:
        """sum_n w_n d_n d_n^T."""
        return self.project((deviations * weights[:, None]) @ deviations.mT)

    def inflate(self, covariances: Tensor, ridge: float) -> Tensor:
        """Adds to the diagonals."""
        return covariances + ridge * torch.eye(covariances.shape[-1], dtype=covariances.dtype, device=covariances.device)

    def expand(self, covariances: Tensor, locs: Tensor) -> Tensor:
        """They are full already."""
        return covariances

    def project(self, second: Tensor) -> Tensor:
        """The upper triangle, row by row."""
        i, j = torch.triu_indices(*second.shape[-2:], device=second.device)
        return second[..., i, j].reshape(-1, i.numel())

    def _unpack(self, packed: Tensor, columns: int) -> Tensor:
        full = packed.new_empty(packed.shape[0], columns, columns)
        i, j = torch.triu_indices(columns, columns, device=packed.device)
        full[:, i, j] = packed
        full[:, j, i] = packed
        return full


class Tied(Full):
    """One matrix for all components."""

    shared = True

    def estimate(self, second: Tensor, locs: Tensor, counts: Tensor) -> Tensor:
        """(sum_n x_n x_n^T - sum_c n_c m_c m_c^T) / N."""
        return (self._unpack(second, locs.shape[1])[0] - (counts * locs.T) @ locs) / counts.sum()

    def expand(self, covariances: Tensor, locs: Tensor) -> Tensor:
        """The one matrix, C times."""
        return covariances.expand(locs.shape[0], -1, -1)

    def project(self, second: Tensor) -> Tensor:
        """One sum over all components."""
        return super().project(second if second.dim() == 2 else second.sum(0))


class Diagonal(Covariance):
    """One variance per component and column."""

    def size(self, columns: int) -> int:
        """D."""
        return columns

    def features(self, x: Tensor, out: Tensor) -> None:
        """Squares."""
        torch.mul(x, x, out=out)

    def natural(self, covariances: Tensor, locs: Tensor) -> Natural:
        """q_i = -1 / (2 s_i)."""
        _require_definite((covariances > 0).all(-1))
        return Natural(locs / covariances, -0.5 / covariances, covariances.log().sum(-1))

    def estimate(self, second: Tensor, locs: Tensor, counts: Tensor) -> Tensor:
        """E[x^2] - m^2; rounding may leave a zero variance just below 0."""
        return (second / counts[:, None] - locs.square()).clamp_min(0)

    def bound(self, covariances: Tensor, floor: Tensor) -> Tensor:
        """Clamped."""
        return torch.maximum(covariances, floor)

    def inflate(self, covariances: Tensor, ridge: float) -> Tensor:
        """Adds to the variances."""
        return covariances + ridge

    def distance(self, covariances: Tensor, deviations: Tensor) -> Tensor:
        """sum_i d_i^2 / s_i."""
        return (deviations.square() / covariances[..., None]).sum(-2)

    def scatter(self, deviations: Tensor, weights: Tensor) -> Tensor:
        """sum_n w_n d_n^2."""
        return (deviations.square() @ weights[..., None])[..., 0]

    def variances(self, covariances: Tensor, locs: Tensor) -> Tensor:
        """They are the covariances."""
        return covariances

    def expand(self, covariances: Tensor, locs: Tensor) -> Tensor:
        """Diagonal matrices."""
        return torch.diag_embed(covariances)

    def project(self, second: Tensor) -> Tensor:
        """The diagonals."""
        return second.diagonal(dim1=-2, dim2=-1)


class Spherical(Diagonal):
    """One variance per component."""

    def size(self, columns: int) -> int:
        """1."""
        return 1

    def features(self, x: Tensor, out: Tensor) -> None:
        """Squared length."""
        torch.sum(x * x, 0, keepdim=True, out=out)

    def natural(self, covariances: Tensor, locs: Tensor) -> Natural:
        """One coefficient, q = -1 / (2 s)."""
        variances = covariances[:, None]
        _require_definite(covariances > 0)
        return Natural(locs / variances, -0.5 / variances, locs.shape[1] * covariances.log())

    def estimate(self, second: Tensor, locs: Tensor, counts: Tensor) -> Tensor:
        """(E|x|^2 - |m|^2) / D."""
        return ((second[:, 0] / counts - locs.square().sum(1)) / locs.shape[1]).clamp_min(0)

    def bound(self, covariances: Tensor, floor: Tensor) -> Tensor:
        """Clamped."""
        return torch.maximum(covariances, self.floor_of(floor))

    def floor_of(self, floor: Tensor) -> Tensor:
        """The least: no wide column hides what is narrow."""
        return common(floor)

    def distance(self, covariances: Tensor, deviations: Tensor) -> Tensor:
        """|d|^2 / s."""
        return deviations.square().sum(-2) / covariances[:, None]

    def scatter(self, deviations: Tensor, weights: Tensor) -> Tensor:
        """sum_n w_n |d_n|^2."""
        return super().scatter(deviations, weights).sum(-1, keepdim=True)

    def variances(self, covariances: Tensor, locs: Tensor) -> Tensor:
        """One for all columns."""
        return covariances[:, None].expand_as(locs)

    def expand(self, covariances: Tensor, locs: Tensor) -> Tensor:
        """Multiples of the identity."""
        return torch.diag_embed(covariances[:, None].expand_as(locs))

    def project(self, second: Tensor) -> Tensor:
        """The traces."""
        return super().project(second).sum(-1, keepdim=True)


COVARIANCES: dict[str, Covariance] = {"full": Full(), "tied": Tied(), "diagonal": Diagonal(), "spherical": Spherical()}


def covariance(name: str) -> Covariance:
    """The structure of a name.

    Raises:
        ValueError: an unknown name.
    """
    if name not in COVARIANCES:
        raise ValueError(f"expected a covariance among {', '.join(COVARIANCES)}, got {name!r}")
    return COVARIANCES[name]


def _require_definite(definite: Tensor) -> None:
    if being_recorded():  # a graph is recorded, which cannot decide by values
        return
    if not definite.all():
        which = (~definite.reshape(-1)).nonzero().flatten().tolist()
        raise ValueError(
            f"the covariance of component {which[:8]} is not positive definite: the component collapsed onto too few "
            "distinct points, or the "
            "floor is 0 or tiny beside the data's variance; raise the floor, use fewer components, or use a simpler covariance"
        )
