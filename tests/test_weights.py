"""Rows that have weights: a row of weight w counts as w rows, one of weight 0 as none, and nothing else changes."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import infer
from torch import Tensor
from torch.distributions import constraints
from torch.utils._pytree import tree_leaves

import ppl_vae as pv
from ppl_vae import cli
from ppl_vae.data.fields import WEIGHTS, taken
from ppl_vae.data.matrices import Matrices
from ppl_vae.evaluate.rows import mean, standard_error
from ppl_vae.exact import covariances, linear_gaussian, missing, mixture, mixture_missing, mixture_start, moments, profile
from ppl_vae.exact.moments import Weighted
from ppl_vae.inference.methods.nuts import _Posterior
from ppl_vae.inference.objectives.given import objective_of
from ppl_vae.program.context import local_params
from ppl_vae.program.weighing import weighing

STRUCTURES = ("full", "tied", "diagonal", "spherical")


def rows(size: int = 60, columns: int = 3, *, holes: float = 0.0, seed: int = 0) -> Tensor:
    """Two clusters, of which entries may be missing."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, columns, generator=generator, dtype=torch.float64)
    x = x @ (torch.eye(columns) + 0.5).double()
    x[: size // 3] += 5.0
    if holes:
        x[torch.rand(x.shape, generator=generator) < holes] = torch.nan
    return x


def counts(size: int = 60, *, seed: int = 1) -> Tensor:
    """Whole weights from 0 to 3."""
    return torch.randint(0, 4, (size,), generator=torch.Generator().manual_seed(seed)).double()


def repeated(x: Tensor, weights: Tensor) -> Tensor:
    return x.repeat_interleave(weights.long(), 0)


def loaded(x: Any, weights: Any = None, **options: Any) -> pv.Data:
    return pv.load_data(x, weights=weights, valid=0, test=0, **options)


def alike(a: Any, b: Any, *, tolerance: float = 1e-10) -> None:
    for one, other in zip(tree_leaves(a), tree_leaves(b), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


# --- where they come from


def told(objective: Any) -> str:
    return str(objective) if isinstance(objective, pv.Objective) else type(objective).__name__


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ([1.0, -1.0, 1.0], "not negative, got -1 in row 1"),
        ([1.0, np.nan, 1.0], "got none for 1 of 3, first in row 1"),
        ([1.0, np.inf, 1.0], "finite and not negative, got inf in row 1"),
        ([0.0, 0.0, 0.0], "some weight above zero"),
        ([1.0, 1.0], r"one weight for each of 3 rows, got weights of shape \(2,\)"),
        ([[1.0], [1.0], [1.0]], r"got weights of shape \(3, 1\)"),
        (["a", "b", "c"], "weights as numbers"),
    ],
)
def test_weights_that_are_none(weights: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        loaded(np.arange(3.0), weights)


def test_a_split_without_a_row_that_counts() -> None:
    x, options = np.arange(10.0), {"test": 0.1, "valid": 0}
    (alone,) = pv.load_data(x, **options).test.x.flatten().tolist()
    with pytest.raises(ValueError, match="0 for all 1 rows of test"):
        pv.load_data(x, weights=x != alone, **options)


def test_weights_go_with_their_rows() -> None:
    x = np.arange(40.0)
    data = pv.load_data(x, weights=x + 1)
    for split in (data.train, data.valid, data.test):
        assert split.weights is not None
        assert torch.equal(split.weights, split.x[:, 0] + 1)
    train = data.train
    assert torch.equal(train[3:5].weights, train.weights[3:5])
    assert torch.equal(train[train.weights > 9].weights, train.x[train.weights > 9][:, 0] + 1)
    assert torch.equal(train.to("cpu", torch.float64).weights, train.weights)
    assert torch.equal(train.followed_by([data.test]).weights, torch.cat([train.weights, data.test.weights]))
    assert train.total == data.spec.weight == float(train.weights.sum())
    assert train.effective_number == pytest.approx(train.total**2 / float(train.weights.square().sum()))
    assert f"weighted: {train.effective_number:.4g} effective" in repr(train)
    assert "effective" in repr(data)
    assert "effective" not in repr(pv.load_data(x))


def test_the_column_of_the_weights_is_no_feature(tmp_path: Any) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": np.arange(9.0), "w": np.arange(9) + 1.0, "b": np.arange(9.0) ** 2})
    frame.to_csv(tmp_path / "t.csv", index=False)
    np.savez(tmp_path / "t.npz", a=frame["a"], b=frame["b"], w=frame["w"])
    sources = [frame, tmp_path / "t.csv", tmp_path / "t.npz"]
    if pytest.importorskip("pyarrow"):
        frame.to_parquet(tmp_path / "t.parquet")
        sources.append(tmp_path / "t.parquet")
    for source in sources:
        data = loaded(source, "w")
        assert data.spec.columns == ("a", "b")
        assert torch.equal(data.train.weights, data.train.x[:, 0].double() + 1)
        assert data.source.weights == "w"
        with pytest.raises(ValueError, match=r"among|arrays"):
            loaded(source, "nobody")
    with pytest.raises(ValueError, match="weights once"):
        pv.load_data(pv.DataSource(source=str(tmp_path / "t.csv"), weights="w"), weights=np.ones(9))


def test_weights_where_they_would_not_be_looked_at(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match="beside the rows"):
        pv.load_data("digits", weights="w")
    np.save(tmp_path / "x.npy", rows())
    with pytest.raises(ValueError, match="beside the rows"):
        pv.load_data(tmp_path / "x.npy", weights="w")
    np.savez(tmp_path / "x.npz", train_values=np.arange(6), train_offsets=[0, 2, 6], test_values=[1], test_offsets=[0, 1])
    with pytest.raises(ValueError, match="splits of its own"):
        pv.load_data(tmp_path / "x.npz", weights=[1, 2])
    with pytest.raises(ValueError, match="loaded already"):
        pv.load_data(pv.load_data(rows()), weights=np.ones(60))


def test_a_column_that_has_holes(tmp_path: Any) -> None:
    (tmp_path / "t.csv").write_text("a,w\n1.5,1\n2.5,NA\n3.5,2\n")
    with pytest.raises(ValueError, match="a weight for each row, got none for 1 of 3"):
        loaded(tmp_path / "t.csv", "w")


class _Blind(pv.GMM):
    """A model whose EM does not look at weights."""

    def build(self, spec: Any) -> Any:
        program = super().build(spec)
        program.takes_weights = False
        return program


def test_what_does_not_look_at_weights_is_refused() -> None:
    data = loaded(rows(), counts())
    with pytest.raises(ValueError, match="EM of this model does not look at the weights of rows: load the data without"):
        pv.fit(_Blind(components=2), data, method=pv.EM())

    class Other(pv.EM):
        takes_weights = False

    with pytest.raises(ValueError, match="expected rows without weights for Other"):
        pv.fit(pv.GMM(components=2), data, method=Other())


# --- expectation maximization and closed forms


def test_moments_of_weighted_rows() -> None:
    x, w = rows(), counts()
    alike(moments.moments(Weighted(x, w), rows=7)[:3], moments.moments(repeated(x, w))[:3])
    broken = rows(holes=0.2)
    alike(moments.columns(Weighted(broken, w)), moments.columns(repeated(broken, w)))
    alike(moments.moments(Weighted([x[:20], x[20:]], w))[:3], moments.moments(repeated(x, w))[:3])
    with pytest.raises(ValueError, match="a weight for each"):
        moments.moments(Weighted(x, w[:-1]))
    with pytest.raises(ValueError, match="a weight for each"):
        moments.moments(Weighted(x, torch.cat([w, w])))


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("holes", [0.0, 0.2])
def test_em_of_mixtures(structure: str, holes: float) -> None:
    x, w = rows(holes=holes), counts()
    covariance = covariances.covariance(structure)
    start = mixture_start.initial(x, 2, covariance, generator=torch.Generator().manual_seed(0))
    step = partial((mixture_missing if holes else mixture).em_step, covariance=covariance, floor=1e-3)
    weighted, plain = start, start
    for _ in range(20):
        weighted, value = step(weighted, Weighted(x, w))
        plain, expected = step(plain, repeated(x, w))
        alike((weighted, value), (plain, expected))


def test_mixtures_far_from_each_other() -> None:
    """Of components about their own means, because the expanded square would cancel."""
    x, w = rows(), counts()
    x[:20] += 1e8
    start = mixture_start.initial(x, 2, covariances.Full(), generator=torch.Generator().manual_seed(0))
    weighted, _ = mixture.em_step(start, Weighted(x, w), covariances.Full())
    plain, _ = mixture.em_step(start, repeated(x, w), covariances.Full())
    alike(weighted, plain, tolerance=1e-9)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_starts_count_rows(structure: str) -> None:
    x, w = rows(), counts()
    kept = w > 0
    covariance = covariances.covariance(structure)
    centers = x[[3, 40]]
    labels = mixture_start.assign(x, centers)[0]
    alike(
        mixture_start._from_labels(x[kept], labels[kept], 2, covariance, 1e-6, w[kept]),
        mixture_start._from_labels(repeated(x, w), repeated(labels, w), 2, covariance, 1e-6),
    )
    alike(mixture_start.kmeans(x[kept], centers, 5, w[kept]), mixture_start.kmeans(repeated(x, w), centers, 5))


def test_seeds_are_drawn_by_their_weights() -> None:
    x, w = rows(), torch.zeros(60, dtype=torch.float64)
    w[[4, 50]] = 1.0
    centers = mixture_start.kmeans_plus_plus(x, 2, torch.Generator().manual_seed(0), w)
    assert {tuple(center) for center in centers.tolist()} == {tuple(x[4].tolist()), tuple(x[50].tolist())}


@pytest.mark.parametrize("isotropic", [False, True])
def test_em_of_factors(isotropic: bool) -> None:
    x, w = rows(), counts()
    seen, expected = moments.moments(Weighted(x, w)), moments.moments(repeated(x, w))
    if isotropic:
        seen, expected = moments.rooted(seen), moments.rooted(expected)
    floor = linear_gaussian.noise_floor(expected)
    start = profile.initial(expected, 1)
    step = partial(linear_gaussian.em_step, isotropic=isotropic, floor=floor)
    weighted, plain = step(start, seen), step(start, expected)
    alike(weighted, plain)
    broken = rows(holes=0.2)
    begin = missing.initial(repeated(broken, w), 1)
    alike(missing.initial(Weighted(broken, w), 1), begin)
    weighted = plain = begin
    for _ in range(10):
        weighted, value = missing.em_step(weighted, Weighted(broken, w), isotropic=isotropic, floor=floor)
        plain, of_plain = missing.em_step(plain, repeated(broken, w), isotropic=isotropic, floor=floor)
        alike((weighted, value), (plain, of_plain))


ALL_AT_ONCE = [
    (pv.FactorAnalysis(latent_dim=1), pv.EM(max_iterations=50, tolerance=0.0)),
    (pv.PPCA(latent_dim=1), pv.EM(max_iterations=20, tolerance=0.0)),
    (pv.PPCA(latent_dim=1), pv.ClosedForm()),
    (pv.PCA(latent_dim=1), pv.ClosedForm()),
]


@pytest.mark.filterwarnings("ignore::ppl_vae.FitWarning")
@pytest.mark.parametrize(("model", "method"), ALL_AT_ONCE)
def test_fits_of_weighted_rows(model: Any, method: Any) -> None:
    x, w = rows(), counts()
    weighted, plain = (pv.fit(model, data, method=method) for data in (loaded(x, w), loaded(repeated(x, w))))
    score = weighted.score.name
    assert weighted.history[-1][score] == pytest.approx(plain.history[-1][score], abs=1e-8)
    if weighted.without_latents is not None:
        assert weighted.without_latents == pytest.approx(plain.without_latents, abs=1e-10)
    if isinstance(method, pv.ClosedForm):
        alike(weighted.pair.state_dict(), plain.pair.state_dict())


@pytest.mark.filterwarnings("ignore::ppl_vae.FitWarning")
@pytest.mark.parametrize("holes", [0.0, 0.2])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_fits_of_weighted_mixtures(structure: str, holes: float) -> None:
    """From one start: random starts of other rows are others."""
    x, w = rows(holes=holes), counts()
    model, kind = pv.GMM(components=2, covariance=structure), {"missing": "ignore"} if holes else {}
    start = pv.fit(model, loaded(x, **kind), method=pv.EM(max_iterations=2))
    data = (loaded(x, w, **kind), loaded(repeated(x, w), **kind))
    weighted, plain = (pv.fit(model, each, method=pv.EM(max_iterations=8, tolerance=0.0), warm_start=start) for each in data)
    for one, other in zip(weighted.history, plain.history, strict=True):
        assert one["log_likelihood"] == pytest.approx(other["log_likelihood"], abs=1e-10)


@pytest.mark.filterwarnings("ignore::ppl_vae.FitWarning")
@pytest.mark.parametrize(("model", "method"), [*ALL_AT_ONCE, (pv.GMM(components=2), pv.EM())])
def test_what_weights_leave_as_it_is(model: Any, method: Any) -> None:
    """Rows of weight 0 are absent, whatever they hold; equal weights are none; no maximum knows their scale."""
    x, w = rows(), counts()
    score = pv.fit(model, loaded(x, w), method=method).history[-1]
    kept = pv.fit(model, loaded(x[w > 0], w[w > 0]), method=method).history[-1]
    odd = x.clone()
    odd[w == 0] = 1e5
    others = pv.fit(model, loaded(odd, w), method=method).history[-1]
    large, small = (pv.fit(model, loaded(x, w * scale), method=method).history[-1] for scale in (1e6, 1e-9))
    for row in (kept, others, large, small):
        assert row["objective"] == pytest.approx(score["objective"], abs=1e-9)
    equal, plain = (pv.fit(model, loaded(x, each), method=method).history[-1] for each in (torch.full((60,), 0.3), None))
    if not isinstance(model, pv.GMM):  # whose start draws other random numbers
        assert equal["objective"] == pytest.approx(plain["objective"], abs=1e-12)


# --- evaluation


def test_means_and_their_errors() -> None:
    values, w = torch.randn(50, dtype=torch.float64), torch.rand(50, dtype=torch.float64)
    expected = np.average(values.numpy(), weights=w.numpy())
    assert mean(values, w) == pytest.approx(expected, rel=1e-12)
    residuals = w.numpy() * (values.numpy() - expected)
    assert standard_error(values, w) == pytest.approx(np.sqrt((residuals**2).sum()) / w.numpy().sum(), rel=1e-12)
    assert standard_error(values, 7 * w) == pytest.approx(standard_error(values, w), rel=1e-12)
    assert standard_error(values, torch.full((50,), 3.0)) == pytest.approx(standard_error(values), rel=1e-12)


@pytest.mark.parametrize("kind", [pv.FactorAnalysis(latent_dim=1), pv.GMM(components=2)])
def test_evaluations_are_weighted_means(kind: Any) -> None:
    x = rows()
    w = torch.rand(60, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    fitted = pv.fit(kind, loaded(x), method=pv.EM())
    each = fitted.pair.model.log_prob(x.float()).detach().double().numpy()
    weighted, plain = fitted.evaluate(loaded(x, w).train, samples=30), fitted.evaluate(loaded(x).train)
    expected = np.average(each, weights=w.numpy())
    assert weighted["log_likelihood"] == pytest.approx(expected, abs=1e-10)
    spread = np.sqrt(((w.numpy() * (each - expected)) ** 2).sum()) / w.numpy().sum()
    assert weighted["log_likelihood_se"] == pytest.approx(spread, rel=1e-9)
    assert weighted["n"] == 60
    assert weighted["n_effective"] == pytest.approx(float(w.sum() ** 2 / w.square().sum()))
    assert "n_effective" not in plain
    equal = fitted.evaluate(loaded(x, torch.full((60,), 0.1)).train)
    assert equal.pop("n_effective") == pytest.approx(60)
    assert equal == pytest.approx(plain, rel=1e-12)


def test_weighted_rows_of_different_lengths() -> None:
    """The mean of what each row has, and of the tokens of a row."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 5, (30,), generator=generator)
    values = [torch.randint(0, 3, (int(length),), generator=generator).tolist() for length in lengths]
    w = torch.randint(1, 4, (30,), generator=generator).double()

    def model(x: Tensor, length: Tensor) -> None:
        logits = pyro.param("logits", torch.zeros(3))
        seen = pv.sequence_mask(length, x.shape[1])
        with pv.data_plate(30, x):
            pyro.sample("x", dist.Categorical(logits=logits).expand([x.shape[1]]).mask(seen).to_event(1), obs=x)

    def guide(x: Tensor, length: Tensor) -> None:
        """Nothing is latent."""

    data = pv.load_data({"x": pv.Ragged.from_list(values)}, weights=w, valid=0, test=0)
    fitted = pv.fit(model, data, guide=guide, method=pv.SVI(epochs=2, batch_size=7, learning_rate=0.1))
    found = fitted.evaluate(data.train)
    log_p = fitted.pair.state_dict()[next(iter(fitted.pair.state_dict()))].log_softmax(0)
    each = np.array([float(log_p[torch.tensor(row)].sum()) for row in values])
    assert found["elbo"] == pytest.approx(np.average(each, weights=w.numpy()), abs=1e-5)
    ratio = (each * w.numpy()).sum() / (lengths * w).sum().item()
    assert found["elbo_per_token"] == pytest.approx(ratio, abs=1e-5)
    assert found["tokens"] == pytest.approx(np.average(lengths.numpy(), weights=w.numpy()))
    residuals = w.numpy() * (each - ratio * lengths.numpy())
    assert found["elbo_per_token_se"] == pytest.approx(np.sqrt((residuals**2).sum()) / (lengths * w).sum().item(), rel=1e-4)


def test_rows_of_which_none_counts() -> None:
    fitted = pv.fit(pv.FactorAnalysis(latent_dim=1), loaded(rows()), method=pv.EM())
    w = torch.ones(60)
    w[:5] = 0.0
    with pytest.raises(ValueError, match="5 rows of weight 0"):
        fitted.evaluate(loaded(rows(), w).train, limit=5)


def test_on_the_command_line(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A run's own rows keep their weights; of others the column is named again."""
    x, w = rows(), counts() + 1
    for name, columns in (("t.csv", [x, w[:, None]]), ("new.csv", [x])):
        header = ",".join("abcw"[: sum(part.shape[1] for part in columns)])
        np.savetxt(tmp_path / name, torch.cat(columns, 1).numpy(), delimiter=",", header=header, comments="")
    table, new, run = (str(tmp_path / name) for name in ("t.csv", "new.csv", "run"))
    words = ["--model", "FactorAnalysis", "--model.latent_dim", "1", "--method", "EM", "--data", table, "--data.weights", "w"]
    cli.main(["fit", *words, "--out", run])
    assert "effective train rows" in capsys.readouterr().out
    found = []
    for others in ([], ["--data", table, "--weights", "w"], ["--data", new], ["--weights", "none"]):
        cli.main(["evaluate", run, "--json", "--split", "all", *others])
        found.append(json.loads(capsys.readouterr().out)["all"])
    assert found[0] == pytest.approx(found[1])
    assert "n_effective" not in found[3]
    assert found[2]["elbo"] == pytest.approx(found[3]["elbo"])
    assert found[0]["elbo"] != pytest.approx(found[3]["elbo"], abs=1e-4)


# --- gradient steps

GUIDE = pv.AmortizedNormal(encoder=pv.MLP(hidden=(5,)))
MODEL = pv.VAE(latent_dim=2, likelihood=pv.Gaussian(), decoder=pv.MLP(hidden=(5,)))

OBJECTIVES = [
    pv.ELBO(),
    pv.ELBO(kl="sampled", particles=3),
    pv.ELBO(gradient="sticking_the_landing"),
    pv.ELBO(gradient="score_function", particles=2),
    pv.ELBO(gradient="score_function", baseline="moving_average"),
    pv.BetaELBO(beta=3.0),
    pv.BetaELBO(free_bits=0.1),
    pv.BetaELBO(capacity=2.0, kl="sampled"),
    pv.IWAE(samples=4),
    pv.IWAE(samples=4, gradient="doubly_reparameterized"),
    pv.Renyi(alpha=0.3),
    pv.Renyi(alpha=-1.0, gradient="sticking_the_landing"),
]
BY_PYRO = [infer.Trace_ELBO(), infer.TraceMeanField_ELBO(), infer.TraceGraph_ELBO(), infer.Trace_ELBO(num_particles=2)]


def same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws of a normal are other ones by particle and dimension, and alike for all data."""

    def draw(self: Any, shape: Any = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(shape))
        noise = torch.linspace(-1.0, 1.3, shape[-1]).expand(shape)
        if len(shape) > 2:
            noise = noise + torch.linspace(-0.5, 0.9, shape[0]).reshape(-1, *(1 for _ in shape[1:]))
        return self.loc + self.scale * noise.to(self.loc)

    monkeypatch.setattr(torch.distributions.Normal, "rsample", draw)
    monkeypatch.setattr(torch.distributions.Normal, "sample", lambda self, shape=(): draw(self, shape).detach())


def climbed(objective: Any, data: pv.Data, model: Any = MODEL, guide: Any = GUIDE) -> tuple[Any, dict[str, Tensor]]:
    """What an objective finds of all data as one batch, and its gradients, in float64."""
    torch.manual_seed(3)
    pair = pv.build(model, guide, data.spec)
    x = data.train.transformed().double()
    pair.double().plates(x)
    pair.double()  # also what plain programs asked for at their first run
    built = objective_of(objective).build(pair).train()
    torch.manual_seed(3)
    with local_params(), weighing(data.train.weights):
        found = built(x)
    found.loss.backward()
    return found, {name: value.grad for name, value in pair.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("objective", [*OBJECTIVES, *BY_PYRO], ids=told)
def test_gradients_are_those_of_repeated_rows(objective: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    same_noise(monkeypatch)
    x, w = rows(12), counts(12)
    weighted, plain = climbed(objective, loaded(x, w)), climbed(objective, loaded(repeated(x, w)))
    torch.testing.assert_close(weighted, plain, rtol=1e-6, atol=1e-6, equal_nan=True)
    assert plain[1]
    scaled = climbed(objective, loaded(x, 50 * w))
    torch.testing.assert_close(scaled, weighted, rtol=1e-7, atol=1e-7, equal_nan=True)
    kept = climbed(objective, loaded(x[w > 0], w[w > 0]))
    torch.testing.assert_close(kept, weighted, rtol=1e-7, atol=1e-7, equal_nan=True)


def test_gradients_of_a_discrepancy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws of q(z) count by their rows' weights; those of the prior are all one point here, so that their number is none."""
    same_noise(monkeypatch)
    x, w = rows(12), counts(12)
    for objective in (pv.InfoVAE(), pv.InfoVAE(kl_weight=0.5, kernel="rbf", particles=2)):
        weighted, plain = climbed(objective, loaded(x, w)), climbed(objective, loaded(repeated(x, w)))
        torch.testing.assert_close(weighted, plain, rtol=1e-6, atol=1e-6)


def test_the_guide_sums_over_components() -> None:
    x, w = rows(12), counts(12)
    model = pv.GMM(components=2)
    weighted, plain = (climbed(pv.ELBO(), data, model, pv.ExactPosterior()) for data in (loaded(x, w), loaded(repeated(x, w))))
    torch.testing.assert_close(weighted, plain, rtol=1e-6, atol=1e-6)


def plain_model(x: Tensor) -> None:
    """Two levels in plain Pyro: m is of all data, z of each."""
    scale = pyro.param("scale", torch.ones(()), constraint=constraints.positive)
    m = pyro.sample("m", dist.Normal(torch.zeros(()), 2.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(m, 1.0).expand([len(x)]))
        pyro.sample("x", dist.Normal(z.unsqueeze(-1).expand(x.shape), scale).to_event(1), obs=x)


def plain_guide(x: Tensor) -> None:
    m = pyro.sample("m", dist.Normal(pyro.param("m_loc", torch.tensor(0.3)), 0.5))
    slope = pyro.param("slope", torch.tensor(0.2))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(slope * x.sum(-1) + 0.1 * m, 0.7))


@pytest.mark.parametrize("objective", [pv.ELBO(), pv.BetaELBO(beta=2.0), infer.Trace_ELBO()], ids=told)
def test_what_all_data_share_counts_once(objective: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside W = sum w rows: twice the weights are twice the data, and the prior is half as strong."""

    def draw(self: Any, shape: Any = ()) -> Tensor:
        return self.loc + 0.4 * self.scale.expand(self._extended_shape(torch.Size(shape)))

    monkeypatch.setattr(torch.distributions.Normal, "rsample", draw)
    x, w = rows(12).float(), counts(12)
    weighted, plain, twice, doubled = (
        climbed(objective, data, plain_model, plain_guide)
        for data in (loaded(x, w), loaded(repeated(x, w)), loaded(x, 2 * w), loaded(repeated(x, 2 * w)))
    )
    torch.testing.assert_close(weighted, plain, rtol=1e-5, atol=1e-5, equal_nan=True)
    torch.testing.assert_close(twice, doubled, rtol=1e-5, atol=1e-5, equal_nan=True)
    assert not torch.allclose(twice[0].loss, weighted[0].loss)


def test_losses_that_take_no_weights() -> None:
    data = loaded(rows().float(), counts())

    def own(model: Any, guide: Any, x: Tensor) -> Tensor:
        return infer.Trace_ELBO().differentiable_loss(model, guide, x)

    for loss in (infer.RenyiELBO(num_particles=2), own):
        with pytest.raises(ValueError, match="expected rows without weights for objective="):
            pv.fit(MODEL, data, guide=GUIDE, method=pv.SVI(epochs=1, objective=loss))


def test_models_that_sum_out() -> None:
    """Datum by datum where Pyro's own sum takes no weights."""

    def model(x: Tensor) -> None:
        locs = pyro.param("locs", torch.tensor([0.0, 3.0]))
        with pv.data_plate(60, x):
            k = pyro.sample("k", dist.Categorical(torch.ones(2)), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(locs[k].unsqueeze(-1), 1.0).expand([*k.shape, 3]).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        """Nothing is left to it."""

    x, w = rows().float(), counts()
    with pytest.raises(ValueError, match=r"sums out k.*IWAE\(samples=1\)"):
        pv.fit(model, loaded(x, w), guide=guide, method=pv.SVI(epochs=1))
    method = pv.SVI(epochs=3, objective=pv.IWAE(samples=1), batch_size=200)
    weighted, plain = (pv.fit(model, each, guide=guide, method=method) for each in (loaded(x, w), loaded(repeated(x, w))))
    assert weighted.history[-1]["elbo"] == pytest.approx(plain.history[-1]["elbo"], abs=1e-4)


def test_fits_by_gradients() -> None:
    """The weighted optimum, which closed forms know; batches estimate it without bias."""
    x, w = rows().float(), counts()
    exact = pv.fit(pv.PPCA(latent_dim=1), loaded(x, w), method=pv.ClosedForm())
    unweighted = pv.fit(pv.PPCA(latent_dim=1), loaded(x), method=pv.ClosedForm())
    method = pv.SVI(epochs=140, batch_size=30, learning_rate=0.05)
    climbed = pv.fit(pv.PPCA(latent_dim=1), loaded(x, w), guide=pv.ExactPosterior(), method=method)
    data = loaded(x, w).train
    best, reached, other = (fit.evaluate(data)["log_likelihood"] for fit in (exact, climbed, unweighted))
    assert other < best - 0.01
    assert best - 0.005 < reached <= best + 1e-6
    assert climbed.history[-1]["elbo"] == pytest.approx(reached, abs=0.01)


def test_equal_weights_are_none() -> None:
    x, method = rows().float(), pv.SVI(epochs=2, batch_size=16)
    equal, plain = (pv.fit(MODEL, loaded(x, w), guide=GUIDE, method=method) for w in (torch.full((60,), 0.25), None))
    for one, other in zip(equal.history, plain.history, strict=True):
        assert one["elbo"] == pytest.approx(other["elbo"], abs=1e-4)
    torch.testing.assert_close(equal.pair.state_dict(), plain.pair.state_dict(), rtol=1e-4, atol=1e-5)


def test_recorded_steps_are_eager_steps() -> None:
    x, w = rows().float(), counts()
    data = loaded(x, w)
    eager, recorded = (
        pv.fit(MODEL, data, guide=GUIDE, method=pv.SVI(epochs=30, batch_size=6, compile=compile)) for compile in (False, "auto")
    )
    for one, other in zip(eager.history, recorded.history, strict=True):
        for name in ("objective", "elbo", "reconstruction"):
            assert one[name] == pytest.approx(other[name], rel=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*steps of an epoch took:ppl_vae.FitWarning")
def test_compiled_steps_are_eager_steps() -> None:
    data = loaded(rows().float(), counts())
    eager, compiled = (
        pv.fit(MODEL, data, guide=GUIDE, method=pv.SVI(epochs=5, batch_size=20, compile=compile)) for compile in (False, True)
    )
    for one, other in zip(eager.history, compiled.history, strict=True):
        assert one["elbo"] == pytest.approx(other["elbo"], rel=1e-3)


def test_histories_are_evaluations() -> None:
    """Of parameters that stand still, in training and validation rows, by their weights."""
    x, w = rows(), counts()
    data = pv.load_data(x.float(), weights=w, test=0)
    start = pv.fit(pv.PPCA(latent_dim=1), data, method=pv.ClosedForm())
    method = pv.SVI(epochs=1, batch_size=10, learning_rate=1e-12, objective=pv.ELBO(kl="sampled"))
    still = pv.fit(pv.PPCA(latent_dim=1), data, guide=pv.ExactPosterior(), method=method, warm_start=start)
    (row,) = still.history
    assert row["elbo"] == pytest.approx(still.evaluate(data.train)["elbo"], abs=1e-4)
    assert row["valid_elbo"] == pytest.approx(still.evaluate(data.valid)["elbo"], abs=1e-5)


@pytest.mark.parametrize("kind", ["memory", "stream", "ragged", "partial"])
def test_batches_bring_the_weights_of_their_rows(kind: str, tmp_path: Any) -> None:
    x = np.arange(1.0, 41.0)
    if kind == "stream":
        np.save(tmp_path / "x.npy", x)
        data = pv.load_data(tmp_path / "x.npy", weights=x, stream=1)
    elif kind == "ragged":
        data = pv.load_data({"x": pv.Ragged.from_list([[value] * (1 + int(value) % 3) for value in x])}, weights=x)
    elif kind == "partial":
        data = pv.load_data({"x": x, "t": np.ma.masked_array(x, mask=x < 20)}, weights=x)
    else:
        data = pv.load_data(x, weights=x)
    reads = ("x", "t", WEIGHTS) if kind == "partial" else ("x", WEIGHTS)
    seen = []
    for block, rows in data.train.steps(7, generator=torch.Generator().manual_seed(0), reads=reads):
        first, *_, weights = taken(block, rows)
        assert torch.equal(first.reshape(len(rows), -1)[:, 0].double(), weights)
        seen += weights.tolist()
    assert sorted(seen) == sorted(data.train.weights.tolist())


def test_a_fit_goes_on_by_the_same_weights(tmp_path: Any) -> None:
    x, w = rows().float(), counts()
    data = pv.load_data(x, weights=w)
    method = pv.SVI(epochs=4, batch_size=16, schedule="constant")
    pv.fit(MODEL, data, guide=GUIDE, method=method, out=tmp_path / "run")
    longer = dataclasses.replace(method, epochs=7)
    for other in (None, w + 1):
        with pytest.raises(ValueError, match="other"):
            pv.resume_run(tmp_path / "run", method=longer, data=pv.load_data(x, weights=other))
    resumed = pv.resume_run(tmp_path / "run", method=longer, data=data)
    whole = pv.fit(MODEL, data, guide=GUIDE, method=longer)
    assert [row["elbo"] for row in resumed.history] == [row["elbo"] for row in whole.history]
    assert pv.load_run(tmp_path / "run").spec == data.spec


def test_a_first_guess_and_codes_are_weighted() -> None:
    """What modules learn of all data before and after the steps."""
    x, w = rows().float(), counts()
    coder = pv.AutoEncoder(latent_dim=1, likelihood=pv.Gaussian(), decoder=pv.MLP(hidden=(5,)))
    fitted = pv.fit(coder, loaded(x, w), method=pv.SVI(epochs=1))
    codes = fitted.encode(loaded(x).train).double().flatten().numpy()
    assert float(fitted.pair.model.prior.loc) == pytest.approx(np.average(codes, weights=w.numpy()), abs=1e-4)
    guess = pv.CVAE(
        latent_dim=1,
        condition=pv.Columns(columns=(0,)),
        likelihood=pv.Gaussian(scale="fixed"),
        decoder=pv.MLP(hidden=(4,)),
        baseline=pv.Baseline(network=pv.Linear(), epochs=200, batch_size=64, learning_rate=0.05),
    )
    only = torch.zeros(60)
    only[20:] = 1.0
    of_some = pv.fit(guess, loaded(x, only), method=pv.SVI(epochs=1))
    of_all = pv.fit(guess, loaded(x), method=pv.SVI(epochs=1))
    rest = x[20:]
    errors = [(f.pair.model.guessed(rest).mean - rest).square().mean().item() for f in (of_some, of_all)]
    assert errors[0] < errors[1]


# --- parameters with priors


BAYESIAN = [
    pv.FactorAnalysis(latent_dim=1, weights=pv.Normal(), loc=pv.Normal(scale=3.0), scale=pv.HalfNormal()),
    pv.GMM(components=2, covariance="diagonal", weights=pv.Dirichlet(), locs=pv.Normal(scale=5.0), scales=pv.HalfNormal()),
]


@pytest.mark.parametrize("model", BAYESIAN)
def test_a_row_of_weight_w_is_w_rows_beside_priors(model: Any) -> None:
    x, w = rows(12), counts(12)
    data = [loaded(x, w), loaded(repeated(x, w)), loaded(x, 2 * w), loaded(repeated(x, 2 * w))]
    found = []
    for each in data:
        torch.manual_seed(0)
        program = pv.build(model, pv.BayesianGuide(), each.spec).model
        posterior = _Posterior(program, Matrices(each.train), 0.0, each.train.total)
        torch.manual_seed(1)
        vector = torch.randn(posterior.coordinates.size, dtype=torch.float64) * 0.3
        found.append(torch.stack([*posterior.terms(vector), torch.tensor(posterior.size)]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found[2], found[3], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found[2][0], 2 * found[0][0])
    torch.testing.assert_close(found[2][1], found[0][1])


@pytest.mark.parametrize("parameters", ["map", "mean_field", "full_rank"])
@pytest.mark.parametrize("model", BAYESIAN)
def test_bayesian_guides_count_rows(model: Any, parameters: str) -> None:
    """With the exact posterior of z the objective is log p(x | theta) and the prior's terms, whatever z is drawn."""
    x, w = rows(12), counts(12)
    guide = pv.BayesianGuide(parameters=parameters)
    weighted, plain = (climbed(pv.ELBO(), data, model, guide) for data in (loaded(x, w), loaded(repeated(x, w))))
    torch.testing.assert_close(weighted[0].loss, plain[0].loss, rtol=1e-5, atol=1e-5)


def test_bayesian_fits_and_their_evaluations() -> None:
    """At points, so that nothing is drawn: the prior is shared out among W rows, in histories and evaluations."""
    x, w = rows(40).float(), counts(40)
    model, guide = BAYESIAN[0], pv.BayesianGuide(parameters="map")
    method = pv.SVI(epochs=2, batch_size=500, learning_rate=1e-7)
    data = loaded(x, w), loaded(repeated(x, w))
    weighted, plain = (pv.fit(model, each, guide=guide, method=method) for each in data)
    torch.testing.assert_close(weighted.pair.state_dict(), plain.pair.state_dict(), rtol=1e-4, atol=1e-5)
    found = weighted.evaluate(data[0].train)["log_joint"]
    assert found == pytest.approx(plain.evaluate(data[1].train)["log_joint"], abs=1e-4)
    assert found == pytest.approx(weighted.history[-1]["log_joint"], abs=1e-4)
    assert abs(found - weighted.evaluate(data[0].train)["log_likelihood"]) > 0.1


@pytest.mark.filterwarnings("ignore::ppl_vae.FitWarning")
def test_chains_see_the_weights() -> None:
    x, w = rows(12, 2), counts(12)
    model, method = BAYESIAN[0], pv.NUTS(samples=4, warmup=2, chains=1)
    weighted, plain = (
        pv.fit(model, data, guide=pv.BayesianGuide(), method=method) for data in (loaded(x, w), loaded(repeated(x, w)))
    )
    for one, other in zip(weighted.history, plain.history, strict=True):
        assert one["log_joint"] == pytest.approx(other["log_joint"], rel=1e-5)
