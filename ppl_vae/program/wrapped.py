"""Distributions and constraints without what wraps them: independence, masks, expansion, transforms."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

__all__ = ["WrappedConstraint", "WrappedDistribution", "innermost", "unwrapped"]


@runtime_checkable
class WrappedConstraint(Protocol):
    """A constraint that asks another one of parts of a value, as of each element."""

    base_constraint: Any


@runtime_checkable
class WrappedDistribution(Protocol):
    """A distribution made of another one, as ``Independent``, a masked, an expanded or a transformed one."""

    base_dist: Any


def innermost(constraint: Any) -> Any:
    """What a constraint asks of one element or vector, without what it is wrapped in; a mixture's is that of its components."""
    while isinstance(constraint, WrappedConstraint):
        constraint = constraint.base_constraint
    return constraint


def unwrapped(distribution: Any) -> Any:
    """The distribution without what masks, expands, transforms or reshapes it."""
    while isinstance(distribution, WrappedDistribution):
        distribution = distribution.base_dist
    return distribution
