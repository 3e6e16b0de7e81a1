"""Two levels and a class in one bound: M1 + M2."""

from __future__ import annotations

import dataclasses
import math

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

MODEL = pv.StackedSemiSupervisedVAE(latent_dim=3, rest_dim=2, network=TINY, decoder=TINY)
GUIDE = pv.StackedClassifier(encoder=TINY, classifier=TINY, rest=TINY)
SPEC = pv.DataSpec(event_shape=EVENT, kind="binary", size=10 * ROWS, classes=("a", "b", "c"))
M1, M2 = ("model.decoder", "model.likelihood", "guide.encoder"), ("model.network", "guide.classifier", "guide.rest")


def built(model: pv.Model = MODEL, guide: pv.Guide = GUIDE, spec: pv.DataSpec = SPEC, *, awake: bool = True) -> pv.Pair:
    torch.manual_seed(0)
    pair = pv.build(model, guide, spec)
    for name, buffer in pair.named_buffers():
        if name.endswith(".awake"):
            buffer.fill_(float(awake))
    return pair


def data(known: int) -> pv.Data:
    """Binary rows of classes 0, 1, 2, of which the first so many have a label."""
    y = np.where(np.arange(ROWS) < known, np.arange(ROWS) % 3, -1)
    with pytest.warns(pv.FitWarning, match="rows have no label"):
        return pv.load_data(rows("binary").numpy(), y=y, valid=0.0, test=0.0)


# --- exact cases ----------------------------------------------------------------------------------------------------------


def plain_vae(pair: pv.Pair) -> pv.Pair:
    """The VAE of the code alone, with the networks of the stack."""
    vae = built(pv.VAE(latent_dim=3, decoder=TINY), pv.AmortizedNormal(encoder=TINY))
    vae.model.decoder.load_state_dict(pair.model.decoder.state_dict())
    vae.guide.encoder.load_state_dict(pair.guide.encoder.state_dict())
    return vae


def test_before_its_upper_level_is_trained_it_is_a_vae() -> None:
    pair, x, y = built(awake=False), rows("binary"), torch.arange(ROWS) % 3
    p = pair.model.prior_of_code(torch.randn(5, 2), torch.eye(3)[[0, 1, 2, 0, 1]])
    assert torch.equal(p.mean, torch.zeros(5, 3))
    assert torch.equal(p.stddev, torch.ones(5, 3))
    found = []
    for one, batch in ((pair, (x,)), (pair, (x, y)), (plain_vae(pair), (x,))):
        torch.manual_seed(1)
        found.append(pv.ELBO(kl="sampled").build(one)(*batch).elbo)
    torch.testing.assert_close(found[0], found[2])
    torch.testing.assert_close(found[1], found[2] - math.log(3))


def test_the_bound_without_a_label_is_the_sum_over_one_hot_runs() -> None:
    pair, x = built().double(), rows("binary", dtype=torch.float64)
    with torch.no_grad():
        torch.manual_seed(1)
        found = pv.ELBO().build(pair)(x)
        torch.manual_seed(1)
        code = pair.guide.code(x)
        z1 = code.mean + code.stddev * torch.normal(torch.zeros(ROWS, 3, dtype=torch.float64), 1.0)
        noise = torch.normal(torch.zeros(3, ROWS, 2, dtype=torch.float64), 1.0)
        q, p = pair.guide.class_given(z1), pair.model.prior()
        total = pair.model.decode({"z1": z1}).log_prob(x) - code.log_prob(z1)
        for one_hot, draws in zip(torch.eye(3, dtype=torch.float64), noise, strict=True):
            y = one_hot.expand(ROWS, 3)
            rest = pair.guide.rest_given(z1, y)
            z2 = rest.mean + rest.stddev * draws
            log_prior = p.log_prob({"y": y, "z2": z2, "z1": z1})
            total += q.log_prob(y).exp() * (log_prior - rest.log_prob(z2) - q.log_prob(y))
    torch.testing.assert_close(found.elbo, total.mean(), rtol=0, atol=1e-10)
    torch.testing.assert_close(-found.loss, found.elbo)


def put(network: nn.Module, weight: Tensor, bias: Tensor) -> None:
    (linear,) = [module for module in network.modules() if isinstance(module, nn.Linear)]
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)


def raw(scale: float, unit: float) -> float:
    """What softplus makes a scale of, in these units."""
    return math.log(math.expm1(scale * unit))


