"""The likelihood of a table that is proposed from its columns."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal, NoReturn

import torch
from torch import Tensor, nn

from ppl_vae.data import Data
from ppl_vae.data.cells import guessed_kind
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
from ppl_vae.types import BINARY, COUNT, REAL, UNIT_INTERVAL, Column, Kind

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
    parts = [part.x.flatten(1) for part in (data.train, data.valid, data.test) if len(part)]
    size = math.prod(data.spec.event_shape)
    table = data.spec.table or [None] * size
    return [_likelihood(column, [part[:, place].double() for part in parts]) for place, column in enumerate(table)]


def _likelihood(column: Column | None, values: list[Tensor]) -> Likelihood:
    """The likelihood of a column whose training, validation and test values are these, each ``(n,)``."""
    if column is not None and column.kind == "category":
        return Categorical(levels=max(2, len(column.categories)))
    kind: Literal["real", "count", "binary", "category"]
    kind = guessed_kind(torch.cat(values).cpu().numpy()) if column is None else column.kind
    if kind == "count":
        return NegativeBinomial() if _overdispersed(values[0]) else Poisson()
    return Bernoulli() if kind == "binary" else Gaussian(scale="per_feature")


def _overdispersed(counts: Tensor) -> bool:
    """Whether the variance of counts ``(n,)`` exceeds their mean by more than chance."""
    found = moments_of(counts)
    number, mean, variance = float(found.number), float(found.mean), float(found.variance)
    return variance > mean * (1 + CHANCE * math.sqrt(2 / max(number, 1)))
