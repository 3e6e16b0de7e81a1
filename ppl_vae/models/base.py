"""What every model declaration offers."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

from torch import Tensor, nn

from ppl_vae.data import Data, DataSource
from ppl_vae.declaration import Declaration
from ppl_vae.likelihoods import Gaussian, Likelihood, Masked
from ppl_vae.priors import Prior
from ppl_vae.types import DataSpec, Kind

__all__ = ["Model", "PosteriorFamily", "independent_columns", "rounded"]

PosteriorFamily = Literal[
    "unknown",
    "linear",
    "discrete",
    "exact",
    "factors",
    "groups",
    "classes",
    "stacked",
    "codes",
    "noise",
    "point",
    "projection",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model(Declaration, abc.ABC):
    """p(x, z), a generative story. ``print`` tells it in mathematics.

    Class attributes:
        posterior_family: what is known of p(z | x): ``unknown``, ``linear`` (normal with a mean linear in x), ``discrete`` or
            ``exact``, which the model finds itself, that it is one of ``groups``, each of which hangs on those above it, or of
            ``classes`` and what is beside them, on one level or ``stacked``, that the guide's is of ``codes`` nearest to an
            encoder's outputs, that it is ``noise`` around the data, or that CAVI finds the best product of ``factors``, which
            is how it is fitted where nothing is declared; or, of models without p(z), that codes are the ``point`` of an
            encoder or a ``projection`` that the model knows. Methods choose their default guide by it.
        ragged: whether it takes rows of different lengths, padded to several; its program then reads x and ``length``.
    """

    posterior_family: ClassVar[PosteriorFamily] = "unknown"
    ragged: ClassVar[bool] = False

    @property
    def takes_ragged(self) -> bool:
        """Whether this one takes rows of different lengths: what the class says, or what its parts do."""
        return self.ragged

    @property
    def relative_floor(self) -> float | None:
        """The least noise as a share of the columns' standard deviation, of normal models that have such."""
        return None

    @property
    def isotropic(self) -> bool:
        """Whether one noise scale serves all elements."""
        return False

    @property
    def labelled(self) -> bool:
        """Whether it is conditioned on class labels."""
        return False

    @property
    def categorical(self) -> bool:
        """Whether each datum has something discrete to predict: its component, its class, its discrete latent variable."""
        return self.labelled or self.posterior_family == "discrete"

    @property
    def parameter_priors(self) -> Mapping[str, Prior]:
        """The priors of parameters that have one; the others are point estimates."""
        return {}

    @property
    def data_free(self) -> bool:
        """Whether it has no data, so that a fit is given none."""
        return False

    @property
    def unit(self) -> str:
        """What its numbers are in."""
        return "nats per datum"

    def no_data(self) -> DataSource:
        """What stands for the data of a model that has none."""
        return DataSource()

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields beside x that it reads."""
        return ()

    @property
    @abc.abstractmethod
    def accepts(self) -> frozenset[Kind]:
        """The kinds of data that the model is a density of."""

    @abc.abstractmethod
    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` with the remedy if the model is no density of such data."""

    def check_values(self, x: Tensor) -> None:
        """Raise ``ValueError`` if data x ``(n, *event)``, as the model sees them, leave its support; called before a fit."""

    def value_check(self, spec: DataSpec) -> Callable[[Tensor], None] | None:
        """What raises ``ValueError`` if such data ``(n, *event)`` leave its support, if it overrides :meth:`check_values`."""
        return None if type(self).check_values is Model.check_values else self.check_values

    def spare(self, highest: Callable[[], Tensor]) -> str:
        """What of it data leave unused whose ``highest`` values ``(*event)`` can be asked for, and the remedy; or nothing."""
        return ""

    def free_units(self, event_shape: tuple[int, ...]) -> Tensor | None:
        """Which elements ``(*event)`` of data may come in any units, because only some can be standardized; else ``None``."""
        return None

    def real_elements(self, event_shape: tuple[int, ...]) -> Tensor | None:
        """Which elements ``(*event)`` of data are real numbers, where others are codes or counts; else ``None``."""
        return None

    def settled(self, data: Data) -> Model:
        """This model with what it leaves to the data declared, such as the likelihood of each column; else itself.

        Raises:
            ValueError: data that it cannot be settled by.
        """
        return self

    def with_conjugate_priors(self, columns: Callable[[], tuple[Tensor, Tensor]]) -> Model:
        """This model with a weakly informative conjugate prior of every parameter that has none; itself if it knows no such.

        Args:
            columns: gives the means and standard deviations ``(D,)`` of the training data, as the model sees them.
        """
        return self

    def resolve(self, data: Data) -> Data:
        """The data as this model takes them, where their source leaves that open."""
        shape = data.spec.event_shape
        return data.resolve(self.accepts, free=self.free_units(shape), real=self.real_elements(shape))

    def without_latents(self, spec: DataSpec) -> Likelihood | None:
        """The likelihood that is left without the latent variable, the same for all data; ``None`` where there is no such."""
        return None

    @abc.abstractmethod
    def build(self, spec: DataSpec) -> nn.Module:
        """The Pyro program: a module that is called with a batch ``x (B, *event)``."""

    @abc.abstractmethod
    def story(self) -> str:
        """The sites from top to bottom, as mathematics."""

    def __str__(self) -> str:
        return self.story()


def independent_columns(spec: DataSpec, *, floor: float, isotropic: bool) -> Likelihood:
    """A normal density of each element by itself, of one scale or each its own: Gaussian models without latent variables."""
    columns = Gaussian(scale="shared" if isotropic else "per_feature", value=max(0.5, 2 * floor), floor=floor)
    return Masked(likelihood=columns) if spec.missing else columns


def rounded(values: Tensor) -> float | tuple[float, ...]:
    """Numbers of a declaration, to four digits; one if all are alike."""
    found = tuple(float(f"{value:.4g}") for value in values.tolist())
    return found[0] if len(set(found)) == 1 else found
