"""Pairs of Pyro programs, ours and a user's own, in our `fit` and in a user's own classic `SVI`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn
from torch.distributions import constraints

import ppl_vae as pv
from ppl_vae.evaluate import elbo_terms
from tests.table import GUIDES, built, rows, vae

SHORT = pv.SVI(epochs=2, batch_size=16)
CONJUGATE = pv.SVI(objective=pv.ELBO(particles=10), epochs=250, batch_size=64, learning_rate=0.1)
N = 40


@pytest.fixture(autouse=True)
def store() -> Iterator[None]:
    """An empty parameter store before and after."""
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


def reals() -> Tensor:
    return 1.5 + torch.randn(N, 2, generator=torch.Generator().manual_seed(0))


def everything(x: Tensor) -> pv.Data:
    return pv.load_data(x.numpy(), valid=0.0, test=0.0)


# --- our pairs ------------------------------------------------------------------------------------------------------------


def test_two_fits_in_one_process_both_move() -> None:
    data = pv.load_data(rows("binary", 4).repeat_interleave(20, 0).numpy())
    for _ in range(2):
        fitted = pv.fit(vae(), data, guide=GUIDES["AmortizedNormal-diagonal"], method=pv.SVI(epochs=3, learning_rate=1e-2))
        torch.manual_seed(0)
        start = pv.build(vae(), GUIDES["AmortizedNormal-diagonal"], fitted.spec).state_dict()
        moved = {name for name, value in fitted.pair.state_dict().items() if not torch.equal(value, start[name])}
        assert moved == {*dict(fitted.pair.named_parameters()), "guide.encoder.shown.0.loc"}
        assert fitted.history[-1]["objective"] > fitted.history[0]["objective"]


@pytest.mark.parametrize("loss", [Trace_ELBO, TraceMeanField_ELBO])
@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_a_built_pair_works_in_classic_svi(loss: type, covariance: str) -> None:
    x = rows("binary")
    pair = built(vae(prior=pv.GaussianMixture(components=2)), pv.AmortizedNormal(covariance=covariance))
    before = {name: value.clone() for name, value in pair.state_dict().items()}
    svi = SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 1e-2}), loss())
    torch.manual_seed(0)
    losses = [svi.step(x) for _ in range(60)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    assert all(not torch.equal(value, before[name]) for name, value in pair.named_parameters())
    # and afterwards in ours
    assert pv.evaluate(pair, everything(x).train)["elbo"] > -20


def test_a_pair_that_classic_svi_trained_does_not_leak_into_a_fit() -> None:
    x = rows("binary")
    pair = built(vae())
    SVI(pair.model, pair.guide, pyro.optim.Adam({"lr": 1e-1}), Trace_ELBO()).step(x)
    names = set(pyro.get_param_store())
    assert names
    first = pv.fit(vae(), x, method=SHORT)
    assert set(pyro.get_param_store()) == names
    pyro.clear_param_store()
    assert pv.fit(vae(), x, method=SHORT).history[-1]["elbo"] == first.history[-1]["elbo"]


# --- plain programs -------------------------------------------------------------------------------------------------------


def model(x: Tensor) -> None:
    """z_n ~ Normal(0, 1) is integrated by hand: mu has the conjugate posterior of `guide`."""
    with pyro.plate("features", 2, dim=-2):
        mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
        with pyro.plate("data", N, subsample=x, dim=-1):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x.T)


def guide(x: Tensor) -> None:
    with pyro.plate("features", 2, dim=-2):
        loc = pyro.param("q.mu.loc", torch.zeros(2, 1))
        scale = pyro.param("q.mu.scale", lambda: torch.ones(2, 1), constraint=constraints.positive)
        pyro.sample("mu", dist.Normal(loc, scale))


def test_plain_programs_reach_the_conjugate_posterior_and_leave_the_store_alone() -> None:
    x = reals()
    pyro.param("q.mu.loc", torch.full((3,), 7.0))
    pyro.param("other", torch.ones(2), constraint=constraints.positive)
    before = {name: value.detach().clone() for name, value in pyro.get_param_store().items()}
    state = pyro.get_param_store().get_state()
    fitted = pv.fit(model, everything(x), guide=guide, method=CONJUGATE)
    store = pyro.get_param_store()
    assert set(store) == set(before)
    assert all(torch.equal(store[name], value) for name, value in before.items())
    assert store.get_state()["constraints"] == state["constraints"]

    precision = N + 1 / 100
    parameters = dict(fitted.pair.guide.named_parameters())
    assert set(parameters) == {"q__mu__loc", "q__mu__scale"}
    assert list(fitted.pair.model.parameters()) == []
    loc, scale = parameters["q__mu__loc"].detach().squeeze(), parameters["q__mu__scale"].exp().detach().squeeze()
    torch.testing.assert_close(loc, x.sum(0) / precision, atol=0.03, rtol=0)
    torch.testing.assert_close(scale, torch.full((2,), precision**-0.5), atol=0.03, rtol=0)
    covariance = torch.eye(N) + 100.0
    evidence = dist.MultivariateNormal(torch.zeros(N), covariance).log_prob(x.T).sum().item() / N
    assert fitted.evaluate(x, samples=200)["elbo"] == pytest.approx(evidence, abs=0.02)


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)


def networks() -> tuple:
    decoder, encoder = nn.Linear(1, 2), nn.Linear(2, 2)

    def model(x: Tensor) -> None:
        pyro.module("decoder.net", decoder)
        scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
        with pv.data_plate(N, x):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), scale).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder.net", encoder)
        loc, raw = encoder(x).split(1, -1)
        with pv.data_plate(N, x):
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))

    return model, guide, decoder, encoder


@pytest.mark.parametrize(("plate", "site"), [("samples", "z"), ("data", "samples")])
def test_plates_and_sites_may_be_called_samples(plate: str, site: str) -> None:
    def model(x: Tensor) -> None:
        with pyro.plate(plate, len(x)):
            z = pyro.sample(site, dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[..., None], 1.0).expand((*z.shape, 2)).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate(plate, len(x)):
            pyro.sample(site, dist.Normal(loc, 1.0).expand([len(x)]))

    fitted = pv.fit(model, everything(reals()), guide=guide, method=pv.SVI(epochs=1))
    assert np.isfinite(fitted.evaluate(reals(), samples=3)["iwae"])


def test_networks_registered_with_pyro_module_are_trained_and_the_store_stays_empty() -> None:
    torch.manual_seed(0)
    model, guide, decoder, encoder = networks()
    before = [value.clone() for net in (decoder, encoder) for value in net.parameters()]
    fitted = pv.fit(model, everything(reals()), guide=guide, method=pv.SVI(epochs=30, learning_rate=3e-2))
    assert dict(pyro.get_param_store()) == {}
    assert fitted.history[-1]["elbo"] > fitted.history[0]["elbo"] + 0.5
    after = [value for net in (decoder, encoder) for value in net.parameters()]
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert len(list(fitted.pair.parameters())) == 5


def test_a_users_own_pyro_modules() -> None:
    class Model(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.scale = PyroParam(torch.tensor(2.0), constraint=constraints.positive)
            self.layer = nn.Linear(1, 2)

        def forward(self, x: Tensor) -> None:
            with pyro.plate("data", N, subsample=x):
                z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(self.layer(z), self.scale).to_event(1), obs=x)

    class Guide(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.loc = nn.Linear(2, 1)
            self.scale = PyroParam(torch.tensor(1.0), constraint=constraints.positive)

        def forward(self, x: Tensor) -> None:
            with pyro.plate("data", N, subsample=x):
                pyro.sample("z", dist.Normal(self.loc(x), self.scale).to_event(1))

    torch.manual_seed(0)
    own, theirs = Model(), Guide()
    fitted = pv.fit(own, everything(reals()), guide=theirs, method=pv.SVI(epochs=30, learning_rate=3e-2))
    assert fitted.pair.model is own
    assert fitted.history[-1]["elbo"] > fitted.history[0]["elbo"] + 0.5
    assert own.scale.item() != 2
    assert dict(pyro.get_param_store()) == {}
    torch.testing.assert_close(fitted.encode(reals()), theirs.loc(reals()))
    torch.testing.assert_close(fitted.reconstruct(reals()), own.layer(theirs.loc(reals())))
    assert fitted.sample(3).shape == (3, 2)
    with pytest.raises(ValueError, match="plain Pyro program, which has no `posterior`"):
        fitted.posterior(reals())


# --- sites ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean_field", [True, False])
def test_a_masked_site_adds_nothing(mean_field: bool) -> None:
    loc = torch.arange(4.0)
    seen = torch.tensor([True, False, True, False])

    def programs(mask: Tensor | bool) -> pv.Pair:
        def model(x: Tensor) -> None:
            with pv.data_plate(4, x):
                with pyro.poutine.mask(mask=mask):
                    pyro.sample("z", dist.Normal(torch.zeros(4), 1.0))
                pyro.sample("x", dist.Normal(torch.zeros(4), 1.0), obs=x)

        def guide(x: Tensor) -> None:
            with pv.data_plate(4, x), pyro.poutine.mask(mask=mask):
                pyro.sample("z", dist.Normal(loc, 1.0))

        return pv.Pair(model, guide, mean_field=mean_field)

    for mask, expected in ((False, torch.zeros(4)), (seen, seen * loc.square() / 2), (True, loc.square() / 2)):
        kl = elbo_terms(programs(mask), (torch.zeros(4),), samples=1 if mean_field else 100_000).kl
        torch.testing.assert_close(kl, expected, rtol=0, atol=1e-6 if mean_field else 0.05)


class GlobalMean(PyroModule):
    """The mean of all data has a prior; there are ``size`` of them."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pv.data_plate(self.size, x):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def test_what_all_data_share_is_divided_by_their_number_in_batches_of_any_size() -> None:
    pair = pv.Pair(GlobalMean(20), lambda x: pyro.sample("mu", dist.Normal(3.0, 1.0)))
    for batch in (5, 20, 100):
        kl = elbo_terms(pair, (torch.zeros(batch),)).kl
        torch.testing.assert_close(kl, torch.full((batch,), 4.5 / 20))
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    fitted = pv.fit(pv.FactorAnalysis(latent_dim=1, loc=pv.Normal()), everything(x), method=pv.SVI(epochs=1))
    assert fitted.pair.plates(torch.zeros(100, 3)).size == 20
    assert fitted.pair.plates(torch.zeros(7, 3)).size == 20


