"""A class that is observed where rows have a label, and summed over where they have none."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

import ppl_vae as pv
from ppl_vae.evaluate import log_weights
from ppl_vae.inference.training.optimizers import OPTIMIZERS
from ppl_vae.inference.training.step import WORTH_RECORDING, Step
from tests.table import EVENT, ROWS, TINY, rows

MODEL = pv.SemiSupervisedVAE(latent_dim=2, decoder=TINY)
GUIDE = pv.AmortizedClassifier(encoder=TINY, classifier=TINY)
SPEC = pv.DataSpec(event_shape=EVENT, kind="binary", size=10 * ROWS, classes=("a", "b", "c"))
FROZEN = pv.SVI(epochs=1, learning_rate=1e-12, batch_size=7, compile=False)


def built(model: pv.Model = MODEL, guide: pv.Guide = GUIDE, spec: pv.DataSpec = SPEC) -> pv.Pair:
    torch.manual_seed(0)
    return pv.build(model, guide, spec)


def data(known: int, *, valid: float = 0.0) -> pv.Data:
    """Binary rows of classes 0, 1, 2, of which the first so many have a label."""
    y = np.arange(ROWS) % 3
    if known == ROWS:
        return pv.load_data(rows("binary").numpy(), y=y, valid=valid, test=0.0)
    with pytest.warns(pv.FitWarning, match="rows have no label"):
        return pv.load_data(rows("binary").numpy(), y=np.where(np.arange(ROWS) < known, y, -1), valid=valid, test=0.0)


# --- exact cases ----------------------------------------------------------------------------------------------------------


def test_with_all_labels_and_no_weight_it_is_the_conditional_vae() -> None:
    x, y = rows("binary"), torch.arange(ROWS) % 3
    conditional = pv.CVAE(latent_dim=2, decoder=TINY, prior=pv.StandardNormal())
    pairs = [
        built(guide=dataclasses.replace(GUIDE, weight=0.0)),
        built(conditional, pv.AmortizedNormal(encoder=TINY)),
    ]
    elbos: list[list[float]] = []
    for pair in pairs:
        module = pv.ELBO().build(pair)
        optimizer = torch.optim.Adam(module.parameters(), 1e-2)
        torch.manual_seed(0)
        elbos.append([])
        for _ in range(5):
            optimizer.zero_grad()
            estimate = module(x, y)
            estimate.loss.backward()
            optimizer.step()
            elbos[-1].append(estimate.elbo.item())
    torch.testing.assert_close(torch.tensor(elbos[0]), torch.tensor(elbos[1]) - math.log(3))
    with torch.no_grad():
        weights = []
        for pair in pairs:
            torch.manual_seed(0)
            weights.append(log_weights(pair, (x, y), samples=3))
    torch.testing.assert_close(weights[0], weights[1] - math.log(3))


def test_the_bound_without_a_label_is_the_sum_over_one_hot_runs() -> None:
    pair, x = built().double(), rows("binary", dtype=torch.float64)
    with torch.no_grad():
        torch.manual_seed(1)
        found = pv.ELBO().build(pair)(x)
        torch.manual_seed(1)
        noise = torch.normal(torch.zeros(3, ROWS, 2, dtype=torch.float64), torch.ones(3, ROWS, 2, dtype=torch.float64))
        q, p = pair.guide.classes(x), pair.model.prior()
        total = torch.zeros(ROWS, dtype=torch.float64)
        for one_hot, draws in zip(torch.eye(3, dtype=torch.float64), noise, strict=True):
            y = one_hot.expand(ROWS, 3)
            rest = pair.guide.rest(x, y)
            z = rest.mean + rest.stddev * draws
            log_joint = p.log_prob({"y": y, "z": z}) + pair.model.decode({"y": y, "z": z}).log_prob(x)
            total += q.log_prob(y).exp() * (log_joint - rest.log_prob(z) - q.log_prob(y))
    torch.testing.assert_close(found.elbo, total.mean(), rtol=0, atol=1e-10)
    torch.testing.assert_close(-found.loss, found.elbo)


def test_rows_of_single_precision_are_scored_under_weights_of_double() -> None:
    pair = built().double()
    found = []
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(1)
        found.append(pv.ELBO().build(pair)(rows("binary").to(dtype)).elbo)
    assert torch.equal(*found)


W = torch.tensor([[1.0], [-0.6]], dtype=torch.float64)
CENTRES = torch.tensor([[-1.0, 0.5], [1.5, 1.0]], dtype=torch.float64)


def linear_pair() -> tuple[pv.Pair, MultivariateNormal]:
    """x ~ Normal(W z + m_y, s^2 I), and its exact q; p(x | y) is a component of a mixture with one covariance."""
    model = pv.SemiSupervisedVAE(latent_dim=1, decoder=pv.Linear(), likelihood=pv.Gaussian(scale="fixed", value=0.5))
    guide = pv.AmortizedClassifier(encoder=pv.Linear(), classifier=pv.Linear(), weight=0.0)
    pair = built(model, guide, pv.DataSpec(event_shape=(2,), kind="real", size=30, classes=("a", "b"))).double()
    noise = pair.model.likelihood.scale.item()
    components = MultivariateNormal(CENTRES, W @ W.T + noise**2 * torch.eye(2, dtype=torch.float64))
    variance = 1 / (1 + (W.T @ W).item() / noise**2)
    gain = variance * W.T / noise**2
    precise = torch.linalg.solve(components.covariance_matrix[0], CENTRES.T).T
    put(pair.model.decoder, torch.cat([W, CENTRES.T], 1), torch.zeros(2))
    spread = torch.tensor([[0.0], [math.log(math.expm1(math.sqrt(variance) - 1e-6))]], dtype=torch.float64)
    put(pair.guide.encoder, torch.cat([torch.cat([gain, -gain @ CENTRES.T], 1), torch.zeros(1, 4)]), spread[:, 0])
    put(pair.guide.classifier, precise, -(precise * CENTRES).sum(-1) / 2)
    return pair, components


def put(network: nn.Module, weight: Tensor, bias: Tensor) -> None:
    (linear,) = [module for module in network.modules() if isinstance(module, nn.Linear)]
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)


def test_two_linear_classes_are_a_tied_mixture() -> None:
    pair, components = linear_pair()
    x = 1.5 * torch.randn(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    by_class = components.log_prob(x[:, None]) - math.log(2)
    labels = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1, 1])
    with torch.no_grad():
        torch.testing.assert_close(pair.guide.classes(x).probs, by_class.softmax(-1), rtol=0, atol=1e-10)
        for batch, exact in (((x,), by_class.logsumexp(-1)), ((x, labels), by_class.gather(1, labels[:, None])[:, 0])):
            weights = log_weights(pair, batch, samples=4)
            torch.testing.assert_close(weights, exact.expand(4, -1), rtol=0, atol=1e-8)
            loss = pv.ELBO(kl="sampled").build(pair)(*batch).loss
            torch.testing.assert_close(-loss, exact.mean(), rtol=0, atol=1e-8)


# --- the classifier's weight ----------------------------------------------------------------------------------------------


def test_the_weight_of_the_classifier_is_in_the_objective_alone() -> None:
    fits = [pv.fit(MODEL, data(8), guide=dataclasses.replace(GUIDE, weight=weight), method=FROZEN) for weight in (0.0, 0.3)]
    split = data(8).train
    with torch.no_grad():
        known = fits[1].pair.guide.classes(split[split.has_label].transformed()).log_prob(torch.eye(3)[split.y[:8]])
    rows_of = [fit.history[0] for fit in fits]
    assert rows_of[0]["objective"] == pytest.approx(rows_of[0]["elbo"], abs=1e-5)
    assert rows_of[1]["elbo"] == pytest.approx(rows_of[0]["elbo"], abs=1e-5)
    assert rows_of[1]["objective"] - rows_of[1]["elbo"] == pytest.approx(0.3 * known.mean().item(), abs=1e-4)
    assert fits[0].evaluate(split, samples=3) == fits[1].evaluate(split, samples=3)
    assert fits[1].pair.score == "elbo"


@pytest.mark.parametrize("labels", [None, torch.arange(ROWS) % 3], ids=["without", "with"])
def test_every_parameter_gets_a_gradient(labels: Tensor | None) -> None:
    pair = built()
    batch = (rows("binary"),) if labels is None else (rows("binary"), labels)
    pv.ELBO(particles=3).build(pair)(*batch).loss.backward()
    assert [name for name, parameter in pair.named_parameters() if parameter.grad is None or not parameter.grad.any()] == []


def test_the_recorded_step_is_the_eager_step() -> None:
    found = []
    for options in ({"compile": False}, {"ahead": WORTH_RECORDING}):
        module = pv.ELBO().build(built().train())
        step = Step(module, pv.Transform(EVENT), OPTIMIZERS["adam"](module.parameters(), 1e-2), **options)
        torch.manual_seed(0)
        for _ in range(3):
            step(rows("binary"))
        found.append(module.state_dict())
        assert (step.way == "recorded") == ("ahead" in options)
    for name, value in found[1].items():
        torch.testing.assert_close(value, found[0][name], rtol=1e-5, atol=1e-6)


# --- what a fit is asked --------------------------------------------------------------------------------------------------


def test_rows_with_and_without_a_label_are_scored_as_such_in_their_order() -> None:
    pair, components = linear_pair()
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    y = np.array([0.0, 1, 1, np.nan, 1, 0, np.nan, np.nan, 0, 1] * 2)
    with pytest.warns(pv.FitWarning, match="6 rows have no label"):
        partly = pv.load_data(x.numpy(), y=y, valid=0.0, test=0.0, scale="none")
    model = pv.SemiSupervisedVAE(latent_dim=1, decoder=pv.Linear(), likelihood=pv.Gaussian(scale="fixed", value=0.5))
    guide = pv.AmortizedClassifier(encoder=pv.Linear(), classifier=pv.Linear(), weight=0.0)
    fit = pv.fit(model, partly, guide=guide, method=FROZEN)
    fit.pair.load_state_dict(pair.state_dict())
    by_class = components.log_prob(x.double()[:, None]) - math.log(2)
    exact = torch.where(
        torch.tensor(y).isnan(), by_class.logsumexp(-1), by_class.gather(1, torch.tensor(y == 1).long()[:, None])[:, 0]
    )
    torch.testing.assert_close(fit.score_samples(partly.train, samples=3).log_prob, exact, rtol=0, atol=1e-4)
    torch.testing.assert_close(fit.score_samples(x, samples=3).log_prob, by_class.logsumexp(-1), rtol=0, atol=1e-4)
    assert fit.evaluate(partly.train, samples=3)["iwae"] == pytest.approx(exact.mean().item(), abs=1e-4)


def test_what_is_asked_of_rows_of_which_some_have_a_label() -> None:
    fit = pv.fit(MODEL, data(8), guide=GUIDE, method=FROZEN)
    split = data(8).train
    mixed = split[torch.tensor([20, 1, 9, 3, 2, 15])]
    codes = fit.encode(mixed)
    assert codes["y"].shape == (6, 3)
    assert torch.equal(codes["y"][[1, 3, 4]], torch.eye(3)[mixed.y[[1, 3, 4]]])
    assert fit.reconstruct(mixed).shape == (6, *EVENT)
    probabilities = fit.predict_proba(split)
    with torch.no_grad():
        torch.testing.assert_close(probabilities, fit.pair.guide.classes(split.transformed()).probs)
    assert torch.equal(fit.predict(split), probabilities.argmax(1))
    assert fit.predict(split.x.numpy()).tolist() == probabilities.argmax(1).tolist()
    right = (probabilities.argmax(1)[:8] == split.y[:8]).double().mean().item()
    assert fit.accuracy(split[:8])["accuracy"] == pytest.approx(right)
    assert fit.accuracy(split.x, y=torch.zeros(ROWS, dtype=torch.int64))["n"] == ROWS
    assert fit.decode({"y": torch.eye(3)}).shape == (3, *EVENT)
    assert fit.sample(4).shape == (4, *EVENT)
    assert list(fit.latents(split, rows=ROWS)["sites"]) == ["y", "z"]
    with pytest.raises(ValueError, match="all have a label or have none, got both"):
        fit.posterior(mixed)
    with pytest.raises(ValueError, match="expected a label for each of 24 rows, got 16 rows without"):
        fit.accuracy(split)


def test_labels_teach_the_classifier() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(2, (120,), generator=generator)
    x = torch.where(y[:, None] == 1, 2.0, -2.0) + torch.randn(120, 4, generator=generator)
    names = np.where(np.arange(120) < 6, np.where(y.numpy() == 1, "high", "low"), "")
    with pytest.warns(pv.FitWarning, match="114 rows have no label"):
        few = pv.load_data(x.numpy(), y=names, valid=0.0, test=0.0)
    model = pv.SemiSupervisedVAE(classes=2, latent_dim=1, decoder=TINY, likelihood=pv.Gaussian())
    guide = pv.AmortizedClassifier(encoder=TINY, classifier=TINY, weight=1.0)
    fit = pv.fit(model, few, guide=guide, method=pv.SVI(epochs=20, batch_size=30, learning_rate=0.03, compile=False))
    true = ["high" if place else "low" for place in y]
    assert fit.accuracy(x, y=true)["accuracy"] > 0.95
    assert set(fit.predict(x.numpy())) == {"high", "low"}


def test_bad_input_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"needs labels of some rows, but these data have none: .* use VAE"):
        pv.fit(MODEL, rows("binary").numpy(), method=FROZEN)
    with pytest.raises(ValueError, match="expected data of 4 classes, got 3: a, b, c"):
        pv.SemiSupervisedVAE(classes=4).check(SPEC)
    with pytest.raises(ValueError, match="at least 2 classes"):
        pv.SemiSupervisedVAE(classes=1)
    with pytest.raises(ValueError, match="a weight of at least 0"):
        pv.AmortizedClassifier(weight=-1.0)
    with pytest.raises(ValueError, match=r"AmortizedClassifier is a guide of a class .* use AmortizedNormal"):
        built(pv.VAE())
    with pytest.raises(ValueError, match="this model has y, z"):
        built(guide=pv.AmortizedNormal())
    with pytest.raises(ValueError, match="use objective=ELBO"):
        pv.fit(MODEL, data(8), guide=GUIDE, method=pv.SVI(objective=pv.IWAE(), epochs=1, compile=False))


def test_a_row_without_a_label_may_be_told_as_such_and_is_not_told_of_again() -> None:
    fit = pv.fit(MODEL, data(8), guide=GUIDE, method=FROZEN)
    x = data(8).train.x[:4]
    found = fit.score_samples(x, y=[-1, -1, -1, -1], samples=3).log_prob
    assert torch.equal(found, fit.score_samples(x, samples=3).log_prob)
    mixed = fit.score_samples(x, y=np.array([0, 1, -1, 2]), samples=3).log_prob
    assert (mixed != found).tolist()[:2] == [True, True]
    with pytest.raises(ValueError, match="got -2"):
        fit.score_samples(x, y=[0, 1, -2, 2])


def test_rows_of_a_file_without_a_label_are_used_without_a_remark(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=rows("binary").numpy(), y=np.where(np.arange(ROWS) < 8, np.arange(ROWS) % 3, -1))
    with pytest.warns(pv.FitWarning, match="rows have no label"):
        loaded = pv.load_data(tmp_path / "d.npz", label="y", key="x", valid=0.0, test=0.0)
    fit = pv.fit(MODEL, loaded, guide=GUIDE, method=FROZEN)
    assert int((fit.rows(fit.data, "train").y < 0).sum()) == ROWS - 8
