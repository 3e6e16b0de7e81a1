"""What a model offers so that a method, which knows no model, can fit it by steps in closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Generator, Tensor

from ppl_vae.exact.driver import Scheme, Step

__all__ = ["Problem", "Stochastic", "Sweep"]


class Problem(NamedTuple):
    """One fit by EM or coordinate ascent, ready to run.

    Args:
        step: ``state -> (new state, objective of the old one in nats per datum)``: the log-likelihood, or a bound on it.
        start: the state to start from.
        acceleration: for :func:`ppl_vae.exact.run`; ``None`` for plain steps.
        assign: writes a state into the modules.
        remark: what to tell the user of a final state (components that died, variances on their floor), or ``None``.
        compare: what to tell of the final states of all starts and their objectives, or ``None``.
        monotone: whether a step never falls; one that does is an error then.
        log_prior: of a state, in nats per datum, which ``step`` adds to the log-likelihood where parameters have a prior:
            EM then climbs to their most probable values (MAP).
    """

    step: Step
    start: Any
    acceleration: Scheme | None
    assign: Callable[[Any], None]
    remark: Callable[[Any], str | None]
    compare: Callable[[Sequence[tuple[Any, float]]], str | None] | None = None
    monotone: bool = True
    log_prior: Callable[[Any], float] | None = None


class Stochastic(NamedTuple):
    """One fit by natural-gradient steps on batches (Hoffman et al. 2013), ready to run.

    Args:
        step: ``(state, x, rate) -> (new state, estimate of the bound in nats per datum)`` for a batch x ``(B, *event)`` and the
            weight of what it says beside what earlier ones did, in (0, 1].
        start: the state to start from.
        assign: writes a state into the modules.
        remark: what to tell the user of a final state, or ``None``.
    """

    step: Callable[[Any, Tensor, float], tuple[Any, Tensor]]
    start: Any
    assign: Callable[[Any], None]
    remark: Callable[[Any], str | None]


class Sweep(NamedTuple):
    """How the factors of q are updated.

    Args:
        generator: of a random start; ``None`` for the model's own, fixed one.
        collapsed: whether shared parameters are integrated out.
        parallel: whether all factors that may be are updated at once, from the old ones.
        damping: the weight of the old factor in the new one, in [0, 1).
    """

    generator: Generator | None = None
    collapsed: bool = False
    parallel: bool = False
    damping: float = 0.0

    def refuse(self, model: str, *known: str) -> None:
        """Raise ``ValueError`` for an option that a model does not know.

        Args:
            model: its name.
            known: the options that it knows.

        Examples:
            >>> Sweep(collapsed=True).refuse("Ising", "parallel", "damping")
            Traceback (most recent call last):
            ...
            ValueError: Ising knows no collapsed=True of CAVI: leave it out
        """
        for name in ("collapsed", "parallel", "damping"):
            if getattr(self, name) and name not in known:
                raise ValueError(f"{model} knows no {name}={getattr(self, name)} of CAVI: leave it out")
