"""What every likelihood declaration offers, and the check of data against a likelihood's support."""

from __future__ import annotations

import abc
import dataclasses
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast, runtime_checkable

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Independent, constraints

from ppl_vae.data import Data
from ppl_vae.declaration import Declaration, family_members
from ppl_vae.deprecation import renamed_in
from ppl_vae.text import as_line
from ppl_vae.types import CATEGORICAL, Column, DataSpec, Kind

__all__ = ["Likelihood", "argument_of", "in_words", "point_prediction", "refuse_categories", "unreduced"]

REDECLARED: dict[tuple[str, str], str] = {
    ("unit_interval", "binary"): "binarize the data (binarize='dynamic')",
    ("unit_interval", "categorical"): "load images as levels (kind='categorical')",
    ("unit_interval", "count"): "load images as counts (kind='count')",
    ("binary", "categorical"): "declare them as categories (kind='categorical')",
    ("binary", "count"): "declare them as counts (kind='count')",
    ("count", "binary"): "recode them as 0 and 1 if they are two values, such as 1 and 2, or 0 and 255",
    ("real", "binary"): "recode them as 0 and 1 if they are two values, such as -1 and 1",
    ("count", "categorical"): "declare them as categories (kind='categorical')",
    ("categorical", "count"): "declare them as counts (kind='count')",
    ("real", "strokes"): "declare rows (dx, dy, pen) of different lengths as drawings (kind='strokes')",
}
"""How data of the first kind can be loaded as data of the second."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Likelihood(Declaration, abc.ABC):
    """p(x | h), the distribution of a datum given the decoder's features h.

    Class attributes:
        accepts: the kinds of data that lie in the support, or their names.
        factorizes: whether the elements of a datum are independent given h, so that each has a log-probability of its own.
        discrete: whether it gives probabilities of whole numbers; a density otherwise.
        filler: a value inside the support, which stands where a missing entry stood before it is masked out.
    """

    accepts: ClassVar[frozenset[Kind]]
    factorizes: ClassVar[bool] = True
    discrete: ClassVar[bool] = False
    filler: ClassVar[float] = 0.0

    @property
    @abc.abstractmethod
    def features(self) -> int:
        """P, how many decoder features each element of a datum needs."""

    def feature_shape(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the features of one datum, ``(P, *event_shape)``."""
        return (self.features, *event_shape)

    @property
    def missing(self) -> bool:
        """Whether entries may be missing (NaN)."""
        return False

    @property
    def log_mean(self) -> int | None:
        """Which of the features is the logarithm of the mean, of what is no extra zero; ``None`` where none is."""
        return None

    @property
    def unit_free(self) -> bool:
        """Whether a shift and a scale of the data are answered by another location and scale that are learned."""
        return False

    @property
    def one_scale(self) -> bool:
        """Whether one scale, learned or fixed, serves all elements, so that those that vary most count most."""
        return False

    def free_units(self, event_shape: tuple[int, ...]) -> Tensor | None:
        """Which elements ``(*event)`` are to be standardized by themselves since others cannot be; else ``None``."""
        return None

    def real_elements(self, event_shape: tuple[int, ...]) -> Tensor | None:
        """Which elements ``(*event)`` are real numbers, where others are codes or counts; else ``None``."""
        return None

    def spare(self, highest: Callable[[], Tensor]) -> str:
        """What of it data leave unused whose ``highest`` values ``(*event)`` can be asked for, and the remedy; or nothing."""
        return ""

    def settled(self, data: Data) -> Likelihood:
        """This likelihood with what it leaves to the data declared: itself where it leaves nothing.

        Raises:
            ValueError: data that it cannot be settled by.
        """
        return self

    @abc.abstractmethod
    def build(self, event_shape: tuple[int, ...]) -> nn.Module:
        """A module that maps features ``(..., P, *event_shape)`` to a distribution with that event shape.

        If the likelihood factorizes it is an ``Independent`` over exactly the event's dimensions. The module of one that leaves
        out missing entries has the attribute ``missing``.
        """

    @abc.abstractmethod
    def story(self, features: str) -> str:
        """The density as it stands in a model's story, such as ``Bernoulli(logits = MLP(z))``."""

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` with the remedy if data of this kind do not lie in the support."""
        self.check_columns(spec.table)
        if spec.kind in self.accepts:
            return
        remedies = [remedy for kinds, remedy in REDECLARED.items() if kinds[0] == spec.kind and kinds[1] in self.accepts]
        others = [
            cls.__name__ for cls in family_members(Likelihood) if spec.kind in _class_accepts(cast(type[Likelihood], cls))
        ]
        remedies += [f"use a likelihood on {spec.kind} data ({', '.join(others)})"] if others else []
        raise ValueError(
            f"{type(self).__name__} is a likelihood of {' or '.join(sorted(map(str, self.accepts)))} data, but these data are "
            f"{spec.kind}: {', or '.join(remedies)}"
        )

    def check_columns(self, table: tuple[Column, ...]) -> None:
        """Raise ``ValueError`` with the remedy if columns of a table hold categories that this is no density of."""
        if CATEGORICAL not in self.accepts:
            refuse_categories(type(self).__name__, table)

    def check_values(self, x: Tensor) -> None:
        """Raise ``ValueError`` if data x ``(n, *event)``, as the model sees them, leave the support.

        The kind of the data cannot tell everything: how large a count is, or what stands in a column of a table.
        """
        event_shape = tuple(x.shape[1:])
        features = torch.zeros_like(x[:1], dtype=x.dtype if x.is_floating_point() else torch.get_default_dtype())
        support = self.build(event_shape).to(features)(features.new_zeros(self.features, *event_shape)).support
        outside = ~support.check(x)
        if bool(outside.any()):
            row = int(outside.nonzero()[0])
            raise ValueError(
                f"{type(self).__name__}: expected every value in the support of {in_words(support)}, got "
                f"{int(outside.sum())} of {len(x)} rows with values outside it, the first of them row {row}"
                f"{_value_outside(support, x[row])}: correct those rows, or use another likelihood"
            )


def in_words(support: Any) -> str:
    """A constraint of values, in words where they are whole numbers.

    Examples:
        >>> in_words(constraints.nonnegative_integer), in_words(constraints.boolean)
        ('whole numbers from 0 on', '0 and 1')
    """
    if isinstance(support, constraints.independent):
        return in_words(support.base_constraint)
    if isinstance(support, type(constraints.boolean)):
        return "0 and 1"
    if isinstance(support, type(constraints.nonnegative_integer)):
        return f"whole numbers from {float(support.lower_bound):g} on"
    if isinstance(support, constraints.integer_interval):
        low, high = (torch.as_tensor(bound).max().item() for bound in (support.lower_bound, support.upper_bound))
        return f"whole numbers from {low:g} to {high:g}"
    return as_line(support, 120)


def _value_outside(support: Any, x: Tensor) -> str:
    """Which value of a row ``(D,)`` is outside, where each is checked by itself."""
    inside = support.base_constraint.check(x[None])[0] if isinstance(support, constraints.independent) else x
    if x.dim() != 1 or inside.shape != x.shape or inside.dtype != torch.bool:
        return ""
    column = int((~inside).nonzero()[0])
    return f", which holds {float(x[column]):g} in column {column}"


def refuse_categories(what: str, columns: Iterable[Column]) -> None:
    """Raise ``ValueError`` if some of the columns hold categories, in no order, that ``what`` would take for numbers.

    Two levels are as good as the numbers 0 and 1.
    """
    if names := [column.name for column in columns if column.kind == "category"]:
        told = ", ".join(names[:10]) + (f", ... ({len(names)})" if len(names) > 10 else "")
        raise ValueError(
            f"{what} is a density of numbers, but there are columns of categories ({told}): leave them out (drop, "
            "--data.drop), make one the label (label, --data.label), or fit a VAE with likelihood: auto, which takes them"
        )


def unreduced(distribution: dist.Distribution, event_dim: int) -> dist.Distribution:
    """The distributions of the elements of a datum, where these are independent: every event dimension a batch dimension."""
    return distribution.base_dist if event_dim else distribution


@runtime_checkable
class Central(Protocol):
    """A distribution whose mean would be no datum, and that says what stands for it instead."""

    point_prediction: Tensor


def argument_of(features: str) -> str:
    """What features are a function of, as the stories of likelihoods with several of them say it.

    Examples:
        >>> argument_of("MADE(x_<t)"), argument_of("h[s_t]"), argument_of("W z + b")
        ('x_<t', 's_t', 'z')
    """
    found = re.fullmatch(r"\w+[(\[](.*)[)\]]", features)
    return found[1] if found else "z"


def point_prediction(distribution: dist.Distribution) -> Tensor:
    """The datum that stands for p(x | h): its mean, or its own ``point_prediction`` where a mean would be no datum.

    Codes in no order are the case: between the first and the third category does not lie the second.
    """
    if isinstance(distribution, Central):
        return distribution.point_prediction
    return point_prediction(distribution.base_dist) if isinstance(distribution, Independent) else distribution.mean


def _class_accepts(cls: type[Likelihood]) -> frozenset[Kind]:
    """The kinds that every instance of a likelihood accepts; none for a wrapper, which accepts what its inner one does."""
    accepts: Any = cls.accepts
    return accepts if isinstance(accepts, frozenset) else frozenset()


def _likelihoods() -> list[type[Likelihood]]:
    return cast(list[type[Likelihood]], family_members(Likelihood))


if not TYPE_CHECKING:  # for which every name would exist
    __getattr__ = renamed_in(__name__, {"central": "point_prediction", "elements": "unreduced"})
