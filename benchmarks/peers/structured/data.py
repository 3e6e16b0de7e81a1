"""Rows of tokens, of a pen's points and of binary pixels, with something to learn; the same for every side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["ROWS"]


def tokens(size: Any) -> list[np.ndarray]:
    """Rows of a vocabulary of ``size.data``, frequent ones as in a language (Zipf 1935)."""
    rng = np.random.default_rng(0)
    rates = 1 / np.arange(1, size.data + 1)
    words = rng.choice(size.data, (size.rows, size.longest), p=rates / rates.sum())
    return _cut(words, size, rng)


def points(size: Any) -> list[np.ndarray]:
    """Drawings as rows (dx, dy, pen), the pen lifted now and then and at its end at the last point."""
    rng = np.random.default_rng(0)
    offsets = rng.standard_normal((size.rows, size.longest, 2)).astype(np.float32)
    pen = (rng.random((size.rows, size.longest, 1)) < 0.1).astype(np.float32)
    drawings = _cut(np.concatenate([offsets, pen], axis=-1), size, rng)
    for drawing in drawings:
        drawing[-1, 2] = 2.0
    return drawings


def pixels(size: Any) -> np.ndarray:
    """Independent binary values with a rate for each pixel."""
    rng = np.random.default_rng(0)
    return (rng.random((size.rows, size.data), dtype=np.float32) < rng.random(size.data)).astype(np.uint8)


def _cut(rows: np.ndarray, size: Any, rng: np.random.Generator) -> list[np.ndarray]:
    """Each to a length between the shortest and the longest, all equally probable; the first has the longest."""
    lengths = rng.integers(size.shortest, size.longest + 1, size.rows)
    lengths[0] = size.longest
    return [row[:length] for row, length in zip(rows, lengths, strict=True)]


ROWS: dict[str, Callable[[Any], Any]] = {"text": tokens, "sketch": points, "hvae": pixels, "unet": pixels, "vq": pixels}
