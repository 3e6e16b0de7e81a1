"""The program of a hidden Markov model, and what is exact about it.

    for n in 1..N:
        s_1 ~ Categorical(pi);  s_t | s_(t-1) ~ Categorical(A[s_(t-1)])
        x_t | s_t ~ p(x; features of s_t)

Rabiner (1989). The states are summed out inside the one site x.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from ppl_vae.exact import Problem
from ppl_vae.exact import forward_backward as fb
from ppl_vae.exact.sharing import add_up
from ppl_vae.likelihoods import Likelihood
from ppl_vae.models.chains.emissions import Emission, Steps
from ppl_vae.models.chains.paths import PathPosterior
from ppl_vae.models.chains.rows import Block, RowProgram, all_and_own, total_of, widened
from ppl_vae.program.hooks import Start
from ppl_vae.program.quantities import COMPONENT, Chart, Quantity
from ppl_vae.program.sites import Site
from ppl_vae.types import DataSpec

__all__ = ["HMMProgram", "HMMState"]

EMPTY = 1e-6  # expected elements of a state that is left out


class HMMState(NamedTuple):
    """log p(s_1) ``(K,)``, log p(s_t | s_(t-1)) ``(K, K)``, and the parameters of p(x_t | s_t); in float64."""

    log_initial: Tensor
    log_transition: Tensor
    emission: tuple[Tensor, ...]

    @property
    def chain(self) -> fb.Chain:
        """How states follow each other."""
        return fb.Chain(self.log_initial, self.log_transition)


class HMMProgram(RowProgram):
    """Parameters ``initial_logits (K,)``, ``transition_logits (K, K)`` and the features of each state.

    Args:
        spec: of the data.
        states: K.
        emission: p(x_t | s_t).
        pseudo_counts: added to each expected count of a first state, of a transition, of a token.
        stickiness: added to that of each state after itself.
    """

    learning_rate = 2e-2
    random_start = True

    def __init__(
        self, spec: DataSpec, states: int, emission: Likelihood, *, pseudo_counts: float = 0.0, stickiness: float = 0.0
    ) -> None:
        super().__init__(spec)
        self.kind = type(emission).__name__
        self.pseudo_counts, self.stickiness = pseudo_counts, stickiness
        self.initial_logits = nn.Parameter(torch.zeros(states))
        self.transition_logits = nn.Parameter(torch.zeros(states, states))
        self.emission = Emission(emission, states, self.element)

    @property
    def states(self) -> int:
        """K."""
        return len(self.initial_logits)

    @property
    def sites(self) -> dict[str, Site]:
        """The state of each element, summed out."""
        return {"s": Site("s", (self.states,), constraints.one_hot, summed=True, index=True, per_element=True)}

    @property
    def free_parameters(self) -> int:
        """K - 1 first states, K (K - 1) transitions, and the features, of tokens all but one of each state."""
        K, features = self.states, sum(part.numel() for part in self.emission.parameters() if part.requires_grad)
        return K * K - 1 + features - (K if self._counted else 0)

    @property
    def _counted(self) -> bool:
        return self.emission.steps is not None and self.emission.steps.counted

    @property
    def chain(self) -> fb.Chain:
        """How states follow each other."""
        return fb.Chain(self.initial_logits.log_softmax(0), self.transition_logits.log_softmax(1))

    def log_density(self, x: Tensor, inside: Tensor) -> Tensor:
        """Log p of each row, with gradients by the expected counts."""
        return fb.log_likelihood(self.chain, self.emission.log_prob(x, inside), inside)

    @torch.no_grad()
    def log_prob(self, *batch: Tensor) -> Tensor:
        """Exact log p of each row in nats, ``(B,)``; in float64, without gradients."""
        return fb.smooth(*self._known(*batch)).log_prob

    @torch.no_grad()
    def posterior(self, *batch: Tensor) -> Any:
        """p(s | x) of each row: its mean is p(s_t | x) ``(B, T, K)``, its draws are paths, one-hot."""
        known = self._known(*batch)
        found = fb.smooth(*known)

        def draw() -> Tensor:
            return nn.functional.one_hot(fb.draw_paths(*known), self.states).to(batch[0].device, self.initial_logits.dtype)

        mean = found.states.to(self.initial_logits.dtype)
        return PathPosterior(mean, (mean * (1 - mean)), draw, partial(self._log_path, *known, found.log_prob))

    @torch.no_grad()
    def path(self, *batch: Tensor) -> Tensor:
        """The most probable states of each row ``(B, T)`` (Viterbi 1967)."""
        return fb.viterbi(*self._known(*batch))[0]

    @torch.no_grad()
    def continued(self, given: Tensor, length: Tensor, steps: int, *, end: int | None = None) -> Tensor:
        """What may follow given elements: the filter to the last of them, then states and elements as the story draws them."""
        chain, log_emission, inside = self._known(given, length)
        state = torch.multinomial(fb.predicted(chain, log_emission, inside), 1)[:, 0]
        transition, found = chain.log_transition.exp(), [state]
        for _ in range(steps - 1):
            found.append(torch.multinomial(transition[found[-1]], 1)[:, 0])
        drawn: Tensor = self.emission(torch.stack(found, 1)).sample()
        return drawn.to(given.dtype)

    def quantities(self) -> dict[str, Quantity]:
        """Probabilities of first states and of transitions, and what each state emits where that has an M-step."""
        initial, transition = (part.exp() for part in self.chain)
        return {
            "initial": Quantity(values=initial, axes=(COMPONENT,)),
            "transition": Quantity(values=transition, axes=(COMPONENT, COMPONENT), note="from a state (row) to the next"),
            **({} if self.emission.steps is None else self.emission.steps.told(self.emission.steps.current(self.emission))),
        }

    @torch.no_grad()
    def charts(self) -> dict[str, Chart]:
        """Transitions; and of tokens what each state emits."""
        found = {"transitions": Chart(values=self.chain.log_transition.exp(), rows="state", columns="next state")}
        if self._counted:
            found["emissions"] = Chart(values=self.emission.log_table.exp(), rows="state", columns="token", tokens=True)
        return found

    def em(self, rows: Any, *, generator: torch.Generator | None = None, accelerate: bool = True) -> Problem:
        """Baum-Welch: what EM iterates for rows of a split, from a random start.

        Raises:
            ValueError: an emission whose weighted maximum is no formula, or a row of length 0.
        """
        steps = self._steps()
        generator = generator or torch.Generator(self.initial_logits.device).manual_seed(0)
        every, blocks = all_and_own(self, rows)
        total = total_of(rows, blocks)

        def step(state: HMMState) -> tuple[HMMState, Tensor]:
            log_prob, counts = gathered(steps, state, blocks, rows)
            prior = self._log_prior(state) / total
            return self._maximized(steps, state, counts), log_prob / total + prior

        prior = (lambda state: float(self._log_prior(state)) / total) if self.pseudo_counts or self.stickiness else None
        start, remark = self._initial(steps, every, generator), partial(self._remark, steps, blocks, rows)
        return Problem(step, start, None, self.assign, remark, log_prior=prior)

    def start_fit(self, context: Start) -> None:
        """Start where EM starts, if the emission has its steps.

        Raises:
            ValueError: pseudo-counts, which gradients of log p(x) leave out.
        """
        if self.pseudo_counts or self.stickiness:
            raise ValueError("expected no pseudo_counts and no stickiness for SVI, which climbs log p(x) alone: use EM")
        generator = context.generator()
        if self.emission.steps is not None:
            self.assign(self.em(context.rows, generator=generator).start)
        else:
            noise = torch.randn(self.states, self.states, device=self.transition_logits.device, generator=generator)
            with torch.no_grad():
                self.transition_logits.copy_(noise)

    @torch.no_grad()
    def em_state(self) -> HMMState:
        """The present parameters, which EM iterates and :meth:`assign` takes."""
        log_initial = self.initial_logits.double().log_softmax(0)
        return HMMState(log_initial, self.transition_logits.double().log_softmax(1), self._steps().current(self.emission))

    @torch.no_grad()
    def assign(self, parameters: HMMState) -> None:
        """Write parameters into the module."""
        self.initial_logits.copy_(parameters.log_initial)
        self.transition_logits.copy_(parameters.log_transition)
        self._steps().assign(self.emission, parameters.emission)

    def _known(self, *batch: Tensor) -> tuple[fb.Chain, Tensor, Tensor]:
        """How states follow each other, log p(x_t | s_t), and which elements are no padding; in float64."""
        x, inside = self.padded(*batch)
        chain = fb.Chain(self.initial_logits.double().log_softmax(0), self.transition_logits.double().log_softmax(1))
        return chain, self.emission.log_prob(widened(x), inside).double(), inside

    def _log_path(self, chain: fb.Chain, log_emission: Tensor, inside: Tensor, log_prob: Tensor, path: Tensor) -> Tensor:
        """Log p(path | x) of one-hot paths ``(..., B, T, K)``."""
        states = path.argmax(-1)
        first = chain.log_initial[states[..., 0]]
        moves = torch.where(inside[:, 1:], chain.log_transition[states[..., :-1], states[..., 1:]], 0).sum(-1)
        seen = log_emission.expand(*states.shape, -1).gather(-1, states[..., None])[..., 0]
        return first + moves + torch.where(inside, seen, 0).sum(-1) - log_prob

    def _steps(self) -> Steps:
        if self.emission.steps is None:
            raise ValueError(
                f"the M-step of an emission {self.kind} has no formula: use SVI, or one of Categorical, Gaussian, Poisson, "
                "Bernoulli"
            )
        return self.emission.steps

    def _initial(self, steps: Steps, blocks: Iterable[Block], generator: torch.Generator) -> HMMState:
        """Tables drawn from Dirichlet distributions, states that differ in what they emit."""
        K = self.states
        elements = torch.cat([block.x[block.inside] for block in blocks])
        options: dict[str, Any] = {"dtype": torch.float64, "device": elements.device}
        tables = torch.rand(K + 1, K, generator=generator, **options) + 0.5
        log_tables = (tables / tables.sum(1, keepdim=True)).log()
        return HMMState(log_tables[0], log_tables[1:], steps.initial(elements, K, generator))

    def _maximized(self, steps: Steps, state: HMMState, counts: Expected) -> HMMState:
        pseudo = self.pseudo_counts
        moves = counts.transitions + pseudo + self.stickiness * torch.eye(self.states).to(counts.transitions)
        found = counts.emission + pseudo if steps.counted else counts.emission
        return HMMState(
            _log_shares(counts.initial + pseudo, state.log_initial),
            _log_shares(moves, state.log_transition),
            steps.maximized(found, state.emission),
        )

    def _log_prior(self, state: HMMState) -> Tensor:
        """Log of the Dirichlet densities that the pseudo-counts stand for, but for their constants."""
        pseudo = self.pseudo_counts
        moves = pseudo + self.stickiness * torch.eye(self.states).to(state.log_transition)
        found = _times(pseudo, state.log_initial) + _times(moves, state.log_transition)
        return found + _times(pseudo, state.emission[0]) if self._steps().counted else found

    def _remark(self, steps: Steps, blocks: list[Block], rows: Any, state: HMMState) -> str | None:
        """States that no element is in."""
        expected = gathered(steps, state, blocks, rows)[1].occupied
        dead = [str(place + 1) for place, found in enumerate(expected.tolist()) if found < EMPTY]
        return f"states without any element, which stay as they were ({', '.join(dead)}): fewer states" if dead else None


class Expected(NamedTuple):
    """Expected numbers of first states ``(K,)``, transitions ``(K, K)``, and what the emission's M-step sums."""

    initial: Tensor
    transitions: Tensor
    emission: Tensor
    occupied: Tensor


