"""Covariates and size factors: how they reach the programs, new rows by name, and what they leave in the codes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from scipy import stats

import ppl_vae as pv
from ppl_vae.evaluate import elbo_terms
from ppl_vae.evaluate.bounds import bounds
from ppl_vae.types import FitWarning
from tests.table import GUIDES, TINY

ALL = pv.Covariates(categories=("batch", "sex"), numbers=("mito",), size_factors="total")
GIVEN = pv.Covariates(categories=("batch",), size_factors="size")
SIZED = pv.Covariates(size_factors="total")
N, D = 90, 6


def model(condition: pv.Condition = ALL, **changes: Any) -> pv.CVAE:
    fields = {"prior": pv.StandardNormal(), "likelihood": pv.Poisson(), "latent_dim": 2, "decoder": TINY}
    return pv.CVAE(condition=condition, **fields | changes)


def fields(seed: int = 0, batches: str = "abc", n: int = N) -> dict[str, Any]:
    """Counts whose totals differ, and what else is known of them."""
    rng = np.random.default_rng(seed)
    size = rng.lognormal(3.0, 0.5, n)
    share = rng.dirichlet(np.ones(D), n)
    return {
        "x": rng.poisson(size[:, None] * share),
        "batch": rng.choice(list(batches), n),
        "sex": rng.integers(0, 2, n).astype(bool),
        "mito": rng.normal(5.0, 2.0, n),
        "size": size,
    }


def read(names: tuple[str, ...], **options: Any) -> pv.Data:
    found = fields()
    return pv.load_data({name: found[name] for name in ("x", *names)}, **options)


def built(condition: pv.Covariates, guide: pv.Guide = GUIDES["AmortizedNormal-diagonal"], **changes: Any) -> Any:
    """A pair, a batch for it, and the data."""
    declared = model(condition, **changes)
    data = declared.resolve(read(condition.fields))
    torch.manual_seed(0)
    pair = pv.build(declared, guide, data.spec)
    return pair, next(data.train.read(pair.reads, 20)), data


@pytest.fixture(scope="module")
def fitted() -> pv.Fit:
    return pv.fit(model(), read(ALL.fields), guide=pv.AmortizedNormal(encoder=TINY), method=pv.SVI(epochs=2))


# --- the programs ---------------------------------------------------------------------------------------------------------


def test_fields_are_coded_standardized_and_scaled() -> None:
    data = model(ALL).resolve(read(("batch", "sex", "mito")))
    about = {field.name: field for field in data.spec.fields}
    assert (about["batch"].vocabulary, about["sex"].vocabulary) == (("a", "b", "c"), ("False", "True"))
    _, batch, sex, mito = next(data.train.read(("x", "batch", "sex", "mito"), len(data.train)))
    assert (batch.dtype, sex.dtype) == (torch.int64, torch.int64)
    assert mito.mean().abs() < 1e-5
    assert float(mito.std(correction=0)) == pytest.approx(1.0, rel=1e-5)
    sized = model(GIVEN).resolve(read(GIVEN.fields))
    _, _, size = next(sized.train.read(("x", "batch", "size"), len(sized.train)))
    assert float(size.double().log().mean()) == pytest.approx(0.0, abs=1e-6)
    assert model(ALL).resolve(data).spec == data.spec


@pytest.mark.parametrize("guide", GUIDES.values(), ids=GUIDES)
def test_every_amortized_guide_is_told_covariates(guide: pv.Guide) -> None:
    for prior in (pv.StandardNormal(), pv.OneHotCategorical(), pv.ProjectedNormal()):
        try:
            pair, batch, _ = built(ALL, guide, prior=prior)
        except ValueError:
            continue
        pv.ELBO(particles=3).build(pair)(*batch)[0].backward()
        without = [name for name, parameter in pair.named_parameters() if parameter.grad is None or not parameter.grad.any()]
        assert without == []
        assert elbo_terms(pair, batch, samples=2).elbo.shape == (20,)
        return
    assert type(guide) in (pv.ExactPosterior, pv.BayesianGuide)


@pytest.mark.parametrize("enters", [(), ("decoder",), ("encoder",), ("decoder", "encoder")], ids=str)
def test_covariates_enter_where_they_are_declared_and_sizes_only_the_mean(enters: tuple) -> None:
    pair, (x, batch, sex, mito), _ = built(ALL, enters=enters)
    z = torch.randn(len(x), 2)
    others = ((batch + 1) % 3, sex, mito), (batch, 1 - sex, mito), (batch, sex, mito + 1)
    with torch.no_grad():
        mean, code = (
            pair.model.decode(z, *pair.model.known(x, batch, sex, mito)).mean,
            pair.guide.posterior(x, batch, sex, mito),
        )
        for other in others:
            assert torch.equal(mean, pair.model.decode(z, *pair.model.known(x, *other)).mean) != ("decoder" in enters)
            assert torch.equal(code.mean, pair.guide.posterior(x, *other).mean) != ("encoder" in enters)
    assert torch.allclose(mean.sum(-1), x.sum(-1), rtol=1e-5)  # a size counts once


@pytest.mark.parametrize("condition", [ALL, GIVEN, SIZED], ids=["all", "given", "total"])
@pytest.mark.parametrize(
    "likelihood", [pv.Poisson(), pv.NegativeBinomial(), pv.ZeroInflated(likelihood=pv.NegativeBinomial())], ids=repr
)
def test_log_probabilities_are_those_of_scipy_at_the_scaled_mean(condition: pv.Covariates, likelihood: pv.Likelihood) -> None:
    pair, batch, data = built(condition, likelihood=likelihood)
    pair.double()
    x, z = batch[0].double(), torch.randn(len(batch[0]), 2, dtype=torch.float64)
    batch = (x, *(part.double() if part.is_floating_point() else part for part in batch[1:]))
    with torch.no_grad():
        known = pair.model.known(*batch)
        features = pair.model.decoder(z, known[1])
        found = pair.model.decode(z, *known).log_prob(x)
    h = features[:, likelihood.log_mean]
    rate = h.exp() if condition is GIVEN else h.softmax(-1)
    size = data.train.fields.columns["size"][:20].double() if condition is GIVEN else x.sum(-1)
    size = size / data.spec.fields[-1].scale[0] if condition is GIVEN else size
    mean, counts = (size[:, None] * rate).numpy(), x.numpy()
    if isinstance(likelihood, pv.Poisson):
        expected = stats.poisson(mean).logpmf(counts)
    else:  # one dispersion a column, whatever the row
        expected = stats.nbinom(2.0, 2.0 / (2.0 + mean)).logpmf(counts)
    if isinstance(likelihood, pv.ZeroInflated):
        gate = features[:, 0].sigmoid().numpy()
        expected = np.log(gate * (counts == 0) + (1 - gate) * np.exp(expected))
    np.testing.assert_allclose(found, expected.sum(-1), rtol=1e-5)


def test_a_row_without_counts_has_the_size_1() -> None:
    pair, _, _ = built(SIZED)
    found = pair.model.known(torch.zeros(1, D))[0]
    assert found.tolist() == [[0.0]]


def test_many_samples_and_annealing_take_covariates(fitted: pv.Fit) -> None:
    data = read(ALL.fields)
    gaps, ais = pv.Gaps(samples=8, window=10, max_steps=20), pv.AIS(temperatures=4)
    numbers = fitted.evaluate(data, samples=20, gaps=gaps, ais=ais, limit=4)
    assert all(math.isfinite(value) for name, value in numbers.items() if isinstance(value, float) and not name.endswith("_se"))
    assert numbers["elbo"] <= numbers["iwae"] + 0.1  # other draws
    assert fitted.latents(data)["active_units"] >= 0
    assert fitted.sample_quality(read(ALL.fields, test=0.3))


def test_the_bound_of_a_batch_is_that_of_its_rows() -> None:
    pair, batch, _ = built(ALL)
    torch.manual_seed(0)
    with torch.no_grad():
        together = bounds(pair, batch, samples=1)[0].kl
        alone = torch.cat([bounds(pair, tuple(part[row : row + 1] for part in batch), samples=1)[0].kl for row in range(3)])
    assert torch.allclose(together[:3], alone, atol=1e-5)


@pytest.mark.parametrize("inflated", [False, True])
def test_dispersions_are_gene_wise_and_the_likeliest_ones(inflated: bool) -> None:
    rng = np.random.default_rng(0)
    true = np.array([0.5, 4.0, 2.0])
    x = torch.from_numpy(rng.negative_binomial(true, true / (true + 8.0), (3000, 3))).double()
    x = x.where(torch.from_numpy(rng.random(x.shape) > 0.3), 0.0) if inflated else x
    counts = pv.NegativeBinomial()
    declared = pv.ZeroInflated(likelihood=counts) if inflated else counts
    built = declared.build((3,)).double()
    h = torch.zeros(1, declared.features, 3, dtype=torch.float64, requires_grad=True)
    ascent = torch.optim.LBFGS([h, *built.parameters()], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        ascent.zero_grad()
        found = -built(h).log_prob(x).mean()
        found.backward()
        return found

    ascent.step(loss)
    found = (built.likelihood if inflated else built).scale.detach().numpy()
    assert found.shape == (3,)
    np.testing.assert_allclose(found, true, rtol=0.25)
    np.testing.assert_allclose(h[0, declared.log_mean].exp().detach(), 8.0, rtol=0.1)


# --- a fit ----------------------------------------------------------------------------------------------------------------


def test_training_records_steps_with_covariates(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for worth in (10**9, 3):
        monkeypatch.setattr("ppl_vae.inference.training.step.WORTH_RECORDING", worth)
        fit = pv.fit(model(), read(ALL.fields), guide=pv.AmortizedNormal(encoder=TINY), method=pv.SVI(epochs=3, batch_size=10))
        ends.append([row["elbo"] for row in fit.history])
    assert ends[0] == ends[1]


def test_new_rows_meet_covariates_by_name(fitted: pv.Fit) -> None:
    found = {name: values for name, values in fields().items() if name != "size"}
    codes = fitted.encode(found)
    assert isinstance(codes, np.ndarray)  # as they came in
    rows = pv.load_data(found, valid=0.0, test=0.0).train
    np.testing.assert_array_equal(fitted.encode(rows), codes)
    some = {name: values[found["batch"] == "c"] for name, values in found.items()}  # whose own levels are but one
    np.testing.assert_allclose(fitted.encode(some), codes[found["batch"] == "c"], atol=1e-6)
    sparse = {**found, "x": scipy.sparse.csr_matrix(found["x"])}
    np.testing.assert_allclose(fitted.encode(sparse), codes, atol=1e-6)
    whole = {**found, "mito": np.round(found["mito"]).astype(int)}
    assert np.isfinite(fitted.encode(whole)).all()
    assert fitted.score_samples(found, samples=5).log_prob.shape == (N,)
    with pytest.raises(ValueError, match=r"expected batch among the levels a, b, c, got 'd': fit again with rows of it"):
        fitted.encode({**found, "batch": np.full(N, "d")})
    with pytest.raises(ValueError, match="expected the fields x, batch, sex, mito, got the fields x, batch, sex"):
        fitted.encode({name: found[name] for name in ("x", "batch", "sex")})
    with pytest.raises(ValueError, match="got none called 'batch'"):
        fitted.encode(pv.load_data(found["x"], valid=0.0, test=0.0).train)


def test_a_covariate_that_makes_a_score_nan_is_named(fitted: pv.Fit) -> None:
    found = {name: values for name, values in fields().items() if name != "size"}
    found["mito"] = np.where(np.arange(N) == 2, 1e38, found["mito"])
    with pytest.raises(ValueError, match=r"NaN for 1 of 90 rows, the first of them row 2: row 2 holds 1e\+38 in 'mito'"):
        fitted.score_samples(found, samples=5)


def test_codes_are_decoded_as_if_of_another_batch(fitted: pv.Fit) -> None:
    rows = pv.load_data({name: fields()[name] for name in ("x", *ALL.fields)}, valid=0.0, test=0.0).train
    codes = fitted.encode(rows)
    own = fitted.decode(codes, x=rows)
    assert torch.allclose(own, fitted.reconstruct(rows), rtol=1e-5)
    assert torch.allclose(own.sum(-1), rows.x.sum(-1).float(), rtol=1e-4)
    other = fitted.decode(codes, x=rows, y={"batch": "b"})
    same = torch.from_numpy(fields()["batch"] == "b")
    assert torch.allclose(own[same], other[same], rtol=1e-5)
    assert not torch.isclose(own[~same], other[~same]).all(-1).any()
    each = fitted.decode(codes, x=rows, y={"batch": fields()["batch"], "mito": fields()["mito"]})
    assert torch.allclose(each, own, rtol=1e-4)
    one = fitted.decode(codes[:1], y={"batch": "a", "sex": True, "total": 50.0})
    assert float(one.sum()) == pytest.approx(50.0, rel=1e-5)
    typical = fitted.decode(codes[:1], y={"batch": "a", "sex": True})
    assert 10 < float(typical.sum()) < 40
    with pytest.raises(ValueError, match="expected sex, one of False, True: give y="):
        fitted.decode(codes, y={"batch": "a"})
    with pytest.raises(ValueError, match="expected covariates by name, of batch, sex, mito, total, got the names batsch"):
        fitted.decode(codes, y={"batsch": "a"})
    with pytest.raises(ValueError, match="expected covariates by name, of batch, sex, mito, total, got 'a'"):
        fitted.decode(codes, y="a")
    with pytest.raises(ValueError, match="positive sizes"):
        fitted.decode(codes, x=rows, y={"total": 0.0})


def test_samples_are_of_chosen_covariates(fitted: pv.Fit) -> None:
    assert fitted.sample(7).shape == (7, D)
    big = fitted.sample(200, y={"batch": "a", "total": 1000.0})
    assert float(big.sum(-1).mean()) == pytest.approx(1000.0, rel=0.02)
    rows = read(ALL.fields).test
    assert fitted.sample(len(rows), x=rows).shape == (len(rows), D)
    with pytest.raises(ValueError, match="expected one value of a covariate or one for each, got 2 and 3"):
        fitted.sample(3, y={"batch": ["a", "b"], "total": [1.0, 2.0, 3.0]})


def test_a_run_keeps_levels_scales_and_the_typical_size(fitted: pv.Fit, tmp_path: Path) -> None:
    pv.save_run(fitted, read(ALL.fields), tmp_path / "run")
    again = pv.load_run(tmp_path / "run")
    assert again.spec == fitted.spec
    found = {name: values for name, values in fields().items() if name != "size"}
    np.testing.assert_array_equal(again.encode(found), fitted.encode(found))
    y = {"batch": "b", "sex": "True", "mito": 4.0}
    assert torch.equal(again.decode(torch.zeros(1, 2), y=y), fitted.decode(torch.zeros(1, 2), y=y))


# --- where they come from -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", ["csv", "parquet", "pandas"])
def test_columns_of_a_table_stand_beside_it(tmp_path: Path, held: str) -> None:
    found = fields()
    frame = pd.DataFrame(found["x"], columns=list("uvwxyz")).assign(
        batch=found["batch"], sex=found["sex"], mito=found["mito"], site=found["x"][:, 0] % 3
    )
    source: Any = {"csv": tmp_path / "a.csv", "parquet": tmp_path / "a.parquet", "pandas": frame}[held]
    if held == "csv":
        frame.to_csv(source, index=False)
    elif held == "parquet":
        frame.to_parquet(source)
    condition = pv.Covariates(categories=("batch", "sex", "site"), numbers=("mito",), size_factors="total")
    data = pv.load_data(source, fields=condition.fields, kind="count")
    assert (data.spec.columns, data.spec.kind) == (tuple("uvwxyz"), "count")
    resolved = model(condition).resolve(data)
    about = {field.name: field.vocabulary for field in resolved.spec.fields}
    assert about == {
        "x": (),
        "batch": ("a", "b", "c"),
        "sex": ("False", "True"),
        "site": ("0", "1", "2"),
        "mito": (),
    }
    fit = pv.fit(model(condition), data, guide=pv.AmortizedNormal(encoder=TINY), method=pv.SVI(epochs=1))
    codes, turned = fit.encode(frame), frame.iloc[::-1, ::-1]
    turned.to_csv(tmp_path / "b.csv", index=False)
    pd.testing.assert_frame_equal(fit.encode(turned), codes.iloc[::-1], atol=1e-6)
    np.testing.assert_allclose(fit.encode(tmp_path / "b.csv"), codes.iloc[::-1], atol=1e-6)
    with pytest.raises(ValueError, match=r"expected a column for the field 'batsch', got .*: did you mean batch"):
        pv.load_data(source, fields=("batsch",))


def test_sparse_counts_have_covariates_beside_them() -> None:
    found = {name: values for name, values in fields().items() if name != "size"}
    codes = []
    for how in ("dense", "sparse"):
        data = pv.load_data({**found, "x": scipy.sparse.csr_matrix(found["x"])}, counts=how)
        fit = pv.fit(model(), data, guide=pv.AmortizedNormal(encoder=TINY), method=pv.SVI(epochs=2, batch_size=16))
        codes.append(fit.encode(data.test))
        assert fit.decode(codes[-1], x=data.test, y={"batch": "a"}).shape == (len(data.test), D)
    assert torch.allclose(*codes, atol=1e-5)


# --- refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: pv.Covariates(), "covariates of different names, at least one"),
        (lambda: pv.Covariates(categories=("a",), numbers=("a",)), "covariates of different names"),
        (lambda: pv.Covariates(numbers=("total",)), "no field called total"),
        (lambda: model(baseline=pv.Baseline()), "no baseline with covariates"),
        (lambda: model(SIZED, likelihood=pv.Gaussian()).check(read(()).spec), "size factors multiply a mean"),
        (
            lambda: model(ALL).resolve(read(("batch",))),
            r"expected the covariate sex as a field beside x.*fields=\('sex', ...\)",
        ),
        (lambda: model(pv.Covariates(categories=("mito",))).resolve(read(("mito",))), "got real ones: name it among numbers"),
        (lambda: model(pv.Covariates(size_factors="mito")).resolve(negative()), "expected positive sizes in mito, got -"),
        (lambda: pv.build(model(ALL), GUIDES["AmortizedNormal-diagonal"], read(("batch",)).spec), "model.resolve"),
        (lambda: pv.fit(model(GIVEN), read(("batch", "size", "mito"))), "expected the fields batch, size beside x"),
        (lambda: built(ALL, prior=pv.VampPrior(components=2)), "need labels of their own"),
    ],
    ids=range(11),
)
def test_what_cannot_be_is_refused(make: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()


def negative() -> pv.Data:
    found = fields()
    return pv.load_data({"x": found["x"], "mito": found["mito"] - 5.0})


def test_a_prior_that_knows_covariates_is_remarked_on() -> None:
    data = model(GIVEN).resolve(read(GIVEN.fields))
    with pytest.warns(FitWarning, match=r"codes may hold what these tell: declare prior=StandardNormal\(\)"):
        pv.build(model(GIVEN, prior=pv.ConditionalNormal()), GUIDES["AmortizedNormal-diagonal"], data.spec)


def test_levels_without_training_rows_are_told() -> None:
    found = fields()
    held_out = pv.load_data({"x": found["x"], "row": np.arange(N)}).test.fields.columns["row"][0]
    data = pv.load_data({"x": found["x"], "batch": np.where(np.arange(N) == int(held_out), "rare", found["batch"])})
    with pytest.warns(FitWarning, match="nothing of levels of batch without a row of training data: rare"):
        model(pv.Covariates(categories=("batch",))).resolve(data)
