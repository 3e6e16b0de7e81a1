"""``ppl-vae denoise``: an image without its noise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppl_vae import runs
from ppl_vae.cli.options import run_options
from ppl_vae.cli.output import as_arrays, done, save_atomically, writer
from ppl_vae.types import Channels

if TYPE_CHECKING:
    import numpy as np
    import torch
    from jsonargparse import ArgumentParser

__all__ = ["options", "run"]


def run(
    *,
    run: str,
    image: str,
    sigma: float | None,
    mask: str | None,
    truth: str | None,
    channels: Channels,
    out: str,
    seed: int,
    device: str,
    trust: list[str],
    json: bool,
) -> None:
    """Take white noise out of an image, and fill its missing pixels.

    By a mixture of normal distributions of patches, or of whole images; by a lattice; or by the codes of a VAE. A picture
    (.png) is rounded to 0, ..., 255, an .npy file is not. With the true image PSNR (dB, of a peak of 255) and SSIM are told, of
    the image and of what was made of it.
    """
    write = writer(out, ".png", ".npy")
    pixels = _read(image)
    true = None if truth is None else _read(truth)
    if true is not None and true.shape != pixels.shape:
        raise ValueError(f"{truth}: expected the truth of an image of shape {pixels.shape}, got {true.shape}")
    holes = None if mask is None else _read(mask)
    fitted = runs.load_run(run, trust=trust, device=device)
    found = fitted.denoise(
        pixels, sigma, mask=holes if holes is None or holes.ndim == 2 else holes.max(2), channels=channels, seed=seed
    )
    quality = _quality(pixels, found, true)
    write({".png": lambda path: _save(path, found)} | as_arrays({"x": found}))
    done({"shape": list(found.shape)} | quality | {"out": out}, as_json=json)


def _quality(image: np.ndarray, found: np.ndarray, truth: np.ndarray | None) -> dict[str, Any]:
    """PSNR and, of images as large as its window, SSIM before and after, where the truth is known."""
    if truth is None:
        return {}
    from ppl_vae.evaluate.image_quality import WINDOW, psnr, ssim

    true, after, before = (_channels_first(value) for value in (truth, found, image))
    told = {"psnr": (psnr, 3)} | ({"ssim": (ssim, 4)} if min(true.shape[-2:]) >= WINDOW else {})
    return {
        f"{name}{end}": round(quality(value, true), digits)
        for end, value in (("", after), ("_before", before))
        for name, (quality, digits) in told.items()
    }


def _channels_first(image: np.ndarray) -> torch.Tensor:
    import torch

    tensor = torch.as_tensor(image)
    return tensor if tensor.dim() == 2 else tensor.movedim(2, 0)


def _read(file: str) -> np.ndarray:
    """Pixels ``(H, W)``, of colour ``(H, W, 3)``, of a picture or an .npy file."""
    from ppl_vae.data.images import read_one
    from ppl_vae.data.readers import read_array

    path = Path(file)
    if not path.is_file():
        raise ValueError(f"expected a picture or an .npy file, got {file!r}, which is none: check the path")
    found = read_array(path) if path.suffix == ".npy" else read_one(path)
    if found.ndim != 2 and not (found.ndim == 3 and found.shape[2] == 3):
        raise ValueError(f"{file}: expected an image (H, W) or (H, W, 3), got an array of shape {found.shape}")
    return found


def _save(path: Path, image: np.ndarray) -> None:
    from PIL import Image

    pixels = image.round().clip(0, 255).astype("uint8")
    save_atomically(path, lambda file: Image.fromarray(pixels).save(file, "PNG"))


def options(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    run_options(parser)
    unit = "in the units of the run's data: of 255 for pictures of 8 bits"
    parser.add_argument("image", type=str, help="a picture, or pixels (H, W) or (H, W, 3) as .npy")
    parser.add_argument(
        "--sigma", type=float | None, help=f"standard deviation of the noise, {unit}; estimated without, of a mask none"
    )
    parser.add_argument("--mask", type=str | None, help="a picture that is white where pixels are missing, or an .npy file")
    parser.add_argument("--truth", type=str | None, help="the image without noise, to tell PSNR and SSIM")
    parser.add_argument(
        "--channels", type=Channels, default="joint", help="joint, or each channel by itself by a run of gray patches"
    )
    parser.add_argument("--out", type=str, required=True, help="a .png picture, or .npy")