def gathered(steps: Steps, state: HMMState, blocks: list[Block], rows: Any = None) -> tuple[Tensor, Expected]:
    """The E-step: log p, summed over all rows, and expected counts; ``blocks`` are the own ones of rows that are shared."""
    parts = [_of_block(steps, state, block) for block in blocks]
    value = torch.stack([value for value, _ in parts]).sum()
    found = Expected(*(torch.stack(part).sum(0) for part in zip(*(found for _, found in parts), strict=True)))
    add_up(rows, [value, *found])
    return value, found


def _of_block(steps: Steps, state: HMMState, block: Block) -> tuple[Tensor, Expected]:
    if steps.counted:
        found = fb.token_counts(state.chain, state.emission[0], block.x, block.inside, block.weights)
        return found.log_prob, Expected(found.initial, found.transitions, found.tokens, found.tokens.sum(1))
    smoothed = fb.smooth(state.chain, steps.log_prob(state.emission, block.x), block.inside, block.weights)
    weight = block.spread(smoothed.states)
    first = smoothed.states[:, 0] if block.weights is None else smoothed.states[:, 0] * block.weights.to(weight)[:, None]
    value = smoothed.log_prob.sum() if block.weights is None else smoothed.log_prob @ block.weights.to(weight)
    sums = steps.statistics(block.x[block.inside], weight)
    return value, Expected(first.sum(0), smoothed.transitions, sums, weight.sum(0))


def _log_shares(counts: Tensor, before: Tensor) -> Tensor:
    """Log of each row's shares; of a row without counts what was before."""
    total = counts.sum(-1, keepdim=True)
    return torch.where(total > 0, (counts / total.clamp_min(torch.finfo(counts.dtype).tiny)).log(), before)


def _times(weight: float | Tensor, log: Tensor) -> Tensor:
    """The sum of products, those of weight 0 left out."""
    weights = torch.as_tensor(weight, dtype=log.dtype, device=log.device).expand_as(log)
    return torch.where(weights > 0, weights * log, 0).sum()
