"""Gaussian mixtures whose parameters carry priors (Attias 1999)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.ops.indexing import Vindex
from torch import Tensor
from torch.distributions import constraints

from ppl_vae.exact import Problem, Sweep, conditional, covariances, mixture, mixture_start
from ppl_vae.exact.distances import matched_distance
from ppl_vae.exact.moments import weights_of
from ppl_vae.models.bayesian.mixture_ascent import MixtureGuide, mixture_problem
from ppl_vae.models.bayesian.parameters import BayesianModel, Given, Values
from ppl_vae.models.bayesian.spreads import SPREADS
from ppl_vae.models.told import of_mixture
from ppl_vae.priors import Prior
from ppl_vae.priors.base import Support
from ppl_vae.program.hooks import Start
from ppl_vae.program.quantities import Quantity
from ppl_vae.program.rows import data_plate
from ppl_vae.program.sites import Site
from ppl_vae.types import DataSpec

__all__ = ["BayesianMixtureModel"]


class BayesianMixtureModel(BayesianModel):
    """Gaussian mixture: ``weights (C,)``, ``locs (C, D)`` and its spread.

    ``covariances`` ``(C, D, D)`` full, ``(D, D)`` tied, or ``scales`` ``(C, D)`` diagonal, ``(C, 1)`` spherical; scales below
    ``floor`` count as ``floor``. An event of several axes is modelled as one vector of D elements.
    """

    learning_rate = 1e-2
    takes_weights = True
    supports: Mapping[str, Support] = {
        "weights": "simplex",
        "locs": "real",
        "scales": "positive",
        "covariances": "covariance",
    }

    def __init__(
        self, *, size: int, columns: int, components: int, structure: str, floor: float, priors: Mapping[str, Prior]
    ) -> None:
        C, D = components, columns
        spread = SPREADS[structure](floor)
        starts = {
            "weights": torch.full((C,), 1 / C),
            "locs": torch.randn(C, D),
            spread.site: spread.start(C, D),
        }
        super().__init__(size, {name: Given(priors.get(name), self.supports[name], start) for name, start in starts.items()})
        self.spread = spread
        self.structure = covariances.covariance(structure)
        self.floor = floor
        self.latent_shape = (C,)
        matrix = ("column", "other_column")
        spreads = {"full": ("component", *matrix), "tied": matrix, "diagonal": ("component", "column")}
        self.axes = {
            "weights": ("component",),
            "locs": ("component", "column"),
            spread.site: spreads.get(structure, ("component", "")),
        }

    def forward(self, x: Tensor) -> Tensor:
        """The story, with the batch x ``(B, *event)`` observed."""
        theta = self.draw()
        locs, scale_tril = theta["locs"], self.spread.scale_tril(theta)
        with data_plate(self.size, x):
            k = pyro.sample("k", dist.Categorical(probs=theta["weights"]))
            loc, L = Vindex(locs)[..., k, :], Vindex(scale_tril)[..., k, :, :]
            return pyro.sample("x", dist.MultivariateNormal(loc, scale_tril=L, validate_args=False), obs=x.flatten(1))

    @property
    def sites(self) -> dict[str, Site]:
        """The component."""
        return {"k": Site("k", self.latent_shape, constraints.one_hot, index=True)}

    @property
    def parameters_em(self) -> mixture.Parameters:
        """Weights ``(C,)``, means ``(C, D)`` and covariances in the shape of their structure, in float64."""
        values = {name: value.double() for name, value in self.values.items()}
        return mixture.Parameters(values["weights"], values["locs"], self.spread.covariances(values))

    def quantities(self) -> dict[str, Quantity]:
        """Weights, means and covariances."""
        return of_mixture(self.parameters_em, self.structure)

    def prior(self) -> dist.Distribution:
        """p(k), one-hot, whose mean is pi."""
        return dist.OneHotCategorical(probs=self.values["weights"])

    def decode(self, z: Tensor) -> dist.Distribution:
        """p(x | k) for one-hot z ``(..., C)``; responsibilities give the mean and covariance averaged by them."""
        values = self.values
        L = self.spread.scale_tril(values)
        return dist.MultivariateNormal(z @ values["locs"], covariance_matrix=torch.einsum("...c,cij->...ij", z, L @ L.mT))

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log p(x) of each datum at the point estimates, in nats, ``(B,)``; computed in float64."""
        return mixture.log_prob(self.parameters_em, x.flatten(1), self.structure)

    @torch.no_grad()
    def impute(self, x: Tensor, draws: int | None = None) -> Tensor:
        """Missing entries (NaN) of x ``(B, *event)`` at their conditional means given the point estimates, or drawn."""
        found = conditional.complete_mixture(self.parameters_em, x.flatten(1), self.structure, draws)
        return found.unflatten(-1, x.shape[1:])

    def posterior(self, x: Tensor) -> dist.Distribution:
        """The exact p(k | x, theta) of each datum, one-hot; draws may lie in a batch left of the data's."""
        return dist.OneHotCategorical(logits=self._joint(self.values, x).to(x.dtype))

    def log_likelihood(self, rows: Any) -> Callable[[Values], Tensor]:
        """From all parameters by name to log p(rows | theta) in nats, k summed out."""
        x, weights = torch.cat(list(rows)), weights_of(rows)
        if weights is None:
            return lambda values: self._joint(values, x).logsumexp(-1).sum()
        return lambda values: weights @ self._joint(values, x).logsumexp(-1)

    def align(self, draws: Values) -> dict[str, Tensor]:
        """The draws as they are: chains start at one labelling and seldom leave it."""
        return dict(draws)

    def distance(self, other: Any) -> float:
        """Root mean square distance of the means, each matched with one of the other's, in units of what the model sees."""
        return matched_distance(self.parameters_em.locs.detach(), other.parameters_em.locs.detach())

    def mean_field(self, spec: DataSpec) -> MixtureGuide:
        """The guide that coordinate ascent fits.

        Raises:
            ValueError: a parameter without a conjugate prior.
        """
        return MixtureGuide(self, spec)

    def cavi(self, guide: MixtureGuide, rows: Any, sweep: Sweep) -> Problem:
        """What coordinate ascent iterates."""
        return mixture_problem(self, guide, rows, sweep)

    def start_fit(self, context: Start) -> None:
        """Start where EM starts, so that methods differ only in how they go on."""
        components, floor, generator = self.latent_shape[0], self.floor**2, context.generator()
        start = mixture_start.initial(context.rows, components, self.structure, generator=generator, floor=floor)
        self.assign({"weights": start.weights, "locs": start.locs, **self.spread.values(start.covariances)})

    def _joint(self, values: Values, x: Tensor) -> Tensor:
        """Log p(k, x | theta), ``(..., B, C)``, in float64."""
        theta = {name: value.double() for name, value in values.items()}
        L = self.spread.scale_tril(theta)
        gaps = x.flatten(1).double().mT - theta["locs"].unsqueeze(-1)  # (..., C, D, B): one solve for all rows
        distance = torch.linalg.solve_triangular(L, gaps, upper=False).square().sum(-2)
        constant = theta["weights"].log() - L.diagonal(dim1=-2, dim2=-1).log().sum(-1) - L.shape[-1] / 2 * math.log(2 * math.pi)
        joint = (constant.unsqueeze(-1) - distance / 2).mT
        return joint if joint.dim() == 2 else joint.squeeze(-3)  # draws stand left of the data's axis, which they have not
