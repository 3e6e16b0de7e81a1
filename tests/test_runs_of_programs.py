"""Plain Pyro pairs answer every verb by runs of their programs: codes, data of codes, new data, what the codes hold."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal
from pyro.infer.autoguide.initialization import init_to_median
from pyro.nn import PyroModule
from torch import Tensor
from torch.distributions import constraints

import ppl_vae as pv
from ppl_vae.program.pair import Pair
from tests.plain_programs import PROGRAMS, SUMMED, Case, Programs

N = 30
FROZEN = pv.SVI(epochs=1, learning_rate=1e-12, compile=False)


@pytest.fixture(autouse=True)
def store() -> Iterator[None]:
    """An empty parameter store before and after."""
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


def normal(count: int = N, columns: int = 2) -> Tensor:
    return 1 + torch.randn(count, columns, generator=torch.Generator().manual_seed(0))


def fitted(model: Callable, guide: Callable, x: Tensor | tuple | None = None, **options: object) -> pv.inference.Fit:
    torch.manual_seed(0)
    given = normal() if x is None else x
    arrays = tuple(part.numpy() for part in given) if isinstance(given, tuple) else given.numpy()
    data = pv.load_data(arrays, valid=0.0, test=0.0, scale="none", **options)
    return pv.fit(model, data, guide=guide, method=pv.SVI(epochs=1, learning_rate=1e-12, compile=False, batch_size=N))


# --- the twin of a declared model ---------------------------------------------------------------------------------------------


def test_the_plain_twin_of_a_declared_vae_gives_its_numbers() -> None:
    data = pv.load_data(normal(60, 4).numpy(), valid=0.0, test=0.0)
    decoder = pv.MLP(hidden=(5,))
    vae = pv.VAE(latent_dim=2, likelihood=pv.Gaussian(), decoder=decoder)
    ours = pv.fit(vae, data, guide=pv.AmortizedNormal(encoder=decoder), method=pv.SVI(epochs=2, compile=False))
    program, proposal = ours.pair.model, ours.pair.guide

    def model(x: Tensor) -> None:
        with pv.data_plate(60, x):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", program.decode(z), obs=x)

    def guide(x: Tensor) -> None:
        pyro.param("unused", torch.zeros(()))
        with pv.data_plate(60, x):
            pyro.sample("z", proposal.posterior(x))

    theirs = pv.fit(model, data, guide=guide, method=FROZEN)
    x = data.train
    for verb in ("encode", "reconstruct"):
        torch.testing.assert_close(getattr(theirs, verb)(x), getattr(ours, verb)(x))
    torch.testing.assert_close(theirs.encode(x, samples=3, seed=2), ours.encode(x, samples=3, seed=2))
    z = torch.randn(5, 7, 2)
    torch.testing.assert_close(theirs.decode(z), ours.decode(z))
    torch.testing.assert_close(theirs.sample(9, seed=4, means=True), ours.sample(9, seed=4, means=True))
    mine, other = (fit.evaluate(x, samples=200) for fit in (ours, theirs))
    for name in ("elbo", "iwae", "reconstruction"):
        assert other[name] == pytest.approx(mine[name], abs=0.05)
    held, told = (fit.latents(x) for fit in (ours, theirs))
    assert told["active_units"] == held["active_units"]
    assert told["mean_variance"] == pytest.approx(held["mean_variance"], rel=1e-4)
    assert told["kl"] == pytest.approx(held["kl"], rel=1e-4)


# --- every sort of program ----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:samples are drawn one after the other")
@pytest.mark.parametrize("name", [name for name in PROGRAMS if name not in ("nested plate in part", "PyroSample")])
def test_every_pair_answers_every_verb(name: str) -> None:
    case: Case = PROGRAMS[name]
    torch.manual_seed(0)
    x = normal()[:12]
    fit = fitted(*case.programs(), x)
    before = {name: value.clone() for name, value in fit.pair.state_dict().items()}
    codes, draws = (_by_name(fit.encode(x, samples=samples)) for samples in (None, 3))
    assert codes.keys() == draws.keys()
    for site, code in codes.items():
        assert code.isfinite().all()
        assert draws[site].shape == (3, *code.shape)
        assert site in fit.shared or len(code) == 12
    if case.score != "unnormalized_objective" or name == "density in the guide":
        assert all(len(value) == 12 and value.isfinite().all() for value in _by_name(fit.reconstruct(x)).values())
    if name != "rows drawn with replacement" and "factor" not in name:
        new = _by_name(fit.sample(5, seed=1))
        assert all(len(value) == 5 for value in new.values())
        if codes and set(codes) - set(fit.shared):
            decoded = fit.decode(fit.encode(x))
            assert all(len(value) == 12 for value in _by_name(decoded).values())
    found = fit.latents(x)
    assert ("kl" in found) == (case.score == "elbo")
    assert all(torch.equal(value, before[name]) for name, value in fit.pair.state_dict().items())


def _by_name(value: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    return value if isinstance(value, dict) else {"": value}


def nested() -> Programs:
    """The data stand left of a plate of two, whose latent variable has a vector."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", N, subsample=x, dim=-2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("parts", 2, dim=-1):
                w = pyro.sample("w", dist.Normal(z[..., None] + torch.tensor([0.0, 1.0, 2.0]), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(w.sum(-1), 1.0), obs=x)

    def guide(x: Tensor) -> None:
        scale = pyro.param("scale", torch.tensor(0.5))
        with pyro.plate("data", N, subsample=x, dim=-2):
            z = pyro.sample("z", dist.Normal(x.mean(-1, keepdim=True), scale))
            with pyro.plate("parts", 2, dim=-1):
                pyro.sample("w", dist.Normal((z + x)[..., None] * torch.tensor([1.0, 2.0, 3.0]), 0.5).to_event(1))

    return Programs(model, guide)


def test_the_data_come_first_and_means_are_fed_forward() -> None:
    fit, x = fitted(*nested()), normal()
    z = x.mean(-1, keepdim=True)
    w = (z + x)[..., None] * torch.tensor([1.0, 2.0, 3.0])
    codes = fit.encode(x)
    torch.testing.assert_close(codes["z"], z[:, 0])
    torch.testing.assert_close(codes["w"], w)
    assert {name: tuple(draws.shape) for name, draws in fit.encode(x, samples=4).items()} == {"z": (4, N), "w": (4, N, 2, 3)}
    torch.testing.assert_close(fit.reconstruct(x), w.sum(-1))
    torch.testing.assert_close(fit.decode(codes), w.sum(-1))
    torch.testing.assert_close(fit.decode({"z": torch.tensor([1.0, 2.0])}), torch.tensor([[6.0, 6.0], [9.0, 9.0]]))
    assert fit.decode({"z": torch.zeros(4, 5)}).shape == (4, 5, 2)


def test_discrete_variables_have_their_mode_and_draws() -> None:
    def model(x: Tensor) -> None:
        locs = pyro.param("locs", torch.tensor([-2.0, 0.0, 2.0]))
        with pv.data_plate(N, x):
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])))
            pyro.sample("x", dist.Normal(locs[k][..., None].expand(*k.shape, 2), 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        near = -(x.mean(-1, keepdim=True) - torch.tensor([-2.0, 0.0, 2.0])).square()
        with pv.data_plate(N, x):
            pyro.sample("k", dist.Categorical(logits=near), infer=SUMMED)

    fit, x = fitted(model, guide), normal()
    nearest = (x.mean(-1, keepdim=True) - torch.tensor([-2.0, 0.0, 2.0])).square().argmin(-1)
    assert torch.equal(fit.encode(x), nearest)
    assert set(fit.encode(x, samples=20).unique().tolist()) <= {0, 1, 2}
    torch.testing.assert_close(fit.reconstruct(x)[:, 0], torch.tensor([-2.0, 0.0, 2.0])[nearest])
    torch.testing.assert_close(fit.decode([0, 2])[:, 1], torch.tensor([-2.0, 2.0]))


# --- what all data share ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("automatic", [AutoNormal, AutoMultivariateNormal, AutoDelta])
def test_what_all_data_share_has_one_value(automatic: Callable) -> None:
    def model(x: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 3.0).to_event(1))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pv.data_plate(N, x):
            pyro.sample("x", dist.Normal(mu, scale[..., None] if scale.dim() else scale).to_event(1), obs=x)

    fit = fitted(model, automatic(model, init_loc_fn=init_to_median))
    codes, draws = fit.encode(normal()), fit.encode(normal(), samples=50, seed=1)
    assert fit.shared == ("mu", "scale")
    assert codes["mu"].shape == (2,)
    assert codes["scale"].shape == ()
    assert draws["mu"].shape == (50, 2)
    torch.testing.assert_close(fit.reconstruct(normal()), codes["mu"].expand(N, 2))
    x = fit.sample(4000, seed=2)
    torch.testing.assert_close(x.mean(0), codes["mu"], atol=0.2, rtol=0)
    torch.testing.assert_close(x.std(0), codes["scale"].expand(2), atol=0.1, rtol=0.05)
    found = fit.latents(normal())
    assert found["units"] == 0
    if automatic is AutoNormal:
        assert found["kl"] == pytest.approx(sum(site["kl"] for site in found["sites"].values()))
        mu = dist.Normal(codes["mu"], 0.1), dist.Normal(torch.zeros(2), 3.0)
        assert found["sites"]["mu"]["kl"] == pytest.approx(torch.distributions.kl_divergence(*mu).sum().item() / N, abs=0.02)
    if automatic is AutoMultivariateNormal:
        assert "kl_by_site" in found["notes"]
        assert "sites" not in found


def test_draws_of_what_all_data_share_are_the_same_at_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["ppl_vae.evaluate.observed"], "ROWS_AT_ONCE", 7)

    def model(x: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pv.data_plate(N, x):
            z = pyro.sample("z", dist.Normal(mu, 1.0))
            pyro.sample("x", dist.Normal(z[..., None], 1.0).expand([*z.shape, 2]).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 1.0))
        with pv.data_plate(N, x):
            pyro.sample("z", dist.Normal(mu, 1e-6))

    fit = fitted(model, guide)
    codes = fit.encode(normal(20), samples=6)
    torch.testing.assert_close(codes["z"], codes["mu"].reshape(6, 1).expand(6, 20), atol=1e-4, rtol=0)


