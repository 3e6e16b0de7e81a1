"""Folders of images as arrays of pixels."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np

from ppl_vae.data.arrays import Raw, unreadable
from ppl_vae.memory import require_memory

__all__ = ["read_folder"]

IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
GRAY = ("1", "L", "LA")
COLOUR = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")


def read_folder(path: Path) -> Raw:
    """Images of one size, in the order of their names; gray if all are, else RGB. Subfolders are classes."""
    from PIL import Image

    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGES and file.is_file())
    if not files:
        raise ValueError(f"{path}: expected images ({', '.join(IMAGES)}), got none in this folder or below")
    modes, sizes = zip(*(_inspect(file) for file in files), strict=True)
    for file, size in zip(files, sizes, strict=True):
        if size != sizes[0]:
            raise ValueError(
                f"expected images of one size, got {files[0]} of {sizes[0]} and {file} of {size}: resize or crop them"
            )
    mode = "L" if all(mode in GRAY for mode in modes) else "RGB"
    require_memory(len(files) * math.prod(sizes[0]) * len(mode), str(path))
    pixels = np.empty((len(files), *sizes[0][::-1], *((3,) if mode == "RGB" else ())), np.uint8)
    for row, file in zip(pixels, files, strict=True):
        try:
            with file.open("rb") as stream, Image.open(stream) as image:
                row[...] = np.asarray(image.convert(mode))
        except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, ...
            raise unreadable(file, error) from None
    return Raw(pixels if mode == "L" else np.moveaxis(pixels, 3, 1), _folders(path, files))


def _folders(path: Path, files: list[Path]) -> np.ndarray | None:
    folders = [file.relative_to(path).parts[0] if file.parent != path else "" for file in files]
    if not any(folders):
        return None
    if "" in folders:
        loose = files[folders.index("")].name
        raise ValueError(f"{path}: expected all images in subfolders (the classes) or none, got both: move {loose}")
    return np.array(folders)


def _inspect(file: Path) -> tuple[str, tuple[int, int]]:
    from PIL import Image

    try:
        with warnings.catch_warnings(), file.open("rb") as stream:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(stream) as image:
                mode, size = image.mode, image.size
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        most = Image.MAX_IMAGE_PIXELS
        raise ValueError(f"{file}: expected an image of at most {most} pixels, got more: resize or crop it") from None
    except Exception as error:
        raise unreadable(file, error) from None
    if mode not in GRAY + COLOUR:
        raise ValueError(
            f"{file}: expected 8 bits a channel, got the mode {mode!r}: convert it, or give the pixels as an .npy file"
        )
    return mode, size
