"""How a datum is shown on the page: a picture, bars of columns, a text, a drawing, a series."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ppl_vae.data import Ragged, Split
from ppl_vae.data.vocabulary import untokenized
from ppl_vae.explore.blob import Blob
from ppl_vae.fitting import Fit
from ppl_vae.fitting.inputs import in_source_units
from ppl_vae.plots.canvas import limits_of
from ppl_vae.plots.drawings import lines_of
from ppl_vae.types import REAL, STROKES

__all__ = ["as_sent", "data_of", "event_of", "packed"]

MOST_LETTERS = 4000  # of a text
MOST_POINTS = 2000  # of a drawing or a series


def event_of(fit: Fit, x: Any) -> dict[str, Any]:
    """What the script has to know of a datum, given some of them as :func:`data_of` gives them."""
    spec = fit.spec
    if spec.ragged:
        text = fit.data.tokens is not None and bool(spec.fields[0].vocabulary)
        return {"kind": "text" if text else "drawing" if spec.kind == STROKES else "series"}
    low, high = _limits(fit, x)
    shape = spec.event_shape if len(spec.event_shape) == 3 else (1, *spec.event_shape)
    if len(shape) == 3 and shape[0] in (1, 3):
        return {"kind": "image", "shape": list(shape), "low": [low], "high": [high]}
    flat = x.flatten(1).double()
    columns = spec.columns or tuple(f"x{place}" for place in range(1, flat.shape[1] + 1))
    ends = [[_end(column, place) for column in flat.T] for place in (0, -1)]
    levels = [list(column.categories) if column.categories else None for column in spec.table]
    return {"kind": "table", "columns": list(columns), "low": ends[0], "high": ends[1], "levels": levels}


def data_of(fit: Fit, rows: Split) -> Any:
    """Rows in the units of the source, as the model saw them: ``(N, *event)`` on the CPU, texts, or points of each."""
    if fit.spec.ragged:
        raw = rows.as_read().raw
        assert isinstance(raw, Ragged)
        return sent(fit, [raw[place] for place in range(len(raw))])
    seen = fit.seen(rows)
    return in_source_units(seen, fit.transform, fit.spec, means=False, dequantized=fit.dequantized).cpu()


def sent(fit: Fit, rows: list[Any]) -> list[Any]:
    """Rows of different lengths as JSON holds them: texts, strokes of a drawing, numbers of a series."""
    tokens, vocabulary = fit.data.tokens, fit.spec.fields[0].vocabulary
    if fit.spec.kind == STROKES:
        return [_strokes(row) for row in rows]
    if tokens is not None and vocabulary:
        return [(row if isinstance(row, str) else untokenized(row.tolist(), vocabulary, tokens))[:MOST_LETTERS] for row in rows]
    return [[round(value, 4) for value in row[:MOST_POINTS].double().flatten(1).mean(1).tolist()] for row in rows]


def as_sent(fit: Fit, found: Any) -> Any:
    """Decoded rows as :func:`data_of` gives data."""
    if isinstance(found, Tensor):
        return found
    return sent(fit, [found[place] for place in range(len(found))])


def packed(event: dict[str, Any], x: Any, blob: Blob) -> Any:
    """Data for the page: of pictures levels of 0 to 255, of tables numbers, of others as they are."""
    if not isinstance(x, Tensor):
        return x
    if event["kind"] != "image":
        return blob.add(x.flatten(1), "float32")
    (low,), (high,) = event["low"], event["high"]
    return blob.add(((x.double() - low) / (high - low) * 255).round().clamp(0, 255).flatten(1), "uint8")


def _limits(fit: Fit, x: Tensor) -> tuple[float, float]:
    """Black and white of pictures."""
    if not fit.spec.kind.bounded:
        return limits_of(x.double().flatten(1), REAL)
    ends = torch.stack([torch.full(fit.spec.event_shape, end).to(fit.transform.loc) for end in (0.0, 1.0)])
    found = in_source_units(ends, fit.transform, fit.spec, means=False, dequantized=fit.dequantized)
    return float(found.min()), float(found.max())


def _end(column: Tensor, place: int) -> float:
    """The least or the largest of the finite values of a column."""
    finite = column[column.isfinite()].sort().values
    return float(finite[place]) if len(finite) else 0.0


def _strokes(row: Any) -> list[list[list[float]]]:
    """Lines of a drawing as places of the pen."""
    return [[[round(float(x), 2), round(float(y), 2)] for x, y in line] for line, _ in lines_of(row[:MOST_POINTS])]


def tolerance_of(event: dict[str, Any]) -> Tensor:
    """Half a step of what is shown of each number, ``(1,)`` for pictures or ``(D,)``: 1/510 of its range, if it has one."""
    spans = torch.tensor(event["high"], dtype=torch.float64) - torch.tensor(event["low"], dtype=torch.float64)
    return torch.where(spans > 0, spans / 510, math.inf)