# --- summed variables ---------------------------------------------------------------------------------------------------------


def test_data_of_codes_are_averaged_over_what_the_model_sums_out() -> None:
    fit, x = fitted(*PROGRAMS["mixture prior"].programs()), normal()
    weights, locs = torch.tensor([0.3, 0.7]), torch.tensor([-1.0, 1.5])
    assert fit.encode(x).shape == (N,)
    torch.testing.assert_close(fit.reconstruct(x), fit.encode(x))
    mixed = fitted(*PROGRAMS["mixture"].programs())
    assert mixed.encode(x) == {}
    responsible = (weights.log() + dist.Normal(locs, 1.0).log_prob(x[:, :1])).softmax(-1)
    torch.testing.assert_close(mixed.reconstruct(x), responsible @ locs)
    torch.testing.assert_close(mixed.posterior(x).probs, responsible)
    with pytest.raises(ValueError, match="plain Pyro program, which has no `posterior`"):
        fitted(*PROGRAMS["conjugate"].programs()).posterior(x)


def test_of_a_summed_chain_each_step_has_its_own_posterior() -> None:
    fit, x = fitted(*PROGRAMS["hidden Markov"].programs()), normal()
    locs, stay, total = torch.tensor([-1.0, 1.5]), torch.tensor([[0.8, 0.2], [0.4, 0.6]]), 0.0
    means, second = torch.zeros(2, N), torch.zeros(2, N)
    for c in (0, 1):
        for a in range(2):
            for b in range(2):
                path = torch.stack([locs[a], locs[b]]) + c
                weight = (0.3 if c else 0.7) * stay[0, a] * stay[a, b] * dist.Normal(path, 1.0).log_prob(x).sum(-1).exp()
                total, means = total + weight, means + weight * path[:, None]
                second[b] += weight
    found = fit.reconstruct(x)
    torch.testing.assert_close(found["x_0"], means[0] / total)
    torch.testing.assert_close(found["x_1"], means[1] / total)
    q = fit.posterior(x)
    assert set(q) == {"c", "state_0", "state_1"}
    torch.testing.assert_close(q["state_1"].probs, (second / total).T)


