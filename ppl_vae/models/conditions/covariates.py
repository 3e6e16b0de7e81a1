"""Fields beside x as a condition: categories and numbers that nobody wants in the codes, and how much of x was counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from ppl_vae.data import Data
from ppl_vae.declaration import require
from ppl_vae.models.conditions.base import Condition, ConditionModule
from ppl_vae.program.hooks import Start
from ppl_vae.types import DataSpec, Field

__all__ = ["Covariates"]

TOTAL = "total"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Covariates(Condition):
    """Batches, nuisances and sizes: decoder and encoder are told them, so that the codes need not hold them.

    As in Lopez et al. 2018, "Deep generative modeling for single-cell transcriptomics". ``categories`` come one-hot, and
    ``numbers`` with mean 0 and standard deviation 1 over the training rows. All are fields beside x: columns that
    ``load_data(..., fields=("batch", "mito"))`` takes out of a table or of the observations of an AnnData, or arrays in a
    mapping, ``{"x": x, "batch": batch}``. New rows bring them by the same names; a level that no row of the fit's data had is
    an error.

    ``size_factors`` multiply the mean of x, whose logarithm the decoder gives, once, and no network is told them:

    - ``total``: s_n = sum_d x_nd, at least 1, and the mean is s_n softmax(h)_d, so that softmax(h) are proportions;
    - the name of a field of positive numbers: the mean is (s_n / g) exp(h_d), g their geometric mean over the training rows.

    Every number of a fit, such as its ELBO, then bounds log p(x | y), given these as they are: log p(x_n | s_n), with all
    constants, is that of counts whose *expected* total is known, and compares with other numbers under the same sizes alone.

    Args:
        categories: names of fields of texts, whole numbers or booleans.
        numbers: names of fields of numbers.
        size_factors: ``total``, the name of a field, or none.

    Raises:
        ValueError: no covariate, or one named twice; on checking, data without one of them.

    Examples:
        >>> print(CVAE(condition=Covariates(categories=("batch",), size_factors="total"), prior=StandardNormal(),
        ...            likelihood=Poisson(), latent_dim=2))
        y = batch, s = total of x; z ~ Normal(0, I_2); x | z, y ~ Poisson(s softmax MLP(z, y))
    """

    categories: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    size_factors: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "categories", tuple(self.categories))
        object.__setattr__(self, "numbers", tuple(self.numbers))
        names = self.covariates
        require(0 < len(set(names)) == len(names), "covariates of different names, at least one", names)
        require(TOTAL not in (*self.categories, *self.numbers), f"no field called {TOTAL}, which is that of x", names)

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields that it is made of."""
        return tuple(name for name in self.covariates if name != TOTAL)

    @property
    def covariates(self) -> tuple[str, ...]:
        """The names of all that is known, the size last."""
        return (*self.categories, *self.numbers, *([] if self.size_factors is None else [self.size_factors]))

    @property
    def sized(self) -> bool:
        """Whether there are size factors."""
        return self.size_factors is not None

    @property
    def rate(self) -> str:
        """What the size multiplies, as it stands in a story."""
        return "softmax" if self.size_factors == TOTAL else "exp"

    def resolve(self, data: Data) -> Data:
        """The data with these fields as they are taken."""
        sizes = [name for name in self.fields if name == self.size_factors]
        return data.with_covariates(categories=self.categories, numbers=self.numbers, sizes=sizes) if self.fields else data

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` with the remedy if the data lack one of the fields, or have it as something else."""
        known = {field.name: field for field in spec.fields[1:]}
        for name in self.fields:
            field, got = known.get(name), ", ".join(known) or "none"
            expected = "a category, with its levels" if name in self.categories else "a number"
            levelled = field is not None and bool(field.vocabulary)
            if field is None or field.event_shape or levelled != (name in self.categories) or field.ragged:
                raise ValueError(
                    f"expected the field {name} beside x, {expected} for each row, got the fields {got}: "
                    f"load the data with fields=({name!r}, ...), and build for model.resolve(data).spec"
                )

    def build(self, spec: DataSpec) -> ConditionModule:
        """A module from x and the fields to columns ``(..., C)``, and log s behind them where there are sizes."""
        known = {field.name: field for field in spec.fields}
        return CovariatesModule(self, [known[name] for name in self.categories], spec.event_shape)

    def story(self) -> str:
        """What y is."""
        size = {None: [], TOTAL: ["s = total of x"]}.get(self.size_factors, [f"s = {self.size_factors}"])
        return ", ".join([*self.categories, *self.numbers, *size])


class CovariatesModule(ConditionModule):
    """One-hot levels, numbers, and log s where there are sizes, in this order.

    The buffer ``typical`` is the mean of log s over the training rows, for data without a size of their own.
    """

    codes: Tensor
    typical: Tensor

    def __init__(self, declared: Covariates, categories: list[Field], event_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.declared = declared
        self.levels = [len(field.vocabulary) for field in categories]
        self.columns = sum(self.levels) + len(declared.numbers)
        self.event_shape = event_shape
        self.register_buffer("codes", torch.eye(max(self.levels, default=1)), persistent=False)
        self.register_buffer("typical", torch.zeros(()))

    def forward(self, *batch: Tensor) -> Tensor:
        """Of x ``(..., *event)`` and the fields ``(...)``."""
        return self.columns_of(self.values(*batch))

    def values(self, *batch: Tensor) -> dict[str, Tensor]:
        """The covariates of a batch by name, each ``(...)``; sizes as programs get them."""
        found = dict(zip(self.declared.fields, batch[1:], strict=True))
        if self.declared.size_factors == TOTAL:
            found[TOTAL] = self.sizes(batch[0])
        return found

    def columns_of(self, values: Mapping[str, Tensor]) -> Tensor:
        """Columns of covariates by name, whose shapes are broadcast."""
        declared = self.declared
        same = torch.broadcast_tensors(*(values[name] for name in declared.covariates))
        named = dict(zip(declared.covariates, same, strict=True))
        widths = zip(declared.categories, self.levels, strict=True)
        parts = [self.codes[named[name]][..., :levels] for name, levels in widths]
        parts += [named[name][..., None].to(self.codes) for name in declared.numbers]
        if declared.size_factors is not None:
            parts.append(named[declared.size_factors][..., None].to(self.codes).log())
        return torch.cat(parts, dim=-1)

    def shown(self, c: Tensor) -> Tensor:
        """What networks see: all but the size."""
        return c[..., : self.columns]

    def with_size(self, features: Tensor, c: Tensor, place: int | None) -> Tensor:
        """Features ``(..., P, *event)``, the one that is the logarithm of the mean scaled by the size."""
        if place is None or not self.declared.sized:
            return features
        axis = -1 - len(self.event_shape)
        h = features.select(axis, place)
        if self.declared.size_factors == TOTAL:
            h = h.flatten(-len(self.event_shape)).log_softmax(-1).unflatten(-1, self.event_shape)
        h = h + c[..., -1].reshape(*c.shape[:-1], *(1 for _ in self.event_shape))
        before, _, after = features.split([place, 1, features.shape[axis] - place - 1], axis)
        return torch.cat([before, h.unsqueeze(axis), after], axis)

    def start_fit(self, context: Start) -> None:
        """Learn the typical total."""
        self.typical.copy_(self.sizes(context.sample).log().mean())

    def sizes(self, x: Tensor) -> Tensor:
        """The totals ``(...)`` of x ``(..., *event)``, where these are the sizes; else 1, which is typical of others."""
        if self.declared.size_factors != TOTAL:
            return x.new_ones(x.shape[: x.dim() - len(self.event_shape)])
        return x.flatten(-len(self.event_shape)).nansum(-1).clamp_min(1.0)

    def default(self, name: str) -> Tensor | None:
        """A covariate ``(1,)`` of data that do not bring it; none of a category, whose levels are no average of each other."""
        if name in self.declared.categories:
            return None
        return self.typical.exp()[None] if name == self.declared.size_factors else torch.zeros_like(self.typical)[None]
