"""Forward-backward: sums over all paths of hidden states, by a scaled scan.

    p(x) = sum over s_1, ..., s_T of p(s_1) p(x_1 | s_1) prod_t p(s_t | s_(t-1)) p(x_t | s_t)

Baum, Petrie, Soules and Weiss (1970); the scaling is that of Rabiner (1989, "A tutorial on hidden Markov models"). Rows are
padded: elements that are none have probability 1 in every state, so that with transitions that sum to 1 they change nothing.

Axes: T elements of the longest row, B rows, K states, V tokens. Scans go over the first axis, ``(T, B, K)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Chain", "Counts", "Smoothed", "draw_paths", "log_likelihood", "predicted", "smooth", "token_counts", "viterbi"]


UNSCALED = 4  # tokens whose probabilities are multiplied before they are scaled, which float64 holds


class Chain(NamedTuple):
    """How states follow each other: log p(s_1) ``(K,)`` and log p(s_t | s_(t-1)) ``(K, K)``, whose rows sum to 1 as exp."""

    log_initial: Tensor
    log_transition: Tensor


class Smoothed(NamedTuple):
    """log p(x) ``(B,)``; p(s_t | x) ``(B, T, K)``; the expected number of each transition, ``(K, K)``, summed over rows."""

    log_prob: Tensor
    states: Tensor
    transitions: Tensor


class Counts(NamedTuple):
    """log p(x), summed over rows; expected numbers of first states ``(K,)``, transitions ``(K, K)``, and tokens ``(K, V)``."""

    log_prob: Tensor
    initial: Tensor
    transitions: Tensor
    tokens: Tensor


def log_likelihood(chain: Chain, log_emission: Tensor, inside: Tensor) -> Tensor:
    """Log p(x) of each row, ``(B,)``, whose gradients are the expected counts; one scan forward, one backward.

    Args:
        chain: how states follow each other.
        log_emission: log p(x_t | s_t), ``(B, T, K)``; what stands in the padding means nothing.
        inside: which elements are no padding, ``(B, T)``.

    Examples:
        >>> chain = Chain(torch.tensor([0.5, 0.5]).log(), torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log())
        >>> emission = torch.tensor([[[0.8, 0.3], [0.2, 0.7]]]).log()
        >>> round(log_likelihood(chain, emission, torch.ones(1, 2, dtype=torch.bool)).exp().item(), 4)
        0.1975
    """
    found: Tensor = _ForwardPass.apply(*chain, log_emission, inside)  # type: ignore[no-untyped-call]
    return found


@torch.no_grad()
def smooth(chain: Chain, log_emission: Tensor, inside: Tensor, weights: Tensor | None = None) -> Smoothed:
    """p(s_t | x) of every element, and expected transitions, by weights of the rows ``(B,)`` where there are some."""
    log_emission, peak = _scaled(log_emission, inside)
    initial, transition = (part.exp() for part in chain)
    alpha, scale = _forward(initial, transition, log_emission.exp())
    log_prob = scale.log().sum(0)[:, 0] + peak.sum(0)[:, 0]
    if not bool((scale > 0).all()):
        return _smooth_in_logs(chain, log_emission, peak, inside, weights)
    w = log_prob.new_ones(len(log_prob)) if weights is None else weights.to(log_prob)
    later = (inside.mT[1:] * w)[..., None]
    beta, follows = _backward(transition, log_emission.exp(), scale)
    counts = alpha[:-1].flatten(0, 1).mT @ (follows[1:] * later).flatten(0, 1)
    return Smoothed(log_prob, (alpha * beta).movedim(0, 1), counts * transition)


@torch.no_grad()
def token_counts(chain: Chain, log_table: Tensor, tokens: Tensor, inside: Tensor, weights: Tensor | None = None) -> Counts:
    """The E-step of rows of tokens in one pass each way, without a table of all elements and states but the filter's.

    Args:
        chain: how states follow each other.
        log_table: log p(token | state), ``(K, V)``.
        tokens: ``(B, T)`` int64.
        inside: which elements are no padding, ``(B, T)``.
        weights: of the rows ``(B,)``.
    """
    K, V = log_table.shape
    table = torch.cat([log_table.exp().mT, log_table.new_ones(1, K)])  # padding is a token that every state has
    x = tokens.masked_fill(~inside, V).mT.contiguous().unbind(0)
    alpha, scales = _filtered_tokens(chain, table, x)
    log_prob = torch.cat(list(scales.values()), 1).log().sum(1)
    w = log_prob.new_ones(len(log_prob)) if weights is None else weights.to(log_prob)
    of_element = inside.mT * w if weights is not None or not bool(inside.all()) else None
    transition = chain.log_transition.exp()
    back, found, transitions = transition.mT.contiguous(), torch.zeros_like(table), torch.zeros_like(transition)
    beta, state, follows = torch.ones_like(alpha[0]), torch.empty_like(alpha[0]), torch.empty_like(alpha[0])
    for t in reversed(range(len(x))):
        torch.mul(alpha[t], beta, out=state)
        found.index_add_(0, x[t], state if weights is None else state * w[:, None])
        if t:
            torch.index_select(table, 0, x[t], out=follows).mul_(beta)
            if t in scales:
                follows.div_(scales[t])
            transitions.addmm_(alpha[t - 1].mT, follows if of_element is None else follows * of_element[t, :, None])
            torch.mm(follows, back, out=beta)
    first = state * (inside[:, :1] * w[:, None])
    return Counts(log_prob @ w, first.sum(0), transitions * transition, found[:V].mT)


def _filtered_tokens(chain: Chain, table: Tensor, x: Sequence[Tensor]) -> tuple[list[Tensor], dict[int, Tensor]]:
    """The filter of tokens x, T of ``(B,)``, by a table ``(V, K)``; what normalized it now and then, by its time."""
    initial, transition = (part.exp() for part in chain)
    alpha = list(table.new_empty(len(x), len(x[0]), len(initial)).unbind(0))
    emission, scales = torch.empty_like(alpha[0]), {}
    for t, token in enumerate(x):
        torch.index_select(table, 0, token, out=emission)
        if t:
            torch.mm(alpha[t - 1], transition, out=alpha[t]).mul_(emission)
        else:
            torch.mul(emission, initial, out=alpha[t])
        if t % UNSCALED == 0 or t + 1 == len(x):
            scales[t] = alpha[t].sum(-1, keepdim=True)
            alpha[t].div_(scales[t])
    return alpha, scales


@torch.no_grad()
def predicted(chain: Chain, log_emission: Tensor, inside: Tensor) -> Tensor:
    """p(next state | x) of each row ``(B, K)``: that of the element after its last one, of the first one of an empty row."""
    log_emission, _ = _scaled(log_emission, inside)
    initial, transition = (part.exp() for part in chain)
    found = initial.expand(len(inside), -1)
    for t in range(inside.shape[1]):
        state = found * log_emission[t].exp()
        moved = state / state.sum(-1, keepdim=True) @ transition
        found = torch.where(inside[:, t, None], moved, found)
    return found


@torch.no_grad()
def draw_paths(chain: Chain, log_emission: Tensor, inside: Tensor) -> Tensor:
    """Paths drawn from p(s | x), ``(B, T)``, filtered forward and drawn backward (Carter and Kohn 1994)."""
    log_emission, _ = _scaled(log_emission, inside)
    initial, transition = (part.exp() for part in chain)
    alpha, _ = _forward(initial, transition, log_emission.exp())
    path = torch.empty(alpha.shape[:2], dtype=torch.int64, device=alpha.device)
    path[-1] = torch.multinomial(alpha[-1], 1)[:, 0]
    for t in reversed(range(len(alpha) - 1)):
        weights = alpha[t] * transition.mT[path[t + 1]]
        path[t] = torch.multinomial(weights, 1)[:, 0]
    return path.mT


@torch.no_grad()
def viterbi(chain: Chain, log_emission: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """The most probable path of each row ``(B, T)``, and log p(x, path) ``(B,)`` (Viterbi 1967).

    Of rows that end earlier the path stays where it ended.
    """
    best = chain.log_initial + torch.where(inside[:, :1], log_emission[:, 0], 0)
    stay = torch.arange(best.shape[-1], device=best.device).expand_as(best)
    came = [stay]
    for t in range(1, inside.shape[1]):
        value, before = (best[:, :, None] + chain.log_transition).max(1)
        here = inside[:, t, None]
        best = torch.where(here, value + log_emission[:, t], best)
        came.append(torch.where(here, before, stay))
    log_prob, state = best.max(-1)
    path = [state]
    for before in reversed(came[1:]):
        path.append(before.gather(1, path[-1][:, None])[:, 0])
    return torch.stack(path[::-1], 1), log_prob


class _ForwardPass(torch.autograd.Function):
    """log p(x), whose gradients are expected counts: p(s_1 | x), expected transitions, p(s_t | x)."""

    @staticmethod
    def forward(ctx: Any, log_initial: Tensor, log_transition: Tensor, log_emission: Tensor, inside: Tensor) -> Tensor:
        log_scaled, peak = _scaled(log_emission, inside)
        transition, emission = log_transition.exp(), log_scaled.exp()
        alpha, scale = _forward(log_initial.exp(), transition, emission)
        ctx.save_for_backward(transition, emission, alpha, scale, inside)
        return scale.log().sum(0)[:, 0] + peak.sum(0)[:, 0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        transition, emission, alpha, scale, inside = ctx.saved_tensors
        beta, follows = _backward(transition, emission, scale)
        of_row = (inside.mT * gradients[0])[..., None]
        states = alpha * beta * of_row
        moves = alpha[:-1].flatten(0, 1).mT @ (follows[1:] * of_row[1:]).flatten(0, 1)
        return states[0].sum(0), moves * transition, states.movedim(0, 1), None


def _scaled(log_emission: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Log p(x_t | s_t) less its peak over states, 0 in the padding, ``(T, B, K)``; and the peak ``(T, B, 1)``."""
    found = torch.where(inside[..., None], log_emission, 0).movedim(1, 0)
    peak = found.amax(-1, keepdim=True).clamp_min(torch.finfo(found.dtype).min / 2)
    return (found - peak).contiguous(), peak


