"""What is imported when: torch by what needs it, and pictures, image sets and classifiers once they are asked for."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

import ppl_vae as pv
from ppl_vae.cli import VERBS
from ppl_vae.cli.catalogue import declared
from ppl_vae.cli.sources import summaries
from ppl_vae.declaration import FAMILIES, families
from ppl_vae.text import without_markup

HEAVY = ("torch", "pyro", "torchvision", "sklearn", "matplotlib", "pandas", "triton")
LIGHT = [[], ["--help"], *([verb, "--help"] for verb in VERBS), ["list"]]
MISSPELLED = [["scor"], ["score", "run", "--oot", "x"], ["fit", "--modle", "VAE"], ["fit", "--data.rot", "x"]]

WATCHED = """
import contextlib, io, json, pathlib, re, sys
from ppl_vae.cli import main

def code(words):
    try:
        return main(words)
    except SystemExit as end:
        return end.code

def loaded():
    return [name for name in job["heavy"] if name in sys.modules]

job = json.load(sys.stdin)
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    codes = [[code(words) for words in job[part]] for part in ("light", "misspelled")]
status = pathlib.Path("/proc/self/status")
peak = int(re.search("VmHWM:\\s*(\\d+) kB", status.read_text())[1]) if status.exists() else 0
found = {"codes": codes, "light": loaded(), "peak": peak}

import ppl_vae as pv

pv.Model.from_yaml(pv.VAE(prior=pv.GaussianMixture(), likelihood=pv.Gaussian()).to_yaml())
json.dump({**found, "declared": loaded()}, sys.stdout)
"""


def test_help_and_misspelled_words_import_no_torch_and_declarations_no_pictures() -> None:
    job = json.dumps({"heavy": HEAVY, "light": LIGHT, "misspelled": MISSPELLED})
    done = subprocess.run([sys.executable, "-c", WATCHED], input=job, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["codes"] == [[0] * len(LIGHT), [2] * len(MISSPELLED)]
    assert found["light"] == []
    assert found["peak"] < 80 * 1024  # KiB, where Linux tells them
    assert found["declared"] == ["torch", "pyro"]


FITTED = """
import json, sys
import ppl_vae as pv

data = pv.load_data("digits")
for epochs in (2, 30):  # eager, recorded
    fit = pv.fit(pv.VAE(latent_dim=2), data, method=pv.SVI(epochs=epochs), progress=lambda row: None)
fit.evaluate(data.valid, samples=20), fit.encode(data.test), fit.sample(3), fit.reconstruct(data.test)
others = ("sympy", "torch._dynamo", "torch._inductor", "sklearn", "scipy", "pandas")
print(json.dumps([name for name in others if name in sys.modules]))
"""


def test_a_fit_imports_neither_the_compiler_nor_what_reads_other_data() -> None:  # some seconds and 300 MiB of every process
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FITTED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def test_public_names_are_there_however_they_are_asked_for() -> None:

    assert set(dir(pv)) >= {*pv.__all__}
    everything: dict[str, object] = {}
    exec("from ppl_vae import *", everything)
    assert everything.keys() >= {*pv.__all__}
    assert not any(isinstance(everything[name], types.ModuleType) for name in pv.__all__)
    assert inspect.isfunction(pv.evaluate)  # not the folders of that name
    assert inspect.isfunction(pv.report)
    with pytest.raises(AttributeError, match="module 'ppl_vae' has no attribute 'VEA'"):
        pv.VEA  # type: ignore[attr-defined]


def test_what_the_sources_tell_of_families_is_what_there_is() -> None:
    library = [family for family in families() if family.__module__.startswith("ppl_vae.")]
    assert sorted(family.__name__ for family in library) == sorted(FAMILIES)
    for family, told in summaries().items():
        ours = [cls for cls in declared()[family] if cls.__module__.startswith("ppl_vae.")]
        assert told == {cls.__name__: without_markup((inspect.getdoc(cls) or "").partition("\n")[0]) for cls in ours}


def test_no_public_name_is_that_of_a_file_which_it_is_not_from() -> None:
    root = Path(*pv.__path__)
    for stub in root.rglob("__init__.pyi"):
        files = {path.stem for path in stub.parent.glob("*.py")} | {
            path.parent.name for path in stub.parent.glob("*/__init__.py")
        }
        imports = [node for node in ast.parse(stub.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)]
        for node in (node for node in imports if node.module):
            names = {alias.name for alias in node.names}
            assert not names & files - {str(node.module).partition(".")[0]}, f"{stub}: whichever was imported last would be it"
