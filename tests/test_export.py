"""Encoders and decoders as files: what onnxruntime and torch compute from them is what the fit says."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import ppl_vae as pv
from ppl_vae import cli
from ppl_vae.data import Split
from ppl_vae.fitting.graphs import exported, folded
from tests.two_levels import Exact, TwoLevels, drawn

onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="onnx, onnxscript (extra `export`) or onnxruntime is not installed",
)
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(60, 4, generator=generator) @ torch.randn(4, 4, generator=generator) + torch.tensor(
        [0.0, 5.0, -2.0, 1.0]
    )


def run(path: Path, **inputs: torch.Tensor) -> list[torch.Tensor]:
    """What the file computes."""
    if path.suffix == ".pt2":
        return list(torch.export.load(path).module()(*inputs.values()))
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == list(inputs)
    assert {value.shape[0] for value in (*session.get_inputs(), *session.get_outputs())} == {"batch"}
    return [torch.from_numpy(out) for out in session.run(None, {name: value.numpy() for name, value in inputs.items()})]


def vae(data: object, **options: object) -> pv.Fit:
    model = pv.VAE(latent_dim=2, decoder=pv.MLP(hidden=(8,)), **options)
    guide = pv.AmortizedNormal(encoder=pv.MLP(hidden=(8,)))
    return pv.fit(model, data, guide=guide, method=pv.SVI(epochs=1), device="cpu")


@onnx
@pytest.mark.parametrize(
    "model",
    [
        pv.FactorAnalysis(latent_dim=2),
        pv.PPCA(latent_dim=2),
        pv.GMM(components=3),
        "VAE",
    ],
    ids=["fa", "ppca", "gmm", "vae"],
)
def test_onnxruntime_gives_what_encode_gives(model: object, x: torch.Tensor, tmp_path: Path) -> None:
    if model == "VAE":
        fit = vae(pv.load_data(x, scale="standardize"), likelihood=pv.Gaussian())
        rows = x
        assert bool((fit.transform.constants[1] != 1).any()), "the transform is to be inside"
    else:
        fit, rows = pv.fit(model, x, method=pv.EM(max_iterations=5), device="cpu"), x
    path = fit.export(tmp_path / "deep" / "model.onnx")
    dtype = torch.float64 if fit.transform.exact is not None else torch.float32
    (z,) = run(path, x=rows.to(dtype))
    torch.testing.assert_close(z, fit.encode(rows), rtol=TOLERANCE, atol=TOLERANCE)
    assert [entry.name for entry in path.parent.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("suffix", [".pt2", pytest.param(".onnx", marks=onnx)])
def test_a_decoder_gives_means_in_the_units_of_the_source(suffix: str, x: torch.Tensor, tmp_path: Path) -> None:
    fit = pv.fit(pv.PPCA(latent_dim=2), pv.load_data(x, scale="standardize"), method=pv.ClosedForm(), device="cpu")
    z = torch.randn(7, 2, generator=torch.Generator().manual_seed(1))
    (found,) = run(fit.export(tmp_path / f"decoder{suffix}", part="decoder"), z=z)
    torch.testing.assert_close(found, fit.decode(z), rtol=TOLERANCE, atol=TOLERANCE)


def test_binarized_data_come_in_as_zeros_and_ones(tmp_path: Path) -> None:
    fit = vae("digits")
    assert fit.transform.binarize
    ones = (torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(2)) < 0.5).float()
    (z,) = run(fit.export(tmp_path / "encoder.pt2"), x=ones)
    torch.testing.assert_close(z, fit.encode(Split(ones, None, fit.transform.applied())), rtol=TOLERANCE, atol=TOLERANCE)


def test_noise_of_whole_numbers_enters_by_its_mean(tmp_path: Path) -> None:
    source = pv.DataSource(source="digits", dequantize=True)
    fit = vae(source, likelihood=pv.Gaussian())
    levels = torch.randint(0, 17, (5, 1, 8, 8), generator=torch.Generator().manual_seed(3)).float()
    seen = (levels + 0.5 - fit.transform.loc) / fit.transform.scale
    (z,) = run(fit.export(tmp_path / "encoder.pt2"), x=levels)
    torch.testing.assert_close(z, fit.encode(Split(seen, None, fit.transform.applied())), rtol=TOLERANCE, atol=TOLERANCE)


def test_several_latent_variables_go_by_their_names(tmp_path: Path) -> None:
    rows = drawn(20)
    fit = pv.fit(TwoLevels(), rows, guide=Exact(), method=pv.SVI(epochs=1), device="cpu")
    wanted = fit.encode(rows)
    path = fit.export(tmp_path / "encoder.pt2")
    told = json.loads(zipfile.ZipFile(path).read(_extra(path)))
    assert (told["inputs"], told["outputs"], told["part"]) == (["x"], list(wanted), "encoder")
    for found, name in zip(run(path, x=rows), wanted, strict=True):
        torch.testing.assert_close(found, wanted[name], rtol=TOLERANCE, atol=TOLERANCE)
    (means,) = run(fit.export(tmp_path / "decoder.pt2", part="decoder"), **wanted)
    torch.testing.assert_close(means, fit.decode(wanted), rtol=TOLERANCE, atol=TOLERANCE)


def _extra(path: Path) -> str:
    return next(name for name in zipfile.ZipFile(path).namelist() if name.endswith("ppl_vae.json"))


def test_exporting_changes_nothing_of_the_fit(x: torch.Tensor, tmp_path: Path) -> None:
    fit = vae(x, likelihood=pv.Gaussian())
    before = {name: value.clone() for name, value in fit.pair.state_dict().items()}
    random, modes = torch.get_rng_state(), [module.training for module in fit.pair.modules()]
    fit.export(tmp_path / "encoder.pt2")
    assert all(torch.equal(value, before[name]) for name, value in fit.pair.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in fit.pair.modules()] == modes


def test_a_file_that_differs_is_not_written(x: torch.Tensor, tmp_path: Path) -> None:
    fit = pv.fit(pv.PPCA(latent_dim=2), x, method=pv.ClosedForm(), device="cpu")
    (tmp_path / "model.pt2").write_text("what was there")
    with pytest.raises(ValueError, match=r"z of the file differs from the fit's own by .* nothing was written"):
        fit.export(tmp_path / "model.pt2", tolerance=-1.0)
    assert (tmp_path / "model.pt2").read_text() == "what was there"
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]


def plain_model(x: torch.Tensor) -> None:
    import pyro
    import pyro.distributions as dist

    scale = pyro.param("scale", torch.ones(4), constraint=dist.constraints.positive)
    with pyro.plate("data", 60, subsample_size=len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(4), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, scale).to_event(1), obs=x)


def plain_guide(x: torch.Tensor) -> None:
    import pyro
    import pyro.distributions as dist

    loc = pyro.param("loc", torch.zeros(4))
    with pyro.plate("data", 60, subsample_size=len(x)):
        pyro.sample("z", dist.Normal(loc + 0 * x, 1.0).to_event(1))


def test_what_cannot_be_exported_says_why(x: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = pv.fit(pv.PPCA(latent_dim=2), x, method=pv.ClosedForm(), device="cpu")
    for arguments, message in (
        (("model.bin",), "expected a file that ends in .onnx or .pt2, got 'model.bin'"),
        (("model.pt2", "prior"), "expected a part that is encoder or decoder, got 'prior'"),
    ):
        with pytest.raises(ValueError, match=message):
            fit.export(tmp_path / arguments[0], part=(*arguments, "encoder")[1])
    (tmp_path / "folder.pt2").mkdir()
    (tmp_path / "file").touch()
    for path, message in (("folder.pt2", "which is a folder: name another"), ("file/model.pt2", "to write model.pt2 to, got")):
        with pytest.raises(ValueError, match=message):
            fit.export(tmp_path / path)
    (tmp_path / "folder.pt2").rmdir()
    (tmp_path / "file").unlink()
    plain = pv.fit(plain_model, x, guide=plain_guide, method=pv.SVI(epochs=1), device="cpu")
    with pytest.raises(ValueError, match=r"expected programs that say q\(z \| x\) and p\(x \| z\) as distributions"):
        plain.export(tmp_path / "plain.pt2")
    labelled = pv.fit(pv.CVAE(latent_dim=2), "digits", method=pv.SVI(epochs=1), device="cpu")
    with pytest.raises(ValueError, match="one that is conditioned on labels"):
        labelled.export(tmp_path / "labelled.pt2")
    for lattice in (pv.Ising(shape=(2, 3)), pv.Ising(shape=(2, 3), observed=pv.Flip())):
        seen = None if lattice.observed is None else (torch.rand(9, 2, 3) < 0.5).float()
        with pytest.raises(ValueError, match="got one without: what is known of a lattice is no graph"):
            pv.fit(lattice, seen, device="cpu").export(tmp_path / "lattice.pt2")
    network = pv.BayesianNetwork(nodes={"a": pv.LinearGaussian()})
    with pytest.raises(ValueError, match="a network's posterior is no graph"):
        pv.fit(network, pv.load_data(pd.DataFrame({"a": x.flatten(1)[:, 0].numpy()})), device="cpu").export(
            tmp_path / "network.pt2"
        )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"ONNX needs onnx and onnxscript: pip install 'ppl_vae\[export\]', or write .pt2"):
        fit.export(tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@onnx
def test_a_posterior_that_factorizes_each_row_has_no_form_in_onnx(x: torch.Tensor, tmp_path: Path) -> None:
    lacking = x.clone()
    lacking[::5, 1] = torch.nan
    data = pv.load_data(lacking, missing="ignore")
    fit = pv.fit(pv.FactorAnalysis(latent_dim=1), data, method=pv.EM(max_iterations=3), device="cpu")
    with pytest.raises(ValueError, match=r"no form in ONNX, which has no operator for aten.linalg_cholesky"):
        fit.export(tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


class Solving(torch.nn.Module):
    """Solves with a factor that is fitted."""

    def __init__(self, upper: bool) -> None:
        super().__init__()
        self.upper = upper
        self.matrix = torch.nn.Parameter(torch.tensor([[4.0, 1.0], [1.0, 3.0]]))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        factor = torch.linalg.cholesky(self.matrix, upper=self.upper)
        both = torch.linalg.solve_triangular(factor, x.T, upper=self.upper)
        return (torch.cholesky_solve(x.T, factor, upper=self.upper), both)


@pytest.mark.slow
def test_an_encoder_of_convolutions_gives_the_nearest_codes(tmp_path: Path) -> None:
    model = pv.VQVAE(codebook=pv.Codebook(size=6, dim=4, grid=(4, 4)), decoder=pv.Conv(channels=(4,), spatial=True))
    fit = pv.fit(model, pv.load_data("digits", binarize="static"), method=pv.SVI(epochs=1))
    ones = (torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(2)) < 0.5).float()
    (codes,) = run(fit.export(tmp_path / "encoder.pt2"), x=ones)
    assert torch.equal(codes, fit.encode(ones))


@pytest.mark.parametrize("upper", [False, True])
def test_solving_with_what_is_fitted_becomes_a_product(upper: bool) -> None:
    module, x = Solving(upper), torch.arange(6.0).reshape(3, 2)
    graph = exported(module, (x,))
    names = {str(node.target) for node in graph.graph.nodes if node.op == "call_function"}
    assert not {name for name in names if "cholesky" in name or "solve" in name}
    for found, wanted in zip(graph.module()(x[:2]), module(x[:2]), strict=True):
        torch.testing.assert_close(found, wanted.detach())


def test_folding_keeps_what_depends_on_inputs() -> None:
    traced = torch.export.export(torch.nn.Linear(2, 1), (torch.ones(3, 2),)).module()
    assert len(folded(traced).state_dict()) == 2


@onnx
def test_the_command_line_exports(x: torch.Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", x.numpy())
    data = pv.load_data(str(tmp_path / "x.npy"))
    fit = pv.fit(pv.PPCA(latent_dim=2), data, method=pv.ClosedForm(), device="cpu")
    pv.save_run(fit, data, tmp_path / "run")
    out = tmp_path / "model.onnx"
    assert cli.main(["export", str(tmp_path / "run"), "--out", str(out), "--json", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out) == {"out": str(out), "part": "encoder", "bytes": out.stat().st_size}
    torch.testing.assert_close(run(out, x=x)[0], fit.encode(x), rtol=TOLERANCE, atol=TOLERANCE)
    assert cli.main(["export", str(tmp_path / "run"), "--out", "model.h5"]) == 2
    assert "expected --out to end in .onnx or .pt2, got 'model.h5'" in capsys.readouterr().err


def test_what_torch_records_of_a_part_that_has_no_graph_is_not_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = torch.poisson(torch.full((40, 6), 2.0), generator=torch.Generator().manual_seed(0)) + 1
    fit = pv.fit(pv.LDA(topics=2), pv.load_data(counts, valid=0.0, test=0.0), method=pv.CAVI(sweeps=1))
    capsys.readouterr()
    with pytest.raises(ValueError, match=r"no graph of this part.*use the fit itself from Python$"):
        fit.export(tmp_path / "topics.pt2")
    assert capsys.readouterr() == ("", "")
