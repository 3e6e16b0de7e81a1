"""What semi-supervised models share: a class that is observed where a row has a label, and summed over where it has none."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from ppl_vae.declaration import require
from ppl_vae.models.decoded import Decoded
from ppl_vae.priors import Prior
from ppl_vae.program.base import ModelProgram
from ppl_vae.program.capabilities import MadeOfPosteriors, attribute
from ppl_vae.types import FOUND_LABELS, DataSpec

__all__ = ["ClassesProgram", "OfClasses"]


class OfClasses(Decoded):
    """A declared model of a class y of C, and of what it leaves open."""

    # As of Decoded, each model declares these fields in the order of its own story.
    classes: int | None
    prior: Prior

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.classes is None or self.classes >= 2, "at least 2 classes", self.classes)
        require(self.prior.support == "real", "a prior of real vectors", self.prior)

    @property
    def categorical(self) -> bool:
        """Whether each datum has a class to predict: always."""
        return True

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` with the remedy if the data have no labels, other classes, or lie outside the support."""
        super().check(spec)
        if not spec.classes:
            raise ValueError(
                "a semi-supervised model needs labels of some rows, but these data have none: name their column (label=..., "
                "--data.label), give them to load_data (y=..., -1 where there is none), or use VAE"
            )
        if self.classes not in (None, len(spec.classes)) or len(spec.classes) < 2:
            expected = "at least 2" if self.classes is None else self.classes
            raise ValueError(
                f"expected data of {expected} classes, got {len(spec.classes)}: {', '.join(spec.classes[:10])}; leave classes "
                "out to take those of the data"
            )

    def without_latents(self, spec: DataSpec) -> None:
        """Nothing that compares: numbers of rows with a label are about that, too."""
        return


class ClassesProgram(ModelProgram):
    """Its program, called with x ``(B, *event)`` and, of rows that have one, their label ``(B,)``; y is one-hot.

    Args:
        declared: the model.
        spec: what the data look like.
        rest_shape: of what the class leaves open.

    Raises:
        ValueError: a prior made of the guide's posteriors.
    """

    reads = ("x", FOUND_LABELS)
    likelihood: Any
    codes: Tensor
    logits: Tensor

    def __init__(self, declared: OfClasses, spec: DataSpec, rest_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.size = spec.size
        self.classes = len(spec.classes)
        self.prior_of_rest = declared.prior.build(rest_shape)
        if isinstance(self.prior_of_rest, MadeOfPosteriors):
            raise ValueError(f"{type(declared.prior).__name__} is made of the guide's posteriors: use StandardNormal, or VAE")
        self.register_buffer("codes", torch.eye(self.classes), persistent=False)
        self.register_buffer("logits", torch.full((self.classes,), -math.log(self.classes)), persistent=False)

    @property
    def takes_missing(self) -> bool:
        """Whether the likelihood leaves missing entries out."""
        return bool(attribute(self.likelihood, "missing", False))

    def codes_of(self, labels: Tensor) -> Tensor:
        """One-hot vectors ``(..., C)`` of the places of classes ``(...)``."""
        return self.codes[labels]

    def prior_of_class(self) -> dist.Distribution:
        """p(y)."""
        return dist.OneHotCategorical(logits=self.logits)
