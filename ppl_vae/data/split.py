"""Data: three splits of raw values, on one device or streamed to it, and the batches that the model sees."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Collection, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Generator, Tensor

from ppl_vae.data.blocks import in_order, shuffled
from ppl_vae.data.columns import natural_columns, scaled_columns
from ppl_vae.data.fields import NO_FIELDS, Fields, taken
from ppl_vae.data.matching import shown
from ppl_vae.data.source import DataSource, choice
from ppl_vae.data.stream import Stream
from ppl_vae.data.transform import CHUNK, Transform
from ppl_vae.types import DataSpec, Kind

__all__ = ["Data", "Split", "binarized", "seeded_generator"]


class Split:
    """Rows of raw data, their labels, and the transform that shows them to the model.

    Args:
        x: raw data ``(N, *event)`` in the smallest dtype that keeps them apart, uint8, int32 or float32, where float32 would
            not float64 or int64; or a stream of them.
        y: class of each row, an index into ``DataSpec.classes``, ``(N,)`` int64; ``None`` without labels.
        transform: from raw values to what the model sees.
        classes: names of the classes that ``y`` points to, where they are known.
        columns: names of the columns of a table, where they are known.
        drawn: the transform whose noise was drawn already and is kept in ``x``, if that is so.
        white: what stands as 1 in ``x`` in the units of the source, such as 255 of images in black and white.
        fields: what else plain programs read of the rows.
    """

    def __init__(
        self,
        x: Tensor | Stream,
        y: Tensor | None,
        transform: Transform,
        *,
        classes: tuple[str, ...] = (),
        columns: tuple[str, ...] = (),
        drawn: Transform | None = None,
        white: int = 1,
        fields: Fields = NO_FIELDS,
    ) -> None:
        self.raw = x
        self.y = y
        self.transform = transform
        self.classes = tuple(classes)
        self.columns = tuple(columns)
        self.drawn = drawn
        self.white = white
        self.fields = fields

    def __len__(self) -> int:
        return len(self.raw)

    def __repr__(self) -> str:
        labels = "unlabelled" if self.y is None else "labelled"
        streamed = ", streamed" if isinstance(self.raw, Stream) else ""
        dtype = str(self.raw.dtype).removeprefix("torch.")
        beside = f", beside {', '.join(self.fields.columns)}" if self.fields.columns else ""
        return f"Split({len(self)} x {self.event_shape}, {dtype}, {labels}{streamed}{beside})"

    def __getitem__(self, rows: int | slice | Tensor) -> Split:
        """The chosen rows: an index (kept as a split of one row), a slice, or a tensor of indices or booleans."""
        if isinstance(rows, int):
            rows = torch.arange(len(self))[rows][None]
        if isinstance(rows, Tensor):
            rows = rows.to(self.device)
        y = None if self.y is None else self.y[rows]
        return self._with(raw=self.raw[rows], y=y, fields=self.fields[rows])

    @property
    def x(self) -> Tensor:
        """All raw data ``(N, *event)`` on the device; a stream loads them, and raises ``ValueError`` if they do not fit."""
        return self.raw.tensor() if isinstance(self.raw, Stream) else self.raw

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
    def device(self) -> torch.device:
        """Where the data lie, or arrive."""
        return self.raw.device

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one datum."""
        return tuple(self.raw.shape[1:])

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Split:
        """This split on another device, its model's view in another floating dtype; self stays as it is."""
        transform = copy.deepcopy(self.transform).to(device=device, dtype=dtype)  # says first if the device lacks float64
        y = None if self.y is None else self.y.to(device=device)
        fields = self.fields.to(device, dtype)
        return self._with(raw=self.raw.to(device=device), y=y, transform=transform, fields=fields)

    def batches(self, batch_size: int, *, generator: Generator | None = None) -> Iterator[Tensor]:
        """What the model sees, batch by batch, the smaller last one included.

        Args:
            batch_size: rows in a batch.
            generator: shuffles the rows and draws the transform's noise; on the device of the data. By default rows come in
                their order, and noise, if the transform has any, from torch's global generator.

        Yields:
            tensors ``(B, *event)``.

        Raises:
            ValueError: a batch size below 1, or a generator of another device.
        """
        self._check(batch_size, generator)
        return self._batches(batch_size, generator)

    def labelled_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """What the model sees in the rows' order, and their labels, batch by batch, the smaller last one included.

        Args:
            batch_size: rows in a batch.

        Yields:
            x ``(B, *event)`` and y ``(B,)``.

        Raises:
            ValueError: a batch size below 1, or rows without labels.
        """
        return ((x, y) for x, y in self.read(("x", "y"), batch_size))

    def blocks(self, batch_size: int, *, generator: Generator, reads: Sequence[str] = ("x",)) -> Iterator[tuple[Tensor, ...]]:
        """One pass over the split in random order: raw rows on the device, and the order in which to visit them.

        Batches are slices of the order, ``transform(raw[order[i : i + batch_size]])``; the transform is left to the caller, who
        may fuse it with what follows. Data in memory are one block, and all their orders are equally probable. Streamed data
        come in blocks of the declared size; see :func:`~ppl_vae.data.blocks.shuffled` for how they are shuffled.

        Args:
            batch_size: rows in a batch; every block but the last holds a multiple of it.
            generator: shuffles the rows; on the device of the data.
            reads: x, and the fields (``y``: the labels) that stand between the rows and their order.

        Yields:
            raw rows ``(C, *event)``, fields ``(C, ...)``, and their order ``(C,)`` int64, all on the device.

        Raises:
            ValueError: a batch size below 1, a generator of another device, or a field that the rows do not have.
        """
        self._check(batch_size, generator)
        return shuffled(self.raw, batch_size, generator, beside=[self.column(name) for name in reads[1:]])

    def column(self, name: str) -> Tensor:
        """A field of each row ``(N, ...)``, as it is stored; ``y`` is the class labels where no field is called so.

        Raises:
            ValueError: the rows do not have it.
        """
        if name in self.fields.columns:
            return self.fields.columns[name]
        if name == "y":
            return self.labels
        raise ValueError(
            f"expected rows with the fields that the programs read, got none called {name!r}: load them as those that were "
            "fitted, as a tuple or by name"
        )

    def read(self, reads: Sequence[str], batch_size: int) -> Iterator[tuple[Tensor, ...]]:
        """What programs read, batch by batch, the smaller last one included, in the rows' order.

        Rows that lack a field come last, in batches of their own without it.

        Args:
            reads: x, and the fields (``y``: the labels) beside it.
            batch_size: rows in a batch.

        Yields:
            x ``(B, *event)`` as the model sees it, and the fields ``(B, ...)``.

        Raises:
            ValueError: a batch size below 1, or a field that the rows do not have.
        """
        self._check(batch_size, None)
        parts = [(part, [part.column(name) for name in names[1:]]) for part, names in self.apart(reads)]
        return (batch for part, columns in parts for batch in part._read(columns, batch_size))

    def apart(self, reads: Sequence[str]) -> list[tuple[Split, tuple[str, ...]]]:
        """The rows that have all these fields, and those that lack one, each with the names of what they have."""
        partial, seen = self.fields.partial, self.fields.seen
        if seen is None or partial not in reads:
            return [(self, tuple(reads))]
        parts = (self[seen], tuple(reads)), (self[~seen], tuple(name for name in reads if name != partial))
        return [(part, names) for part, names in parts if len(part)]

    def order(self, reads: Sequence[str]) -> Tensor:
        """Which row comes when :meth:`read` gives them, ``(N,)``: those that lack a field last."""
        seen = self.fields.seen
        if seen is None or self.fields.partial not in reads:
            return torch.arange(len(self), device=self.device)
        return (~seen).to(torch.uint8).argsort(stable=True)

    def arranged(self, reads: Sequence[str]) -> Split:
        """The same rows in the order in which :meth:`read` gives them."""
        return self if self.fields.seen is None else self[self.order(reads)]

    def steps(self, batch_size: int, *, generator: Generator, reads: Sequence[str]) -> Iterator[tuple[list[Tensor], Tensor]]:
        """One pass over the split in random order, :meth:`blocks` cut into batches.

        Rows that lack a field make batches of their own, without it, at random among the others; the smaller last ones of both
        kinds come last. All batches of a pass together are all data once, as of rows of one kind.

        Args:
            batch_size: rows in a batch.
            generator: shuffles the rows; on the device of the data.
            reads: x, and the fields (``y``: the labels) beside it.

        Yields:
            a block's raw rows and fields, and which of its rows ``(B,)`` are a batch: see :func:`~ppl_vae.data.fields.taken`.
        """
        partial, seen = self.fields.partial, self.fields.seen
        for *block, order in self.blocks(batch_size, generator=generator, reads=reads):
            if seen is None or partial not in reads:
                yield from ((block, rows) for rows in order.split(batch_size))
                continue
            without = [part for name, part in zip(reads, block, strict=True) if name != partial]
            batches = [(block, rows) for rows in order[seen[order]].split(batch_size) if len(rows)]
            batches += [(without, rows) for rows in order[~seen[order]].split(batch_size) if len(rows)]
            places = torch.randperm(len(batches), generator=generator, device=order.device).tolist()
            yield from sorted((batches[place] for place in places), key=lambda batch: len(batch[1]) < batch_size)

    def chunks(self) -> Iterator[Tensor]:
        """All raw rows in their order, a bounded number ``(C, *event)`` at a time."""
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
        return self._with(raw=torch.cat([part.x for part in parts]), y=torch.cat(labels) if labels else None, fields=fields)

    def labelled(self, y: Tensor | None, classes: tuple[str, ...]) -> Split:
        """The same rows with other labels ``(N,)``, indices into these names of classes."""
        return self._with(y=y, classes=classes)

    def renamed(self, columns: tuple[str, ...]) -> Split:
        """The same rows with these names of columns."""
        return self if columns == self.columns else self._with(columns=columns)

    def chosen(self, columns: Sequence[int]) -> Split:
        """The same rows with these columns ``(N, len(columns))``, in this order."""
        places = list(columns)
        return self._with(
            raw=self.x[:, places],
            columns=tuple(self.columns[place] for place in places) if self.columns else (),
            transform=self.transform.chosen(places),
            drawn=None if self.drawn is None else self.drawn.chosen(places),
        )

    def as_read(self, *, whole: bool = False) -> Split:
        """The same rows in the units of the source; as whole numbers, where noise was added to such."""
        raw = self.raw
        if self.white != 1:
            raw = raw.as_read() if isinstance(raw, Stream) else raw * self.white
        if whole and isinstance(raw, Tensor):
            raw = raw.floor()
        return self._with(raw=raw, drawn=None, white=1)

    def numbers(self) -> Split:
        """The same rows of events of shape ``(1,)`` as numbers, ``(N,)``."""
        if isinstance(self.raw, Stream) or self.event_shape != (1,):
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
        x, transform = home.transform.freeze(home.x, generator)
        return home._with(raw=x, transform=transform, drawn=home.transform).to(self.device)

    def _with(self, **fields: object) -> Split:
        other = copy.copy(self)
        vars(other).update(fields)
        return other

    def _check(self, batch_size: int, generator: Generator | None) -> None:
        if batch_size < 1:
            raise ValueError(f"expected batch_size >= 1, got {batch_size}")
        if generator is not None and generator.device.type != self.device.type:
            raise ValueError(f"expected a generator on the data's device {self.device}, got one on {generator.device}")

    def _read(self, columns: list[Tensor], batch_size: int) -> Iterator[tuple[Tensor, ...]]:
        for start, x in zip(range(0, len(self), batch_size), self._batches(batch_size, None), strict=True):
            yield tuple(taken([x, *(column[start : start + batch_size] for column in columns)], slice(None)))

    def _batches(self, batch_size: int, generator: Generator | None) -> Iterator[Tensor]:
        if generator is None:
            for rows in in_order(self.raw, batch_size):
                yield self.transform(rows)
        else:
            for block, order in shuffled(self.raw, batch_size, generator):
                for rows in order.split(batch_size):
                    yield self.transform(block[rows], generator)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Data:
    """A data set: its declaration, what models need to know of it, and its three splits.

    Args:
        source: the declaration from which the same data can be loaded again.
        spec: what the model sees.
        train: rows to fit to; any noise is drawn anew at every visit.
        valid: rows to choose and stop by; noise is drawn once, by the declared seed.
        test: rows to report on; noise is drawn once, by the declared seed.
        scalars: whether the source has a number a row, ``(N,)``. Declared models see it as an event of shape ``(1,)``, plain
            programs as a batch ``(B,)``.
    """

    source: DataSource
    spec: DataSpec
    train: Split
    valid: Split
    test: Split
    scalars: bool = False

    def __repr__(self) -> str:
        sizes = f"{len(self.train)} train, {len(self.valid)} valid, {len(self.test)} test"
        return f"Data({self.source.source}: {sizes}; {self.spec.kind} {self.spec.event_shape})"

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Data:
        """These data on another device, the model's view of them in another floating dtype; self stays as it is."""
        train, valid, test = (split.to(device, dtype) for split in (self.train, self.valid, self.test))
        return dataclasses.replace(self, train=train, valid=valid, test=test)

    def as_given(self) -> Data:
        """The same data with rows of numbers, ``(N,)``, where the source has them so."""
        if not self.scalars:
            return self
        splits = {name: getattr(self, name).numbers() for name in ("train", "valid", "test")}
        return dataclasses.replace(self, spec=dataclasses.replace(self.spec, event_shape=()), scalars=False, **splits)

    def resolve(self, accepts: Collection[Kind], *, free: Tensor | None = None, real: Tensor | None = None) -> Data:
        """Settle what the source leaves open, for a model that takes these kinds of values; identity if all is settled.

        Args:
            accepts: settles ``binarize="auto"``.
            free: settles ``scale="auto"`` of the elements ``(*event)`` whose units the model is free to choose: they are
                standardized one by one, as the columns of a table whose kinds differ.
            real: the elements that ``scale="standardize"`` is about, where the others are codes or counts.
        """
        data = self
        if self.source.binarize == "auto":
            data = binarized(self, "dynamic" if self._should_binarize(accepts) else "none")
        data = data if free is None else scaled_columns(data, free)
        return data if real is None else natural_columns(data, ~real)

    def part(self, name: Literal["train", "valid", "test"], transform: Transform | None = None) -> Split:
        """One split by name; under ``transform``, such as the one an earlier fit saw its data through.

        See :func:`~ppl_vae.data.matching.shown` for data with noise.

        Raises:
            ValueError: another name, a transform for data of another shape, or draws that were made under another one.
        """
        choice("split", name, ("train", "valid", "test"))
        split: Split = getattr(self, name)
        if transform is None:
            return split
        if transform.event_shape != self.spec.event_shape:
            raise ValueError(
                f"expected data of shape {transform.event_shape}, as the transform is for, got {self.spec.event_shape}"
            )
        return shown(split, transform, self.spec.kind)

    def _should_binarize(self, accepts: Collection[Kind]) -> bool:
        plain = self.spec.kind == "unit_interval" and self.source.kind is None and not self.source.dequantize
        return plain and self.source.name == "digits" and "binary" in accepts and "unit_interval" not in accepts


