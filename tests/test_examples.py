"""What a reader copies works: the examples, the Python of the pages, and their command lines."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import ppl_vae as pv
from ppl_vae import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

# Arguments that make an example tiny, and a word of what it prints.
EXAMPLES: dict[str, tuple[list[str], str]] = {
    "autoencoder_vs_vae.py": (["--epochs", "1", "--hidden", "20"], "random codes to the nearest"),
    "best_product.py": ([], "nats by enumeration"),
    "beta_sweep.py": (["--epochs", "1", "--betas", "0.5", "2"], "distortion"),
    "cvae_completion.py": (["--epochs", "1", "--baseline-epochs", "1", "--quadrants", "2", "--out", "completions"], "baseline"),
    "debiasing.py": (["--epochs", "1", "--seeds", "1", "--alphas", "0.1"], "repeated, styles known"),
    "diffusion_is_a_vae.py": (["--epochs", "1", "--steps", "1", "3", "--hidden", "5"], "T = 3"),
    "disentanglement.py": (["--epochs", "1", "--betas", "4", "--hidden", "8"], "MIG"),
    "factor_analysis_em_vs_vi.py": (["--epochs", "1"], "AmortizedLinear"),
    "files_to_try.py": ([], "sentences, one a line"),
    "forward_and_reverse_kl.py": (["--samples", "100", "--out", "kl.png"], "saved in kl.png"),
    "gallery.py": (["--only", "graph", "--out", "gallery"], "graph         ="),
    "gmm_em_vs_vi.py": (["--epochs", "1", "--components", "3", "--seeds", "1"], "weights of the best fit: 0."),
    "guides_compared.py": (["--epochs", "1", "--samples", "5", "--guides", "diagonal", "flow (IAF)"], "flow (IAF) "),
    "ising.py": (["--side", "4", "--couplings", "0.3", "--images", "10"], "of the pixels wrong"),
    "hmm.py": (["--rows", "100", "--iterations", "3", "--epochs", "1"], "most probable path: the die of"),
    "ladder.py": ([], ""),
    "likelihoods_compared.py": (["--epochs", "1", "--likelihoods", "Beta", "categorical"], "bits per pixel"),
    "markov_to_lstm.py": (
        ["--characters", "4000", "--epochs", "1", "--hidden", "8", "--states", "2", "--orders", "0", "2"],
        "Markov chain of order 2",
    ),
    "own_prior.py": (["--epochs", "1"], "Laplace(0, b)^8"),
    "plain_pyro_pair.py": (["--epochs", "1"], "store: 0 parameters"),
    "ppca_linear_vae.py": (["--epochs", "2", "--variances", "6"], "scikit-learn PCA.score"),
    "priors_compared.py": (["--epochs", "1", "--samples", "5", "--priors", "uniform", "VampPrior of 50"], "VampPrior of 50 "),
    "rotation_gap.py": (["--degrees", "45", "--rows", "20", "--out", "rotation.png"], "in closed form"),
    "semi_supervised.py": (["--epochs", "1"], "with 100 labels"),
    "sketch_rnn.py": (
        ["--limit", "40", "--epochs", "1", "--hidden", "8", "--components", "2", "--latent-dim", "2", "--samples", "2"],
        "pictures in sketches",
    ),
    "swap_prior_and_likelihood.py": (["--epochs", "1"], "scale: amortized"),
    "tables_to_try.py": ([], "weather.csv "),
    "topics.py": (
        ["--data", "digits", "--topics", "3", "--sweeps", "2", "--epochs", "1", "--out", "topics.png"],
        "the largest topics:",
    ),
    "text_vae.py": (["--epochs", "1", "--hidden", "8", "--limit", "100", "--samples", "3"], "free bits, word dropout"),
    "two_levels.py": (["--epochs", "1", "--limit", "10"], "from a point of z2 alone: (1, 8, 8)"),
    "vae_digits.py": (["--epochs", "1", "--samples", "3", "--out", "run"], "saved in run"),
    "vq_vae.py": (["--epochs", "1", "--codes", "4", "--channels", "4"], "codes of digits in"),
    "why_blurry.py": (["--epochs", "1", "--rows", "2", "7", "--samples", "5"], "pixel after pixel"),
    "what_mean_field_loses.py": (["--epochs", "1", "--draws", "8", "--samples", "2"], "SVI, full rank"),
}

# One process for all of them: importing torch costs more than any of the scripts, and a class that a script defines would
# stand among the library's own for every later test of this process.
RUNNER = """
import contextlib, io, json, os, runpy, sys, traceback, warnings
from ppl_vae import cli
from ppl_vae.types import (FitWarning)

def attempt(function, *arguments):
    printed, error = io.StringIO(), ""
    with contextlib.redirect_stdout(printed):
        try:
            function(*arguments)
        except BaseException:
            error = traceback.format_exc()
    return [printed.getvalue(), error]

def run(path, *arguments):
    sys.argv = [path, *arguments]
    runpy.run_path(path, run_name="__main__")

def understand(*words):
    cli.options._run_to_resume = lambda arguments: None  # there is no such run here
    assert cli._chosen(list(words))[0] == words[0]

