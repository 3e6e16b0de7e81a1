"""The conditional variational autoencoder's generative story (Sohn, Lee and Yan 2015).

for n in 1..N, given y_n:
z_n ~ p(z | y_n)                             prior
x_n ~ p(x | h = decoder(z_n, y_n))           likelihood, of what y_n does not hold of x_n
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import pyro
import pyro.distributions as dist
from torch import Tensor

from ppl_vae.data import Data
from ppl_vae.declaration import require
from ppl_vae.models.baseline import Baseline, FirstGuess, NoGuess
from ppl_vae.models.conditional_sequences import ConditionalSequenceProgram
from ppl_vae.models.conditions import Condition, Labels
from ppl_vae.models.starts import Adjustable, start_decoder
from ppl_vae.models.vae import VAE, LatentModel
from ppl_vae.nn import CausalNetwork
from ppl_vae.nn.conditioned import conditioned
from ppl_vae.priors import ConditionalNormal, ConditionalPrior, Prior
from ppl_vae.program.capabilities import MadeOfPosteriors
from ppl_vae.program.facts import posterior_prior
from ppl_vae.program.hooks import Start
from ppl_vae.program.rows import data_plate
from ppl_vae.types import DataSpec, FitWarning

__all__ = ["CVAE", "ConditionalModel"]

HALF = 0.5  # a count that keeps the rate of what was never counted above zero


@dataclasses.dataclass(frozen=True, kw_only=True)
class CVAE(VAE):
    """Conditional variational autoencoder: p(x | z, y) p(z | y), q(z | x, y) (Sohn, Lee and Yan 2015).

    Args:
        condition: y: labels, covariates beside x, or a part of x, of which then only the rest is modelled.
        latent_dim: K, dimensions of the latent variable z.
        prior: p(z | y), or p(z) where it does not depend on y.
        likelihood: p(x | h), where h = decoder(z, y).
        decoder: the network from z and y to the likelihood's features. One that sees what came earlier, such as ``LSTM``,
            decodes rows of any length given their class, and the likelihood is then that of an element.
        enters: what is told y besides the prior: the ``decoder``, and the guide's ``encoder``, which sees a part of x anyway.
        baseline: a first guess of x that goes with y wherever y goes but into the encoder.

    Raises:
        ValueError: a latent dimension below one; a baseline with covariates; on checking, data without the condition, part of x
            as a condition of a likelihood whose elements depend on each other, or sizes with one that has no log-mean.

    Examples:
        >>> print(CVAE(latent_dim=2, prior=StandardNormal()))
        y = class of x; z ~ Normal(0, I_2); x | z, y ~ Bernoulli(logits = MLP(z, y))
    """

    condition: Condition = Labels()
    prior: Prior = ConditionalNormal()
    enters: tuple[Literal["decoder", "encoder"], ...] = ("decoder", "encoder")
    baseline: Baseline | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "enters", tuple(self.enters))
        places = ("decoder", "encoder")
        require(set(self.enters) <= set(places), f"enters of {', '.join(places)}", self.enters)
        guessed = self.baseline is not None and bool(self.condition.covariates)
        require(not guessed, "no baseline with covariates, which are little to guess x from", self.baseline)

    @property
    def fields(self) -> tuple[str, ...]:
        """Those of the condition."""
        return self.condition.fields

    def resolve(self, data: Data) -> Data:
        """The data as the condition takes them, too."""
        return self.condition.resolve(super().resolve(data))

    @property
    def labelled(self) -> bool:
        """Whether its condition is class labels."""
        return self.condition.labelled

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` with the remedy if the data do not have the condition, or do not lie in the support."""
        super().check(spec)
        self.condition.check(spec)
        self._check_covariates()
        self._check_rows()
        if self.condition.known(spec.event_shape) is not None and not self.likelihood.factorizes:
            raise ValueError(
                f"a part of x can be left out of likelihoods of independent elements only, not of {self.likelihood!r}: use "
                "another likelihood, or condition on labels"
            )

    def _check_covariates(self) -> None:
        """Raise ``ValueError`` for sizes without a mean to multiply; remark on a prior that lets codes hold covariates."""
        if self.condition.sized and self.likelihood.log_mean is None:
            raise ValueError(
                "size factors multiply a mean whose logarithm the decoder gives, which is not so of "
                f"{type(self.likelihood).__name__}: use Poisson, NegativeBinomial, or ZeroInflated of one, or leave "
                "size_factors out"
            )
        if self.condition.covariates and isinstance(self.prior, ConditionalPrior):
            warnings.warn(
                f"p(z | y) is another for each of {', '.join(self.condition.covariates)}, so that codes may hold what these "
                "tell: declare prior=StandardNormal() to have them told apart from it",
                FitWarning,
                stacklevel=3,
            )

    def _check_rows(self) -> None:
        """Raise ``ValueError`` for what rows that are decoded element after element are not given."""
        if self.takes_ragged and not (self.labelled and self.baseline is None):
            got = "a baseline" if self.labelled else type(self.condition).__name__
            raise ValueError(
                f"expected rows given their class alone (condition=Labels()) of {type(self.decoder).__name__}, which sees what "
                f"came earlier, got {got}: leave it out"
            )

    def check_values(self, x: Tensor) -> None:
        """Raise ``ValueError`` if what is modelled of x ``(n, *event)`` does not lie in the likelihood's support."""
        known = self.condition.known(tuple(x.shape[1:]))
        super().check_values(x if known is None else x.masked_fill(known.to(x.device), self.likelihood.filler))

    def without_latents(self, spec: DataSpec) -> None:
        """Nothing that compares: what is left knows the condition."""
        return

    def build(self, spec: DataSpec) -> ConditionalModel | ConditionalSequenceProgram:
        """The Pyro program for data of this shape and number.

        Raises:
            ValueError: a prior made of the guide's posteriors, which labels would be part of.
        """
        if isinstance(self.decoder, CausalNetwork):
            return self._of_rows(self.decoder, spec)
        model = ConditionalModel(self, spec)
        if len(model.reads) > 1 and posterior_prior(model):
            raise ValueError(
                f"{type(self.prior).__name__} is made of posteriors q(z | x, y), which need labels of their own: use "
                "ConditionalNormal, another prior, or VAE"
            )
        return model

    def _of_rows(self, network: CausalNetwork, spec: DataSpec) -> ConditionalSequenceProgram:
        """The program for rows given their class."""
        shape, condition, prior = (self.latent_dim,), self.condition.build(spec), self.prior
        given = isinstance(prior, ConditionalPrior)
        built = prior.build_given(shape, condition.columns) if isinstance(prior, ConditionalPrior) else prior.build(shape)
        if isinstance(built, MadeOfPosteriors):
            raise ValueError(f"expected a prior without data of its own for rows of a class, got {type(prior).__name__}")
        return ConditionalSequenceProgram(
            latent_shape=shape,
            prior=built,
            given_prior=given,
            condition=condition,
            enters=self.enters,
            network=network,
            likelihood=self.likelihood,
            spec=spec,
        )

    def story(self) -> str:
        """The sites from top to bottom, as mathematics."""
        given = "z | y" if isinstance(self.prior, ConditionalPrior) else "z"
        told = "z, y" if "decoder" in self.enters else "z"
        prior = self.prior.story((self.latent_dim,))
        if isinstance(self.decoder, CausalNetwork):
            likelihood = self.likelihood.story(self.decoder.causal_story(told))
            return f"y = {self.condition.story()}; {given} ~ {prior}; x_t | x_<t, {told} ~ {likelihood}"
        likelihood = self.likelihood.story(self.decoder.story(told))
        if self.condition.sized:
            likelihood = likelihood.replace("exp ", f"s {self.condition.rate} ", 1)
        return f"y = {self.condition.story()}; {given} ~ {prior}; x | {told} ~ {likelihood}"


