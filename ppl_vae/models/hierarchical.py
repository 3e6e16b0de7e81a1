"""The hierarchical variational autoencoder's generative story (Rezende, Mohamed and Wierstra 2014; Sonderby et al. 2016).

for n in 1..N:
zL_n ~ p(zL)                                          the top group
zl_n ~ Normal((m, s)(hl)),  l = L-1, ..., 1           given those above through features hl
x_n ~ p(x | h = decoder(z1_n, h1))                    likelihood

where features hl are a network's of z(l+1) and h(l+1), as in Kingma et al. 2016, Vahdat and Kautz 2020 (NVAE) and Child 2021
(VDVAE); without them a group hangs on the next one above alone.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import pyro.distributions as dist
from torch import Tensor, nn
from torch.distributions import constraints

from ppl_vae.declaration import require
from ppl_vae.likelihoods import Bernoulli, Likelihood
from ppl_vae.models.base import PosteriorFamily
from ppl_vae.models.decoded import Decoded
from ppl_vae.models.group import Group, check_sizes
from ppl_vae.models.starts import start_decoder
from ppl_vae.nn import Network
from ppl_vae.priors import Prior, StandardNormal
from ppl_vae.program.base import ModelProgram
from ppl_vae.program.capabilities import MadeOfPosteriors, attribute
from ppl_vae.program.facts import prior_support
from ppl_vae.program.hooks import Start
from ppl_vae.program.joint import Factor, Joint
from ppl_vae.program.levels import Level, joined, normal
from ppl_vae.program.sites import Site, by_name, tree
from ppl_vae.types import DataSpec

__all__ = ["HierarchicalProgram", "HierarchicalVAE"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HierarchicalVAE(Decoded):
    """Hierarchical VAE: p(zL) prod_l p(zl | those above) p(x | z), its groups from the top to the bottom.

    Latent variables are called zL, ..., z1, z1 the nearest to x; a lone group is a VAE, and its variable is z.

    Args:
        groups: from the top to the bottom: vectors, then maps whose sizes double, rounded up, up to the data's.
        prior: p(zL), of the top group.
        likelihood: p(x | h), where h = decoder(z1, h1).
        decoder: the network from the bottom group to the likelihood's features; by default that of the bottom group.
        skip: whether a group hangs on all above through features, and x too, and not on the next one alone.

    Raises:
        ValueError: no group, or a prior that is not one of real vectors; on checking, maps whose sizes do not double.

    Examples:
        >>> print(HierarchicalVAE(groups=(Group(latent_dim=2), Group(latent_dim=4))))
        z2 ~ Normal(0, I_2); z1 | z2 ~ Normal((m, s)(h1)), h1 = MLP(z2); x | z1, h1 ~ Bernoulli(logits = MLP(z1, h1))
    """

    posterior_family: ClassVar[PosteriorFamily] = "groups"

    groups: tuple[Group, ...] = (Group(latent_dim=4), Group(latent_dim=8))
    prior: Prior = StandardNormal()
    likelihood: Likelihood = Bernoulli()
    decoder: Network | None = None
    skip: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(self.groups))
        require(len(self.groups) > 0, "at least one group", self.groups)
        require(self.prior.support == "real", "a prior of real vectors", self.prior)

    @property
    def path(self) -> Network:
        """The network to the data."""
        return self.decoder or self.groups[-1].path

    @property
    def levels(self) -> tuple[Level, ...]:
        """The groups as programs know them, from the top to the bottom."""
        found = []
        for place, (name, group) in enumerate(zip(_names(len(self.groups)), self.groups, strict=True)):
            features = group.features if place else 0  # above the top there is nothing to hand on
            found.append(Level(name, group.shape, features, features if self.skip else 0, group.path))
        return tuple(found)

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` with the remedy if the data lie outside the support, or the groups' sizes do not double."""
        super().check(spec)
        check_sizes(self.groups, spec.event_shape)

    def build(self, spec: DataSpec) -> HierarchicalProgram:
        """The Pyro program for data of this shape and number.

        Raises:
            ValueError: a prior made of the guide's posteriors.
        """
        return HierarchicalProgram(self, spec)

    def story(self) -> str:
        """The sites from top to bottom, as mathematics."""
        top, *names = _names(len(self.groups))
        sites = [f"{top} ~ {self.prior.story(self.groups[0].shape)}"]
        told = top
        for name, group in zip(names, self.groups[1:], strict=True):
            features = f"h{name[1:]}"
            sites.append(f"{name} | {told} ~ Normal((m, s)({features})), {features} = {group.path.story(told)}")
            told = f"{name}, {features}" if self.skip else name
        return "; ".join([*sites, f"x | {told} ~ {self.likelihood.story(self.path.story(told))}"])


