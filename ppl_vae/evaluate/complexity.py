"""How many nats a compressor needs for a datum: a density that no model was fitted for."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

__all__ = ["compressed_nats"]

BYTE = 8 * math.log(2)
WINDOW = -15  # deflate alone, without zlib's header and checksum


def compressed_nats(x: Tensor, *, binary: bool = False) -> Tensor:
    """The length of each datum as DEFLATE leaves it, the shortest of what PNG's first filters make of it, in nats.

    PNG takes from each value the one to the left (Sub), the one above (Up) or nothing, and compresses what is left (Boutell
    1997); Serra et al. (2020) take the shortest of several compressors likewise. The length is an upper bound on the complexity
    of the datum, which depends on it alone.

    Args:
        x: whole numbers of 0 to 65535, ``(N, *event)``; the last two axes are lines and columns, where there are two.
        binary: whether they are 0 and another number alone: then eight of them are also tried as one byte.

    Returns:
        ``(N,)`` in float64, on the CPU.

    Raises:
        ValueError: values that are no such numbers.

    Examples:
        >>> stripes = torch.tensor([[0, 255], [0, 255]], dtype=torch.uint8).repeat(1, 8, 8)
        >>> noise = torch.randint(256, (1, 16, 16), generator=torch.Generator().manual_seed(0))
        >>> (compressed_nats(stripes) < 0.1 * compressed_nats(noise)).item()
        True
    """
    values = x.cpu()
    if not _are_levels(values):
        raise ValueError(
            "expected whole numbers of 0 to 65535, such as pixels, to compress, got others: complexity is a score of images "
            "and counts; take another, such as score='regret'"
        )
    if not len(values):
        return torch.zeros(0, dtype=torch.float64)
    wide = float(values.max()) > 255
    rows = values.numpy().astype(">u2" if wide else "u1")
    lengths = [_lengths(rows), *(_lengths(filtered) for filtered in _filtered(rows))]
    if binary:
        lengths.append(_lengths(np.packbits(rows.reshape(len(rows), -1) > 0, axis=1)))
    return torch.from_numpy(BYTE * np.min(lengths, axis=0).astype(np.float64))


def _are_levels(values: Tensor) -> bool:
    whole = not values.is_floating_point() or bool((values == values.round()).all())
    return not len(values) or (whole and 0 <= float(values.min()) <= float(values.max()) < 2**16)


def _filtered(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Differences from the value to the left, and from that above; they wrap around."""
    for axis in range(-1, -min(rows.ndim - 1, 2) - 1, -1):
        yield np.diff(rows, axis=axis, prepend=np.zeros_like(rows.take([0], axis)))


def _lengths(rows: np.ndarray) -> list[int]:
    """Bytes of each row as they are compressed."""
    found = []
    for row in rows:
        deflate = zlib.compressobj(9, zlib.DEFLATED, WINDOW)
        found.append(len(deflate.compress(row.tobytes()) + deflate.flush()))
    return found
