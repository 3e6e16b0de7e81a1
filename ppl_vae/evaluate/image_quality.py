"""How near an image is to another, and how much noise is in one.

Images are ``(*channels, H, W)``, in any unit that both have.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import conv2d

__all__ = ["WINDOW", "noise_level", "psnr", "ssim"]

WINDOW, _WIDTH = 11, 1.5  # pixels along a side, and the standard deviation of its weights
_K1, _K2 = 0.01, 0.03
_MEDIAN = 0.6744897501960817  # of |e|, e ~ N(0, 1)


def psnr(image: Tensor, truth: Tensor, peak: float = 255.0) -> float:
    """Peak signal-to-noise ratio, 10 log10(peak^2 / mean squared error), in dB; infinite for equal images.

    Examples:
        >>> round(psnr(torch.full((8, 8), 5.0), torch.zeros(8, 8)), 2)
        34.15
    """
    error = float((image.double() - truth.double()).square().mean())
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def ssim(image: Tensor, truth: Tensor, peak: float = 255.0) -> float:
    r"""Structural similarity (Wang, Bovik, Sheikh and Simoncelli 2004, "Image quality assessment", eq. 13), at most 1.

    .. math:: \frac{(2 \mu_x \mu_y + c_1)(2 \sigma_{xy} + c_2)}{(\mu_x^2 + \mu_y^2 + c_1)(\sigma_x^2 + \sigma_y^2 + c_2)},
        \quad c_i = (k_i \, \text{peak})^2,\ k = (0.01, 0.03)

    with the moments of windows of 11 x 11 pixels that are weighted by a normal density of 1.5 pixels, averaged over all windows
    inside the image, and over the channels.

    Raises:
        ValueError: an image that is smaller than a window.

    Examples:
        >>> ramp = torch.arange(256.0).reshape(16, 16)
        >>> ssim(ramp, ramp), round(ssim(ramp, ramp.flip(0)), 2)
        (1.0, -0.82)
    """
    x, y = (value.double().reshape(-1, 1, *value.shape[-2:]) for value in (image, truth))
    if min(x.shape[-2:]) < WINDOW:
        raise ValueError(f"expected images of at least {WINDOW} x {WINDOW} pixels for ssim, got {tuple(x.shape[-2:])}")
    steps = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    weights = (-steps.square() / (2 * _WIDTH**2)).softmax(0)
    window = torch.outer(weights, weights)[None, None]
    mean_x, mean_y, xx, yy, xy = (conv2d(value, window) for value in (x, y, x * x, y * y, x * y))
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    alike = (2 * mean_x * mean_y + c1) * (2 * (xy - mean_x * mean_y) + c2)
    apart = (mean_x.square() + mean_y.square() + c1) * (xx - mean_x.square() + yy - mean_y.square() + c2)
    return float((alike / apart).mean())


def noise_level(image: Tensor) -> float:
    r"""Standard deviation of white noise in an image, where much of what it shows is smooth; missing pixels (NaN) are left out.

    .. math:: \hat\sigma = \frac{\mathrm{median} |x * m|}{6 \cdot 0.6745}, \quad
        m = \begin{pmatrix} 1 & -2 & 1 \\ -2 & 4 & -2 \\ 1 & -2 & 1 \end{pmatrix}

    The mask sees no plane, edge along an axis or corner of one (Immerkaer 1996, "Fast noise variance estimation"), and has the
    norm 6; the median, as Donoho and Johnstone (1994) take it of wavelet coefficients, hardly sees the few places with texture.

    Raises:
        ValueError: no 3 x 3 pixels that are all known.

    Examples:
        >>> image = 10 * torch.randn(200, 200, generator=torch.Generator().manual_seed(0))
        >>> abs(noise_level(image + torch.arange(200)) / 10 - 1) < 0.02
        True
    """
    x = image.double().reshape(-1, 1, *image.shape[-2:])
    row = torch.tensor([1.0, -2.0, 1.0], dtype=x.dtype, device=x.device)
    seen = conv2d(x, torch.outer(row, row)[None, None]) if min(x.shape[-2:]) >= 3 else x.new_empty(0)
    seen = seen[~seen.isnan()]
    if not len(seen):
        raise ValueError("expected an image with some 3 x 3 known pixels to estimate its noise from: give sigma")
    return float(seen.abs().median()) / (6 * _MEDIAN)
