"""Objectives against closed forms, enumeration, and each other."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import ppl_vae as pv
import ppl_vae.inference.training.step
from ppl_vae.cli import main
from ppl_vae.inference.objectives.info import KERNELS, squared_mmd
from ppl_vae.inference.training.optimizers import OPTIMIZERS
from ppl_vae.inference.training.step import Step
from ppl_vae.program.context import local_params
from ppl_vae.types import FitWarning
from tests.table import EVENT, GUIDES, OBJECTIVES, SEED, built, guide_for, kind_for, rows, vae

SIZE = 500

# --- plain programs with scalar parameters ---------------------------------------------------------------------------------


class Normal(nn.Module):
    """Z ~ N(0, 1), x ~ N(weight z, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> None:
        with pv.data_plate(SIZE, x):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0))
            pyro.sample("x", dist.Normal(self.weight * z, 1.0), obs=x)


class NormalGuide(nn.Module):
    """At the start the posterior for a weight of 1."""

    def __init__(self, slope: float = 0.5, scale: float = 0.5**0.5) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x: Tensor) -> None:
        with pv.data_plate(SIZE, x):
            pyro.sample("z", dist.Normal(self.slope * x, self.scale))


class Chain(nn.Module):
    """Y ~ N(0, 1), z ~ N(weight y, 1), x ~ N(z, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> None:
        with pv.data_plate(SIZE, x):
            y = pyro.sample("y", dist.Normal(torch.zeros_like(x), 1.0))
            z = pyro.sample("z", dist.Normal(self.weight * y, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)


class ChainGuide(nn.Module):
    """The later draw hangs on the earlier one."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.3))
        self.scale = nn.Parameter(torch.tensor(0.9))
        self.link = nn.Parameter(torch.tensor(0.4))

    def forward(self, x: Tensor) -> None:
        with pv.data_plate(SIZE, x):
            y = pyro.sample("y", dist.Normal(self.slope * x, self.scale))
            pyro.sample("z", dist.Normal(0.2 * x + self.link * y, self.scale))


