"""What every node of a network declares, and what is built from it."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from ppl_vae.declaration import Declaration, require
from ppl_vae.exact.elimination import Factor

__all__ = ["DiscreteMechanism", "Facts", "Mechanism", "Node", "State", "random_shares", "spread"]

State = tuple[Tensor, ...]
"""The parameters of one node, in float64."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What a node is told of its surroundings when it is built.

    Args:
        name: of the node.
        states: its own, of a discrete node; none of a number.
        switches: the names of its discrete parents, in the order of its parents.
        switch_states: theirs.
        numbers: the names of its parents that are numbers, likewise.
    """

    name: str
    states: tuple[str, ...] = ()
    switches: tuple[str, ...] = ()
    switch_states: tuple[tuple[str, ...], ...] = ()
    numbers: tuple[str, ...] = ()

    @property
    def cards(self) -> tuple[int, ...]:
        """How many states each discrete parent has."""
        return tuple(map(len, self.switch_states))

    @property
    def configurations(self) -> int:
        """How many joint states the discrete parents have."""
        return math.prod(self.cards)

    def configuration(self, place: int) -> str:
        """The joint state of the discrete parents in words, the last parent's changing fastest.

        Examples:
            >>> Facts(name="wet", switches=("rain",), switch_states=(("no", "yes"),)).configuration(1)
            'rain=yes'
        """
        words = []
        for name, states in reversed(list(zip(self.switches, self.switch_states, strict=True))):
            place, state = divmod(place, len(states))
            words.append(f"{name}={states[state]}")
        return ", ".join(reversed(words)) or "no parents"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Node(Declaration, abc.ABC):
    """p(node | parents), one variable of a :class:`~ppl_vae.BayesianNetwork`."""

    parents: tuple[str, ...] = ()
    learned: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "parents", tuple(self.parents))
        require(len(set(self.parents)) == len(self.parents), "every parent once", self.parents)
        require(self.learned or self.given, "numbers of a node that is not learned (learned=False)", self)

    @property
    def discrete(self) -> bool:
        """Whether it has states; else it is a number."""
        return True

    @property
    def unit_free(self) -> bool:
        """Whether it is a number in any units, which its parameters follow."""
        return False

    @property
    @abc.abstractmethod
    def given(self) -> bool:
        """Whether it declares its numbers."""

    @property
    def declared_states(self) -> tuple[str, ...]:
        """The states that it declares; none if it takes them from the data, or is a number."""
        return ()

    @abc.abstractmethod
    def check(self, facts: Facts) -> None:
        """Raise ``ValueError`` if its parents or its numbers do not fit."""

    def check_values(self, name: str, x: Tensor) -> None:
        """Raise ``ValueError`` if values ``(n,)`` of its column, none of them missing, cannot be."""

    @abc.abstractmethod
    def build(self, facts: Facts) -> Any:
        """Its mechanism."""

    @abc.abstractmethod
    def filled(self, mechanism: Any) -> Any:
        """The same node with the states and numbers of a mechanism."""

    @abc.abstractmethod
    def story(self, name: str) -> str:
        """Its density, as mathematics."""


class Mechanism(nn.Module, abc.ABC):
    """A built node. Its :attr:`state` holds all that exact steps need; they are pure functions of it.

    Class attributes:
        by_gradient: whether it is fitted by gradients alone, and has no step of EM.
    """

    by_gradient: ClassVar[bool] = False

    def __init__(self, facts: Facts, declared: Node) -> None:
        super().__init__()
        self.facts = facts
        self.learned = declared.learned
        self.given = declared.given

    @property
    @abc.abstractmethod
    def state(self) -> State:
        """The parameters, in float64."""

    @abc.abstractmethod
    def assign(self, state: State) -> None:
        """Write parameters into the module."""

    @abc.abstractmethod
    def distribution(self, values: Mapping[str, Tensor]) -> Any:
        """p(node | parents) at values of the parents: places of states, and standardized numbers."""

    def measure(self, loc: Mapping[str, Tensor], unit: Mapping[str, Tensor]) -> None:
        """Take new standard units of the numbers, by name; nothing to do for what hangs on none."""

    def rounded(self, values: Tensor) -> Tensor:
        """Values of a number, in the units of what the model sees, without the rounding of standard units: whole ones whole."""
        return values

    @property
    @abc.abstractmethod
    def free_parameters(self) -> int:
        """How many numbers are fitted."""


class DiscreteMechanism(Mechanism):
    """A built node with states."""

    @abc.abstractmethod
    def factor(self, state: State, numbers: Mapping[str, Tensor]) -> Factor:
        """p(node | parents) as a factor over the discrete parents and itself; with rows if some parents are numbers."""

    @abc.abstractmethod
    def statistics(self, expected: Tensor, numbers: Mapping[str, Tensor]) -> Any:
        """What the maximization needs of a block of rows: ``expected`` has the shape of the factor."""

    @abc.abstractmethod
    def maximized(self, state: State, found: Sequence[Any]) -> State:
        """The parameters that are likeliest, or likelier than the present ones, given the statistics of all blocks."""

    @abc.abstractmethod
    def initial(self, marginal: Tensor, generator: Generator) -> State:
        """A random start, in which no two states are alike; the shares of the states in the data are ``(L,)``."""

    @abc.abstractmethod
    def remark(self, found: Sequence[Any]) -> str:
        """What to tell of the statistics of all rows, or nothing."""


def spread(values: Tensor, own: Sequence[str], over: Sequence[str], sizes: Mapping[str, int]) -> Tensor:
    """Values ``(*own, ...)`` of configurations of some variables as ``(C, ...)`` over those of more.

    Examples:
        >>> spread(torch.tensor([1, 2]), ["b"], ["a", "b"], {"a": 2, "b": 2})
        tensor([1, 2, 1, 2])
    """
    order = [own.index(name) for name in over if name in own]
    rest = values.shape[len(own) :]
    moved = values.permute([*order, *range(len(own), values.dim())])
    shape = [sizes[name] if name in own else 1 for name in over]
    return moved.reshape([*shape, *rest]).expand([*(sizes[name] for name in over), *rest]).reshape(-1, *rest)


def random_shares(shape: Sequence[int], generator: Generator, marginal: Tensor) -> Tensor:
    """Random distributions ``(*shape, L)`` about a marginal one."""
    noise = 0.5 + torch.rand(*shape, len(marginal), generator=generator, dtype=torch.float64, device=generator.device)
    weights = noise * (marginal.to(noise) + 0.1 / len(marginal))
    return weights / weights.sum(-1, keepdim=True)
