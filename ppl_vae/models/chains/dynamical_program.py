"""The program of a linear dynamical system, and what is exact about it.

    for n in 1..N:
        z_1 ~ Normal(m, P);  z_t ~ Normal(A z_(t-1), Q)
        x_t ~ Normal(C z_t + d, diag(r))

Kalman (1960). The latent vectors are integrated out inside the one site x.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from ppl_vae.exact import Problem, floors, kalman
from ppl_vae.exact.sharing import add_up
from ppl_vae.models.chains.paths import PathPosterior
from ppl_vae.models.chains.rows import Block, RowProgram, all_and_own, total_of
from ppl_vae.program.hooks import Start
from ppl_vae.program.quantities import COLUMN, LATENT, Quantity
from ppl_vae.program.sites import Site
from ppl_vae.types import DataSpec

__all__ = ["DynamicalProgram"]

SMALLEST = 1e-10  # least eigenvalue of a covariance beside its largest, and of a start's variance


class DynamicalProgram(RowProgram):
    """Parameters: m, A, C, d as they are, P and Q as Cholesky factors with the logarithm of their diagonals, log r.

    Args:
        spec: of the data.
        latent_dim: K.
        floor: least standard deviation of the noise of a column, as a share of its own.
    """

    latent = "continuous"
    learning_rate = 1e-2

    def __init__(self, spec: DataSpec, latent_dim: int, floor: float) -> None:
        super().__init__(spec)
        K, D = latent_dim, (*self.element, 1)[0]
        self.floor = floor
        self.initial_loc = nn.Parameter(torch.zeros(K))
        self.initial_raw = nn.Parameter(torch.zeros(K, K))
        self.transition = nn.Parameter(0.9 * torch.eye(K))
        self.noise_raw = nn.Parameter(torch.zeros(K, K))
        self.loadings = nn.Parameter(torch.randn(D, K))
        self.offset = nn.Parameter(torch.zeros(D))
        self.log_variances = nn.Parameter(torch.zeros(D))

    @property
    def sites(self) -> dict[str, Site]:
        """The latent vector of each element, integrated out."""
        shape = tuple(self.initial_loc.shape)
        return {"z": Site("z", shape, constraints.independent(constraints.real, 1), summed=True, per_element=True)}

    @property
    def free_parameters(self) -> int:
        """All but the K x K of a change of coordinates of z, which is no other p(x)."""
        K, D = len(self.initial_loc), len(self.offset)
        return K + K * (K + 1) + K * K + D * K + 2 * D - K * K

    @property
    def parameters_em(self) -> kalman.Parameters:
        """In float64, as EM iterates them."""
        return kalman.Parameters(*(part.detach().double() for part in self._as_stored()))

    def log_density(self, x: Tensor, inside: Tensor) -> Tensor:
        """Log p of each row, with gradients."""
        return kalman.filtered(self._as_stored(), self._columns(x), inside).log_prob

    @torch.no_grad()
    def log_prob(self, *batch: Tensor) -> Tensor:
        """Exact log p of each row in nats, ``(B,)``; in float64, without gradients."""
        x, inside = self._known(*batch)
        return kalman.filtered(self.parameters_em, x, inside).log_prob

    @torch.no_grad()
    def posterior(self, *batch: Tensor) -> Any:
        """p(z | x) of each row: means ``(B, T, K)`` of the smoother, draws of whole paths."""
        p, (x, inside) = self.parameters_em, self._known(*batch)
        found = kalman.filtered(p, x, inside)
        smooth = kalman.smoothed(p, found, inside)
        variance = smooth.covariances[smooth.kind].diagonal(dim1=-2, dim2=-1)
        like = self.initial_loc

        def draw() -> Tensor:
            return kalman.draw_paths(p, found, smooth, inside).to(like)

        def density(path: Tensor) -> Tensor:
            return kalman.log_path(p, x, inside, path.double()) - found.log_prob

        return PathPosterior(smooth.locs.to(like), variance.to(like), draw, density)

    @torch.no_grad()
    def continued(self, given: Tensor, length: Tensor, steps: int, *, end: int | None = None) -> Tensor:
        """What may follow given elements: the filter to the last of them, then vectors and elements as the story draws them."""
        p, (x, inside) = self.parameters_em, self._known(given, length)
        loc, covariance = kalman.following(p, x, inside)
        z = loc + (kalman.root(covariance) @ torch.randn_like(loc)[..., None])[..., 0]
        root, found = kalman.root(p.noise), [z]
        for _ in range(steps - 1):
            found.append(found[-1] @ p.transition.mT + torch.randn_like(z) @ root.mT)
        mean = torch.stack(found, 1) @ p.loadings.mT + p.offset
        drawn = mean + p.variances.sqrt() * torch.randn_like(mean)
        return drawn.reshape(*drawn.shape[:2], *self.element).to(given.dtype)

    def quantities(self) -> dict[str, Quantity]:
        """Dynamics, loadings and noise."""
        p = self.parameters_em
        note = "in coordinates of z that the fit chose"
        return {
            "offset": Quantity(values=p.offset, axes=(COLUMN,), power=1, located=True),
            "loading": Quantity(values=p.loadings, axes=(COLUMN, LATENT), power=1, note=note),
            "noise_variance": Quantity(values=p.variances, axes=(COLUMN,), power=2),
            "transition": Quantity(values=p.transition, axes=(LATENT, LATENT), note=note),
        }

    def em(self, rows: Any, *, generator: torch.Generator | None = None, accelerate: bool = True) -> Problem:
        """What EM iterates for rows of a split, from principal components; with a generator these are turned at random.

        Raises:
            ValueError: a row of length 0.
        """
        every, mine = all_and_own(self, rows)
        blocks = [block._replace(x=self._columns(block.x).double()) for block in mine]
        total = total_of(rows, blocks)
        elements = torch.cat([self._columns(block.x)[block.inside].double() for block in every])
        mean, variance = elements.mean(0), elements.var(0, correction=0)
        floor = floors.variance_floor(mean, variance, self.floor)

        def step(state: kalman.Parameters) -> tuple[kalman.Parameters, Tensor]:
            log_prob, found = gathered(state, blocks, rows)
            return kalman.maximized(found, state, floor), log_prob / total

        return Problem(step, self._initial(elements, floor, generator), None, self.assign, partial(self._remark, floor))

    def start_fit(self, context: Start) -> None:
        """Start where EM starts, so that methods differ only in how they go on."""
        self.assign(self.em(context.rows).start)

    @torch.no_grad()
    def em_state(self) -> kalman.Parameters:
        """The present parameters, which EM iterates and :meth:`assign` takes."""
        return self.parameters_em

    @torch.no_grad()
    def assign(self, parameters: kalman.Parameters) -> None:
        """Write parameters into the module."""
        self.initial_loc.copy_(parameters.initial_loc)
        self.initial_raw.copy_(_raw(parameters.initial_covariance))
        self.transition.copy_(parameters.transition)
        self.noise_raw.copy_(_raw(parameters.noise))
        self.loadings.copy_(parameters.loadings)
        self.offset.copy_(parameters.offset)
        self.log_variances.copy_(parameters.variances.log())

    def _as_stored(self) -> kalman.Parameters:
        return kalman.Parameters(
            self.initial_loc,
            _covariance(self.initial_raw),
            self.transition,
            _covariance(self.noise_raw),
            self.loadings,
            self.offset,
            self.log_variances.exp(),
        )

    def _columns(self, x: Tensor) -> Tensor:
        """Elements as vectors ``(B, T, D)``."""
        return x.reshape(*x.shape[:2], len(self.offset))

    def _known(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        x, inside = self.padded(*batch)
        return self._columns(x).double(), inside

    def _initial(self, elements: Tensor, floor: Tensor, generator: torch.Generator | None) -> kalman.Parameters:
        """Principal components as loadings, latent vectors that stay nearly where they are."""
        K = len(self.initial_loc)
        mean = elements.mean(0)
        covariance = (elements - mean).mT @ (elements - mean) / len(elements)
        values, vectors = torch.linalg.eigh(covariance)
        loadings = (vectors * values.clamp_min(SMALLEST).sqrt()).flip(-1)[:, :K]
        more = K - loadings.shape[1]
        options: dict[str, Any] = {"dtype": elements.dtype, "device": elements.device}
        seed = generator or torch.Generator(elements.device).manual_seed(0)
        if more > 0:
            scale = covariance.diagonal().sqrt()[:, None]
            noise = torch.randn(len(mean), more, generator=seed, **options)
            loadings = torch.cat([loadings, 0.3 * scale * noise], 1)
        eye = torch.eye(K, **options)
        A = 0.9 * eye + 0.1 * torch.randn(K, K, generator=seed, **options) / K
        if generator is not None:
            A = torch.linalg.qr(torch.randn(K, K, generator=seed, **options))[0] * 0.9
        r = torch.maximum(covariance.diagonal() - loadings.square().sum(1), 0.1 * covariance.diagonal())
        r = torch.maximum(r, floor.clamp_min(SMALLEST))
        return kalman.Parameters(torch.zeros(K, **options), eye, A, 0.3 * eye, loadings, mean, r)

    def _remark(self, floor: Tensor, state: kalman.Parameters) -> str | None:
        """Columns whose noise is on its floor."""
        floored = [str(place + 1) for place in (state.variances <= floor * (1 + 1e-6)).nonzero().flatten().tolist()]
        return f"standard deviations of the noise on their floor: column {', '.join(floored)}" if floored else None


def gathered(state: kalman.Parameters, blocks: list[Block], rows: Any = None) -> tuple[Tensor, kalman.Sums]:
    """The E-step: log p, summed over all rows, and moments; ``blocks`` are the own ones of rows that are shared."""
    values, parts = [], []
    for block in blocks:
        found = kalman.filtered(state, block.x, block.inside)
        smooth = kalman.smoothed(state, found, block.inside)
        parts.append(kalman.sums(smooth, block.x, block.inside, block.weights))
        w = block.weights
        values.append(found.log_prob.sum() if w is None else found.log_prob @ w.to(found.log_prob))
    value, sums = torch.stack(values).sum(), kalman.Sums(*(torch.stack(part).sum(0) for part in zip(*parts, strict=True)))
    add_up(rows, [value, *sums])
    return value, sums


def _raw(covariance: Tensor) -> Tensor:
    """A Cholesky factor with the logarithm of its diagonal; of a singular covariance that of one close by."""
    largest = covariance.diagonal().amax().clamp_min(SMALLEST)
    L, failed = torch.linalg.cholesky_ex(covariance)
    if bool(failed) or bool((L.diagonal() <= 0).any()):
        L = torch.linalg.cholesky(covariance + SMALLEST * largest * torch.eye(len(covariance)).to(covariance))
    return L.tril(-1) + L.diagonal().log().diag_embed()


def _covariance(raw: Tensor) -> Tensor:
    L = raw.tril(-1) + raw.diagonal().exp().diag_embed()
    return L @ L.mT
