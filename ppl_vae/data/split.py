"""A split of the data: raw rows, on one device or streamed to it, and the batches that the model sees."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from ppl_vae.data.fields import LENGTH, NO_FIELDS, WEIGHTS, Fields
from ppl_vae.data.passes import Passes
from ppl_vae.data.pens import thinned
from ppl_vae.data.ragged import Ragged, View, joined
from ppl_vae.data.sparse import Sparse
from ppl_vae.data.stream import Stream
from ppl_vae.data.tokenizers import Tokenizer
from ppl_vae.data.transform import CHUNK, Transform
from ppl_vae.data.weights import effective_number, on_device
from ppl_vae.types import FOUND_LABELS, Column

__all__ = ["Split"]


class Split(Passes):
    """Rows of raw data, their labels, and the transform that shows them to the model.

    Args:
        x: raw data ``(N, *event)`` in the smallest dtype that keeps them apart, uint8, int32 or float32, where float32 would
            not float64 or int64; or a stream of them, sparse rows, or rows of different lengths.
        y: class of each row, an index into ``DataSpec.classes``, ``(N,)`` int64; ``None`` without labels.
        transform: from raw values to what the model sees.
        classes: names of the classes that ``y`` points to, where they are known.
        columns: names of the columns of a table, where they are known.
        table: what these columns hold, where they came with their dtypes.
        drawn: the transform whose noise was drawn already and is kept in ``x``, if that is so.
        white: what stands as 1 in ``x`` in the units of the source, such as 255 of images in black and white.
        fields: what else plain programs read of the rows.
        weights: how often each row counts, ``(N,)`` float64, finite and not negative; ``None`` if all count once.
        tokenizer: what cut the texts that the rows were, if it is known.
        drop_points: of drawings, the probability with which a point inside a stroke is left out of a random pass.
        groups: of rows that overlap, as patches of one image do, the number of the group of each ``(N,)`` int64, on the CPU;
            ``None`` if rows do not.
    """

    def __init__(
        self,
        x: Tensor | Stream | Sparse | Ragged,
        y: Tensor | None,
        transform: Transform,
        *,
        classes: tuple[str, ...] = (),
        columns: tuple[str, ...] = (),
        table: tuple[Column, ...] = (),
        drawn: Transform | None = None,
        white: int = 1,
        fields: Fields = NO_FIELDS,
        weights: Tensor | None = None,
        tokenizer: Tokenizer | None = None,
        drop_points: float = 0.0,
        groups: Tensor | None = None,
    ) -> None:
        self.raw = x
        self.y = y
        self.transform = transform
        self.classes = tuple(classes)
        self.columns = tuple(columns)
        self.table = tuple(table)
        self.drawn = drawn
        self.white = white
        self.fields = fields
        self.weights = weights
        self.tokenizer = tokenizer
        self.drop_points = drop_points
        self.groups = groups

    def __len__(self) -> int:
        return len(self.raw)

    def __repr__(self) -> str:
        labels = "unlabelled" if self.y is None else "labelled"
        held = {Stream: ", streamed", Sparse: ", sparse", Ragged: ", ragged"}.get(type(self.raw), "")
        dtype = str(self.raw.dtype).removeprefix("torch.")
        beside = f", beside {', '.join(self.fields.columns)}" if self.fields.columns else ""
        counted = "" if self.weights is None else f", weighted: {self.effective_number:.4g} effective"
        return f"Split({len(self)} x {self.event_shape}, {dtype}, {labels}{held}{beside}{counted})"

    def __getitem__(self, rows: int | slice | Tensor) -> Split:
        """The chosen rows: an index (kept as a split of one row), a slice, or a tensor of indices or booleans."""
        if isinstance(rows, int):
            rows = torch.arange(len(self))[rows][None]
        if isinstance(rows, Tensor):
            rows = rows.to(self.device)
        y = None if self.y is None else self.y[rows]
        weights = None if self.weights is None else self.weights[rows]
        groups = None if self.groups is None else self.groups[rows.cpu() if isinstance(rows, Tensor) else rows]
        return self._with(raw=self.raw[rows], y=y, fields=self.fields[rows], weights=weights, groups=groups)

    @property
    def total(self) -> float:
        """W, the sum of the rows' weights; of rows that all count once their number."""
        return float(len(self)) if self.weights is None else float(self.weights.sum())

    @property
    def effective_number(self) -> float:
        """How many rows of equal weight tell as much as these (Kish 1965): (sum w)^2 / sum w^2."""
        return float(len(self)) if self.weights is None or not len(self) else effective_number(self.weights)

    @property
    def x(self) -> Tensor:
        """All raw data ``(N, *event)`` on the device; a stream loads them, and sparse rows become dense.

        Raises:
            ValueError: streamed or sparse rows that do not fit, or rows of different lengths.
        """
        if isinstance(self.raw, Ragged):
            raise ValueError(
                "expected rows of one length to have them as one tensor, got ragged ones: take .raw, or walk batches"
            )
        return self.raw.tensor() if isinstance(self.raw, Stream | Sparse) else self.raw

    @property
    def at_once(self) -> int:
        """How many rows may be loaded together: all but of a stream or of sparse rows."""
        return self.raw.at_once if isinstance(self.raw, Stream | Sparse) else max(1, len(self))

    @property
    def elements(self) -> int:
        """Numbers in a datum of x as a batch holds it, padding included; of rows of different lengths in the longest."""
        longest = self.raw.longest if isinstance(self.raw, Ragged) else 1
        return longest * self.raw.shape[1:].numel()

    @property
    def sizes(self) -> Tensor | None:
        """How many elements each row of x has ``(N,)``, where rows differ in length."""
        return self.raw.lengths if isinstance(self.raw, Ragged) else None

    @property
    def labels(self) -> Tensor:
        """The class of each row ``(N,)``.

        Raises:
            ValueError: some row has none.
        """
        if self.y is None:
            raise ValueError(
                "expected labelled data, got rows without labels: name their column (label=..., --label), give them to "
                "load_data or to the call (y=..., --y), or use a model without labels"
            )
        unlabelled = int((self.y < 0).sum())
        if unlabelled:
            raise ValueError(
                f"expected a label for each of {len(self)} rows, got {unlabelled} rows without: drop or label them"
            )
        return self.y

    @property
    def has_label(self) -> Tensor:
        """Which rows have a class ``(N,)``."""
        return torch.zeros(len(self), dtype=torch.bool, device=self.device) if self.y is None else self.y >= 0

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one datum; of one element, where rows differ in length."""
        return tuple(self.raw.shape[1:])

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Split:
        """This split on another device, its model's view in another floating dtype; self stays as it is."""
        transform = copy.deepcopy(self.transform).to(device=device, dtype=dtype)  # says first if the device lacks float64
        y = None if self.y is None else self.y.to(device=device)
        fields = self.fields.to(device, dtype)
        weights = on_device(self.weights, device)
        return self._with(raw=self.raw.to(device=device), y=y, transform=transform, fields=fields, weights=weights)

    def steps(self, batch_size: int, *, generator: Generator, reads: Sequence[str]) -> Iterator[tuple[list[Tensor], Tensor]]:
        """One pass in random order, of drawings that lose points anew at each pass where that is declared."""
        if not self.drop_points or not isinstance(self.raw, Ragged):
            return super().steps(batch_size, generator=generator, reads=reads)
        once = self._with(raw=thinned(self.raw, self.drop_points, generator), drop_points=0.0)
        return once.steps(batch_size, generator=generator, reads=reads)

    def column(self, name: str) -> Tensor | View:
        """A field of each row ``(N, ...)`` as batches take their rows of it.

        ``y`` is the class labels, and ``length`` the lengths of ragged rows, where no field is called so.

        Raises:
            ValueError: the rows do not have it.
        """
        if name == WEIGHTS and self.weights is not None:
            return self.weights
        if name in self.fields.columns:
            return self.fields.view(name)
        if name == LENGTH and self.lead is not None:
            return self.lead.lengths
        for field, column in self.fields.ragged():
            if name == self.fields.lengths[field]:
                return column.lengths
        if name == "y":
            return self.labels
        if name == FOUND_LABELS:
            return torch.full((len(self),), -1, device=self.device) if self.y is None else self.y
        raise ValueError(
            f"expected rows with the fields that the programs read, got none called {name!r}: load them as those that were "
            "fitted, as a tuple or by name"
        )

    def chunks(self) -> Iterator[Tensor]:
        """All raw rows in their order, a bounded number ``(C, *event)`` at a time; of ragged rows the elements."""
        return iter(self.raw.split(CHUNK) if len(self) else ())

    def transformed(self, generator: Generator | None = None) -> Tensor:
        """What the model sees of the whole split at once, ``(N, *event)``; made for plots and closed forms.

        Raises:
            ValueError: streamed data that do not fit.
        """
        return self.transform(self.x, generator)

    def under(self, transform: Transform, *, drawn: Transform | None = None) -> Split:
        """The same rows, shown to the model by another transform; ``drawn`` is one whose noise they hold already."""
        return self._with(transform=transform, drawn=drawn or self.drawn)

    def followed_by(self, others: Sequence[Split]) -> Split:
        """These rows and, after them, those of other splits under the same transform."""
        if not others:
            return self
        parts = [self, *others]
        labels = [part.y for part in parts if part.y is not None]
        fields = self.fields.followed_by([part.fields for part in others])
        raws: list[Any] = [part.raw if isinstance(part.raw, Ragged | Sparse) else part.x for part in parts]
        raw = raws[0].followed_by(raws[1:]) if isinstance(raws[0], Sparse) else joined(raws)
        groups = [part.groups for part in parts if part.groups is not None]
        return self._with(
            raw=raw,
            y=torch.cat(labels) if labels else None,
            fields=fields,
            weights=_weights(parts),
            groups=torch.cat(groups) if len(groups) == len(parts) else None,
        )

    def labelled(self, y: Tensor | None, classes: tuple[str, ...]) -> Split:
        """The same rows with other labels ``(N,)``, indices into these names of classes."""
        return self._with(y=y, classes=classes)

    def renamed(self, columns: tuple[str, ...]) -> Split:
        """The same rows with these names of columns."""
        if columns == self.columns:
            return self
        table = tuple(dataclasses.replace(column, name=name) for column, name in zip(self.table, columns, strict=False))
        return self._with(columns=columns, table=table if len(table) == len(columns) else ())

    def chosen(self, columns: Sequence[int]) -> Split:
        """The same rows with these columns ``(N, len(columns))``, in this order."""
        places = list(columns)
        raw = self.raw
        if isinstance(raw, Ragged):
            found: Any = raw.mapped(lambda values: values[:, places])
        else:
            found = raw.chosen(places) if isinstance(raw, Sparse | Stream) else self.x[:, places]
        return self._with(
            raw=found,
            columns=tuple(self.columns[place] for place in places) if self.columns else (),
            table=tuple(self.table[place] for place in places) if self.table else (),
            transform=self.transform.chosen(places),
            drawn=None if self.drawn is None else self.drawn.chosen(places),
        )

    def as_read(self, *, whole: bool = False) -> Split:
        """The same rows in the units of the source; as whole numbers, where noise was added to such."""
        raw = self.raw
        if self.white != 1:
            raw = raw.as_read() if isinstance(raw, Stream) else _each(raw, lambda values: values * self.white)
        if whole and not isinstance(raw, Stream):
            raw = _each(raw, torch.floor)
        return self._with(raw=raw, drawn=None, white=1)

    def numbers(self) -> Split:
        """The same rows of events of shape ``(1,)`` as numbers, ``(N,)``."""
        if not isinstance(self.raw, Tensor) or self.event_shape != (1,):
            return self
        drawn = None if self.drawn is None else self.drawn.of_numbers()
        return self._with(raw=self.raw.squeeze(1), transform=self.transform.of_numbers(), drawn=drawn)

    def fixed(self, generator: Generator) -> Split:
        """The same rows, with the transform's noise drawn once from a CPU generator and kept in ``x``.

        Raises:
            ValueError: noise for streamed data that do not fit.
        """
        if not self.transform.noisy:
            return self
        home = self.to("cpu")
        held = home.raw.compact() if isinstance(home.raw, Ragged) else None
        x, transform = home.transform.freeze(home.x if held is None else held.values, generator)
        raw = x if held is None else held.with_values(x)
        return home._with(raw=raw, transform=transform, drawn=home.transform).to(self.device)

    def recoded(self, x: Tensor | Stream, table: tuple[Column, ...]) -> Split:
        """The same rows with other codes x ``(N, D)`` of their categories, as this table numbers them."""
        return self._with(raw=x, table=table)

    def matched(self, raw: Tensor | Stream | Sparse | Ragged, fields: Fields) -> Split:
        """The same rows with other codes of their tokens, other lengths that they are padded to, and other fields."""
        return self._with(raw=raw, fields=fields)

    def of_one_length(self) -> Split:
        """The same rows, all padded to the longest, so that they can stand in one batch in their order."""
        return self if self.lead is None else self.padded_to(self.lead.longest)

    def padded_to(self, length: int) -> Split:
        """The same rows, all to be padded to one length."""
        raw = self.raw.bucketed((length,)) if isinstance(self.raw, Ragged) else self.raw
        return self._with(raw=raw, fields=self.fields.padded_to(length))

    def _with(self, **fields: object) -> Split:
        other = copy.copy(self)
        vars(other).update(fields)
        return other


def _weights(parts: Sequence[Split]) -> Tensor | None:
    """Those of all parts, rows without counting once; ``None`` if none has any."""
    if all(part.weights is None for part in parts):
        return None
    ones = (torch.ones(len(part), dtype=torch.float64, device=part.device) for part in parts)
    return torch.cat([one if part.weights is None else part.weights for part, one in zip(parts, ones, strict=True)])


def _each(raw: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The function of the values, however they are held."""
    return raw.mapped(function) if isinstance(raw, Ragged | Sparse) else function(raw)
