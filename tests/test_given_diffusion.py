"""Diffusions given classes, their guidance, and continuous time: exact cases, and what training counts beside the ELBO."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import ppl_vae as pv
from ppl_vae import cli
from ppl_vae.evaluate import elbo_terms
from ppl_vae.inference.training.optimizers import OPTIMIZERS
from ppl_vae.inference.training.step import WORTH_RECORDING, Step
from tests.table import TINY

CLASSES = ("cat", "dog", "emu")
LABELS: dict[str, Any] = {"condition": pv.Labels(), "likelihood": pv.Gaussian(scale="fixed", value=0.01), "predicts": "data"}


def built(size: int = 12, **fields: Any) -> pv.Pair:
    torch.manual_seed(0)
    spec = pv.DataSpec(event_shape=(2,), kind="real", size=size, classes=CLASSES)
    return pv.build(pv.Diffusion(**{"steps": 3, "denoiser": TINY, **LABELS, **fields}), pv.Noising(), spec).double()


def batch(rows: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, 2, generator=generator, dtype=torch.float64), torch.arange(rows) % 3


class OfNormal(nn.Module):
    """The mean of x ~ Normal(m_y, v) given z_t; without a class of x ~ Normal(0, v)."""

    def __init__(self, program: Any, variance: float, means: Tensor | None = None) -> None:
        super().__init__()
        self.program, self.variance, self.means = (program,), variance, means

    def forward(self, z: Tensor, t: Tensor, *known: Tensor) -> Tensor:
        gamma = self.program[0].noise(t)[..., None]
        a, s2 = torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma)
        mean = known[0] @ self.means if known and self.means is not None else z.new_zeros(())
        return (mean + a * self.variance / (a * a * self.variance + s2) * (z - a * mean)).unsqueeze(-2)


# --- continuous time ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [pv.LinearNoise(), pv.CosineNoise(), pv.LearnedNoise()])
def test_the_rate_of_a_schedule_is_its_derivative(noise: pv.NoiseSchedule) -> None:
    module = noise.build(-7.0).double()
    t = torch.linspace(0.01, 0.99, 9, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(module(t).sum(), t)
    torch.testing.assert_close(module.rate(t).detach(), slope)


def test_bounds_of_ever_more_steps_go_to_that_of_continuous_time_which_is_known() -> None:
    """Of x ~ Normal(0, v) and the exact denoiser: E||x - x'||^2 = v / (1 + v SNR), so the integral is a logarithm."""
    variance, low, high = 0.36, 2 * math.log(0.01), 14.0
    torch.manual_seed(0)
    x = variance**0.5 * torch.randn(400, 2, dtype=torch.float64)
    found = {}
    for steps in (10, 50, 200, None):
        pair = built(steps=steps, condition=None, noise=pv.LinearNoise(low=low, high=high))
        pair.model.denoiser = OfNormal(pair.model, variance)
        found[steps] = elbo_terms(pair, (x,)).elbo
        with torch.no_grad():
            kl = pair.guide.summed_bound(x)[1][1]
        gamma = torch.linspace(low, high, (steps or 10**5) + 1, dtype=torch.float64)
        error = variance / (1 + variance * torch.exp(-gamma[1:]))
        exact = (torch.exp(-gamma).diff().neg() * error).sum().item()  # of two elements, half of each
        assert abs(kl.mean().item() - exact) < 4 * kl.std().item() / 20
    limit = found[None]
    gaps = [(limit - found[steps]).mean().item() for steps in (10, 50, 200)]
    assert gaps[0] > 4 * gaps[1] > 8 * gaps[2] > 0
    of_x = dist.Normal(0.0, variance**0.5).log_prob(x).sum(-1)
    assert (limit - of_x).mean().abs() < 4 * (limit - of_x).std() / 20


def test_in_continuous_time_what_training_climbs_is_what_evaluation_draws() -> None:
    pair, (x, _) = built(6_000, steps=None, condition=None, noise=pv.LearnedNoise()), batch()
    x = x.repeat(500, 1)
    with torch.no_grad():
        loss, *_ = pv.ELBO().build(pair)(x)
        summed = elbo_terms(pair, (x[:600],)).elbo
    assert abs(-float(loss) - summed.mean().item()) < 0.1 * abs(summed.mean().item())
    with torch.no_grad():
        assert pair.model.drawn_in(3, 7).shape == (3, 2)


# --- classes --------------------------------------------------------------------------------------------------------------