class Coin(nn.Module):
    """Z ~ Bernoulli(0.3), x ~ N(weight z, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> None:
        with pv.data_plate(SIZE, x):
            z = pyro.sample("z", dist.Bernoulli(torch.full_like(x, 0.3)))
            pyro.sample("x", dist.Normal(self.weight * z, 1.0), obs=x)


class CoinGuide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(0.4))

    def forward(self, x: Tensor) -> None:
        with pv.data_plate(SIZE, x):
            pyro.sample("z", dist.Bernoulli(logits=self.logit * x))


def plain(model: type[nn.Module], guide: type[nn.Module], *, mean_field: bool = False) -> Callable[[], pv.Pair]:
    return lambda: pv.Pair(model().double(), guide().double(), mean_field=mean_field)


X = torch.tensor([0.3, -1.2, 2.0, 0.8], dtype=torch.float64)

PAIRS: dict[str, tuple[Callable[[], pv.Pair], Tensor]] = {
    "vae": (lambda: built(vae(prior=pv.GaussianMixture(components=3))), rows("binary")),
    "vae-mean-field": (lambda: built(vae()), rows("binary")),
    "chain": (plain(Chain, ChainGuide), X),
    "chain-mean-field": (plain(Chain, ChainGuide, mean_field=True), X),
    "coin": (plain(Coin, CoinGuide), X),
    "enumerated": (lambda: built(pv.GMM(components=3), GUIDES["AmortizedCategorical"]), rows("real")),
    "bayesian": (
        lambda: built(pv.FactorAnalysis(latent_dim=2, weights=pv.Normal()), pv.BayesianGuide()),
        rows("real"),
    ),
}


def estimate(pair: pv.Pair, objective: pv.Objective, x: Tensor, *, seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    """What an objective finds of a batch, and the gradients of all parameters."""
    pair.plates(x)
    module = objective.build(pair)
    with local_params():
        torch.manual_seed(seed)
        found = module(x)
        parameters = [parameter for parameter in pair.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(found.loss, parameters, allow_unused=True, materialize_grads=True)
    return [value.detach() for value in found], list(gradients)


def mean_gradients(build: Callable[[], pv.Pair], objective: pv.Objective, *, calls: int = 40) -> tuple[Tensor, Tensor]:
    """Means of the gradients over many draws, and their standard errors; the module goes on from call to call."""
    pair = build()
    x = X.repeat(1000)
    pair.plates(x)
    module = objective.build(pair).train()
    torch.manual_seed(SEED)
    with local_params():
        found = [torch.autograd.grad(module(x).loss, list(pair.parameters())) for _ in range(calls)]
    values = torch.tensor([[float(gradient) for gradient in gradients] for gradients in found])
    return values.mean(0), values.std(0) / calls**0.5


def assert_same_mean(build: Callable[[], pv.Pair], first: pv.Objective, second: pv.Objective) -> None:
    (a, a_error), (b, b_error) = mean_gradients(build, first), mean_gradients(build, second)
    assert ((a - b).abs() < 4.5 * (a_error**2 + b_error**2).sqrt() + 1e-6).all()
    assert (a.abs() > 4.5 * a_error).any()  # there is something to agree on


# --- the weight of the KL --------------------------------------------------------------------------------------------------


BETA, INFO = pv.BetaELBO(), pv.InfoVAE(kl_weight=1.0, mmd_weight=0.0)
TWINS = {
    **{f"beta-{name}": (BETA, name) for name in PAIRS},
    **{f"info-{name}": (INFO, name) for name in ("vae", "vae-mean-field")},
}


@pytest.mark.parametrize(("twin", "name"), TWINS.values(), ids=TWINS.keys())
@pytest.mark.parametrize("options", [{}, {"kl": "sampled"}, {"particles": 3}], ids=str)
def test_with_a_weight_of_one_it_is_the_elbo_to_the_last_bit(twin: pv.Objective, name: str, options: dict) -> None:
    build, x = PAIRS[name]
    plain, weighed = (estimate(build(), each, x) for each in (pv.ELBO(**options), dataclasses.replace(twin, **options)))
    assert torch.equal(plain[0][0], weighed[0][0])
    assert torch.equal(plain[0][2], weighed[0][2])
    torch.testing.assert_close(plain[0][1], weighed[0][1])
    for ours, theirs in zip(plain[1], weighed[1], strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", PAIRS)
def test_beta_weighs_the_kl_of_the_data_and_shows_the_elbo(name: str) -> None:
    build, x = PAIRS[name]
    (loss, elbo, reconstruction), _ = estimate(build(), pv.ELBO(), x)
    torch.testing.assert_close(-loss, elbo)
    (none, _, _), without = estimate(build(), pv.BetaELBO(beta=0.0), x)
    (loss, shown, same), gradients = estimate(build(), pv.BetaELBO(beta=3.0), x)
    torch.testing.assert_close([shown, same], [elbo, reconstruction])
    local_kl = -none - elbo  # what beta = 0 leaves out
    torch.testing.assert_close(-loss, elbo - 2 * local_kl)
    if name == "bayesian":
        assert (reconstruction - elbo) > local_kl + 0.01
    else:
        torch.testing.assert_close(-none, reconstruction)
    _, once = estimate(build(), pv.ELBO(), x)
    for zero, one, three in zip(without, once, gradients, strict=True):  # the gradient is linear in beta
        torch.testing.assert_close(three, zero + 3 * (one - zero), rtol=1e-4, atol=1e-5)


def test_the_halves_of_an_enumerated_bound_are_sums_over_its_components() -> None:
    build, x = PAIRS["enumerated"]
    pair = build()
    (_, elbo, reconstruction), _ = estimate(pair, pv.ELBO(), x)
    with torch.no_grad():
        q = pair.guide.posterior(x)
        prior = pair.model.prior().logits.log_softmax(-1)
        log_likelihood = pair.model.decode(torch.eye(3)).log_prob(x.flatten(1)[:, None])
        kl = (q.probs * (q.logits - prior)).sum(-1)
    torch.testing.assert_close(reconstruction, (q.probs * log_likelihood).sum(-1).mean())
    torch.testing.assert_close(elbo, reconstruction - kl.mean())


def test_a_capacity_is_the_distance_of_the_kl_from_its_target() -> None:
    build, x = PAIRS["vae-mean-field"]
    (_, elbo, reconstruction), _ = estimate(build(), pv.ELBO(), x)
    kl = reconstruction - elbo
    for capacity, sign in ((0.5 * kl.item(), 1.0), (2 * kl.item(), -1.0)):
        (loss, shown, _), gradients = estimate(build(), pv.BetaELBO(beta=10.0, capacity=capacity), x)
        torch.testing.assert_close(-loss, reconstruction - 10 * (kl - capacity).abs())
        torch.testing.assert_close(shown, elbo)
        _, zero = estimate(build(), pv.BetaELBO(beta=0.0), x)
        _, one = estimate(build(), pv.BetaELBO(beta=1.0), x)
        for ours, a, b in zip(gradients, zero, one, strict=True):
            torch.testing.assert_close(ours, a + sign * 10 * (b - a), rtol=1e-4, atol=1e-5)


def test_free_bits_are_free_by_site_and_in_the_mean_over_the_batch() -> None:
    build, x = PAIRS["chain-mean-field"]
    pair = build()
    with torch.no_grad():
        y = dist.Normal(pair.guide.slope * x, pair.guide.scale)
        kl_y = torch.distributions.kl_divergence(y, dist.Normal(torch.zeros_like(x), 1.0)).mean()
    (loss, elbo, reconstruction), _ = estimate(pair, pv.ELBO(), x)
    kl_z = reconstruction - elbo - kl_y
    low, high = sorted((kl_y.item(), kl_z.item()))
    assert 0 < low < high
    for bits, expected in ((low / 2, low + high), ((low + high) / 2, (low + high) / 2 + high), (2 * high, 4 * high)):
        (loss, shown, _), _ = estimate(build(), pv.BetaELBO(free_bits=bits), x)
        torch.testing.assert_close(-loss, reconstruction - expected)
        torch.testing.assert_close(shown, elbo)
    _, free = estimate(build(), pv.BetaELBO(free_bits=2 * high), x)
    _, without = estimate(build(), pv.BetaELBO(beta=0.0), x)
    torch.testing.assert_close(free, without)


@pytest.mark.parametrize(
    ("warm_up", "expected"),
    [
        (pv.NoWarmUp(), [1.0] * 10),
        (pv.LinearWarmUp(epochs=4), [0.0, 1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8, 7 / 8, 1.0, 1.0]),
        (pv.CyclicalWarmUp(epochs=2, cycles=2, rise=0.5), [0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0, 1.0, 1.0]),
    ],
    ids=["none", "linear", "cyclical"],
)
def test_the_warm_up_goes_by_steps_and_is_part_of_the_state(warm_up: pv.WarmUp, expected: list[float]) -> None:
    pair = plain(Chain, ChainGuide)()
    objective = pv.BetaELBO(beta=2.0, warm_up=warm_up)
    module = objective.build(pair, 2).train()
    weights = []
    for step in range(len(expected)):
        if step == 5:  # as a resumed run
            module, state = objective.build(pair, 2).train(), module.state_dict()
            module.load_state_dict(state)
        for mode in (False, True):  # looking does not count
            loss, elbo, reconstruction = (value.detach() for value in module.train(mode)(X))
            weights.append(float((loss + reconstruction) / (reconstruction - elbo)))
    assert weights == pytest.approx([2 * value for value in expected for _ in range(2)], abs=1e-6)


def test_a_warm_up_that_does_not_end_is_told() -> None:
    method = pv.SVI(epochs=2, objective=pv.BetaELBO(warm_up=pv.LinearWarmUp(epochs=5)))
    with pytest.warns(FitWarning, match="warm-up of 5 epochs does not end within the 2 epochs of the fit: shorten it"):
        fitted = pv.fit(vae(), "digits", method=method)
    assert fitted.history[0]["objective"] > fitted.history[0]["elbo"]


# --- importance-weighted bounds --------------------------------------------------------------------------------------------


def values(objective: pv.Objective, build: Callable[[], pv.Pair], *, calls: int = 20) -> Tensor:
    """What is climbed, drawn many times."""
    module = objective.build(build())
    torch.manual_seed(SEED)
    with torch.no_grad(), local_params():
        return torch.stack([-module(X.repeat(2000)).loss for _ in range(calls)])


def test_the_importance_weighted_bound_rises_from_the_elbo_to_log_p_of_x() -> None:
    def build() -> pv.Pair:
        return pv.Pair(Normal().double(), NormalGuide(0.2, 1.2).double(), mean_field=True)

    exact = dist.Normal(0.0, 2**0.5).log_prob(X).mean()
    q, p = dist.Normal(0.2 * X, 1.2), dist.Normal(0.5 * X, 0.5**0.5)
    elbo = exact - torch.distributions.kl_divergence(q, p).mean()
    bounds = [values(pv.IWAE(samples=samples), build) for samples in (1, 2, 5, 20)]
    assert bounds[0].mean() == pytest.approx(elbo.item(), abs=4.5 * bounds[0].std().item() / 20**0.5)
    for less, more in itertools.pairwise(bounds):
        assert more.mean() > less.mean() + 4.5 * (less.std() + more.std()) / 20**0.5
    assert exact - 0.02 < bounds[-1].mean() < exact


def test_renyi_bounds_fall_with_alpha_through_iwae_and_the_elbo() -> None:
    pair = plain(Chain, ChainGuide)()
    objectives = {alpha: pv.Renyi(alpha=alpha, samples=4) for alpha in (-2.0, 0.0, 0.5, 1 - 1e-7, 1.0, 1 + 1e-7, 3.0)}
    found = {alpha: estimate(pair, objective, X) for alpha, objective in objectives.items()}
    climbed = {alpha: -float(numbers[0]) for alpha, (numbers, _) in found.items()}
    assert all(a > b for a, b in itertools.pairwise(climbed.values()))
    iwae = estimate(pair, pv.IWAE(samples=4), X)
    assert [torch.equal(*each) for each in zip(iwae[0] + iwae[1], found[0.0][0] + found[0.0][1], strict=True)] == [True] * 7
    for near in (1 - 1e-7, 1 + 1e-7):
        torch.testing.assert_close(found[near], found[1.0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1.0][0][0], -found[1.0][0][1])


@pytest.mark.parametrize(
    "objective",
    [
        pv.ELBO(particles=2, gradient="sticking_the_landing"),
        pv.IWAE(samples=3, gradient="sticking_the_landing"),
        pv.IWAE(samples=3, gradient="doubly_reparameterized"),
        pv.Renyi(alpha=0.5, samples=3, gradient="doubly_reparameterized"),
    ],
    ids=str,
)
def test_at_the_exact_posterior_no_noise_is_left_in_the_guides_gradient(objective: pv.Objective) -> None:
    pair = plain(Normal, NormalGuide)()
    names = [name for name, _ in pair.named_parameters()]
    for seed in range(3):
        (loss, _, _), gradients = estimate(pair, objective, X, seed=seed)
        torch.testing.assert_close(-loss, dist.Normal(0.0, 2**0.5).log_prob(X).mean())
        for name, gradient in zip(names, gradients, strict=True):
            assert (gradient.abs() < 1e-6) == name.startswith("guide")
    _, noisy = estimate(pair, pv.ELBO(kl="sampled"), X)
    assert all(abs(gradient) > 1e-3 for gradient in noisy)


SAME_MEANS = {
    "ELBO-landing": (pv.ELBO(kl="sampled", particles=2), pv.ELBO(particles=2, gradient="sticking_the_landing")),
    "ELBO-score": (pv.ELBO(), pv.ELBO(gradient="score_function", baseline="moving_average")),
    "ELBO-score-alone": (pv.ELBO(), pv.ELBO(gradient="score_function", particles=2)),
    "IWAE-doubly": (pv.IWAE(samples=3), pv.IWAE(samples=3, gradient="doubly_reparameterized")),
    "Renyi-doubly": (pv.Renyi(samples=3), pv.Renyi(samples=3, gradient="doubly_reparameterized")),
    "Renyi-above-one": (pv.Renyi(alpha=2.0, samples=3), pv.Renyi(alpha=2.0, samples=3, gradient="doubly_reparameterized")),
}


@pytest.mark.parametrize("name", SAME_MEANS)
def test_gradients_of_one_bound_have_one_mean(name: str) -> None:
    assert_same_mean(plain(Chain, ChainGuide), *SAME_MEANS[name])


def test_one_sample_is_the_sampled_elbo_whatever_the_order() -> None:
    pair = plain(Chain, ChainGuide)()
    elbo = estimate(pair, pv.ELBO(kl="sampled"), X)
    for objective in (pv.IWAE(samples=1), pv.Renyi(alpha=0.3, samples=1)):
        torch.testing.assert_close(estimate(pair, objective, X), elbo)
    stuck, doubly = (
        estimate(pair, pv.IWAE(samples=1, gradient=way), X) for way in ("sticking_the_landing", "doubly_reparameterized")
    )
    torch.testing.assert_close(stuck, doubly)


# --- score functions -------------------------------------------------------------------------------------------------------


def enumerated_gradients(samples: int) -> Tensor:
    """Of minus the bound with S samples of a coin, by the sum over everything that can be drawn."""
    model, guide = Coin().double(), CoinGuide().double()
    q = dist.Bernoulli(logits=guide.logit * X)
    z = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    log_q = q.log_prob(z)
    log_w = dist.Bernoulli(0.3).log_prob(z) + dist.Normal(model.weight * z, 1.0).log_prob(X) - log_q
    total = torch.zeros((), dtype=torch.float64)
    for drawn in itertools.product((0, 1), repeat=samples):
        bound = log_w[list(drawn)].logsumexp(0) - math.log(samples)
        total = total + (log_q[list(drawn)].sum(0).exp() * bound).mean()
    return torch.stack(torch.autograd.grad(-total, [model.weight, guide.logit]))


@pytest.mark.parametrize(
    ("objective", "samples"),
    [
        (pv.ELBO(), 1),
        (pv.ELBO(baseline="moving_average"), 1),
        (pv.ELBO(gradient="score_function"), 1),
        (pv.BetaELBO(), 1),
        (pv.IWAE(samples=1), 1),
        (pv.IWAE(samples=2), 2),
        (pv.IWAE(samples=3), 3),
    ],
    ids=str,
)
def test_draws_that_are_not_reparameterized_go_by_their_scores(objective: pv.Objective, samples: int) -> None:
    mean, error = mean_gradients(plain(Coin, CoinGuide), objective)
    assert ((mean - enumerated_gradients(samples)).abs() < 4.5 * error).all()


def test_a_baseline_takes_noise_away() -> None:
    _, with_baseline = mean_gradients(plain(Coin, CoinGuide), pv.ELBO(baseline="moving_average"))
    _, without = mean_gradients(plain(Coin, CoinGuide), pv.ELBO(gradient="score_function"))
    assert with_baseline[-1] < 0.7 * without[-1]


def test_the_moving_average_forgets_and_is_part_of_the_state() -> None:
    module = pv.ELBO(gradient="score_function", baseline="moving_average").build(plain(Chain, ChainGuide)()).baseline.train()
    assert [float(module(torch.tensor(value))) for value in (4.0, 2.0, 2.0)] == pytest.approx([0, 4, (0.9 * 4 + 2) / 1.9])
    other = type(module)()
    other.load_state_dict(module.state_dict())
    assert float(other.eval()(torch.tensor(9.0))) == float(other(torch.tensor(0.0))) == float(module(torch.tensor(0.0)))


# --- MMD -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_discrepancy_is_its_three_means(kernel: str) -> None:
    torch.manual_seed(SEED)
    z, y = torch.randn(5, 3, dtype=torch.float64), 2 + torch.randn(4, 3, dtype=torch.float64)

    def mean(a: Tensor, b: Tensor) -> float:
        d = torch.tensor([[float((u - v).square().sum()) / (2 * 3 * 1.5**2) for v in b] for u in a])
        return float((torch.exp(-d) if kernel == "rbf" else 1 / (1 + d)).mean())

    found = squared_mmd(z, y, KERNELS[kernel], 1.5)
    assert float(found) == pytest.approx(mean(z, z) - 2 * mean(z, y) + mean(y, y), abs=1e-6)
    assert float(squared_mmd(z, z, KERNELS[kernel], 1.5)) == pytest.approx(0, abs=1e-12)
    assert float(squared_mmd(z[:1], y[:1], KERNELS[kernel], 1.5)) > 0


def test_the_discrepancy_of_normals_is_the_closed_form() -> None:
    torch.manual_seed(SEED)
    z, y = 1 + torch.randn(2000, 1, dtype=torch.float64), 2 * torch.randn(2000, 1, dtype=torch.float64)

    def mean(variance: float, distance: float) -> float:
        """E exp(-d^2 / 2) for d ~ N(distance, variance)."""
        return (1 + variance) ** -0.5 * math.exp(-(distance**2) / (2 * (1 + variance)))

    expected = mean(2, 0) - 2 * mean(5, 1) + mean(8, 0)
    assert float(squared_mmd(z, y, KERNELS["rbf"], 1.0)) == pytest.approx(expected, abs=0.02)


def test_the_discrepancy_draws_the_aggregate_posterior_to_the_prior() -> None:
    build, x = PAIRS["vae-mean-field"]
    pair = build()
    with torch.no_grad():
        for parameter in list(pair.guide.parameters())[-1:]:
            parameter.add_(2.0)
    found = [estimate(pair, pv.InfoVAE(kl_weight=0.0, mmd_weight=weight), x) for weight in (0.0, 1000.0)]
    assert float(found[1][0][0] - found[0][0][0]) > 10
    torch.testing.assert_close(found[0][0][1:], found[1][0][1:])
    after = built(vae())
    after.load_state_dict(pair.state_dict())
    with torch.no_grad():
        for parameter, gradient in zip(after.parameters(), found[1][1], strict=True):
            parameter.sub_(1e-4 * gradient)
    assert estimate(after, pv.InfoVAE(mmd_weight=1000.0), x)[0][0] < found[1][0][0]


# --- the schedule of the EM view -------------------------------------------------------------------------------------------


def test_guide_and_model_learn_by_turns() -> None:
    seen: list[dict[str, Tensor]] = []

    class Copies(pv.Callback):
        def begin(self, context: pv.FitContext) -> None:
            self.pair = context.pair

        def record(self, row: dict) -> None:
            seen.append({name: value.clone() for name, value in self.pair.state_dict().items()})

    histories = {}
    for alternate in ("epochs", "steps"):
        method = pv.SVI(epochs=4, batch_size=2000, alternate=alternate, compile=False)
        options = {"guide": guide_for(vae()), "device": "cpu", "callbacks": [Copies()]}
        histories[alternate] = pv.fit(vae(), pv.load_data("digits"), method=method, **options).history
    for epoch, (before, after) in enumerate(itertools.pairwise(seen[:4])):
        moved = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
        assert moved == {"guide" if epoch % 2 else "model"}
    rows = [[{**row, "seconds": 0} for row in history] for history in histories.values()]
    assert rows[0] == rows[1]  # an epoch is one step
    assert rows[0][-1]["elbo"] > rows[0][0]["elbo"]


def test_alternating_steps_are_recorded_to_the_last_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ppl_vae.inference.training.step, "WORTH_RECORDING", 5)
    methods = [pv.SVI(epochs=2, alternate="steps", clip_norm=10.0, compile=compile) for compile in ("auto", False)]
    fits = [pv.fit(vae(), "digits", method=method) for method in methods]
    for ours, theirs in zip(*(fitted.pair.parameters() for fitted in fits), strict=True):
        assert torch.equal(ours, theirs)


def test_the_exact_posterior_has_nothing_to_alternate_with() -> None:
    with pytest.raises(ValueError, match=r"the guide has no parameters to alternate .*: use alternate=None"):
        pv.fit(pv.PPCA(latent_dim=2), "digits", guide=pv.ExactPosterior(), method=pv.SVI(epochs=2, alternate="steps"))


# --- fits ------------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:the warm-up")
@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES.keys())
def test_the_history_shows_the_elbo_beside_what_was_climbed(objective: pv.Objective) -> None:
    network = pv.MLP(hidden=(50,))
    method = pv.SVI(epochs=3, batch_size=50, objective=objective, learning_rate=5e-3)
    fitted = pv.fit(vae(decoder=network), "digits", guide=pv.AmortizedNormal(encoder=network), method=method)
    first, *_, last = fitted.history
    assert all(math.isfinite(row[name]) for row in fitted.history for name in ("objective", "elbo", "reconstruction", "kl"))
    assert last["reconstruction"] - last["kl"] == pytest.approx(last["elbo"], abs=1e-3)
    assert last["objective"] > first["objective"] or objective.ramp > 0
    assert last["reconstruction"] > first["reconstruction"]
    if isinstance(objective, pv.ELBO):
        assert last["objective"] == pytest.approx(last["elbo"], abs=1e-4)
    if isinstance(objective, (pv.IWAE, pv.Renyi)):
        assert last["objective"] > last["elbo"]
    assert last["elbo"] == pytest.approx(last["valid_elbo"], abs=3.0 + 0.5 * last["kl"])


@pytest.mark.slow
def test_a_compiled_gradient_through_cut_draws_is_the_eager_one(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPL_VAE_CACHE", str(tmp_path_factory.mktemp("compiled")))
    results = []
    for compile in (False, True):
        pair = built(vae())
        module = pv.IWAE(samples=3, gradient="doubly_reparameterized").build(pair.train())
        step = Step(module, pv.Transform(EVENT), OPTIMIZERS["adam"](pair.parameters(), 1e-2), compile=compile)
        torch.manual_seed(SEED)
        for _ in range(3):
            step(rows("binary"))
        results.append([*pair.parameters(), step.totals])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-5)


# --- refusals --------------------------------------------------------------------------------------------------------------

UNDEFINED = {
    "IWAE of parameters": ("bayesian", pv.IWAE(), r"belongs? to the whole data set: use objective=ELBO\(\)"),
    "scores of parameters": ("bayesian", pv.ELBO(gradient="score_function"), "to the whole data set: use objective=ELBO"),
    "doubly without draws": ("coin", pv.IWAE(gradient="doubly_reparameterized"), "reparameterized draws.*gradient='pathwise'"),
    "landing without draws": ("coin", pv.ELBO(gradient="sticking_the_landing"), "reparameterized draws.*gradient='pathwise'"),
    "MMD without draws": ("coin", pv.InfoVAE(), r"one reparameterized latent variable .* has z: use objective=BetaELBO\(\)"),
    "MMD of two": ("chain", pv.InfoVAE(), r"one reparameterized latent variable .* has y, z: use objective=BetaELBO\(\)"),
    "baseline of a sum": ("enumerated", pv.ELBO(baseline="moving_average"), "summed out.*use baseline='none'"),
}


@pytest.mark.parametrize("name", UNDEFINED)
def test_what_is_not_defined_for_a_pair_is_refused_with_a_remedy(name: str) -> None:
    pair, objective, message = UNDEFINED[name]
    build, x = PAIRS[pair]
    with pytest.raises(ValueError, match=message):
        estimate(build(), objective, x)


@pytest.mark.parametrize(
    "objective", [pv.IWAE(samples=2), pv.ELBO(gradient="score_function"), pv.BetaELBO(free_bits=1e-9)], ids=str
)
def test_discrete_variables_are_sampled_or_summed_out_as_the_objective_asks(objective: pv.Objective) -> None:
    build, x = PAIRS["enumerated"]
    (loss, elbo, _), gradients = estimate(build(), objective, x)
    assert loss.isfinite()
    assert elbo.isfinite()
    assert all(gradient.any() for gradient in gradients)


ASSORTED = {
    "VampPrior": (vae(prior=pv.VampPrior(components=4)), GUIDES["AmortizedNormal-full"]),
    "SplineFlow": (vae(prior=pv.SplineFlow(layers=1, hidden=(7,), bins=4)), GUIDES["AmortizedFlow-iaf"]),
    "semi-amortized": (vae(), GUIDES["SemiAmortized"]),
    "mixture": (vae(prior=pv.Uniform()), GUIDES["AmortizedMixture"]),
    "sphere": (vae(prior=pv.ProjectedNormal()), GUIDES["AmortizedProjectedNormal"]),
    "gumbel": (vae(prior=pv.OneHotCategorical()), GUIDES["AmortizedGumbel"]),
    "factors": (pv.FactorAnalysis(latent_dim=2), GUIDES["AmortizedLinear-full"]),
    "exact": (pv.PPCA(latent_dim=2), GUIDES["ExactPosterior"]),
}


@pytest.mark.parametrize("name", ASSORTED)
def test_every_objective_climbs_for_every_sort_of_pair(name: str) -> None:
    x = rows(kind_for(ASSORTED[name][0]))
    for objective in OBJECTIVES.values():
        pair = built(*ASSORTED[name])
        found, gradients = estimate(pair, objective, x)
        assert all(value.isfinite() for value in found), objective
        assert all(gradient.isfinite().all() for gradient in gradients), objective
        moved = {path.split(".")[0] for (path, _), g in zip(pair.named_parameters(), gradients, strict=True) if g.any()}
        assert moved == {path.split(".")[0] for path, _ in pair.named_parameters()}, objective


BAD: dict[str, tuple[Callable[..., object], dict, str]] = {
    "beta": (pv.BetaELBO, {"beta": -1.0}, "a beta of at least 0, got -1.0"),
    "capacity": (pv.BetaELBO, {"capacity": -1.0}, "a capacity of at least 0"),
    "free bits": (pv.BetaELBO, {"free_bits": math.inf}, "free_bits of at least 0"),
    "particles": (pv.BetaELBO, {"particles": 0}, "at least 1 particle"),
    "kl": (pv.BetaELBO, {"kl": "exact"}, "a kl that is analytic or sampled"),
    "warm-up": (pv.LinearWarmUp, {"epochs": 0}, "a positive number of epochs"),
    "rise": (pv.CyclicalWarmUp, {"rise": 1.5}, r"a rise in \(0, 1\]"),
    "cycles": (pv.CyclicalWarmUp, {"cycles": 0}, "at least 1 cycle"),
    "gradient": (pv.ELBO, {"gradient": "dreg"}, "a gradient of pathwise, sticking_the_landing, score_function"),
    "baseline": (pv.ELBO, {"baseline": "network"}, "a baseline of none, moving_average"),
    "no score": (pv.ELBO, {"gradient": "sticking_the_landing", "baseline": "moving_average"}, "baseline='none' with"),
    "IWAE gradient": (pv.IWAE, {"gradient": "score_function"}, "a gradient of pathwise, sticking_the_landing, doubly"),
    "samples": (pv.IWAE, {"samples": 0}, "at least 1 sample"),
    "alpha": (pv.Renyi, {"alpha": math.nan}, "a finite alpha"),
    "kernel": (pv.InfoVAE, {"kernel": "linear"}, "a kernel of rbf, inverse_multiquadratic"),
    "bandwidth": (pv.InfoVAE, {"bandwidth": 0.0}, "a positive bandwidth"),
    "mmd weight": (pv.InfoVAE, {"mmd_weight": -1.0}, "an mmd_weight of at least 0"),
    "alternate": (pv.SVI, {"alternate": "data"}, "to alternate steps or epochs"),
    "one epoch": (pv.SVI, {"alternate": "epochs", "epochs": 1}, "at least 2 epochs to alternate"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_values_are_refused(name: str) -> None:
    declare, fields, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        declare(**fields)


# --- files and the command line --------------------------------------------------------------------------------------------

FILES = sorted((Path(__file__).parents[1] / "methods").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_declared_method_says_what_it_is_and_fits(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# ")
    method = pv.Method.from_yaml(path)
    assert pv.Method.from_yaml(method.to_yaml()) == method
    if isinstance(method, pv.Stages):
        assert all(isinstance(stage, pv.SVI) for stage in method.methods)
        return
    assert isinstance(method, pv.SVI)
    assert method.objective.ramp <= method.epochs
    objective = method.objective
    if isinstance(objective, pv.BetaELBO):  # so that it ends within two epochs
        objective = dataclasses.replace(objective, warm_up=pv.LinearWarmUp(epochs=1))
    short = dataclasses.replace(method, epochs=2, batch_size=500, objective=objective)
    fitted = pv.fit(vae(), "digits", method=short)
    assert math.isfinite(fitted.history[-1]["elbo"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--method.objective", "IWAE", "--method.objective.samples", "5"], pv.IWAE(samples=5)),
        (
            [
                "--method.objective",
                "BetaELBO",
                "--method.objective.warm_up",
                "LinearWarmUp",
                "--method.objective.warm_up.epochs=1",
            ],
            pv.BetaELBO(warm_up=pv.LinearWarmUp(epochs=1)),
        ),
        (["--method", str(FILES[0].with_name("renyi.yaml")), "--method.objective.samples", "3"], pv.Renyi(samples=3)),
    ],
    ids=["class", "nested", "file"],
)
def test_an_objective_is_chosen_on_the_command_line(options: list[str], expected: pv.Objective, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert (
        main(
            [
                "fit",
                "--model",
                "PPCA",
                "--model.latent_dim",
                "2",
                *options,
                "--method.epochs",
                "1",
                "--out",
                str(out),
                "--quiet",
            ]
        )
        == 0
    )
    assert pv.load_run(out).method.objective == expected