# --- nothing global -------------------------------------------------------------------------------------------------------

UNCHANGED = """
import numpy, pyro, torch, torch.distributions

def settings():
    return {
        "pyro": pyro.settings.get(), "torch": torch.get_rng_state().tolist(), "dtype": torch.get_default_dtype(),
        "validate": torch.distributions.Distribution._validate_args,
        "pyro validate": pyro.distributions.Distribution._Distribution__validate_args
        if hasattr(pyro.distributions.Distribution, "_Distribution__validate_args") else None,
        "numpy": [str(part) for part in numpy.random.get_state()], "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(), "grad": torch.is_grad_enabled(),
        "printing": numpy.get_printoptions(), "store": dict(pyro.get_param_store()),
    }

before = settings()
"""


def test_importing_and_fitting_change_nothing_global() -> None:
    program = UNCHANGED + (
        "import ppl_vae as pv\n"
        "imported = settings()\n"
        "pv.fit(pv.VAE(latent_dim=2), method=pv.SVI(epochs=1, batch_size=512)).sample(3)\n"
        "after = settings()\n"
        "for now in (imported, after):\n"
        "    changed = [name for name in before if now[name] != before[name]]\n"
        "    assert changed == [], changed\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- what is refused ------------------------------------------------------------------------------------------------------


def without_plate(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(mu, 1.0).expand(x.shape).to_event(2), obs=x)


def mean(x: Tensor) -> None:
    pyro.sample("mu", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))


