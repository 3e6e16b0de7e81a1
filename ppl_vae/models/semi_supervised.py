"""The semi-supervised variational autoencoder's generative story, M2 of Kingma, Rezende, Mohamed and Welling (2014).

for n in 1..N:
y_n ~ Categorical(1 / C, ..., 1 / C)         class, observed where row n has a label
z_n ~ p(z)                                   prior
x_n ~ p(x | h = decoder(z_n, y_n))           likelihood

Where y_n is not observed it is summed over: log p(x) = log sum_y p(y) p(x | y).
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
from torch import Tensor

from ppl_vae.likelihoods import Bernoulli, Likelihood
from ppl_vae.models.base import PosteriorFamily
from ppl_vae.models.classes import ClassesProgram, OfClasses
from ppl_vae.models.starts import start_decoder
from ppl_vae.nn import MLP, Network
from ppl_vae.nn.conditioned import conditioned
from ppl_vae.priors import Prior, StandardNormal
from ppl_vae.program.facts import prior_support
from ppl_vae.program.hooks import Start
from ppl_vae.program.joint import Joint
from ppl_vae.program.rows import data_plate
from ppl_vae.program.sites import Site
from ppl_vae.types import DataSpec

__all__ = ["SemiSupervisedProgram", "SemiSupervisedVAE"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SemiSupervisedVAE(OfClasses):
    """Semi-supervised VAE: p(y) p(z) p(x | z, y), y the class, of data of which some have a label (M2, Kingma et al. 2014).

    Rows without a label (-1, empty or NaN) are fitted too, their class summed over. Numbers are about log p(x, y) of rows with
    a label and log p(x) of those without.

    Args:
        classes: C, by default the number of classes that the data have.
        latent_dim: K, dimensions of what the class leaves open, z.
        prior: p(z).
        likelihood: p(x | h), where h = decoder(z, y).
        decoder: the network from z and the one-hot y to the likelihood's features.

    Raises:
        ValueError: a latent dimension below one, fewer than two classes, or a prior that is not one of real vectors; on
            checking, data without labels, or with another number of classes.

    Examples:
        >>> print(SemiSupervisedVAE(classes=10, latent_dim=2))
        y ~ Categorical(1 / C), observed where known; z ~ Normal(0, I_2); x | z, y ~ Bernoulli(logits = MLP(z, y))
    """

    posterior_family: ClassVar[PosteriorFamily] = "classes"

    classes: int | None = None
    latent_dim: int = 8
    prior: Prior = StandardNormal()
    likelihood: Likelihood = Bernoulli()
    decoder: Network = MLP()

    def build(self, spec: DataSpec) -> SemiSupervisedProgram:
        """The Pyro program for data of this shape and number.

        Raises:
            ValueError: a prior made of the guide's posteriors.
        """
        return SemiSupervisedProgram(self, spec)

    def story(self) -> str:
        """The sites from top to bottom, as mathematics."""
        prior = self.prior.story((self.latent_dim,))
        likelihood = self.likelihood.story(self.decoder.story("z, y"))
        return f"y ~ Categorical(1 / C), observed where known; z ~ {prior}; x | z, y ~ {likelihood}"


class SemiSupervisedProgram(ClassesProgram):
    """The program, called with x ``(B, *event)`` and, of rows that have one, their label ``(B,)``; y is one-hot."""

    decoder: Any

    def __init__(self, declared: SemiSupervisedVAE, spec: DataSpec) -> None:
        super().__init__(declared, spec, (declared.latent_dim,))
        self.latent_shape = (declared.latent_dim,)
        features = (declared.likelihood.features, *spec.event_shape)
        self.decoder = conditioned(declared.decoder, self.latent_shape, self.classes, features)
        self.likelihood = declared.likelihood.build(spec.event_shape)

    def forward(self, *batch: Tensor) -> Tensor:
        """The story, with the batch's x observed, and its labels where it has some."""
        x, *labels = batch
        x = x.to(self.logits.dtype)  # sums over classes take terms of one dtype, and a Bernoulli's has that of x
        with data_plate(self.size, x):
            y = pyro.sample("y", self.prior_of_class(), obs=self.codes_of(*labels) if labels else None)
            z = pyro.sample("z", self.prior_of_rest())
            return pyro.sample("x", self.decode({"y": y, "z": z}), obs=x)

    @property
    def sites(self) -> dict[str, Site]:
        """Y as a one-hot vector, and z."""
        y = Site("y", (self.classes,), self.prior_of_class().support)
        return {"y": y, "z": Site("z", self.latent_shape, prior_support(self.prior_of_rest))}

    def prior(self) -> Joint:
        """p(y) p(z)."""
        return Joint({"y": self.prior_of_class(), "z": self.prior_of_rest()})

    def decode(self, z: dict[str, Tensor]) -> dist.Distribution:
        """p(x | z, y) for z ``(..., K)`` and one-hot y ``(..., C)``."""
        return self.likelihood(self.decoder(z["z"], z["y"]))

    def start_fit(self, context: Start) -> None:
        """Let the decoder, if it can, start at the features under which the training data are likeliest, as a VAE's does."""
        start_decoder(self.decoder.network, self.likelihood, context)
