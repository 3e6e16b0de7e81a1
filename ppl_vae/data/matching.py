"""New rows meet what is known already: columns by their names, classes by theirs, values by the transform they go through."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import torch

from ppl_vae.data.ragged import Ragged
from ppl_vae.data.recoding import recoded
from ppl_vae.data.split import Split
from ppl_vae.data.tokenizers import Tokenizer
from ppl_vae.data.transform import Transform
from ppl_vae.text import as_line
from ppl_vae.types import Column, Field, Kind

__all__ = [
    "classes_matched",
    "columns_matched",
    "drawn_already",
    "fields_matched",
    "is_whole_number",
    "left_of",
    "numbered",
    "shown",
    "tokenizer_matched",
]

NEGLIGIBLE = 1e-6  # of a scale: what casting a transform may change of it
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)")


def columns_matched(split: Split, names: tuple[str, ...], table: tuple[Column, ...] = ()) -> tuple[Split, tuple[str, ...]]:
    """The split with the named columns in their order, and the names of those that were left out.

    Where one of the sides has no names, or 0, 1, ... in order for them, columns are taken as they stand. Categories are
    numbered as those of the ``table``, by their texts.

    Raises:
        ValueError: a column is missing, a name is there twice, or a category that the table does not have.
    """
    chosen, left = _named(split, names)
    return (recoded(chosen, table) if table and chosen.event_shape == (len(table),) else chosen), left


def _named(split: Split, names: tuple[str, ...]) -> tuple[Split, tuple[str, ...]]:
    """The split with the named columns in their order, and the names of the others."""
    found = split.columns
    names = names if names != numbered(names) else numbered(found)
    if found in (names, numbered(found)) or not names:
        return split, ()
    left = left_of(found, names)
    return split.chosen([found.index(name) for name in names]), left


def left_of(found: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """Which of the columns that were found are none of the names.

    Raises:
        ValueError: a column is missing, or a name is there twice.
    """
    if twice := sorted({name for side in (found, names) for name in side if side.count(name) > 1}):
        raise ValueError(f"expected columns of different names to match them by, got {_listed(twice)} twice: rename them")
    extra = tuple(name for name in found if name not in names)
    if missing := [name for name in names if name not in found]:
        told = f"{_listed(found)}: {_listed(missing)} missing" + (f", {_listed(extra)} not known" if extra else "")
        raise ValueError(f"expected the columns {_listed(names)}, got {told}: name the columns as they were when it was fitted")
    return extra


def numbered(names: Sequence[str]) -> tuple[str, ...]:
    """The names 0, 1, ... in order if these are those in any order, else none."""
    counted = tuple(map(str, range(len(names))))
    return counted if set(names) == set(counted) else ()


def classes_matched(split: Split, classes: tuple[str, ...]) -> Split:
    """The split, its labels numbered as these classes are; rows without a label stay so.

    Labels that come without names of classes are numbers of these already, and so are all where these have no names.

    Raises:
        ValueError: a label that is none of the classes.
    """
    if split.y is None or not classes or split.classes == classes:
        return split
    names = split.classes or classes
    used = [int(place) for place in split.y[split.y >= 0].unique()]
    if used and used[-1] >= len(names):
        raise ValueError(f"expected labels from 0 to {len(names) - 1}, got {used[-1]}: number the classes {_listed(names)}")
    if unseen := [names[place] for place in used if names[place] not in classes]:
        told = f"{_listed(classes)}, got {_listed(unseen)}"
        raise ValueError(f"expected labels of the classes {told}: leave out those rows, or fit again with them")
    places = torch.tensor([classes.index(name) if name in classes else -1 for name in names] + [-1], device=split.y.device)
    return split.labelled(places[split.y], classes)


def fields_matched(split: Split, fields: Sequence[Field]) -> Split:
    """The split as a spec tells of its fields: tokens numbered, rows padded, and fields scaled as those that were fitted.

    Raises:
        ValueError: rows of one length for different ones or the reverse, or a token that the vocabulary lacks.
    """
    first, raw = fields[0], split.raw
    if first.ragged != isinstance(raw, Ragged):
        expected, got = ("rows of different lengths", "of one") if first.ragged else ("rows of one length", "of different ones")
        raise ValueError(f"expected {expected}, got rows {got}: give data like those that were fitted")
    if isinstance(raw, Ragged):
        if not raw.tokens and first.vocabulary:
            raw = raw.with_vocabulary(first.vocabulary)
        raw = raw.under(first.vocabulary or raw.vocabulary).bucketed(first.buckets)
    return split.matched(raw, split.fields.under(fields[1:]))


def tokenizer_matched(split: Split, known: Tokenizer | None) -> None:
    """Raise ``ValueError`` if texts were cut by another tokenizer than those that are known."""
    found = split.tokenizer
    if known is not None and found is not None and not known.cuts_as(found):
        raise ValueError(
            f"expected text cut by {as_line(known, 80)}, as that of the fit was, got text cut by {as_line(found, 80)}: load it "
            "with tokens=fit.data.tokens"
        )


def shown(split: Split, transform: Transform, kind: Kind) -> Split:
    """The rows under another transform, such as the one that a fit saw its data through; ``kind`` is that of what it gives.

    Rows whose noise was drawn under this very transform, or that went through it, stay as they are. Noise of dequantization
    that was drawn already is kept where the transform has such noise, else taken off. Zeros and ones are patterns drawn
    already for a transform that draws such.

    Raises:
        ValueError: rows that went through another transform, or patterns that were drawn under another scaling.
    """
    ours, theirs = split.transform, split.drawn
    binary = transform.binarize or kind == "binary"
    recoded = split.white != 1 and not binary
    if not recoded and (_alike(ours, transform) or (theirs is not None and _alike(theirs, transform))):
        return split
    if ours.seen:
        if _same_scale(ours, transform):
            return split
        raise ValueError(
            "expected rows that went through the fit's own transform, got some that went through another: give them in the "
            "units of their source"
        )
    if theirs is not None and theirs.binarize and (transform.binarize or not binary):
        raise ValueError(
            "expected rows in the units of their source, got zeros and ones that were drawn from them under another scaling: "
            "load them with binarize='none', or give fit.rows(DataSource(...), split)"
        )
    if transform.binarize and drawn_already(split):
        return split.under(Transform(transform.event_shape).to(transform.loc)).to(split.device)
    if theirs is not None and theirs.dequantize and transform.dequantize:
        return split.under(transform.rescaling(), drawn=transform).to(split.device)
    return split.as_read(whole=theirs is not None and theirs.dequantize).under(transform).to(split.device)


def drawn_already(split: Split) -> bool:
    """Whether the rows hold nothing but zeros and ones, and missing entries."""
    return all(bool(((rows == 0) | (rows == 1) | (rows != rows)).all()) for rows in split.chunks())


def is_whole_number(name: str) -> bool:
    """Whether the name of a class is a whole number."""
    return NUMBER.fullmatch(name) is not None


def _alike(one: Transform, other: Transform) -> bool:
    flags = [(each.dequantize, each.binarize, each.indices, each.seen) for each in (one, other)]
    return flags[0] == flags[1] and _same_scale(one, other)


def _same_scale(one: Transform, other: Transform) -> bool:
    if one.event_shape != other.event_shape:
        return False
    (loc, scale), (of_other, scale_of_other) = (tuple(c.double().cpu() for c in t.constants) for t in (one, other))
    near = (loc - of_other).abs() <= NEGLIGIBLE * scale
    return bool(near.all() and ((scale - scale_of_other).abs() <= NEGLIGIBLE * scale).all())


def _listed(names: Iterable[str], most: int = 20) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f", ... ({len(names)})" if len(names) > most else "")
