"""Numbers of a page as one compressed text, each array known by its place in it."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["Blob"]


class Blob:
    """Arrays, one after the other.

    Examples:
        >>> from ppl_vae.explore.blob import Blob
        >>> blob = Blob()
        >>> blob.add(torch.zeros(2, 3), "float32")
        {'at': 0, 'shape': [2, 3], 'type': 'float32'}
        >>> blob.add(torch.tensor([1, 255]), "uint8")["at"]
        24
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, values: Tensor, kind: str) -> dict[str, Any]:
        """Keep an array as ``float32``, ``float16``, ``int16`` or ``uint8``; where it lies."""
        data = np.ascontiguousarray(values.detach().cpu().numpy()).astype(np.dtype(kind).newbyteorder("<")).tobytes()
        told = {"at": self._size, "shape": list(values.shape), "type": kind}
        padded = data + b"\0" * (-len(data) % 4)  # where each begins is a multiple of every size
        self._parts.append(padded)
        self._size += len(padded)
        return told

    def text(self) -> str:
        """All of them in base64 of the zlib format, which browsers call deflate."""
        return base64.b64encode(zlib.compress(b"".join(self._parts), 9)).decode()
