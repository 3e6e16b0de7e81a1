"""Tables, sparse matrices and cells that are streamed: the numbers of memory, in bounded memory, converted once and whole."""

from __future__ import annotations

import importlib.util
import json
import shutil
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ppl_vae as pv
from ppl_vae.data import conversions
from ppl_vae.data.folds import folds
from ppl_vae.data.matching import columns_matched
from ppl_vae.types import FitWarning

pd = pytest.importorskip("pandas")
sparse = pytest.importorskip("scipy.sparse")
parquet = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow (extra `parquet`) is not installed")
cells = pytest.mark.skipif(importlib.util.find_spec("anndata") is None, reason="anndata (extra `anndata`) is not installed")

ROWS = 120
rng = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where conversions are kept; a MiB of a declared stream is 60 kB, and rows are read 2 kB at a time."""
    monkeypatch.setenv("PPL_VAE_DATA", str(tmp_path / "kept"))
    monkeypatch.setattr("ppl_vae.data.stream.MIB", 60_000)
    monkeypatch.setattr("ppl_vae.data.stream.PIECE", 2000)
    return tmp_path / "kept" / "streamed"


def loaded(source: Any, **options: Any) -> tuple[pv.Data, list[str]]:
    """Data, and what was remarked on, but what a conversion takes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = pv.load_data(source, **options)
    assert all(issubclass(each.category, FitWarning) for each in caught)
    return data, sorted(str(each.message) for each in caught if "to stream its rows" not in str(each.message))


def check_same(source: Path, *, times: int = 1, **options: Any) -> pv.Data:
    """Data that are streamed, once it is known that they are those of memory, when they are converted and when found again."""
    held, told = loaded(source, **options)
    for _ in range(times):
        data, remarks = loaded(source, stream=1, **options)
        assert remarks == told
        assert data.spec == held.spec
        for name in ("train", "valid", "test"):
            mine, theirs = getattr(data, name), getattr(held, name)
            x = torch.cat(list(mine.chunks()))
            torch.testing.assert_close(x, theirs.x, rtol=0, atol=0, equal_nan=True)
            assert mine.transform.state_dict().keys() == theirs.transform.state_dict().keys()
            for ours, other in zip(mine.transform.buffers(), theirs.transform.buffers(), strict=True):
                torch.testing.assert_close(ours, other, rtol=1e-6, atol=1e-12)
            for ours, other in ((mine.y, theirs.y), (mine.weights, theirs.weights)):
                assert (ours is None) == (other is None)
                assert ours is None or torch.equal(ours, other)
            assert mine.fields.levels == theirs.fields.levels
            assert mine.fields.columns.keys() == theirs.fields.columns.keys()
            for field, column in theirs.fields.columns.items():
                torch.testing.assert_close(mine.fields.columns[field], column, rtol=0, atol=0, equal_nan=True)
        assert str(data.summary()).replace(", streamed", "") == str(held.summary())
    assert "streamed" in repr(data.train)
    return data


def frame() -> Any:
    """Columns of all kinds, some with missing entries."""
    towns = np.array(["Bonn", "Köln, am Rhein", "Ulm", None], dtype=object)
    return pd.DataFrame(
        {
            "length": rng.normal(size=ROWS).round(3),
            "gaps": np.where(rng.random(ROWS) < 0.1, np.nan, rng.normal(size=ROWS)),
            "count": rng.poisson(2, ROWS),
            "year": rng.integers(1990, 2020, ROWS),
            "town": rng.choice(towns, ROWS),
            "known": rng.random(ROWS) < 0.5,
            "day": pd.to_datetime(rng.integers(0, 3000, ROWS), unit="D").strftime("%Y-%m-%d"),
            "time": pd.to_datetime(rng.integers(0, 2**31, ROWS), unit="s").strftime("%Y-%m-%d %H:%M:%S"),
            "name": [f"row {place}" for place in range(ROWS)],
            "kind": rng.choice(["good", "bad", "?"], ROWS),
            "often": rng.integers(1, 5, ROWS),
        }
    )


TABLE = frame()
OPTIONS: dict[str, dict[str, Any]] = {
    "all": {"missing": "ignore"},
    "labels": {"missing": "ignore", "label": "kind", "drop": ("name", "gaps"), "scale": "standardize"},
    "labels that are missing": {"missing": "ignore", "label": "town", "drop": ("name",)},
    "numbers as labels, weights": {"label": "year", "weights": "often", "columns": ("count", "length")},
    "fields": {"fields": ("kind", "count", "known", "length"), "columns": ("day", "time", "year")},
    "names are data": {"columns": ("name", "length")},
    "text for missing": {"columns": ("kind",), "missing_text": ("?",), "missing": "ignore"},
    "whole numbers": {"columns": ("count", "year", "often"), "weights": None},
    "booleans": {"columns": ("known",)},
}


