"""Tables and their labels: names of columns, separators, what is missing, and what to do about cells that are no numbers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppl_vae.data import Data, load_data
from ppl_vae.types import FitWarning

WHOLE = {"valid": 0, "test": 0}
REALS = "5.1,3.5,1.4\n4.9,3.0,1.6\n4.7,3.2,1.3\n"
COUNTS = "5,3,1\n4,3,1\n4,7,9\n"


@pytest.fixture
def loaded(tmp_path):
    """Load a csv file of this text: the data, and what is remarked on."""

    def load(text: str, **options: Any) -> tuple[Data, list[str]]:
        (tmp_path / "a.csv").write_text(text)
        return told(tmp_path / "a.csv", **options)

    return load


def told(source: Any, **options: Any) -> tuple[Data, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = load_data(source, **{**WHOLE, **options})
    assert all(warning.category is FitWarning for warning in caught)
    return data, [str(warning.message) for warning in caught]


# --- the first line

NAMES, ROW, SILENT = "taken for column names: if it is a row, say --data.header false", "taken for a row", ""
FIRST_LINES = {
    "words": ("a,b,c\n" + REALS, 3, SILENT),
    "numbers of columns": ("0,1,2\n" + REALS, 3, NAMES),
    "years": ("1990,1995,2003\n" + REALS, 3, NAMES),
    "years above counts": ("1990,1991,1992\n" + COUNTS, 4, ROW),
    "no names": (REALS, 3, SILENT),
    "no names, counts": (COUNTS, 3, SILENT),
    "a whole first row": ("5,3,1\n" + REALS, 4, SILENT),
    "a whole rising first row": ("0,1\n0.5,0.9\n1,0.8\n1.5,0.7\n", 4, SILENT),
    "a start at 0, 1, 2": ("0,1,2\n0.5,0.9,2\n1,0.8,2\n", 3, ROW),
    "one column": ("0\n0.5\n0.7\n", 3, SILENT),
    "one row": ("1,2,3\n", 1, ROW),
}


@pytest.mark.parametrize(("text", "rows", "remark"), FIRST_LINES.values(), ids=FIRST_LINES)
def test_the_first_line_names_the_columns_by_a_rule(loaded, text, rows, remark):
    data, remarks = loaded(text)
    assert len(data.train) == rows
    assert [remark in each for each in remarks] == [True] * bool(remark)


@pytest.mark.parametrize(("header", "rows"), [(True, 3), (False, 4)])
def test_the_first_line_is_what_it_is_declared_to_be(loaded, header, rows):
    for first in ("0,1,2\n", "1990,1991,1992\n"):
        for below in (REALS, COUNTS):
            data, remarks = loaded(first + below, header=header)
            assert (len(data.train), remarks) == (rows, [])


def test_a_numeric_header_is_no_class(loaded):
    text = "0,1,2,3\n" + REALS.replace("\n", ",red\n")
    data, remarks = loaded(text, label="3")
    assert data.spec.classes == ("red",)
    assert len(remarks) == 1
    data, remarks = loaded("1990,1991,2020\n" + COUNTS, label="2020")
    assert (data.spec.classes, remarks) == (("1", "9"), [])


@pytest.mark.parametrize(
    ("index", "column"),
    [("", "0 1 2"), ("Unnamed: 0", "1 2 3"), ("__index_level_0__", "9 7 8"), ("", "Mazda Fiat Volvo")],
    ids=str,
)
def test_an_index_is_left_out(loaded, index, column):
    lines = zip([index, *column.split()], ("a,b,c\n" + REALS).splitlines(), strict=True)
    data, remarks = loaded("\n".join(map(",".join, lines)))
    assert np.array_equal(data.train.x, np.float32([[5.1, 3.5, 1.4], [4.9, 3.0, 1.6], [4.7, 3.2, 1.3]]))
    assert len(remarks) == 1
    assert f"the column {index!r} is left out" in remarks[0]


def test_data_without_a_name_stay(loaded):
    data, remarks = loaded(",b\n0.5,1\n0.3,2\n")
    assert (data.spec.event_shape, remarks) == ((2,), [])
    data, remarks = loaded(",b\n0,1\n1,2\n", label="")
    assert data.spec.classes == ("0", "1")
    data, _ = loaded(",0,1\n0,7,8\n1,7,9\n")  # as pandas writes a frame without names
    assert data.train.x.tolist() == [[7, 8], [7, 9]]


def test_names_differ(loaded):
    with pytest.raises(ValueError, match="different names, got 'a' twice"):
        loaded("a,b,a\n" + REALS)


# --- cells

CELLS = {
    "semicolons": ("a;b\n1;2\n3;4\n", None),
    "tabs": ("a\tb\n1\t2\n3\t4\n", None),
    "commas, quoted": ('a,"b;c"\n1,"2"\n3,4\n', None),
    "windows": ("\ufeffa,b\r\n1,2\r\n3,4\r\n", None),
    "decimal commas": ("a;b\n1,5;2\n3;4\n", "got '1,5': write numbers with a decimal point"),
    "thousands": ('a,b\n"1,500",2\n3,4\n', "got '1,500': write numbers with a decimal point and without separators"),
    "commas in the first line only": ("1,5;2\n3,0;4\n", r"got '0;4': separate cells by commas, or all of them by semicolons"),
    "spaces": ("1 2\n3 4\n", "got '3 4': separate cells by commas"),
    "text": ("a,b\n1,?\n3,4\n", r"got '\?': drop or encode it, make it the label, or name it in missing_text"),
    "ragged": ("a;b\n1;2;3\n", "expected 2 cells in line 2, as in the first, got 3: cells are separated by ';'"),
}


@pytest.mark.parametrize(("text", "message"), CELLS.values(), ids=CELLS)
def test_cells_are_separated_by_the_mark_of_the_first_line(loaded, text, message):
    if message is None:
        data, remarks = loaded(text)
        assert (data.train.x.tolist(), remarks) == ([[1, 2], [3, 4]], [])
    else:
        with pytest.raises(ValueError, match=message) as caught:
            loaded(text)
        assert "\n" not in str(caught.value)


# --- what is missing

MISSING = ["", "NA", "n/a", "#N/A", "nan", "NULL", "None", "<NA>"]


@pytest.mark.parametrize("cell", MISSING)
def test_one_rule_for_what_is_missing(loaded, tmp_path, cell):
    """The same texts stand for a missing value and for a missing label, in csv and in parquet files."""
    text = f"a,b,s\n1,2,u\n3,{cell},{cell}\n4,5,v\n"
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"a": [1, 3, 4], "b": [2, None, 5], "s": ["u", cell, "v"]}), tmp_path / "a.parquet")
    for data, remarks in (
        loaded(text, label="s", missing="ignore"),
        told(tmp_path / "a.parquet", label="s", missing="ignore"),
    ):
        assert data.train.x.isnan().tolist() == [[False, False], [False, True], [False, False]]
        assert data.spec.classes == ("u", "v")
        assert data.train.y.tolist() == [0, -1, 1]
        assert len(remarks) == 1
        assert f"1 rows have no label (got {cell!r})" in remarks[0]
        with pytest.raises(ValueError, match="1 rows without"):
            list(data.train.labelled_batches(3))
    with pytest.raises(ValueError, match="NaN in 1 entries"):
        loaded(text, label="s")


def test_a_class_may_be_called_as_what_is_missing(loaded):
    text = "a,s\n1,NA\n2,ZA\n3,?\n"
    data, remarks = loaded(text, label="s", missing_text=[])
    assert (data.spec.classes, remarks) == (("?", "NA", "ZA"), [])
    data, _ = loaded(text, label="s", missing_text=["?"])
    assert (data.spec.classes, data.train.y.tolist()) == (("NA", "ZA"), [0, 1, -1])
    data, _ = loaded("a,b\n1,?\n3,NA\n", missing_text=["?", "na"], missing="ignore")
    assert data.train.x.isnan().tolist() == [[False, True], [False, True]]


@pytest.mark.parametrize("kind", ["string", "integer", "boolean", "category"])
def test_a_null_label_is_no_class(tmp_path, kind):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    cells = {"integer": [3, None, 7], "boolean": [False, None, True]}.get(kind, ["u", None, "v"])
    column = pa.array(cells).dictionary_encode() if kind == "category" else pa.array(cells)
    parquet.write_table(pa.table({"a": [1.5, 2, 3], "s": column}), tmp_path / "a.parquet")
    data, remarks = told(tmp_path / "a.parquet", label="s")
    assert data.spec.classes == {"integer": ("3", "7"), "boolean": ("False", "True")}.get(kind, ("u", "v"))
    assert data.train.y.tolist() == [0, -1, 1]
    assert len(remarks) == 1


LABELS = {
    "None": (["a", None, "b", "a"], ("a", "b"), [0, -1, 1, 0]),
    "NaN": ([1, np.nan, 3, 1], ("1", "3"), [0, -1, 1, 0]),
    "NA": (["b", "NA", "a", ""], ("a", "b"), [1, -1, 0, -1]),
    "-1": ([0, -1, 1, 0], ("0", "1"), [0, -1, 1, 0]),
    "negative": ([-2, -1, 1, 0], ("-2", "-1", "0", "1"), [0, 1, 3, 2]),
}


@pytest.mark.parametrize(("given", "classes", "numbers"), LABELS.values(), ids=LABELS)
def test_labels_in_memory_may_be_missing(given, classes, numbers):
    data, remarks = told(np.eye(4), y=given)
    assert (data.spec.classes, data.train.y.tolist()) == (classes, numbers)
    assert len(remarks) == (-1 in numbers)


@pytest.mark.parametrize("given", [[-1, 1, 1, -1], [-1, 0, 0, 0]], ids=str)
def test_minus_one_beside_one_class_is_refused(given):
    with pytest.raises(ValueError, match=r"got -1 and \d, where -1 may also stand for rows without a label: recode them"):
        load_data(np.eye(4), y=given, **WHOLE)


# --- frames


def test_frames_are_read_column_by_column():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {
            "a": pd.array([1, None, 3], dtype="Int64"),
            "b": [True, False, True],
            "c": [0.5, np.nan, 2],
            "s": pd.Categorical(["u", None, "v"]),
        },
        index=["x", "y", "z"],
    )
    data, remarks = told(frame, label="s", missing="ignore")
    assert data.train.x.nan_to_num(-1).tolist() == [[1, 1, 0.5], [-1, 0, -1], [3, 1, 2]]
    assert (data.spec.classes, data.train.y.tolist(), len(remarks)) == (("u", "v"), [0, -1, 1], 1)
    assert told(frame, missing="ignore")[0].train.x[:, 3].nan_to_num(-1).tolist() == [0, -1, 1]
    with pytest.raises(ValueError, match=r"NaN in \d entries"):
        load_data(frame[["a", "b"]], **WHOLE)
    assert told(frame["c"], missing="ignore")[0].train.x.flatten().nan_to_num(-1).tolist() == [0.5, -1, 2]
    assert told(frame["a"], missing="ignore")[0].train.x.flatten().nan_to_num(-1).tolist() == [1, -1, 3]


def test_sparse_matrices_are_taken_as_data_and_refused_as_a_field_with_a_remedy_that_helps():
    sparse = pytest.importorskip("scipy.sparse")
    matrix = sparse.csr_matrix(np.eye(9))
    assert load_data(matrix, **WHOLE).train.x.tolist() == np.eye(9).tolist()
    with pytest.raises(ValueError, match=r"got a sparse csr_matrix: give its \.toarray\(\)"):
        load_data({"x": np.ones((9, 2)), "y": matrix})
    assert len(load_data({"x": np.ones((9, 2)), "y": matrix.toarray()}, **WHOLE).train) == 9


# --- what values probably are


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_fill_values_are_called_so(kind):
    values = np.random.default_rng(0).normal(size=(100, 3)).astype(kind)
    values[[3, 5], 1] = 1e20
    with pytest.raises(ValueError, match=r"got 1e\+20 in 2 rows of feature 1 .* probably it stands for missing entries"):
        load_data(values)
    load_data(values * 1e-20 + 1e20, scale="standardize")


@pytest.mark.parametrize("codes", [[1, 2], [-1, 1], [0, 255]], ids=str)
def test_codes_of_two_values_are_to_be_recoded(codes):
    from ppl_vae import Bernoulli

    values = np.random.default_rng(0).choice(codes, (40, 3))
    data = load_data(values)
    with pytest.raises(ValueError, match="recode them as 0 and 1 if they are two values"):
        Bernoulli().check(data.spec)
    Bernoulli().check(load_data(values == codes[1]).spec)
    with pytest.raises(ValueError, match="recode two values as 0 and 1"):
        load_data(values, kind="binary")


def test_colour_images_of_floats_have_their_channels_first():
    colour = np.random.default_rng(0).random((9, 8, 6, 3))
    for dtype in (np.float32, np.float64, np.int64):
        values = (colour * 9).astype(dtype)
        assert np.array_equal(load_data(values, **WHOLE).train.x, values.transpose(0, 3, 1, 2).astype(np.float32))


def test_the_command_line_overrules_the_header(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ppl_vae.cli import main

    (tmp_path / "a.csv").write_text("0,1,2\n" + "".join(f"{i / 7:.3f},{i % 5 / 3:.3f},{i % 7 / 9:.3f}\n" for i in range(40)))
    fit = f"fit --model FactorAnalysis --model.latent_dim 1 --method EM --data {tmp_path / 'a.csv'} --device cpu --json"
    sizes = []
    for words in ("", " --data.header false"):
        assert main((fit + " --data.valid 0 --data.test 0.5" + words).split()) == 0
        said = capsys.readouterr()
        assert ("taken for column names" in said.err) == (not words)
        sizes.append(__import__("json").loads(said.out)["test"]["n"])
    assert sizes == [20, 20]
