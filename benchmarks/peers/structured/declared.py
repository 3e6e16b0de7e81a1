"""Ours: model, guide and data of each case, as a user declares them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ppl_vae as pv

__all__ = ["DECLARED", "LOADED"]


def text(size: Any) -> tuple[Any, Any]:
    """A text VAE (Bowman et al. 2016)."""
    model = pv.VAE(latent_dim=size.latent, decoder=pv.LSTM(hidden=size.hidden), likelihood=pv.Tokens(levels=size.data))
    return model, pv.AmortizedNormal(encoder=pv.LSTM(hidden=size.hidden))


def sketch(size: Any) -> tuple[Any, Any]:
    """Sketch-RNN (Ha and Eck 2018)."""
    strokes = pv.Strokes(components=size.components)
    model = pv.VAE(latent_dim=size.latent, decoder=pv.LSTM(hidden=size.hidden), likelihood=strokes)
    return model, pv.AmortizedNormal(encoder=pv.LSTM(hidden=size.hidden // 2, bidirectional=True))


def hvae(size: Any) -> tuple[Any, Any]:
    """A ladder of three groups (Sonderby et al. 2016)."""
    widths = (size.hidden // 2, size.hidden // 2, size.hidden)
    groups = tuple(
        pv.Group(latent_dim=latent, features=128, network=pv.MLP(hidden=(width,), activation="leaky_relu"))
        for latent, width in zip((size.latent // 4, size.latent // 2, size.latent), widths, strict=True)
    )
    return pv.HierarchicalVAE(groups=groups, likelihood=pv.Bernoulli()), pv.TopDown()


def unet(size: Any) -> tuple[Any, Any]:
    """A diffusion of binary images, its denoiser a U-Net (Kingma et al. 2021)."""
    return pv.Diffusion(denoiser=pv.UNet(), likelihood=pv.Bernoulli()), pv.Noising()


def vq(size: Any) -> tuple[Any, Any]:
    """A VQ-VAE of uniform codes (van den Oord et al. 2017)."""
    codebook = pv.Codebook(size=size.components, dim=size.latent, grid=(size.side // 4, size.side // 4), start="uniform")
    network = pv.Conv(channels=(32, 64), blocks=1, spatial=True)
    return pv.VQVAE(codebook=codebook, decoder=network), pv.NearestCode(encoder=network)


def token_rows(size: Any, x: Any) -> pv.Data:
    """Rows of different lengths and their vocabulary."""
    buckets = (size.longest,) if size.longest_only else ()
    rows = pv.Ragged.from_list(x, vocabulary=[f"w{place}" for place in range(size.data)], buckets=buckets)
    return pv.load_data(rows, kind="categorical", valid=0.0, test=0.0)


def drawings(size: Any, x: Any) -> pv.Data:
    """Drawings of different lengths, not scaled."""
    return pv.load_data(pv.Ragged.from_list(x), kind="strokes", scale="none", valid=0.0, test=0.0)


def images(size: Any, x: Any) -> pv.Data:
    """Flat rows."""
    return pv.load_data(x, scale="none", valid=0.0, test=0.0)


def squares(size: Any, x: Any) -> pv.Data:
    """Images of one channel."""
    return pv.load_data(x.reshape(-1, 1, size.side, size.side), scale="none", valid=0.0, test=0.0)


DECLARED: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "text": text,
    "sketch": sketch,
    "hvae": hvae,
    "unet": unet,
    "vq": vq,
}
LOADED: dict[str, Callable[[Any, Any], pv.Data]] = {
    "text": token_rows,
    "sketch": drawings,
    "hvae": images,
    "unet": squares,
    "vq": squares,
}