# --- fields, sizes, refusals --------------------------------------------------------------------------------------------------


def regression() -> Programs:
    def model(x: Tensor, y: Tensor) -> None:
        with pv.data_plate(N, x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(torch.stack([z, y], -1), 0.1).to_event(1), obs=x)

    def guide(x: Tensor, y: Tensor) -> None:
        with pv.data_plate(N, x):
            pyro.sample("z", dist.Normal(x[:, 0] * pyro.param("slope", torch.tensor(0.5)), 1.0))

    return Programs(model, guide)


def test_programs_of_two_fields_are_given_rows() -> None:
    x, y = normal(), torch.arange(float(N))
    fit = fitted(*regression(), (x, y))
    torch.testing.assert_close(fit.encode((x, y)), 0.5 * x[:, 0])
    torch.testing.assert_close(fit.reconstruct((x, y)), torch.stack([0.5 * x[:, 0], y], -1))
    new = fit.sample(3, x=(x[:3], y[:3]), means=True)
    torch.testing.assert_close(new[:, 1], y[:3])
    torch.testing.assert_close(fit.decode([0.0, 2.0], x=(x[4:5], y[4:5])), torch.tensor([[0.0, 4.0], [2.0, 4.0]]))
    with pytest.raises(ValueError, match=r"hangs on the data that it is called with.*give it rows"):
        fit.sample(3)
    with pytest.raises(ValueError, match="expected one condition or 5, got 3"):
        fit.sample(5, x=(x[:3], y[:3]))


