"""All that a page holds: how a code is made up, data and their codes, and what decodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppl_vae.data import Split
from ppl_vae.evaluate.paths import path_between
from ppl_vae.explore.blob import Blob
from ppl_vae.explore.blocks import Layout, codes_of, layout_of
from ppl_vae.explore.decoding import decoded, graph_of
from ppl_vae.explore.dimensions import PROBABILITIES, Dimensions, dimensions_of
from ppl_vae.explore.events import as_sent, data_of, event_of, packed, tolerance_of
from ppl_vae.explore.parts import components_of, loadings_of
from ppl_vae.fitting import Fit

__all__ = ["Explored", "content_of", "explored"]

MOST_CONSTANTS = 3_200_000  # bytes of the decoder's
MOST_DATA = 1_600_000  # bytes of data and their codes
CHECKED = 8  # codes on which the script checks itself
STOPS = 9  # decodings of a slider, and along each side of the plane, where the page cannot decode
RECONSTRUCTED = 200


@dataclass(frozen=True, kw_only=True)
class Explored:
    """A fit with some of its data.

    Args:
        fit: the fit.
        layout: of its codes.
        rows: data, under the transform.
        places: of these in the split that they came from.
        codes: of them ``(N, size)``.
        dimensions: the free numbers of codes.
        centre: the code in the middle of the prior ``(size,)``.
    """

    fit: Fit
    layout: Layout
    rows: Split
    places: tuple[int, ...]
    codes: Tensor
    dimensions: Dimensions
    centre: Tensor

    def decode(self, codes: Tensor, kept: Tensor | None = None) -> Any:
        """The data of codes ``(B, size)``, of several levels each as it is where ``kept (B, levels)`` is 1."""
        kept = torch.ones(len(codes), max(1, len(self.layout.levels))) if kept is None else kept
        return decoded(self.fit, self.layout, codes, kept)


def explored(fit: Fit, split: Split, *, most: int) -> Explored:
    """A fit with at most so many rows of a split, fewer where they are large, in the order of the split.

    Raises:
        ValueError: no rows, or a model whose data have no codes that could be moved.
    """
    if not len(split):
        raise ValueError("expected at least 1 datum to show, got none: name a split that has rows")
    layout = layout_of(fit, split)
    elements = 64 if fit.spec.ragged else split.elements
    size = (1 if len(fit.spec.event_shape) > 1 else 4) * elements + 4 * layout.size
    count = min(most, len(split), max(24, MOST_DATA // size))
    places = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:count].sort().values
    rows = split[places].fixed(torch.Generator().manual_seed(0))
    codes = codes_of(fit, rows, layout)
    dimensions = dimensions_of(fit, layout, rows, codes)
    return Explored(
        fit=fit,
        layout=layout,
        rows=rows,
        places=tuple(places.tolist()),
        codes=codes,
        dimensions=dimensions,
        centre=_centre(layout, dimensions, codes),
    )


def _centre(layout: Layout, dimensions: Dimensions, codes: Tensor) -> Tensor:
    """Medians of the prior, the first of several values or the commonest among the data's, the first datum's condition."""
    centre = codes[0].clone()
    conditions = [start for block, start in zip(layout.blocks, layout.starts, strict=True) if not block.latent]
    for _, start, count, _ in layout.choices:
        place = 0 if start in conditions else int(codes[:, start : start + count].mean(0).argmax())
        centre[start : start + count] = torch.eye(count)[place]
    middle = dimensions.quantiles[:, dimensions.quantiles.shape[1] // 2]
    centre[list(dimensions.places)] = middle.to(centre)
    return centre


def content_of(found: Explored, blob: Blob, *, live: bool) -> dict[str, Any]:
    """What the script of the page reads, its arrays kept in the blob.

    Args:
        found: what is shown.
        blob: to which arrays are added.
        live: whether a server decodes.
    """
    fit, layout, dimensions = found.fit, found.layout, found.dimensions
    x = data_of(fit, found.rows)
    event = event_of(fit, x)
    weights, components = components_of(fit, layout, found.centre)
    loadings = loadings_of(fit, layout, dimensions, found.centre)
    labels = found.rows.y
    return {
        "event": event,
        "size": layout.size,
        "levels": list(layout.levels),
        "compared": [
            start + place
            for block, start in zip(layout.blocks, layout.starts, strict=True)
            if block.kind != "given"
            for place in range(block.size)
        ],
        "choices": [
            {"name": name, "start": start, "size": count, "names": list(names)} for name, start, count, names in layout.choices
        ],
        "dims": [
            {"place": place, "name": name, "kl": kl, "active": active}
            for place, name, kl, active in zip(
                dimensions.places, dimensions.names, dimensions.kl, dimensions.active, strict=True
            )
        ],
        "quantiles": blob.add(dimensions.quantiles, "float32"),
        "source": dimensions.source,
        "centre": blob.add(found.centre, "float32"),
        "data": {
            "rows": list(found.places),
            "x": packed(event, x, blob),
            "codes": blob.add(found.codes, "float32"),
            "labels": None if labels is None else blob.add(labels, "int16"),
            "classes": list(found.rows.classes or fit.spec.classes),
        },
        "decoder": {"kind": "live"} if live else _decoder(found, event, blob),
        "components": {"weights": weights, "codes": blob.add(components, "float32")} if weights else None,
        "loadings": None if loadings is None else blob.add(loadings, "float32"),
    }


def _decoder(found: Explored, event: dict[str, Any], blob: Blob) -> dict[str, Any]:
    """The decoder as a graph, or decodings of many codes where there is none."""
    codes = torch.cat([found.codes[: CHECKED - 1], found.centre[None]])
    try:
        tolerance = tolerance_of(event) if "low" in event else torch.zeros(1)
        graph = graph_of(found.fit, found.layout, codes, most_bytes=MOST_CONSTANTS, tolerance=tolerance)
    except ValueError as error:
        return _nearest(found, event, blob, str(error))
    kind = "float16" if graph.half else "float32"
    return {
        "kind": "graph",
        "steps": graph.steps,
        "constants": [blob.add(constant, kind) for constant in graph.constants],
        "check": {"codes": blob.add(codes, "float32"), "x": blob.add(found.decode(codes).flatten(1), "float32")},
    }


def _nearest(found: Explored, event: dict[str, Any], blob: Blob, why: str) -> dict[str, Any]:
    """Decodings of codes that the controls of the page lead to, and why no others can be had."""
    codes = torch.cat(list(_stops(found)))
    x = as_sent(found.fit, found.decode(codes))
    return {"kind": "nearest", "codes": blob.add(codes, "float32"), "x": packed(event, x, blob), "why": why}


def _stops(found: Explored) -> Iterator[Tensor]:
    """The centre, each slider's stops, the plane of the first two dimensions, data, each choice, ways between data."""
    centre, dimensions = found.centre, found.dimensions
    yield centre[None]
    width = PROBABILITIES // STOPS
    stops = width * torch.arange(STOPS) + width // 2  # the middles of cells of equal probability
    for place, quantiles in zip(dimensions.places[:16], dimensions.quantiles, strict=False):
        moved = centre.repeat(STOPS, 1)
        moved[:, place] = quantiles[stops].to(centre)
        yield moved
    if len(dimensions.places) > 1:
        first, second = dimensions.quantiles[:2, stops].to(centre)
        plane = centre.repeat(STOPS * STOPS, 1)
        plane[:, dimensions.places[0]], plane[:, dimensions.places[1]] = first.repeat(STOPS), second.repeat_interleave(STOPS)
        yield plane
    yield found.codes[:RECONSTRUCTED]
    if len(found.codes) > 1:
        yield path_between(found.codes[0], found.codes[1], 7)
    for _, start, count, _ in found.layout.choices:
        moved = centre.repeat(count, 1)
        moved[:, start : start + count] = torch.eye(count)
        yield moved
