"""Data: what is read, how it is split, what the model sees, and what is refused."""

from __future__ import annotations

import itertools
import json
import math
import os
import threading
import urllib.error
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Generator
from torch.distributions import Independent, Normal
from torch.utils._python_dispatch import TorchDispatchMode

from ppl_vae.cli import main
from ppl_vae.data import Data, DataSource, Split, Transform, load_data
from ppl_vae.data.stream import Stream
from ppl_vae.runs import load_run

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (40, 4, 5), dtype=np.uint8)
REALS = rng.normal(3, 2, (40, 3))
WHOLE = {"valid": 0, "test": 0}


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def same(left: Split, right: Split) -> bool:
    return torch.equal(left.x, right.x) and torch.equal(left.transformed(seeded()), right.transformed(seeded()))


# --- the transform


@pytest.mark.parametrize("scale", [4.0, torch.tensor([[0.5, 2.0, 7.0]])], ids=["scalar", "per feature"])
def test_log_jacobian_is_the_change_of_variables(scale):
    transform = Transform((1, 3), torch.tensor([[1.0, -2.0, 0.5]]), scale).double()
    raw = torch.randn(1, 3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(transform, raw).reshape(3, 3)
    assert transform.log_jacobian == pytest.approx(torch.linalg.slogdet(jacobian).logabsdet.item())

    seen = Independent(Normal(torch.zeros(1, 3).double(), 1.0), 2)
    of_raw = Independent(Normal(transform.loc.expand(1, 3), transform.scale.expand(1, 3)), 2)
    torch.testing.assert_close(seen.log_prob(transform(raw)) + transform.log_jacobian, of_raw.log_prob(raw))
    torch.testing.assert_close(transform.inverse(transform(raw)), raw)


def test_dequantization_bounds_the_discrete_log_probability():
    data = load_data(IMAGES[:, :1, :2], dequantize=True, **WHOLE)
    assert data.train.transform.scale == 256
    # Under a uniform density the bound is tight: 256 equally probable levels for each of 2 pixels.
    assert data.train.transform.log_jacobian == pytest.approx(-2 * math.log(256))


def test_dequantized_levels_stay_in_the_half_open_interval(monkeypatch):
    top = torch.tensor([0.0, 1 - 2**-24])
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: top)
    seen = Transform((2,), scale=256.0, dequantize=True)(torch.tensor([0, 255], dtype=torch.uint8))
    assert seen[0] == 0
    assert 255 / 256 < seen[1] < 1


def test_transform_travels_with_its_state():
    fitted = load_data(REALS, scale="standardize").train.transform
    other = Transform(fitted.event_shape, torch.zeros(3), torch.ones(3))
    other.load_state_dict(fitted.state_dict())
    assert other.log_jacobian == fitted.log_jacobian != 0
    with pytest.raises(ValueError, match="scale > 0"):
        Transform((2,), scale=0.0)
    with pytest.raises(ValueError, match="loc of shape"):
        Transform((2,), torch.zeros(3))


# --- what the model sees

