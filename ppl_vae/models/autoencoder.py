"""The deterministic autoencoder, a baseline without a prior (Hinton and Salakhutdinov 2006).

for n in 1..N:
z_n: any code                   flat, log p(z) = 0
x_n ~ p(x | h = decoder(z_n))   likelihood

With codes z_n = encoder(x_n), points without a density, what is maximized is the reconstruction log p(x_n | z_n) alone. It is
no bound on log p(x): no p(z) has been matched, so there is no p(x). New data come from a normal fitted to the training codes
afterwards (Ghosh et al. 2020, "From variational to deterministic autoencoders").
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import ClassVar

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.exact import moments
from ppl_vae.likelihoods import Bernoulli, Likelihood
from ppl_vae.models.base import PosteriorFamily
from ppl_vae.models.decoded import Decoded
from ppl_vae.models.vae import LatentModel
from ppl_vae.nn import MLP, Network
from ppl_vae.program.hooks import Finish
from ppl_vae.program.pair import data_plate
from ppl_vae.types import DataSpec

__all__ = ["AutoEncoder", "CodeModel"]

JITTER = 1e-6  # of the codes' variance, for codes that fill no volume


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoEncoder(Decoded):
    """Deterministic autoencoder: decoder x likelihood, and the encoder of the guide, ``AmortizedDelta``.

    ``evaluate`` gives its ``reconstruction``, log p(x | encoder(x)), which is no bound on log p(x); ``sample`` decodes draws of
    a normal fitted to the training codes, of which the decoder has been told nothing.

    Args:
        latent_dim: K, dimensions of the code z.
        likelihood: p(x | h), where h = decoder(z); its log-density is the reconstruction, in nats.
        decoder: the network from z to the likelihood's features.

    Raises:
        ValueError: a latent dimension below one.

    Examples:
        >>> print(AutoEncoder(latent_dim=2))
        z: any code, no prior; x | z ~ Bernoulli(logits = MLP(z))
    """

    posterior_family: ClassVar[PosteriorFamily] = "point"

    latent_dim: int = 8
    likelihood: Likelihood = Bernoulli()
    decoder: Network = MLP()

    def build(self, spec: DataSpec) -> CodeModel:
        """The Pyro program for data of this shape and number."""
        return CodeModel(
            size=spec.size,
            latent_shape=(self.latent_dim,),
            decoder=self.decoder.build((self.latent_dim,), (self.likelihood.features, *spec.event_shape)),
            likelihood=self.likelihood.build(spec.event_shape),
        )

    def story(self) -> str:
        """The sites from top to bottom, as mathematics."""
        return f"z: any code, no prior; x | z ~ {self.likelihood.story(self.decoder.story('z'))}"


class CodeDensity(nn.Module):
    """The normal of the training codes, standard before there are any; its moments are buffers, for no loss sees them."""

    loc: Tensor
    scale_tril: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(latent_dim))
        self.register_buffer("scale_tril", torch.eye(latent_dim))

    def forward(self) -> dist.Distribution:
        """The density of ``(K,)``."""
        return dist.MultivariateNormal(self.loc, scale_tril=self.scale_tril)

    @torch.no_grad()
    def fit(self, codes: Iterable[Tensor]) -> None:
        """Take the mean and covariance of batches of codes ``(B, K)``, which may have weights."""
        seen = moments.moments(codes)
        ridge = (JITTER * seen.covariance.diagonal().mean()).clamp_min(JITTER**2)
        self.loc.copy_(seen.mean)
        self.scale_tril.copy_(torch.linalg.cholesky(seen.covariance + ridge * torch.eye(len(seen.mean)).to(seen.covariance)))


class CodeModel(LatentModel):
    """The program of models whose codes have no prior; ``prior`` only tells where new codes are drawn from."""

    latent = "code"
    score = "reconstruction"
    drawn_from = "a normal fitted to the codes"

    def __init__(self, *, size: int, latent_shape: tuple[int, ...], decoder: nn.Module, likelihood: nn.Module) -> None:
        prior = CodeDensity(*latent_shape)
        super().__init__(size=size, latent_shape=latent_shape, prior=prior, decoder=decoder, likelihood=likelihood)

    def forward(self, x: Tensor) -> Tensor:
        """The story, with the batch x ``(B, *event)`` observed."""
        with data_plate(self.size, x):
            z = pyro.sample("z", self.prior().mask(False))  # drawn from there, and weighed by nothing
            return pyro.sample("x", self.decode(z), obs=x)

    def finish_fit(self, context: Finish) -> None:
        """Fit where new codes are drawn from to those of the training data."""
        codes, weights = (context.guide.posterior(x).mean for x in context.batches), moments.weights_of(context.batches)
        self.prior.fit(codes if weights is None else moments.Weighted(codes, weights))
