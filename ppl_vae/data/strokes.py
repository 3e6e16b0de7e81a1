"""Drawings as strokes of a pen: rows of (dx, dy, pen), where pen = 1 ends a stroke, and at the last point becomes 2.

The format is that of Ha and Eck 2018, "A neural representation of sketch drawings".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ppl_vae.data.pens import COLUMNS
from ppl_vae.data.ragged import Ragged
from ppl_vae.data.raw import Raw
from ppl_vae.data.source import DataSource
from ppl_vae.text import as_line

__all__ = ["read_drawings", "strokes_of"]


def read_drawings(path: Path, source: DataSource) -> Raw:
    """The drawings of Quick, Draw!: a JSON object a line, whose ``drawing`` is strokes of x and y; labels are ``word``.

    Raises:
        ValueError: a line that is no such drawing, or not all of one kind.
    """
    drawings, words = [], []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
                drawings.append(strokes_of(found["drawing"]))
                words.append(found.get(source.label or "word"))
            except (ValueError, TypeError, KeyError, IndexError) as error:
                told = "expected a drawing, {'word': ..., 'drawing': [[[x, ...], [y, ...]], ...]}, got one that is none"
                raise ValueError(f"{path}, line {number}: {told} ({as_line(error, 120)})") from None
    if not drawings:
        raise ValueError(f"{path}: expected drawings, got none")
    named = all(isinstance(word, str) for word in words)
    return Raw(Ragged.from_list(drawings), np.array(words) if named else None, columns=COLUMNS)


def strokes_of(drawing: Any) -> np.ndarray:
    """A drawing's strokes of absolute x and y as rows ``(points, 3)`` of (dx, dy, pen); the first is counted from (0, 0).

    Examples:
        >>> strokes_of([[[0, 3], [1, 1]], [[5], [5]]]).tolist()
        [[0, 1, 0], [3, 0, 1], [2, 4, 1]]
    """
    parts = []
    for stroke in drawing:
        places = np.array(stroke[:2]).T  # times, if there are any, are left out
        if places.ndim != 2 or places.shape[1] != 2 or not len(places) or places.dtype.kind not in "if":
            raise ValueError(f"a stroke of shape {places.shape}")
        ends = np.zeros((len(places), 1), places.dtype)
        ends[-1] = 1
        parts.append(np.concatenate([places, ends], axis=1))
    points = np.concatenate(parts)
    points[1:, :2] = np.diff(points[:, :2], axis=0)
    return points