def test_two_linear_classes_are_a_tied_mixture() -> None:
    linear, s, a, centres = pv.Linear(), 0.5, 0.8, torch.tensor([-1.0, 1.5], dtype=torch.float64)
    gaussian = pv.Gaussian(scale="fixed", value=s)
    model = pv.StackedSemiSupervisedVAE(latent_dim=1, rest_dim=1, network=linear, decoder=linear, likelihood=gaussian)
    guide = pv.StackedClassifier(encoder=linear, classifier=linear, rest=linear, weight=0.0)
    pair = built(model, guide, pv.DataSpec(event_shape=(2,), kind="real", size=30, classes=("a", "b"))).double()
    w, b, v = torch.tensor([[1.0], [-0.6]]).double(), torch.tensor([0.3, -0.2]).double(), 1 + a**2
    put(pair.model.network, torch.tensor([[a, *centres.tolist()], [0.0, 0.0, 0.0]]), torch.zeros(2))
    put(pair.model.decoder, w, b)
    # q(y | z1) and q(z2 | z1, y) are exact, and q(z1 | x) is of a normal as wide as both classes.
    put(pair.guide.classifier, centres[:, None] / v, -centres.square() / (2 * v))
    back = [[a / v, *(-a / v * centres).tolist()], [0.0, 0.0, 0.0]]
    put(pair.guide.rest, torch.tensor(back), torch.tensor([0.0, raw(v**-0.5, math.log(2))]))
    precision = 1 / (v + 2) + (w.T @ w).item() / s**2
    gain = w.T / s**2 / precision
    put(
        pair.guide.encoder,
        torch.cat([gain, torch.zeros(1, 2)]),
        torch.stack([-(gain @ b)[0], b.new_tensor(raw(precision**-0.5, 1.0))]),
    )
    x = 1.5 * torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    components = MultivariateNormal(b + centres[:, None] * w.T, v * w @ w.T + s**2 * torch.eye(2).double())
    exact = (components.log_prob(x[:, None]) - math.log(2)).logsumexp(-1)
    with torch.no_grad():
        torch.manual_seed(0)
        weights = log_weights(pair, (x,), samples=4000)
    torch.testing.assert_close(weights.logsumexp(0) - math.log(4000), exact, rtol=0, atol=0.03)


# --- a fit ----------------------------------------------------------------------------------------------------------------


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


def tensors(fit: pv.Fit, parts: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: value for name, value in fit.pair.state_dict().items() if name.startswith(parts)}


def test_the_lower_level_first_and_then_the_upper_one() -> None:
    first = pv.SVI(epochs=2, batch_size=12, only=M1, compile=False)
    second = dataclasses.replace(first, epochs=3, only=M2)
    below = pv.fit(MODEL, data(8), guide=GUIDE, method=first)
    assert not any(value.any() for name, value in below.pair.state_dict().items() if name.endswith(".awake"))
    assert below.predict_proba(data(8).train.x).tolist() == pytest.approx(np.full((ROWS, 3), 1 / 3))
    both = pv.fit(MODEL, data(8), guide=GUIDE, method=pv.Stages(methods=(first, second)))
    warm = pv.fit(MODEL, data(8), guide=GUIDE, method=second, warm_start=below)
    for fit in (both, warm):
        assert all(torch.equal(value, tensors(below, M1)[name]) for name, value in tensors(fit, M1).items())
        assert not any(torch.equal(value, tensors(below, M2)[name]) for name, value in tensors(fit, M2).items())
    assert both.sample(4).shape == (4, *EVENT)
    assert both.predict(data(8).train).shape == (ROWS,)
    assert list(both.latents(data(8).train, rows=ROWS)["sites"]) == ["z1", "y", "z2"]


def test_labels_teach_the_classifier_of_the_code() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(2, (120,), generator=generator)
    x = torch.where(y[:, None] == 1, 2.0, -2.0) + torch.randn(120, 4, generator=generator)
    with pytest.warns(pv.FitWarning, match="114 rows have no label"):
        few = pv.load_data(x.numpy(), y=np.where(np.arange(120) < 6, y, -1), valid=0.0, test=0.0)
    model = pv.StackedSemiSupervisedVAE(latent_dim=2, rest_dim=1, network=TINY, decoder=TINY, likelihood=pv.Gaussian())
    below = pv.SVI(epochs=30, batch_size=30, learning_rate=0.03, compile=False, only=M1)
    method = pv.Stages(methods=(below, dataclasses.replace(below, only=M2)))
    fit = pv.fit(model, few, guide=dataclasses.replace(GUIDE, weight=1.0), method=method)
    assert fit.accuracy(x, y=y)["accuracy"] > 0.95


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match=r"StackedClassifier is a guide of two levels .* use AmortizedNormal"):
        built(pv.VAE())
    with pytest.raises(ValueError, match=r"AmortizedClassifier is a guide of a class .* use StackedClassifier"):
        built(guide=pv.AmortizedClassifier())
    with pytest.raises(ValueError, match="needs labels of some rows"):
        pv.fit(MODEL, rows("binary").numpy(), method=pv.SVI(epochs=1))
    with pytest.raises(ValueError, match="a rest_dim of at least 1"):
        pv.StackedSemiSupervisedVAE(rest_dim=0)


def test_many_codes_of_rows_with_a_label_have_it_each() -> None:
    x, y = rows("binary"), torch.arange(ROWS) % 3
    drawn = built().guide.posterior(x, y).sample((4,))
    assert drawn["z1"].shape == (4, ROWS, 3)
    assert torch.equal(drawn["y"], torch.eye(3)[y].expand(4, ROWS, 3))
