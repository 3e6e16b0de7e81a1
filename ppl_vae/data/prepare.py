"""From raw arrays to :class:`Data`: split the rows, scale them, and find out in which set the values lie."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppl_vae.data.arrays import as_tensor
from ppl_vae.data.buckets import MOST_BUCKETS, bucket_lengths
from ppl_vae.data.dataset import Data, binarized
from ppl_vae.data.field_entries import beside
from ppl_vae.data.fields import NO_FIELDS, Fields, described, standardized
from ppl_vae.data.labels import as_labels
from ppl_vae.data.missing import spellings
from ppl_vae.data.parts import pieces, refuse_longer, rows_of_parts
from ppl_vae.data.pens import COLUMNS, ended
from ppl_vae.data.ragged import Ragged
from ppl_vae.data.raw import Raw
from ppl_vae.data.scaling import Scaled, drawings, scaled
from ppl_vae.data.seeds import seeded_generator
from ppl_vae.data.source import DataSource
from ppl_vae.data.sparse import Sparse
from ppl_vae.data.split import Split
from ppl_vae.data.stream import Stream
from ppl_vae.data.transform import Transform
from ppl_vae.data.vocabulary import chosen_vocabulary
from ppl_vae.data.weights import as_weights, check_parts
from ppl_vae.types import CATEGORICAL, STROKES, Column, DataSpec, Kind

__all__ = ["prepare"]


class Table(NamedTuple):
    """Rows of train, valid and test, each ``(N, *event)``, their labels, the names of the classes, what stands beside x.

    And how often each row counts, and of which image it was cut.
    """

    parts: list[Tensor | Stream | Sparse | Ragged]
    labels: list[Tensor | None]
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    fields: list[Fields]
    described: tuple[Column, ...]
    weights: list[Tensor | None]
    groups: list[Tensor | None]


def prepare(source: DataSource, raw: Raw, *, exact: bool = False) -> Data:
    """Split, scale and describe raw arrays as declared; ``exact`` with all digits, whatever they are good for.

    Raises:
        ValueError: values that the declaration does not fit, or too few rows for its splits.
    """
    source = source if raw.tokens is None else dataclasses.replace(source, tokens=raw.tokens)
    raw = _ended(source, raw) if (drawn := _drawn(source, raw)) else raw
    if source.drop_points and not drawn:
        raise ValueError(
            f"{source.source}: expected drawings for drop_points={source.drop_points:g}, got other data: leave it out"
        )
    table = _table(source, raw)
    exact = exact or any(column.dtype == "datetime" for column in raw.table)  # float32 has no minutes of this century
    view = drawings(source, table.parts) if drawn else scaled(source, table.parts, raw.levels or 256, exact=exact)
    first = view.parts[0]
    vocabulary = first.vocabulary if isinstance(first, Ragged) else ()
    kind = CATEGORICAL if vocabulary else _kind(source, view.kind)
    levels = int(view.found.high.max()) + 1 if kind.levelled else None
    if isinstance(first, Ragged) and kind.levelled:
        _check_plain(source)
        view = view._replace(transform=Transform(view.transform.event_shape, indices=True))
        levels = len(vocabulary) or levels
    told = raw.fields is not None or isinstance(raw.x, Ragged)
    spec = DataSpec(
        event_shape=view.transform.event_shape,
        kind=kind,
        size=len(view.parts[0]),
        weight=None if table.weights[0] is None else float(table.weights[0].sum()),
        classes=table.classes,
        columns=table.columns,
        table=table.described,
        levels=levels,
        missing=view.found.missing,
        fields=described(raw.name, view.transform.event_shape, view.parts[0], table.fields[0], levels) if told else (),
    )
    train, valid, test = _splits(source, view, table, white=(raw.levels or 256) - 1 if view.found.two_valued else 1)
    scalars = len(raw.x.shape) == 1 and not isinstance(raw.x, Ragged)
    data = Data(source=source, spec=spec, train=train, valid=valid, test=test, scalars=scalars)
    return data if source.binarize == "auto" else binarized(data, source.binarize)


def _drawn(source: DataSource, raw: Raw) -> bool:
    """Whether the data are drawings: as declared, or by the names of what their points hold."""
    return source.kind == STROKES or (source.kind is None and raw.columns == COLUMNS and isinstance(raw.x, Ragged))


def _ended(source: DataSource, raw: Raw) -> Raw:
    """Drawings whose last points say that they are the last."""
    if source.scale == "unit" or source.dequantize or source.binarize in ("static", "dynamic"):
        raise ValueError(
            f"{source.source}: expected drawings with scale auto, none or standardize, got unit, dequantize or binarize: leave "
            "these out"
        )
    halves = [None if part is None else ended(part, source.source) for part in (raw.valid_x, raw.test_x)]
    return raw._replace(x=ended(raw.x, source.source), valid_x=halves[0], test_x=halves[1], columns=COLUMNS)


def _check_plain(source: DataSource) -> None:
    """Raise ``ValueError`` if tokens are to be scaled, or noise is to be added to them."""
    if source.scale not in ("auto", "none") or source.dequantize or source.binarize in ("static", "dynamic"):
        raise ValueError(f"{source.source}: expected tokens as they are, got scale, dequantize or binarize: leave these out")


def _table(source: DataSource, raw: Raw) -> Table:
    x = as_tensor(raw.x, source.source, missing=source.missing == "ignore") if isinstance(raw.x, np.ndarray) else raw.x
    if isinstance(x, Ragged):
        x = _bucketed(source, x, raw)
    spelled = spellings(source.missing_text)
    y, classes = (None, ()) if raw.y is None else as_labels(raw.y, len(x), source.source, raw.classes, spelled=spelled)
    fields = NO_FIELDS if raw.fields is None else beside(x, raw.fields, len(x), missing=source.missing == "ignore")
    if isinstance(x, Stream) and fields.ragged():
        raise ValueError(f"{source.source}: expected no rows of different lengths beside streamed ones: load x without stream")
    own = {"has_test": raw.test_x is not None, "has_valid": raw.valid_x is not None}
    indices = rows_of_parts(source, len(x), **own, images=raw.images)
    weights = _weights(source, raw, len(x), indices)
    parts: list[Tensor | Stream | Sparse | Ragged] = [x[index] for index in indices]
    labels: list[Tensor | None] = [None if y is None else y[index] for index in indices]
    if raw.valid_x is not None and isinstance(x, Ragged):
        parts[1], labels[1] = raw.valid_x.bucketed(x.buckets), None
    if isinstance(raw.test_x, Ragged) and isinstance(x, Ragged):
        parts[2] = raw.test_x.bucketed(x.buckets)
    elif isinstance(raw.test_x, np.ndarray):
        parts[2] = as_tensor(raw.test_x, source.source, missing=source.missing == "ignore")
    if raw.test_x is not None:
        labels[2] = None if raw.test_y is None else as_labels(raw.test_y, len(parts[2]), source.source, classes)[0]
    parts = [part.compact() if isinstance(part, Ragged | Sparse) else part for part in parts]
    if source.longest is not None:
        given, drawn = [part for part in (raw.valid_x, raw.test_x) if part is not None], _drawn(source, raw)
        refuse_longer(source, x, given, splits=not drawn and not fields.columns)
        if source.longer == "split":
            parts, labels, weights = pieces(source, parts, labels, weights, beside=bool(fields.columns), drawn=drawn)
    beside_parts = standardized([fields[index].compact() for index in indices], source.standardize)
    groups = [None if raw.images is None else torch.from_numpy(raw.images)[index] for index in indices]
    return Table(_known_tokens(source, parts), labels, classes, raw.columns, beside_parts, raw.table, weights, groups)


def _weights(source: DataSource, raw: Raw, rows: int, indices: list[Tensor]) -> list[Tensor | None]:
    """Those of train, valid and test."""
    if raw.weights is None:
        return [None, None, None]
    if raw.test_x is not None or raw.valid_x is not None:
        raise ValueError(
            f"{source.source}: expected no weights for a source with splits of its own, got some: give all rows as one array"
        )
    found = as_weights(raw.weights, rows, source.source, spelled=spellings(source.missing_text))
    parts: list[Tensor | None] = [found[index] for index in indices]
    check_parts(parts, source.source)
    return parts


def _bucketed(source: DataSource, x: Ragged, raw: Raw) -> Ragged:
    """Rows that are padded to as many lengths as declared, chosen for all rows of the source."""
    others = [part for part in (raw.valid_x, raw.test_x) if isinstance(part, Ragged)]
    if source.buckets is None and not others:
        return x
    lengths = np.concatenate([part.lengths.cpu().numpy() for part in (x, *others)])
    return x.bucketed(bucket_lengths(lengths, source.buckets or MOST_BUCKETS))


def _known_tokens(
    source: DataSource, parts: list[Tensor | Stream | Sparse | Ragged]
) -> list[Tensor | Stream | Sparse | Ragged]:
    """The parts, their tokens numbered as the vocabulary of the training rows has them."""
    ragged = [part for part in parts if isinstance(part, Ragged)]
    if not ragged or not ragged[0].tokens or source.tokenizer is None:
        return parts
    train, *others = (part.counts() for part in ragged)
    tokens, least = ragged[0].tokens, source.tokenizer.minimum_count
    if source.tokenizer.complete:  # all tokens that there are, whatever the rows have
        return parts
    vocabulary = chosen_vocabulary(tokens, train.numpy(), torch.stack(others).sum(0).numpy(), source.vocabulary, least=least)
    return [part.under(vocabulary) for part in ragged]


def _kind(source: DataSource, found: Kind) -> Kind:
    """The declared kind, where the values have it; else what was found."""
    drawn = source.kind == "binary" and source.binarize in ("static", "dynamic")
    if source.kind is None or drawn:
        return found
    declared = Kind.of(source.kind)
    if not declared.includes(found):
        raise ValueError(f"{source.source}: expected {declared} data, got {found} data: {declared.remedy}")
    return declared


def _splits(source: DataSource, view: Scaled, table: Table, *, white: int) -> list[Split]:
    """The splits of the parts; held-out rows that fit are held in memory."""
    parts = [view.parts[0], *map(_gathered, view.parts[1:])]
    white = white if view.kind == "binary" else 1
    train, *held_out = (
        Split(
            x,
            y,
            view.transform,
            classes=table.classes,
            columns=table.columns,
            table=table.described,
            fields=fields,
            white=white,
            weights=weights,
            tokenizer=source.tokenizer,
            groups=groups,
        )
        for x, y, fields, weights, groups in zip(parts, table.labels, table.fields, table.weights, table.groups, strict=True)
    )
    train = train.fixed(seeded_generator(source.seed, 1)) if source.dequantize == "static" else train
    train.drop_points = source.drop_points
    return [train, *(split.fixed(seeded_generator(source.seed, stream)) for stream, split in enumerate(held_out, start=2))]


def _gathered(part: Tensor | Stream | Sparse | Ragged) -> Tensor | Stream | Sparse | Ragged:
    return part.tensor() if isinstance(part, Stream) and part.fits() else part
