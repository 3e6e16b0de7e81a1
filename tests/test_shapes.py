"""What goes into a pair and comes out has the shapes that the docstrings say, by the names of their axes (see ``types.py``)."""

import dataclasses
from typing import Any

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, Shaped, jaxtyped
from torch import Tensor
from torch.utils._pytree import tree_leaves

import ppl_vae as pv
from ppl_vae.evaluate import elbo_terms, log_weights
from ppl_vae.nn.autoregressive import Autoregressive
from ppl_vae.types import DataSpec
from tests.programs import PROGRAMS, Case, batch_of, pair_of
from tests.table import EVENT, GUIDES, LATENT, MODELS, ROWS, built, guide_for, kind_for, rows

S = 3
checked = jaxtyped(typechecker=beartype)
ONE_OF_A_KIND = (
    "VAE-StandardNormal",
    "VAE-Dirichlet",
    "VAE-ProjectedNormal",
    "VAE-OneHotCategorical",
    "VAE-FactorizedCategorical",
    "VAE-MixedTable",
    "VAE-Categorical",
    "VAE-DiscretizedLogisticMixture",
    "FactorAnalysis",
    "GMM-full",
    "AutoEncoder",
    "PCA",
)
"""Models of every kind of latent variable, and of likelihoods with features of several shapes."""


@checked
def latent_leaf(mean: Shaped[Tensor, "B *latent"], draws: Shaped[Tensor, "S B *latent"], batch: tuple[int, ...]) -> None:
    """Of a posterior of the batch; codes are whole numbers."""
    assert batch == (len(mean),)
    assert len(draws) == S


@checked
def decoded(
    x: Shaped[Tensor, "B *event"],
    means: Float[Tensor, "B *event"],
    draws: Shaped[Tensor, "B *event"],
    log_prob: Float[Tensor, "B"],
) -> None:
    """Of p(x | z)."""


@checked
def bounded(
    elbo: Float[Tensor, "B"], reconstruction: Float[Tensor, "B"], kl: Float[Tensor, "B"], weights: Float[Tensor, "S B"]
) -> None:
    """Terms of each datum, and log-weights of each sample too."""
    assert len(weights) == S


def check_pair(pair: pv.Pair, batch: tuple[Tensor, ...]) -> None:
    """Its posterior, its decoder where they are told, and its bounds."""
    pair.plates(*batch)
    with torch.no_grad():
        terms = elbo_terms(pair, batch)
        bounded(terms.elbo, terms.reconstruction, terms.kl, log_weights(pair, batch, samples=S))
        if pair.can.encode is None:
            return
        q = pair.can.encode.posterior(*batch)
        for mean, draws in zip(tree_leaves(q.mean), tree_leaves(q.sample((S,))), strict=True):
            latent_leaf(mean, draws, tuple(q.batch_shape))
        if (model := pair.can.generate) is not None:
            p = model.decode(q.sample(), *model.known(*batch))
            x = batch[0].reshape(len(batch[0]), *p.event_shape)
            draws = p.sample()
            decoded(x, draws.float() if isinstance(p, Autoregressive) else p.mean, draws, p.log_prob(x))  # rows have no mean


@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_a_declared_pair(name: str) -> None:
    model = MODELS[name]
    check_pair(built(model), (rows(kind_for(model)),))


@pytest.mark.parametrize("name", [name for name, guide in GUIDES.items() if guide.serves >= {"continuous"}])
def test_every_guide_of_real_latent_variables(name: str) -> None:
    check_pair(built(MODELS["VAE-StandardNormal"], GUIDES[name]), (rows("binary"),))


@pytest.mark.parametrize("case", PROGRAMS.values(), ids=PROGRAMS)
def test_a_pair_of_several_sites_and_fields(case: Case) -> None:
    check_pair(pair_of(case), batch_of(case))


@pytest.mark.parametrize("name", ["VAE-StandardNormal", "VAE-DiscretizedLogisticMixture", "VAE-LowRankGaussian-amortized"])
def test_features_stand_before_the_event(name: str) -> None:
    model = MODELS[name]
    decoder = built(model).model.decoder

    @checked
    def features(z: Float[Tensor, "S B K"], h: Float[Tensor, "S B P *event"], event: Any) -> None:
        assert h.shape[3:] == event

    z = torch.randn(S, ROWS, LATENT)
    features(z, decoder(z), EVENT)


def test_a_wrong_shape_is_seen() -> None:
    """The checks are on."""
    with pytest.raises(Exception, match="latent_leaf"):
        latent_leaf(torch.zeros(4, 2), torch.zeros(S, 4, 3), (4,))


def test_one_datum_is_a_batch() -> None:
    model = MODELS["VAE-StandardNormal"]
    spec = DataSpec(event_shape=EVENT, kind="binary", size=1)
    pair = pv.build(dataclasses.replace(model), guide_for(model), spec)
    check_pair(pair, (rows("binary")[:1],))