class ConditionalModel(LatentModel):
    """The program of a model with one latent variable per datum, given y.

    A batch is x ``(B, *event)``, and labels ``(B,)`` where the model is ``labelled``, or covariates ``(B,)``. What is known of
    it are the columns of y ``(..., C)``, and what networks are told of them, the first guess included.
    """

    condition: Any
    guess: Any

    def __init__(self, declared: CVAE, spec: DataSpec) -> None:
        shape, features = (declared.latent_dim,), (declared.likelihood.features, *spec.event_shape)
        condition, likelihood = declared.condition.build(spec), declared.likelihood.build(spec.event_shape)
        guess = FirstGuess(declared.baseline, condition.columns, spec, likelihood, features) if declared.baseline else NoGuess()
        columns = condition.columns + guess.columns
        told = columns if "decoder" in declared.enters else 0
        prior, given = declared.prior, isinstance(declared.prior, ConditionalPrior)
        super().__init__(
            size=spec.size,
            latent_shape=shape,
            prior=prior.build_given(shape, columns) if isinstance(prior, ConditionalPrior) else prior.build(shape),
            decoder=conditioned(declared.decoder, shape, told, features),
            likelihood=likelihood,
        )
        self.condition = condition
        self.guess = guess
        self.reads = ("x", "y") if declared.condition.labelled else ("x", *declared.condition.fields)
        self.covariates = declared.condition.covariates
        self.log_mean = declared.likelihood.log_mean
        self.given_prior = given
        self.decoder_columns = told
        self.beside_columns = condition.columns if "encoder" in declared.enters else 0
        self.filler = declared.likelihood.filler
        self.known_entries = declared.condition.known(spec.event_shape)

    def forward(self, *batch: Tensor) -> Tensor:
        """The story, with the batch's x observed."""
        known = self.known(*batch)
        with data_plate(self.size, batch[0]):
            z = pyro.sample("z", self.prior_given(*known))
            return pyro.sample("x", self.decode(z, *known), obs=batch[0])

    def known(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """Y's columns ``(..., C)`` and what prior and decoder are told of them."""
        c = self.condition(*batch)
        return c, self.guess(self.condition.shown(c))

    def prior_given(self, *known: Tensor) -> dist.Distribution:
        """p(z | y)."""
        return self.prior(known[1]) if self.given_prior else self.prior()

    def decode(self, z: Tensor, *known: Tensor) -> dist.Distribution:
        """p(x | z, y) for z ``(..., *latent_shape)`` and what is known of as many data, or of one."""
        c, told = known
        features = self.condition.with_size(self.decoder(z, told[..., : self.decoder_columns]), c, self.log_mean)
        return self.condition.complete(self.likelihood(features), c, self.filler)

    def covariate_values(self, *batch: Tensor) -> dict[str, Tensor]:
        """The covariates of a batch by name, each ``(B,)``."""
        return self.condition.values(*batch)

    def covariate_default(self, name: str) -> Tensor | None:
        """What ``(1,)`` stands for a covariate that is not told."""
        return self.condition.default(name)

    def given(self, values: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """What is known, of covariates by name, each as programs get it, ``(...)``."""
        c = self.condition.columns_of(values)
        return c, self.guess(self.condition.shown(c))

    def beside(self, *batch: Tensor) -> Tensor:
        """What the guide's encoder is told beside x."""
        return self.condition.shown(self.condition(*batch))[..., : self.beside_columns]

    def guessed(self, *batch: Tensor) -> dist.Distribution:
        """p(x | y) of the baseline."""
        c = self.condition(*batch)
        return self.condition.complete(self.guess.likelihood(self.condition.shown(c)), c, self.filler)

    def start_fit(self, context: Start) -> None:
        """Fit the baseline, if there is one, to the training data; start where other models do, counts at their mean rates."""
        density, rows = lambda *batch: self.guessed(*batch).log_prob(batch[0]), context.split
        self.guess.fit(density, rows, context.generator(), reads=self.reads)
        super().start_fit(context)
        decoder = self.decoder.network
        if self.covariates and self.log_mean is not None and isinstance(decoder, Adjustable):
            x = context.sample
            start = x.new_zeros(decoder.out_shape)
            start[self.log_mean] = ((x.nansum(0) + HALF) / self.condition.sizes(x).sum()).log()
            decoder.start_at(start)
        else:
            known, x = self.known_entries, context.sample
            modelled = x if known is None else x.masked_fill(known.to(x.device), self.filler)
            start_decoder(decoder, self.likelihood, dataclasses.replace(context, sample=modelled))
