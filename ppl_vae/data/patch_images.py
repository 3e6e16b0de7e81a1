"""Images that patches are cut out of: a folder of them, one in memory at a time, or arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ppl_vae.data.arrays import as_tensor
from ppl_vae.data.images import folder_names, image_files, image_mode, inspected, read_image
from ppl_vae.data.patches import Patches
from ppl_vae.data.raw import Raw
from ppl_vae.data.source import DataSource

__all__ = ["cut_patches", "read_patches"]


def read_patches(path: Path, source: DataSource, patches: Patches) -> Raw:
    """Patches of a folder of images, which may differ in size; gray if all are, else RGB. Subfolders are classes.

    Raises:
        ValueError: no images, a damaged one, or one that is smaller than a patch.
    """
    files = image_files(path)
    names = folder_names(path, files)
    if names is not None and {name.lower() for name in names} == {"train", "test"}:
        raise ValueError(f"{path}: expected pictures, or classes of them, for patches, got train and test: give one")
    modes, sizes = zip(*(inspected(file) for file in files), strict=True)
    mode = image_mode(modes)
    shapes = [(len(mode), height, width) for width, height in sizes]
    for file, shape in zip(files, shapes, strict=True):
        patches.check(shape, str(file))
    found = patches.cut(
        (_channels_first(file, mode, shape) for file, shape in zip(files, shapes, strict=True)), shapes, seed=source.seed
    )
    return _of_images(Raw(found.x, names), found.images)


def cut_patches(raw: Raw, source: DataSource) -> Raw:
    """Rows that are images, ``(n, height, width)`` or with channels, as the patches that are declared of them, if any are.

    Raises:
        ValueError: rows that are no images, or images with a test set or fields of their own.
    """
    patches = source.patches
    if patches is None or raw.images is not None:
        return raw
    if not isinstance(raw.x, np.ndarray) or raw.test_x is not None or raw.fields is not None or raw.weights is not None:
        raise ValueError(
            f"{source.source}: expected a folder or an array of images to cut patches of, got rows with more to them: give the "
            "images alone, as a folder or an .npy file"
        )
    x = as_tensor(raw.x, source.source)
    x = x[:, None] if x.dim() == 3 else x
    if x.dim() != 4:
        raise ValueError(
            f"{source.source}: expected images (n, height, width) to cut patches of, got rows {tuple(x.shape[1:])}"
        )
    shape = (int(x.shape[1]), int(x.shape[2]), int(x.shape[3]))
    patches.check(shape, source.source)
    found = patches.cut((image.numpy() for image in x), [shape] * len(x), seed=source.seed)
    return _of_images(raw._replace(x=found.x), found.images)


def _of_images(raw: Raw, images: np.ndarray) -> Raw:
    """Patches with the numbers and the labels of their images."""
    return raw._replace(y=None if raw.y is None else np.asarray(raw.y)[images], images=images)


def _channels_first(file: Path, mode: str, shape: Sequence[int]) -> np.ndarray:
    channels, height, width = shape
    pixels = np.empty((height, width) if channels == 1 else (height, width, channels), np.uint8)
    read_image(file, mode, pixels)
    return pixels[None] if channels == 1 else np.moveaxis(pixels, 2, 0)
