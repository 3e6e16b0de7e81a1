"""Images without their noise, and with their missing pixels filled."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from ppl_vae.arguments import whole
from ppl_vae.data.arrays import as_array
from ppl_vae.evaluate.code_search import denoised_by_code
from ppl_vae.evaluate.image_quality import noise_level
from ppl_vae.evaluate.patch_prior import BETAS, PatchPrior, filled, half_quadratic, schedule
from ppl_vae.exact.covariances import covariance
from ppl_vae.exact.mixture import Parameters
from ppl_vae.exact.noisy_mixture import spectra
from ppl_vae.fitting.coding import Coding
from ppl_vae.fitting.inputs import in_source_units
from ppl_vae.program.context import evaluating, seeded
from ppl_vae.types import Channels

__all__ = ["Denoising"]

NEEDED = (
    "a mixture of normal distributions (GMM, FactorAnalysis, PPCA), a lattice behind noise (Ising), or a model that decodes "
    "codes (VAE)"
)


class Denoising(Coding):
    """The part of a :class:`~ppl_vae.fitting.fitted.Fit` that takes noise out of images."""

    def denoise(
        self,
        image: Tensor | np.ndarray,
        sigma: float | None = None,
        *,
        mask: Tensor | np.ndarray | None = None,
        channels: Channels = "joint",
        betas: Sequence[float] = BETAS,
        steps: int = 100,
        starts: int = 4,
        seed: int = 0,
    ) -> Any:
        r"""An image without white noise, and with its missing pixels filled, in the units of the source.

        A mixture of normal distributions, such as a :class:`~ppl_vae.GMM` of :class:`~ppl_vae.Patches`, is the prior of every
        patch of an image of any size: the expected patch log likelihood is climbed (EPLL, Zoran and Weiss 2011),

        .. math:: \min_x \sum_i \frac{|P_i (x - y)|^2}{2 \sigma^2} - \log p(P_i x).

        A lattice gives each pixel its more probable state, under the noise that it is declared with. Others decode the most
        probable code, :math:`\arg\max_z \log p(z) + \log \mathcal{N}(y \mid E[x \mid z], \sigma^2)`, of an image of the size
        that they were fitted to.

        Args:
            image: ``(H, W)``, with channels ``(C, H, W)`` or ``(H, W, C)``.
            sigma: standard deviation of the noise in the units of the image, which are those of the source: of 255 for images
                of 8 bits. Without it, it is estimated from the image; but with a mask the known pixels are then taken as they
                are. Of a lattice the noise is declared, and none is given.
            mask: ``(H, W)``, true or not 0 where a pixel is missing.
            channels: ``joint``, by a model of patches with as many channels as the image; or ``each`` channel by itself, by a
                model of gray patches.
            betas: of EPLL, sigma^2 over the variance that is left between patches and image, in turn.
            steps: of the search for a code, at most.
            starts: of it: the code that the encoder gives, and draws of the prior.
            seed: of these.

        Returns:
            The image as it came, a tensor or an array of float64.

        Raises:
            ValueError: an image that the fit was not built for, pixels that are missing outside the mask, a sigma that is not
                positive, a model that has no way to do it.

        Examples:
            ``fit = pv.fit(pv.GMM(components=200), "photos", method=pv.EM())`` of ``photos`` declared with
            ``patches=pv.Patches(remove_mean=True)``, then ``fit.denoise(noisy, 25.0)``
        """
        y, restore = _channels_first(image)
        _check(y, sigma, mask, channels)
        missing = torch.zeros(y.shape[1:], dtype=torch.bool) if mask is None else _mask(mask, y)
        y = y.masked_fill(missing, torch.nan).to(self.device)
        steps, starts = whole("steps", steps), whole("starts", starts)
        ways: tuple[tuple[Any, Callable[[], Tensor]], ...] = (
            (self.pair.can.mix, lambda: self._by_patches(y, sigma, channels, betas)),
            (self.pair.can.restore, lambda: self._by_states(y, sigma)),
            (self.pair.can.generate, lambda: self._by_code(y, sigma, steps, starts)),
        )
        way = next((way for ability, way in ways if ability is not None), None)
        if way is None:
            raise ValueError(f"expected {NEEDED} to denoise by, got {self.model}")
        with evaluating(self.pair), seeded(seed, self.device):
            return restore(way())

    def patch_prior(self) -> PatchPrior:
        """What the fit says of patches of images, in the units of the source.

        Raises:
            ValueError: p(x) is no mixture of normal distributions, or data are neither patches nor images.
        """
        if self.pair.can.mix is None:
            raise ValueError(f"expected a mixture of normal distributions (GMM, FactorAnalysis, PPCA), got {self.model}")
        patches, event = self.data.patches, self.spec.event_shape
        if patches is not None:
            channels = patches.channels(event)
            basis, shape = patches.basis(channels), (channels, patches.size, patches.size)
        else:
            shape = self._image_shape()
            basis = torch.eye(math.prod(event), dtype=torch.float64)
        weights, locs, spread = self.pair.can.mix.normal_components()
        loc, scale = (value.double().expand(event).flatten() for value in self.transform.constants)
        scaled = Parameters(weights, loc + scale * locs - 0.5 * self.dequantized, spread * torch.outer(scale, scale))
        return PatchPrior(spectra(scaled, covariance("full")), basis.to(locs), shape)

    def _by_patches(self, y: Tensor, sigma: float | None, channels: Channels, betas: Sequence[float]) -> Tensor:
        prior = self.patch_prior()
        images = list(y[:, None]) if channels == "each" else [y]
        _check_fits(images[0], prior)
        if not betas or not all(0 < beta < math.inf for beta in betas):
            raise ValueError(f"expected positive betas, got {tuple(betas)}: leave them out")
        found = []
        for image in images:
            gaps = bool(image.isnan().any())
            variance = 0.0 if gaps and sigma is None else _level(image, sigma) ** 2
            found.append(half_quadratic(prior, image, variance, schedule(prior, variance, betas, gaps=gaps)))
        return torch.cat(found)

    def _by_states(self, y: Tensor, sigma: float | None) -> Tensor:
        if sigma is not None:
            raise ValueError(f"expected no sigma, since {self.model} declares its noise, got {sigma}: leave it out")
        entrance = self._entrance.incomplete()
        split = entrance.rows(y.reshape(1, *self._whole(y)))
        assert self.pair.can.restore is not None
        q = self._encoder.posterior((split.transformed(),))
        return self._leaving_noise(self.pair.can.restore.restored(q)).reshape(y.shape)

    def _by_code(self, y: Tensor, sigma: float | None, steps: int, starts: int) -> Tensor:
        if steps < 1 or starts < 1:
            raise ValueError(f"expected at least 1 of steps and of starts, got {steps} and {starts}")
        event = self._whole(y)
        loc, scale = (value.double().expand(event) for value in self.transform.constants)
        known = ~y.isnan()
        exact = sigma is None and not bool(known.all())
        noise = _texture(y, float(scale.mean()) / 10) if exact else _level(y, sigma)
        dtype = self.transform.loc.dtype
        seen, guess = (((x.reshape(event) + 0.5 * self.dequantized - loc) / scale).to(dtype) for x in (y, filled(y)))
        guess = guess.clamp(*self.spec.limits)
        guess = guess.round() if self.spec.kind.discrete else guess
        scales = (noise / scale).to(dtype)
        found = denoised_by_code(self.pair, seen[None], scales, guess[None], steps=steps, starts=starts)
        image = self._leaving_noise(found).reshape(y.shape)
        return torch.where(known, y, image.to(y)) if exact else image

    def _leaving_noise(self, x: Tensor) -> Tensor:
        """Means as the model sees them in the units of the source."""
        return in_source_units(x.double(), self.transform.rescaling(), self.spec, means=True, dequantized=self.dequantized)

    def _whole(self, y: Tensor) -> tuple[int, ...]:
        """The shape of a datum, which the image is one of."""
        if tuple(y.shape) != self._image_shape():
            raise ValueError(
                f"expected an image of the shape that was fitted, {self.spec.event_shape}, got {tuple(y.shape)}: crop it, or "
                "denoise by a GMM of patches, which takes any size"
            )
        return self.spec.event_shape

    def _image_shape(self) -> tuple[int, int, int]:
        """Of a datum, with its channels."""
        shape = self.spec.event_shape
        if len(shape) not in (2, 3) or self.data.patches is not None:
            raise ValueError(f"expected a fit of images, or a GMM of patches of images, got one of data of shape {shape}")
        height, width = shape[-2:]
        return (shape[0] if len(shape) == 3 else 1, height, width)


def _level(y: Tensor, sigma: float | None) -> float:
    """The noise that is told, else that which is found."""
    found = noise_level(y) if sigma is None else float(sigma)
    if not found > 0:
        raise ValueError("expected noise in the image, got none by its estimate: give sigma, or nothing is to be done")
    return found


def _texture(y: Tensor, otherwise: float) -> float:
    """How far an image without noise may lie from what a decoder can draw: as far as its finest structure."""
    try:
        return noise_level(y) or otherwise
    except ValueError:
        return otherwise


def _channels_first(image: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """An image as ``(C, H, W)`` in float64, and what puts such a one back into the form in which it came."""
    values = as_array(image, "an image")
    if values.ndim not in (2, 3) or values.dtype.kind not in "biuf" or not values.size:
        raise ValueError(
            f"expected an image (H, W), (C, H, W) or (H, W, C) of numbers, got {values.dtype} of shape {values.shape}"
        )
    last = values.ndim == 3 and values.shape[0] not in (1, 3) and values.shape[2] in (1, 3)
    if values.ndim == 3 and not last and values.shape[0] not in (1, 3):
        raise ValueError(f"expected an image of 1 or 3 channels, got one of shape {values.shape}: leave out the others")
    first = torch.from_numpy(np.array(values, dtype=np.float64))
    first = first[None] if first.dim() == 2 else first.movedim(2, 0) if last else first

    def back(found: Tensor) -> Any:
        found = found[0] if values.ndim == 2 else found.movedim(0, 2) if last else found
        return found.to(image.device) if isinstance(image, Tensor) else found.cpu().numpy()

    return first.contiguous(), back


def _mask(mask: Any, y: Tensor) -> Tensor:
    values = as_array(mask, "a mask")
    if values.shape != tuple(y.shape[1:]):
        raise ValueError(f"expected a mask of the image's shape {tuple(y.shape[1:])}, got {values.shape}")
    return torch.from_numpy(np.array(values != 0))


def _check(y: Tensor, sigma: float | None, mask: Any, channels: Channels) -> None:
    """Raise ``ValueError`` if an image, a sigma or a choice is none."""
    if channels not in get_args(Channels):
        raise ValueError(f"expected channels of {', '.join(get_args(Channels))}, got {channels!r}")
    if sigma is not None and not (isinstance(sigma, (int, float)) and 0 < sigma < math.inf):
        raise ValueError(f"expected a positive sigma, the standard deviation of the noise, got {sigma!r}")
    bad = ~y.isfinite()
    bad = bad if mask is None else bad & ~_mask(mask, y)
    if bool(bad.any()):
        raise ValueError(
            f"expected finite pixels, got {int(bad.sum())} that are NaN or infinite: say by mask which are missing"
        )


def _check_fits(image: Tensor, prior: PatchPrior) -> None:
    """Raise ``ValueError`` if no patch of the prior lies in an image ``(C, H, W)``."""
    channels, height, width = prior.shape
    if len(image) != channels:
        remedy = (
            "denoise each channel by itself (channels='each')" if channels == 1 else "give an image in colour, or fit gray ones"
        )
        raise ValueError(f"expected an image of {channels} channel(s), as the patches have, got {len(image)}: {remedy}")
    if image.shape[1] < height or image.shape[2] < width:
        raise ValueError(f"expected an image of at least {height} x {width} pixels, a patch, got {tuple(image.shape[1:])}")
