"""Images by a mixture of normal distributions of their patches: expected patch log likelihood.

    x = argmin  sum over patches i of |P_i (x - y)|^2 / (2 v) - log p(P_i x)      (Zoran and Weiss 2011, EPLL, eq. 4)

P_i x is the i-th of all overlapping patches, y the image with noise of variance v. Half-quadratic splitting gives each patch a
copy z_i of its own at a variance w around P_i x, and takes in turn, w falling,

    z_i = E[s | P_i x, k_i]       k_i the most probable component behind noise of variance w, and its Wiener filter
    x_j = (y_j / v + mean of the z_i at pixel j / w) / (1 / v + 1 / w)

A pixel at the border lies in fewer patches, and its terms count as often as these. A pixel that is missing has no y_j: its v is
infinite. One that is known exactly has v = 0 and stays. An image that is one patch has nothing to be split: it is E[s | y, k].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ppl_vae.exact.noisy_mixture import Spectra, choose, filtered

__all__ = ["BETAS", "PatchPrior", "filled", "half_quadratic", "schedule"]

BETAS = (1.0, 4.0, 8.0, 16.0, 32.0)
"""v / w in turn (Zoran and Weiss 2011)."""

_PATCHES = 2**16  # that are held at once
_GAPS = 12  # steps for missing pixels, from the spread of patches down to a share of it
_FINEST = 1 / 30


class PatchPrior(NamedTuple):
    """What patches are like.

    Args:
        mixture: of their coefficients, ``(C, D)``.
        basis: orthonormal rows ``(D, channels height width)``; what lies across all of them, as a mean that was removed, has no
            density and stays as it is.
        shape: of a patch, ``(channels, height, width)``.
    """

    mixture: Spectra
    basis: Tensor
    shape: tuple[int, int, int]

    @property
    def spread(self) -> float:
        """Mean variance of a coefficient within its component."""
        return float(self.mixture.weights @ self.mixture.values.mean(1))


def half_quadratic(prior: PatchPrior, image: Tensor, variance: float, variances: Sequence[float]) -> Tensor:
    """The image of the largest expected patch log likelihood, nearly.

    Args:
        prior: of its patches.
        image: y, ``(channels, H, W)``, float64, NaN where it is missing.
        variance: v, of the noise in it; 0 where none is.
        variances: w of each step.
    """
    known = ~image.isnan()
    y = x = filled(image)
    if tuple(y.shape) == prior.shape and bool(known.all()):
        return _patch_mean(prior, y, variance)
    for w in variances:
        mean = _patch_mean(prior, x, w)
        x = torch.where(known, y + (mean - y) * (variance / (variance + w)), mean)
    return x


def schedule(prior: PatchPrior, variance: float, betas: Sequence[float], *, gaps: bool) -> list[float]:
    """Variances w: v / beta; for an image with gaps more of them, from the spread of patches on, which gaps have at first."""
    if not gaps:
        return [variance / beta for beta in betas]
    first = max(prior.spread, variance)
    last = variance / betas[-1] if variance > 0 else prior.spread * _FINEST**2
    steps = torch.linspace(0, 1, _GAPS, dtype=torch.float64)
    return (first * (last / first) ** steps).tolist()


def filled(image: Tensor) -> Tensor:
    """Missing pixels (NaN) of ``(channels, H, W)`` at the mean of the known ones in the least window that has some.

    Raises:
        ValueError: a channel without a known pixel.
    """
    known = (~image.isnan()).to(image)
    if not bool(known.flatten(1).any(1).all()):
        raise ValueError(
            "expected an image with some known pixels in each channel, got one that is missing: give a smaller mask"
        )
    found, y, reach = image, image.nan_to_num(), 1
    while bool(found.isnan().any()):
        share, mean = (_window_mean(value, reach) for value in (known, y))
        found = torch.where(found.isnan() & (share > 0), mean / share.clamp_min(1e-12), found)
        reach *= 2
    return found


def _window_mean(x: Tensor, reach: int) -> Tensor:
    """Means of ``(channels, H, W)`` over so many pixels to each side, zeros outside, first along columns."""
    columns = avg_pool2d(x, (2 * reach + 1, 1), 1, (reach, 0))
    return avg_pool2d(columns, (1, 2 * reach + 1), 1, (0, reach))


def _patch_mean(prior: PatchPrior, x: Tensor, variance: float) -> Tensor:
    """The mean at each pixel of all filtered patches that it lies in."""
    total, count = torch.zeros_like(x), torch.zeros_like(x[0])
    _, height, width = prior.shape
    for first, patches, across in _bands(x, prior.shape):
        rows = patches @ prior.basis.mT
        component = choose(prior.mixture, rows, variance)
        # Not in place: patches of an image as wide as they are lie in its own memory.
        means = patches + (filtered(prior.mixture, rows, component, variance) - rows) @ prior.basis
        squares = means.mT.reshape(*prior.shape, -1, across)
        high = squares.shape[-2]
        for i in range(height):
            for j in range(width):
                total[:, first + i : first + i + high, j : j + across] += squares[:, i, j]
                count[first + i : first + i + high, j : j + across] += 1
    return total / count


def _bands(x: Tensor, shape: tuple[int, int, int]) -> Iterator[tuple[int, Tensor, int]]:
    """The first row, patches ``(n, D)`` and number of patches across of bands of all patches."""
    _, height, width = shape
    windows = x.unfold(1, height, 1).unfold(2, width, 1).permute(1, 2, 0, 3, 4)  # (H', W', channels, height, width)
    across = windows.shape[1]
    rows = max(1, _PATCHES // across)
    for first in range(0, windows.shape[0], rows):
        yield first, windows[first : first + rows].reshape(-1, x.shape[0] * height * width), across
