"""What lies between two data: its ends, its lengths, and the models that have nothing between their data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import ppl_vae as pv
from ppl_vae.cli import main
from ppl_vae.evaluate.paths import path_between
from tests.table import TINY

TEXTS = ["to be", "or not to be", "that is the question", "to suffer"] * 5


def of(model: pv.Model, data: Any, guide: pv.Guide | None = None) -> pv.Fit:
    return pv.fit(model, data, guide=guide, method=pv.SVI(epochs=1), device="cpu")


@pytest.fixture(scope="module")
def patterns() -> pv.Data:
    return pv.load_data((torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.4).float())


@pytest.fixture(scope="module")
def images(patterns: pv.Data) -> pv.Fit:
    return of(pv.VAE(latent_dim=3, decoder=TINY), patterns, pv.AmortizedNormal(encoder=TINY))


@pytest.fixture(scope="module")
def texts() -> pv.Fit:
    guide = pv.AmortizedNormal(encoder=pv.LSTM(hidden=4))
    model = pv.CVAE(latent_dim=2, decoder=pv.LSTM(hidden=4), likelihood=pv.Tokens(), prior=pv.StandardNormal())
    return of(model, pv.load_data(TEXTS, y=["a", "b"] * 10, tokens="characters"), guide)


@pytest.mark.parametrize("shape", [(4,), (2, 3)])
def test_an_arc_turns_and_grows_steadily(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(shape, dtype=torch.float64), 3 * torch.randn(shape, dtype=torch.float64)
    arc = path_between(a, b, 7, "spherical").flatten(1)
    torch.testing.assert_close(arc.norm(dim=1), torch.linspace(float(a.norm()), float(b.norm()), 7, dtype=torch.float64))
    ways = arc / arc.norm(dim=1, keepdim=True)
    turns = (ways[1:] * ways[:-1]).sum(1)
    torch.testing.assert_close(turns, turns[:1].expand(6))
    assert torch.equal(arc[0], a.flatten())
    assert torch.equal(arc[-1], b.flatten())
    line = path_between(a, b, 7)
    torch.testing.assert_close(line.diff(dim=0), ((b - a) / 6).expand(6, *shape))
    assert line[3].norm() < arc[3].norm()
    for other in (a, torch.zeros_like(a), -a):
        torch.testing.assert_close(path_between(a, other, 3, "spherical"), path_between(a, other, 3))


@pytest.mark.parametrize("path", ["linear", "spherical", "prior"])
def test_the_ends_are_the_reconstructions(images: pv.Fit, patterns: pv.Data, path: Any) -> None:
    a, b = patterns.test[0], patterns.test[1]
    codes, decoded = images.interpolate(a, b, steps=4, path=path)
    torch.testing.assert_close(codes[[0, -1]], images.encode(patterns.test[:2]))
    torch.testing.assert_close(decoded[[0, -1]], images.reconstruct(patterns.test[:2]))
    torch.testing.assert_close(decoded, images.decode(codes))
    given = images.interpolate(codes[0], codes[-1].numpy(), steps=4, path=path, codes=True)
    torch.testing.assert_close(given.decoded, decoded)
    plain = images.interpolate(patterns.test.x[0], patterns.test.x[1].numpy(), steps=4, path=path)
    torch.testing.assert_close(plain.codes, codes)


def test_the_ends_of_texts_are_decoded_texts(texts: pv.Fit) -> None:
    codes, decoded = texts.interpolate("to be", "or not", y="a", steps=3)
    assert decoded == texts.decode(codes, y="a")
    assert len(decoded) == 3
    assert all(isinstance(text, str) for text in decoded)
    assert texts.interpolate(["to be"], ["or not"], y="a", steps=3).decoded == decoded
    with pytest.raises(ValueError, match=r"conditioned on labels: give the class of both data, y=... \(--y\)"):
        texts.interpolate("to be", "or not")


def test_texts_in_memory_are_read_as_those_that_were_fitted(texts: pv.Fit) -> None:
    held = pv.load_data(TEXTS, tokens="characters", valid=0.0, test=0.0).train
    for given in (TEXTS, tuple(TEXTS)):
        torch.testing.assert_close(texts.encode(given, y="a"), texts.encode(held, y="a"))
    assert texts.reconstruct(TEXTS[:2], y="a") == texts.reconstruct(held[:2], y="a")


def test_classes_broadcast_with_codes_of_texts(texts: pv.Fit) -> None:
    z = torch.randn(2, 1, 2, generator=torch.Generator().manual_seed(0))
    found = texts.decode(z, y=["a", "b", "a"])
    assert found == [texts.decode(code, y=name)[0] for code in z[:, 0] for name in ("a", "b", "a")]
    with pytest.raises(ValueError, match=r"broadcasts with that of the codes, \(2,\), got \(3,\): give one"):
        texts.decode(z[:, 0], y=["a", "b", "a"])


def test_classes_broadcast_with_codes() -> None:
    rows = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    fit = of(pv.CVAE(latent_dim=2, decoder=TINY, likelihood=pv.Gaussian()), pv.load_data(rows, y=["a", "b"] * 10, kind="real"))
    assert fit.decode(torch.zeros(2, 1, 2), y=["a", "b", "a"]).shape == (2, 3, 3)
    with pytest.raises(ValueError, match=r"broadcasts with that of the codes, \(2,\), got \(3,\): give one"):
        fit.decode(torch.zeros(2, 2), y=["a", "b", "a"])


def test_classes_that_differ_have_to_be_told(texts: pv.Fit) -> None:
    rows = pv.load_data(["to be", "not"], y=["a", "b"], tokens="characters", valid=0.0, test=0.0).train
    with pytest.raises(ValueError, match="data of one class, which is given, got a and b"):
        texts.interpolate(rows[0], rows[1])


def test_rows_without_an_end_go_from_one_length_to_the_other() -> None:
    rows = [torch.randn(size, generator=torch.Generator().manual_seed(size)) for size in (2, 6, 3, 5) * 5]
    data = pv.load_data(pv.Ragged.from_list(rows), kind="real")
    model = pv.VAE(latent_dim=2, decoder=pv.LSTM(hidden=3), likelihood=pv.Gaussian())
    fit = of(model, data, pv.AmortizedNormal(encoder=pv.LSTM(hidden=3)))
    decoded = fit.interpolate(rows[0], rows[1], steps=5).decoded
    assert decoded.lengths.tolist() == [2, 3, 4, 5, 6]


def refused(model: pv.Model, told: str, data: Any, **options: Any) -> None:
    fit = pv.fit(model, data, device="cpu", method=options.pop("method", pv.SVI(epochs=1)))
    with pytest.raises(ValueError, match=told):
        fit.interpolate(fit.data and data.test[0], data.test[1], **options)


def test_what_has_nothing_between_its_data_is_refused(images: pv.Fit, patterns: pv.Data) -> None:
    flat = pv.load_data(torch.rand(20, 3, generator=torch.Generator().manual_seed(0)), kind="real")
    refused(pv.GMM(components=2), "real numbers, got k", flat, method=pv.EM(max_iterations=2))
    rows = pv.load_data(TEXTS, tokens="characters")
    refused(pv.SequenceModel(network=pv.LSTM(hidden=2)), "whose data have codes, such as VAE", rows)
    for wrong, told in (
        ({"steps": 1}, "at least 2 steps"),
        ({"path": "round"}, "a path of linear, spherical, prior"),
        ({"codes": True}, "code of shape"),
    ):
        with pytest.raises(ValueError, match=told):
            images.interpolate(patterns.test.x[0], patterns.test.x[1], **wrong)
    with pytest.raises(ValueError, match="one datum at each end, got 2"):
        images.interpolate(patterns.test[:2], patterns.test[1])


def test_the_verb_prints_texts_and_writes_pictures(
    images: pv.Fit, patterns: pv.Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = tmp_path / "a.txt"
    lines.write_text("\n".join(TEXTS))
    data = pv.load_data(lines, tokens="characters")
    model = pv.VAE(latent_dim=2, decoder=pv.LSTM(hidden=3), likelihood=pv.Tokens())
    fit = of(model, data, pv.AmortizedNormal(encoder=pv.LSTM(hidden=3)))
    pv.save_run(fit, data, tmp_path / "run")
    words = ["interpolate", str(tmp_path / "run"), "--from", "to be", "--steps", "3"]
    assert main([*words, "--to", "or not"]) == 0
    assert capsys.readouterr().out.splitlines() == fit.interpolate("to be", "or not", steps=3).decoded
    assert main([*words, "--to", "0", "--path", "spherical", "--out", str(tmp_path / "b.txt")]) == 0
    assert len((tmp_path / "b.txt").read_text().splitlines()) == 3
    assert main([*words, "--to", "99"]) == 2
    assert "a row below 4, got 99" in capsys.readouterr().err
    assert main(["impute", str(tmp_path / "run"), "--data", str(lines), "--out", str(tmp_path / "i.csv")]) == 2
    assert "expected a fit of rows of one length" in capsys.readouterr().err
    assert main(["encode", str(tmp_path / "run"), "--data", str(lines), "--data.tokens", "words", "--out", "a.npz"]) == 2
    assert "--data.tokens declares the data of a fit, and those of a run are read as its own" in capsys.readouterr().err
