"""What a network is asked and answers: a table of states, a mixture of normals over numbers, how likely the evidence was."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

__all__ = ["Answer", "Explanation", "by_state", "check_asked", "joint_index", "marginal_of", "nested", "plain"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """p(names | what is given), exactly; of one question, or of n at once, which then have the first axis.

    Attributes:
        states: the states of the names that have some, in the order of the axes of ``table``.
        numbers: the names that are numbers.
        table: the joint distribution of the states ``(*n, L_1, ..., L_m)``; ones without such names.
        weights: of the normal components of the numbers, given these states, ``(*n, L_1, ..., L_m, K)``.
        means: theirs, ``(*n, L_1, ..., L_m, K, d)``, in the units of the source.
        covariances: theirs, ``(*n, L_1, ..., L_m, K, d, d)``.
        log_evidence: log p(given) in nats ``(*n)``, of numbers the log of a density in the units of the source; under
            interventions log p(given | do).
    """

    states: Mapping[str, tuple[str, ...]]
    numbers: tuple[str, ...]
    table: Tensor
    weights: Tensor
    means: Tensor
    covariances: Tensor
    log_evidence: Tensor

    def __getitem__(self, name: str) -> Any:
        """The marginal of one name: a distribution over its states, ``{state: p}``, or of a number a mixture of normals.

        Raises:
            ValueError: a name that was not asked for.
        """
        if name in self.states:
            return by_state(marginal_of(self.table, self.states, name), self.states[name])
        check_asked(name, self.states, self.numbers)
        place, joint = self.numbers.index(name), self._joint_weights()
        means, variances = self.means[..., place], self.covariances[..., place, place]
        batch = self.log_evidence.dim()
        flat = [values.flatten(batch) for values in (joint, means, variances)]
        return MixtureSameFamily(Categorical(flat[0]), Normal(flat[1], flat[2].clamp_min(1e-300).sqrt()))

    @property
    def most_probable(self) -> dict[str, Any]:
        """The most probable joint state of the names; of numbers the mean of the weightiest component in that state.

        Examples:
            ``fit.query(["rain", "wet"], {"cloudy": "yes"}).most_probable``
        """
        batch = self.log_evidence.dim()
        found = joint_index(self.table, self.states, batch)
        if self.numbers:
            picked = self.table.flatten(batch).argmax(-1)
            components = self.means.shape[-2:]
            weights = self.weights.reshape(*self.log_evidence.shape, -1, components[0])
            means = self.means.reshape(*self.log_evidence.shape, -1, *components)
            component = _taken(weights, picked, batch).argmax(-1)
            centre = _taken(_taken(means, picked, batch), component, batch)
            found |= {name: plain(centre[..., i]) for i, name in enumerate(self.numbers)}
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values: a dictionary of states by name, mean and deviation of numbers, and of several names their joint table.

        Examples:
            ``fit.query("rain", {"wet": "yes"}).to_dict()`` is ``{"rain": {"no": 0.3, "yes": 0.7}, "log_evidence": -0.4}``
        """
        found: dict[str, Any] = {name: self[name] for name in self.states}
        for name in self.numbers:
            marginal = self[name]
            found[name] = {"mean": plain(marginal.mean), "sd": plain(marginal.variance.sqrt())}
        if len(self.states) > 1:
            found["joint"] = nested(self.table, list(self.states.values()), self.log_evidence.dim())
        if len(self.states) + len(self.numbers) > 1:
            found["most_probable"] = self.most_probable
        return {**found, "log_evidence": plain(self.log_evidence)}

    def __repr__(self) -> str:
        shown = {name: values for name, values in self.to_dict().items() if name not in ("joint", "most_probable")}
        return f"Answer({', '.join(f'{name}={value}' for name, value in shown.items())})"

    def _joint_weights(self) -> Tensor:
        return self.table.unsqueeze(-1) * self.weights


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """What all unknown nodes most probably are together; of one question, or of n at once.

    Attributes:
        values: of every node that is not given in all rows, a state's name or a number in the units of the source, or a list of
            n of them; in rows where it is given, what it is there.
        log_probability: log p(values | given) in nats ``(*n)``; with numbers the log of a density in the units of the source.
        log_evidence: log p(given) in nats ``(*n)``, likewise.
    """

    values: Mapping[str, Any]
    log_probability: Tensor
    log_evidence: Tensor

    def __getitem__(self, name: str) -> Any:
        """The value of one node."""
        return self.values[name]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, by the attributes' names: ``{"most_probable": {"rain": "yes"}, "log_probability": ..., ...}``."""
        logs = {"log_probability": plain(self.log_probability), "log_evidence": plain(self.log_evidence)}
        return {"most_probable": dict(self.values), **logs}


def _taken(values: Tensor, place: Tensor, dim: int) -> Tensor:
    """The entries at places ``(*n)`` of an axis that follows those of the questions."""
    index = place.reshape(*place.shape, *[1] * (values.dim() - dim)).expand(*place.shape, 1, *values.shape[dim + 1 :])
    return values.gather(dim, index).squeeze(dim)


def marginal_of(table: Tensor, states: Mapping[str, Sequence[str]], name: str) -> Tensor:
    """Of a joint table ``(*n, L_1, ..., L_m)`` the sums over all axes but one, ``(*n, L)``."""
    place = list(states).index(name) - len(states)
    others = [dim for dim in range(-len(states), 0) if dim != place]
    return table.sum(others) if others else table


def joint_index(table: Tensor, states: Mapping[str, Sequence[str]], batch: int) -> dict[str, Any]:
    """By name the states of the largest entry of a table, or lists of them."""
    place = table.flatten(batch).argmax(-1)
    found: dict[str, Any] = {}
    for name, names in reversed(list(states.items())):
        state, place = place % len(names), place // len(names)
        found[name] = names[int(state)] if batch == 0 else [names[each] for each in state.tolist()]
    return {name: found[name] for name in states}


def by_state(values: Tensor, states: Sequence[str]) -> dict[str, Any]:
    """What stands last ``(..., L)``, by the names of the states."""
    return {state: plain(values[..., place]) for place, state in enumerate(states)}


def check_asked(name: str, states: Mapping[str, Sequence[str]], numbers: Sequence[str]) -> None:
    """Raise ``ValueError`` for a number that was not asked for."""
    if name not in numbers:
        known = ", ".join((*states, *numbers))
        raise ValueError(f"expected one of the names that were asked for, {known}, got {name!r}")


def plain(values: Tensor) -> Any:
    """A number, or a list of them."""
    found = values.tolist()
    return found if isinstance(found, list) else (found if math.isfinite(found) else str(found))


def nested(table: Tensor, states: Sequence[Sequence[str]], batch: int) -> Any:
    """A table as dictionaries of states inside each other."""
    if not states:
        return plain(table)
    return {state: nested(table.select(batch, place), states[1:], batch) for place, state in enumerate(states[0])}
