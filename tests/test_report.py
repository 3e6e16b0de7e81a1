"""The page about a run: whole, escaped, and closed to the world."""

from __future__ import annotations

import html.parser
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

import ppl_vae as pv
from ppl_vae.cli import main
from ppl_vae.report import report
from ppl_vae.report.markup import VOID, tag
from ppl_vae.report.mathml import formula, lines
from ppl_vae.report.words import number, with_error
from tests.table import DECLARATIONS, GUIDES, rows, vae

DATA = pv.load_data(rows("binary", 40), y=[0, 1] * 20)
EVIL = "<script>alert(1)</script>&\"'"


class Page(html.parser.HTMLParser):
    """Reads a page and checks that its elements are closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def named(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for element, attributes in self.elements if element == name]

    @property
    def text(self) -> str:
        return " ".join(self.words)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    fit = pv.fit(
        vae(), DATA, guide=GUIDES["AmortizedNormal-full"], method=pv.SVI(epochs=3, batch_size=16), track=("active_units",)
    )
    return pv.save_run(fit, DATA, tmp_path_factory.mktemp("runs") / "a run")


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def test_the_page_is_whole_and_fetches_nothing(run: Path, tmp_path: Path) -> None:
    path = report(run, tmp_path / "page.html")
    page = Page(path)
    assert page.open == []
    assert page.named("html") == [{"lang": "en"}]
    policy = next(meta["content"] for meta in page.named("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    names = {name for name, _ in page.elements}
    assert not names & {"script", "link", "iframe", "object", "embed", "base", "form", "a", "video", "audio", "source"}
    for name, attributes in page.elements:
        assert not {"href", "srcset", "action", "style", "background"} & attributes.keys(), name
        assert not any(key.startswith("on") for key in attributes)
        if "src" in attributes:
            assert attributes["src"].startswith("data:image/png;base64,")
    assert not re.search(r"url\(|@import|https?:", page.source)


def test_the_page_tells_everything(run: Path, tmp_path: Path) -> None:
    page = Page(report(run, tmp_path / "page.html"))
    for section in ("Model", "Numbers", "Training", "Pictures", "Run it again", "Environment"):
        assert section in page.words
    assert "a run" in page.words
    assert "VAE with AmortizedNormal, fitted to array by SVI" in page.text
    assert "ppl-vae fit --config config.yaml --out 'a run'" in page.text
    assert (run / "config.yaml").read_text() in page.text
    assert len(page.named("img")) == len(list(run.glob("*.png"))) == 7
    assert {"active units", "ELBO", "reconstruction"} <= set(page.words) | {"active units"}
    assert "valid_active_units" in page.words
    metrics = pv.load_run(run).evaluate(DATA)
    assert f"{number(metrics['elbo'])}" in page.text


def test_pictures_and_tables_have_words(run: Path, tmp_path: Path) -> None:
    page = Page(report(run, tmp_path / "page.html"))
    alternatives = [image["alt"] or "" for image in page.named("img")]
    assert all(len(text) > 4 for text in alternatives)
    assert any("goes from" in text and "in 3 epochs" in text for text in alternatives)
    assert len(page.named("caption")) == len(page.named("table")) >= 3
    assert all(head.get("scope") in ("row", "col") for head in page.named("th"))
    assert all(math.get("aria-label") for math in page.named("math"))
    assert len(page.named("h1")) == len(page.named("main")) == 1


def test_text_of_a_stranger_is_text(copy: Path) -> None:
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["data"]["source"] = EVIL
    config["model"]["class_path"] = f"evil.{EVIL}"
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    (copy / "metrics.json").write_text('{"test": {"<b>x</b>": 1.5, "elbo": "<i>"}, "unit": "<u>"}')
    (copy / "history.jsonl").write_text('{"epoch": 1, "elbo": -1.0, "<em>": "<script>"}\n')
    (copy / "environment.json").write_text('{"python": "<script>", "versions": {"<p>": "<q>"}}')
    shutil.copy(copy / "data.png", copy / "<img src=x>.png")
    (copy / "secret.png").write_text("no picture")
    (copy / "link.png").symlink_to("/etc/passwd")
    page = Page(report(copy))
    assert page.open == []
    assert not {"script", "b", "i", "u", "em", "p<", "q"} & {name for name, _ in page.elements}
    assert EVIL in page.text
    assert "not trusted here" in page.text
    assert "no picture" not in page.source
    assert all((image["src"] or "").startswith("data:image/png;base64,iVBOR") for image in page.named("img"))


def test_a_run_that_goes_on_has_a_page(copy: Path) -> None:
    for name in ("metrics.json", "environment.json", "model.safetensors", "history.jsonl"):
        (copy / name).unlink()
    page = Page(report(copy))
    assert "Model" in page.words
    assert "Numbers" not in page.words


def test_nothing_is_written_through_a_planted_link(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (copy / f".report.html.partial-{os.getpid()}").symlink_to(tmp_path / "precious")
    (copy / "report.html").symlink_to(tmp_path / "precious")
    before = {path.name for path in copy.iterdir()}
    assert not report(copy).is_symlink()
    assert (tmp_path / "precious").read_text() == "precious"
    assert {path.name for path in copy.iterdir()} == before


@pytest.mark.parametrize("out", ["folder.html", "file/page.html", f"{'a' * 300}.html"])
def test_a_page_that_cannot_be_written(copy: Path, tmp_path: Path, out: str) -> None:
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot be written: .*: choose another place with out$"):
        report(copy, tmp_path / out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.html", "run"]


def test_a_run_that_cannot_be_read(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"cannot be read: .*File name too long.*: check the path"):
        report(copy / ("a" * 300))

    path_open = Path.open

    def refuse(self: Path, *mode: Any, **options: Any) -> Any:
        if self.name == name:
            raise PermissionError(13, "Permission denied", str(self))
        return path_open(self, *mode, **options)

    monkeypatch.setattr(Path, "open", refuse)
    for name in ("run.json", "config.yaml"):
        with pytest.raises(ValueError, match=rf"{name} cannot be read: .*Permission denied"):
            report(copy)


def test_refused(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no run in"):
        report(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"ends in \.html"):
        report(copy, tmp_path / "page.pdf")
    (copy / "metrics.json").write_text("{")
    with pytest.raises(ValueError, match=r"metrics\.json cannot be read"):
        report(copy)
    (copy / "metrics.json").write_text("[]")
    with pytest.raises(ValueError, match=r"metrics\.json cannot be read: expected names and values"):
        report(copy)


def test_the_verb(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["report", str(run), "--out", str(tmp_path / "page.html"), "--json"]) == 0
    assert '"out"' in capsys.readouterr().out
    assert Page(tmp_path / "page.html").open == []
    assert main(["report", str(tmp_path)]) == 2
    assert "there is no run" in capsys.readouterr().err


# --- mathematics ----------------------------------------------------------------------------------------------------------


STORIES = {name: entry for name, entry in DECLARATIONS.items() if isinstance(entry, (pv.Model, pv.Guide))}


@pytest.mark.parametrize("entry", STORIES.values(), ids=STORIES)
def test_every_story_becomes_mathematics(entry: pv.Model | pv.Guide) -> None:
    for line in lines(entry.story()):
        math = ElementTree.fromstring(formula(line))
        assert math.get("aria-label") == line
        assert math.find(".//annotation").text == line
        said = "".join(math.find(".//mrow").itertext()).replace("\N{NO-BREAK SPACE}", " ")
        assert "_" not in said
        assert "^" not in said
        assert "sigma" not in said


def test_indices_exponents_and_symbols() -> None:
    def shape(text: str) -> str:
        row = re.search(r"<mrow>(.*)</mrow>", formula(text))
        assert row
        return re.sub(r' (stretchy|width)="[^"]*"', "", row[1])

    assert shape("I_2") == "<msub><mi>I</mi><mn>2</mn></msub>"
    assert shape("sigma_c^2") == "<msubsup><mi>\N{GREEK SMALL LETTER SIGMA}</mi><mi>c</mi><mn>2</mn></msubsup>"
    assert shape("3^-K") == "<msup><mn>3</mn><mrow><mo>\N{MINUS SIGN}</mo><mi>K</mi></mrow></msup>"
    assert shape("mu0") == "<msub><mi>μ</mi><mn>0</mn></msub>"
    assert shape("z ~ p(z)") == "<mi>z</mi><mo>\N{TILDE OPERATOR}</mo><mi>p</mi><mo>(</mo><mi>z</mi><mo>)</mo>"
    assert shape("W z") == "<mi>W</mi><mspace></mspace><mi>z</mi>"
    assert shape("f(x)^2").endswith("<msup><mo>)</mo><mn>2</mn></msup>")
    assert "<mo>∑</mo>" in shape("sum_c pi_c")
    assert shape("<b>") == "<mo>&lt;</mo><mi>b</mi><mo>&gt;</mo>"


def test_statements_are_parted_outside_of_brackets() -> None:
    assert lines("z ~ p; x ~ D(z; 6 levels)") == ["z ~ p", "x ~ D(z; 6 levels)"]


@pytest.mark.parametrize("damage", [10**400, [1.0], {"a": 1}, "many", True, None], ids=lambda damage: type(damage).__name__)
def test_values_that_are_no_numbers_have_a_page(copy: Path, damage: object) -> None:
    metrics = json.loads((copy / "metrics.json").read_text())
    metrics["test"] |= {"elbo": damage, "kl_se": damage}
    (copy / "metrics.json").write_text(json.dumps({**metrics, "seconds": damage, "iterations": damage}))
    history = [json.loads(line) for line in (copy / "history.jsonl").read_text().splitlines()]
    history[-1]["valid_elbo"] = damage
    (copy / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history))
    assert Page(report(copy)).open == []


def test_an_evaluation_that_was_kept_is_on_the_page(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data, copy = pv.load_data("digits", test=0.05), tmp_path / "run"
    guide = GUIDES["AmortizedNormal-diagonal"]
    pv.save_run(pv.fit(vae(), data, guide=guide, method=pv.SVI(epochs=3, batch_size=512)), data, copy)
    assert "Evaluation" not in Page(report(copy)).text
    assert main(["evaluate", str(copy), "--samples", "3", "--latents", "--save", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert json.loads((copy / "evaluation.json").read_text()) == {**printed, "iterations": 3}
    assert not list(copy.glob(".*partial*"))
    page = Page(report(copy))
    assert page.open == []
    for word in ("Evaluation", "test: latents", "importance-weighted bound", f"{printed['test']['iwae']:.2f}"):
        assert word in page.text, word
    assert "as it was" not in page.text
    (copy / "evaluation.json").write_text(json.dumps({**printed, "iterations": 2}))
    assert "after 2 iterations; it has 3 now" in Page(report(copy)).text
    assert main(["evaluate", str(copy), "--data", "digits", "--save"]) == 2
    assert "leave --data or --save out" in capsys.readouterr().err


def test_an_evaluation_of_a_stranger_is_shown_as_text_or_refused(copy: Path) -> None:
    odd = {EVIL: {"elbo": EVIL, "iwae": 10**400, EVIL: {EVIL: EVIL}}, "unit": [EVIL], "iterations": {EVIL: 1}}
    (copy / "evaluation.json").write_text(json.dumps(odd))
    page = Page(report(copy))
    assert page.open == []
    assert EVIL in page.text
    assert not page.named("script")
    for text in ("[1]", "{", '{"test": {}, "test": {}}'):
        (copy / "evaluation.json").write_text(text)
        with pytest.raises(ValueError, match=r"evaluation\.json cannot be read"):
            report(copy)


def test_markup_escapes() -> None:
    assert tag("p", "<", tag("b", "&"), title='"') == '<p title="&quot;">&lt;<b>&amp;</b></p>'


def test_numbers() -> None:
    assert [number(value) for value in (None, 3, 2.0, -96.204, 0.00123, 1.23456, float("nan"), True, "x")] == [
        *("-", "3", "2", "-96.20", "0.00123", "1.2346", "nan", "True", "x")
    ]
    assert with_error({"elbo": -1.5, "elbo_se": 0.25}, "elbo") == "-1.5000 ± 0.2500"
