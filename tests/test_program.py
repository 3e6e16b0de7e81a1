"""Trees of sites, joints, facts and abilities: what every program is asked, and by which words."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence
from torch.utils._pytree import tree_map

import ppl_vae as pv
from ppl_vae.program.base import GuideProgram, ModelProgram
from ppl_vae.program.facts import Abilities, guide_facts, model_facts
from ppl_vae.program.joint import Joint
from ppl_vae.program.sites import by_name, tree
from ppl_vae.types import DataSpec

SPEC = DataSpec(event_shape=(4,), kind="real", size=10)


def chain(scale: float = 1.0) -> Joint:
    """z2 ~ N(0, 1), z1 | z2 ~ N(2 z2, scale)."""
    return Joint(
        {
            "z2": dist.Normal(torch.zeros(3, 1), 1.0).to_event(1),
            "z1": lambda z: dist.Normal(2 * z["z2"], scale).to_event(1),
        }
    )


# --- trees ----------------------------------------------------------------------------------------------------------------


def test_a_lone_site_stands_by_itself_and_several_by_their_names() -> None:
    assert tree({"z": 1}) == 1
    assert tree({"a": 1, "b": 2}) == {"a": 1, "b": 2}
    assert tree_map(lambda value: value + 1, tree({"z": 1})) == 2
    assert by_name({"z": None}, 1) == by_name({"z": None}, {"z": 1}) == {"z": 1}


@pytest.mark.parametrize(
    ("value", "told"),
    [({"a": 1}, "none for b"), ({"a": 1, "b": 2, "c": 3}, "one for c as well"), (1, "of the 2 latent variables, got int")],
)
def test_a_tree_of_other_sites_is_refused(value: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        by_name({"a": None, "b": None}, value)


# --- joints ---------------------------------------------------------------------------------------------------------------


def test_a_joint_is_the_density_of_its_chain() -> None:
    p = chain()
    z = p.sample((1000,))
    assert {name: tuple(value.shape) for name, value in z.items()} == {"z2": (1000, 3, 1), "z1": (1000, 3, 1)}
    # (z2, z1) is one normal with covariance [[1, 2], [2, 5]].
    normal = dist.MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 2.0], [2.0, 5.0]]))
    torch.testing.assert_close(p.log_prob(z), normal.log_prob(torch.cat([z["z2"], z["z1"]], -1)))
    assert torch.cov(torch.cat([z["z2"], z["z1"]], -1).flatten(0, 1).T)[0, 1].item() == pytest.approx(2, abs=0.15)


def test_means_are_fed_forward() -> None:
    p = Joint({"a": dist.Normal(3.0, 1.0), "b": lambda z: dist.Normal(z["a"] ** 2, 1.0)})
    assert {name: value.item() for name, value in p.mean.items()} == {"a": 3.0, "b": 9.0}


def test_a_joint_expands_and_its_draws_carry_gradients() -> None:
    p = chain().expand((7, 3))
    assert p.batch_shape == (7, 3)
    assert p.log_prob(p.sample()).shape == (7, 3)
    loc = torch.zeros(1, requires_grad=True)
    q = Joint({"a": dist.Normal(loc, 1.0).to_event(1), "b": lambda z: dist.Normal(3 * z["a"], 1.0).to_event(1)})
    q.rsample()["b"].sum().backward()
    assert loc.grad is not None
    assert loc.grad.item() == 3


def test_the_kl_of_sites_sums_to_the_kl() -> None:
    q, p = chain(0.5), chain(2.0)
    z = q.sample((50,))
    parts = q.kl(p, z)
    assert torch.equal(parts["z2"].expand(50, 3), torch.zeros(50, 3))
    exact = kl_divergence(dist.Normal(0.0, 0.5), dist.Normal(0.0, 2.0))
    torch.testing.assert_close(parts["z1"], exact.expand(50, 3))


def test_a_joint_of_nothing_and_values_of_other_names_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one factor"):
        Joint({})
    with pytest.raises(ValueError, match="none for z1"):
        chain().log_prob({"z2": torch.zeros(3, 1)})


def test_categories_have_no_mean_and_are_drawn_on_the_way() -> None:
    p = Joint({"k": dist.Categorical(torch.tensor([0.0, 1.0])), "x": lambda z: dist.Normal(z["k"].float(), 1.0)})
    assert p.mean["x"].item() == 1.0


# --- programs -------------------------------------------------------------------------------------------------------------


class TwoLevels(ModelProgram):
    """z2 ~ N(0, I), z1 | z2 ~ N(A z2, I), x | z1 ~ N(B z1, I)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.middle, self.bottom = nn.Linear(1, 2), nn.Linear(2, 4)

    def prior(self) -> Joint:
        return Joint(
            {
                "z2": dist.Normal(torch.zeros(1), 1.0).to_event(1),
                "z1": lambda z: dist.Normal(self.middle(z["z2"]), 1.0).to_event(1),
            }
        )

    def decode(self, z: Any, *known: Tensor) -> Any:
        return dist.Normal(self.bottom(z["z1"]), 1.0).to_event(1)