SOME = ("labels that are missing", "fields")  # of which other formats might tell otherwise


@pytest.mark.parametrize("suffix", ["csv", "tsv", pytest.param("parquet", marks=parquet)])
def test_streamed_tables_are_the_tables(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t.{suffix}"
    if suffix == "parquet":
        TABLE.to_parquet(path, row_group_size=35)
    else:
        TABLE.to_csv(path, index=False, sep="," if suffix == "csv" else "\t")
    for name, options in OPTIONS.items():
        if suffix == "csv" or name in SOME:
            check_same(path, times=2 if name in SOME else 1, **options)


@parquet
def test_dtypes_of_parquet_are_kept(tmp_path: Path) -> None:
    typed = pd.DataFrame(
        {
            "few": pd.Series([1, None, 3, 4] * 30, dtype="Int8"),
            "half": np.arange(ROWS, dtype=np.float32) / 2,
            "order": pd.Categorical(["b", "a"] * 60, categories=["z", "b", "a"]),
            "maybe": pd.Series([True, False, None] * 40, dtype="boolean"),
            "late": pd.Series([None] * 50 + ["x"] * 50 + ["y"] * 20, dtype=object),
            "day": pd.to_datetime(np.arange(ROWS), unit="D").date,
            "when": pd.to_datetime(np.arange(ROWS) * 3601, unit="s"),
            "nothing": pd.Series([None] * ROWS, dtype=object),
        },
        index=pd.RangeIndex(5, 5 + ROWS * 2, 2, name="place"),
    )
    typed.to_parquet(tmp_path / "t.parquet", row_group_size=25)
    check_same(tmp_path / "t.parquet", missing="ignore")
    check_same(tmp_path / "t.parquet", label="maybe", columns=("half",))


HEADS = {
    "no names": "0.5,1,a\n",
    "numbers as names": "1990,1991,1992\n",
    "years or rows": "1,2,3\n",
    "an index without a name": ",x,town\n",
}


def test_first_lines_and_indices_are_read_as_in_memory(tmp_path: Path) -> None:
    for number, head in enumerate(HEADS.values()):
        rows = "".join(f"{place},{place % 7 / 4 + 0.1},{'ab'[place % 2]}\n" for place in range(ROWS))
        path = tmp_path / f"{number}.csv"
        path.write_text(head + rows)
        check_same(path)
    rows = "".join(f"{place / 7 + 0.01:.3f},{place % 5 + 0.5},{place}\n" for place in range(ROWS))
    (tmp_path / "years.csv").write_text("1990,1991,1992\n" + rows)
    check_same(tmp_path / "years.csv")
    check_same(tmp_path / "years.csv", header=False)


def matrix(columns: int = 40) -> Any:
    held = sparse.random(ROWS, columns, density=0.2, format="csr", random_state=np.random.RandomState(1))
    held.data = np.ceil(held.data * 300)
    return held


@pytest.mark.parametrize("counts", ["auto", "sparse"])
def test_streamed_counts_are_the_counts(tmp_path: Path, counts: str) -> None:
    rows = matrix()
    twice = sparse.csr_matrix(
        (np.repeat(rows.data / 2, 2), np.repeat(rows.indices, 2), rows.indptr * 2), shape=rows.shape
    )  # each place in two parts, as matrices may be held
    twice.data[:4] = [1, -1, 2, 0]
    for number, (each, compressed) in enumerate(((rows, True), (twice, False), (rows / 7, True), (rows > 0, True))):
        sparse.save_npz(tmp_path / f"{number}.npz", each, compressed=compressed)
        data = check_same(tmp_path / f"{number}.npz", counts=counts)
    assert data.train.raw.dtype == torch.uint8


def test_closed_forms_walk_streamed_counts(tmp_path: Path) -> None:
    sparse.save_npz(tmp_path / "x.npz", matrix(6))
    found = []
    for stream in (None, 1):
        data = loaded(tmp_path / "x.npz", stream=stream)[0]
        found.append(pv.fit(pv.PPCA(latent_dim=2), data, method=pv.ClosedForm()).evaluate(data.test)["log_likelihood"])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@cells
@pytest.mark.parametrize("held", ["csr", "dense"])
def test_streamed_cells_are_the_cells(tmp_path: Path, held: str) -> None:
    import anndata

    counts = matrix().astype(np.float32)
    x = counts if held == "csr" else counts.toarray()
    names = [f"gene {place}" for place in range(40)]
    observed = pd.DataFrame({"batch": rng.choice(["a", "b"], ROWS), "type": rng.choice(["t", "u", "v"], ROWS), "size": 1.5})
    observed.index = observed.index.astype(str)
    found = anndata.AnnData(X=x / 7, obs=observed, var=pd.DataFrame(index=names), layers={"counts": x})
    path = tmp_path / "c.h5ad"
    found.write_h5ad(path)
    check_same(path)
    check_same(path, layer="counts", label="type", fields=("batch", "size"), columns=("gene 7", "gene 3"))
    for bad, told in (({"layer": "raw"}, "a layer among counts"), ({"label": "x"}, "observations among")):
        with pytest.raises(ValueError, match=told):
            pv.load_data(path, stream=1, **bad)


def table_at(path: Path, rows: int = ROWS) -> Path:
    lines = (f"{place % 11},{place % 7 / 4},{'ab'[place % 2]}\n" for place in range(rows))
    path.write_text("n,x,town\n" + "".join(lines))
    return path


def test_a_conversion_is_told_kept_and_made_anew_when_its_file_changes(tmp_path: Path, kept: Path) -> None:
    path = table_at(tmp_path / "t.csv")
    with pytest.warns(
        FitWarning,
        match=r"t\.csv: to stream its rows, \S+ KiB are read and about \S+ KiB written to .*streamed.*, once, in about \S+ KiB",
    ):
        first = pv.load_data(path, stream=1)
    (folder,) = kept.iterdir()
    assert len(pv.load_data(path, stream=1).train) == len(first.train)  # without a remark
    about = json.loads((folder / "conversion.json").read_text())
    assert about["files"] == {"x.npy": (folder / "x.npy").stat().st_size}
    assert (folder / "x.npy").stat().st_size <= ROWS * 3 * 8 + 256
    for change in (lambda: table_at(path, 400), lambda: (folder / "x.npy").write_bytes(b"cut"), lambda: shutil.rmtree(kept)):
        change()
        with pytest.warns(FitWarning, match="to stream its rows"):
            again = pv.load_data(path, stream=1)
    assert len(again.train) == 280
    assert [each.name for each in kept.iterdir()] == [folder.name]


def test_half_a_conversion_is_never_taken_for_a_whole_one(tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, written = table_at(tmp_path / "t.csv"), conversions.written

    def failing(*arguments: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("ppl_vae.data.streamed_tables.written", failing)
        with pytest.raises(
            ValueError, match=r"could not be written to .* \(\[Errno 28\] No space left on device\): see to its"
        ):
            loaded(path, stream=1)
    assert list(kept.iterdir()) == []
    dead = kept / ".t.csv-0123.partial-4567"
    dead.mkdir()
    (dead / "x.npy").write_bytes(b"half")
    check_same(path)
    assert not dead.exists()

    def changing(place: Path, *arguments: Any) -> Any:
        table_at(path, 300)
        return written(place, *arguments)

    table_at(path)
    monkeypatch.setattr("ppl_vae.data.streamed_tables.written", changing)
    with pytest.raises(ValueError, match="the file changed meanwhile"):
        loaded(path, stream=1)


def test_no_room_is_told_before_anything_is_written(tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table_at(tmp_path / "t.csv")
    with monkeypatch.context() as patched:
        patched.setattr("ppl_vae.memory.free", lambda: 60_000)
        with pytest.raises(ValueError, match=r"t\.csv: expected at most .* GiB, the free memory, got"):
            pv.load_data(path, stream=1)
    for free in (500, 2000):  # less than half of what is guessed, and less than what is known once the file is read
        usage = shutil.disk_usage(tmp_path)._replace(free=free)
        monkeypatch.setattr("shutil.disk_usage", lambda _, usage=usage: usage)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(ValueError, match=r"free disk in .*streamed.*: name another folder \(root, --data.root\)"):
                pv.load_data(path, stream=1)
    assert not list(kept.glob("*"))


@pytest.fixture
def measured() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def test_a_table_is_converted_in_the_memory_that_is_declared(tmp_path: Path, measured: None) -> None:
    table_at(tmp_path / "small.csv")
    loaded(tmp_path / "small.csv", stream=1)  # what is imported and made once
    path = table_at(tmp_path / "t.csv", 3000)
    peaks = []
    for options in ({"stream": 1}, {}):
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        assert len(loaded(path, valid=0.0, test=0.0, **options)[0].train) == 3000
        peaks.append(tracemalloc.get_traced_memory()[1] - before)
    assert peaks[0] < 2 * 60_000 + 24 * 3000 < peaks[1] / 4


REFUSED = {
    "a missing entry": ("n,x\n1,2\n3,\n", {}, "expected complete data, got 1 missing entries"),
    "no rows": ("n,x\n", {}, "expected rows of data, got none"),
    "a short line": ("n,x\n1,2\n3\n", {}, "expected 2 cells in line 3"),
    "a comma": ("n;x\n1,5;2\n3;4\n", {}, "got '1,5'"),
    "half numbers": ("n,x\n1,2\nb,2\n", {}, "expected numbers in column 'n', got 'b'"),
    "no such label": ("n,x\n1,2\n", {"label": "z"}, "expected a label column among n, x, got 'z'"),
    "large numbers": (f"n,x\n{2**53 + 2},2\n3,1\n", {}, "whole numbers up to 2^53"),
    "names of rows": ("n,x\n" + "".join(f"row {place},1\n" for place in range(600)), {}, "fit in the block of stream="),
    "weights": ("n,x\n1,2\n3,b\n", {"weights": "x"}, "expected weights as numbers, got dtype <U1"),
    "text": ("n,x\n1,2\n", {"tokens": "words"}, "files of numbers only"),
}


@pytest.mark.parametrize(("text", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_leaves_nothing(tmp_path: Path, kept: Path, text: str, options: dict[str, Any], message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            pv.load_data(tmp_path / "t.csv", stream=1, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(kept.glob("*"))


def test_matrices_that_are_not_streamed_are_refused(tmp_path: Path) -> None:
    sparse.save_npz(tmp_path / "csc.npz", matrix().tocsc())
    sparse.save_npz(tmp_path / "csr.npz", matrix())
    np.savez(tmp_path / "dense.npz", x=np.zeros((3, 2)))
    bad = matrix()
    bad.indices[5] = 99
    sparse.save_npz(tmp_path / "bad.npz", bad)
    cases = {
        "csc": "by rows (csr) to stream, got csc",
        "dense": "expected a sparse matrix to stream",
        "bad": "parts that do not",
    }
    for name, message in cases.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FitWarning)
            with pytest.raises(ValueError) as caught:  # noqa: PT011
                pv.load_data(tmp_path / f"{name}.npz", stream=1)
        assert message in str(caught.value)
    with pytest.raises(ValueError, match="got pairs"):
        pv.load_data(tmp_path / "csr.npz", stream=1, counts="pairs")


def test_new_rows_and_folds_are_those_of_memory(tmp_path: Path) -> None:
    TABLE.drop(columns=["gaps", "name", "time"]).dropna().to_csv(tmp_path / "t.csv", index=False)
    other = TABLE[TABLE["town"] == "Ulm"][["kind", "town", "count", "known", "day", "often", "length", "year"]]
    other.to_csv(tmp_path / "other.csv", index=False)  # in another order, with one category, which stands first
    streamed, held = (loaded(tmp_path / "t.csv", scale="standardize", stream=stream)[0] for stream in (1, None))
    assert pv.Auto().settled(streamed) == pv.Auto().settled(held)
    new = [loaded(tmp_path / "other.csv", stream=stream, valid=0.0, test=0.0)[0].train for stream in (1, None)]
    matched, expected = (columns_matched(rows, held.spec.columns, held.spec.table)[0] for rows in new)
    assert torch.equal(torch.cat(list(matched.chunks())), expected.x)
    assert matched.table == expected.table == held.spec.table
    wrong = loaded(tmp_path / "other.csv", stream=1, valid=0.0, test=0.0, missing_text=("Ulm",), missing="ignore")[0].train
    assert bool(torch.cat(list(columns_matched(wrong, held.spec.columns, held.spec.table)[0].chunks())).isnan().any())
    TABLE.assign(town="Paris").to_csv(tmp_path / "unknown.csv", index=False)
    unknown = loaded(tmp_path / "unknown.csv", stream=1, columns=held.spec.columns, valid=0.0, test=0.0)[0].train
    with pytest.raises(ValueError, match=r"expected in column 'town' one of Bonn, .*, got 'Paris'"):
        list(columns_matched(unknown, held.spec.columns, held.spec.table)[0].chunks())
    for mine, theirs in zip(folds(streamed, 3), folds(held, 3), strict=True):
        assert torch.equal(torch.cat(list(mine.test.chunks())), theirs.test.x)
        assert torch.allclose(mine.train.transform.scale, theirs.train.transform.scale)
