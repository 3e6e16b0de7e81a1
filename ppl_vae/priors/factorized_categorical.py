"""The categorical prior of several one-hot codes side by side."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import nn

from ppl_vae.declaration import require
from ppl_vae.priors.base import Prior, Support
from ppl_vae.priors.one_hot import GroupedOneHot, OneHotModule

__all__ = ["FactorizedCategorical"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FactorizedCategorical(Prior):
    """z = (e_k1, ..., e_kG) with k_g ~ Categorical(pi_g) independent: G one-hot codes side by side in one vector.

    A latent vector of D dimensions holds G classes of D / G values each (van den Oord et al. 2017; Dupont 2018); the decoder
    sees the whole vector.

    Args:
        groups: G, the number of codes.
        learned: whether pi is learned; otherwise the values of each code are equally likely.

    Raises:
        ValueError: fewer than one group; on building, latent dimensions that do not divide into groups.

    Examples:
        >>> FactorizedCategorical(groups=2).build((6,))().sample().sum()
        tensor(2.)
    """

    support: ClassVar[Support] = "one_hot"

    groups: int = 2
    learned: bool = False

    def __post_init__(self) -> None:
        require(self.groups >= 1, "at least 1 group", self.groups)

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """A module whose call returns the distribution on ``shape``, its last axis split into groups."""
        divides = bool(shape) and shape[-1] % self.groups == 0
        require(divides, f"a latent shape whose last axis divides into {self.groups} groups", shape)
        logits = torch.zeros(*shape[:-1], self.groups, shape[-1] // self.groups)
        return OneHotModule(GroupedOneHot, logits, learned=self.learned)

    def story(self, shape: tuple[int, ...]) -> str:
        """The density as text."""
        inner = "Categorical(pi_g)" if self.learned else f"Uniform{{1..{shape[-1] // self.groups if shape else 'K'}}}"
        return f"OneHot({inner}), g = 1..{self.groups}"
