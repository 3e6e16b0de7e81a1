"""Frames of pandas, polars and pyarrow, and files with text, booleans and dates: in as they are, and out again."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pytest
import torch

from ppl_vae.data import load_data
from ppl_vae.data.frames import Form
from ppl_vae.data.matching import columns_matched

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
