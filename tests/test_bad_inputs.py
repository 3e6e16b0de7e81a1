"""Every bad input of the table gets its answer; mutated files and declarations are loaded or refused in one line."""

from __future__ import annotations

import copy
import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import ppl_vae as pv
from ppl_vae.types import FitWarning
from tests.bad_inputs import CASES, FINE, answer
from tests.table import DECLARATIONS, rows

FUZZ = settings(
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.filterwarnings("default::ppl_vae.types.FitWarning")
@pytest.mark.parametrize("case", CASES)
def test_a_bad_input_gets_its_answer(case: str, recwarn: pytest.WarningsRecorder) -> None:
    found = answer(case)
    if CASES[case].message == FINE:
        assert found is None
    else:
        assert re.search(CASES[case].message, found or ""), found
    assert all(issubclass(warning.category, FitWarning) for warning in recwarn)


# --- fuzzing --------------------------------------------------------------------------------------------------------------


def refused_or_fine(attempt: Callable[[], Any]) -> None:
    """Run it: nothing may be raised but one ``ValueError`` of one line."""
    said = "fine"
    try:
        attempt()
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        said = str(error)
    assert said.strip()
    assert "\n" not in said, said


words = st.sampled_from(
    [
        "class_path",
        "init_args",
        "prior",
        "VAE",
        "MLP",
        "latent_dim",
        "hidden",
        "ppl_vae.VAE",
        "ppl_vae..x",
        "os.system",
        "",
        "a.b",
        "~",
    ]
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), words, st.dates(), st.binary(max_size=4)
)
plain = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.one_of(words, st.integers()), inner, max_size=3)),
    max_leaves=6,
)
declarations = st.sampled_from(
    [value for value in DECLARATIONS.values() if isinstance(value, (pv.Model, pv.Prior, pv.Likelihood))]
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a plain value with each of its keys."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


@settings(FUZZ, max_examples=25)
@given(declarations, st.data())
def test_declarations_with_one_value_replaced(declaration: pv.Declaration, data: st.DataObject) -> None:
    config = copy.deepcopy(declaration.to_dict())
    container, key = data.draw(st.sampled_from(places(config)))
    container[key] = data.draw(plain)
    refused_or_fine(lambda: type(declaration).from_dict(config))


@settings(FUZZ, max_examples=30)
@given(plain)
def test_plain_values_as_declarations(config: Any) -> None:
    refused_or_fine(lambda: pv.Model.from_dict(config))
    refused_or_fine(lambda: pv.DataSource.from_dict(config))


@settings(FUZZ, max_examples=150)
@given(st.one_of(st.text(), st.text(alphabet="{}[]&*!<:-,'\"ab0. \n~|>%@?\t#")))
def test_text_as_yaml(text: str) -> None:
    refused_or_fine(lambda: pv.Likelihood.from_yaml(text))


def mutated(content: bytes) -> st.SearchStrategy[bytes]:
    """The bytes with some replaced, left out or put in, or cut short."""
    place = st.integers(0, len(content) - 1)
    edit = st.tuples(place, st.integers(0, 4), st.binary(max_size=4))

    def apply(edits: list[tuple[int, int, bytes]], end: int) -> bytes:
        result = bytearray(content)
        for start, length, put in edits:
            result[start : start + length] = put
        return bytes(result[:end]) if end % 5 == 0 else bytes(result)

    return st.builds(apply, st.lists(edit, min_size=1, max_size=3), place)


def parquet() -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(pa.table({"a": [1.0, 2.0, 3.0], "b": ["x", "y", "x"]}), file)
    return file.getvalue()


def numpy_file(save: Callable, **arrays: Any) -> bytes:
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def png() -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(file, format="png")
    return file.getvalue()


TABLE = np.arange(12.0).reshape(4, 3)
FILES = {
    "a.npy": numpy_file(lambda file: np.save(file, TABLE)),
    "a.npz": numpy_file(np.savez_compressed, x=TABLE, y=np.arange(4)),
    "a.csv": b"a,b,name\n1,2.5,u\n3,,v\n1e3,-4,u\n",
    "a.parquet": parquet(),
    "d/a.png": png(),
}


@pytest.mark.parametrize("name", FILES)
@FUZZ
@given(data=st.data())
def test_files_with_some_bytes_changed(name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / f"fuzz-{name}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data.draw(mutated(FILES[name])))
    label = {"label": "name"} if name == "a.csv" else {"label": "b"} if name == "a.parquet" else {}
    source = path if path.suffix != ".png" else path.parent
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", FitWarning)
        refused_or_fine(lambda: pv.load_data(source, valid=0.0, test=0.0, missing="ignore", **label))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose files are changed and put back."""
    data = pv.load_data(rows("binary", 30))
    network = pv.MLP(hidden=(5,))
    model = pv.VAE(latent_dim=2, decoder=network)
    fit = pv.fit(model, data, guide=pv.AmortizedNormal(encoder=network), method=pv.SVI(epochs=1), device="cpu")
    return pv.save_run(fit, data, tmp_path_factory.mktemp("fuzz") / "run")


@pytest.mark.parametrize("name", ["config.yaml", "data.json", "history.jsonl", "model.safetensors"])
@settings(FUZZ, max_examples=12)
@given(data=st.data())
def test_runs_with_some_bytes_changed(name: str, data: st.DataObject, run: Path) -> None:
    whole = (run / name).read_bytes()
    try:
        (run / name).write_bytes(data.draw(mutated(whole)))
        refused_or_fine(lambda: pv.load_run(run, device="cpu"))
    finally:
        (run / name).write_bytes(whole)
