"""The declaration of a diffusion: an iterated VAE whose guide only adds noise."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal, get_args

from ppl_vae.declaration import require
from ppl_vae.likelihoods import Categorical, Likelihood
from ppl_vae.models.base import PosteriorFamily
from ppl_vae.models.conditions import Condition
from ppl_vae.models.decoded import Decoded
from ppl_vae.models.diffusion.ends import refuse_without_decoder
from ppl_vae.models.diffusion.noise import LinearNoise, NoiseSchedule
from ppl_vae.models.diffusion.prediction import Predicts
from ppl_vae.models.diffusion.program import DiffusionProgram
from ppl_vae.nn import MLP, CausalNetwork, Network
from ppl_vae.types import BINARY, CATEGORICAL, REAL, UNIT_INTERVAL, DataSpec, Kind

__all__ = ["Diffusion"]

Variance = Literal["lower", "upper", "learned"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diffusion(Decoded):
    """Diffusion: p(z_T) prod_t p(z_(t-1) | z_t) p(x | z_0), fitted with a guide that adds noise and has nothing to learn.

    The latent variables are the data themselves under ever more noise, z_t = alpha_t x + sigma_t epsilon, and each step back
    takes a little of it off by what a denoiser says of x. Sohl-Dickstein et al. (2015); Ho, Jain and Abbeel (2020), "Denoising
    diffusion probabilistic models"; Kingma et al. (2021), "Variational diffusion models", whose ELBO this is, constants and
    all. Data with ends or levels are centred on [-1, 1] first; real numbers are taken as the model sees them.

    Training draws one step of each datum and counts it T times, so that the ELBO of the history is an unbiased estimate;
    evaluation sums all T.

    Args:
        steps: T, or ``None`` for its limit: the bound of continuous time, 1/2 E[gamma'(t) ||epsilon - epsilon'||^2] in place of
            the sum of the KL of steps (Kingma et al. 2021, eq. 18). Evaluation draws 128 times of each datum, one in each of as
            many equal parts; new data are drawn in 1000 steps.
        noise: the schedule, how much noise there is at each time.
        denoiser: the network from z_t, told the time t, to what it predicts; ``UNet`` of images.
        predicts: what the network gives: the ``noise`` epsilon, the ``data`` x, or the ``velocity`` alpha epsilon - sigma x
            (Salimans and Ho 2022), which are one model in other words, and train differently; or, of data of few levels, the
            ``levels``: a logit of each, to which Bayes' rule adds what z_t tells of its own element (Gulrajani and Hashimoto
            2023), so that what is learned is how elements hang together.
        variance: of a step back: the ``lower`` of the two usual ones, that of q(z_s | z_t, x); the ``upper``, of data that are
            noise; or ``learned``, between and beyond them by a second output of the network (Nichol and Dhariwal 2021), which
            pays where steps are few.
        fourier: whether the network is also told sine and cosine of z_t with the period of a level, so that it sees fine steps.
        likelihood: p(x | z_0): ``Categorical`` of levels, ``Bernoulli`` or ``Gaussian``.
        decoder: the network from z_0 to the likelihood's features. None by default: p(x | z_0) is proportional to q(z_0 | x).
        condition: ``Labels()`` for p(x | y), y the class of a datum, which the denoiser is told; numbers are about log p(x | y)
            of rows with a label, and of rows without, which may be among them, about log p(x) by the denoiser told of none.
        label_dropout: with which probability training takes the label of a datum away, so that new data can be guided
            (Ho and Salimans 2022, "Classifier-free diffusion guidance"). It is counted beside the ELBO, in ``objective`` alone.

    Raises:
        ValueError: no step, an unknown choice, a causal network, a likelihood that needs a decoder, another variance than the
            lower one of continuous time, a condition that is not the class, or labels to drop without one; on checking, data
            without labels; on building a denoiser whose output has another shape than the data.

    Examples:
        >>> print(Diffusion(steps=9, likelihood=Bernoulli()))
        z_T ~ Normal(0, I); z_s | z_t ~ Normal, mean by MLP(z_t, t), t = T..1, T = 9; x | z_0 ~ Bernoulli(logits = h(z_0))
    """

    posterior_family: ClassVar[PosteriorFamily] = "noise"

    steps: int | None = 1000
    noise: NoiseSchedule = LinearNoise()
    denoiser: Network = MLP(hidden=(256, 256), activation="silu")
    predicts: Predicts = "noise"
    variance: Variance = "lower"
    fourier: bool = False
    likelihood: Likelihood = Categorical()
    decoder: Network | None = None
    condition: Condition | None = None
    label_dropout: float = 0.0

    def __post_init__(self) -> None:
        counted = isinstance(self.steps, int) and self.steps >= 1
        require(self.steps is None or counted, "at least 1 step, or None for continuous time", self.steps)
        require(self.predicts in get_args(Predicts), f"a prediction of {', '.join(get_args(Predicts))}", self.predicts)
        require(self.variance in get_args(Variance), f"a variance of {', '.join(get_args(Variance))}", self.variance)
        require(not isinstance(self.denoiser, CausalNetwork), "a denoiser that sees all of z_t, such as MLP", self.denoiser)
        if self.decoder is None:
            refuse_without_decoder(self.likelihood)
        require(bool(self.accepts), "a likelihood of levels, bits or numbers", self.likelihood)
        one = self.steps is not None or self.variance == "lower"
        require(one, "variance='lower' of continuous time, where all variances are one", self.variance)
        self._check_condition()

    def _check_condition(self) -> None:
        """Raise ``ValueError`` for a condition that is not the class, or a share of labels that there are not."""
        require(
            self.condition is None or self.condition.labelled, "a condition=Labels() of a Diffusion, or none", self.condition
        )
        require(0 <= self.label_dropout < 1, "a label_dropout in [0, 1)", self.label_dropout)
        some = self.condition is not None or not self.label_dropout
        require(some, "a condition=Labels() for a label_dropout, or none of either", self.label_dropout)

    @property
    def labelled(self) -> bool:
        """Whether it is given the class of each datum that has one."""
        return self.condition is not None

    @property
    def accepts(self) -> frozenset[Kind]:
        """The kinds of data that the likelihood is a density of, and noise can be added to."""
        return self.likelihood.accepts & {BINARY, CATEGORICAL, REAL, UNIT_INTERVAL}

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` with the remedy if the data are no numbers to add noise to, or some are missing."""
        self.likelihood.check(spec)
        if spec.kind not in self.accepts:
            kinds = ", ".join(sorted(kind.name for kind in self.accepts))
            raise ValueError(f"Diffusion adds noise to data that are {kinds}, got {spec.kind}: load them as one of these")
        if self.condition is not None:
            self.condition.check(spec)
        if not spec.event_shape:
            raise ValueError("expected rows of at least one element for Diffusion, got single values: give them as (N, 1)")
        if spec.missing:
            raise ValueError(
                "Diffusion is a model of complete data, but entries of these are missing: fill them or drop those rows, or use "
                "FactorAnalysis, GMM, or a VAE with Masked(likelihood=...)"
            )

    def build(self, spec: DataSpec) -> DiffusionProgram:
        """The Pyro program for data of this shape and number."""
        return DiffusionProgram(self, spec)

    def story(self) -> str:
        """The sites from top to bottom, as mathematics."""
        features = "h(z_0)" if self.decoder is None else self.decoder.story("z_0")
        given, y = ("", "") if self.condition is None else (f"y = {self.condition.story()}; ", ", y")
        chain = "t in (0, 1], s -> t" if self.steps is None else f"t = T..1, T = {self.steps}"
        step = f"z_s | z_t{y} ~ Normal, mean by {self.denoiser.story(f'z_t, t{y}')}, {chain}"
        return f"{given}z_T ~ Normal(0, I); {step}; x | z_0 ~ {self.likelihood.story(features)}"
