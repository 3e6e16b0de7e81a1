"""The variational autoencoder's generative story (Kingma and Welling 2014; Rezende, Mohamed and Wierstra 2014).

for n in 1..N:
z_n ~ p(z)                      prior
x_n ~ p(x | h = decoder(z_n))   likelihood
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Protocol, runtime_checkable

import pyro
import pyro.distributions as dist
from torch import Tensor, nn

from ppl_vae.declaration import require
from ppl_vae.likelihoods import Bernoulli, Likelihood
from ppl_vae.likelihoods.multinomial import MultinomialModule
from ppl_vae.models.decoded import Decoded
from ppl_vae.models.grids import Grids
from ppl_vae.models.sequences import LatentSequenceProgram, check_rows
from ppl_vae.models.starts import start_decoder
from ppl_vae.models.told import of_noise, of_prior
from ppl_vae.nn import MLP, CausalNetwork, Network
from ppl_vae.priors import Prior, StandardNormal
from ppl_vae.program.base import ModelProgram
from ppl_vae.program.capabilities import MadeOfPosteriors, attribute
from ppl_vae.program.facts import prior_support
from ppl_vae.program.hooks import Start
from ppl_vae.program.quantities import Quantity
from ppl_vae.program.rows import data_plate
from ppl_vae.program.sites import Site
from ppl_vae.types import DataSpec

__all__ = ["VAE", "LatentModel"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class VAE(Decoded):
    """Variational autoencoder: prior x decoder x likelihood.

    Args:
        latent_dim: K, dimensions of the latent variable z.
        prior: p(z).
        likelihood: p(x | h), where h = decoder(z).
        decoder: the network from z to the likelihood's features. One that sees what came earlier, such as ``LSTM``, decodes
            rows of any length, and the likelihood is then that of an element.

    Raises:
        ValueError: a latent dimension below one.

    Examples:
        >>> print(VAE(latent_dim=2))
        z ~ Normal(0, I_2); x | z ~ Bernoulli(logits = MLP(z))
    """

    latent_dim: int = 8
    prior: Prior = StandardNormal()
    likelihood: Likelihood = Bernoulli()
    decoder: Network = MLP()

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.prior.support != "covariance", "a prior of vectors", self.prior)

    @property
    def categorical(self) -> bool:
        """Whether p(z) is a mixture or over categories, or the model is conditioned on labels."""
        return self.labelled or self.prior.categorical

    @property
    def takes_ragged(self) -> bool:
        """Whether the decoder sees what came earlier."""
        return isinstance(self.decoder, CausalNetwork)

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` with the remedy if the likelihood is no density of the data, or the decoder has no rows."""
        super().check(spec)
        if isinstance(self.decoder, CausalNetwork):
            check_rows(spec, self.decoder)

    def without_latents(self, spec: DataSpec) -> Likelihood | None:
        """The likelihood; nothing where elements hang on those before them, without z as well."""
        return None if self.takes_ragged else self.likelihood

    def build(self, spec: DataSpec) -> LatentModel | LatentSequenceProgram:
        """The Pyro program for data of this shape and number."""
        shape = (self.latent_dim,)
        prior = self.prior.build(shape)
        if isinstance(self.decoder, CausalNetwork) and self.decoder.grids:
            grids = Grids(self.decoder, self.likelihood, spec, self.latent_dim)
            return LatentModel(size=spec.size, latent_shape=shape, prior=prior, decoder=nn.Identity(), likelihood=grids)
        if isinstance(self.decoder, CausalNetwork):
            if spec.ragged and isinstance(prior, MadeOfPosteriors):
                name = type(self.prior).__name__
                raise ValueError(f"expected a prior without data of its own for rows of different lengths, got {name}")
            return LatentSequenceProgram(
                latent_shape=shape,
                prior=prior,
                network=self.decoder,
                likelihood=self.likelihood,
                spec=spec,
            )
        return LatentModel(
            size=spec.size,
            latent_shape=shape,
            prior=prior,
            decoder=self.decoder.build(shape, (self.likelihood.features, *spec.event_shape)),
            likelihood=self.likelihood.build(spec.event_shape),
        )

    def story(self) -> str:
        """The sites from top to bottom, as mathematics."""
        prior = f"z ~ {self.prior.story((self.latent_dim,))}"
        if isinstance(self.decoder, CausalNetwork):
            return f"{prior}; x_t | x_<t, z ~ {self.likelihood.story(self.decoder.causal_story('z'))}"
        return f"{prior}; x | z ~ {self.likelihood.story(self.decoder.story('z'))}"


@runtime_checkable
class Sized(Protocol):
    """A decoder that says the shape of its features."""

    out_shape: tuple[int, ...]


class LatentModel(ModelProgram):
    """The program of every model with one latent variable per datum.

    Args:
        size: N, the number of training data.
        latent_shape: event shape of z.
        prior: module whose call returns p(z).
        decoder: module from z ``(..., *latent_shape)`` to features ``(..., P, *event)``.
        likelihood: module from features to p(x | h).
    """

    size: int
    latent_shape: tuple[int, ...]
    decoder: Any
    likelihood: Any

    def __init__(
        self, *, size: int, latent_shape: tuple[int, ...], prior: nn.Module, decoder: nn.Module, likelihood: nn.Module
    ) -> None:
        super().__init__()
        self.size = size
        self.latent_shape = latent_shape
        self.prior = prior
        self.decoder = decoder
        self.likelihood = likelihood

    def forward(self, x: Tensor) -> Tensor:
        """The story, with the batch x ``(B, *event)`` observed."""
        with data_plate(self.size, x):
            z = pyro.sample("z", self.prior())
            return pyro.sample("x", self.decode(z), obs=x)

    @property
    def sites(self) -> dict[str, Site]:
        """Z, on the support of its prior."""
        return {"z": Site("z", self.latent_shape, prior_support(self.prior))}

    @property
    def takes_missing(self) -> bool:
        """Whether the likelihood leaves missing entries out."""
        return bool(attribute(self.likelihood, "missing", False))

    @property
    def element_features(self) -> int:
        """As many as the decoder gives."""
        return self.decoder.out_shape[0] if isinstance(self.decoder, Sized) else 1

    @property
    def documents(self) -> bool:
        """Whether the likelihood is one of counts given their total."""
        return isinstance(self.likelihood, MultinomialModule)

    def quantities(self) -> dict[str, Quantity]:
        """Moments of p(z) and the scale of the noise, where they are the same for all data."""
        noise = of_noise(self.likelihood, math.prod(self.decoder.out_shape[1:])) if isinstance(self.decoder, Sized) else {}
        return {**({} if self.given_prior else of_prior(self.prior())), **noise}

    def decode(self, z: Tensor) -> dist.Distribution:
        """p(x | z) for z ``(..., *latent_shape)``."""
        return self.likelihood(self.decoder(z))

    def start_fit(self, context: Start) -> None:
        """Let the decoder, if it can, start at the features under which the training data are likeliest without z.

        Only where an element has one feature, a location, for a scale would start tiny for elements that hardly vary; or where
        the likelihood says that all its features may, since its elements are on one scale.
        """
        start_decoder(self.decoder, self.likelihood, context)
