"""What coordinate ascent iterates for topics: whole sweeps, stochastic steps, and collapsed passes.

A document's factor starts anew in every sweep: kept from sweep to sweep it leaves a better bound and topics that predict worse.
So the bound is a function of the topics alone, that of an evaluation; a sweep after which it would be lower is not taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from ppl_vae.exact import Problem, Stochastic, Sweep, collapsed_topics
from ppl_vae.exact import topics as exact
from ppl_vae.exact.sharing import add_up, own
from ppl_vae.models.topics.documents import of_batch, of_rows
from ppl_vae.models.topics.guide import TopicGuide

__all__ = ["collapsed", "stochastic", "sweeps"]

SHAPE = 100.0  # of the Gamma(100, 1 / 100) of a start's concentrations (Hoffman et al. 2013)


class State(NamedTuple):
    """Topics ``(K, V)``, a concentration or point estimates; E[counts of words by topic] ``(K, V)``; the bound per datum."""

    topics: Tensor
    counts: Tensor
    bound: Tensor


def sweeps(guide: TopicGuide, rows: Any, sweep: Sweep) -> Problem:
    """Every document's factor, then the topics', in turn."""
    documents = _documents(guide, rows, own(rows))

    def at(topics: Tensor) -> State:
        return State(topics, *_expected(guide, documents, rows, topics))

    def step(state: State) -> tuple[State, Tensor]:
        following = at(_updated(guide, state.counts))
        return following if bool(following.bound >= state.bound) else state, state.bound

    return Problem(step, at(_start(guide, sweep.generator)), None, lambda state: guide.assign(state.topics), lambda state: None)


def collapsed(guide: TopicGuide, rows: Any, sweep: Sweep) -> Problem:
    """Passes of CVB0, each told by the uncollapsed bound at its topics, which may fall.

    Raises:
        ValueError: topics that are point estimates, which cannot be integrated out.
    """
    model = guide._model[0]
    if model.eta is None:
        raise ValueError("collapsed=True integrates the topics out, which needs their prior: declare LDA(words=Dirichlet())")
    documents = list(_documents(guide, rows, rows))
    generator = sweep.generator or torch.Generator(model.topics.device).manual_seed(0)
    start = collapsed_topics.random_assignments(documents, tuple(model.topics.shape), generator)

    def step(state: collapsed_topics.Assignments) -> tuple[collapsed_topics.Assignments, Tensor]:
        found, bound = collapsed_topics.assigned(state, documents, model.alpha, model.eta)
        return found, bound / model.size

    def assign(state: collapsed_topics.Assignments) -> None:
        guide.assign(model.eta + state.counts)

    return Problem(step, start, None, assign, lambda state: None, monotone=False)


def stochastic(guide: TopicGuide, rows: Any, sweep: Sweep) -> Stochastic:
    """The topics move by what a batch would make of them if it were all documents."""
    model = guide._model[0]
    first = next(iter(rows))
    model.total.copy_(first.sum(1).double().mean().round().clamp_min(1))

    def step(topics: Tensor, x: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        x = x.to(topics.dtype)
        counts, bound = exact.sweep(of_batch(x, len(topics)), _seen(guide, topics), model.alpha, model.steps)
        found = _updated(guide, counts * (model.size / len(x)))
        return (1 - rate) * topics + rate * found, bound / len(x) - guide.shared_kl(topics) / model.size

    return Stochastic(step, _start(guide, sweep.generator), guide.assign, lambda state: None)


def _documents(guide: TopicGuide, rows: Any, taken: Any) -> Iterable[exact.Documents]:
    """The documents of those rows that are taken; and the mean length of all, that of new ones, into the model."""
    model = guide._model[0]
    documents = of_rows(taken, len(model.alpha), model.topics.dtype)
    words = torch.stack([block.counts.sum(dtype=torch.float64) for block in documents]).sum()
    if taken is not rows:
        add_up(rows, [words])
    model.total.copy_((words / model.size).round().clamp_min(1))
    return documents


def _expected(guide: TopicGuide, documents: Iterable[exact.Documents], rows: Any, topics: Tensor) -> tuple[Tensor, Tensor]:
    """E[counts of words by topic] ``(K, V)``, and the bound per datum."""
    model = guide._model[0]
    counts, bound = exact.sweep(documents, _seen(guide, topics), model.alpha, model.steps)
    add_up(rows, [counts, bound])
    return counts, (bound - guide.shared_kl(topics)) / model.size


def _seen(guide: TopicGuide, topics: Tensor) -> exact.Topics:
    return exact.Topics.of(guide.log_topics(topics))


def _updated(guide: TopicGuide, counts: Tensor) -> Tensor:
    """The best topics, given what documents make of them."""
    eta = guide._model[0].eta
    if eta is not None:
        return eta + counts
    total = counts.sum(1, keepdim=True)
    return torch.where(total > 0, counts / total.clamp_min(torch.finfo(total.dtype).tiny), 1 / counts.shape[1])


def _start(guide: TopicGuide, generator: Generator | None) -> Tensor:
    """Concentrations near one, at random: topics that are alike would stay so."""
    model = guide._model[0]
    like = model.topics.detach()
    generator = generator or torch.Generator(like.device).manual_seed(0)
    drawn = torch._standard_gamma(torch.full_like(like, SHAPE), generator=generator) / SHAPE
    return drawn if guide.drawn else exact.mean(drawn)
