"""Cells with a batch effect: told the batch, codes hold the types and not the batch, and the bound is higher."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import NearestNeighbors

import ppl_vae as pv

anndata = pytest.importorskip("anndata", reason="anndata is not installed: pip install 'ppl_vae[anndata]'")

CELLS, GENES = 400, 60


class Found(NamedTuple):
    """How well batch and type are told from codes, how mixed the batches are, and the bound of held-out cells."""

    batch: float
    type: float
    same: float
    elbo: float


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three types of cells in two batches, which shift the rates of genes, read to different depths."""
    rng = np.random.default_rng(0)
    types, batch = rng.integers(0, 3, CELLS), rng.integers(0, 2, CELLS)
    log_rate = rng.normal(0, 1, GENES) + np.where(rng.random((3, GENES)) < 0.3, rng.normal(0, 1.5, (3, GENES)), 0)[types]
    rate = np.exp(log_rate + rng.normal(0, 0.7, (2, GENES))[batch])
    mean = rng.lognormal(6.0, 0.5, (CELLS, 1)) * rate / rate.sum(1, keepdims=True)
    x = rng.poisson(mean * rng.gamma(5.0, 1 / 5.0, mean.shape)).astype(np.float32)
    observed = pd.DataFrame(
        {"type": np.array(["B", "NK", "T"])[types], "batch": np.array(["one", "two"])[batch]},
        index=[f"cell{row}" for row in range(CELLS)],
    )
    cells = anndata.AnnData(
        X=scipy.sparse.csr_matrix(x), obs=observed, var=pd.DataFrame(index=[f"gene{place}" for place in range(GENES)])
    )
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    cells.write_h5ad(path)
    return path


def found(file: Path, categories: tuple[str, ...]) -> Found:
    """What a fit finds that is told these, and how deep each cell was read."""
    condition = pv.Covariates(categories=categories, size_factors="total")
    network = pv.MLP(hidden=(32,))
    model = pv.CVAE(
        condition=condition, prior=pv.StandardNormal(), likelihood=pv.NegativeBinomial(), latent_dim=4, decoder=network
    )
    data = pv.load_data(file, fields=categories, counts="sparse", valid=0.0)
    method = pv.SVI(epochs=40, batch_size=32, learning_rate=1e-2)
    fit = pv.fit(model, data, guide=pv.AmortizedNormal(encoder=network), method=method)
    codes, observed = fit.encode(fit.rows(fit.data, "all")).numpy(), anndata.read_h5ad(file).obs
    accuracy = {
        name: cross_val_score(LogisticRegression(), codes, observed[name].to_numpy(), cv=5).mean() for name in ("batch", "type")
    }
    batch = observed["batch"].to_numpy()
    near = NearestNeighbors(n_neighbors=20).fit(codes).kneighbors(return_distance=False)
    same = float((batch[near] == batch[:, None]).mean())
    return Found(accuracy["batch"], accuracy["type"], same, fit.evaluate(data.test, samples=10)["elbo"])


def test_codes_of_cells_that_are_told_their_batch_do_not_hold_it(file: Path) -> None:
    told, untold = found(file, ("batch",)), found(file, ())
    print(f"\nwith the batch {told}\nwithout        {untold}")
    assert untold.batch > 0.95
    assert told.batch < 0.6  # a coin gets 0.5
    assert untold.same > 0.95
    assert told.same < 0.6
    assert min(told.type, untold.type) > 0.97
    assert told.elbo > untold.elbo + 0.5
