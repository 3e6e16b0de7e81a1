"""Rows that are drawn element after element: how they begin, where they end, and what they are in the units of the source."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppl_vae.data.pens import END_OF_DRAWING
from ppl_vae.data.ragged import Ragged
from ppl_vae.data.texts import rows_of_texts
from ppl_vae.data.vocabulary import END, Tokens, untokenized
from ppl_vae.fitting.inputs import Entrance, as_real
from ppl_vae.program.capabilities import Continuing
from ppl_vae.types import REAL, STROKES, DataSpec, FitWarning

__all__ = [
    "Beginning",
    "Rows",
    "beginning",
    "drawn_rows",
    "ragged_codes",
    "refuse_conditions",
    "rows_in_source_units",
]

Beginning = str | Sequence[Any] | np.ndarray | Tensor | Ragged
"""How rows begin: a text or texts; the elements of one row, or of several of one length; rows of different lengths."""

TIMES_LONGEST = 4  # the longest row: so far is it drawn where no end token comes


class Rows:
    """Padded rows as the model sees them, ``(n, T, *element)``, and how many elements of each are its own ``(n,)``."""

    def __init__(self, x: Tensor, length: Tensor) -> None:
        self.x = x
        self.length = length

    def __len__(self) -> int:
        return len(self.x)

    @property
    def elements(self) -> Tensor:
        """Those of all rows, one after the other ``(total, *element)``."""
        return self.x[torch.arange(self.x.shape[1], device=self.x.device) < self.length.to(self.x.device)[:, None]]

    @property
    def offsets(self) -> np.ndarray:
        """Where each row begins among them, and the last one ends."""
        return np.concatenate([[0], self.length.cumsum(0).cpu().numpy()])

    def ragged(self) -> Ragged:
        """The rows without padding."""
        return Ragged(self.elements.cpu().numpy(), self.offsets)


def refuse_conditions(*, x: Any, y: Any, means: bool, frame: Any) -> None:
    """Raise ``ValueError`` for what rows that are drawn element after element have not."""
    if x is not None or y is not None:
        raise ValueError("this model is conditioned on nothing but how rows begin: leave x and y out, give given=... (--given)")
    if means or frame is not None:
        what = "means of p(x | z)" if means else "a frame of columns"
        raise ValueError(f"expected draws of a model of rows, got a wish for {what}: leave it out")


def beginning(given: Beginning, entrance: Entrance, tokens: Tokens | None) -> Rows:
    """How rows begin, as the model sees it.

    Args:
        given: in the units of the source; texts are cut as those of the data were.
        entrance: the fit's way in, which checks it.
        tokens: what texts are cut into, where the data were texts.

    Raises:
        ValueError: texts for data that were none, tokens that the vocabulary lacks, or elements of another shape.
    """
    spec = entrance.spec
    texts = [given] if isinstance(given, str) else given
    rows = rows_of_texts(texts, tokens, end=False) if _is_text(given) else _of_numbers(given, spec)
    if not spec.ragged:
        padded = rows.padded(slice(None), max(1, int(rows.lengths.max())))
        return Rows(entrance.transform.affine(padded.to(entrance.device)), rows.lengths.to(entrance.device))
    if spec.kind == STROKES:  # whose ends are part of whole drawings alone
        entrance = dataclasses.replace(entrance, spec=dataclasses.replace(spec, kind=REAL))
    split = entrance.rows(rows)
    raw = split.raw
    assert isinstance(raw, Ragged)
    x = split.transform(raw.padded(slice(None), max(1, int(raw.lengths.max()))))
    if spec.kind == STROKES and not bool(((x[..., 2] == 0) | (x[..., 2] == 1)).all()):
        raise ValueError("expected drawings to begin with points whose pen is 0 or 1, got others: leave out their last point")
    return Rows(x, raw.lengths)


def drawn_rows(
    model: Continuing,
    n: int,
    spec: DataSpec,
    begun: Rows | None,
    length: int | Sequence[int] | None,
    *,
    like: Tensor,
    options: Mapping[str, Any] | None = None,
) -> Rows:
    """N new rows, each up to its end.

    Args:
        model: which draws elements after others.
        n: how many.
        spec: what the data look like.
        begun: how rows begin, one or ``n``; nothing if they begin by themselves.
        length: how many elements they have at most, all alike or each; by default those that the data suggest.
        like: a tensor of the model's dtype and device.
        options: how boldly they are drawn, and given which columns, of a model that can be told.

    Raises:
        ValueError: neither one beginning nor ``n``, or a length that is no longer than what is given.
    """
    end, ends = _end(spec), _ends(spec)
    begun = _empty(spec, like) if begun is None else begun
    if len(begun) not in (1, n):
        raise ValueError(f"expected one beginning for all rows or {n}, got {len(begun)}")
    x, first = begun.x.expand(n, *begun.x.shape[1:]), begun.length.expand(n)
    last = _last(model, n, spec, first, length, endless=ends is None)
    following = model.continued(x, first, int((last - first).max()), end=end, **(options or {}))
    steps = following.shape[1]
    places = torch.arange(x.shape[1] + steps, device=x.device)
    later = places - first[:, None]  # which of the drawn elements stands at a place
    index = later.clamp(0, steps - 1).reshape(n, -1, *[1] * (following.dim() - 2)).expand(n, -1, *following.shape[2:])
    padded = torch.cat([x, torch.zeros_like(following)], 1)
    mask = (later >= 0).reshape(n, -1, *[1] * (following.dim() - 2))
    rows = torch.where(mask, following.gather(1, index), padded)
    return Rows(rows, _ended(rows, first, last, ends, asked=length is not None))


def rows_in_source_units(
    rows: Rows, spec: DataSpec, leaving: Callable[[Tensor], Tensor], *, tokens: Tokens | None
) -> Tensor | Ragged | list[str]:
    """Rows as texts where the data were texts, else ``Ragged``, or one tensor where all rows have one length.

    Args:
        rows: as the model sees them.
        spec: what the data look like.
        leaving: from what the model sees of elements to the units of the source.
        tokens: what texts were cut into; ``None`` for the numbers of their tokens.
    """
    if not spec.ragged:
        return leaving(rows.x[:, : spec.event_shape[0]])
    values, offsets = leaving(rows.elements).cpu().numpy(), rows.offsets
    if spec.kind.levelled:
        values = values.astype(np.int64)
    vocabulary = spec.fields[0].vocabulary
    if tokens is None or not vocabulary:
        return Ragged(values, offsets, vocabulary=vocabulary)
    return [untokenized(row, vocabulary, tokens) for row in np.split(values, offsets[1:-1])]


def ragged_codes(codes: Tensor, lengths: Tensor, *, draws: bool) -> Ragged | list[Ragged]:
    """Codes of the elements of rows ``(n, T, *code)`` without those of the padding; of draws ``(S, n, T, *code)`` a list."""
    if draws:
        return [Rows(each, lengths).ragged() for each in codes]
    return Rows(codes, lengths).ragged()


def _is_text(given: Any) -> bool:
    first = given if isinstance(given, str) else given[0] if isinstance(given, (list, tuple)) and given else None
    return isinstance(first, str)


def _of_numbers(given: Any, spec: DataSpec) -> Ragged:
    """Elements of rows; of an array without rows those of one."""
    if isinstance(given, Ragged):
        return given
    element = spec.event_shape if spec.ragged else spec.event_shape[1:]
    if isinstance(given, (list, tuple)) and given and np.ndim(given[0]) > len(element):
        return Ragged.from_list(given)
    values = as_real(given, "how rows begin").cpu().numpy()
    values = values[None] if values.ndim == 1 + len(element) else values
    if values.shape[2:] != element or values.ndim != 2 + len(element):
        raise ValueError(f"expected elements of shape {element} that rows begin with, got an array {values.shape}")
    n, steps = values.shape[:2]
    flat = values.reshape(n * steps, *element)
    if spec.kind.discrete and (flat != np.floor(flat)).any():
        raise ValueError(f"expected whole numbers that rows begin with, got {flat[flat != np.floor(flat)][0]:g}")
    return Ragged(flat.astype(np.int64) if spec.kind.levelled else flat, np.arange(n + 1) * steps)


def _end(spec: DataSpec) -> int | None:
    """The token that ends a row."""
    vocabulary = spec.fields[0].vocabulary if spec.ragged else ()
    return vocabulary.index(END) if END in vocabulary else None


def _ends(spec: DataSpec) -> Callable[[Tensor], Tensor] | None:
    """Which elements ``(..., *element)`` end their row, where some do, ``(...)``."""
    if spec.kind == STROKES:
        return lambda x: x[..., 2] == END_OF_DRAWING
    end = _end(spec)
    return None if end is None else lambda x: x == end


def _empty(spec: DataSpec, like: Tensor) -> Rows:
    element = spec.event_shape if spec.ragged else spec.event_shape[1:]
    dtype = torch.int64 if spec.ragged and spec.kind.levelled else like.dtype
    return Rows(like.new_zeros((1, 0, *element), dtype=dtype), like.new_zeros(1, dtype=torch.int64))


def _last(
    model: Continuing, n: int, spec: DataSpec, first: Tensor, length: int | Sequence[int] | None, *, endless: bool
) -> Tensor:
    """How many elements rows have at most ``(n,)``."""
    if not spec.ragged:
        if length is not None:
            raise ValueError(
                f"expected no length for rows that all have {spec.event_shape[0]} elements, got {length}: to draw longer ones, "
                "fit them as rows that may differ in length, pv.Ragged(values, offsets)"
            )
        last = torch.full_like(first, spec.event_shape[0])
    elif length is not None:
        last = torch.as_tensor(length, device=first.device)
        if last.is_floating_point() or tuple(last.shape) not in ((), (n,)):
            raise ValueError(f"expected a length of rows, a whole number, or {n} of them, got {length!r}")
        last = last.long().expand(n)
    elif not endless:
        return first + TIMES_LONGEST * (spec.fields[0].longest or 1)
    else:
        return model.drawn_lengths(first)
    if bool((last <= first).any()):
        place = int((last <= first).nonzero()[0])
        raise ValueError(
            f"expected rows longer than what is given of them, got {int(first[place])} elements given of {int(last[place])}"
        )
    return last


def _ended(rows: Tensor, first: Tensor, last: Tensor, ends_row: Callable[[Tensor], Tensor] | None, *, asked: bool) -> Tensor:
    """How many elements each row has, that which ends it among them."""
    last = last.clamp(max=rows.shape[1])
    if ends_row is None:
        return last
    places = torch.arange(rows.shape[1], device=rows.device)
    ends = ends_row(rows) & (places >= first[:, None]) & (places < last[:, None])
    found = ends.any(1)
    if not asked and bool((~found).any()):
        warnings.warn(
            f"{int((~found).sum())} of {len(rows)} rows had no end after {int(last[~found][0])} elements and are cut there: "
            "give length=... (--length), or fit for longer",
            FitWarning,
            stacklevel=5,
        )
    return torch.where(found, ends.byte().argmax(1) + 1, last)
