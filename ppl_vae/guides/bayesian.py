"""Guides over parameters as well as latent variables.

    q(theta, z | x) = q(theta) prod_n q(z_n | x_n, theta)

q(theta) is one of Pyro's automatic guides in unconstrained coordinates (Kucukelbir et al. 2017), q(z | x, theta) any guide over
the latent variables: with the exact posterior only q(theta) is approximate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from pyro.infer.autoguide import AutoDelta, AutoGuide, AutoMultivariateNormal, AutoNormal
from pyro.infer.autoguide.initialization import init_to_value
from torch import Tensor, nn

from ppl_vae.declaration import require
from ppl_vae.deprecation import RenamedAttribute
from ppl_vae.guides.base import Guide, remedy
from ppl_vae.guides.exact import ExactPosterior
from ppl_vae.program.base import GuideProgram
from ppl_vae.program.context import local_params
from ppl_vae.program.facts import guide_facts, model_facts
from ppl_vae.program.hooks import Start
from ppl_vae.types import DataSpec

__all__ = ["BayesianGuide", "ParameterGuide"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BayesianGuide(Guide):
    """q(theta, z | x) = q(theta) q(z | x, theta), for models whose parameters carry priors.

    Beside the priors a row of weight w counts as w rows, and ELBOs per datum are per row so counted.

    Args:
        parameters: q(theta): ``map`` (a point, by ``AutoDelta``: the objective is then log p(x, theta) / N instead of a bound),
            ``mean_field`` (independent normals, ``AutoNormal``) or ``full_rank`` (one normal, ``AutoMultivariateNormal``), all
            but the point in unconstrained coordinates.
        latents: q(z | x, theta); an amortized guide does not look at theta.

    Raises:
        ValueError: unknown parameters.

    Examples:
        >>> print(BayesianGuide(parameters="full_rank"))
        q(theta) = Normal(m, L L^T) on unconstrained theta; q(z | x, theta) = p(z | x, theta)
    """

    parameters: Literal["map", "mean_field", "full_rank"] = "mean_field"
    latents: Guide = ExactPosterior()

    def __post_init__(self) -> None:
        require(self.parameters in PARAMETERS, f"parameters of {', '.join(PARAMETERS)}", self.parameters)
        require(not isinstance(self.latents, BayesianGuide), "a guide over latent variables", self.latents)

    def build(self, model: Any, spec: DataSpec) -> nn.Module:
        """The Pyro program for parameters and latent variables of ``model``.

        Raises:
            ValueError: no parameter of the model carries a prior.
        """
        if not model_facts(model).parameter_sites:
            raise ValueError(
                "no parameter of this model carries a prior, so a guide over parameters has nothing to do: use "
                f"{remedy(model)}, or declare priors such as FactorAnalysis(weights=Normal()) or GMM(weights=Dirichlet())"
            )
        return PARAMETERS[self.parameters](model, self.latents.build(model, spec))

    def story(self) -> str:
        """The factorization, as mathematics."""
        density = {
            "map": "delta(theta - m)",
            "mean_field": "Normal(m, diag(s^2)) on unconstrained theta",
            "full_rank": "Normal(m, L L^T) on unconstrained theta",
        }[self.parameters]
        latents = "p(z | x, theta)" if self.latents == ExactPosterior() else self.latents.story().partition(" = ")[2]
        return f"q(theta) = {density}; q(z | x, theta) = {latents}"


class ParameterGuide(GuideProgram):
    """One of Pyro's automatic guides over the parameters, then the guide over the latent variables given their draw.

    ``theta`` holds the former's parameters. Its subclasses place q(theta): at a mean and a covariance's Cholesky factor in the
    model's unconstrained coordinates. The buffer ``chains (chains, draws, P)`` has a sampler's draws in these coordinates, none
    of other methods.
    """

    mean_field = False  # Pyro's KL of a transformed site leaves out the Jacobian
    auto: Callable[..., AutoGuide]
    theta: Any
    latents: Any
    chains: Tensor

    def __init__(self, model: Any, latents: nn.Module) -> None:
        super().__init__()
        self._model = (model,)  # in a tuple, so that its parameters are not listed twice
        # Pyro sees the parameters' sites alone, so that q(theta) is made here, before there are data.
        self.theta = self.auto(model.draw, init_loc_fn=init_to_value(values=model.values))
        with torch.no_grad(), local_params():
            self.theta._setup_prototype()
        self.latents = latents
        self.register_buffer("chains", torch.zeros(0, 0, model.coordinates().size))

    def forward(self, x: Tensor) -> Any:
        """Draw the parameters, then the latent variables of the batch x ``(B, *event)``."""
        with self._model[0].given(self.theta()):
            return self.latents(x)

    def posterior(self, x: Tensor) -> Any:
        """q(z | x) at the point estimates of the parameters."""
        return self.latents.posterior(x)

    @property
    def exact_latents(self) -> bool:
        """Whether q(z | x, theta) is p(z | x, theta)."""
        return guide_facts(self.latents).exact

    def drawn_parameters(self, draws: int) -> dict[str, Tensor]:
        """Draws from q(theta) by name, ``(draws, ...)``, brought together where a turn or an order is free."""
        with torch.no_grad(), local_params():
            drawn = [self.theta() for _ in range(draws)]
        found: dict[str, Tensor] = self._model[0].align(
            {name: torch.stack([draw[name] for draw in drawn]) for name in drawn[0]}
        )
        return found

    def parameter_draws(self, draws: int) -> Iterator[Any]:
        """Contexts inside which everything that the model says is at a draw of its parameters."""
        model, values = self._model[0], self.drawn_parameters(draws)
        return (model.given({name: value[place] for name, value in values.items()}) for place in range(draws))

    settle = RenamedAttribute("write_medians")

    def write_medians(self) -> None:
        """Write q(theta)'s medians, or its point, into the model as point estimates; fits do it, your own loops should."""
        with torch.no_grad(), local_params():
            self._model[0].assign(self.theta.median())

    @torch.no_grad()
    def start_fit(self, context: Start) -> None:
        """Start at the model's point estimates, as wide as a posterior given so many data is."""
        model = context.model
        coordinates = model.coordinates()
        mean = coordinates.pack(model.values)
        self.place(mean, context.split.total**-0.5 * torch.eye(coordinates.size, dtype=mean.dtype, device=mean.device))

    def place(self, mean: Tensor, scale_tril: Tensor) -> None:
        """Make q(theta) as near as the family can to the normal with this mean ``(P,)`` and factor ``(P, P)``."""
        raise NotImplementedError

    def keep(self, chains: Tensor) -> None:
        """Keep a sampler's draws ``(chains, draws, P)``."""
        self.chains = chains.to(self.chains)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *where: Any) -> None:
        chains = state_dict.setdefault(f"{prefix}chains", self.chains)  # runs of before kept none
        if chains.dim() == 3 and chains.shape[2] == self.chains.shape[2]:
            self.chains = self.chains.new_empty(chains.shape)
        super()._load_from_state_dict(state_dict, prefix, *where)


