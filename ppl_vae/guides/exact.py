"""The exact posterior as a guide, for models that know it.

    q(z | x) = prod_n p(z_n | x_n)

With it the ELBO is log p(x), for every sample: what is left to learn is the model alone.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.guides.base import Guide, remedy
from ppl_vae.program.base import GuideProgram
from ppl_vae.program.capabilities import CoordinateAscent, KnownPosterior
from ppl_vae.program.facts import model_facts
from ppl_vae.program.joint import draw
from ppl_vae.program.rows import data_plate
from ppl_vae.types import DataSpec

__all__ = ["ExactPosterior"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExactPosterior(Guide):
    """q(z | x) = p(z | x), in closed form: linear-Gaussian models, mixtures and networks have it.

    Examples:
        >>> print(ExactPosterior())
        q(z | x) = p(z | x)
    """

    def build(self, model: Any, spec: DataSpec) -> nn.Module:
        """The Pyro program for the latent variable of ``model``; it has no parameters of its own.

        Raises:
            ValueError: the model does not know its posterior.
        """
        if not isinstance(model, KnownPosterior):
            guide = remedy(model)
            ascends = isinstance(model, CoordinateAscent)
            method = "CAVI" if guide == "MeanField" else "CAVI, or SVI" if ascends else "SVI"
            raise ValueError(f"this model has no exact posterior, which methods such as EM need: use {method} with {guide}")
        return ExactGuide(model)

    def story(self) -> str:
        """The factorization, as mathematics."""
        return "q(z | x) = p(z | x)"


class ExactGuide(GuideProgram):
    """Asks the model for its posterior; the model stays the only owner of the parameters."""

    exact = True

    def __init__(self, model: Any) -> None:
        super().__init__()
        facts = model_facts(model)
        self.size = facts.size
        self.sites = dict(facts.sites)
        self._model = (model,)  # in a tuple, so that its parameters are not listed twice

    def forward(self, *batch: Any, **fields: Any) -> Any:
        """Draw the latent variables of each datum of the batch; nothing where the model sums all of them out."""
        if all(site.summed for site in self.sites.values()):
            return None
        return super().forward(*batch, **fields)

    def draw(self, q: Any, *batch: Tensor) -> Any:
        """Draw the latent variables of each datum from q; the number of a component, of which q is one-hot."""
        name, site = next(iter(self.sites.items()))
        with data_plate(self.size, batch[0]):
            if site.index:
                return pyro.sample(name, dist.Categorical(logits=q.logits), infer={"enumerate": "parallel"})
            return draw(name, q)

    def posterior(self, *batch: Tensor) -> Any:
        """p(z | x) for x ``(B, *event)``.

        No gradient flows through it: by Fisher's identity the gradient of E_q[log p(x, z)] at q = p(z | x) is that of log p(x).
        """
        with torch.no_grad():
            return self._model[0].posterior(*batch)
