"""The page on which codes are moved: whole, escaped, closed to the world, and its decoder that of the fit."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ppl_vae as pv
from ppl_vae.cli import main
from ppl_vae.explore import page as page_module
from ppl_vae.explore.decoding import graph_of
from ppl_vae.explore.page import explore, shown
from tests.table import rows
from tests.test_report import Page

EVIL = "</script><script>alert(1)</script><!--&\"'"
NAMES = (EVIL, "plain")
SMALL = pv.MLP(hidden=(6,))
SHORT = pv.SVI(epochs=1, batch_size=32)


def images() -> pv.Data:
    """Random binary pictures of two classes, one with a hostile name."""
    x = rows("binary", 60, event=(1, 6, 5))
    return pv.load_data(x, y=[NAMES[place % 2] for place in range(len(x))])


@pytest.fixture(scope="module")
def data() -> pv.Data:
    return images()


@pytest.fixture(scope="module")
def fit(data: pv.Data) -> pv.Fit:
    return pv.fit(pv.VAE(latent_dim=3, decoder=SMALL), data, method=SHORT)


@pytest.fixture(scope="module")
def path(fit: pv.Fit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return explore(fit, tmp_path_factory.mktemp("pages") / "page.html", title=EVIL)


def content(path: Path) -> tuple[dict[str, Any], bytes]:
    """What the script of a page reads: its JSON and its numbers."""
    source = path.read_text(encoding="utf-8")
    held = {name: re.search(rf'id="{name}">([^<]*)</script>', source) for name in ("content", "numbers")}
    told, numbers = (held[name][1] for name in ("content", "numbers"))  # type: ignore[index]
    return json.loads(told), zlib.decompress(base64.b64decode(numbers))


def array(told: dict[str, Any], numbers: bytes) -> torch.Tensor:
    kinds: dict[str, Any] = {"float32": torch.float32, "uint8": torch.uint8, "int16": torch.int16}
    count = torch.Size(told["shape"]).numel()
    return torch.frombuffer(bytearray(numbers), dtype=kinds[told["type"]], count=count, offset=told["at"]).reshape(
        told["shape"]
    )


def test_the_page_is_whole_and_runs_its_own_script_alone(path: Path) -> None:
    page = Page(path)
    assert page.open == []
    policy = next(meta["content"] or "" for meta in page.named("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "connect-src 'none'" in policy
    assert "unsafe" not in policy
    for element, directive in (("style", "style-src"), ("script", "script-src")):
        inside = re.findall(rf"<{element}>(.*?)</{element}>", page.source, re.DOTALL)
        assert len(inside) == 1
        hashed = base64.b64encode(hashlib.sha256(inside[0].encode()).digest()).decode()
        assert f"{directive} 'sha256-{hashed}'" in policy
    for name, attributes in page.elements:
        assert not {"href", "src", "srcset", "action", "style"} & attributes.keys(), name
        assert not any(key.startswith("on") for key in attributes)
    assert not re.search(r"https?://|@import|url\(", page.source)
    assert path.stat().st_size < 200_000


def test_controls_have_names(path: Path) -> None:
    page = Page(path)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(canvas.get("aria-label") and canvas.get("tabindex") == "0" for canvas in page.named("canvas"))
    labelled = len(page.named("input")) + len(page.named("select"))
    assert labelled == len(page.named("label")) == 8  # two axes, a row, a way, its path, two classes, a strength
    assert any(attributes.get("aria-live") == "polite" for attributes in page.named("p"))


def test_names_of_the_data_are_text(path: Path) -> None:
    page = Page(path)
    assert EVIL not in page.source
    assert len(page.named("script")) == 3
    told, _ = content(path)
    assert told["title"] == EVIL
    assert set(told["data"]["classes"]) == set(NAMES)
    assert EVIL in page.text  # the title and an option, escaped


def test_the_page_holds_codes_data_and_the_decoder(path: Path, fit: pv.Fit, data: pv.Data) -> None:
    told, numbers = content(path)
    assert told["decoder"]["kind"] == "graph"
    split = fit.as_split(data.test)[torch.tensor(told["data"]["rows"])]
    torch.testing.assert_close(array(told["data"]["codes"], numbers), fit.encode(split))
    assert torch.equal(array(told["data"]["x"], numbers).reshape(split.raw.shape), 255 * split.raw)
    check = told["decoder"]["check"]
    codes, x = array(check["codes"], numbers), array(check["x"], numbers)
    torch.testing.assert_close(x, fit.decode(codes).flatten(1))
    quantiles = array(told["quantiles"], numbers)
    u = (torch.arange(quantiles.shape[1]) + 0.5) / quantiles.shape[1]
    torch.testing.assert_close(quantiles, torch.special.ndtri(u).expand_as(quantiles))


def graph_kind(found: Any, **changes: Any) -> Any:
    return graph_of(found.fit, found.layout, found.codes[:3], **{"most_bytes": 10**6, "tolerance": 1e-5} | changes)


def test_large_decoders_are_rounded_and_larger_ones_left_out(path: Path, fit: pv.Fit) -> None:
    found = shown(fit)
    size = 4 * sum(torch.Size(constant["shape"]).numel() for constant in content(path)[0]["decoder"]["constants"])
    half = graph_kind(found, most_bytes=size // 2, tolerance=1e-2)
    assert half.half
    assert all(torch.equal(constant.half().float(), constant) for constant in half.constants)
    with pytest.raises(ValueError, match="more than the page has room for"):
        graph_kind(found, most_bytes=size // 2 - 4)


def test_levels_that_are_let_go_are_at_the_means_of_the_prior(data: pv.Data) -> None:
    groups = tuple(pv.Group(latent_dim=2, features=4) for _ in range(2))
    fit = pv.fit(pv.HierarchicalVAE(groups=groups, decoder=SMALL), data, method=SHORT)
    found = shown(fit)
    codes = fit.encode(data.test)
    top, both = (
        found.decode(found.codes, torch.tensor([kept]).expand(len(found.codes), 2)) for kept in ([1.0, 0.0], [1.0, 1.0])
    )
    names = found.layout.levels
    torch.testing.assert_close(both, fit.reconstruct(data.test))
    torch.testing.assert_close(top, fit.decode({names[0]: codes[names[0]]}))
    assert graph_kind(found).steps


def test_classes_components_and_loadings(data: pv.Data, tmp_path: Path) -> None:
    cvae = pv.fit(pv.CVAE(latent_dim=2, decoder=SMALL), data, method=SHORT)
    found = shown(cvae)
    assert [block.kind for block in found.layout.blocks] == ["real", "choice"]
    torch.testing.assert_close(found.decode(found.codes), cvae.reconstruct(data.test))
    reals = pv.load_data(rows("real", 60, event=(4,)))
    mixture = pv.fit(pv.GMM(components=3, covariance="diagonal"), reals)
    told, numbers = content(explore(mixture, tmp_path / "gmm.html"))
    assert told["dims"] == []
    assert sum(told["components"]["weights"]) == pytest.approx(1, abs=1e-5)
    factors = pv.fit(pv.FactorAnalysis(latent_dim=2), reals)
    told, numbers = content(explore(factors, tmp_path / "fa.html"))
    places = [dim["place"] for dim in told["dims"]]
    steps = factors.decode(torch.eye(2)[places]) - factors.decode(torch.zeros(1, 2))
    torch.testing.assert_close(array(told["loadings"], numbers), steps)
    assert told["event"]["columns"] == ["x1", "x2", "x3", "x4"]


def test_classes_of_other_data_are_called_by_their_own_names(fit: pv.Fit, tmp_path: Path) -> None:
    x = rows("binary", 60, event=(1, 6, 5))
    own = pv.load_data(x, y=["first", "second", EVIL] * 20, valid=0.0, test=0.0)
    told, numbers = content(explore(fit, tmp_path / "own.html", data=own.train))
    labels = array(told["data"]["labels"], numbers).tolist()
    called = [told["data"]["classes"][label] for label in labels]
    assert called == [own.train.classes[own.train.y[at]] for at in told["data"]["rows"]]


def test_each_column_has_its_own_precision(tmp_path: Path) -> None:
    x = torch.randn(80, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x * torch.tensor([1e5, 0.1]) + torch.tensor([1e7, 0.5])
    fit = pv.fit(pv.FactorAnalysis(latent_dim=1), pv.load_data(x, scale="standardize"))
    told, _ = content(explore(fit, tmp_path / "page.html"))
    assert told["decoder"]["kind"] == "graph"


def test_texts_are_the_nearest_of_those_decoded(tmp_path: Path) -> None:
    texts = [f"{'ab' * (1 + place % 3)}<b>" for place in range(40)]
    data = pv.load_data(texts, tokens="characters")
    model = pv.VAE(latent_dim=2, decoder=pv.LSTM(hidden=4), likelihood=pv.Tokens())
    guide = pv.AmortizedNormal(encoder=pv.LSTM(hidden=4))
    fit = pv.fit(model, data, guide=guide, method=SHORT)
    told, numbers = content(explore(fit, tmp_path / "texts.html"))
    assert told["decoder"]["kind"] == "nearest"
    assert set(told["data"]["x"]) <= set(texts)
    codes = array(told["decoder"]["codes"], numbers)
    assert told["decoder"]["x"][:5] == fit.decode(codes[:5])
    assert "</b>" not in (tmp_path / "texts.html").read_text().split('id="content"')[1]


def test_refused(fit: pv.Fit, data: pv.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"ends in \.html"):
        explore(fit, tmp_path / "page.pdf")
    with pytest.raises(ValueError, match="at least 1 row, got 0"):
        explore(fit, tmp_path / "page.html", rows=0)
    with pytest.raises(ValueError, match="expected a fit, got str"):
        explore("runs/vae", tmp_path / "page.html")  # type: ignore[arg-type]
    chain = pv.fit(pv.MarkovChain(order=1), pv.load_data(["abab", "ba"] * 10, tokens="characters"))
    with pytest.raises(ValueError, match="a model whose data have codes"):
        explore(chain, tmp_path / "page.html")
    monkeypatch.setattr(page_module, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="show fewer rows, or serve it"):
        page_module.page_of(shown(fit), "a page", token="known")
    assert list(tmp_path.iterdir()) == []


def test_the_verb(fit: pv.Fit, data: pv.Data, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = pv.save_run(fit, data, tmp_path / "run")
    table = tmp_path / "rows.npy"
    np.save(table, data.test.raw.numpy())  # the run's own were in memory
    words = ["explore", str(run), "--data", str(table), "--label", "none", "--split", "all", "--json"]
    assert main([*words, "--out", str(tmp_path / "page.html")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bytes"] == (tmp_path / "page.html").stat().st_size
    assert main([*words, "--out", str(tmp_path / "page.txt")]) == 2
    assert "ends in .html" in capsys.readouterr().err
