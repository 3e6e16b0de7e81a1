"""A data set: three splits of raw values under one declaration, and what a model settles of it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Collection
from typing import Any, Literal

import torch
from torch import Tensor

from ppl_vae.data.columns import natural_columns, scaled_columns
from ppl_vae.data.covariates import as_covariates
from ppl_vae.data.described import TableSummary, summary_of
from ppl_vae.data.fields import described
from ppl_vae.data.matching import shown
from ppl_vae.data.seeds import seeded_generator
from ppl_vae.data.source import DataSource, choice
from ppl_vae.data.split import Split
from ppl_vae.data.transform import Transform
from ppl_vae.types import BINARY, REAL, DataSpec, Kind

__all__ = ["Data", "binarized"]


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
        weighted = self.train.weights is not None
        counted = f"; weighted: {self.train.effective_number:.4g} effective train rows" if weighted else ""
        return f"Data({self.source.source}: {sizes}; {self.spec.kind} {self.spec.event_shape}{counted})"

    def summary(self) -> TableSummary:
        """The columns of a table to print: what each is taken for (kind), what it holds (dtype), its levels and its values.

        Of data without columns it is the line that ``repr`` gives.

        Examples:
            >>> data = load_data([["a", 0.5], ["b", 1.5], ["c", 2.5]], valid=0.0, test=0.0)
            >>> print(data.summary())
            Data(array: 3 train, 0 valid, 0 test; real (2,))
            column  kind      dtype  levels  missing  values
            0       category  text   3                a, b, c
            1       real      float                   0.5 to 2.5
        """
        return summary_of(repr(self), self.train, self.spec.table)

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

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
        scaled = None if free is None else scaled_columns(data.source, data.spec.kind, data.train, free)
        if scaled is not None:
            spec = dataclasses.replace(data.spec, kind=REAL, levels=None)
            data = dataclasses.replace(data._under(scaled), spec=spec)
        natural = None if real is None else natural_columns(data.source, data.train, ~real)
        return data if natural is None else data._under(natural)

    def with_covariates(
        self, *, categories: Collection[str] = (), numbers: Collection[str] = (), sizes: Collection[str] = ()
    ) -> Data:
        """The same data, the named fields beside x as a model takes its covariates.

        Args:
            categories: become places among their levels, those of all rows.
            numbers: are shown with mean 0 and standard deviation 1 over the training rows.
            sizes: are shown over their geometric mean over the training rows.

        Raises:
            ValueError: a field that is not there or not such.
        """
        names = ("train", "valid", "test")
        parts: list[Split] = [getattr(self, name) for name in names]
        found = as_covariates([part.fields for part in parts], categories=categories, numbers=numbers, sizes=sizes)
        splits: dict[str, Any] = {
            name: part.matched(part.raw, fields) for name, part, fields in zip(names, parts, found, strict=True)
        }
        first = self.spec.fields[0].name if self.spec.fields else "x"
        fields = described(first, self.spec.event_shape, self.train.raw, found[0]) if found[0].columns else ()
        return dataclasses.replace(self, spec=dataclasses.replace(self.spec, fields=fields), **splits)

    @property
    def parts(self) -> dict[str, Split]:
        """The splits by name."""
        return {"train": self.train, "valid": self.valid, "test": self.test}

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

    def _under(self, transform: Transform) -> Data:
        train, valid, test = (split.under(transform) for split in (self.train, self.valid, self.test))
        return dataclasses.replace(self, train=train, valid=valid, test=test)

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
        spec=dataclasses.replace(data.spec, kind=BINARY),
        train=train.fixed(seeded_generator(source.seed, 1)) if how == "static" else train,
        valid=valid.fixed(seeded_generator(source.seed, 2)),
        test=test.fixed(seeded_generator(source.seed, 3)),
        scalars=data.scalars,
    )


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
