"""Grids of codes given a class, and drawn at a temperature: sums over all grids, bounds, draws of a class."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ppl_vae as pv
from ppl_vae import cli, runs
from ppl_vae.evaluate.bounds import elbo_terms
from ppl_vae.evaluate.temperature import cooled
from ppl_vae.priors import build_codes_prior

EVENT = (1, 4, 4)
CLASSES = ("cat", "dog", "emu")
TINY = pv.MLP(hidden=(6,), activation="tanh")
NETWORK = pv.PixelCNN(channels=4, layers=2)
ONE = pv.Codebook(size=3, dim=2, grid=(2, 2), restart=None)
TWO = (pv.Codebook(size=3, dim=2, grid=(1, 1), restart=None), ONE)


def model_of(books: Any = ONE, prior: Any = NETWORK) -> pv.VQVAE:
    return pv.VQVAE(codebook=books, decoder=TINY, prior=prior, condition=pv.Labels())


def pair_of(books: Any) -> pv.Pair:
    """With a prior that is not uniform."""
    torch.manual_seed(0)
    spec = pv.DataSpec(event_shape=EVENT, kind="binary", size=6, classes=CLASSES)
    pair = pv.build(model_of(books), pv.NearestCode(), spec).double()
    with torch.no_grad():
        for parameter in pair.model.prior.parameters():
            parameter.add_(torch.randn(parameter.shape) / 2)
    return pair.eval()


def every(height: int, width: int) -> Tensor:
    """All grids of three codes."""
    return torch.tensor(list(itertools.product(range(3), repeat=height * width))).reshape(-1, 1, height, width)


@pytest.mark.parametrize("books", [ONE, TWO], ids=["one", "levels"])
def test_codes_given_each_class_sum_to_one_and_to_a_bound_on_the_data_given_it(books: Any) -> None:
    pair, y = pair_of(books), torch.arange(3)
    x = (torch.rand(3, *EVENT) < 0.4).double()
    grids: Any = every(2, 2)
    if books is TWO:
        above = every(1, 1)
        grids = {"k2": above.repeat_interleave(len(grids), 0), "k1": grids.repeat(len(above), 1, 1, 1)}
    with torch.no_grad():
        log_p = pair.model.prior_given(*pair.model.known(y)).log_prob(grids)
        log_joint = pair.model.decode(grids).log_prob(x) + log_p
        terms = elbo_terms(pair, (x, y))
        codes = pair.guide.posterior(x).mean
        of_codes = pair.model.prior_given(*pair.model.known(y)).log_prob(codes)
    torch.testing.assert_close(log_p.logsumexp(0), torch.zeros(3).double(), rtol=0, atol=1e-12)
    assert (log_p.std(1) > 1e-3).all()  # each class has its own
    torch.testing.assert_close(terms.kl, -of_codes)
    assert (log_joint.logsumexp(0) > terms.elbo).all()


def test_a_class_has_its_own_draws_in_python_and_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x, y = (torch.rand(12, *EVENT) < 0.5).float(), np.array(CLASSES).repeat(4)
    data = pv.load_data(x.numpy(), y=y, kind="binary", valid=0.0, test=0.0)
    fit = pv.fit(model_of(TWO), data, method=pv.SVI(epochs=1))
    with torch.no_grad():
        for parameter in fit.pair.model.prior.parameters():
            parameter.add_(2 * torch.randn(parameter.shape))
        codes = fit.pair.eval().model.prior_given(*fit.pair.model.known(torch.arange(3))).mean
        expected = fit.decode(codes, y=CLASSES)
    assert any(len(each.unique(dim=0)) > 1 for each in codes.values())
    torch.testing.assert_close(fit.sample(3, means=True, temperature=0.0), expected)
    torch.testing.assert_close(fit.sample(2, y="emu", means=True, temperature=0.0), expected[[2, 2]])
    words = ["--n", "2", "--y", "emu", "--temperature", "0", "--means", "--out", str(tmp_path / "drawn.npy")]
    monkeypatch.setattr(runs, "load_run", lambda *_, **__: fit)
    assert cli.main(["sample", "run", *words]) == 0
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "drawn.npy")), expected[[2, 2]])
    assert fit.predict_proba(x[:2]).shape == (2, 3)
    with pytest.raises(ValueError, match="conditioned on labels: give y"):
        fit.decode(fit.encode(data.train))


def test_a_temperature_divides_the_log_probabilities_of_each_code() -> None:
    torch.manual_seed(0)
    prior = build_codes_prior(NETWORK, levels=3, grid=(1, 1))
    logits = torch.tensor([1.0, 0.0, -1.0])
    with torch.no_grad():
        prior.network.output.bias.copy_(logits)
    p = prior.train()().expand((4000,))
    share = torch.bincount(cooled(p, 0.5).flatten(), minlength=3) / 4000
    torch.testing.assert_close(share, (logits / 0.5).softmax(0), rtol=0, atol=0.03)
    assert not cooled(p, 0.0).any()  # the first is the most probable
    levels = pair_of(TWO).model.prior_given(torch.eye(3).double())
    assert torch.equal(cooled(levels, 0.0)["k1"], levels.mean["k1"])
    assert cooled(levels, {"k2": 0.0})["k1"].shape == (3, 2, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: model_of(prior=pv.UniformCodes()), r"expected a prior that can be told the class, such as PixelCNN\(\)"),
        (lambda: pv.VQVAE(condition=pv.Quadrants(), prior=NETWORK), r"expected a condition=Labels\(\) of a VQVAE, or none"),
        (lambda: model_of().check(pv.DataSpec(event_shape=EVENT, kind="binary", size=9)), "needs labelled data"),
        (lambda: cooled(build_codes_prior(pv.UniformCodes(), levels=3, grid=(1, 1))(), 0.5), "that was fitted"),
    ],
)
def test_what_cannot_be_given_or_cooled_is_told_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
