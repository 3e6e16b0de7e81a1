"""The likelihood of tables whose columns are of different kinds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from ppl_vae.data import Data
from ppl_vae.declaration import Declaration, require
from ppl_vae.likelihoods.base import Likelihood, point_prediction
from ppl_vae.likelihoods.categorical import Levels
from ppl_vae.likelihoods.gaussian import Gaussian
from ppl_vae.likelihoods.masked import Masked
from ppl_vae.text import at_places, did_you_mean
from ppl_vae.types import BINARY, COUNT, REAL, UNIT_INTERVAL, Column, DataSpec, Kind

__all__ = ["ColumnConstraint", "ColumnDistribution", "ColumnGroup", "MixedTable"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColumnGroup(Declaration):
    """Columns of one kind and their likelihood.

    Args:
        columns: numbers of the columns, from 0, or their names, which are numbers as soon as the model meets the data; none for
            all that no other group names.
        likelihood: of these columns.

    Raises:
        ValueError: a column that is negative or named twice.

    Examples:
        >>> ColumnGroup(columns=(0, 3), likelihood=Bernoulli()).columns
        (0, 3)
    """

    columns: tuple[int | str, ...] = ()
    likelihood: Likelihood = Gaussian()

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        whole = all(isinstance(column, str) or (isinstance(column, int) and column >= 0) for column in self.columns)
        require(whole and len(set(self.columns)) == len(self.columns), "different columns, from 0", self.columns)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixedTable(Likelihood):
    """p(x | h) = prod_g p_g(x_g | h_g), a product over groups of columns, each with a likelihood of its own.

    Nazabal et al. 2020, "Handling incomplete heterogeneous data using VAEs". A categorical column holds its code 0, ...,
    levels - 1. The kind of the data is that of the whole table, mostly ``real``; what stands in each column is checked value by
    value. The decoder gives every column as many features as the largest group needs; a group uses the first of them.

    Columns may come in their natural units: those of groups with a location and a learned scale are standardized one by one,
    unless the data say how they are scaled themselves, and every number keeps the unit of the source. The decoder starts at the
    features under which the training rows are likeliest without z.

    Args:
        groups: the columns and their likelihoods; together they take every column once.

    Raises:
        ValueError: no group, a column in two groups, or two groups for all other columns; on checking, columns that
            the data do not have or that no group takes.

    Examples:
        >>> table = MixedTable(groups=(ColumnGroup(columns=(0,), likelihood=Poisson()), ColumnGroup()))
        >>> table.build((3,))(torch.zeros(1, 3)).mean
        tensor([1., 0., 0.])
    """

    accepts: ClassVar[frozenset[Kind]] = frozenset({REAL, UNIT_INTERVAL, COUNT, BINARY})
    factorizes: ClassVar[bool] = False

    groups: tuple[ColumnGroup, ...] = (ColumnGroup(),)

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(self.groups))
        named = [column for group in self.groups for column in group.columns]
        require(len(self.groups) >= 1, "at least one group of columns", self.groups)
        require(len(set(named)) == len(named), "every column in one group", named)
        require(sum(not group.columns for group in self.groups) <= 1, "one group at most for all other columns", self.groups)

    @property
    def features(self) -> int:
        """As many as the largest group needs."""
        return max(group.likelihood.features for group in self.groups)

    @property
    def missing(self) -> bool:
        """Whether entries of some columns may be missing."""
        return any(group.likelihood.missing for group in self.groups)

    def free_units(self, event_shape: tuple[int, ...]) -> Tensor | None:
        """The columns of groups with a location and a learned scale."""
        return self._where(event_shape, [group.likelihood.unit_free for group in self.groups])

    def real_elements(self, event_shape: tuple[int, ...]) -> Tensor | None:
        """The columns of groups that are densities of real numbers."""
        return self._where(event_shape, [REAL in group.likelihood.accepts for group in self.groups])

    def spare(self, highest: Callable[[], Tensor]) -> str:
        """Levels of categories that no row has: every column gets as many features as the largest group."""
        found, values = [], highest().flatten().nan_to_num(0.0)
        for group, columns in zip(self.groups, self._columns(len(values)), strict=True):
            levels = int(values[list(columns)].max()) + 1
            inner = group.likelihood.likelihood if isinstance(group.likelihood, Masked) else group.likelihood
            if isinstance(inner, Levels) and inner.levels > 2 * max(levels, 2):
                found.append(
                    f"columns {_text(columns)} hold codes up to {levels - 1}, and {type(inner).__name__} has {inner.levels} "
                    f"levels, for which the decoder learns features: declare levels={max(levels, 2)}"
                )
        return "; ".join(found)

    def settled(self, data: Data) -> MixedTable:
        """The same table with numbers in place of names.

        Raises:
            ValueError: a name that the data do not have.
        """
        groups = tuple(_numbered(group, data.spec.columns) for group in self.groups)
        return self if groups == self.groups else dataclasses.replace(self, groups=groups)

    def check_columns(self, table: tuple[Column, ...]) -> None:
        """Raise ``ValueError`` if a group of numbers has columns of categories, or one of categories too few levels."""
        if not table:
            return
        for group, places in zip(self.groups, self._columns(len(table)), strict=True):
            columns = tuple(table[place] for place in places)
            group.likelihood.check_columns(columns)
            inner = group.likelihood.likelihood if isinstance(group.likelihood, Masked) else group.likelihood
            most = max(columns, key=lambda column: len(column.categories))
            if isinstance(inner, Levels) and len(most.categories) > inner.levels:
                raise ValueError(
                    f"expected at most {inner.levels} categories in column {most.name!r}, got {len(most.categories)}: declare "
                    f"levels={len(most.categories)}"
                )

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` if the data are categorical as a whole, or the groups do not take every column once."""
        super().check(spec)
        self._columns(math.prod(spec.event_shape))

    def check_values(self, x: Tensor) -> None:
        """Raise ``ValueError`` if values of a group leave its support; the message numbers the group's columns."""
        for group, columns in zip(self.groups, self._columns(math.prod(x.shape[1:])), strict=True):
            try:
                group.likelihood.check_values(x.flatten(1)[:, list(columns)])
            except ValueError as error:
                raise ValueError(f"MixedTable, columns {_text(columns)}: {at_places(error, columns=columns)}") from None

    def build(self, event_shape: tuple[int, ...]) -> nn.Module:
        """A module from features ``(..., P, *event_shape)`` to the distribution; columns are those of the flattened datum.

        Raises:
            ValueError: groups that do not take every column once.
        """
        return MixedTableModule(event_shape, self.groups, self._columns(math.prod(event_shape)))

    def story(self, features: str) -> str:
        """The density as text: of each group with its columns, and where entries of them may be missing; of all, once."""
        masked = [isinstance(group.likelihood, Masked) for group in self.groups]
        told = [self._group_story(group, features, whole=all(masked)) for group in self.groups]
        return f"{' x '.join(told)}{', observed entries only' if all(masked) else ''}"

    def _group_story(self, group: ColumnGroup, features: str, *, whole: bool) -> str:
        likelihood, columns = group.likelihood, _text(group.columns)
        if not isinstance(likelihood, Masked):
            return f"{likelihood.story(features)}[{columns}]"
        return f"{likelihood.likelihood.story(features)}[{columns if whole else f'{columns}, where observed'}]"

    def _where(self, event_shape: tuple[int, ...], groups: list[bool]) -> Tensor:
        """The columns of the groups of which this is true, ``(*event)``."""
        found = torch.zeros(math.prod(event_shape), dtype=torch.bool)
        for true, columns in zip(groups, self._columns(len(found)), strict=True):
            found[list(columns)] = true
        return found.reshape(event_shape)

    def _columns(self, size: int) -> list[tuple[int, ...]]:
        """The columns of each group in a table of so many.

        Raises:
            ValueError: groups that do not take every column once, or names of columns, which are settled by data.
        """
        if names := [column for group in self.groups for column in group.columns if isinstance(column, str)]:
            raise ValueError(
                f"expected numbers of columns, got the names {', '.join(names)}: fit a model with them to data whose columns "
                "have names, or call .settled(data)"
            )
        named = {column for group in self.groups for column in group.columns}
        others = tuple(column for column in range(size) if column not in named)
        columns: list[tuple[Any, ...]] = [group.columns or others for group in self.groups]
        taken = sorted(column for group in columns for column in group)
        if taken != list(range(size)) or not all(columns):
            raise ValueError(
                f"expected groups that take the columns 0 to {size - 1} once, got {' and '.join(map(str, columns))}: "
                "change the groups' columns, or leave those of one group empty to give it all others"
            )
        return columns