job = json.load(sys.stdin)
warnings.simplefilter("error")
warnings.filterwarnings("ignore", category=FitWarning)  # on what a fit of one epoch is worth
results = {name: attempt(run, *words) for name, words in job["scripts"].items()}
os.chdir(job["root"])
results |= {name: attempt(understand, *words) for name, words in job["commands"].items()}
json.dump(results, sys.stdout)
"""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def script(page: Path) -> str:
    """The page's Python blocks as one script, an epoch a fit."""
    future = "from __future__ import annotations\n"
    code = "\n".join(blocks(page, "python")).replace(future, "")
    return future + re.sub(r"epochs=\d+", "epochs=1", code)


def command_lines(page: Path) -> list[list[str]]:
    """What stands after ``ppl-vae`` in the page's shell blocks."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    commands = [shlex.split(command) for line in lines for command in line.split("&&")]
    return [words[words.index("ppl-vae") + 1 :] for words in commands if "ppl-vae" in words]


def parsed(words: list[str], config: Path) -> list[str]:
    """The words without what ends the parsing early, and with a configuration file that exists."""
    words = [word for word in words if word != "--print_config"]
    return [str(config) if before == "--config" else word for before, word in zip(["", *words], words, strict=False)]


PUBLISHED = {"tinyshakespeare.txt", "docword.kos.txt", "sheep.npz"}
TO_TRY = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "examples").glob("*_to_try.py")))
READ = re.compile(r"runs/[\w-]+|\w+\.(?:csv|txt|np[yz]|h5ad|png)$|photos$")


def inputs(words: list[str]) -> list[str]:
    """The runs and data files that a command line reads."""
    found = [READ.match(word) for before, word in zip(["", *words], words, strict=False) if before != "--out"]
    return [name[0] for name in found if name]


def outputs(page: Path) -> list[str]:
    """What each command line of a page writes, or nothing."""
    return [words[words.index("--out") + 1] if "--out" in words else "" for words in command_lines(page)]


WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]
COMMANDS = {f"{page.stem}-{i}-{words[0]}": words for page in PAGES for i, words in enumerate(command_lines(page))}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("examples")
    scripts = {name: [str(ROOT / "examples" / name), *arguments] for name, (arguments, _) in EXAMPLES.items()}
    for page in WITH_PYTHON:
        path = folder / f"page_{page.stem}.py"  # numbers.py would hide a module of Python
        path.write_text(script(page), encoding="utf-8")
        scripts[page.name] = [str(path)]
    config = folder / "run" / "config.yaml"  # of the run that vae_digits.py leaves
    commands = {name: parsed(words, config) for name, words in COMMANDS.items()}
    job = json.dumps({"scripts": scripts, "commands": commands, "root": str(ROOT)})
    child = subprocess.run([sys.executable, "-c", RUNNER], input=job, cwd=folder, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


def test_the_table_names_every_example() -> None:
    assert sorted(EXAMPLES) == sorted(path.name for path in (ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name: str, results: dict[str, list[str]]) -> None:
    printed, error = results[name]
    assert error == ""
    assert EXAMPLES[name][1] in printed


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short(name: str) -> None:
    assert len((ROOT / "examples" / name).read_text(encoding="utf-8").splitlines()) <= 80


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page: Path, results: dict[str, list[str]]) -> None:
    assert results[page.name][1] == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_line_of_a_page_is_understood(name: str, results: dict[str, list[str]]) -> None:
    assert results[name][1] == "", shlex.join(COMMANDS[name])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_reads_is_made_or_published(page: Path) -> None:
    """By a page before, which is the README, by the page itself, or by the scripts that make files to try things on."""
    code = TO_TRY + "".join(blocks(page, "python"))
    made = {*PUBLISHED, *outputs(ROOT / "README.md"), *outputs(page)}
    read = {name for words in command_lines(page) for name in inputs(words)} - made
    assert [
        name for name in sorted(read) if not {f'"{name}"', f'"{Path(name).stem}"'} & set(re.findall(r'"[\w./-]+"', code))
    ] == []


def test_the_readme_asks_no_run_before_it_is_made() -> None:
    readme = ROOT / "README.md"
    there = itertools.accumulate(outputs(readme), lambda made, name: {*made, name}, initial=set[str]())
    for words, made in zip(command_lines(readme), there, strict=False):
        assert {name for name in inputs(words) if name.startswith("runs/")} <= made, shlex.join(words)


def test_the_pages_name_every_ready_declaration() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))
    assert [path.name for path in sorted((ROOT / "models").glob("*.yaml")) if path.name not in text] == []


def test_the_pages_are_all_listed() -> None:
    listed = re.findall(r"^  - .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_the_reference_has_every_public_name() -> None:
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    named = re.findall(r"^(?:::: |      heading: )ppl_vae\.(\w+)$", text, flags=re.MULTILINE)
    assert sorted(named) == sorted(pv.__all__)


def test_the_readme_shows_the_verbs() -> None:
    assert {words[0] for words in command_lines(ROOT / "README.md")} == set(cli.VERBS)


def test_the_readme_has_the_test_command_where_the_checks_look_for_it() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^<!-- test command -->\n```bash\n(.*)\n```$", text, flags=re.MULTILINE)
    assert len(found) == 1
    assert "pytest" in found[0]


def test_every_picture_and_link_of_the_pages_is_there() -> None:
    missing = []
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        targets = re.findall(r"\]\(([^)#\s]+)|src=\"([^\"]+)\"", text)
        paths = [first or second for first, second in targets if not (first or second).startswith("http")]
        missing += [f"{page.name}: {path}" for path in paths if not (page.parent / path).exists()]
    assert missing == []