def nothing(x: Tensor) -> None:
    pass


def fixed(x: Tensor) -> None:
    pyro.sample("mu", dist.Normal(0.0, 1.0))


def latent(x: Tensor) -> None:
    pyro.sample("mu", dist.Normal(0.0, 1.0))


def subsampling(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x), subsample_size=4) as rows:
        pyro.sample("x", dist.Normal(mu, 1.0).expand([4, 2]).to_event(1), obs=x[rows])


def early(x: Tensor) -> None:
    pyro.param("never given")


def ambiguous(x: Tensor) -> None:
    with pyro.plate("rows", len(x), dim=-2), pyro.plate("columns", 16, dim=-1):
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=x[:, :1].expand(len(x), 16))


REFUSED = {
    "two plates of the batch's size": (
        ambiguous,
        nothing,
        "plates 'columns', 'rows' all have the batch's size 16: call the one",
    ),
    "no plate": (
        without_plate,
        mean,
        r"no observed site stands in a pyro.plate over the 16 data .* but 'x' in no plate: write",
    ),
    "missing in guide": (model, nothing, r"latent sites of model and guide differ: mu stands in only one of them"),
    "too much in guide": (nothing, mean, r"latent sites of model and guide differ: mu stands in only one of them"),
    "no parameters": (GlobalMean(N), fixed, "model and guide have no parameters to train: declare them with pyro.param"),
    "observes nothing": (latent, mean, "the model observes nothing: give its data to one of its sites"),
    "a subsample of the batch": (
        subsampling,
        mean,
        "the plate 'data' takes 4 of 16 data, but the batch, .* holds 16: write pv.data_plate",
    ),
    "no initial value": (model, early, r"pyro.param\('never given'\) is read before it has an initial value"),
    "declared model": (vae(), mean, "a declared model goes with a declared guide"),
    "declared guide": (model, pv.AmortizedNormal(), "a plain Pyro model with a plain guide function"),
    "no guide": (model, None, "a plain Pyro model with a plain guide function"),
}


@pytest.mark.parametrize(("model", "guide", "message"), REFUSED.values(), ids=REFUSED)
def test_pairs_that_do_not_match_are_refused(model, guide, message: str) -> None:
    x = rows("binary") if isinstance(model, pv.Model) else reals()
    with pytest.raises(ValueError, match=message):
        pv.fit(model, x, guide=guide, method=SHORT)
    assert dict(pyro.get_param_store()) == {}