class MixedTableModule(nn.Module):
    """Features of all columns to the distribution of a row."""

    starts_at_data = True

    order: Tensor

    def __init__(self, event_shape: tuple[int, ...], groups: tuple[ColumnGroup, ...], columns: list[tuple[int, ...]]) -> None:
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.sizes = [len(group) for group in columns]
        self.features = [group.likelihood.features for group in groups]
        self.missing = any(group.likelihood.missing for group in groups)
        self.likelihoods = nn.ModuleList(
            group.likelihood.build((size,)) for group, size in zip(groups, self.sizes, strict=True)
        )
        self.starts = tuple(_start(group) for group in columns)
        self.register_buffer("order", torch.tensor([column for group in columns for column in group]), persistent=False)

    def forward(self, features: Tensor) -> dist.Distribution:
        """p(x | h) for features h ``(..., P, *event)``."""
        grouped = _apart(features.flatten(-len(self.event_shape)), self.order, self.sizes, self.starts)
        parts = [
            likelihood(part.narrow(-2, 0, needed))
            for likelihood, part, needed in zip(self.likelihoods, grouped, self.features, strict=True)
        ]
        return ColumnDistribution(parts, self.order, self.event_shape, self.starts)


class ColumnDistribution(dist.TorchDistribution):
    """Independent distributions of groups of columns, which together are a row.

    Args:
        parts: the distribution of each group, event shape ``(columns of the group,)``.
        order: the columns of the first group, then of the second, ...
        event_shape: shape of the row.
        starts: the first column of each group whose columns follow each other, ``None`` of the others; by default of all.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        parts: list[dist.Distribution],
        order: Tensor,
        event_shape: torch.Size,
        starts: tuple[int | None, ...] | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.parts = parts
        self.order = order
        self.starts = (None,) * len(parts) if starts is None else starts
        super().__init__(parts[0].batch_shape, event_shape, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """Every group in its own support."""
        sizes = [part.event_shape[0] for part in self.parts]
        return ColumnConstraint([part.support for part in self.parts], sizes, self.order, len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        """The mean of each column."""
        return self._row([part.mean for part in self.parts])

    @property
    def point_prediction(self) -> Tensor:
        """What stands for each column: its mean, of a categorical one the most probable code."""
        return self._row([point_prediction(part) for part in self.parts])

    def expand(self, batch_shape: Any, _instance: Any = None) -> ColumnDistribution:
        """The same distribution with a larger batch shape."""
        parts = [part.expand(torch.Size(batch_shape)) for part in self.parts]
        return ColumnDistribution(parts, self.order, self.event_shape, self.starts, validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """The sum of the groups' log-probabilities."""
        if self._validate_args:
            self._validate_sample(value)
        sizes = [part.event_shape[0] for part in self.parts]
        columns = _apart(value.flatten(-len(self.event_shape)), self.order, sizes, self.starts)
        return torch.stack([part.log_prob(x) for part, x in zip(self.parts, columns, strict=True)]).sum(0)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Rows, each group drawn by itself."""
        return self._row([part.sample(torch.Size(sample_shape)) for part in self.parts])

    def _row(self, columns: list[Tensor]) -> Tensor:
        """The groups' columns in the order of the table."""
        return torch.cat(columns, dim=-1).index_select(-1, self.order.argsort()).unflatten(-1, self.event_shape)


