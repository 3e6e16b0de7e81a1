"""The EM driver: iterate any step to convergence, check that the log-likelihood never falls, optionally accelerate.

It knows no model. A *step* is a function ``state -> (new_state, log_likelihood)`` where a state is any value (a ``NamedTuple``
of tensors) and the log-likelihood, in nats per datum, is that of the **old** state: EM has it for free from the E-step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

__all__ = ["Cursor", "EMError", "EMResult", "Iteration", "Plain", "Scheme", "Squarem", "Step", "best_of", "run"]

S = TypeVar("S")
AHEAD = 1e3  # tolerances that may still be gained in all when a run ends
SETTLED = 5e-3  # a rate of gains that rises by less from step to step has come to where it stays

Step = Callable[[S], tuple[S, Any]]


class EMError(ValueError):
    """A run that could not go on: a step failed, or the log-likelihood fell. Another start may succeed."""


class Iteration(NamedTuple):
    """One line of the history: steps taken so far, nats per datum of the state then held, seconds since the start."""

    iteration: int
    log_likelihood: float
    seconds: float


class Cursor(NamedTuple):
    """Where a run stands: the steps taken, the log-likelihood that the next one is judged by, the last gain and its rate."""

    steps: int = 0
    reference_value: float = -math.inf
    gained: float = math.inf
    rate: float = 0.0


class EMResult(NamedTuple, Generic[S]):
    """What :func:`run` found.

    Args:
        state: the fitted state; its log-likelihood is ``history[-1].log_likelihood``.
        history: of the accepted states only, the start included, so it never falls.
        converged: whether a gain came below the tolerance.
        iterations: steps taken, those that only tried an extrapolation included.
    """

    state: S
    history: list[Iteration]
    converged: bool
    iterations: int


class Scheme(Protocol[S]):
    """How steps are chained: yield the accepted states with their log-likelihoods and the steps taken before each."""

    def __call__(self, step: Step[S], state: S, steps: int = 0) -> Iterator[tuple[S, float, int, bool]]:
        """Yield ``(state, log_likelihood, steps, comparable)`` for ever; convergence is judged between comparable ones only.

        From a comparable state and the steps taken before it, the same ones follow.
        """
        ...


class Plain:
    """No acceleration: every step is accepted."""

    def __call__(self, step: Step[S], state: S, steps: int = 0) -> Iterator[tuple[S, float, int, bool]]:
        """Iterate the step."""
        while True:
            following, value = step(state)
            yield state, float(value), steps, True
            state, steps = following, steps + 1


class Squarem(Generic[S]):
    """SQUAREM, squared extrapolation of a fixed-point iteration (Varadhan & Roland 2008), safeguarded to be monotone.

    From t0, t1 = F(t0), t2 = F(t1): r = t1 - t0, v = (t2 - t1) - r, a = min(-|r| / |v|, -1), and the extrapolated point
    t' = t0 - 2 a r + a^2 v (a = -1 gives t2). If the log-likelihood at t' is not below that at t1 it is accepted, and since
    the step was already taken there, the next cycle starts from F(t'); otherwise the cycle falls back to the EM point t2.

    Args:
        to_vector: state -> unconstrained vector ``(M,)``, such as log variances.
        from_vector: ``(vector, like)`` -> state; ``like`` is the EM point t2, for what the vector leaves out.
    """

    def __init__(self, to_vector: Callable[[S], Tensor], from_vector: Callable[[Tensor, S], S]) -> None:
        self.to_vector, self.from_vector = to_vector, from_vector

    def __call__(self, step: Step[S], state: S, steps: int = 0) -> Iterator[tuple[S, float, int, bool]]:
        """Iterate cycles of two steps and one attempted extrapolation."""
        following, value = step(state)
        while True:
            yield state, float(value), steps, True
            first, second, (third, first_value) = state, following, step(following)
            yield second, float(first_value), steps + 1, False
            trial = self.extrapolate(first, second, third)
            after_trial, trial_value = step(trial)
            if float(trial_value) >= float(first_value):
                # Accepted: report t' itself, then go on from the step already taken there.
                yield trial, float(trial_value), steps + 2, False
                state = after_trial
            else:
                state = third
            steps += 3
            following, value = step(state)

    def extrapolate(self, first: S, second: S, third: S) -> S:
        """The point t' of three successive states."""
        t0, t1, t2 = self.to_vector(first), self.to_vector(second), self.to_vector(third)
        r, v = t1 - t0, t2 - 2 * t1 + t0
        length = torch.where(v.norm() > 0, r.norm() / v.norm(), 1.0).clamp_min(1.0)
        return self.from_vector(t0 + 2 * length * r + length.square() * v, third)


def run(
    step: Step[S],
    state: S,
    *,
    max_iterations: int = 1000,
    tolerance: float = 1e-8,
    acceleration: Scheme[S] | None = None,
    on_iteration: Callable[[Iteration, S], None] | None = None,
    slack: float = 1e-9,
    climbed: tuple[str, str] = ("log-likelihood", "EM"),
    already: Sequence[Iteration] = (),
    cursor: Cursor = Cursor(),  # noqa: B008
    on_cursor: Callable[[S, Cursor], None] | None = None,
) -> EMResult[S]:
    """Iterate ``step`` from ``state`` until the log-likelihood gains no more than the tolerance, and is not about to.

    Gains that fall by a rate r have ``r / (1 - r)`` times the last one ahead of them (Aitken's rule; Boehning et al. 1994, "The
    distribution of the likelihood ratio for mixtures of densities"). Where the rate itself still rises, as on the way over a
    plateau to gains that grow again, that says nothing yet, and the run goes on. Cycles of an accelerated scheme, which leaps
    over plateaus, have no such rate: of them the last gain decides.

    Args:
        step: ``state -> (new_state, log_likelihood of the old state in nats per datum)``.
        state: the start; a fitted state is a warm start.
        max_iterations: steps at most. One more evaluation may follow, to know the log-likelihood of the last state.
        tolerance: converged when ``l_new - l_old <= tolerance``, in nats per datum, so that the units of the data, which move
            both, do not matter, and no more than a thousand times as much is ahead; an accelerated scheme is judged cycle by
            cycle, by its gain alone.
        acceleration: ``None`` or a :class:`Squarem`.
        on_iteration: called with every line of the history as it is made, and its state.
        slack: the relative fall that passes as rounding; infinite for steps that may fall.
        climbed: what is climbed, and by what, in the words of an error.
        already: the history before ``state``, of a run that goes on.
        cursor: where that run stood.
        on_cursor: called with every state from which a run can go on, before its line of the history is made.

    Raises:
        EMError: a step raised, or the log-likelihood fell or is NaN.

    Examples:
        >>> halve = lambda t: (t / 2, -t.square())  # climbs -t^2
        >>> result = run(halve, torch.tensor(1.0), max_iterations=100, tolerance=1e-6)
        >>> result.converged, result.iterations
        (True, 11)
    """
    began = time.perf_counter()
    history = list(already)
    reference, gained, rate = cursor.reference_value, cursor.gained, cursor.rate
    for current, value, steps, comparable in (acceleration or Plain())(_guarded(step), state, cursor.steps):
        if history and steps > max_iterations:
            break
        if comparable and on_cursor is not None:
            on_cursor(current, Cursor(steps, reference, gained, rate))
        _check(history, value, steps, slack, climbed)
        state = current
        history.append(Iteration(steps, value, time.perf_counter() - began))
        if on_iteration is not None:
            on_iteration(history[-1], state)
        if comparable:
            gain = value - reference
            before, rate = rate, gain / gained if gained > 0 else 0.0
            if gain <= tolerance and (acceleration is not None or _is_last(gain, rate, before, tolerance)):
                return EMResult(state, history, True, steps)
            reference, gained = value, gain
        if steps >= max_iterations:
            break
    return EMResult(state, history, False, history[-1].iteration)


def best_of(results: Iterable[EMResult[S]]) -> EMResult[S]:
    """The result of the highest log-likelihood, for several starts (``n_init``); lazily fed, only two are alive at a time."""
    return max(results, key=lambda result: result.history[-1].log_likelihood)


def _is_last(gain: float, rate: float, before: float, tolerance: float) -> bool:
    """Whether gains that went on to fall by the rate would add nothing of note, and the rate has settled since ``before``."""
    settled = rate < 1 and rate - before <= SETTLED
    return gain <= 1e-3 * tolerance or (settled and gain * rate / (1 - rate) <= AHEAD * tolerance)


def _check(history: list[Iteration], value: float, steps: int, slack: float, climbed: tuple[str, str]) -> None:
    before = history[-1].log_likelihood if history else -math.inf
    if value >= before - slack * max(1.0, abs(before)) and value < math.inf:
        return
    what, by = climbed
    raise EMError(
        f"a variance has probably collapsed beside the scale of the data, or a step does not maximize: the {what} fell "
        f"or is not finite at iteration {steps}: {before:.10g} -> {value:.10g} nats per datum, which {by} never does. "
        "Usual cause: more components or factors than the data support, data very far from zero beside their spread, or a "
        "ridge added to the covariances. Remedies: fewer components or factors, a higher floor, centred or scaled columns"
    )


def _guarded(step: Step[S]) -> Step[S]:
    """The step, whose own errors are :class:`EMError`; those of callbacks are not."""

    def guarded(state: S) -> tuple[S, Any]:
        try:
            return step(state)
        except (ValueError, torch.linalg.LinAlgError) as error:
            raise EMError(str(error)) from error

    return guarded
