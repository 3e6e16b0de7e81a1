"""Mean-field guides over parameters with conjugate priors and latent variables, all of whose factors are found in closed form.

    q(theta, z | x) = prod_j q_j(theta_j) prod_n q(z_n | x_n)

Their buffers hold the factors of the parameters; those of a datum follow from them (Attias 1999; Bishop 2006, chapter 10).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ppl_vae.models.bayesian.parameters import BayesianModel, Drawn, Estimated
from ppl_vae.program.base import GuideProgram
from ppl_vae.program.context import local_params
from ppl_vae.program.joint import Joint, draw
from ppl_vae.types import DataSpec, ELBOTerms

__all__ = ["FactorsGuide", "conjugate_priors"]


def conjugate_priors(model: BayesianModel, families: Mapping[str, Mapping[str, type[nn.Module]]]) -> dict[str, nn.Module]:
    """The built priors of all parameters by name.

    Args:
        model: whose they are.
        families: of each parameter the conjugate priors, as built, by the names of their declarations.

    Raises:
        ValueError: a parameter without a prior, or with one that is not conjugate.
    """
    for name, parameter in model.theta.items():
        told = f"conjugate to {name}: {', '.join(families[name])}"
        if isinstance(parameter, Estimated):
            raise ValueError(f"expected a prior of {name} for coordinate ascent, got none: declare one that is {told}")
        if not isinstance(parameter, Drawn) or not isinstance(parameter.prior, tuple(families[name].values())):
            got = parameter.declared if isinstance(parameter, Drawn) else parameter
            raise ValueError(
                f"expected a prior that is {told}, got {name}={got!r}, with which its factor of q has no closed form: declare "
                "one of these, or fit by SVI or NUTS with BayesianGuide()"
            )
    return {name: parameter.prior for name, parameter in model.theta.items()}


class FactorsGuide(GuideProgram):
    """The factors of the parameters as buffers, those of the latent variables by ``posterior``.

    Args:
        model: the program, whose point estimates are written.
        spec: of the data; their number, or the sum of their weights, shares out the KL of the parameters.
        factors: in the shapes that they have.
    """

    family: ClassVar[Any]
    mean_field = False  # a parameter's KL is known in closed form by the bound alone

    def __init__(self, model: Any, spec: DataSpec, factors: Any) -> None:
        super().__init__()
        self.size = spec.size
        self.total = spec.size if spec.weight is None else spec.weight
        self._model = (model,)  # in a tuple, so that its parameters are not listed twice
        self.site = next(iter(model.sites))
        for name, value in factors._asdict().items():
            self.register_buffer(name, value)

    @property
    def factors(self) -> Any:
        """Those of the parameters, in float64."""
        return self.family(*(getattr(self, name).double() for name in self.family._fields))

    @torch.no_grad()
    def assign(self, factors: Any) -> None:
        """Write factors, and the means of theirs into the model as point estimates."""
        for name, value in factors._asdict().items():
            getattr(self, name).copy_(value)
        self._model[0].assign(self.points(factors))

    def forward(self, x: Tensor) -> Any:
        """Draw the parameters, then the latent variables of the batch x ``(B, *event)``."""
        draw("", self.parameters_posterior())
        return self.draw(self.posterior(x), x)

    def drawn_parameters(self, draws: int) -> dict[str, Tensor]:
        """Draws from q(theta) by name, ``(draws, ...)``, brought together where a turn or an order is free."""
        with torch.no_grad(), local_params():
            found = self.parameters_posterior().sample((draws,))
        aligned: dict[str, Tensor] = self._model[0].align(found)
        return aligned

    def parameter_draws(self, draws: int) -> Iterator[Any]:
        """Contexts inside which everything that the model says is at a draw of its parameters."""
        model, values = self._model[0], self.drawn_parameters(draws)
        return (model.given({name: value[place] for name, value in values.items()}) for place in range(draws))

    def parameters_posterior(self) -> Joint:
        """q(theta), in the order of the story."""
        raise NotImplementedError

    def points(self, factors: Any) -> dict[str, Tensor]:
        """The point estimates of factors, by name."""
        raise NotImplementedError

    def bound(self, x: Tensor) -> ELBOTerms:
        """The ELBO of each datum x ``(B, *event)`` in closed form, the KL of the parameters shared out, in nats."""
        raise NotImplementedError