def binarized(data: Data, how: Literal["none", "static", "dynamic"]) -> Data:
    """Data whose values in [0, 1] are turned into Bernoulli draws, and whose source says so.

    Validation and test data are drawn once, as is usual for dynamically binarized sets (Burda, Grosse, Salakhutdinov 2016).
    """
    source = dataclasses.replace(data.source, binarize=how)
    if how == "none" or data.spec.kind == "binary":
        return dataclasses.replace(data, source=source)
    _refuse_binarization(data, how)
    train, valid, test = (split.under(_binarizing(split.transform)) for split in (data.train, data.valid, data.test))
    return Data(
        source=source,
        spec=dataclasses.replace(data.spec, kind="binary"),
        train=train.fixed(seeded_generator(source.seed, 1)) if how == "static" else train,
        valid=valid.fixed(seeded_generator(source.seed, 2)),
        test=test.fixed(seeded_generator(source.seed, 3)),
        scalars=data.scalars,
    )


def seeded_generator(seed: int, stream: int) -> Generator:
    """A CPU generator for one use of a seed: 0 the order of rows, 1 to 3 the noise of train, valid and test."""
    return Generator().manual_seed(int(np.random.SeedSequence([seed, stream]).generate_state(1)[0]))


def _refuse_binarization(data: Data, how: str) -> None:
    if data.spec.kind != "unit_interval":
        raise ValueError(
            f"expected values in [0, 1] for binarize={how!r}, got {data.spec.kind} data: scale them with scale='unit', or "
            "leave them with binarize='none'"
        )
    if data.spec.missing:
        raise ValueError(f"expected no missing entries for binarize={how!r}, got some: fill them, or use binarize='none'")


def _binarizing(transform: Transform) -> Transform:
    copied = copy.deepcopy(transform)
    copied.binarize = True
    return copied
