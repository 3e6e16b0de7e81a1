"""From raw arrays to :class:`Data`: split the rows, scale them, and find out in which set the values lie."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ppl_vae.data.arrays import Raw, as_tensor
from ppl_vae.data.fields import NO_FIELDS, Fields, beside, described
from ppl_vae.data.labels import as_labels
from ppl_vae.data.missing import spellings
from ppl_vae.data.scaling import Scaled, scaled
from ppl_vae.data.source import DataSource
from ppl_vae.data.split import Data, Split, binarized, seeded_generator
from ppl_vae.data.stream import Stream
from ppl_vae.types import DataSpec, Kind

__all__ = ["prepare"]

PERMITS: dict[Kind, tuple[Kind, ...]] = {
    "binary": ("binary", "unit_interval", "real", "count", "categorical"),
    "unit_interval": ("unit_interval", "real"),
    "count": ("count", "categorical", "real"),
    "real": ("real",),
}
"""As what values may be declared, by the narrowest kind they have."""

REMEDIES: dict[Kind, str] = {
    "binary": "recode two values as 0 and 1, threshold them, or draw from values in [0, 1] with binarize='dynamic'",
    "unit_interval": "scale them with scale='unit'",
    "count": "give integers >= 0 and use scale='none'",
    "categorical": "give integers >= 0 and use scale='none'",
}


class Table(NamedTuple):
    """Rows of train, valid and test, each ``(N, *event)``, their labels, the names of the classes, and what stands beside x."""

    parts: list[Tensor | Stream]
    labels: list[Tensor | None]
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    fields: list[Fields]


def prepare(source: DataSource, raw: Raw) -> Data:
    """Split, scale and describe raw arrays as declared.

    Raises:
        ValueError: values that the declaration does not fit, or too few rows for its splits.
    """
    table = _table(source, raw)
    view = scaled(source, table.parts, raw.levels or 256)
    kind = _kind(source, view.kind)
    spec = DataSpec(
        event_shape=view.transform.event_shape,
        kind=kind,
        size=len(view.parts[0]),
        classes=table.classes,
        columns=table.columns,
        levels=int(view.found.high.max()) + 1 if kind == "categorical" else None,
        missing=view.found.missing,
        fields=() if raw.fields is None else described(raw.name, view.transform.event_shape, table.fields[0]),
    )
    train, valid, test = _splits(source, view, table, white=(raw.levels or 256) - 1 if view.found.two_valued else 1)
    scalars = len(raw.x.shape) == 1
    data = Data(source=source, spec=spec, train=train, valid=valid, test=test, scalars=scalars)
    return data if source.binarize == "auto" else binarized(data, source.binarize)


def _table(source: DataSource, raw: Raw) -> Table:
    x = raw.x if isinstance(raw.x, Stream) else as_tensor(raw.x, source.source, missing=source.missing == "ignore")
    spelled = spellings(source.missing_text)
    y, classes = (None, ()) if raw.y is None else as_labels(raw.y, len(x), source.source, raw.classes, spelled=spelled)
    fields = NO_FIELDS if raw.fields is None else beside(raw.fields, len(x), missing=source.missing == "ignore")
    indices = _rows(source, len(x), has_test=raw.test_x is not None)
    parts: list[Tensor | Stream] = [x[index] for index in indices]
    labels: list[Tensor | None] = [None if y is None else y[index] for index in indices]
    if raw.test_x is not None:
        parts[2] = as_tensor(raw.test_x, source.source, missing=source.missing == "ignore")
        labels[2] = None if raw.test_y is None else as_labels(raw.test_y, len(parts[2]), source.source, classes)[0]
    return Table(parts, labels, classes, raw.columns, [fields[index] for index in indices])


def _rows(source: DataSource, size: int, *, has_test: bool) -> list[Tensor]:
    """Indices of train, valid and test, drawn by the seed, each in the order of the source."""
    test = 0 if has_test else _held_out(source.test, size)
    valid = _held_out(source.valid, size)
    train = size - valid - test
    if train < 1:
        raise ValueError(
            f"{source.source}: expected at least {valid + test + 1} rows ({valid} to validate, {test} to test), got {size}: "
            "give more, or set valid or test to 0"
        )
    order = torch.randperm(size, generator=seeded_generator(source.seed, 0))
    return [index.sort().values for index in order.split([train, valid, test])]


def _held_out(fraction: float, size: int) -> int:
    return 0 if fraction == 0 else max(1, round(fraction * size))


def _kind(source: DataSource, found: Kind) -> Kind:
    """The declared kind, where the values have it; else what was found."""
    drawn = source.kind == "binary" and source.binarize in ("static", "dynamic")
    if source.kind is None or drawn:
        return found
    if source.kind not in PERMITS[found]:
        raise ValueError(f"{source.source}: expected {source.kind} data, got {found} data: {REMEDIES[source.kind]}")
    return source.kind


def _splits(source: DataSource, view: Scaled, table: Table, *, white: int) -> list[Split]:
    """The splits of the parts; held-out rows that fit are held in memory."""
    parts = [view.parts[0], *map(_gathered, view.parts[1:])]
    white = white if view.kind == "binary" else 1
    train, *held_out = (
        Split(x, y, view.transform, classes=table.classes, columns=table.columns, fields=fields, white=white)
        for x, y, fields in zip(parts, table.labels, table.fields, strict=True)
    )
    train = train.fixed(seeded_generator(source.seed, 1)) if source.dequantize == "static" else train
    return [train, *(split.fixed(seeded_generator(source.seed, stream)) for stream, split in enumerate(held_out, start=2))]


def _gathered(part: Tensor | Stream) -> Tensor | Stream:
    return part.tensor() if isinstance(part, Stream) and part.fits() else part
