"""Folders of pictures as their owners keep them: transparent, turned, in pages, split, with hidden files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ppl_vae.data import load_data

WHOLE = {"valid": 0, "test": 0}
rng = np.random.default_rng(0)
GRAY = rng.integers(0, 256, (6, 6, 5), dtype=np.uint8)
INK = rng.integers(0, 2, (6, 6, 5), dtype=np.uint8) * 255


def picture(pixels: np.ndarray, mode: str | None = None) -> Image.Image:
    image = Image.fromarray(pixels)
    return image.convert(mode) if mode else image


def inked(value: int, alpha: np.ndarray) -> Image.Image:
    return picture(np.dstack([np.full((*alpha.shape, 3), value, np.uint8), alpha]))


def test_ink_on_transparent_ground_is_ink_on_white(tmp_path):
    for index, alpha in enumerate(INK):
        inked(0, alpha).save(tmp_path / f"{index}.png")
    data = load_data(tmp_path, **WHOLE)
    assert np.array_equal(data.train.x[:, 0] * 255, 255 - INK)
    assert data.spec.kind == "binary"


@pytest.mark.parametrize("mode", ["LA", "P", "L"])
def test_transparency_of_every_mode_shows_white(tmp_path, mode):
    alpha = INK[0]
    image = inked(0, alpha).convert(mode) if mode == "LA" else picture(np.where(alpha > 0, 7, 3).astype(np.uint8))
    if mode == "P":
        image = image.convert("P")
    image.save(tmp_path / "0.png", **({} if mode == "LA" else {"transparency": 3}))
    x = load_data(tmp_path, **WHOLE).train.x[0, 0].numpy()
    expected = np.where(alpha > 0, 0 if mode == "LA" else 7, 255)
    assert np.array_equal(x if x.max() > 1 else x * 255, expected)


def test_white_ink_on_transparent_ground_is_refused(tmp_path):
    for index, alpha in enumerate(INK):
        inked(255, alpha).save(tmp_path / f"{index}.png")
    with pytest.raises(ValueError, match="white on transparent ground: save them on a dark ground"):
        load_data(tmp_path, **WHOLE)


@pytest.mark.parametrize("suffix", ["tif", "gif"])
def test_pages_are_refused(tmp_path, suffix):
    first, *others = map(picture, GRAY)
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=others)
    with pytest.raises(ValueError, match=rf"a\.{suffix}: expected one image a file, got 6 pages: save each as a file"):
        load_data(tmp_path, **WHOLE)
    first.save(tmp_path / f"a.{suffix}")
    assert len(load_data(tmp_path, **WHOLE).train) == 1


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_they_are_tagged(tmp_path, suffix, orientation):
    turned = {
        1: GRAY[0],
        2: GRAY[0][:, ::-1],
        3: GRAY[0][::-1, ::-1],
        4: GRAY[0][::-1],
        5: GRAY[0].T,
        6: np.rot90(GRAY[0], -1),
        7: GRAY[0][::-1, ::-1].T,
        8: np.rot90(GRAY[0]),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    picture(GRAY[0]).save(tmp_path / f"a.{suffix}", exif=exif, **options)
    picture(np.ascontiguousarray(turned[orientation])).save(tmp_path / "b.png")
    x = load_data(tmp_path, **WHOLE).train.x
    assert np.array_equal(x[0], x[1])


def save(folder: Path, names: str) -> Path:
    for index, name in enumerate(names.split()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(GRAY[index % 6]).save(folder / name)
    return folder


def test_hidden_files_are_left_out(tmp_path):
    save(tmp_path, "a.png b.png .ipynb_checkpoints/a-checkpoint.png")
    (tmp_path / "._a.png").write_bytes(b"\0\5\x16\7")
    assert len(load_data(tmp_path, **WHOLE).train) == 2
    shards = tmp_path / "shards"
    shards.mkdir()
    np.save(shards / "0.npy", GRAY)
    (shards / "._0.npy").write_bytes(b"\0\5\x16\7")
    assert len(load_data(shards, **WHOLE).train) == 6
    assert len(load_data(shards, stream=1, **WHOLE).train) == 6


def test_folders_of_train_and_test_are_the_two_sets(tmp_path):
    save(tmp_path, "train/cat/0.png train/cat/1.png train/dog/0.png test/dog/0.png test/cat/0.png")
    data = load_data(tmp_path, valid=0)
    assert (len(data.train), len(data.test)) == (3, 2)
    assert data.spec.classes == ("cat", "dog")
    assert (data.train.y.tolist(), data.test.y.tolist()) == ([0, 0, 1], [0, 1])
    assert np.array_equal(data.test.x[:, 0], GRAY[[4, 3]])
    save(tmp_path, "test/horse/0.png")
    with pytest.raises(ValueError, match="the classes of train in test too, got horse: move or drop it"):
        load_data(tmp_path)


def test_train_and_test_may_have_no_classes(tmp_path):
    data = load_data(save(tmp_path / "plain", "Train/0.png Train/1.png Test/0.png"), valid=0)
    assert (len(data.train), len(data.test), data.spec.classes) == (2, 1, ())
    with pytest.raises(ValueError, match="got no class: move or drop it"):
        load_data(save(tmp_path / "half", "train/cat/0.png train/dog/1.png test/0.png"))


def test_other_folders_of_splits_are_refused(tmp_path):
    with pytest.raises(ValueError, match="got test, train, val: move what is to validate into train"):
        load_data(save(tmp_path / "three", "train/cat/0.png val/cat/0.png test/cat/0.png"))
    classes = load_data(save(tmp_path / "vehicles", "train/0.png plane/0.png test/0.png"), **WHOLE).spec.classes
    assert classes == ("plane", "test", "train")
