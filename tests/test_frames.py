"""Frames of pandas, polars and pyarrow, and files with text, booleans and dates: in as they are, and out again."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ppl_vae as pv
from ppl_vae.data import DataSource, load_data
from ppl_vae.data.frames import Form
from ppl_vae.data.matching import columns_matched
from ppl_vae.types import FitWarning

WHOLE = {"valid": 0, "test": 0, "missing": "ignore"}
DAY, TIME = datetime.date, datetime.datetime


def of_pandas() -> Any:
    pd = pytest.importorskip("pandas")
    return pd.DataFrame(
        {
            "float": [1.5, np.nan, -2.0],
            "small": np.array([0.5, 1.5, 2.5], dtype=np.float32),
            "integer": [1990, 2003, 2001],
            "nullable": pd.array([1, None, 30], dtype="Int64"),
            "boolean": [True, False, True],
            "unknown": pd.array([True, None, False], dtype="boolean"),
            "text": ["u", None, "v"],
            "ordered": pd.Categorical(["low", None, "high"], categories=["low", "middle", "high"], ordered=True),
            "numbered": pd.Categorical([3, 1, 2]),
            "time": pd.to_datetime(["2020-01-01 07:08:09.123456", "2022-05-06 00:00:01", None], format="ISO8601"),
            "zoned": pd.to_datetime(["2020-01-01", "2022-05-06", None]).tz_localize("Europe/Paris"),
            "date": np.array([DAY(2020, 1, 1), None, DAY(2021, 2, 3)], dtype=object),
            "iso": ["2020-02-03", "1969-12-30", "2024-02-29"],
        },
        index=["x", "y", "z"],
    )


def of_polars() -> Any:
    pl = pytest.importorskip("polars")
    return pl.DataFrame(
        {
            "float": [1.5, None, -2.0],
            "integer": [1, None, 30],
            "boolean": [True, None, False],
            "text": ["u", None, "v"],
            "category": pl.Series(["v", None, "u"], dtype=pl.Categorical),
            "ordered": pl.Series(["low", None, "high"], dtype=pl.Enum(["low", "middle", "high"])),
            "date": [DAY(2020, 1, 1), None, DAY(2021, 2, 3)],
            "time": [TIME(2020, 1, 1, 7, 8, 9, 123456), None, TIME(2022, 5, 6)],
        }
    )


def of_pyarrow() -> Any:
    pytest.importorskip("pyarrow")
    return of_polars().to_arrow()


@pytest.mark.parametrize("make", [of_pandas, of_polars, of_pyarrow])
def test_a_frame_comes_back_as_it_went_in(make: Any) -> None:
    frame = make()
    data = load_data(frame, **WHOLE)
    back = Form.of(frame).rows(data.train.x, table=data.spec.table)
    assert type(back) is type(frame)
    if make is of_pandas:
        pytest.importorskip("pandas").testing.assert_frame_equal(back, frame)
    elif make is of_polars:
        assert back.schema == frame.schema
        assert back.equals(frame)
    else:
        assert back.schema.equals(frame.schema)
        assert back.to_pylist() == frame.to_pylist()


def test_codes_and_days_stand_for_what_columns_hold() -> None:
    data = load_data(of_pandas(), **WHOLE)
    told = {column.name: (column.kind, column.dtype, column.categories) for column in data.spec.table}
    assert told["float"] == ("real", "float", ())
    assert told["integer"] == ("real", "integer", ())
    assert told["unknown"] == ("binary", "boolean", ())
    assert told["text"] == ("binary", "text", ("u", "v"))
    assert told["ordered"] == ("category", "category", ("low", "middle", "high"))
    assert told["numbered"] == ("category", "category", ("1", "2", "3"))
    x = dict(zip(data.spec.columns, data.train.x.T.tolist(), strict=True))
    assert (x["text"][::2], x["ordered"][::2], x["numbered"]) == ([0, 1], [0, 2], [2, 0, 1])
    assert x["iso"] == [18295, -2, 19782]  # days since 1970-01-01
    assert x["zoned"][0] == 18262 - 1 / 24  # which Paris was ahead of UTC
    assert [np.isnan(values[1]) for values in (x["text"], x["ordered"], x["date"])] == [True] * 3


def test_new_rows_are_numbered_by_their_texts() -> None:
    pd = pytest.importorskip("pandas")
    first = load_data(pd.DataFrame({"a": ["x", "y", "z"], "b": [1.5, 2, 3]}), **WHOLE)
    new = load_data(pd.DataFrame({"b": [4.5, 5], "a": ["z", "y"]}), **WHOLE).train
    assert new.table[1].categories == ("y", "z")
    matched, left = columns_matched(new, first.spec.columns, first.spec.table)
    assert (matched.x.tolist(), matched.table, left) == ([[2, 4.5], [1, 5]], first.spec.table, ())
    unknown = load_data(pd.DataFrame({"b": [4.5, 5], "a": ["z", "w"]}), **WHOLE).train
    with pytest.raises(ValueError, match="in column 'a' one of x, y, z, got 'w'"):
        columns_matched(unknown, first.spec.columns, first.spec.table)
    numbers = load_data(np.array([[2, 4.5], [3, 5]]), **WHOLE).train
    with pytest.raises(ValueError, match="in column 'a' codes from 0 to 2, which stand for x, y, z, got 2 to 3"):
        columns_matched(numbers, first.spec.columns, first.spec.table)
    assert torch.equal(columns_matched(numbers[:1], first.spec.columns, first.spec.table)[0].x, numbers[:1].x)


# --- files, and arrays of objects

TEXT = "species,alive,smokes,born,seen,count,mass\n" + "".join(
    f"{species},{alive},{smokes},2020-02-{day:02},2020-02-{day:02}T12:00:00Z,{day},{day / 8}\n"
    for day, (species, alive, smokes) in enumerate([("b", "True", "yes"), ("a", "False", "no"), ("c", "NA", "no")] * 8, 1)
)
COLUMNS = {
    "species": ("category", "text", ("a", "b", "c")),
    "alive": ("binary", "boolean", ()),
    "smokes": ("binary", "text", ("no", "yes")),
    "born": ("real", "date", ()),
    "seen": ("real", "datetime", ()),
    "count": ("count", "integer", ()),
    "mass": ("real", "float", ()),
}
ROW = [1, 1, 1, 18293, 18293.5, 1, 0.125]


def told(data: Any) -> dict[str, Any]:
    return {column.name: (column.kind, column.dtype, column.categories) for column in data.spec.table}


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_text_files_tell_text_booleans_dates_and_numbers_apart(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text(TEXT if suffix == ".csv" else TEXT.replace(",", "\t"))
    data = load_data(path, **WHOLE)
    assert told(data) == COLUMNS
    assert data.spec.columns == tuple(COLUMNS)
    assert data.train.x[0].tolist() == ROW
    assert data.train.x[2].isnan().tolist() == [name == "alive" for name in COLUMNS]
    with pytest.raises(ValueError, match="expected complete data, got NaN in 8 entries of 8 rows"):
        load_data(path, valid=0, test=0)


@pytest.mark.parametrize("make", [of_pandas, of_polars])
def test_parquet_files_are_read_as_their_frames(tmp_path: Path, make: Any) -> None:
    pytest.importorskip("pyarrow")
    frame = make()
    frame.to_parquet(tmp_path / "a.parquet", index=False) if make is of_pandas else frame.write_parquet(tmp_path / "a.parquet")
    kept = [name for name in frame.columns if name != "numbered"]  # categories that are numbers are numbers in the file
    read, direct = (load_data(source, columns=kept, **WHOLE) for source in (tmp_path / "a.parquet", frame))
    dtypes = [[(column.name, column.dtype, column.kind) for column in data.spec.table] for data in (read, direct)]
    assert dtypes[0] == dtypes[1]
    form = Form.of(frame)
    one, other = (form.rows(data.train.x, table=data.spec.table) for data in (read, direct))
    assert one.equals(other)  # whatever the order of unordered categories in the file


def test_an_array_of_objects_is_a_table(tmp_path: Path) -> None:
    rows = [["b", True, 1, DAY(2020, 2, 1), None], ["a", False, 3, DAY(2020, 2, 3), 1.5], ["c", True, 40, None, 2.5]]
    data = load_data(np.array(rows, dtype=object), **WHOLE)
    dtypes = ["text", "boolean", "integer", "date", "float"]
    assert [column.dtype for column in data.spec.table] == dtypes
    assert data.spec.columns == ("0", "1", "2", "3", "4")
    assert Form.of(np.array(rows, dtype=object)).rows(data.train.x, table=data.spec.table)[0].tolist()[:3] == ["b", True, 1]
    lists = load_data([["b", 1], ["a", 2.5]], **WHOLE)
    assert (lists.train.x.tolist(), lists.spec.table[0].categories) == ([[1, 1], [0, 2.5]], ("a", "b"))
    with pytest.raises(ValueError, match=r"numbers, text, booleans or dates in column '0', got int, str: convert it to one"):
        load_data(np.array([[1], ["a"]], dtype=object), **WHOLE)


def test_a_frame_of_pyarrow_with_labels_and_empty_categories() -> None:
    pa = pytest.importorskip("pyarrow")
    cells = pa.chunked_array([pa.array(["b", None]).dictionary_encode(), pa.array(["a", "b"]).dictionary_encode()])
    data = load_data(pa.table({"k": cells, "y": ["u", "v", "u", "v"]}), label="y", **WHOLE)
    assert data.train.x.nan_to_num(-1).tolist() == [[0], [-1], [1], [0]]  # in the order of its dictionary
    assert (data.spec.classes, data.train.y.tolist()) == (("u", "v"), [0, 1, 0, 1])


# --- which columns are data


def identified(rows: int = 40) -> Any:
    pd = pytest.importorskip("pandas")
    return pd.DataFrame({"name": [f"n{i}" for i in range(rows)], "a": np.arange(rows) / 7, "b": np.arange(rows) % 3})


def test_a_column_that_names_the_rows_is_left_out_unless_it_is_named() -> None:
    with pytest.warns(FitWarning, match="the column 'name' is left out, because nearly every row has another text: name it in"):
        data = load_data(identified(), **WHOLE)
    assert data.spec.columns == ("a", "b")
    named = load_data(identified(), columns=("name", "a"), **WHOLE)
    assert (named.spec.columns, len(named.spec.table[0].categories)) == (("name", "a"), 40)
    assert load_data(identified(20), **WHOLE).spec.columns == ("name", "a", "b")
    pd = pytest.importorskip("pandas")
    indexed = pd.DataFrame({"": range(3), "a": [1.5, 2, 3]})
    assert load_data(indexed, columns=("", "a"), **WHOLE).spec.columns == ("", "a")


def test_columns_are_chosen_and_dropped_by_name() -> None:
    frame = identified()
    assert load_data(frame, drop=("name", "b"), **WHOLE).spec.columns == ("a",)
    assert load_data(frame, columns=("b", "a"), **WHOLE).train.x[1].tolist() == pytest.approx([1, 1 / 7])
    labelled = load_data(frame, columns=("a", "b"), label="b", **WHOLE)
    assert (labelled.spec.columns, labelled.spec.classes) == (("a",), ("0", "1", "2"))
    for option in ("columns", "drop"):
        with pytest.raises(ValueError, match=rf"frame: expected {option} among name, a, b, got 'nam': did you mean name\?"):
            load_data(frame, **{option: ("nam",)}, **WHOLE)
        with pytest.raises(ValueError, match=f"expected {option}: different names"):
            DataSource(**{option: ("a", "a")})
        with pytest.raises(ValueError, match=f"expected {option} for .csv, .parquet, .tsv, .h5ad files and frames only"):
            load_data(np.eye(3), **{option: ("a",)})
    with pytest.raises(ValueError, match="columns that are not dropped"):
        DataSource(columns=("a",), drop=("a",))
    with pytest.raises(ValueError, match="expected a column of data, got none"):
        load_data(frame, drop=("name", "a", "b"), **WHOLE)
    source = DataSource(source="a.csv", columns=("a",), drop=("b",))
    assert DataSource.from_yaml(source.to_yaml()) == source
    assert (source.of("b.csv").columns, source.of("b.npy").columns) == (("a",), ())


ODD = {
    "numbers as text": (["1", "2", "3"], "got '1': convert the text of this column to numbers or to categories, or drop it"),
    "mostly numbers": (["1", "2", "?"], r"got '\?': drop or encode it, make it the label, or name it in missing_text"),
    "decimal commas": (["1,5", "2,5", "u"], "got '1,5': write numbers with a decimal point"),
    "percentages": (
        [f"{n} %" for n in range(11)],
        "got '0 %': write percentages as numbers, without %, or leave the column out",
    ),
    "amounts": ([f"$ {n}.50" for n in range(11)], "write amounts as numbers, without the sign of a currency"),
    "German dates": ([f"{n:02d}.03.2024" for n in range(1, 13)], "got '01.03.2024': write dates as 2024-03-05"),
    "English dates": ([f"3/{n}/2024" for n in range(1, 13)], "write dates as 2024-03-05"),
    "durations": (np.array([1, 2, 3], dtype="timedelta64[s]"), "dates in column 'a', got Duration"),
}


@pytest.mark.parametrize(("cells", "message"), ODD.values(), ids=ODD)
def test_text_that_was_meant_for_numbers_is_refused(cells: Any, message: str) -> None:
    pd = pytest.importorskip("pandas")
    with pytest.raises(ValueError, match=message) as caught:
        load_data(pd.DataFrame({"a": cells, "b": np.arange(len(cells)) + 0.5}), **WHOLE)
    assert str(caught.value).startswith("frame: ")


KINDS = {
    "binary": [0, 1, 1, np.nan],
    "count": [0, 3, 12, 4],
    "real": [1990, 2003, 2001, np.nan],
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_numbers_are_guessed(kind: str) -> None:
    pd = pytest.importorskip("pandas")
    assert load_data(pd.DataFrame({"a": KINDS[kind]}), **WHOLE).spec.table[0].kind == kind


# --- what is told of them


def test_a_summary_tells_each_column_and_escapes_what_it_shows() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"<b>": ["<i>", "b", None], "day": [DAY(2020, 1, 1), DAY(2020, 3, 1), None], "x": [0.5, 2, 1e7]})
    data = load_data(frame, **WHOLE)
    lines = [line.split() for line in str(data.summary()).splitlines()]
    assert lines[1:] == [
        ["column", "kind", "dtype", "levels", "missing", "values"],
        ["<b>", "binary", "text", "2", "1", "<i>,", "b"],
        ["day", "real", "date", "1", "2020-01-01", "to", "2020-03-01"],
        ["x", "real", "float", "0.5", "to", "1e+07"],
    ]
    shown = data._repr_html_()
    assert "&lt;b&gt;" in shown
    assert "&lt;i&gt;" in shown
    assert "<b>" not in shown
    assert "<i>" not in shown
    assert str(load_data(np.eye(5), **WHOLE).summary()) == "Data(array: 5 train, 0 valid, 0 test; binary (5,))"
    wide = load_data(pd.DataFrame(np.random.default_rng(0).normal(size=(3, 50))), **WHOLE).summary()
    assert str(wide).splitlines()[-1] == "and 10 more: 10 real"


def test_a_warm_start_needs_the_same_categories() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": ["u", "v", "w"] * 20, "b": np.arange(60) / 7})
    model = pv.VAE(latent_dim=1, likelihood=pv.Auto(), decoder=pv.Linear())
    fit = pv.fit(model, frame, method=pv.SVI(epochs=1))
    other = frame.assign(a=frame["a"].replace("w", "x"))
    with pytest.raises(
        ValueError, match="categories of the earlier fit in their order: expected in column 'a' u, v, w, got u, v, x"
    ):
        pv.fit(model, other, method=pv.SVI(epochs=1), warm_start=fit)


def test_what_numbers_would_not_tell_apart_is_refused() -> None:
    pandas, whole = pytest.importorskip("pandas"), r"whole numbers up to 2\^53 in column 'm'"
    for column, told in (
        (np.arange(60) + 2**60, whole),
        (np.array([2**70 + place for place in range(60)], dtype=object), whole),
        (np.arange(60, dtype="uint64") + np.uint64(2**63), whole),
        (pandas.Categorical([1, "1"] * 30), "categories of different texts in column 'm', got '1' twice"),
    ):
        with pytest.raises(ValueError, match=told):
            load_data(pandas.DataFrame({"m": column, "a": np.arange(60.0)}))


def test_long_numbers_in_a_file_are_refused_too(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "\n".join(["m,a", *(f"{2**60 + place},{place}.5" for place in range(30))]), encoding="utf-8"
    )
    with pytest.raises(ValueError, match=r"whole numbers up to 2\^53 in column 'm', .* got 1152921504606846976: leave it out"):
        load_data(tmp_path / "a.csv")


def test_long_integers_of_polars_are_numbers() -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"m": polars.Series(range(60)).cast(polars.Int128), "a": np.arange(60.0)})
    assert load_data(frame, valid=0.0, test=0.0).train.x[:, 0].tolist() == list(range(60))


@pytest.mark.parametrize("library", ["pandas", "nullable", "polars", "pyarrow"])
def test_means_are_not_cut_to_whole_numbers_by_the_dtype_of_the_rows(library: str) -> None:
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    fit = pv.fit(pv.FactorAnalysis(latent_dim=1), pandas.DataFrame(rng.normal(size=(60, 3)), columns=[*"abc"]), method=pv.EM())
    rows: Any = pandas.DataFrame({"a": [1, 2], "b": [0.5, 1.5], "c": [0.1, 0.2]})
    expected = fit.reconstruct(rows.astype(float))["a"].tolist()
    if library == "nullable":
        rows = rows.astype({"a": "Int64"})
    elif library != "pandas":
        module = pytest.importorskip(library)
        rows = module.from_pandas(rows) if library == "polars" else module.Table.from_pandas(rows)
    assert np.asarray(fit.reconstruct(rows)["a"]).tolist() == pytest.approx(expected, rel=1e-6)
    assert not float(expected[0]).is_integer()