def _forward(initial: Tensor, transition: Tensor, emission: Tensor) -> tuple[Tensor, Tensor]:
    """The filter p(s_t | x_1, ..., x_t) ``(T, B, K)``, and what normalized it ``(T, B, 1)``."""
    alpha: list[Tensor] = []
    scale: list[Tensor] = []
    state = initial * emission[0]
    for t, here in enumerate(emission.unbind(0)):
        state = state if t == 0 else (alpha[-1] @ transition).mul_(here)
        scale.append(state.sum(-1, keepdim=True))
        alpha.append(state / scale[-1])
    return torch.stack(alpha), torch.stack(scale)


def _backward(transition: Tensor, emission: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """beta_t = p(x_(t+1), ... | s_t) / p(x_(t+1), ... | x_1, ..., x_t), and emission_t beta_t / scale_t, both ``(T, B, K)``."""
    back = transition.mT.contiguous()
    beta, follows = [torch.ones_like(emission[0])], []
    for here, by in zip(reversed(emission.unbind(0)), reversed(scale.unbind(0)), strict=True):
        follows.append((here * beta[-1]).div_(by))
        beta.append(follows[-1] @ back)
    return torch.stack(beta[-2::-1]), torch.stack(follows[::-1])


def _smooth_in_logs(chain: Chain, log_emission: Tensor, peak: Tensor, inside: Tensor, weights: Tensor | None) -> Smoothed:
    """The same where products underflow: states that can hardly be reached have all that an element allows."""
    log_initial, log_transition = chain
    alpha = [log_initial + log_emission[0]]
    for here in log_emission[1:]:
        alpha.append((alpha[-1][:, :, None] + log_transition).logsumexp(1) + here)
    log_prob = alpha[-1].logsumexp(-1)
    beta = [torch.zeros_like(alpha[0])]
    w = log_prob.new_ones(len(log_prob)) if weights is None else weights.to(log_prob)
    possible = log_prob.isfinite()
    moves = torch.zeros_like(log_transition)
    for t in reversed(range(1, len(log_emission))):
        follows = log_emission[t] + beta[-1]
        pairs = alpha[t - 1][:, :, None] + log_transition + follows[:, None, :] - log_prob[:, None, None]
        moves += torch.einsum("b,bij->ij", w * inside[:, t] * possible, pairs.exp().nan_to_num())
        beta.append((log_transition + follows[:, None, :]).logsumexp(-1))
    states = (torch.stack(alpha) + torch.stack(beta[::-1]) - log_prob[:, None]).exp()
    return Smoothed(log_prob + peak.sum(0)[:, 0], states.movedim(0, 1), moves)