def test_with_the_exact_denoiser_of_each_class_the_bound_is_log_p_given_it_and_draws_are_its_own() -> None:
    variance = 0.36
    means = torch.tensor([[0.0, 3.0], [-3.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    pair = built(steps=None, noise=pv.LinearNoise(low=2 * math.log(0.01), high=14.0), label_dropout=0.5)
    pair.model.denoiser = OfNormal(pair.model, variance, means)
    torch.manual_seed(0)
    y = torch.arange(90) % 3
    x = means[y] + variance**0.5 * torch.randn(90, 2, dtype=torch.float64)
    with torch.no_grad():
        gap = elbo_terms(pair, (x, y)).elbo - dist.Normal(means[y], variance**0.5).log_prob(x).sum(-1)
        assert gap.mean().abs() < 4 * gap.std() / len(x) ** 0.5 + 1e-3
        known = pair.model.known(torch.tensor([1, -1]))
        assert torch.equal(known[0], torch.tensor([[0.0, 1, 0], [0, 0, 0]]).double())
        drawn = {w: pair.model.drawn_in(400, 20, known[0][:1], guidance=w).mean(0) for w in (0.0, 1.0)}
        free = pair.model.drawn_in(400, 20, known[0][1:]).mean(0)
    torch.testing.assert_close(drawn[0.0], means[1], rtol=0, atol=0.15)
    torch.testing.assert_close(free, torch.zeros(2).double(), rtol=0, atol=0.15)
    assert drawn[1.0][0] < means[1, 0] - 0.5  # further from the mean of all


def test_labels_are_dropped_beside_the_elbo_and_by_their_share() -> None:
    """The loss is that of the model given classes and p / (1 - p) times that of none, and the ELBO the former alone."""
    p, (x, y) = 0.25, (part.repeat_interleave(100, 0) for part in batch())
    pair = built(len(x), label_dropout=p).train()
    with torch.no_grad():
        for parameter in pair.model.denoiser.parameters():
            parameter.mul_(3)
    module, seen = pv.ELBO().build(pair), []
    for _ in range(30):
        estimate = module(x, y)
        seen.append((estimate.elbo.item(), estimate.loss.item() + estimate.elbo.item()))
    elbo, beside = torch.tensor(seen, dtype=torch.float64).unbind(1)
    pair.eval()
    with torch.no_grad():
        expected = pair.guide.summed_bound(x, samples=20)[1][1].mean() * p / (1 - p)
        given = pair.guide.summed_bound(x, y, samples=20)[0].elbo.mean()
    for found, exact in ((elbo, given), (beside, expected)):
        assert abs(found.mean() - exact) < 5 * found.std() / len(seen) ** 0.5 + 0.01 * abs(exact)


def test_the_recorded_step_of_labels_that_are_dropped_is_the_eager_step() -> None:
    def after(**options: Any) -> dict[str, Tensor]:
        pair, (x, y) = built(label_dropout=0.25, steps=None).float().train(), batch()
        step = Step(pv.ELBO().build(pair), pv.Transform((2,)), OPTIMIZERS["adam"](pair.parameters(), 1e-2), **options)
        torch.manual_seed(0)
        for _ in range(3):
            step(x.float(), y)
        return {**pair.state_dict(), "recorded": torch.tensor(step.way == "recorded")}

    eager, recorded = after(compile=False), after(ahead=WORTH_RECORDING)
    assert recorded.pop("recorded")
    for name, value in recorded.items():
        torch.testing.assert_close(value, eager[name], rtol=1e-5, atol=1e-6)


def test_a_fit_takes_rows_without_labels_and_draws_of_classes_by_any_door(tmp_path: Path) -> None:
    x, y = batch(20)
    names: Any = np.array([*CLASSES, ""])[torch.where(torch.arange(20) < 5, 3, y).numpy()]
    with pytest.warns(pv.FitWarning, match="5 rows have no label"):
        data = pv.load_data(x.numpy(), y=names, kind="real", valid=0.2, test=0.2, scale="none")
    model = pv.Diffusion(steps=4, denoiser=TINY, **{**LABELS, "likelihood": pv.Gaussian()})
    fit = pv.fit(model, data, method=pv.SVI(epochs=2), out=tmp_path / "run")
    numbers = fit.evaluate(data.test)
    assert math.isfinite(numbers["elbo"])
    own = fit.sample(6, y="dog", seed=3)
    assert torch.equal(own, fit.sample(6, y="dog", seed=3, guidance=0.0))
    assert not torch.equal(own, fit.sample(6, y="dog", seed=3, guidance=2.0))
    assert fit.sample(6, y=-1, steps=2).shape == fit.sample(6).shape == (6, 2)
    assert fit.by_class(2).shape == (2, 3, 2)
    assert fit.predict_proba(x[:4]).sum(1).tolist() == pytest.approx([1.0] * 4)
    assert pv.load_run(tmp_path / "run").evaluate(data.test) == numbers
    words = ["--n", "6", "--y", "dog", "--seed", "3", "--guidance", "2", "--out", str(tmp_path / "drawn.npy")]
    assert cli.main(["sample", str(tmp_path / "run"), *words]) == 0
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "drawn.npy")), fit.sample(6, y="dog", seed=3, guidance=2.0))


def test_a_model_that_always_had_labels_says_so() -> None:
    pair, (x, y) = built(), batch()
    for ask in (
        lambda: pair.guide.summed_bound(x),
        lambda: pair.model.known(torch.tensor([-1])),
        lambda: pair.model.drawn_in(2, None, *pair.model.known(y[:1]), guidance=1.0),
    ):
        with pytest.raises(
            ValueError, match=r"learned from data without labels, too, .*: declare Diffusion\(label_dropout=0.1\)"
        ):
            ask()
    with pytest.raises(ValueError, match="expected one class or 5, got 12"):
        pair.model.drawn_in(5, None, *pair.model.known(y))
    with pytest.raises(ValueError, match=r"expected a Diffusion\(condition=Labels\(\)\) for guidance"):
        built(condition=None).model.drawn_in(5, None, guidance=1.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"condition": pv.Quadrants()}, r"expected a condition=Labels\(\) of a Diffusion"),
        ({"label_dropout": 1.0}, r"a label_dropout in \[0, 1\)"),
        ({"label_dropout": 0.1, "condition": None}, r"a condition=Labels\(\) for a label_dropout"),
        ({"steps": None, "variance": "learned"}, "variance='lower' of continuous time"),
    ],
)
def test_what_cannot_be_declared_is_told_in_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        pv.Diffusion(**{**LABELS, **fields})
    assert "\n" not in str(error.value)
