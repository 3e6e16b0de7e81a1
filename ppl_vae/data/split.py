"""Data in memory: three splits of raw values on one device, and the batches that the model sees."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Collection, Iterator
from typing import Literal

import numpy as np
import torch
from torch import Generator, Tensor

from ppl_vae.data.source import DataSource, choice
from ppl_vae.data.transform import Transform
from ppl_vae.types import DataSpec, Kind

__all__ = ["Data", "Split", "binarized", "seeded"]


class Split:
    """Rows of raw data, their labels, and the transform that shows them to the model.

    Args:
        x: raw data ``(N, *event)`` in their smallest dtype: uint8, int32 or float32.
        y: class of each row, an index into ``DataSpec.classes``, ``(N,)`` int64; ``None`` without labels.
        transform: from raw values to what the model sees.
    """

    def __init__(self, x: Tensor, y: Tensor | None, transform: Transform) -> None:
        self.x = x
        self.y = y
        self.transform = transform

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        labels = "unlabelled" if self.y is None else "labelled"
        return f"Split({len(self)} x {tuple(self.x.shape[1:])}, {str(self.x.dtype).removeprefix('torch.')}, {labels})"

    def __getitem__(self, rows: int | slice | Tensor) -> Split:
        """The chosen rows: an index (kept as a split of one row), a slice, or a tensor of indices or booleans."""
        if isinstance(rows, int):
            rows = torch.arange(len(self))[rows][None]
        if isinstance(rows, Tensor):
            rows = rows.to(self.x.device)
        return Split(self.x[rows], None if self.y is None else self.y[rows], self.transform)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Split:
        """This split on another device, its model's view in another floating dtype; self stays as it is."""
        y = None if self.y is None else self.y.to(device=device)
        return Split(self.x.to(device=device), y, copy.deepcopy(self.transform).to(device=device, dtype=dtype))

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
        if batch_size < 1:
            raise ValueError(f"expected batch_size >= 1, got {batch_size}")
        if generator is not None and generator.device.type != self.x.device.type:
            raise ValueError(f"expected a generator on the data's device {self.x.device}, got one on {generator.device}")
        return self._batches(batch_size, generator)

    def transformed(self, generator: Generator | None = None) -> Tensor:
        """What the model sees of the whole split at once, ``(N, *event)``; made for plots and closed forms."""
        return self.transform(self.x, generator)

    def fixed(self, generator: Generator) -> Split:
        """The same rows, with the transform's noise drawn once from a CPU generator and kept in ``x``."""
        if not self.transform.noisy:
            return self
        home = self.to("cpu")
        x, transform = home.transform.freeze(home.x, generator)
        return Split(x, home.y, transform).to(self.x.device)

    def _batches(self, batch_size: int, generator: Generator | None) -> Iterator[Tensor]:
        device = self.x.device
        order = None if generator is None else torch.randperm(len(self), generator=generator, device=device)
        for start in range(0, len(self), batch_size):
            rows = slice(start, start + batch_size)
            yield self.transform(self.x[rows if order is None else order[rows]], generator)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Data:
    """A data set: its declaration, what models need to know of it, and its three splits.

    Args:
        source: the declaration from which the same data can be loaded again.
        spec: what the model sees.
        train: rows to fit to; any noise is drawn anew at every visit.
        valid: rows to choose and stop by; noise is drawn once, by the declared seed.
        test: rows to report on; noise is drawn once, by the declared seed.
    """

    source: DataSource
    spec: DataSpec
    train: Split
    valid: Split
    test: Split

    def __repr__(self) -> str:
        sizes = f"{len(self.train)} train, {len(self.valid)} valid, {len(self.test)} test"
        return f"Data({self.source.source}: {sizes}; {self.spec.kind} {self.spec.event_shape})"

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Data:
        """These data on another device, the model's view of them in another floating dtype; self stays as it is."""
        train, valid, test = (split.to(device, dtype) for split in (self.train, self.valid, self.test))
        return dataclasses.replace(self, train=train, valid=valid, test=test)

    def resolve(self, accepts: Collection[Kind]) -> Data:
        """Settle ``binarize="auto"`` for a likelihood that takes these kinds of values; identity if it is settled."""
        if self.source.binarize != "auto":
            return self
        return binarized(self, "dynamic" if self._should_binarize(accepts) else "none")

    def part(self, name: Literal["train", "valid", "test"], transform: Transform | None = None) -> Split:
        """One split by name; under the shift and scale of ``transform``, such as the one an earlier fit saw its data through.

        Binary data, and draws that were made already, know no shift and scale and stay.

        Raises:
            ValueError: another name, or a transform for data of another shape.
        """
        choice("split", name, ("train", "valid", "test"))
        split: Split = getattr(self, name)
        if transform is None or self.spec.kind == "binary":
            return split
        if transform.event_shape != self.spec.event_shape:
            raise ValueError(
                f"expected data of shape {transform.event_shape}, as the transform is for, got {self.spec.event_shape}"
            )
        loc, scale = transform.loc, transform.scale
        return Split(split.x, split.y, Transform(self.spec.event_shape, loc, scale, dequantize=split.transform.dequantize)).to(
            split.x.device, split.transform.loc.dtype
        )

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
    train, valid, test = (Split(s.x, s.y, _binarizing(s.transform)) for s in (data.train, data.valid, data.test))
    return Data(
        source=source,
        spec=dataclasses.replace(data.spec, kind="binary"),
        train=train.fixed(seeded(source.seed, 1)) if how == "static" else train,
        valid=valid.fixed(seeded(source.seed, 2)),
        test=test.fixed(seeded(source.seed, 3)),
    )


def seeded(seed: int, stream: int) -> Generator:
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
