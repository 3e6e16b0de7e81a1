"""Rows that have weights: a row of weight w counts as w rows, one of weight 0 as none, and nothing else changes."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import ppl_vae as pv
from ppl_vae.evaluate.rows import mean, standard_error
from ppl_vae.exact import covariances, linear_gaussian, missing, mixture, mixture_missing, mixture_start, moments, profile
from ppl_vae.exact.moments import Weighted

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


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ([1.0, -1.0, 1.0], "not negative, got -1 in row 1"),
        ([1.0, np.nan, 1.0], "got none for 1 of 3, first in row 1"),
        ([1.0, np.inf, 1.0], "finite and not negative, got inf in row 1"),
        ([0.0, 0.0, 0.0], "some weight above 0"),
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
    with pytest.raises(ValueError, match="em does not look at the weights"):
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
