"""AnnData: counts, layers and observations come in with their names, and codes go back beside the cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

import ppl_vae as pv
from ppl_vae.data.sparse import Sparse
from ppl_vae.types import FitWarning

anndata = pytest.importorskip("anndata", reason="anndata is not installed: pip install 'ppl_vae[anndata]'")

N, D = 40, 5
GENES = [f"gene{place}" for place in range(D)]
MODEL = pv.VAE(latent_dim=2, likelihood=pv.Poisson(), decoder=pv.MLP(hidden=(5,)))
GUIDE = pv.AmortizedNormal(encoder=pv.MLP(hidden=(5,)))


def cells(*, sparse: bool = True, seed: int = 0, **layers: Any) -> Any:
    """Raw counts as float32, as most files have them, with what was observed of each cell."""
    rng = np.random.default_rng(seed)
    x = rng.poisson(1.0, (N, D)).astype(np.float32)
    observed = pd.DataFrame(
        {
            "type": pd.Categorical(rng.choice(["T", "B"], N), categories=["T", "B", "none of them"]),
            "batch": rng.choice(["one", "two"], N),
            "percent.mito": rng.random(N),
            "doublet": rng.random(N) < 0.2,
            "donor": rng.integers(1, 4, N),
        },
        index=[f"cell{row}" for row in range(N)],
    )
    held = scipy.sparse.csr_matrix(x) if sparse else x
    found = anndata.AnnData(X=held, obs=observed, var=pd.DataFrame(index=GENES), layers={"counts": held.copy(), **layers})
    if not layers:
        del found.layers["counts"]
    return found


def counts_of(found: Any) -> np.ndarray:
    return np.asarray(found.X.todense() if scipy.sparse.issparse(found.X) else found.X)


def whole(source: Any, **options: Any) -> pv.Data:
    return pv.load_data(source, valid=0.0, test=0.0, **options)


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("held", ["memory", "file", "view"])
def test_counts_come_with_the_names_of_genes_and_types(tmp_path: Path, held: str, *, sparse: bool) -> None:
    found = cells(sparse=sparse)
    found.write_h5ad(tmp_path / "cells.h5ad")
    source = {"memory": found, "file": tmp_path / "cells.h5ad", "view": found[::-1][::-1]}[held]
    data = whole(source, label="type")
    assert (data.spec.kind, data.spec.columns, data.spec.event_shape) == ("count", tuple(GENES), (D,))
    assert data.train.x.tolist() == counts_of(found).tolist()
    assert data.train.x.dtype == torch.uint8
    assert set(data.spec.classes) == {"T", "B"}
    assert [data.spec.classes[place] for place in data.train.y] == list(found.obs["type"])
    assert data.spec.fields == ()


def test_observations_stand_beside_the_counts(tmp_path: Path) -> None:
    found = cells()
    found.write_h5ad(tmp_path / "cells.h5ad")
    names = ("batch", "percent.mito", "doublet", "donor")
    for source in (found, tmp_path / "cells.h5ad"):
        data = whole(source, fields=names, label="type")
        about = {field.name: field for field in data.spec.fields}
        assert [about[name].kind for name in names] == ["integer", "real", "boolean", "integer"]
        assert about["batch"].vocabulary == ("one", "two")
        columns = data.train.fields.columns
        assert [about["batch"].vocabulary[place] for place in columns["batch"]] == list(found.obs["batch"])
        np.testing.assert_allclose(columns["percent.mito"], found.obs["percent.mito"], rtol=1e-6)
        assert columns["doublet"].tolist() == list(found.obs["doublet"])
        assert columns["donor"].tolist() == list(found.obs["donor"])


def test_a_layer_takes_the_place_of_x_which_is_remarked_on(tmp_path: Path) -> None:
    found = cells(normal=np.zeros((N, D)))
    raw = counts_of(found)
    found.X = np.log1p(raw / raw.sum(1, keepdims=True).clip(1) * 1e4)
    found.write_h5ad(tmp_path / "cells.h5ad")
    for source in (found, tmp_path / "cells.h5ad"):
        with pytest.warns(FitWarning, match=r"X holds fractions, as log-normal.* name the layer that has them \(layer=, of"):
            assert whole(source).spec.kind == "real"
        assert whole(source, layer="counts").train.x.tolist() == raw.tolist()
        assert whole(source, kind="real").spec.kind == "real"  # said to be none
        with pytest.raises(ValueError, match="expected a layer among counts, normal, got 'count': name one"):
            whole(source, layer="count")
    found.X = raw - raw.mean(0)
    with pytest.warns(FitWarning, match="negative numbers, as scaled values do"):
        whole(found)


def test_counts_stay_sparse_and_fits_take_cells_by_gene(tmp_path: Path) -> None:
    found = cells()
    found.write_h5ad(tmp_path / "cells.h5ad")
    data = pv.load_data(tmp_path / "cells.h5ad", counts="sparse", label="type", fields=("batch",))
    assert isinstance(data.train.raw, Sparse)
    some = whole(found, columns=("gene3", "gene0"))
    assert some.spec.columns == ("gene3", "gene0")
    assert some.train.x.tolist() == counts_of(found)[:, [3, 0]].tolist()
    assert whole(found, drop=("gene1",)).spec.columns == ("gene0", "gene2", "gene3", "gene4")
    condition = pv.Covariates(categories=("batch", "doublet"), numbers=("percent.mito",), size_factors="total")
    model = pv.CVAE(condition=condition, prior=pv.StandardNormal(), likelihood=pv.Poisson(), latent_dim=2)
    source = pv.DataSource(source=str(tmp_path / "cells.h5ad"), counts="sparse", fields=condition.fields)
    fit = pv.fit(model, source, guide=GUIDE, method=pv.SVI(epochs=1))
    codes = fit.encode(fit.rows(fit.data, "all"))
    assert codes.shape == (N, 2)
    found[:, ::-1].write_h5ad(tmp_path / "turned.h5ad")
    turned = fit.rows(fit.data.of(str(tmp_path / "turned.h5ad")), "all")
    assert torch.allclose(fit.encode(turned), codes, atol=1e-6)
    for source in (found[:, ::-1], tmp_path / "turned.h5ad"):
        assert torch.allclose(torch.as_tensor(fit.encode(source)), codes, atol=1e-6)


def test_codes_go_back_and_a_slash_in_a_key_does_no_harm(tmp_path: Path) -> None:
    found = cells()
    codes = torch.randn(N, 2)
    assert pv.put_codes(found, codes) == ("X_ppl_vae",)
    assert pv.put_codes(found, {"top/z": codes[:, :, None], "z": codes}, key="X") == ("X_top_z", "X_z")
    found.write_h5ad(tmp_path / "coded.h5ad")
    again = anndata.read_h5ad(tmp_path / "coded.h5ad")  # of a key with / AnnData 0.12 makes a group, which it cannot read
    np.testing.assert_array_equal(again.obsm["X_top_z"], codes)
    assert again.obsm["X_ppl_vae"].dtype == np.float32
    with pytest.raises(ValueError, match="expected a code for each of 40 cells, got 3"):
        pv.put_codes(found, codes[:3])
    with pytest.raises(ValueError, match="under different keys"):
        pv.put_codes(found, {"a/b": codes, "a_b": codes})


def test_what_is_no_anndata_or_lacks_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.h5ad").write_bytes(b"no hdf5")
    with pytest.raises(ValueError, match=r"bad.h5ad: expected a readable .h5ad file, got a damaged one"):
        whole(tmp_path / "bad.h5ad")
    found = cells()
    with pytest.raises(ValueError, match=r"expected observations among type, .*, donor, got 'celltype'"):
        whole(found, label="celltype")
    with pytest.raises(ValueError, match="expected layer for AnnData"):
        pv.load_data(np.ones((5, 2)), layer="counts")
    found.obs.loc["cell3", "batch"] = None
    with pytest.raises(ValueError, match=r"a level of batch for each row, got none in 1 rows, first in row 3"):
        whole(found, fields=("batch",))
    twice = anndata.AnnData(X=np.ones((3, 2)), var=pd.DataFrame(index=["a", "b"]))
    twice.var_names = ["a", "a"]
    with pytest.raises(ValueError, match=r"different names, got 'a' twice: call var_names_make_unique"):
        whole(twice)
    with pytest.raises(ValueError, match="expected X, got none: name a layer"):
        whole(anndata.AnnData(obs=pd.DataFrame(index=["a", "b"]), var=pd.DataFrame(index=["g"])))
