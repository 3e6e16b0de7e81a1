"""What a reader gives, whatever it read: arrays as they came, and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ppl_vae.data.ragged import Ragged
from ppl_vae.data.sparse import Sparse
from ppl_vae.data.stream import Stream
from ppl_vae.data.tokenizers import Tokens
from ppl_vae.types import Column

__all__ = ["Raw"]


class Raw(NamedTuple):
    """What a reader gives: arrays as they came.

    ``x`` is ``(N, *event)``, a stream of it, sparse rows, or rows of different lengths. ``y`` is ``(N,)`` or ``None``.
    ``levels`` is the number of values an image can take where that is not 256. A source with its own test set gives
    ``test_x``, ``test_y``, one with its own validation set ``valid_x``, and the names of the ``classes`` that labels point
    to. ``columns`` are the names of a table's columns, in the order of the event's elements. ``fields`` are what came beside
    x, by name, and ``name`` is x's own among them. ``table`` tells what the columns hold, and ``weights`` how often each row
    of ``x`` counts, ``(N,)``, where they do not count alike. ``tokens`` is how text was cut, as the source declares it and with
    what was learned. ``images`` are the numbers ``(N,)`` of the images that patches were cut out of.
    """

    x: np.ndarray | Stream | Sparse | Ragged
    y: np.ndarray | None = None
    classes: tuple[str, ...] | None = None
    levels: int | None = None
    test_x: np.ndarray | Ragged | None = None
    test_y: np.ndarray | None = None
    columns: tuple[str, ...] = ()
    fields: Mapping[str, Any] | None = None
    name: str = "x"
    valid_x: Ragged | None = None
    table: tuple[Column, ...] = ()
    weights: np.ndarray | None = None
    tokens: Tokens | None = None
    images: np.ndarray | None = None
