"""The likelihood of a table that is proposed from its columns."""

from __future__ import annotations

import dataclasses
import functools
import math
from operator import or_
from typing import ClassVar, Literal, NoReturn

import numpy as np
from torch import nn

from ppl_vae.data import Data
from ppl_vae.data.cells import Numbers
from ppl_vae.data.summary import moments_of
from ppl_vae.declaration import also_called
from ppl_vae.likelihoods.base import Likelihood
from ppl_vae.likelihoods.bernoulli import Bernoulli
from ppl_vae.likelihoods.categorical import Categorical
from ppl_vae.likelihoods.gaussian import Gaussian
from ppl_vae.likelihoods.masked import Masked
from ppl_vae.likelihoods.mixed_table import ColumnGroup, MixedTable
from ppl_vae.likelihoods.negative_binomial import NegativeBinomial
from ppl_vae.likelihoods.poisson import Poisson
from ppl_vae.types import BINARY, COUNT, REAL, UNIT_INTERVAL, Kind

__all__ = ["Auto"]

CHANCE = 4.0  # standard errors of a Poisson's ratio of variance to mean, beyond which it is not by chance


@dataclasses.dataclass(frozen=True, kw_only=True)
class Auto(Likelihood):
    """A :class:`MixedTable` proposed from the data that the model meets, which is then what the fit and its run declare.

    =========  ==================================================================================================
    column     likelihood
    =========  ==================================================================================================
    real       Gaussian, a learned scale each; standardized, its Jacobian counted, unless the data say their scale
    binary     Bernoulli
    category   Categorical of as many levels as the column has categories, a group for each number of them
    count      Poisson; NegativeBinomial if the training rows' variance exceeds their mean by more than chance,
               four standard errors of a Poisson's
    =========  ==================================================================================================

    What a column is its :class:`~ppl_vae.Column` says; of data without such, numbers alone, it is guessed likewise, element by
    element. If entries of the data are missing, each is ``Masked``.

    Raises:
        ValueError: on meeting the data, rows of different lengths, or data declared as categories as a whole.

    Examples:
        >>> data = load_data([["a", 0.5], ["b", 1.5], ["c", 2.5], ["a", 0.1]], valid=0.0, test=0.0)
        >>> print(VAE(latent_dim=1, likelihood=Auto()).settled(data).likelihood.story("h"))
        Normal(h, diag(sigma^2))[1] x Categorical(softmax h, 3 levels)[0]
    """

    accepts: ClassVar[frozenset[Kind]] = frozenset({REAL, UNIT_INTERVAL, COUNT, BINARY})
    factorizes: ClassVar[bool] = False

    @property
    def features(self) -> int:
        """Not known before the data are."""
        self._refuse()

    def settled(self, data: Data) -> MixedTable:
        """The table of these data."""
        if data.spec.ragged or data.spec.kind not in self.accepts:
            what = "rows of different lengths" if data.spec.ragged else f"{data.spec.kind} data"
            raise ValueError(f"expected a table for likelihood: auto, got {what}: name a likelihood of such data")
        if len(shape := data.spec.event_shape) != 1:
            raise ValueError(
                f"expected a table, rows of columns, for likelihood: auto, got data of shape {shape}: name a likelihood "
                "of them, such as Bernoulli or Gaussian"
            )
        groups: dict[Likelihood, list[int]] = {}
        for place, likelihood in enumerate(_likelihoods(data)):
            groups.setdefault(Masked(likelihood=likelihood) if data.spec.missing else likelihood, []).append(place)
        ordered = sorted(groups.items(), key=lambda group: (ORDER.index(_inner(group[0])), group[0].features))
        return MixedTable(groups=tuple(ColumnGroup(columns=tuple(places), likelihood=each) for each, places in ordered))

    def build(self, event_shape: tuple[int, ...]) -> nn.Module:
        """Nothing can be built before the data are known.

        Raises:
            ValueError: always.
        """
        self._refuse()

    def story(self, features: str) -> str:
        """The density as text."""
        return f"a table by its columns({features})"

    def _refuse(self) -> NoReturn:
        raise ValueError(
            "expected a likelihood that is settled, got auto, which is settled where a fit begins: fit the model, or call "
            ".settled(data)"
        )


auto = also_called("auto", Auto)

ORDER: tuple[type[Likelihood], ...] = (Gaussian, Bernoulli, Categorical, Poisson, NegativeBinomial)


def _inner(likelihood: Likelihood) -> type[Likelihood]:
    return type(likelihood.likelihood if isinstance(likelihood, Masked) else likelihood)


def _likelihoods(data: Data) -> list[Likelihood]:
    """The likelihood of each element of a datum, in order."""
    found = functools.reduce(or_, (moments_of(rows.flatten(1).double()) for rows in data.train.chunks()))
    moments = zip(*(part.tolist() for part in (found.number, found.mean, found.variance)), strict=True)
    if not data.spec.table:
        return [_likelihood(kind, *of_one) for kind, of_one in zip(_kinds(data), moments, strict=True)]
    return [
        Categorical(levels=max(2, len(column.categories))) if column.kind == "category" else _likelihood(column.kind, *of_one)
        for column, of_one in zip(data.spec.table, moments, strict=True)
    ]


def _kinds(data: Data) -> list[Literal["real", "count", "binary"]]:
    """What the numbers of each element of a datum probably are, in all rows."""
    found = [Numbers() for _ in range(math.prod(data.spec.event_shape))]
    for rows in (rows for part in (data.train, data.valid, data.test) for rows in part.chunks()):
        for numbers, values in zip(found, rows.flatten(1).double().cpu().numpy().T, strict=True):
            numbers.add(values[~np.isnan(values)])
    return [numbers.kind for numbers in found]


def _likelihood(kind: Literal["real", "count", "binary"], number: float, mean: float, variance: float) -> Likelihood:
    """The likelihood of numbers of a kind, of so many training rows of these moments."""
    if kind == "count":
        # whether the variance exceeds the mean by more than chance
        overdispersed = variance > mean * (1 + CHANCE * math.sqrt(2 / max(number, 1)))
        return NegativeBinomial() if overdispersed else Poisson()
    return Bernoulli() if kind == "binary" else Gaussian(scale="per_feature")