class ColumnConstraint(constraints.Constraint):
    """Every group of columns satisfies its own constraint."""

    def __init__(self, supports: list[constraints.Constraint], sizes: list[int], order: Tensor, event_dim: int) -> None:
        self.supports = supports
        self.sizes = sizes
        self.order = order
        self.event_dim = event_dim
        self.is_discrete = all(support.is_discrete for support in supports)
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Whether each row is in the support."""
        columns = value.flatten(-self.event_dim).index_select(-1, self.order).split(self.sizes, dim=-1)
        return torch.stack([support.check(x) for support, x in zip(self.supports, columns, strict=True)]).all(0)

    def __repr__(self) -> str:
        return f"columns in {', '.join(map(str, self.supports))}"


def _start(columns: tuple[int, ...]) -> int | None:
    """The first of columns that follow each other."""
    return columns[0] if columns == tuple(range(columns[0], columns[0] + len(columns))) else None


def _apart(x: Tensor, order: Tensor, sizes: list[int], starts: tuple[int | None, ...]) -> list[Tensor]:
    """The columns of each group; those that follow each other as they lie: the gradient of what is picked is scattered."""
    picked = zip(order.split(sizes), sizes, starts, strict=True)
    return [x.index_select(-1, at) if start is None else x.narrow(-1, start, size) for at, size, start in picked]


def _numbered(group: ColumnGroup, names: tuple[str, ...]) -> ColumnGroup:
    """A group whose columns are numbers."""
    for column in group.columns:
        if isinstance(column, str) and column not in names:
            near = did_you_mean(column, names)
            known = ", ".join(names[:20]) or "none, for these data have no names of columns"
            raise ValueError(f"expected names of columns among {known}, got {column!r}{near and ': '}{near}")
    if not any(isinstance(column, str) for column in group.columns):
        return group
    numbers = tuple(names.index(column) if isinstance(column, str) else column for column in group.columns)
    return dataclasses.replace(group, columns=numbers)


def _text(columns: tuple[int | str, ...]) -> str:
    return ", ".join(map(str, columns)) or "others"