def test_programs_of_one_size_work_in_chunks() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", N):
            z = pyro.sample("z", dist.Normal(torch.zeros(N), 1.0))
            pyro.sample("x", dist.Normal(z[..., None] * torch.ones(2), 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", N):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(N)), 1.0))

    fit = fitted(model, guide)
    z = torch.arange(70.0)
    torch.testing.assert_close(fit.decode(z), z[:, None].expand(70, 2))
    x = fit.sample(70, seed=0)
    assert x.shape == (70, 2)
    assert len(x[:, 0].unique()) == 70
    assert fit.encode(normal()).shape == (N,)


def test_draws_of_the_data_are_in_the_units_of_their_source() -> None:
    model, guide = PROGRAMS["conjugate"].programs()

    def wide(x: Tensor) -> None:
        with pv.data_plate(N, x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[..., None] * torch.ones(2), 1.0).to_event(1), obs=x)

    data = pv.load_data((100 + 20 * normal(200)).numpy(), valid=0.0, test=0.0, scale="standardize")
    fit = pv.fit(wide, data, guide=guide, method=FROZEN)
    assert fit.sample(2000).mean() == pytest.approx(120.0, abs=4.0)
    assert fit.sample(2000, seen=True).mean() == pytest.approx(0.0, abs=0.2)
    assert model is not wide


def test_what_has_no_mean_or_is_seen_in_part_is_refused() -> None:
    def guide(x: Tensor) -> None:
        eta = pyro.param("eta", torch.tensor(1.0), constraint=constraints.positive)
        with pv.data_plate(N, x):
            pyro.sample("z", dist.LKJCholesky(2, eta).expand([len(x)]))

    def model(x: Tensor) -> None:
        with pv.data_plate(N, x):
            z = pyro.sample("z", dist.LKJCholesky(2, 1.0))
            pyro.sample("x", dist.MultivariateNormal(torch.zeros(2), scale_tril=z), obs=x)

    fit = fitted(model, guide)
    with pytest.raises(ValueError, match=r"z: LKJCholesky has no mean to take: draw from it instead"):
        fit.encode(normal())
    assert fit.encode(normal(), samples=2).shape == (2, N, 2, 2)
    part = fitted(*PROGRAMS["nested plate in part"].programs())
    with pytest.raises(ValueError, match="w stands in the plate 'inner', of which a run sees a random part"):
        part.encode(normal())
    factor = fitted(*PROGRAMS["factor in the model"].programs())
    with pytest.raises(ValueError, match=r"observes nothing of a datum but by pyro\.factor"):
        factor.reconstruct(normal())


def test_a_module_with_positive_codes() -> None:
    class Model(PyroModule):
        def forward(self, x: Tensor) -> None:
            with pv.data_plate(N, x):
                rate = pyro.sample("rate", dist.Gamma(2.0, 2.0))
                pyro.deterministic("double", 2 * rate)
                pyro.sample("x", dist.Poisson(rate[..., None] * torch.ones(2)).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        shape = pyro.param("shape", torch.tensor(4.0), constraint=constraints.positive)
        with pv.data_plate(N, x):
            pyro.sample("rate", dist.Gamma(shape, shape / (1 + x.mean(-1))))

    counts = normal().abs().floor()
    fit = fitted(Model(), guide, counts)
    torch.testing.assert_close(fit.encode(counts), 1 + counts.mean(-1))
    torch.testing.assert_close(fit.reconstruct(counts), (1 + counts.mean(-1, keepdim=True)).expand(N, 2))
    assert isinstance(fit.pair, Pair)
    assert torch.equal(fit.sample(50).frac(), torch.zeros(50, 2))
