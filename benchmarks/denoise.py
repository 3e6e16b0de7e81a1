"""Noise taken out of photographs by a mixture of their patches: `python -m benchmarks.denoise --json`.

The prior is a GMM of patches of 8 x 8 of kodim01 to kodim12, without their means, by EM; what is denoised are the middles,
256 x 256, of kodim13 to kodim20, gray, with normal noise by a seed. Beside it fast non-local means of scikit-image, told the
noise, where that is installed. PSNR in dB and SSIM are means over the images, seconds the median of one image, by the clock
and of the processor.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import ppl_vae as pv
from benchmarks import series
from ppl_vae.data.source import DataSource
from ppl_vae.evaluate.image_quality import noise_level, psnr, ssim

__all__ = ["denoisers", "measure", "middles", "patch_prior"]

SIDE = 256
LEARNED, TESTED = range(1, 13), range(13, 21)


def photographs(numbers: range) -> list[np.ndarray]:
    """Gray photographs of the Kodak suite by their numbers."""
    file = DataSource().folder / "images" / "kodak24_gray.npz"
    with np.load(file, allow_pickle=False) as held:
        return [held[f"kodim{number:02d}"] for number in numbers]


def middles(images: list[np.ndarray]) -> list[Tensor]:
    """The middles of images, ``(SIDE, SIDE)``, float64."""
    corners = [((image.shape[0] - SIDE) // 2, (image.shape[1] - SIDE) // 2) for image in images]
    parts = [image[top : top + SIDE, left : left + SIDE] for image, (top, left) in zip(images, corners, strict=True)]
    return [torch.from_numpy(part.astype(np.float64)) for part in parts]


def patch_prior(options: argparse.Namespace) -> pv.Fit:
    """The mixture of patches: loaded from the run, or fitted and kept there."""
    run = Path(options.run)
    if (run / "run.json").is_file():
        return pv.load_run(run)
    with tempfile.TemporaryDirectory() as folder:
        for number, image in zip(LEARNED, photographs(LEARNED), strict=True):
            Image.fromarray(image).save(Path(folder) / f"kodim{number:02d}.png")
        patches = pv.Patches(size=8, count=options.patches, remove_mean=True)
        data = pv.load_data(folder, patches=patches, valid=0, test=0)
        return pv.fit(pv.GMM(components=options.components), data, method=pv.EM(max_iterations=options.iterations), out=run)


def denoisers(fit: pv.Fit) -> dict[str, Callable[[Tensor, float], Tensor]]:
    """Ours, and the peer if it is installed, of an image with noise of a standard deviation."""
    found: dict[str, Callable[[Tensor, float], Tensor]] = {"ours": fit.denoise}
    if importlib.util.find_spec("skimage") is not None:
        found["non-local means"] = non_local_means
    return found


def non_local_means(noisy: Tensor, sigma: float) -> Tensor:
    """Scikit-image's, as its gallery sets it: patches of 5, a distance of 6, h 0.8 of the noise."""
    from skimage.restoration import denoise_nl_means

    told = {"patch_size": 5, "patch_distance": 6, "h": 0.8 * sigma, "sigma": sigma, "fast_mode": True}
    return torch.from_numpy(denoise_nl_means(noisy.numpy(), **told, preserve_range=True))


def measure(fit: pv.Fit, images: list[Tensor], sigmas: list[float]) -> dict[str, Any]:
    """Means over the images of what each denoiser reaches at each noise, and the noise that is estimated."""
    found: dict[str, Any] = {}
    for sigma in sigmas:
        generator = torch.Generator().manual_seed(0)
        noisy = [image + sigma * torch.randn(image.shape, generator=generator, dtype=image.dtype) for image in images]
        rows = {"noisy": {"psnr": statistics.mean(map(psnr, noisy, images)), "ssim": statistics.mean(map(ssim, noisy, images))}}
        for name, denoise in denoisers(fit).items():
            rows[name] = of_one(denoise, noisy, images, sigma)
        rows["estimated sigma"] = {"mean": statistics.mean(map(noise_level, noisy))}
        found[f"{sigma:g}"] = rows
    return found


def of_one(
    denoise: Callable[[Tensor, float], Tensor], noisy: list[Tensor], images: list[Tensor], sigma: float
) -> dict[str, Any]:
    """PSNR, SSIM and seconds of one denoiser."""
    results, seconds, worked = [], [], []
    for image in noisy:
        began, at = time.perf_counter(), time.process_time()
        results.append(denoise(image, sigma))
        seconds.append(time.perf_counter() - began)
        worked.append(time.process_time() - at)
    each = [psnr(result, image) for result, image in zip(results, images, strict=True)]
    return {
        "psnr": statistics.mean(each),
        "ssim": statistics.mean(map(ssim, results, images)),
        "seconds": statistics.median(seconds),
        "processor_seconds": statistics.median(worked),
        "psnr_each": each,
    }


def draw(fit: pv.Fit, image: Tensor, sigma: float, path: Path) -> None:
    """An image with noise, without it, and as it was, side by side."""
    noisy = image + sigma * torch.randn(image.shape, generator=torch.Generator().manual_seed(1), dtype=image.dtype)
    side_by_side = torch.cat([noisy, fit.denoise(noisy, sigma), image], 1)
    Image.fromarray(side_by_side.round().clamp(0, 255).byte().numpy()).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="runs/patches", help="of the mixture; fitted and kept there if there is none")
    parser.add_argument("--components", type=int, default=200)
    parser.add_argument("--patches", type=int, default=200_000)
    parser.add_argument("--iterations", type=int, default=8)
    parser.add_argument("--sigmas", type=float, nargs="*", default=[15.0, 25.0, 50.0], help="of 255")
    parser.add_argument("--images", type=int, default=len(TESTED))
    parser.add_argument("--picture", type=Path, help="a .png of one image: with noise of 25, without, and the truth")
    series.add_json(parser)
    options = parser.parse_args()
    fit = patch_prior(options)
    images = middles(photographs(TESTED))[: options.images]
    if options.picture is not None:
        draw(fit, images[-2], 25.0, options.picture)
    found = measure(fit, images, options.sigmas) if options.sigmas else {}
    absent = {} if importlib.util.find_spec("skimage") else {"non-local means": "pip install scikit-image"}
    if options.json:
        series.tell({**found, "threads": torch.get_num_threads(), "absent": absent}, options)
        return
    for sigma, rows in found.items():
        for name, row in rows.items():
            print(
                f"sigma {sigma}: {name}: " + ", ".join(f"{key} {value:.4g}" for key, value in row.items() if key != "psnr_each")
            )
    for name, why in absent.items():
        print(f"absent: {name}: {why}")


if __name__ == "__main__":
    main()
