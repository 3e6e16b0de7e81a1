"""Everything with everything: priors with likelihoods, priors with guides, and objectives with both, by one step each."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import ppl_vae as pv
from ppl_vae.program.context import local_params
from tests.table import GUIDES, LIKELIHOODS, MODELS, OBJECTIVES, PRIORS, built, fits, follows, kind_for, rows, vae_of

BATCH = 4
# A guide over parameters meets models without priors of parameters here, and is refused by each.
ANY_GUIDE: dict[str, pv.Guide] = {**GUIDES, "BayesianGuide": pv.BayesianGuide()}


def step(model: pv.Model, guide: pv.Guide | None = None, objective: pv.Objective | None = None) -> None:
    """Build, take one step of gradient ascent, and see that numbers are finite before and after."""
    pair = built(model, guide)
    climbed = (objective or pv.ELBO()).build(pair)
    x = rows(kind_for(model), BATCH)
    parameters = dict(climbed.named_parameters())
    optimizer = torch.optim.Adam(parameters.values(), 1e-3)
    with local_params():
        first, *_ = climbed(x)
        first.backward()
        lacking = [name for name, value in parameters.items() if value.grad is None or not value.grad.isfinite().all()]
        assert lacking == []
        optimizer.step()
        second, *_ = climbed(x)
    assert first.isfinite()
    assert second.isfinite()


def remedy(model: pv.Model, guide: pv.Guide, objective: pv.Objective | None = None) -> str:
    """What the one line says to use instead, with which a combination is refused."""
    with pytest.raises(ValueError, match=r"^[^\n]+: use [^\n]+$") as caught:
        step(model, guide, objective)
    return str(caught.value).rpartition(": use ")[2]


def among(table: dict[str, Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("entry", table.values(), ids=table.keys())


@pytest.mark.parametrize("place", range(len(PRIORS)), ids=PRIORS.keys())
def test_a_prior_goes_with_likelihoods_in_their_turn(place: int) -> None:
    """Two each, so that every likelihood meets some."""
    likelihoods = list(LIKELIHOODS.values())
    assert 2 * len(PRIORS) >= len(likelihoods)
    for turn in (2 * place, 2 * place + 1):
        step(vae_of(list(PRIORS.values())[place], likelihood=likelihoods[turn % len(likelihoods)]))


@pytest.mark.slow
@among(PRIORS)
def test_a_prior_goes_with_every_likelihood(entry: pv.Prior) -> None:
    for likelihood in LIKELIHOODS.values():
        step(vae_of(entry, likelihood=likelihood))


@among(ANY_GUIDE)
def test_a_guide_goes_with_every_prior_of_its_kind_and_refuses_the_others(entry: pv.Guide) -> None:
    for prior in PRIORS.values():
        model = vae_of(prior)
        if fits(model, entry):
            step(model, entry)
        else:
            named = remedy(model, entry)
            assert any(fits(model, guide) for guide in GUIDES.values() if type(guide).__name__ in named)


@pytest.mark.parametrize("place", range(len(OBJECTIVES)), ids=OBJECTIVES.keys())
def test_an_objective_goes_with_priors_in_their_turn(place: int) -> None:
    """A third of them each."""
    for prior in list(PRIORS.values())[place % 3 :: 3]:
        step(vae_of(prior), objective=list(OBJECTIVES.values())[place])


@pytest.mark.slow
@among(OBJECTIVES)
def test_an_objective_goes_with_every_prior(entry: pv.Objective) -> None:
    for prior in PRIORS.values():
        step(vae_of(prior), objective=entry)


@among(OBJECTIVES)
def test_an_objective_goes_with_every_guide_whose_draws_it_can_follow(entry: pv.Objective) -> None:
    for guide in GUIDES.values():
        model = next(model for model in MODELS.values() if fits(model, guide))
        if follows(entry, guide):
            step(model, guide, entry)
        else:
            assert "a guide whose draws are reparameterized" in remedy(model, guide, entry)
