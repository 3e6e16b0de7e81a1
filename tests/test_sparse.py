"""Sparse rows: held by their entries, dense batch by batch, with the numbers of the same rows held dense."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch

import ppl_vae as pv
from ppl_vae.data.fingerprint import fingerprint
from ppl_vae.data.sparse import Sparse

GUIDE = pv.AmortizedNormal(encoder=pv.MLP(hidden=(6,)))
MODEL = pv.VAE(latent_dim=2, likelihood=pv.NegativeBinomial(), decoder=pv.MLP(hidden=(6,)))


def counts(n: int = 120, columns: int = 9, seed: int = 0) -> np.ndarray:
    """Two kinds of rows, most of whose entries are zero."""
    rng = np.random.default_rng(seed)
    rates = np.where(np.arange(n)[:, None] % 2 == np.arange(columns) % 2, 2.0, 0.1)
    return rng.poisson(rates).astype(np.int64)


def both(x: np.ndarray, **options: object) -> list[pv.Data]:
    return [pv.load_data(scipy.sparse.csr_matrix(x), counts=how, **options) for how in ("dense", "sparse")]


def test_rows_are_chosen_as_those_of_a_tensor() -> None:
    x = counts()
    held = Sparse(scipy.sparse.csr_matrix(x), "rows")
    dense = torch.from_numpy(x)
    places = torch.tensor([7, 3, 3, 0])
    for rows in (slice(5, 20), places, dense[:, 0] > 0, slice(0, 0)):
        assert torch.equal(held[rows].tensor(), dense[rows])
        assert torch.equal(held[rows].compact().tensor(), dense[rows])
    assert torch.equal(held[40:].dense(places), dense[40:][places])
    assert torch.equal(held[places].chosen([4, 0, 8]).tensor(), dense[places][:, [4, 0, 8]])
    assert torch.equal(held[:3].followed_by([held[places], held[:0]]).tensor(), torch.cat([dense[:3], dense[places]]))
    assert torch.equal(torch.cat(list(held.split(7))), dense)
    assert torch.equal(held.mapped(lambda values: 2 * values).to(dtype=torch.float32).tensor(), 2.0 * dense)
    with pytest.raises(ValueError, match="expected finite values, got inf"):
        Sparse(scipy.sparse.csr_matrix([[0.0, np.inf]]), "rows")


def test_splits_are_those_of_dense_rows() -> None:
    dense, sparse = both(counts(), seed=3)
    assert dense.spec == sparse.spec
    for name in ("train", "valid", "test"):
        one, other = dense.part(name), sparse.part(name)
        assert isinstance(other.raw, Sparse)
        assert torch.equal(one.transformed(), other.transformed())
        assert torch.equal(torch.cat(list(one.batches(7))), torch.cat(list(other.batches(7))))
        orders = (torch.Generator().manual_seed(1), torch.Generator().manual_seed(1))
        pairs = zip(*(part.batches(7, generator=each) for part, each in zip((one, other), orders, strict=True)), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert fingerprint(dense.train) == fingerprint(sparse.train)
    assert torch.equal(sparse.train.followed_by([sparse.test]).x, dense.train.followed_by([dense.test]).x)


@pytest.mark.parametrize("options", [{"scale": "standardize"}, {"scale": "unit"}, {"dequantize": "dynamic"}], ids=str)
def test_transforms_are_those_of_dense_rows(options: dict) -> None:
    dense, sparse = both(counts(), **options)
    assert dense.spec == sparse.spec
    assert torch.equal(dense.valid.transformed(), sparse.valid.transformed())
    for one, other in zip(dense.train.transform.constants, sparse.train.transform.constants, strict=True):
        assert torch.equal(one, other)


def test_training_on_sparse_rows_is_training_on_dense_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppl_vae.inference.training.step.WORTH_RECORDING", 5)
    ways, fits = (False, "auto"), []  # of dense rows eager, of sparse ones recorded
    for data, way in zip(both(counts()), ways, strict=True):
        method = pv.SVI(epochs=3, batch_size=16, compile=way)
        fits.append((pv.fit(MODEL, data, guide=GUIDE, method=method), data))
    (dense, data), (sparse, held) = fits
    assert [row["elbo"] for row in sparse.history] == pytest.approx([row["elbo"] for row in dense.history], rel=1e-5)
    one, other = dense.evaluate(data.test, samples=3), sparse.evaluate(held.test, samples=3)
    assert {**other} == pytest.approx({**one}, rel=1e-5)
    assert torch.allclose(dense.encode(data.test), sparse.encode(held.test), atol=1e-5)
    assert torch.allclose(dense.reconstruct(data.test), sparse.reconstruct(held.test), rtol=1e-4)
    assert torch.allclose(dense.encode(data.test), dense.encode(held.test))  # either fit takes either


@pytest.mark.parametrize("model", [pv.FactorAnalysis(latent_dim=2), pv.GMM(components=2)], ids=["FA", "GMM"])
def test_em_walks_sparse_rows_in_blocks(model: pv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    x = counts()
    dense, sparse = (pv.load_data(scipy.sparse.csr_matrix(x), counts=how, scale="standardize") for how in ("dense", "sparse"))
    monkeypatch.setattr("ppl_vae.data.matrices.ELEMENTS", 9 * 20)  # 20 rows at once
    found = [pv.fit(model, data, method=pv.EM(max_iterations=5)).history[-1] for data in (dense, sparse)]
    assert found[1]["elbo"] == pytest.approx(found[0]["elbo"], rel=1e-5)


def test_sparse_rows_take_the_memory_of_their_entries() -> None:
    rng = np.random.default_rng(0)
    matrix = scipy.sparse.random(20_000, 5_000, density=0.02, format="csr", rng=rng, dtype=np.float32)
    matrix.data = np.floor(1 + 5 * matrix.data)
    data = pv.load_data(matrix, counts="sparse")
    held = sum(part.raw.nbytes for part in (data.train, data.valid, data.test))
    assert held < 0.15 * 20_000 * 5_000  # bytes, of which a dense uint8 would take one an entry
    assert data.spec.kind == "count"
    some = next(data.train.batches(64))
    assert some.shape == (64, 5_000)
    chosen = data.train[torch.arange(64)]
    assert torch.equal(chosen.transformed(), some)


def test_files_of_sparse_matrices_stay_sparse(tmp_path: Path) -> None:
    x = counts()
    scipy.sparse.save_npz(tmp_path / "x.npz", scipy.sparse.csc_matrix(x))
    found = pv.load_data(tmp_path / "x.npz", counts="sparse", valid=0.0, test=0.0)
    assert torch.equal(found.train.x, torch.from_numpy(x).to(torch.uint8))
    lines = [f"{row + 1} {word + 1} {x[row, word]}" for row, word in zip(*x.nonzero(), strict=True)]
    (tmp_path / "docword.few.txt").write_text("\n".join(["120", "9", str(len(lines)), *lines]) + "\n")
    (tmp_path / "vocab.few.txt").write_text("\n".join("abcdefghi") + "\n")
    words = pv.load_data(tmp_path / "docword.few.txt", counts="sparse", valid=0.0, test=0.0)
    assert torch.equal(words.train.x, found.train.x)
    assert words.spec.columns == tuple("abcdefghi")  # text, not bytes: new documents find their words
    fewer = pv.fit(MODEL, words, guide=GUIDE, method=pv.SVI(epochs=1))
    other = words.train.chosen([8, 7, 6, 5, 4, 3, 2, 1, 0])
    assert torch.allclose(fewer.encode(other), fewer.encode(words.train))
    assert torch.allclose(torch.as_tensor(fewer.encode(scipy.sparse.csr_matrix(x))), fewer.encode(words.train))
