"""What a model offers so that the driver, which knows no model, can fit it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ppl_vae.exact.driver import Scheme, Step

__all__ = ["Problem"]


class Problem(NamedTuple):
    """One EM fit, ready to run.

    Args:
        step: ``state -> (new state, log-likelihood of the old one in nats per datum)``.
        start: the state to start from.
        acceleration: for :func:`ppl_vae.exact.run`; ``None`` for plain EM.
        assign: writes a state into the model's modules.
        remark: what to tell the user of a final state (components that died, variances on their floor), or ``None``.
        log_prior: of a state, in nats per datum, which ``step`` adds to the log-likelihood where parameters have a prior:
            EM then climbs to their most probable values (MAP).
    """

    step: Step
    start: Any
    acceleration: Scheme | None
    assign: Callable[[Any], None]
    remark: Callable[[Any], str | None]
    log_prior: Callable[[Any], float] | None = None
