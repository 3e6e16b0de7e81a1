"""The guide of two levels and a class, of M1 + M2 (Kingma, Rezende, Mohamed and Welling 2014).

q(z1, y, z2 | x) = q(z1 | x) q(y | z1) q(z2 | z1, y)
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pyro
import pyro.distributions as dist
from torch import Tensor, nn
from torch.nn.functional import softplus

from ppl_vae.declaration import require
from ppl_vae.guides.base import Guide, remedy
from ppl_vae.guides.labels import ClassGuide
from ppl_vae.nn import MLP, Network, inputs
from ppl_vae.nn.conditioned import conditioned
from ppl_vae.nn.dormant import Dormant
from ppl_vae.program.capabilities import StackedSemiSupervised
from ppl_vae.program.joint import Joint
from ppl_vae.program.rows import data_plate
from ppl_vae.types import DataSpec

__all__ = ["StackedClassifier"]

LN2 = math.log(2)  # softplus(0), so that a scale of no features is one
MIN_SCALE = 1e-6  # keeps log(scale) finite when softplus underflows in float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class StackedClassifier(Guide):
    """q(z1 | x) q(y | z1) q(z2 | z1, y), y by a classifier of the code, for :class:`~ppl_vae.StackedSemiSupervisedVAE`.

    Until the networks of y and z2 are trained q(y | z1) is uniform and q(z2 | z1, y) = Normal(0, I), so that a VAE with code z1
    can be trained first. Known labels teach the classifier by ``weight``, as of :class:`~ppl_vae.AmortizedClassifier`.

    Args:
        encoder: the network from x to the moments of z1.
        classifier: the network from z1 to the logits of y.
        rest: the network from z1 and the one-hot y to the moments of z2.
        weight: of the mean log q(y | z1) of known labels, against nats per datum.

    Raises:
        ValueError: a negative weight; on building, a model of other latent variables.

    Examples:
        >>> print(*StackedClassifier().story().split("; ")[1:], sep="; ")
        q(y | z1) = Categorical(logits = MLP(z1)); q(z2 | z1, y) = Normal((m, s) = MLP(z1, y))
    """

    encoder: Network = MLP()
    classifier: Network = MLP()
    rest: Network = MLP()
    weight: float = 0.1

    def __post_init__(self) -> None:
        require(0 <= self.weight < float("inf"), "a weight of at least 0", self.weight)

    def build(self, model: Any, spec: DataSpec) -> nn.Module:
        """The Pyro program for the class and both levels of ``model``."""
        if not isinstance(model, StackedSemiSupervised):
            raise ValueError(
                f"StackedClassifier is a guide of two levels and a class, but {type(model).__name__} has none such: use "
                f"{remedy(model)}, or the model StackedSemiSupervisedVAE"
            )
        return StackedClassifierGuide(self, model, spec)

    def story(self) -> str:
        """The factorization, as mathematics."""
        code, rest = self.encoder.story("x"), self.rest.story("z1, y")
        y = f"Categorical(logits = {self.classifier.story('z1')})"
        return f"q(z1 | x) = Normal((m, s) = {code}); q(y | z1) = {y}; q(z2 | z1, y) = Normal((m, s) = {rest})"


class StackedClassifierGuide(ClassGuide):
    """Encoders give ``(..., 2, K)``, locations and scales before softplus; the classifier logits ``(..., C)``."""

    def __init__(self, declared: StackedClassifier, model: StackedSemiSupervised, spec: DataSpec) -> None:
        super().__init__(model, spec.size, declared.weight)
        self.encoder = inputs.encoder(declared.encoder, spec, (2, *model.code_shape))
        self.classifier = Dormant(declared.classifier.build(model.code_shape, (model.classes,)))
        self.rest = Dormant(conditioned(declared.rest, model.code_shape, model.classes, (2, *model.rest_shape)))

    def forward(self, *batch: Tensor) -> Tensor:
        """Draw both levels of each datum of the batch, and its class where it has no label."""
        x, *labels = batch
        with data_plate(self.size, x):
            z1 = pyro.sample("z1", self.code(x))
            y = self.draw_class(z1, *labels)
            return pyro.sample("z2", self.rest_given(z1, y))

    def posterior(self, *batch: Tensor) -> Joint:
        """q(z1, y, z2 | x), the class certain where there is a label."""
        x, *labels = batch
        return Joint(
            {
                "z1": self.code(x),
                # labels (B,) of draws of the code (S, B, K1) are the same in each
                "y": lambda values: self.class_of(values["z1"], *labels).expand(values["z1"].shape[:-1]),
                "z2": lambda values: self.rest_given(values["z1"], values["y"]),
            }
        )

    def code(self, x: Tensor) -> dist.Distribution:
        """q(z1 | x) for x ``(..., *event)``."""
        loc, raw_scale = self.encoder(x).unbind(-2)
        return dist.Normal(loc, softplus(raw_scale) + MIN_SCALE).to_event(1)

    def class_given(self, h: Tensor) -> dist.Distribution:
        """q(y | z1), one-hot, for z1 ``(..., K1)``."""
        return dist.OneHotCategorical(logits=self.classifier(h))

    def rest_given(self, z1: Tensor, y: Tensor) -> dist.Distribution:
        """q(z2 | z1, y) for z1 ``(..., K1)`` and one-hot y ``(..., C)``."""
        loc, raw_scale = self.rest(z1, y).unbind(-2)
        return dist.Normal(loc, (softplus(raw_scale) / LN2).clamp_min(MIN_SCALE)).to_event(1)
