"""Images whose factors of variation are known: small sprites in black and white, one for each combination of five factors.

After dSprites (Matthey et al. 2017, "dSprites: disentanglement testing sprites dataset"), drawn anew at 32 x 32. Orientations
stay below a quarter turn, after which a square is what it was, so that no two images are alike: each tells all of its factors.
"""

from __future__ import annotations

import itertools

import numpy as np

from ppl_vae.data.raw import Raw

__all__ = ["FACTORS", "SIDE", "read_sprites"]

SIDE = 32
"""Pixels of a side."""

FACTORS = {"shape": 3, "scale": 4, "orientation": 5, "position_x": 8, "position_y": 8}
"""The factors and how many values each has; the last one changes first from row to row."""

SHAPES = ("square", "ellipse", "heart")
SCALES = np.linspace(0.26, 0.4, FACTORS["scale"])  # of half the image's side
TURNS = np.arange(FACTORS["orientation"]) * (np.pi / 2 / FACTORS["orientation"])
PLACES = np.linspace(-0.45, 0.45, FACTORS["position_x"])  # of the middle, where the edges are at -1 and 1


def read_sprites(fields: tuple[str, ...] = ()) -> Raw:
    """All 3840 sprites ``(N, 32, 32)``, their shape as the class.

    Args:
        fields: names of factors that stand beside x as whole numbers, each from 0.

    Raises:
        ValueError: an unknown factor.

    Examples:
        >>> raw = read_sprites(("scale",))
        >>> raw.x.shape, raw.classes, int(raw.fields["scale"].max())
        ((3840, 32, 32), ('square', 'ellipse', 'heart'), 3)
    """
    if unknown := [name for name in fields if name not in FACTORS]:
        raise ValueError(f"expected fields among {', '.join(FACTORS)}, got {', '.join(unknown)}")
    numbers = np.indices(tuple(FACTORS.values())).reshape(len(FACTORS), -1)
    factors = dict(zip(FACTORS, numbers, strict=True))
    kinds = itertools.product(SHAPES, SCALES, TURNS)
    x = np.concatenate([_placed(shape, scale, turn) for shape, scale, turn in kinds])
    return Raw(x, factors["shape"], SHAPES, fields={name: factors[name] for name in fields})


def _placed(shape: str, scale: float, turn: float) -> np.ndarray:
    """A shape at all places, ``(64, 32, 32)``: across changes first but for down."""
    ticks = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    across = ticks[None, None, None, :] - PLACES[:, None, None, None]
    down = ticks[None, None, :, None] - PLACES[None, :, None, None]
    u = (np.cos(turn) * across + np.sin(turn) * down) / scale
    v = (np.sin(turn) * across - np.cos(turn) * down) / scale  # upwards
    return _inside(shape, u, v).astype(np.uint8).reshape(-1, SIDE, SIDE)


def _inside(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Which points of the plane a shape about the middle of it has."""
    if shape == "square":
        return np.maximum(abs(u), abs(v)) <= 0.8
    if shape == "ellipse":
        return u**2 + (v / 0.6) ** 2 <= 1
    return (u**2 + v**2 - 0.8) ** 3 <= u**2 * v**3
