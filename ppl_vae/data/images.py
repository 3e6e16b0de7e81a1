"""Folders of images as arrays of pixels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_vae.data.arrays import unreadable
from ppl_vae.data.raw import Raw
from ppl_vae.memory import require_memory

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["folder_names", "image_files", "image_mode", "inspected", "read_folder", "read_image", "read_one"]

IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
GRAY = ("1", "L", "LA")
COLOUR = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
ORIENTATION = 0x0112  # the tag of cameras
TURNED = (5, 6, 7, 8)  # its values that swap width and height


def read_folder(path: Path) -> Raw:
    """Images of one size, in the order of their names; gray if all are, else RGB. Subfolders are classes.

    Hidden files and folders are left out. Images are turned as their orientation tag says; what is transparent shows white, as
    on paper. If the subfolders are ``train`` and ``test``, these are the source's own two sets, with the classes below.
    """
    files = image_files(path)
    modes, sizes = zip(*(inspected(file) for file in files), strict=True)
    for file, size in zip(files, sizes, strict=True):
        if size != sizes[0]:
            raise ValueError(
                f"expected images of one size, got {files[0]} of {sizes[0]} and {file} of {size}: resize or crop them"
            )
    mode = image_mode(modes)
    require_memory(len(files) * math.prod(sizes[0]) * len(mode), str(path))
    pixels = np.empty((len(files), *sizes[0][::-1], *((3,) if mode == "RGB" else ())), np.uint8)
    transparency = [read_image(file, mode, row) for row, file in zip(pixels, files, strict=True)]
    if any(transparency) and (pixels == 255).all():
        raise ValueError(
            f"{path}: expected images that show on white, got white on transparent ground: save them on a dark ground, without "
            "transparency"
        )
    return _halves(path, files, pixels if mode == "L" else np.moveaxis(pixels, 3, 1))


def read_one(file: Path) -> np.ndarray:
    """The pixels of one image, ``(H, W)`` if it is gray, else ``(H, W, 3)``.

    Raises:
        ValueError: a damaged image, or one of more than 8 bits a channel.
    """
    mode, size = inspected(file)
    mode = image_mode([mode])
    pixels = np.empty((*size[::-1], *((3,) if mode == "RGB" else ())), np.uint8)
    read_image(file, mode, pixels)
    return pixels


def image_files(path: Path) -> list[Path]:
    """The images of a folder and below, in the order of their names, hidden ones left out.

    Raises:
        ValueError: there are none.
    """
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGES and file.is_file() and _shown(path, file))
    if not files:
        raise ValueError(f"{path}: expected images ({', '.join(IMAGES)}), got none in this folder or below")
    return files


def image_mode(modes: Iterable[str]) -> str:
    """How images of these modes are read together: gray if all are, else RGB."""
    return "L" if all(mode in GRAY for mode in modes) else "RGB"


def _halves(path: Path, files: list[Path], pixels: np.ndarray) -> Raw:
    """The images and their classes; two halves where the folders are called so."""
    tops = [file.relative_to(path).parts[0] for file in files]
    named = {top.lower(): top for top in tops}
    if named.keys() != {"train", "test"} or len(set(tops)) != 2:
        _refuse_splits(path, named.keys())
        return Raw(pixels, folder_names(path, files))
    rows = {half: [row for row, top in enumerate(tops) if top == named[half]] for half in ("train", "test")}
    x, test_x = (pixels[rows[half]] for half in ("train", "test"))
    y, test_y = (folder_names(path / named[half], [files[row] for row in rows[half]]) for half in ("train", "test"))
    if y is None and test_y is None:
        return Raw(x, test_x=test_x)
    given, found = (["no class"] if names is None else names.tolist() for names in (y, test_y))
    if strange := sorted({*found} - {*given}):
        raise ValueError(f"{path}: expected the classes of train in test too, got {', '.join(strange)}: move or drop it")
    classes, numbers = np.unique(given, return_inverse=True)
    return Raw(x, numbers, tuple(classes.tolist()), test_x=test_x, test_y=np.searchsorted(classes, found))


def _refuse_splits(path: Path, tops: Set[str]) -> None:
    """Raise ``ValueError`` for halves that are called as splits are, and more or less than train and test."""
    if "train" in tops and tops <= {"train", "test", "val", "valid", "validation"}:
        raise ValueError(
            f"{path}: expected train and test as folders, or classes, got {', '.join(sorted(tops))}: move what is to validate "
            "into train (valid= holds out a share of it), or give the path of one of them"
        )


def folder_names(path: Path, files: list[Path]) -> np.ndarray | None:
    """The subfolder of each image, its class; none where images lie in the folder itself."""
    folders = [file.relative_to(path).parts[0] if file.parent != path else "" for file in files]
    if not any(folders):
        return None
    if "" in folders:
        loose = files[folders.index("")].name
        raise ValueError(f"{path}: expected all images in subfolders (the classes) or none, got both: move {loose}")
    return np.array(folders)


def _shown(path: Path, file: Path) -> bool:
    return not any(part.startswith(".") for part in file.relative_to(path).parts)


def read_image(file: Path, mode: str, pixels: np.ndarray) -> bool:
    """Fill in the pixels of an image; whether it has transparent ones."""
    from PIL import Image, ImageOps

    try:
        with file.open("rb") as stream, Image.open(stream) as image:
            transparent = image.has_transparency_data
            pixels[...] = np.asarray(_on_white(ImageOps.exif_transpose(image)).convert(mode))
            return transparent
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, ...
        raise unreadable(file, error) from None


def _on_white(image: Image) -> Image:
    if not image.has_transparency_data:
        return image
    from PIL import Image as Images

    return Images.alpha_composite(Images.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")


def _pages(image: Any) -> int:
    """The pages of a file; of formats that have several as they say."""
    try:
        return int(image.n_frames)
    except AttributeError:
        return 1


def inspected(file: Path) -> tuple[str, tuple[int, int]]:
    """The mode of an image, and its width and height once it is turned."""
    from PIL import Image

    try:
        with warnings.catch_warnings(), file.open("rb") as stream:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(stream) as image:
                mode, size, kind, pages = image.mode, image.size, image.format, _pages(image)
                tagged = kind != "PNG" or "exif" in image.info  # a PNG would be decoded to look for the tag at its end
                turned = tagged and image.getexif().get(ORIENTATION) in TURNED
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        most = Image.MAX_IMAGE_PIXELS
        raise ValueError(f"{file}: expected an image of at most {most} pixels, got more: resize or crop it") from None
    except Exception as error:
        raise unreadable(file, error) from None
    if mode not in GRAY + COLOUR:
        raise ValueError(
            f"{file}: expected 8 bits a channel, got the mode {mode!r}: convert it, or give the pixels as an .npy file"
        )
    if pages > 1 and kind != "MPO":  # whose further pages are a camera's previews
        raise ValueError(
            f"{file}: expected one image a file, got {pages} pages: save each as a file of its own, or all as one .npy file"
        )
    return mode, size[::-1] if turned and kind != "TIFF" else size  # of a TIFF the size is told turned already
