"""Classes as a condition."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from ppl_vae.models.conditions.base import Condition, ConditionModule
from ppl_vae.types import DataSpec

__all__ = ["Labels"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labels(Condition):
    """The class of each datum, one-hot.

    Examples:
        >>> spec = DataSpec(event_shape=(2,), kind="real", size=10, classes=("cat", "dog"))
        >>> Labels().build(spec)(torch.zeros(2, 2), torch.tensor([1, 0]))
        tensor([[0., 1.],
                [1., 0.]])
    """

    labelled: ClassVar[bool] = True

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` with the remedy if the data have no classes."""
        if not spec.classes:
            raise ValueError(
                "a model conditioned on labels needs labelled data, but these have no labels: name their column (label=..., "
                "--data.label), give them to load_data (y=...), or use a model without labels, such as VAE"
            )

    def build(self, spec: DataSpec) -> ConditionModule:
        """A module from x and labels y ``(...)`` to ``(..., classes)``."""
        return LabelsModule(len(spec.classes))

    def story(self) -> str:
        """What y is."""
        return "class of x"


class LabelsModule(ConditionModule):
    """One-hot codes, the rows of the buffer ``codes (C, C)``."""

    codes: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.columns = classes
        self.register_buffer("codes", torch.eye(classes), persistent=False)

    def forward(self, *batch: Tensor) -> Tensor:
        """One-hot labels, the last of the batch."""
        return self.codes[batch[-1]]
