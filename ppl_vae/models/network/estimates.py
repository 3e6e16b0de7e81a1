"""What a network answers by sampling: weighted draws, what follows from them, and how far off it may be."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
from torch import Tensor

from ppl_vae.models.network.answers import by_state, check_asked, joint_index, marginal_of, nested, plain

__all__ = ["Estimate"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Estimate:
    """p(names | what is given), estimated by S weighted draws; of one question, or of n at once, which have the first axis.

    Attributes:
        states: the states of the names that have some, in the order of the axes of ``table``.
        numbers: the names that are numbers.
        table: the joint distribution of the states ``(*n, L_1, ..., L_m)``; ones without such names.
        squares: of the entries of the table the sum of the squared weights of their draws, from which come standard errors.
        draws: of each number ``(*n, S)``, in the units of the source.
        weights: of the draws, ``(*n, S)``; they sum to one.
        log_evidence: log p(given) in nats ``(*n)``, estimated; as of :class:`~ppl_vae.models.network.answers.Answer`.
        log_evidence_error: its standard error.
        effective: how many draws of equal weight would say as much, ``(*n)``: 1 / sum of the squared weights.
    """

    states: Mapping[str, tuple[str, ...]]
    numbers: tuple[str, ...]
    table: Tensor
    squares: Tensor
    draws: Mapping[str, Tensor]
    weights: Tensor
    log_evidence: Tensor
    log_evidence_error: Tensor
    effective: Tensor

    def __getitem__(self, name: str) -> Any:
        """The marginal of one name: ``{state: p}``, or of a number the empirical distribution of its draws.

        Raises:
            ValueError: a name that was not asked for.
        """
        if name in self.states:
            return by_state(marginal_of(self.table, self.states, name), self.states[name])
        check_asked(name, self.states, self.numbers)
        return dist.Empirical(self.draws[name], self.weights.log())

    @property
    def table_error(self) -> Tensor:
        """Standard errors of the table's entries, of the shape of ``table``."""
        return _error(self.table, self.squares, self.effective)

    def error(self, name: str) -> Any:
        """Standard errors of a marginal: ``{state: error}``, or of a number that of its mean.

        Examples:
            ``fit.query("rain", {"wet": "yes"}, method="sampling").error("rain")``
        """
        if name in self.states:
            shares, squares = (marginal_of(table, self.states, name) for table in (self.table, self.squares))
            errors = _error(shares, squares, self.effective)
            return by_state(errors, self.states[name])
        mean = self[name].mean
        return plain((self.weights.square() * (self.draws[name] - mean.unsqueeze(-1)).square()).sum(-1).sqrt())

    @property
    def most_probable(self) -> dict[str, Any]:
        """The most probable joint state of the names that have states."""
        return joint_index(self.table, self.states, self.log_evidence.dim())

    def to_dict(self) -> dict[str, Any]:
        """Plain values as of an exact answer, and ``estimated``: the draws, how many they are worth, and standard errors."""
        found: dict[str, Any] = {name: self[name] for name in self.states}
        for name in self.numbers:
            marginal = self[name]
            found[name] = {"mean": plain(marginal.mean), "sd": plain(marginal.variance.sqrt())}
        if len(self.states) > 1:
            found["joint"] = nested(self.table, list(self.states.values()), self.log_evidence.dim())
            found["most_probable"] = self.most_probable
        errors = {name: self.error(name) for name in (*self.states, *self.numbers)}
        of_draws = {"draws": self.weights.shape[-1], "effective": plain(self.effective), "errors": errors}
        told = {**of_draws, "log_evidence_error": plain(self.log_evidence_error)}
        return {**found, "log_evidence": plain(self.log_evidence), "estimated": told}

    def __repr__(self) -> str:
        shown = {name: values for name, values in self.to_dict().items() if name not in ("joint", "most_probable")}
        return f"Estimate({', '.join(f'{name}={value}' for name, value in shown.items())})"


def _error(table: Tensor, squares: Tensor, effective: Tensor) -> Tensor:
    """Of self-normalized weights w: the root of sum w^2 (1[draw there] - p)^2."""
    shares = (1 / effective).reshape(*effective.shape, *[1] * (table.dim() - effective.dim()))
    return (squares * (1 - 2 * table) + table.square() * shares).clamp_min(0).sqrt()
