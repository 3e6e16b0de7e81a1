"""The declared reproductions build, and a peer's networks are scored as the peer scores them."""

import json

import numpy as np
import pytest
import torch

from benchmarks import reproduce
from ppl_vae.evaluate import elbo_terms
from ppl_vae.fitting.build import build
from ppl_vae.program.pair import Pair
from ppl_vae.types import DataSpec


@pytest.mark.parametrize("row", reproduce.ROWS)
def test_a_row_builds_and_says_where_its_figure_comes_from(row):
    parts = reproduce.declared(row, epochs=None)
    spec = DataSpec(event_shape=(1, 28, 28), kind="binary", size=60000)
    pair = build(parts["model"], parts["guide"], spec)
    assert sum(parameter.numel() for parameter in pair.parameters()) > 100_000
    assert parts["method"].iterations == 100
    assert row in reproduce.PUBLISHED
    assert row in reproduce.FULL
    assert (reproduce.FOLDER / f"{row}.yaml").read_text(encoding="utf-8").startswith("# ")


def test_a_row_is_fitted_once_and_scored(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "omniglot28.npz", background=rng.integers(0, 256, (60, 28, 28), dtype=np.uint8))
    monkeypatch.setenv("PPL_VAE_DATA", str(tmp_path))
    first = reproduce.reproduce("vae_omniglot", tmp_path / "runs", epochs=1, samples=5, gaps=0)
    again = reproduce.reproduce("vae_omniglot", tmp_path / "runs", epochs=1, samples=5, gaps=0)
    assert first["epochs"] == 1
    assert first["iwae"] >= first["elbo"]
    assert again["iwae"] == first["iwae"]
    saved = json.loads((tmp_path / "runs" / "vae_omniglot" / "reproduction.json").read_text(encoding="utf-8"))
    assert saved["elbo"] == again["elbo"]


def test_the_peer_is_scored_by_its_own_loss():
    pytest.importorskip("pythae", reason="needs pythae: pip install ppl_vae[bench]")
    from benchmarks.peers import pythae_vae as peer

    torch.manual_seed(0)
    x = torch.rand(6, 1, 4, 4).bernoulli()
    vae = peer.network([16, 8, 3])
    pair = Pair(peer.Model(vae), peer.Guide(vae), mean_field=True)
    with torch.no_grad():
        ours = elbo_terms(pair, (x,), samples=4000).elbo.mean()
        theirs = torch.stack([vae({"data": x.flatten(1)}).loss for _ in range(4000)]).mean()
    assert ours.item() == pytest.approx(-theirs.item(), abs=0.05)
