"""The guide of a class and of what it leaves open, of M2 (Kingma, Rezende, Mohamed and Welling 2014).

    q(y, z | x) = q(y | x) q(z | x, y)

Of a row with a label y is that, and q(z | x, y) all there is.
"""

from __future__ import annotations

import dataclasses
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
from ppl_vae.program.capabilities import SemiSupervised
from ppl_vae.program.joint import Joint
from ppl_vae.program.rows import data_plate
from ppl_vae.types import DataSpec

__all__ = ["AmortizedClassifier"]

MIN_SCALE = 1e-6  # keeps log(scale) finite when softplus underflows in float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class AmortizedClassifier(Guide):
    """q(y | x) q(z | x, y), the first by a classifier, the second normal, for :class:`~ppl_vae.SemiSupervisedVAE`.

    What is climbed is the ELBO plus ``weight`` times the mean of log q(y | x) over the training rows with a label, without
    which the classifier would learn nothing of these (Kingma et al. 2014, equation 9, who take 0.1). The weight is none of the
    ELBO's: the history's ``elbo`` and every evaluation leave the term out, and ``objective`` has it.

    Args:
        encoder: the network from x and the one-hot y to the moments of z.
        classifier: the network from x to the logits of y.
        weight: of the mean log q(y | x) of known labels, against nats per datum; in fits of tens of epochs 10 to 50
            serve better.

    Raises:
        ValueError: a negative weight; on building, a model without a class to observe.

    Examples:
        >>> print(AmortizedClassifier())
        q(y | x) = Categorical(logits = MLP(x)); q(z | x, y) = Normal((m, s)(x, y)), (m, s)(x, y) = MLP(x, y)
    """

    encoder: Network = MLP()
    classifier: Network = MLP()
    weight: float = 0.1

    def __post_init__(self) -> None:
        require(0 <= self.weight < float("inf"), "a weight of at least 0", self.weight)

    def build(self, model: Any, spec: DataSpec) -> nn.Module:
        """The Pyro program for the class and the rest of ``model``."""
        if not isinstance(model, SemiSupervised):
            raise ValueError(
                f"AmortizedClassifier is a guide of a class that is observed where it is known, but {type(model).__name__} has "
                f"none: use {remedy(model)}, or the model SemiSupervisedVAE"
            )
        return ClassifierGuide(self, model, spec)

    def story(self) -> str:
        """The factorization, as mathematics."""
        z = f"Normal((m, s)(x, y)), (m, s)(x, y) = {self.encoder.story('x, y')}"
        return f"q(y | x) = Categorical(logits = {self.classifier.story('x')}); q(z | x, y) = {z}"


class ClassifierGuide(ClassGuide):
    """The encoder gives ``(..., 2, K)``, locations and scales before softplus; the classifier logits ``(..., C)``."""

    def __init__(self, declared: AmortizedClassifier, model: SemiSupervised, spec: DataSpec) -> None:
        super().__init__(model, spec.size, declared.weight)
        self.shown, shape = inputs.shown_of(spec)
        self.encoder = conditioned(declared.encoder, shape, model.classes, (2, *model.latent_shape))
        self.classifier = declared.classifier.build(shape, (model.classes,))

    def forward(self, *batch: Tensor) -> Tensor:
        """Draw z of each datum of the batch, and its class where it has no label."""
        x, *labels = batch
        with data_plate(self.size, x):
            y = self.draw_class(x, *labels)
            return pyro.sample("z", self.rest(x, y))

    def posterior(self, *batch: Tensor) -> Joint:
        """q(y, z | x), the class certain where there is a label."""
        return Joint({"y": self.class_of(*batch), "z": lambda values: self.rest(batch[0], values["y"])})

    def classes(self, x: Tensor) -> dist.Distribution:
        """q(y | x), one-hot, for x ``(..., *event)``."""
        return dist.OneHotCategorical(logits=self.classifier(self.shown(x)))

    def class_given(self, h: Tensor) -> dist.Distribution:
        """q(y | x), one-hot, for x ``(..., *event)``."""
        return self.classes(h)

    def rest(self, x: Tensor, y: Tensor) -> dist.Distribution:
        """q(z | x, y) for x ``(..., *event)`` and one-hot y ``(..., C)``."""
        loc, raw_scale = self.encoder(self.shown(x), y).unbind(-2)
        return dist.Normal(loc, softplus(raw_scale) + MIN_SCALE).to_event(1)