KINDS = {
    "images": (IMAGES, {}, "unit_interval"),
    "images of two levels": (IMAGES // 128 * 255, {}, "binary"),
    "images, unscaled": (IMAGES, {"scale": "none"}, "count"),
    "images as categories": (IMAGES, {"kind": "categorical"}, "categorical"),
    "images, dequantized": (IMAGES, {"dequantize": True}, "unit_interval"),
    "flat bytes": (IMAGES.reshape(40, -1), {}, "count"),
    "flat bytes, unit": (IMAGES.reshape(40, -1), {"scale": "unit"}, "unit_interval"),
    "booleans": (IMAGES.reshape(40, -1) > 99, {}, "binary"),
    "0. and 1.": (np.eye(40), {}, "binary"),
    "fractions": (rng.random((40, 3)), {}, "unit_interval"),
    "integers": (rng.integers(0, 9, (40, 3)), {}, "count"),
    "whole floats": (rng.integers(0, 9, (40, 3)).astype(float), {}, "count"),
    "negative integers": (rng.integers(-9, 9, (40, 3)), {}, "real"),
    "counts, dequantized": (rng.integers(0, 9, (40, 3)), {"dequantize": True}, "real"),
    "reals": (REALS, {}, "real"),
    "reals, unit": (REALS, {"scale": "unit"}, "unit_interval"),
    "reals, standardized": (REALS, {"scale": "standardize"}, "real"),
    "integers, big-endian": (rng.integers(0, 9, (40, 3)).astype(">i8"), {}, "count"),
    "reals, reversed": (REALS[::-1, ::-1], {}, "real"),
    "one number a row": (REALS[:, 0], {}, "real"),
    "tensor": (torch.tensor(REALS, requires_grad=True), {}, "real"),
    "bfloat16": (torch.tensor(REALS).bfloat16(), {}, "real"),
}


@pytest.mark.parametrize(("values", "options", "kind"), KINDS.values(), ids=KINDS)
def test_kind_and_support(values, options, kind):
    data = load_data(values, **options)
    assert data.spec.kind == kind
    assert data.spec.size == len(data.train) == 28
    assert (len(data.valid), len(data.test)) == (4, 8)
    for split in (data.train, data.valid, data.test):
        x = split.transformed(seeded())
        assert x.dtype == torch.float32
        assert x.shape == (len(split), *data.spec.event_shape)
        assert split.x.dtype in (torch.uint8, torch.int32, torch.float32)
        if kind == "unit_interval":
            assert x.min() >= 0
            assert x.max() <= 1
        if kind == "binary":
            assert set(x.unique().tolist()) <= {0.0, 1.0}
            assert split.transform.log_jacobian == 0
        if kind == "categorical":
            assert x.max() < data.spec.levels


def test_images_stay_bytes_with_their_channels_first():
    colour = rng.integers(0, 256, (40, 8, 6, 3), dtype=np.uint8)
    data = load_data(colour, **WHOLE)
    assert data.spec.event_shape == (3, 8, 6)
    assert data.train.x.dtype == torch.uint8
    assert np.array_equal(data.train.x, colour.transpose(0, 3, 1, 2))
    assert load_data(IMAGES).spec.event_shape == (1, 4, 5)


@pytest.mark.parametrize("dequantize", [False, True])
def test_standardize_uses_training_rows_and_spares_constants(dequantize):
    values = rng.integers(0, 9, (4000, 3)).astype(float)
    values[:, 1] = 5
    data = load_data(values, scale="standardize", dequantize=dequantize)
    x = data.train.transformed(seeded())
    torch.testing.assert_close(x.mean(0), torch.zeros(3), atol=0.05, rtol=0)
    expected = torch.tensor([1.0, 1.0 if dequantize else 0.0, 1.0])
    torch.testing.assert_close(x.std(0), expected, atol=0.03, rtol=0)
    assert data.test.transformed().mean(0).abs().max() > 0.001


def test_constants_that_float32_cannot_hold_are_constants():
    assert load_data(np.full((40, 2), 0.1), scale="standardize").train.transform.scale.tolist() == [1, 1]


def test_missing_entries_can_be_kept():
    values = REALS.copy()
    values[3, 1] = np.nan
    data = load_data(values, missing="ignore", scale="standardize", **WHOLE)
    assert data.spec.missing
    assert int(data.train.transformed().isnan().sum()) == 1
    torch.testing.assert_close(data.train.transformed().nanmean(0), torch.zeros(3), atol=1e-6, rtol=0)
    assert not load_data(REALS, missing="ignore").spec.missing
    masked = np.ma.masked_greater(REALS, 4)
    assert int(load_data(masked, missing="ignore", **WHOLE).train.x.isnan().sum()) == masked.mask.sum()
    with pytest.raises(ValueError, match=r"NaN in 1 entries of 1 rows, first in row 3 .* missing='ignore'"):
        load_data(values)


# --- splits


def test_splits_partition_the_rows_and_follow_the_seed():
    rows = np.arange(50)
    data = load_data(rows, seed=3)
    parts = torch.cat([data.train.x, data.valid.x, data.test.x]).flatten()
    assert sorted(parts.tolist()) == rows.tolist()
    assert same(data.train, load_data(rows, seed=3).train)
    assert not same(data.train, load_data(rows, seed=4).train)
    assert data.valid.x.flatten().tolist() == [3, 6, 21, 23, 31]  # on every machine


def test_labels_are_indices_into_classes():
    values, names = np.arange(40), np.array(["b", "a"] * 20)
    data = load_data(values, y=names)
    assert data.spec.classes == ("a", "b")
    assert data.train.y.dtype == torch.int64
    assert torch.equal(data.train.y, 1 - data.train.x.flatten().long() % 2)
    assert load_data(values, y=[7, 9] * 20).spec.classes == ("7", "9")
    assert load_data(values).test.y is None


def test_splits_are_indexed_moved_and_empty():
    data = load_data("digits", valid=0)
    assert len(data.valid) == 0
    assert list(data.valid.batches(5)) == []
    assert [len(data.train[rows]) for rows in (0, slice(2, 7), torch.tensor([3, 1]))] == [1, 5, 2]
    assert set(data.train[data.train.y == 4].y.tolist()) == {4}
    assert data.train[torch.tensor([5])].y == data.train.y[5]
    moved = data.to("cpu", torch.float64)
    assert next(moved.train.batches(3)).dtype == torch.float64
    assert next(data.train.batches(3)).dtype == torch.float32
    assert repr(data.test) == "Split(359 x (1, 8, 8), uint8, labelled)"


def test_batches_cover_each_row_once():
    split = load_data(np.arange(23), **WHOLE).train
    assert [len(x) for x in split.batches(10)] == [10, 10, 3]
    assert torch.equal(torch.cat(list(split.batches(10))), split.transformed())
    shuffled = torch.cat(list(split.batches(10, generator=seeded()))).flatten()
    assert shuffled.tolist() != sorted(shuffled.tolist()) == list(range(23))
    assert torch.equal(shuffled, torch.cat(list(split.batches(10, generator=seeded()))).flatten())
    with pytest.raises(ValueError, match="batch_size >= 1"):
        split.batches(0)


@pytest.mark.parametrize("options", [{"binarize": "dynamic"}, {"dequantize": True}], ids=str)
def test_data_live_on_the_device(request, options):
    device = torch.device(request.config.getoption("--device", "cpu"))
    home = load_data("digits", **options)
    data = home.to(device)
    assert {x.device.type for x in data.train.batches(500, generator=Generator(device).manual_seed(0))} == {device.type}
    assert torch.equal(data.test.transformed().cpu(), home.test.transformed())
    late = load_data("digits").to(device).resolve({"binary"})
    assert torch.equal(late.test.x.cpu(), load_data("digits", binarize="dynamic").test.x)


def test_a_split_can_be_seen_through_an_earlier_transform():
    fitted = load_data(REALS, scale="standardize").train.transform
    later = load_data(REALS * 10, scale="standardize")
    torch.testing.assert_close(later.part("test", fitted).transformed(), fitted(later.test.x))
    assert later.part("test") is later.test
    draws = load_data("digits", binarize="dynamic")
    assert draws.part("test", draws.train.transform) is draws.test
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        load_data("digits").part("test", fitted)


# --- noise


@pytest.mark.parametrize(
    ("options", "fresh"),
    [
        ({"binarize": "dynamic"}, True),
        ({"binarize": "static"}, False),
        ({"dequantize": True}, True),
        ({"dequantize": "static"}, False),
        ({}, False),
    ],
    ids=str,
)
def test_noise_is_fresh_in_training_only(options, fresh):
    data, again = load_data("digits", **options), load_data("digits", **options)
    first, second = (torch.cat(list(data.train.batches(100, generator=None))) for _ in range(2))
    assert torch.equal(first, second) != fresh
    for split, other in ((data.valid, again.valid), (data.test, again.test)):
        seen = split.transformed()
        for size in (7, 64, 1000):
            assert torch.equal(torch.cat(list(split.batches(size))), seen)
        assert torch.equal(other.transformed(), seen)
    if options:
        assert not torch.equal(load_data("digits", **options, seed=1).test.x[:100], data.test.x[:100])


@pytest.mark.parametrize("how", ["static", "dynamic"])
def test_binarization_draws_with_the_probability_of_the_pixel(how):
    gray = np.broadcast_to(np.array([0, 51, 204, 255], np.uint8), (20_000, 1, 4))
    data = load_data(gray, binarize=how)
    assert data.spec.kind == "binary"
    assert data.test.x.dtype == torch.uint8
    assert data.train.transform.log_jacobian == 0 == data.test.transform.log_jacobian
    for split in (data.train, data.test):
        mean = split.transformed(seeded()).mean(0).flatten()
        torch.testing.assert_close(mean, torch.tensor([0, 0.2, 0.8, 1]), atol=0.03, rtol=0)


@pytest.mark.parametrize("how", ["dynamic", "static"])
def test_dequantization_keeps_the_level_and_the_jacobian(how):
    plain, noisy = load_data("digits"), load_data("digits", dequantize=how)
    assert noisy.train.transform.log_jacobian == noisy.test.transform.log_jacobian == pytest.approx(-64 * math.log(17))
    for mine, theirs in ((noisy.train, plain.train), (noisy.test, plain.test)):
        x = mine.transformed(seeded())
        assert x.max() < 1
        assert torch.equal((x * 17).floor(), theirs.x.float())


@pytest.mark.parametrize(
    ("source", "accepts", "how"),
    [
        ({}, {"binary"}, "dynamic"),
        ({}, {"binary", "unit_interval"}, "none"),
        ({}, {"real"}, "none"),
        ({"dequantize": True}, {"binary"}, "none"),
        ({"scale": "standardize"}, {"binary"}, "none"),
        ({"binarize": "static"}, {"unit_interval"}, "static"),
    ],
)
def test_auto_binarization_is_settled_by_the_likelihood(source, accepts, how):
    data = load_data("digits", **source)
    settled = data.resolve(accepts)
    assert settled.source.binarize == how
    assert settled.resolve({"binary"}) is settled
    assert (settled.spec.kind == "binary") == (how != "none")
    reloaded = load_data(settled.source)
    assert reloaded.spec == settled.spec
    assert same(reloaded.test, settled.test)
    assert same(reloaded.train, settled.train)


def test_only_digits_are_binarized_unasked():
    assert load_data(IMAGES).resolve({"binary"}).spec.kind == "unit_interval"


# --- readers


def save_csv(path: Path) -> None:
    path.write_text("\ufeffa,b,species\n" + "".join(f"{i},{i / 2},{'xy'[i % 2]}\n" for i in range(40)), encoding="utf-8")


def save_headless(path: Path) -> None:
    path.write_text("".join(f"{i},{i / 2},{i % 2}\n" for i in range(40)))


def save_parquet(path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(
        pa.table({"a": list(range(40)), "b": [i / 2 for i in range(40)], "s": ["xy"[i % 2] for i in range(40)]}), path
    )


TABLE = np.stack([np.arange(40), np.arange(40) / 2], axis=1)
FILES = {
    "npy": ("a.npy", lambda path: np.save(path, TABLE), {}, ()),
    "npz": ("a.npz", lambda path: np.savez(path, only=TABLE), {}, ()),
    "npz, x and y": ("a.npz", lambda path: np.savez(path, x=TABLE, z=TABLE[:3], y=np.arange(40) % 2), {}, ("0", "1")),
    "npz, key": ("a.npz", lambda path: np.savez(path, a=TABLE, b=np.arange(40) % 2), {"key": "a", "label": "b"}, ("0", "1")),
    "csv": ("a.csv", save_csv, {"label": "species"}, ("x", "y")),
    "csv, no header": ("a.csv", save_headless, {"label": "2"}, ("0", "1")),
    "parquet": ("a.parquet", save_parquet, {"label": "s"}, ("x", "y")),
}


@pytest.mark.parametrize(("name", "save", "options", "classes"), FILES.values(), ids=FILES)
def test_files_round_trip(tmp_path, name, save, options, classes):
    save(tmp_path / name)
    data = load_data(tmp_path / name, **options, **WHOLE)
    assert np.array_equal(data.train.x, TABLE.astype(np.float32))
    assert data.spec.classes == classes
    if classes:
        assert data.train.y.tolist() == [0, 1] * 20
    assert same(load_data(DataSource.from_yaml(data.source.to_yaml())).train, data.train)


def test_parquet_cells_are_numbers_or_refused(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from decimal import Decimal

    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"a": [1, None], "b": [True, None], "c": [Decimal(2), Decimal(3)]}), path)
    x = load_data(path, missing="ignore", **WHOLE).train.x
    assert x.nan_to_num(-1).tolist() == [[1, 1, 2], [-1, -1, 3]]
    for cells in ([[1, 2], [3]], [{"c": 1}, {"c": 2}]):
        parquet.write_table(pa.table({"a": [1, 2], "b": cells}), path)
        refuse(path, {}, "a.parquet: expected numbers, text, booleans or dates in column 'b'")