class BottomUp(GuideProgram):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.up, self.top = nn.Linear(4, 2), nn.Linear(4, 1)

    def posterior(self, *batch: Tensor) -> Joint:
        (x,) = batch
        return Joint(
            {"z2": dist.Normal(self.top(x), 1.0).to_event(1), "z1": lambda z: dist.Normal(self.up(x), 1.0).to_event(1)}
        )


def test_a_program_inherits_its_story_its_sites_and_its_abilities() -> None:
    model, guide = TwoLevels(20), BottomUp(20)
    assert {name: site.event_shape for name, site in model.sites.items()} == {"z2": (1,), "z1": (2,)}
    x = torch.randn(5, 4)
    trace = pyro.poutine.trace(model).get_trace(x)
    assert [name for name in trace.stochastic_nodes if name != "data"] == ["z2", "z1"]
    assert trace.nodes["x"]["scale"] == 4  # N / B
    assert repr(Abilities.of(model, guide)) == "Abilities(generate, encode)"
    assert trace.nodes["z1"]["value"].shape == (5, 2)


def test_two_levels_are_fitted_and_bounded() -> None:
    fit = pv.fit(TwoLevels(60), torch.randn(60, 4), guide=BottomUp(60), method=pv.SVI(epochs=3, compile=False))
    numbers = fit.evaluate(torch.randn(20, 4), samples=50)
    assert numbers["elbo"] <= numbers["iwae"] + 0.5
    assert math.isfinite(numbers["iwae"])


KNOWN = "marginal, know_posterior, impute, mix, encode"


@pytest.mark.parametrize(
    ("model", "abilities"),
    [
        (pv.VAE(latent_dim=2), "generate, encode, vary, describe"),
        (
            pv.FactorAnalysis(latent_dim=2),
            f"generate, decode_linearly, {KNOWN}, vary, iterate, solve, compare, grow, describe",
        ),
        (pv.GMM(components=3), f"generate, {KNOWN}, iterate, compare, grow, describe"),
        (pv.AutoEncoder(latent_dim=2), "generate, encode, vary, describe"),
    ],
)
def test_a_pair_knows_what_it_can_do(model: pv.Model, abilities: str) -> None:
    from ppl_vae.fitting import build, default_guide

    kind = "binary" if isinstance(model, pv.VAE | pv.AutoEncoder) else "real"
    pair = build(model, default_guide(model, pv.SVI()), DataSpec(event_shape=(4,), kind=kind, size=10))
    assert repr(pair.can) == f"Abilities({abilities})"
    assert not any("facts" in name or "can" in name for name in pair.state_dict())


def test_a_foreign_program_says_what_it_says_and_has_the_defaults_else() -> None:
    program = SimpleNamespace(latent_shape=(3,), learning_rate=0.5)
    facts = model_facts(program)
    assert facts.learning_rate == 0.5
    assert facts.reads == ("x",)
    assert facts.known(torch.zeros(2)) == ()
    assert facts.sites["z"].event_shape == (3,)
    assert facts.parameter_sites == ()
    assert not facts.labelled
    assert model_facts(SimpleNamespace(labelled=True)).reads == ("x", "y")
    assert guide_facts(SimpleNamespace()).mean_field
    assert not guide_facts(SimpleNamespace(exact=True)).mean_field
    with pytest.raises(AttributeError):
        facts.no_such_fact


def test_a_guide_of_one_latent_variable_is_refused_for_several() -> None:
    with pytest.raises(ValueError, match="a guide of one latent variable, but this model has z2, z1"):
        pv.AmortizedNormal().build(TwoLevels(10), SPEC)
