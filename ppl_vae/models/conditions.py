"""What a conditional model is given: labels beside the data, or a part of the data.

A condition's module maps a batch to columns ``(..., C)``. Those of a part of x hold its entries, and turn p(x | z) of all of x
into that of its other entries.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from ppl_vae.declaration import Declaration, require
from ppl_vae.likelihoods.base import elements
from ppl_vae.nn import inputs
from ppl_vae.types import DataSpec

__all__ = ["Columns", "Condition", "Labels", "Quadrants"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Condition(Declaration, abc.ABC):
    """What a conditional model is given, written y in its story.

    Class attributes:
        labelled: whether it is labels, which stand beside the data.
    """

    labelled: ClassVar[bool] = False

    @abc.abstractmethod
    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` with the remedy if such data do not have it."""

    def known(self, event_shape: tuple[int, ...]) -> Tensor | None:
        """Which entries of a datum are given, ``(*event)``, or ``None`` if it is no part of x."""
        return None

    @abc.abstractmethod
    def build(self, spec: DataSpec) -> ConditionModule:
        """A module from a batch to the condition."""

    @abc.abstractmethod
    def story(self) -> str:
        """What y is."""


class ConditionModule(nn.Module):
    """From a batch, x ``(..., *event)`` and perhaps labels, to columns ``(..., C)``.

    Attributes:
        columns: C.
    """

    columns: int

    def forward(self, *batch: Tensor) -> Tensor:
        """The condition of each datum."""
        raise NotImplementedError

    def shown(self, c: Tensor) -> Tensor:
        """What networks see of columns ``(..., C)``."""
        return c

    def complete(self, likelihood: dist.Distribution, c: Tensor, filler: float) -> dist.Distribution:
        """P(x | z, y) from the likelihood of all of x: the same, unless y is a part of x."""
        return likelihood


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part(Condition, abc.ABC):
    """Entries of x, which are then not modelled."""

    @abc.abstractmethod
    def known(self, event_shape: tuple[int, ...]) -> Tensor:
        """Which entries are given, ``(*event)``."""

    def build(self, spec: DataSpec) -> ConditionModule:
        """A module from x ``(..., *event)`` to the entries that are given."""
        return PartModule(self.known(spec.event_shape), inputs.standardized(spec))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labels(Condition):
    """The class of each datum, one-hot.

    Example:
        >>> spec = DataSpec(event_shape=(2,), kind="real", size=10, classes=("cat", "dog"))
        >>> Labels().build(spec)(torch.zeros(2, 2), torch.tensor([1, 0]))
        tensor([[0., 1.],
                [1., 0.]])
    """

    labelled: ClassVar[bool] = True

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` with the remedy if the data have no classes."""
        if not spec.classes:
            raise ValueError(
                "a model conditioned on labels needs labelled data, but these have no labels: name their column (label=...), "
                "give them to load_data (y=...), or use a model without labels, such as VAE"
            )

    def build(self, spec: DataSpec) -> ConditionModule:
        """A module from x and labels y ``(...)`` to ``(..., classes)``."""
        return LabelsModule(len(spec.classes))

    def story(self) -> str:
        """What y is."""
        return "class of x"


class LabelsModule(ConditionModule):
    """One-hot codes, the rows of the buffer ``codes (C, C)``."""

    codes: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.columns = classes
        self.register_buffer("codes", torch.eye(classes), persistent=False)

    def forward(self, *batch: Tensor) -> Tensor:
        """One-hot labels, the last of the batch."""
        return self.codes[batch[-1]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns(Part):
    """Columns of a flat table, which are not modelled.

    Args:
        columns: their numbers, from 0.

    Raises:
        ValueError: no column, a negative one or one named twice; on checking, data that are no table, or have no such column
            or no other.

    Example:
        >>> spec = DataSpec(event_shape=(3,), kind="real", size=10)
        >>> Columns(columns=(2,)).build(spec)(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[3.]])
    """

    columns: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        whole = all(isinstance(column, int) and column >= 0 for column in self.columns)
        require(whole and 0 < len(set(self.columns)) == len(self.columns), "different columns, from 0", self.columns)

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` if the data are no table with these columns and others."""
        flat = len(spec.event_shape) == 1
        if not flat or max(self.columns) >= spec.event_shape[0] or len(self.columns) >= spec.event_shape[0]:
            raise ValueError(
                f"expected a table with the columns {', '.join(map(str, self.columns))}, numbered from 0, and others to model, "
                f"got data of shape {spec.event_shape}: name columns of these data"
            )

    def known(self, event_shape: tuple[int, ...]) -> Tensor:
        """Which columns are given, ``(D,)``."""
        known = torch.zeros(event_shape, dtype=torch.bool)
        known[list(self.columns)] = True
        return known

    def story(self) -> str:
        """What y is."""
        return f"columns {', '.join(map(str, self.columns))} of x"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quadrants(Part):
    """Quadrants of an image, whose others are completed (Sohn, Lee and Yan 2015).

    Args:
        observed: how many are given: the lower left one, then the upper left, then the upper right.

    Raises:
        ValueError: not 1, 2 or 3; on checking, data that are no images of at least 2 x 2.

    Example:
        >>> spec = DataSpec(event_shape=(1, 28, 28), kind="binary", size=10)
        >>> Quadrants(observed=2).build(spec)(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 392])
    """

    observed: int = 1

    def __post_init__(self) -> None:
        require(self.observed in (1, 2, 3), "1, 2 or 3 observed quadrants", self.observed)

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` if the data are no images."""
        if len(spec.event_shape) < 2 or min(spec.event_shape[-2:]) < 2:
            raise ValueError(
                f"expected images (channels, height, width) to take quadrants of, got data of shape {spec.event_shape}"
            )

    def known(self, event_shape: tuple[int, ...]) -> Tensor:
        """Which pixels are given, ``(*event)``."""
        *_, height, width = event_shape
        lower, upper = slice(height // 2, None), slice(height // 2)
        left, right = slice(width // 2), slice(width // 2, None)
        known = torch.zeros(event_shape, dtype=torch.bool)
        for rows, columns in ((lower, left), (upper, left), (upper, right))[: self.observed]:
            known[..., rows, columns] = True
        return known

    def story(self) -> str:
        """What y is."""
        return f"{self.observed} of the 4 quadrants of x"


class PartModule(ConditionModule):
    """The entries of x where ``known (*event)`` is true, in their order."""

    known: Tensor
    places: Tensor

    def __init__(self, known: Tensor, standardized: nn.Module) -> None:
        super().__init__()
        self.standardized = standardized
        self.columns = int(known.sum())
        self.register_buffer("known", known, persistent=False)
        self.register_buffer("places", known.flatten().nonzero().squeeze(-1), persistent=False)

    def forward(self, *batch: Tensor) -> Tensor:
        """What is given of x."""
        return batch[0].flatten(-self.known.dim()).index_select(-1, self.places)

    def shown(self, c: Tensor) -> Tensor:
        """The given entries as networks are shown such data."""
        return self.standardized(c)

    def complete(self, likelihood: dist.Distribution, c: Tensor, filler: float) -> dist.Distribution:
        """P(x | z, y), which has x's given entries for certain and their log-probability is 0."""
        blank = c.new_zeros(*c.shape[:-1], self.known.numel())
        values = blank.index_copy(-1, self.places, c).unflatten(-1, self.known.shape)
        parts = elements(likelihood, self.known.dim())
        return Completed(parts, self.known, values, filler).to_event(self.known.dim())


class KnownOr(constraints.Constraint):
    """Any value where it is known, elsewhere those of a constraint.

    Args:
        base_constraint: of a value that is not known.
        known: which are, of the event's shape.
    """

    def __init__(self, base_constraint: constraints.Constraint, known: Tensor) -> None:
        self.base_constraint = base_constraint
        self.is_discrete = base_constraint.is_discrete
        self.known = known
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Whether each value is known or satisfies the base."""
        return self.known | self.base_constraint.check(value)


class Completed(dist.TorchDistribution):
    """A distribution of single elements, some of which are known.

    Args:
        base: of all elements ``(..., *event)``.
        known: which ones are known, ``(*event)``; their log-probability is 0.
        values: theirs, ``(..., *event)``, anything elsewhere.
        filler: a value inside the base's support.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(
        self, base: dist.Distribution, known: Tensor, values: Tensor, filler: float, validate_args: bool | None = None
    ) -> None:
        self.base_dist = base
        self.known = known
        self.values = values
        self.filler = filler
        shape = torch.broadcast_shapes(base.batch_shape, values.shape)
        super().__init__(shape, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """That of the base, where it is not known."""
        return KnownOr(self.base_dist.support, self.known)

    @property
    def mean(self) -> Tensor:
        """The known values among the means of the others."""
        return torch.where(self.known, self.values, self.base_dist.mean)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Completed:
        """The same distribution with a larger batch shape."""
        values = self.values.expand(batch_shape)
        return Completed(self.base_dist.expand(batch_shape), self.known, values, self.filler, validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-probability of each element; the filler keeps what the base cannot take out of the gradients too."""
        return torch.where(self.known, 0.0, self.base_dist.log_prob(torch.where(self.known, self.filler, value)))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws of what is not known."""
        draws = self.base_dist.expand(self.batch_shape).sample(torch.Size(sample_shape))
        return torch.where(self.known, self.values, draws)