def test_empty_cells_are_missing(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n,3\n4,nan\n")
    assert load_data(tmp_path / "a.csv", missing="ignore", **WHOLE).train.x.isnan().tolist() == [[0, 0], [1, 0], [0, 1]]


@pytest.mark.parametrize(("mode", "shape"), [("L", (1, 4, 5)), ("RGB", (3, 4, 5)), ("1", (1, 4, 5))])
def test_folder_of_images(tmp_path, mode, shape):
    save_images(tmp_path, mode=mode, classes=("cat", "dog"))
    data = load_data(str(tmp_path), **WHOLE)
    assert data.spec.event_shape == shape
    assert data.spec.classes == ("cat", "dog")
    assert data.train.y.tolist() == [0] * 3 + [1] * 3
    if mode == "L":
        assert np.array_equal(data.train.x[:3, 0], IMAGES[:3])
    assert load_data(tmp_path / "dog", **WHOLE).spec.classes == ()


def save_images(
    folder: Path, *, mode: str = "L", classes: tuple[str, ...] = (".",), sizes: tuple[int, ...] = (5, 5, 5)
) -> None:
    from PIL import Image

    for name in classes:
        (folder / name).mkdir(exist_ok=True)
        for index, width in enumerate(sizes):
            Image.fromarray(IMAGES[index, :, :width]).convert(mode).save(folder / name / f"{index}.png")


# --- streams


def shards(folder: Path, values: np.ndarray, pieces: int = 3) -> Path:
    folder.mkdir()
    for index, part in enumerate(np.array_split(values, pieces)):
        np.save(folder / f"{index}.npy", part)
    return folder


@pytest.fixture
def little(monkeypatch):
    """One MiB of a declared stream is 600 bytes, and 100 bytes of a file are converted at once."""
    monkeypatch.setattr("ppl_vae.data.stream.MIB", 600)
    monkeypatch.setattr("ppl_vae.data.stream.PIECE", 100)


GAPS = np.where(REALS > 4, np.nan, REALS)
STREAMS = {
    **KINDS,
    "colour images": (rng.integers(0, 256, (40, 8, 6, 3), dtype=np.uint8), {}, "unit_interval"),
    "images, binarized": (IMAGES, {"binarize": "dynamic"}, "binary"),
    "missing": (GAPS, {"missing": "ignore", "scale": "unit"}, "unit_interval"),
    "missing, standardized": (GAPS, {"missing": "ignore", "scale": "standardize"}, "real"),
}
STREAMS = {name: entry for name, entry in STREAMS.items() if isinstance(entry[0], np.ndarray)}


@pytest.mark.parametrize("large", [False, True], ids=["held-out in memory", "held-out streamed"])
@pytest.mark.parametrize(("values", "options", "kind"), STREAMS.values(), ids=STREAMS)
def test_streamed_data_are_the_data(tmp_path, request, values, options, kind, large):
    source = shards(tmp_path / "shards", values)
    options = {**options, "seed": 3, "y": np.arange(40) % 2}
    held = load_data(source, **options)
    if large and not held.train.transform.noisy:
        request.getfixturevalue("little")
    data = load_data(source, stream=1, **options)
    assert data.spec == held.spec
    assert data.spec.kind == kind
    for name in ("train", "valid", "test"):
        mine, theirs = getattr(data, name), getattr(held, name)
        assert repr(mine).removesuffix(", streamed)").removesuffix(")") == repr(theirs).removesuffix(")")
        assert torch.equal(mine.y, theirs.y)
        torch.testing.assert_close(torch.cat(list(mine.chunks())), theirs.x, rtol=0, atol=0, equal_nan=True)
        for ours, other in zip(mine.transform.buffers(), theirs.transform.buffers(), strict=True):
            torch.testing.assert_close(ours, other, rtol=1e-6, atol=0)
    assert "streamed" in repr(data.train)


def test_one_file_streams_as_a_folder_does(tmp_path):
    np.save(tmp_path / "a.npy", np.asfortranarray(REALS))
    declared = DataSource(source=str(tmp_path / "a.npy"), stream=1)
    assert DataSource.from_yaml(declared.to_yaml()) == declared
    assert same(load_data(declared).train, load_data(shards(tmp_path / "shards", REALS), stream=2).train)
    assert same(load_data(declared).train, load_data(REALS).train)


@pytest.mark.parametrize("size", [1, 7, 64, 1000, 5000])
def test_blocks_visit_each_row_once(tmp_path, little, size):
    source = shards(tmp_path / "shards", np.arange(1003))
    for split in (load_data(source, **WHOLE).train, load_data(source, stream=1, **WHOLE).train):
        passes = [list(split.blocks(size, generator=seeded(seed))) for seed in (0, 0, 1)]
        first, again, other = (torch.cat([raw[order] for raw, order in blocks]).flatten() for blocks in passes)
        assert first.tolist() != sorted(first.tolist()) == list(range(1003))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        for blocks in passes:
            assert all(len(raw) == len(order) and order.dtype == torch.int64 for raw, order in blocks)
            assert all(len(raw) % size == 0 for raw, _ in blocks[:-1])
            assert all(len(raw) <= max(150, size) for raw, _ in blocks) or split.raw is split.x
        with pytest.raises(ValueError, match="batch_size >= 1"):
            split.blocks(0, generator=seeded())
    assert len(passes[0]) == math.ceil(1003 / (max(1, 150 // size) * size))
    assert [len(raw) for raw, _ in load_data(source, valid=0.0, test=0.3).train.blocks(7, generator=seeded())] == [702]


def test_blocks_of_a_stream_are_mixed(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.arange(50_000, dtype=np.int32))
    monkeypatch.setattr("ppl_vae.data.stream.MIB", 4 * 5000)
    split, generator = load_data(tmp_path / "a.npy", stream=1, **WHOLE).train, seeded()
    first, second = (list(split.blocks(100, generator=generator)) for _ in range(2))
    assert len(first) == 10
    for raw, order in first + second:
        # 256 runs from all over the file: the mean of so many has a standard deviation of 50 000 / sqrt(12 x 256) = 902.
        assert abs(raw.double().mean() - 25_000) < 5 * 902
        batches = raw[order].double().view(-1, 100).mean(dim=1)
        assert batches.std() > 0.8 * raw.double().std() / 10
    met = [set(raw.flatten().tolist()) for raw, _ in first + second]
    # Rows that shared a block are together again no more often than by chance, 1 in 10.
    assert max(len(one & other) for one in met[:10] for other in met[10:]) < 0.25 * 5000


@pytest.mark.parametrize("size", [1, 10, 64, 1000])
def test_batches_of_a_stream_are_those_of_memory(tmp_path, little, size):
    source = shards(tmp_path / "shards", np.arange(503) / 7)
    held, data = load_data(source, **WHOLE).train, load_data(source, stream=1, **WHOLE).train
    for mine, theirs in zip(data.batches(size), held.batches(size), strict=True):
        assert torch.equal(mine, theirs)
    shuffled = [torch.cat(list(data.batches(size, generator=seeded()))) for _ in range(2)]
    assert torch.equal(*shuffled)
    assert not torch.equal(shuffled[0], held.x)
    assert torch.equal(shuffled[0].sort(dim=0).values, held.x)
    assert data.to(dtype=torch.float64)[:3].transformed().dtype == torch.float64


def test_noise_on_streamed_training_rows_is_fresh(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    data, held = (load_data(tmp_path / "a.npy", binarize="dynamic", stream=stream) for stream in (1, None))
    first, second = (torch.cat(list(data.train.batches(10))) for _ in range(2))
    assert not torch.equal(first, second)
    assert same(data.test, held.test)
    settled = load_data(tmp_path / "a.npy", stream=1).resolve({"binary"})
    assert settled.source.stream == 1


def test_rows_of_a_stream_are_chosen_before_they_are_read(tmp_path, little):
    source = shards(tmp_path / "shards", REALS.repeat(3, axis=0))
    data, held = load_data(source, stream=1, y=np.arange(120)), load_data(source, y=np.arange(120))
    with pytest.raises(ValueError, match=r"at most 50 rows .* got 84: take fewer, .* larger stream="):
        data.train.transformed()
    for rows in (5, -1, slice(2, 30), slice(None, None, 7), torch.tensor([3, 1, 3]), held.train.y > 60):
        assert same(data.train[rows], held.train[rows])
        assert torch.equal(data.train[rows].y, held.train[rows].y)
    fitted = load_data(REALS, scale="standardize").train.transform
    seen = data.part("train", fitted)
    assert torch.equal(torch.cat(list(seen.batches(8))), held.part("train", fitted).transformed())
    assert data.part("train", fitted)[:40].fixed(seeded()).event_shape == (3,)
    assert list(data.train[:0].batches(5)) == list(data.train[:0].blocks(5, generator=seeded())) == []
    assert next(data.train.batches(5)).device == data.train.device == torch.device("cpu")


class Largest(TorchDispatchMode):
    """Takes note of the largest tensor that an operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.size = max(self.size, tensor.untyped_storage().nbytes())
        return result


class Counted(np.memmap):
    """A mapped file that takes note of how many bytes were asked of it at once."""

    most = 0

    def __getitem__(self, rows):
        taken = super().__getitem__(rows)
        Counted.most = max(Counted.most, taken.nbytes)
        return taken


def test_streams_keep_to_their_memory(tmp_path, monkeypatch):
    path, mib, open_memmap = tmp_path / "a.npy", 2**20, np.lib.format.open_memmap
    written = open_memmap(path, mode="w+", dtype=np.uint8, shape=(5000, 8192))
    written[::700] = 9
    del written
    monkeypatch.setattr("ppl_vae.data.stream.PIECE", mib // 8)
    monkeypatch.setattr("numpy.lib.format.open_memmap", lambda path, mode: open_memmap(path, mode=mode).view(Counted))
    with Largest() as largest:
        data = load_data(path, stream=1, scale="standardize")
        for split in (data.train, data.valid, data.test):
            seen = sum(len(order) for _, order in split.blocks(64, generator=seeded()))
            assert seen == sum(len(x) for x in split.batches(8)) == len(split)
    assert path.stat().st_size > 39 * mib
    assert len(list(data.train.blocks(64, generator=seeded()))) == math.ceil(3500 / 128)
    # A block is a MiB, and so are the moments' doubles of a piece.
    assert largest.size == mib
    assert Counted.most == mib // 8


def reading_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("ppl_vae-read")]


def test_the_next_block_is_read_while_one_is_in_use(tmp_path, little, monkeypatch):
    read, fill = [threading.Event() for _ in range(20)], Stream._filled
    done = iter(read)

    def filled(self: Stream, *arguments: torch.Tensor) -> torch.Tensor:
        result = fill(self, *arguments)
        next(done).set()
        return result

    split = load_data(shards(tmp_path / "shards", np.arange(1500)), stream=1, **WHOLE).train
    monkeypatch.setattr(Stream, "_filled", filled)
    blocks = split.blocks(10, generator=seeded())
    next(blocks)
    assert read[1].wait(timeout=60)
    assert not read[2].is_set()
    assert len(reading_threads()) == 1
    blocks.close()
    assert reading_threads() == []
    for batch in split.batches(10):
        assert len(batch) == 10
        break
    del batch
    assert reading_threads() == []


def test_errors_of_reading_reach_whoever_iterates(tmp_path, little, monkeypatch):
    split = load_data(shards(tmp_path / "shards", np.arange(1500)), stream=1, **WHOLE).train
    taken, calls = Stream._taken, itertools.count()

    def failing(self: Stream, rows: np.ndarray) -> np.ndarray:
        if next(calls) > 50:
            raise OSError("the disk is gone")
        return taken(self, rows)

    monkeypatch.setattr(Stream, "_taken", failing)
    blocks = split.blocks(10, generator=seeded())
    assert len(next(blocks)[1]) == 150
    with pytest.raises(OSError, match="the disk is gone"):
        list(blocks)
    assert reading_threads() == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_bad_values_of_a_stream_name_their_rows(tmp_path, little, bad):
    values = REALS.copy()
    values[17, 1] = bad
    source = shards(tmp_path / "shards", values)
    with pytest.raises(ValueError, match=r"shards, rows 1[4-7] to (1[7-9]|2\d): expected") as caught:
        load_data(source, stream=1, **WHOLE)
    assert type(caught.value) is ValueError
    assert len(load_data(source, missing="ignore", stream=1, **WHOLE).train) == 40 if np.isnan(bad) else True


BAD_STREAMS = {
    "digits": ("digits", {"stream": 1}, ".npy files, folders of them and .csv"),
    "array": (REALS, {"stream": 1}, ".npy files, folders of them and .csv"),
    "no such file": ("data/none.npy", {"stream": 1}, "does not exist"),
}


@pytest.mark.parametrize(("source", "options", "message"), BAD_STREAMS.values(), ids=BAD_STREAMS)
def test_what_cannot_be_streamed_is_refused(source, options, message):
    refuse(source, options, message)


BAD_SHARDS = {
    "shapes": ([REALS, REALS[:, :2]], {}, "one shape of a row"),
    "dtypes": ([REALS, REALS.astype(np.float32)], {}, "of float32 (3,): convert"),
    "pickled": ([np.array([{}], dtype=object)], {}, "pickled objects"),
    "scalar": ([np.array(1.0)], {}, "got an array of shape ()"),
    "no rows": ([REALS[:0]], {}, "at least one row"),
    "no columns": ([REALS[:, :0]], {}, "at least one value"),
    "text": ([np.array(["a", "b"])], {}, "<U1"),
    "complex": ([REALS.astype(complex)], {}, "complex128"),
    "big integers": ([np.full(40, 2**63, np.uint64)], {}, "int64"),
    "nothing there": ([REALS * np.nan], {"missing": "ignore"}, "NaN in 120 entries"),
    "labels": ([REALS], {"y": [1, 2]}, "one label for each of 40 rows"),
    "fractions": ([REALS], {"dequantize": True}, "got fractions"),
    "too few rows": ([REALS[:2]], {}, "at least 3 rows"),
}


@pytest.mark.parametrize("stream", [None, 1], ids=["in memory", "streamed"])
@pytest.mark.parametrize(("arrays", "options", "message"), BAD_SHARDS.values(), ids=BAD_SHARDS)
def test_bad_shards(tmp_path, arrays, options, message, stream):
    for index, array in enumerate(arrays):
        np.save(tmp_path / f"{index}.npy", array)
    refuse(tmp_path, {"stream": stream, **options}, message)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY\x01\x00v\x00{'descr'", b"cut"], ids=str)
def test_damaged_shards(tmp_path, content):
    np.save(tmp_path / "a.npy", REALS)
    (tmp_path / "b.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-9] if content == b"cut" else content)
    refuse(tmp_path, {"stream": 1}, "b.npy: expected a readable .npy file")


@pytest.mark.parametrize(
    "options",
    [{"binarize": "dynamic"}, {"dequantize": True}, {"binarize": "static"}, {"dequantize": "static", "valid": 0, "test": 0}],
    ids=str,
)
def test_noise_that_is_drawn_once_needs_rows_in_memory(tmp_path, little, options):
    np.save(tmp_path / "a.npy", IMAGES.repeat(8, axis=0))
    with pytest.raises(ValueError, match="larger stream="):
        load_data(tmp_path / "a.npy", stream=1, **options)


@pytest.mark.parametrize("method", ["SVI --method.epochs 2", "EM"])
def test_the_command_line_fits_streamed_data(tmp_path, capsys, method):
    source = shards(tmp_path / "shards", rng.normal(size=(300, 4)))
    fitted = f"fit --model FactorAnalysis --model.latent_dim 1 --method {method} --data {source} --device cpu --json"
    elbos = []
    for stream in ("", " --data.stream 1"):
        main((fitted + stream).split())
        elbos.append(json.loads(capsys.readouterr().out)["test"]["elbo"])
    assert elbos[1] == pytest.approx(elbos[0], rel=1e-5)


def test_what_does_not_fit_is_fitted_and_evaluated_block_by_block(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ppl_vae.data.stream.MIB", 1000)
    source, run = shards(tmp_path / "shards", rng.normal(size=(900, 4))), tmp_path / "run"
    model = "--model FactorAnalysis --model.latent_dim 1"
    main(f"fit {model} --method.epochs 2 --data {source} --data.stream 1 --device cpu --out {run} --json".split())
    fitted = json.loads(capsys.readouterr().out)
    assert fitted["test"]["n"] == 180
    for data in (f"--data {source} --split test", "--split train"):
        main(f"evaluate {run} {data} --device cpu --json".split())
        assert math.isfinite(json.loads(capsys.readouterr().out)[data.split()[-1]]["elbo"])
    held = load_data(source, scale="none")
    elbo = load_run(run).evaluate(held.test)["elbo"]
    assert fitted["test"]["elbo"] == pytest.approx(elbo, rel=1e-5)


# --- torchvision sets


def test_mnist_is_read_where_it_lies():
    root = os.environ.get("PPL_VAE_DATA", "")
    if not (Path(root) / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file():
        pytest.skip("MNIST is not in $PPL_VAE_DATA")
    data = load_data("MNIST")
    assert (len(data.train), len(data.valid), len(data.test)) == (54_000, 6_000, 10_000)
    assert data.train.x.dtype == torch.uint8
    assert data.spec.event_shape == (1, 28, 28)
    assert data.spec.classes == tuple("0123456789")
    assert data.test.y[:5].tolist() == [7, 2, 1, 0, 4]


class FakeCifar:
    """As torchvision gives CIFAR: channels last, labels in a list, a test set of its own."""

    classes = ("plane", "car")

    def __init__(self, root: str, *, download: bool, train: bool) -> None:
        size = 20 if train else 6
        self.data = np.arange(size * 32 * 32 * 3, dtype=np.uint8).reshape(size, 32, 32, 3)
        self.targets = [0, 1] * (size // 2)


def test_a_sources_own_test_set_is_kept(monkeypatch):
    monkeypatch.setattr("torchvision.datasets.CIFAR10", FakeCifar)
    data = load_data("CIFAR-10", test=0.8)
    assert (len(data.train), len(data.valid), len(data.test)) == (18, 2, 6)
    assert data.spec.event_shape == (3, 32, 32)
    assert np.array_equal(data.test.x, FakeCifar("", download=False, train=False).data.transpose(0, 3, 1, 2))
    assert data.test.y.tolist() == [0, 1] * 3
    with pytest.raises(ValueError, match="own test set"):
        load_data("cifar10", y=[0] * 20)


def test_missing_sets_say_where_they_were_sought(tmp_path, monkeypatch):
    for name in ("mnist", "usps", "cifar10"):
        with pytest.raises(ValueError, match=rf"{name} in {tmp_path}, got no such files: pass download=True"):
            load_data(name, root=str(tmp_path))

    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("torchvision.datasets.KMNIST", offline)
    with pytest.raises(ValueError, match="is this machine offline"):
        load_data("kmnist", root=str(tmp_path), download=True)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte").write_bytes(b"\0\0\x08\x03")
    with pytest.raises(ValueError, match="cannot be read"):
        load_data("mnist", root=str(tmp_path))


# --- what is refused

BAD_FILES = {
    "empty": ("a.csv", b"", {}, "empty file"),
    "header only": ("a.csv", b"a,b\n", {}, "got none"),
    "text column": ("a.csv", b"a,b\n1,red\n3,4\n", {}, "numbers in column 'b', got 'red'"),
    "unknown label": ("a.csv", b"a,b\n1,2\n", {"label": "c"}, "among a, b, got 'c'"),
    "only a label": ("a.csv", b"a\n1\n", {"label": "a"}, "besides the label"),
    "ragged lines": ("a.csv", b"1,2\n3\n", {}, "2 cells in line 2"),
    "not UTF-8": ("a.csv", b"a,b\n1,\xff\n", {}, "UTF-8"),
    "infinite": ("a.csv", b"1,2\n3,inf\n", {}, "inf in 1 entries"),
    "suffix": ("a.xlsx", b"1", {}, ".npy, .npz, .csv, .parquet"),
    "not npy": ("a.npy", b"hello", {}, "got"),
    "truncated npy": ("a.npy", b"\x93NUMPY\x01\x00v\x00{'descr'", {}, "damaged"),
    "not npz": ("a.npz", b"PK\x03\x04 broken", {}, "damaged"),
    "not parquet": ("a.parquet", b"PAR1", {}, "damaged"),
    "not an image": ("image/a.png", b"\x89PNG", {}, "a.png"),
    "no images": ("image/a.txt", b"hello", {}, "expected images"),
}


@pytest.mark.parametrize(("name", "content", "options", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files(tmp_path, name, content, options, message):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    refuse(path.parent if path.parent != tmp_path else path, {**options, **WHOLE}, message)


BAD_ARRAYS = {
    "truncated": (lambda path: (np.save(path, TABLE), path.write_bytes(path.read_bytes()[:-9])), "a.npy", {}, "damaged"),
    "pickled": (lambda path: np.save(path, np.array([{}, []], dtype=object)), "a.npy", {}, "pickled objects"),
    "pickled member": (lambda path: np.savez(path, x=np.array([{}, []], dtype=object)), "a.npz", {}, "pickled objects"),
    "two arrays": (lambda path: np.savez(path, a=TABLE, b=TABLE), "a.npz", {}, "got a, b: name one with key="),
    "wrong key": (lambda path: np.savez(path, a=TABLE), "a.npz", {"key": "c"}, "arrays a, got 'c'"),
    "label length": (lambda path: np.savez(path, x=TABLE, y=[1, 2]), "a.npz", {}, "each of 40 rows"),
    "cut archive": (lambda path: (np.savez(path, x=TABLE), path.write_bytes(path.read_bytes()[:-40])), "a.npz", {}, "damaged"),
    "image sizes": (lambda path: (path.mkdir(), save_images(path, sizes=(5, 4))), "i", {}, "1.png of (4, 4): resize"),
    "16-bit image": (lambda path: (path.mkdir(), save_images(path, mode="I;16")), "i", {}, "8 bits a channel"),
    "mixed folder": (lambda path: (path.mkdir(), save_images(path, classes=(".", "c"))), "i", {}, "in subfolders"),
}


@pytest.mark.parametrize(("save", "name", "options", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_bad_archives_and_folders(tmp_path, save, name, options, message):
    save(tmp_path / name)
    refuse(tmp_path / name, options, message)


BAD_VALUES = {
    "unknown name": ("mnits", {}, "did you mean 'mnist'"),
    "no such file": ("data/none.npy", {}, "does not exist"),
    "array by name": ("array", {}, "load_data(array, ...)"),
    "unknown option": ("digits", {"binarise": "none"}, "options among source, binarize"),
    "label of an array": (REALS, {"label": "y"}, ".csv, .npz, .parquet"),
    "header of an array": (REALS, {"header": True}, ".csv files only"),
    "key of a set": ("digits", {"key": "x"}, ".npz files only"),
    "options for Data": (load_data(REALS), {"seed": 1}, "loaded already"),
    "no rows": (REALS[:0], {}, "at least one row"),
    "scalar": (np.array(3.0), {}, "at least one row"),
    "too few rows": (REALS[:2], {}, "at least 3 rows"),
    "complex": (REALS.astype(complex), {}, "complex128"),
    "text": (np.array(["a"]), {}, "<U1"),
    "objects": (np.array([None]), {}, "object"),
    "lists": (np.array([[["a"], 1], [["b"], 2]], dtype=object), {}, "booleans or dates in column '0', got list"),
    "ragged": ([[1, 2], [3]], {}, "every row of one shape"),
    "sparse": (torch.eye(9).to_sparse(), {}, "to_dense"),
    "nothing there": (np.full((9, 2), np.nan), {"missing": "ignore"}, "NaN in 18 entries"),
    "no array": (None, {}, "dtype object"),
    "big integers": (np.full((40, 2), 2**63, np.uint64), {}, "int64"),
    "big floats": (np.full((40, 2), 1e300), {}, "float32"),
    "infinite": (np.full((40, 2), np.inf), {"missing": "ignore"}, "got inf in 80 entries of 40 rows"),
    "labels": (REALS, {"y": [1, 2]}, "one label for each of 40 rows"),
    "fractional labels": (REALS, {"y": REALS[:, 0]}, "integers or strings"),
    "binarize reals": (REALS, {"binarize": "static"}, "scale='unit'"),
    "binarize missing": (np.where(TABLE > 30, np.nan, TABLE / 40), {"binarize": "static", "missing": "ignore"}, "fill them"),
    "dequantize reals": (REALS, {"dequantize": True}, "got fractions"),
    "kind binary": (IMAGES, {"kind": "binary"}, "binarize='dynamic'"),
    "kind unit": (REALS, {"kind": "unit_interval"}, "scale='unit'"),
    "kind count": (REALS, {"kind": "count"}, "scale='none'"),
    "kind and binarize": (IMAGES, {"kind": "real", "binarize": "static"}, "got real data"),
}


@pytest.mark.parametrize(("source", "options", "message"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_bad_values(source, options, message):
    refuse(source, options, message)


def refuse(source: object, options: dict, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        load_data(source, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert type(caught.value) is ValueError


@pytest.mark.parametrize(
    "fields",
    [
        {"source": ""},
        {"binarize": "yes"},
        {"scale": "log"},
        {"kind": "gray"},
        {"missing": "drop"},
        {"valid": -0.1},
        {"test": math.nan},
        {"valid": 0.5, "test": 0.5},
        {"seed": -1},
        {"stream": 0},
        {"dequantize": True, "binarize": "static"},
        {"dequantize": "static", "binarize": "dynamic"},
        {"dequantize": "yes"},
        {"header": "no"},
        {"missing_text": "NA"},
    ],
    ids=str,
)
def test_bad_declarations(fields):
    with pytest.raises(ValueError, match=r"expected .*, got"):
        DataSource(**fields)


def test_dequantization_has_one_spelling():
    for text, kept in (("true", True), ("dynamic", True), ("false", False), ("none", False), ("static", "static")):
        source = DataSource.from_yaml(f"dequantize: {text}")
        assert source.dequantize == kept
        assert DataSource.from_yaml(source.to_yaml()) == source
    assert DataSource(dequantize="dynamic") == DataSource(dequantize=True)


def test_declarations_round_trip_and_loaded_data_come_back():
    source = DataSource(source="mnist", binarize="dynamic", kind="unit_interval", valid=0.2, root="somewhere")
    assert DataSource.from_yaml(source.to_yaml()) == source
    data = load_data(DataSource(), seed=5)
    assert isinstance(data, Data)
    assert data.source.seed == 5
    assert load_data(data) is data
    assert data.spec.classes == tuple("0123456789")
    assert SimpleNamespace(**data.source.to_dict()).source == "digits"
