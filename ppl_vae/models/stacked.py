"""Two levels of a semi-supervised variational autoencoder, M1 + M2 of Kingma, Rezende, Mohamed and Welling (2014).

for n in 1..N:
y_n ~ Categorical(1 / C, ..., 1 / C)              class, observed where row n has a label
z2_n ~ p(z2)                                      prior
z1_n ~ Normal(m, s^2), (m, s) of z2_n and y_n     code; Normal(0, I) until its network is trained
x_n ~ p(x | h = decoder(z1_n))                    likelihood

Where y_n is not observed it is summed over.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
from torch import Tensor
from torch.nn.functional import softplus

from ppl_vae.declaration import require
from ppl_vae.likelihoods import Bernoulli, Likelihood
from ppl_vae.models.base import PosteriorFamily
from ppl_vae.models.classes import ClassesProgram, OfClasses
from ppl_vae.models.starts import start_decoder
from ppl_vae.nn import MLP, Network
from ppl_vae.nn.conditioned import conditioned
from ppl_vae.nn.dormant import Dormant
from ppl_vae.priors import Prior, StandardNormal
from ppl_vae.program.facts import prior_support
from ppl_vae.program.hooks import Start
from ppl_vae.program.joint import Joint
from ppl_vae.program.rows import data_plate
from ppl_vae.program.sites import Site
from ppl_vae.types import DataSpec

__all__ = ["StackedProgram", "StackedSemiSupervisedVAE"]

LN2 = math.log(2)  # softplus(0), so that a scale of no features is one
MIN_SCALE = 1e-6  # keeps log(scale) finite when softplus underflows in float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class StackedSemiSupervisedVAE(OfClasses):
    """M1 + M2: p(y) p(z2) p(z1 | z2, y) p(x | z1), y the class, of data of which some have a label (Kingma et al. 2014).

    A VAE with code z1 whose prior is a semi-supervised VAE of that code, in one bound. Until its network is trained
    p(z1 | z2, y) is Normal(0, I), so :class:`~ppl_vae.Stages` may train the VAE first, by
    ``SVI(only=("model.decoder", "model.likelihood", "guide.encoder"))``, and the rest afterwards, by
    ``SVI(only=("model.network", "guide.classifier", "guide.rest"))``; ``methods/m1_m2.yaml`` does.

    Args:
        classes: C, by default the number of classes that the data have.
        latent_dim: K1, dimensions of the code z1, from which x is decoded.
        rest_dim: K2, dimensions of z2, what the class leaves open of the code.
        prior: p(z2).
        network: from z2 and the one-hot y to locations and scales of z1.
        likelihood: p(x | h), where h = decoder(z1).
        decoder: the network from z1 to the likelihood's features.

    Raises:
        ValueError: a dimension below one, fewer than two classes, or a prior that is not one of real vectors; on checking,
            data without labels, or with another number of classes.

    Examples:
        >>> print(*StackedSemiSupervisedVAE(classes=10, rest_dim=2).story().split("; ")[2:], sep="; ")
        z1 | z2, y ~ Normal((m, s) = MLP(z2, y)); x | z1 ~ Bernoulli(logits = MLP(z1))
    """

    posterior_family: ClassVar[PosteriorFamily] = "stacked"

    classes: int | None = None
    latent_dim: int = 50
    rest_dim: int = 50
    prior: Prior = StandardNormal()
    network: Network = MLP()
    likelihood: Likelihood = Bernoulli()
    decoder: Network = MLP()

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.rest_dim >= 1, "a rest_dim of at least 1", self.rest_dim)

    def build(self, spec: DataSpec) -> StackedProgram:
        """The Pyro program for data of this shape and number.

        Raises:
            ValueError: a prior made of the guide's posteriors.
        """
        return StackedProgram(self, spec)

    def story(self) -> str:
        """The sites from top to bottom, as mathematics."""
        prior = self.prior.story((self.rest_dim,))
        code = f"Normal((m, s) = {self.network.story('z2, y')})"
        likelihood = self.likelihood.story(self.decoder.story("z1"))
        return f"y ~ Categorical(1 / C), observed where known; z2 ~ {prior}; z1 | z2, y ~ {code}; x | z1 ~ {likelihood}"


class StackedProgram(ClassesProgram):
    """The program, called with x ``(B, *event)`` and, of rows that have one, their label ``(B,)``; y is one-hot."""

    decoder: Any

    def __init__(self, declared: StackedSemiSupervisedVAE, spec: DataSpec) -> None:
        super().__init__(declared, spec, (declared.rest_dim,))
        self.code_shape = (declared.latent_dim,)
        self.rest_shape = (declared.rest_dim,)
        self.network = Dormant(conditioned(declared.network, self.rest_shape, self.classes, (2, *self.code_shape)))
        self.decoder = declared.decoder.build(self.code_shape, (declared.likelihood.features, *spec.event_shape))
        self.likelihood = declared.likelihood.build(spec.event_shape)

    def forward(self, *batch: Tensor) -> Tensor:
        """The story, with the batch's x observed, and its labels where it has some."""
        x, *labels = batch
        x = x.to(self.logits.dtype)  # sums over classes take terms of one dtype, and a Bernoulli's has that of x
        with data_plate(self.size, x):
            y = pyro.sample("y", self.prior_of_class(), obs=self.codes_of(*labels) if labels else None)
            z2 = pyro.sample("z2", self.prior_of_rest())
            z1 = pyro.sample("z1", self.prior_of_code(z2, y))
            return pyro.sample("x", self.decode({"z1": z1}), obs=x)

    @property
    def sites(self) -> dict[str, Site]:
        """Y as a one-hot vector, and both levels."""
        return {
            "y": Site("y", (self.classes,), self.prior_of_class().support),
            "z2": Site("z2", self.rest_shape, prior_support(self.prior_of_rest)),
            "z1": Site("z1", self.code_shape, dist.constraints.independent(dist.constraints.real, 1)),
        }

    def prior_of_code(self, z2: Tensor, y: Tensor) -> dist.Distribution:
        """p(z1 | z2, y) for z2 ``(..., K2)`` and one-hot y ``(..., C)``."""
        loc, raw_scale = self.network(z2, y).unbind(-2)
        return dist.Normal(loc, (softplus(raw_scale) / LN2).clamp_min(MIN_SCALE)).to_event(1)

    def prior(self) -> Joint:
        """p(y) p(z2) p(z1 | z2, y)."""
        code = lambda values: self.prior_of_code(values["z2"], values["y"])  # noqa: E731
        return Joint({"y": self.prior_of_class(), "z2": self.prior_of_rest(), "z1": code})

    def decode(self, z: dict[str, Tensor]) -> dist.Distribution:
        """p(x | z1) for z1 ``(..., K1)``; the others tell nothing more."""
        return self.likelihood(self.decoder(z["z1"]))

    def start_fit(self, context: Start) -> None:
        """Let the decoder, if it can, start at the features under which the training data are likeliest, as a VAE's does."""
        start_decoder(self.decoder, self.likelihood, context)
