"""The program of a diffusion: a chain of T factors in a sub-sampled plate (Sohl-Dickstein et al. 2015; Kingma et al. 2021).

for n in 1..N, given y_n, if anything:
z_T ~ Normal(0, I)
z_s ~ p(z_s | z_t, y_n),  s = t - 1/T, t = 1, 1 - 1/T, ..., 1/T    by the denoiser
x ~ p(x | z_0)

A run sees one step of each datum, at a time t that it draws; the plate over steps makes it count T times. So Pyro's ELBO of the
pair, with the KL of z_T and of z_s in closed form, is an unbiased estimate of

    ELBO = E[log p(x | z_0)] - KL(q(z_T | x) || p(z_T)) - sum_t E[KL(q(z_s | z_t, x) || p(z_s | z_t))]

The site z_s stands in coordinates in which its factors are u of :mod:`ppl_vae.models.diffusion.steps`. The values z_0 and z_t
that x and the step hang on count for nothing by themselves, in either program: what they cost is in the sum. In continuous time
the plate has one place, and the KL of u is what a unit of time costs at t.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from ppl_vae.models.diffusion.chain import Chain, Drawn
from ppl_vae.models.diffusion.denoiser import Denoiser
from ppl_vae.models.diffusion.ends import Centred, Features, count_levels, least_gamma
from ppl_vae.models.diffusion.noising import NoisingProgram
from ppl_vae.models.diffusion.prediction import Direct, LevelMeans
from ppl_vae.models.diffusion.steps import Instant, SpreadTimes, Step, over
from ppl_vae.program.base import ModelProgram
from ppl_vae.program.hooks import Start
from ppl_vae.program.rows import data_plate
from ppl_vae.types import FOUND_LABELS, DataSpec

__all__ = ["DiffusionProgram"]

WIDER: dict[str, Callable[[Tensor], Any]] = {"lower": torch.zeros_like, "upper": torch.ones_like, "learned": lambda raw: raw}
"""Where the scale of a step back lies between the two usual ones, on a logarithmic scale, from what is learned of it."""


class DiffusionProgram(ModelProgram):
    """p(x, z_0, ..., z_T), or given classes y p(x, z_0, ..., z_T | y), called with x and, of rows that have one, their label.

    Attributes:
        steps: T, how often the plate over steps counts what a run sees; 1 in continuous time.
        continuous: whether T is infinite.
        noise: gamma, from times to minus log signal-to-noise ratios.
        centred: from x to what noise is added to.
        denoiser: from z_t and t, and columns of y if there are such, to what is predicted.
        label_dropout: of which share of the rows training takes the label away.
        width: how many numbers that is of a datum.
    """

    drawn_from = "the chain of its steps"
    noise: Any
    denoiser: Any
    features: Any
    likelihood: Any
    first: Tensor
    one_step: Tensor
    unlabelled: Tensor

    def __init__(self, declared: Any, spec: DataSpec) -> None:
        super().__init__()
        self.size = spec.size
        self.continuous: bool = declared.steps is None
        self.steps: int = 1 if self.continuous else declared.steps
        self.variance: str = declared.variance
        self.event_shape = spec.event_shape
        self.event_dim = len(spec.event_shape)
        self.condition = None if declared.condition is None else declared.condition.build(spec)
        self.label_dropout: float = declared.label_dropout
        self.reads = ("x",) if self.condition is None else ("x", FOUND_LABELS)
        self.centred = Centred(declared.likelihood, spec)
        low = least_gamma(declared.likelihood, spec)
        self.noise = declared.noise.build(low)
        period = 2 * 3 * math.exp(low / 2) if declared.fourier else 0.0
        self.prediction = self._prediction(declared, spec)
        outputs = self.prediction.outputs + (declared.variance == "learned")
        self.width = outputs * math.prod(spec.event_shape)
        columns = 0 if self.condition is None else self.condition.columns
        self.denoiser = Denoiser(declared.denoiser, spec.event_shape, outputs, period, columns)
        self.features = Features(declared.likelihood, declared.decoder, self.centred, spec)
        self.likelihood = declared.likelihood.build(spec.event_shape)
        self.register_buffer("first", torch.zeros(()), persistent=False)
        self.register_buffer("one_step", torch.zeros(1, dtype=torch.long), persistent=False)
        if self.condition is not None:
            self.register_buffer("unlabelled", torch.tensor(False))  # whether some training rows had no label

    def forward(self, x: Tensor, *labels: Tensor) -> Any:
        """The story of one step of each datum, with the batch x ``(B, *event)`` observed."""
        standard, known = self.standard, self.of_labels(*labels)
        with data_plate(self.size, x):
            time = pyro.sample("time", SpreadTimes(self.first))
            with uncounted():
                z_0 = pyro.sample("z_0", standard)
            pyro.sample("z_T", standard)
            with self.plate():
                with uncounted():
                    z_t = pyro.sample("z_t", standard)
                pyro.sample("z_s", self.reverse(z_t, self.place(time), *known))
            return pyro.sample("x", self.likelihood_at(z_0), obs=x)

    def noising(self, spec: DataSpec) -> nn.Module:
        """The guide."""
        return NoisingProgram(self, spec)

    def start_fit(self, context: Start) -> None:
        """Remember whether the denoiser learns from rows without a label."""
        if self.condition is not None:
            self.unlabelled.fill_(not bool(context.split.has_label.all()))

    @property
    def labelled(self) -> bool:
        """Whether it is given the class of rows that have one."""
        return self.condition is not None

    def known(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """The columns of y ``(..., C)`` of the labels ``(...)`` that end a batch; zeros where a label is -1, of no class.

        Raises:
            ValueError: rows of no class, of which this model learned nothing.
        """
        if self.condition is None:
            return ()
        there = batch[-1] >= 0
        if not bool(there.all()):
            self.check_without_labels("data of no class")
        return (self.condition(batch[-1].clamp_min(0)) * there[..., None],)

    def of_labels(self, *labels: Tensor) -> tuple[Tensor, ...]:
        """The columns of y of a batch's labels ``(B,)``, if it has some; else what stands for no class, ``(C,)``."""
        if self.condition is None:
            return ()
        return (self.condition(*labels) if labels else self.first.expand(self.condition.columns),)

    def check_without_labels(self, what: str) -> None:
        """Raise ``ValueError`` if a model given classes was never shown data without their labels."""
        if self.condition is not None and not self.label_dropout and not bool(self.unlabelled):
            raise ValueError(
                f"expected a diffusion that learned from data without labels, too, for {what}, got one that always had them: "
                "declare Diffusion(label_dropout=0.1), or fit to rows of which some have no label"
            )

    def plate(self) -> Any:
        """The plate over T steps, of which a run sees one."""
        return pyro.plate("steps", self.steps, subsample=self.one_step, dim=-2)

    def _prediction(self, declared: Any, spec: DataSpec) -> Any:
        """From what the denoiser finds to x'."""
        if declared.predicts != "levels":
            return Direct(declared.predicts, self.event_dim)
        levels = count_levels(declared.likelihood, spec)
        if levels == 1:
            raise ValueError(f"expected data of levels or bits for predicts='levels', got {spec.kind}: predict the velocity")
        return LevelMeans(self.centred(torch.arange(levels, dtype=self.centred.loc.dtype)), self.event_dim)

    @property
    def standard(self) -> dist.Distribution:
        """The density of pure noise."""
        return dist.Normal(self.first.expand(self.event_shape), 1.0).to_event(self.event_dim)

    def place(self, time: Tensor) -> Tensor:
        """The number of the step at each time, from 1 to T, as floating-point numbers; in continuous time the time."""
        return time if self.continuous else (time * self.steps).ceil().clamp(1, self.steps)

    def step(self, place: Tensor) -> Step | Instant:
        """The step of this number, or that at a time."""
        if self.continuous:
            return Instant(self.noise(place), self.noise.rate(place))
        return Step(self.noise((place - 1) / self.steps), self.noise(place / self.steps))

    def ends(self) -> tuple[Tensor, Tensor]:
        """gamma(0) and gamma(1)."""
        return self.noise(self.first), self.noise(self.first + 1)

    def reverse(self, z: Tensor, place: Tensor, *known: Tensor) -> dist.Distribution:
        """p(z_s | z_t, y), as that of u, for z_t ``(..., *event)``, steps ``(...)`` and columns of y ``(..., C)``."""
        return self.back(z, place / self.steps, self.step(place), *known)

    def back(self, z: Tensor, t: Tensor, step: Step | Instant, *known: Tensor) -> dist.Distribution:
        """The same of any step that starts at time t."""
        found = self.denoiser(z, t, *known)
        axis = -1 - self.event_dim
        known_part, raw = found.split([self.prediction.outputs, found.shape[axis] - self.prediction.outputs], axis)
        loc = self.prediction(z, known_part, step.gamma_t)
        wider = over(step.log_ratio, self.event_dim) * WIDER[self.variance](raw.sum(axis))
        return dist.Normal(loc, over(step.scale, self.event_dim) * wider.exp()).to_event(self.event_dim)

    def likelihood_at(self, z: Tensor) -> dist.Distribution:
        """p(x | z_0) for z_0 ``(..., *event)``."""
        return self.likelihood(self.features(z, self.ends()[0]))

    def ancestral(self, n: int, *known: Tensor) -> Tensor:
        """So many new data ``(n, *event)``, z_T first, then step by step; in continuous time in steps that are short."""
        return self.drawn_in(n, None, *known)

    def drawn_in(self, n: int, steps: int | None, *known: Tensor, guidance: float = 0.0) -> Tensor:
        """So many new data ``(n, *event)`` in all T steps, each drawn, or in fewer without noise of their own (DDIM).

        Args:
            n: how many.
            steps: how many of these.
            known: columns of y ``(n, C)``, or ``(1, C)`` for all.
            guidance: w of (1 + w) x'(z_t, y) - w x'(z_t), by which what a class changes is exaggerated (Ho and Salimans 2022).

        Raises:
            ValueError: a number of steps that this diffusion has not, or guidance of a model without classes, or of one that
                never learned from data without labels.
        """
        if known and len(known[0]) not in (1, n):
            raise ValueError(f"expected one class or {n}, got {len(known[0])}")
        if guidance and not known:
            raise ValueError("expected a Diffusion(condition=Labels()) for guidance, got one without classes: leave it out")
        if guidance:
            self.check_without_labels("guidance")
        return Drawn(self, Chain(self, known, guidance))(n, steps)


def uncounted() -> Any:
    """A site inside has no term in either program."""
    return poutine.mask(mask=False)
