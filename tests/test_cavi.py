"""Coordinate ascent, also stochastic, of a normal of unknown mean and precision, whose every step is a line."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import integrate
from torch import Tensor
from torch.distributions import kl_divergence

import ppl_vae as pv
from ppl_vae.exact import Problem, Stochastic
from ppl_vae.program.base import GuideProgram, ModelProgram
from ppl_vae.types import ELBOTerms

MU0, KAPPA0, A0, B0 = 0.5, 0.4, 2.0, 1.5
ROWS = torch.tensor([[0.3], [1.9], [-0.4], [2.2], [1.1], [0.8], [3.0]], dtype=torch.float64)


class Factors(NamedTuple):
    """Q(mu) = Normal(m, 1 / k), q(tau) = Gamma(a, b)."""

    m: Tensor
    k: Tensor
    a: Tensor
    b: Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unknown(pv.Model):
    """mu ~ Normal(0.5, 1 / 0.4); tau ~ Gamma(2, 1.5); x_n ~ Normal(mu, 1 / tau)."""

    @property
    def accepts(self):
        return pv.Gaussian().accepts

    def check(self, spec):
        pass

    def build(self, spec):
        return UnknownProgram(spec.size)

    def story(self):
        return "mu ~ Normal; tau ~ Gamma; x ~ Normal(mu, 1 / tau)"


def priors(like: Tensor) -> tuple[dist.Distribution, dist.Distribution]:
    return dist.Normal(like.new_tensor(MU0), KAPPA0**-0.5), dist.Gamma(like.new_tensor(A0), like.new_tensor(B0))


class UnknownProgram(ModelProgram):
    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, x):
        mean, precision = priors(x)
        mu, tau = pyro.sample("mu", mean), pyro.sample("tau", precision)
        with pv.data_plate(self.size, x):
            pyro.sample("x", dist.Normal(mu, tau**-0.5).expand(x.shape).to_event(1), obs=x)

    def mean_field(self, spec):
        return UnknownGuide(spec.size)

    def cavi(self, guide, rows, sweep):
        sweep.refuse("Unknown")
        x = torch.cat(list(rows)).double()

        def step(state):
            return update(state, x, len(x)), bound(state, x, len(x)).elbo.mean()

        start = (
            10 * torch.rand(4, generator=sweep.generator, dtype=torch.float64) if sweep.generator else torch.ones(4).double()
        )
        return Problem(
            step, Factors(*start), None, guide.assign, lambda state: None, lambda ends: f"{len(ends)} starts" * (len(ends) > 1)
        )

    def stochastic(self, guide, rows, sweep):
        def step(state, x, rate):
            x = x.double()
            return update(state, x, self.size, rate), bound(state, x, self.size).elbo.mean()

        return Stochastic(step, Factors(*torch.ones(4, dtype=torch.float64)), guide.assign, lambda state: None)


def update(q: Factors, x: Tensor, size: int, rate: float = 1.0) -> Factors:
    """First q(mu), then q(tau), in their natural parameters; a batch stands for all data."""
    scale, tau = size / len(x), q.a / q.b
    k = (1 - rate) * q.k + rate * (KAPPA0 + size * tau)
    m = ((1 - rate) * q.m * q.k + rate * (KAPPA0 * MU0 + tau * scale * x.sum())) / k
    a = (1 - rate) * q.a + rate * (A0 + size / 2)
    return Factors(m, k, a, (1 - rate) * q.b + rate * (B0 + 0.5 * (scale * (x - m).square().sum() + size / k)))


def bound(q: Factors, x: Tensor, size: int) -> ELBOTerms:
    mean, precision = priors(q.m)
    kl = kl_divergence(dist.Normal(q.m, q.k**-0.5), mean) + kl_divergence(dist.Gamma(q.a, q.b), precision)
    expected = q.a / q.b * ((x[:, 0] - q.m).square() + 1 / q.k)
    likelihood = 0.5 * (torch.digamma(q.a) - q.b.log() - math.log(2 * math.pi) - expected)
    kl = (kl / size).expand(len(x))
    return ELBOTerms(likelihood - kl, likelihood, kl)


class UnknownGuide(GuideProgram):
    def __init__(self, size):
        super().__init__()
        self.size = size
        for name in Factors._fields:
            self.register_buffer(name, torch.ones((), dtype=torch.float64))

    @property
    def factors(self):
        return Factors(self.m, self.k, self.a, self.b)

    def assign(self, state):
        for name, value in state._asdict().items():
            getattr(self, name).copy_(value)

    def forward(self, x):
        pyro.sample("mu", dist.Normal(self.m, self.k**-0.5))
        pyro.sample("tau", dist.Gamma(self.a, self.b))

    def bound(self, x):
        return bound(self.factors, x.double(), self.size)


@pytest.fixture(scope="module")
def data():
    return pv.load_data(ROWS.numpy(), valid=0.0, test=0.0)


def evidence() -> float:
    """Log p(x) / N by quadrature over tau, mu integrated out in closed form."""

    def density(log_tau: float) -> float:
        tau = torch.tensor(log_tau, dtype=torch.float64).exp()
        covariance = torch.eye(len(ROWS), dtype=torch.float64) / tau + 1 / KAPPA0
        mean = torch.full((len(ROWS),), MU0, dtype=torch.float64)
        joint = dist.MultivariateNormal(mean, covariance).log_prob(ROWS[:, 0]) + dist.Gamma(A0, B0).log_prob(tau)
        return float((joint + log_tau + 12).exp())

    return (math.log(integrate.quad(density, -8, 5, epsabs=1e-12)[0]) - 12) / len(ROWS)


def test_it_climbs_to_a_bound_below_the_evidence(data):
    fit = pv.fit(Unknown(), data, method=pv.CAVI())
    assert fit.guide == pv.MeanField()
    values = [row["elbo"] for row in fit.history]
    assert all(later >= earlier - 1e-12 for earlier, later in itertools.pairwise(values))
    assert values[-1] < evidence() < values[-1] + 0.01
    assert fit.evaluate(data.train)["elbo"] == pytest.approx(values[-1], abs=1e-6)
    q = fit.pair.guide.factors
    assert torch.allclose(torch.stack(update(q, ROWS, len(ROWS))), torch.stack(q), atol=1e-4)


def test_a_batch_of_all_data_at_rate_one_is_a_sweep(data):
    swept = pv.fit(Unknown(), data, method=pv.CAVI(sweeps=1, tolerance=0.0))
    stepped = pv.fit(Unknown(), data, method=pv.CAVI(sweeps=1, batch_size=len(ROWS), delay=0.0))
    assert torch.allclose(torch.stack(swept.pair.guide.factors), torch.stack(stepped.pair.guide.factors))


def test_batches_come_near_it(data):
    swept = pv.fit(Unknown(), data, method=pv.CAVI())
    stepped = pv.fit(Unknown(), data, method=pv.CAVI(sweeps=150, batch_size=3, forgetting=0.9))
    assert stepped.evaluate(data.train)["elbo"] == pytest.approx(swept.history[-1]["elbo"], abs=1e-3)
    assert [row["epoch"] for row in stepped.history] == list(range(1, 151))


@pytest.mark.parametrize(
    "method", [pv.CAVI(sweeps=6, tolerance=0.0), pv.CAVI(sweeps=6, batch_size=3)], ids=["sweeps", "batches"]
)
def test_a_fit_goes_on_to_the_same_bits(data, method, tmp_path):
    whole = pv.fit(Unknown(), data, method=method)
    short = dataclasses.replace(method, sweeps=2)
    pv.fit(Unknown(), data, method=short, out=tmp_path / "run")
    resumed = pv.resume_run(tmp_path / "run", data=data, method=method, trust=[__name__])
    assert all(map(torch.equal, whole.pair.guide.factors, resumed.pair.guide.factors))


def test_the_best_of_several_starts_is_kept_and_all_are_told_of(data):
    with pytest.warns(pv.FitWarning, match="3 starts"):
        fit = pv.fit(Unknown(), data, method=pv.CAVI(n_init=3))
    assert fit.history[-1]["elbo"] == pytest.approx(pv.fit(Unknown(), data, method=pv.CAVI()).history[-1]["elbo"], abs=1e-6)


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        (pv.VAE(latent_dim=1, likelihood=pv.Gaussian()), {}, "says no factors of a mean-field posterior"),
        (Unknown(), {"method": pv.CAVI(collapsed=True)}, "Unknown knows no collapsed=True of CAVI"),
        (Unknown(), {"method": pv.CAVI(damping=0.5)}, "Unknown knows no damping=0.5 of CAVI"),
    ],
)
def test_what_it_cannot_fit_is_refused(data, model, options, says):
    with pytest.raises(ValueError, match=says):
        pv.fit(model, data, **{"method": pv.CAVI(), **options})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sweeps": 0}, "at least 1 sweep"),
        ({"forgetting": 0.5}, "a forgetting above 0.5"),
        ({"damping": 1.0}, "a damping of at least 0 and below 1"),
        ({"batch_size": 3, "n_init": 2}, "an n_init of 1 with a batch_size"),
        ({"batch_size": 3, "collapsed": True}, "no batch_size with collapsed=True, got 3"),
        ({"forgetting": 0.9}, "a batch_size with a forgetting"),
        ({"delay": 0.0}, "a batch_size with a delay"),
    ],
)
def test_options_out_of_range_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        pv.CAVI(**options)