def _names(count: int) -> tuple[str, ...]:
    return ("z",) if count == 1 else tuple(f"z{place}" for place in range(count, 0, -1))


class HierarchicalProgram(ModelProgram):
    """The program of groups of latent variables.

    Attributes:
        levels: the groups, from the top to the bottom.
        down: a network for each group but the top, from the one above ``(..., K + F, *space)`` to its own numbers.
    """

    decoder: Any
    likelihood: Any

    def __init__(self, declared: HierarchicalVAE, spec: DataSpec) -> None:
        super().__init__()
        self.size = spec.size
        self.levels = declared.levels
        self.top = declared.prior.build(self.levels[0].shape)
        if isinstance(self.top, MadeOfPosteriors):
            raise ValueError(f"{type(declared.prior).__name__} is made of the guide's posteriors: use StandardNormal, or VAE")
        self.down = nn.ModuleList(
            group.path_from(over).build(above.of(above.shape[0] + above.passed), below.of(2 * below.shape[0] + below.passed))
            for (over, group), (above, below) in zip(
                itertools.pairwise(declared.groups), itertools.pairwise(self.levels), strict=True
            )
        )
        last = self.levels[-1]
        features = (declared.likelihood.features, *spec.event_shape)
        self.decoder = declared.path.build(last.of(last.shape[0] + last.passed), features)
        self.likelihood = declared.likelihood.build(spec.event_shape)

    @property
    def sites(self) -> dict[str, Site]:
        """The groups, from the top to the bottom."""
        supports = [prior_support(self.top)]
        supports += [constraints.independent(constraints.real, len(level.shape)) for level in self.levels[1:]]
        return {
            level.name: Site(level.name, level.shape, support) for level, support in zip(self.levels, supports, strict=True)
        }

    @property
    def takes_missing(self) -> bool:
        """Whether the likelihood leaves missing entries out."""
        return bool(attribute(self.likelihood, "missing", False))

    def prior(self) -> Any:
        """p(zL) prod_l p(zl | those above)."""
        descent = self.descent()
        factors: dict[str, Factor] = {self.levels[0].name: self.top()}
        for place, level in enumerate(self.levels[1:], 1):
            factors[level.name] = partial(descent.prior, place)
        return joint(factors)

    def decode(self, z: Any) -> dist.Distribution:
        """p(x | z) for a tree z ``(..., *shape)``."""
        values = by_name(self.sites, z)
        return self.likelihood(self.decoder(self.descent().handed_on(len(self.levels) - 1, values)))

    def descent(self) -> Descent:
        """What is below given values, each computed once."""
        return Descent(self.levels, self.down)

    def start_fit(self, context: Start) -> None:
        """Let the decoder, if it can, start at the features under which the training data are likeliest, as a VAE's does."""
        start_decoder(self.decoder, self.likelihood, context)


class Descent:
    """The way from the top to the bottom through values that are known one after the other.

    What a network gave for values is kept as long as they are the very same tensors, so that a walk runs each network once.
    """

    def __init__(self, levels: tuple[Level, ...], down: nn.ModuleList) -> None:
        self.levels = levels
        self._down = down
        self._found: dict[int, tuple[tuple[Tensor, ...], Tensor]] = {}

    def __call__(self, place: int, values: Mapping[str, Tensor]) -> Tensor:
        """What the network to a group below the top gives ``(..., 2 K + F, *space)``, given the groups above it."""
        above = self.levels[place - 1]
        parts = (values[above.name], *((self(place - 1, values),) if place > 1 and above.passed else ()))
        known = self._found.get(place)
        if known is None or any(map(lambda a, b: a is not b, known[0], parts)):
            self._found[place] = known = (parts, self._down[place - 1](self.handed_on(place - 1, values)))
        return known[1]

    def prior(self, place: int, values: Mapping[str, Tensor]) -> dist.Distribution:
        """The prior of a group below the top, given the groups above it."""
        level = self.levels[place]
        loc, raw_scale, *_ = level.split(self(place, values), level.passed)
        return normal(level, loc, raw_scale)

    def handed_on(self, place: int, values: Mapping[str, Tensor]) -> Tensor:
        """What a group hands on to what is below ``(..., K + F, *space)``: its value, and features of those above."""
        level = self.levels[place]
        if not level.passed:
            return values[level.name]
        return joined(level, values[level.name], level.split(self(place, values), level.passed)[-1])


def joint(factors: Mapping[str, Factor]) -> Any:
    """A joint of several factors; a lone one is the distribution itself."""
    found = tree(factors)
    return Joint(found) if isinstance(found, Mapping) else found
