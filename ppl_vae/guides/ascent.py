"""The way from the data up through the groups of a hierarchy, which the guides of one share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from ppl_vae.guides.base import Guide, remedy
from ppl_vae.nn import Network, inputs
from ppl_vae.program.capabilities import Hierarchical
from ppl_vae.program.levels import Level
from ppl_vae.types import DataSpec

__all__ = ["Ascent", "hierarchy", "steps"]


def hierarchy(guide: Guide, model: Any) -> Hierarchical:
    """The built model, if it is one of groups.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(model, Hierarchical):
        raise ValueError(
            f"{type(guide).__name__} is a guide of groups of latent variables, but {type(model).__name__} has none: use "
            f"{remedy(model)}, or the model HierarchicalVAE"
        )
    return model


def steps(
    levels: Sequence[Level],
    encoder: Network | None,
    spec: DataSpec,
    read: Callable[[Level], int],
    written: Callable[[Level], int],
) -> nn.ModuleList:
    """A network to each group from what is below it, the first from the data, from the bottom to the top.

    Args:
        levels: from the top to the bottom.
        encoder: the network of every step; by default that of the group.
        spec: what the data look like.
        read: how many channels of a group the step above it reads.
        written: how many channels the step to a group gives.
    """
    bottom, *others = reversed(levels)
    first = inputs.encoder(encoder or bottom.network, spec, bottom.of(written(bottom)))
    above = (
        (encoder or level.network).build(below.of(read(below)), level.of(written(level)))
        for below, level in itertools.pairwise((bottom, *others))
    )
    return nn.ModuleList([first, *above])


class Ascent(nn.Module):
    """Deterministic steps from the data up: each group's own numbers, and features for the group above.

    Args:
        levels: from the top to the bottom.
        encoder: the network of every step; by default that of the group.
        spec: what the data look like.
        own: how many numbers of its own a group has, in front of the features; none where the features are these.
    """

    def __init__(self, levels: Sequence[Level], encoder: Network | None, spec: DataSpec, own: Callable[[Level], int]) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.own = own
        features = lambda level: level.features  # noqa: E731
        self.steps = steps(levels, encoder, spec, features, lambda level: own(level) + level.features)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Each group's own numbers ``(..., own, *space)`` for x ``(..., *event)``, from the top to the bottom."""
        found: list[Tensor] = []
        for step, level in zip(self.steps, reversed(self.levels), strict=True):
            numbers = step(x)
            own = self.own(level)
            mine, x = numbers.split([own, level.features], dim=-len(level.shape))
            found.append(mine if own else x)
        return tuple(reversed(found))