class PointGuide(ParameterGuide):
    """q(theta) = delta(theta - m)."""

    auto = AutoDelta
    score = "log_joint"

    @torch.no_grad()
    def place(self, mean: Tensor, scale_tril: Tensor) -> None:
        """Take the mean."""
        for name, value in self._model[0].coordinates().unpack(mean).items():
            setattr(self.theta, name, value)


class MeanFieldGuide(ParameterGuide):
    """Independent normals; their means and scales are ``theta.locs`` and ``theta.scales``."""

    auto = AutoNormal

    @torch.no_grad()
    def place(self, mean: Tensor, scale_tril: Tensor) -> None:
        """Take the mean and the marginal scales."""
        coordinates = self._model[0].coordinates()
        scales = coordinates.split(scale_tril.square().sum(-1).sqrt())
        for name, loc in coordinates.split(mean).items():
            setattr(self.theta.locs, name, loc)
            setattr(self.theta.scales, name, scales[name])


class FullRankGuide(ParameterGuide):
    """One normal: mean ``theta.loc`` and factor ``theta.scale * theta.scale_tril``, the latter's diagonal one."""

    auto = AutoMultivariateNormal

    @torch.no_grad()
    def place(self, mean: Tensor, scale_tril: Tensor) -> None:
        """Take both."""
        self.theta.loc.copy_(mean)
        self.theta.scale = scale_tril.diagonal()
        self.theta.scale_tril = scale_tril / scale_tril.diagonal().unsqueeze(-1)


PARAMETERS: dict[str, type[ParameterGuide]] = {"map": PointGuide, "mean_field": MeanFieldGuide, "full_rank": FullRankGuide}
