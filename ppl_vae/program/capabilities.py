"""What a built program can do beyond running, as protocols: a program has an ability if it has its members.

They are found once, when a pair is made (:class:`~ppl_vae.program.facts.Abilities`, ``pair.can``). What is a fact of a program
stands on the base classes of :mod:`ppl_vae.program.base`. This is the only file that asks a program what it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ppl_vae.program.quantities import Chart, Quantity

__all__ = [
    "Amortized",
    "Ancestral",
    "Bounding",
    "Charted",
    "Comparable",
    "Completing",
    "Conjugate",
    "Continuing",
    "CoordinateAscent",
    "Covaried",
    "Described",
    "Drawing",
    "Family",
    "Generative",
    "Growing",
    "Hierarchical",
    "Imputing",
    "KnownPosterior",
    "LinearDecoding",
    "MadeOfPosteriors",
    "Marginal",
    "Noised",
    "NormalMixture",
    "ParameterDensity",
    "Pathfinding",
    "Quantized",
    "Queryable",
    "Restoring",
    "RowDecoding",
    "SemiSupervised",
    "Solvable",
    "StackedSemiSupervised",
    "Stepwise",
    "StochasticAscent",
    "SummedBound",
    "attribute",
    "generates",
]


class Generative(Protocol):
    """A model that says p(z) and p(x | z) apart, so that it can be sampled from and decodes latent variables.

    ``prior()`` is p(z), a distribution or a :class:`~ppl_vae.program.joint.Joint`; ``decode(z, *known)`` is p(x | z) for a tree
    z ``(..., *event)``; ``known(*batch)`` is what both are conditioned on, and ``prior_given(*known)`` is p(z) given that.
    """

    prior: Any

    def decode(self, z: Any, *known: Tensor) -> Any:
        """p(x | z), whose batch shape is that of z."""
        ...


def generates(program: Any) -> bool:
    """Whether it is :class:`Generative`; since Python 3.12 ``isinstance`` does not see a ``prior`` that is a submodule."""
    return all(attribute(program, name) is not None for name in ("prior", "decode"))


@runtime_checkable
class Marginal(Protocol):
    """A model that knows log p(x)."""

    def log_prob(self, *batch: Tensor) -> Tensor:
        """Of each datum in nats, ``(B,)``."""
        ...


@runtime_checkable
class KnownPosterior(Protocol):
    """A model that knows p(z | x)."""

    def posterior(self, *batch: Tensor) -> Any:
        """Of each datum, a distribution or a joint of batch shape ``(B,)``."""
        ...


@runtime_checkable
class Imputing(Protocol):
    """A model that knows p(missing entries | observed entries) of a datum."""

    def impute(self, x: Tensor, draws: int | None = None) -> Tensor:
        """Data x ``(B, *event)``, NaN where missing, with these at their conditional means, or ``(draws, B, *event)`` drawn.

        Observed entries stay; draws come from torch's global generator.
        """
        ...


@runtime_checkable
class LinearDecoding(Protocol):
    """A model whose mean of x is a linear map of the code, but for a constant."""

    def decoded_change(self, direction: Tensor) -> Tensor:
        """What a change ``(K,)`` of the code adds to the mean of x as the model sees it, W times it, ``(D,)``."""
        ...


@runtime_checkable
class NormalMixture(Protocol):
    """A model whose p(x) is a mixture of normal distributions, or one of them."""

    def normal_components(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weights ``(C,)``, means ``(C, D)`` and covariances ``(C, D, D)`` of data as it sees them, in float64."""
        ...


@runtime_checkable
class Restoring(Protocol):
    """A model of what is behind the noise of data, which says what data are without it."""

    def restored(self, q: Any) -> Tensor:
        """Each element at its more probable value under q(z | x), ``(B, *event)``."""
        ...


@runtime_checkable
class Amortized(Protocol):
    """A guide that says q(z | x) as a distribution or a joint."""

    def posterior(self, *batch: Tensor) -> Any:
        """Of each datum, of batch shape ``(B,)``."""
        ...


@runtime_checkable
class Family(Protocol):
    """A guide whose q is a member of a family: what is a datum's own, ``local``, the member ``at`` that, and its ``draw``."""

    def local(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """The parameters of q(z | x) that may differ from datum to datum, ``(B, *)`` each, any real numbers."""
        ...

    def at(self, *local: Tensor) -> Any:
        """The member of the family with these parameters."""
        ...

    def draw(self, q: Any, *batch: Tensor) -> Any:
        """Sample from q inside the plate over the data."""
        ...


@runtime_checkable
class Ancestral(Protocol):
    """A model that draws whole data by itself, node by node, where p(z) and p(x | z) do not stand apart."""

    def ancestral(self, n: int, *known: Tensor) -> Tensor:
        """So many new data, ``(n, *event)``; of a model that is ``labelled`` given what is ``known`` of each, or of all."""
        ...


@runtime_checkable
class Stepwise(Protocol):
    """A model that draws data in steps, of which fewer give draws that are not quite its own, sooner."""

    def drawn_in(self, n: int, steps: int | None, *known: Tensor, guidance: float = 0.0) -> Tensor:
        """So many new data, ``(n, *event)``, in so many steps or all; by guidance further from those of no class."""
        ...


@runtime_checkable
class Continuing(Protocol):
    """A model of rows that draws their elements one after the other, from the first one or after those that are given.

    By it :meth:`ppl_vae.Fit.sample` draws rows, which end by a token, at a length that is asked for, or at one that
    ``drawn_lengths`` gives.
    """

    def drawn_lengths(self, least: Tensor) -> Tensor:
        """How long new rows are ``(n,)``, each longer than ``least (n,)``: :class:`~ppl_vae.program.lengths.RowLengths`."""
        ...

    def continued(self, given: Tensor, length: Tensor, steps: int, *, end: int | None = None) -> Tensor:
        """What may follow given elements: ``(n, S, *element)``, as the model sees it, from torch's global generator.

        Args:
            given: ``(n, T, *element)``, padded; T is 0 where nothing is given.
            length: how many elements of each row are given ``(n,)``, from 0 to T.
            steps: S, how many to draw after those.
            end: the token that ends a row, if one does: what follows it means nothing, and once every row has it fewer than S
                elements may be returned.
        """
        ...


@runtime_checkable
class Completing(Protocol):
    """A model of grids that draws what stands below the lines that are given."""

    def completed_lines(self, lines: Tensor) -> Tensor:
        """Whole grids ``(n, *event)`` of their first lines ``(n, *channels, h, W)``, from torch's global generator."""
        ...


@runtime_checkable
class RowDecoding(Protocol):
    """A model of rows that makes them of codes, element after element."""

    def decoded_rows(
        self, z: Tensor, length: Tensor | None = None, *, temperature: float = 0.0, top_p: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Rows ``(n, T, *element)`` of codes z ``(n, *latent)``, padded, and their lengths ``(n,)``.

        A model that is ``labelled`` takes ``c`` as well, the columns of the classes ``(n, C)``, here and in ``continued``.

        Args:
            z: codes.
            length: of the rows, which is taken where no element says that it is the last.
            temperature: that log-probabilities of an element are divided by; at 0 the most probable one is taken.
            top_p: of each element the likeliest that together have this probability are kept.
        """
        ...


@runtime_checkable
class Pathfinding(Protocol):
    """A model of rows that knows the most probable values of all their hidden states together (Viterbi 1967)."""

    def path(self, *batch: Tensor) -> Tensor:
        """The number of the state of each element ``(B, T)`` int64; in the padding it means nothing."""
        ...


@runtime_checkable
class Conjugate(Protocol):
    """A model whose E- and M-steps have closed forms."""

    def em(self, rows: Any, *, generator: torch.Generator | None = None, accelerate: bool = True) -> Any:
        """What EM iterates, a ``Problem``."""
        ...

    def em_state(self) -> Any:
        """The present parameters, which EM iterates."""
        ...

    def assign(self, parameters: Any) -> None:
        """Write parameters into the module."""
        ...


@runtime_checkable
class CoordinateAscent(Protocol):
    """A model whose q, a product of factors, is found by updating each in closed form given the others."""

    def mean_field(self, spec: Any) -> Any:
        """The guide, a program that keeps the factors which all data share."""
        ...

    def cavi(self, guide: Any, rows: Any, sweep: Any) -> Any:
        """What coordinate ascent iterates, a ``Problem``, for rows and a ``Sweep``."""
        ...


@runtime_checkable
class StochasticAscent(Protocol):
    """A model whose shared factors also move by what a batch says of them (Hoffman et al. 2013)."""

    def stochastic(self, guide: Any, rows: Any, sweep: Any) -> Any:
        """What steps on batches iterate, a ``Stochastic``, for rows, which are walked for a start alone, and a ``Sweep``."""
        ...


@runtime_checkable
class Bounding(Protocol):
    """A guide that knows the ELBO of its model in closed form."""

    def bound(self, *batch: Tensor) -> Any:
        """``ELBOTerms`` of each datum; the KL of factors that N data share is charged as KL / N."""
        ...


@runtime_checkable
class SummedBound(Protocol):
    """A guide that knows its model's ELBO over all of a plate of which a run of the programs sees a sample.

    Training takes the runs, whose ELBO is an unbiased estimate; evaluation takes the sum.
    """

    bound_parts: tuple[str, ...]
    """The names of the parts that the KL consists of."""

    @property
    def summed_elements(self) -> int:
        """How many elements of a datum the sum goes through."""
        ...

    def summed_bound(self, *batch: Tensor, samples: int = 1) -> Any:
        """``ELBOTerms`` of each datum, and the parts of the KL ``(B,)``, from so many draws."""
        ...


@runtime_checkable
class Noised(Protocol):
    """A model whose latent variables are the data with noise, so that its guide has nothing to learn."""

    def noising(self, spec: Any) -> Any:
        """The guide, a program."""
        ...


@runtime_checkable
class Solvable(Protocol):
    """A model whose maximum-likelihood solution is a formula."""

    def closed_form(self, rows: Any) -> Any:
        """The parameters of rows ``(N, D)``."""
        ...

    def assign(self, parameters: Any) -> None:
        """Write parameters into the module."""
        ...


@runtime_checkable
class Comparable(Protocol):
    """A model that knows how far its parameters are from another's."""

    def distance(self, other: Any) -> float:
        """Zero for the same p(x)."""
        ...


@runtime_checkable
class Growing(Protocol):
    """A model of a family whose larger members hold the smaller ones, such as mixtures of more components."""

    def grow(self, smaller: Any) -> bool:
        """Take parameters by which p(x) is nearly that of a smaller member; false, and nothing done, if it is none."""
        ...


@runtime_checkable
class Hierarchical(Protocol):
    """A model of groups of latent variables, each given those above it through features that its guide may share."""

    levels: Any
    """The groups, from the top to the bottom, as :class:`~ppl_vae.program.levels.Level`."""

    def descent(self) -> Any:
        """A function of the place of a group below the top and of the values above it, by name: what its network gives."""
        ...


@runtime_checkable
class ParameterDensity(Protocol):
    """A model whose parameters carry priors, and its log-density in their unconstrained coordinates."""

    @property
    def parameter_sites(self) -> tuple[str, ...]:
        """Their names."""
        ...

    def coordinates(self) -> Any:
        """Of the parameters."""
        ...


@runtime_checkable
class Covaried(Protocol):
    """A model that is conditioned on covariates by name: fields beside x, and what it finds in x, such as its total."""

    covariates: tuple[str, ...]

    def covariate_values(self, *batch: Tensor) -> dict[str, Tensor]:
        """Those of a batch by name, each ``(B,)``, as programs get them."""
        ...

    def covariate_default(self, name: str) -> Tensor | None:
        """What ``(1,)`` stands for one that is not told; ``None`` where nothing can."""
        ...

    def given(self, values: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """What p(z) and p(x | z) are conditioned on, for such values, whose shapes are broadcast."""
        ...


@runtime_checkable
class Described(Protocol):
    """A model that says what its parameters mean."""

    def quantities(self) -> Mapping[str, Quantity]:
        """Numbers with named axes, by name."""
        ...


@runtime_checkable
class Charted(Protocol):
    """A model that has tables worth a picture."""

    def charts(self) -> Mapping[str, Chart]:
        """By the names of their pictures."""
        ...


@runtime_checkable
class Drawing(Protocol):
    """A guide over parameters."""

    def parameter_draws(self, draws: int) -> Iterator[Any]:
        """Contexts inside which everything that the model says is at a draw of its parameters."""
        ...


@runtime_checkable
class Queryable(Protocol):
    """A model of named variables that gives the distribution of some of them given others."""

    parents: Any
    """The names of what each variable hangs on, by its name."""

    numbers: Any
    """The names of those that are numbers."""

    hidden: Any
    """The names of those that are in no column."""

    states_of: Any
    """The names and numbers of the states of those that have some, by name."""

    def query(self, names: Any, given: Any, do: Any, units: Any) -> Any:
        """p(names | given, do), where ``units`` are shift and scale ``(*event)`` from the source to what the model sees."""
        ...

    def marginals(self, given: Any, do: Any, units: Any) -> Any:
        """p(variable | given, do) of every one with states."""
        ...

    def estimated(self, names: Any, given: Any, do: Any, units: Any, *, draws: int, seed: int) -> Any:
        """p(names | given, do) by so many weighted draws."""
        ...

    def explain(self, given: Any, do: Any, units: Any) -> Any:
        """What all unknown variables most probably are together."""
        ...


@runtime_checkable
class SemiSupervised(Protocol):
    """A model of a class y, observed where a row has a label and else latent, and of z beside it."""

    latent_shape: tuple[int, ...]
    """Of z."""

    classes: int
    """C."""

    def codes_of(self, labels: Tensor) -> Tensor:
        """One-hot vectors ``(..., C)`` of the places of classes ``(...)``."""
        ...


@runtime_checkable
class Quantized(Protocol):
    """A model of grids of codes, each the number of a vector of a codebook that its guide shares."""

    network: Any
    """The declaration of the networks that lead from level to level."""

    sites: Any
    """The grids by name, from the top to the bottom."""

    def codebook(self, name: str) -> Any:
        """That of a level: its ``size``, ``dim`` and ``grid``, codes ``nearest`` to outputs, and how it learns."""
        ...

    def told(self, name: str, values: Mapping[str, Tensor]) -> Tensor:
        """What a level below the top is told ``(..., D, H, W)`` of the codes above it."""
        ...

    def costs(self, name: str, values: Mapping[str, Tensor], *batch: Tensor) -> Tensor | None:
        """``-log p`` of every code of a level ``(..., H, W, K)``, given a batch's codes before it; ``None``: all the same."""
        ...


@runtime_checkable
class StackedSemiSupervised(Protocol):
    """A model of a class y, observed where a row has a label and else latent, of z2 beside it, and of a code z1 of both."""

    code_shape: tuple[int, ...]
    """Of z1."""

    rest_shape: tuple[int, ...]
    """Of z2."""

    classes: int
    """C."""

    def codes_of(self, labels: Tensor) -> Tensor:
        """One-hot vectors ``(..., C)`` of the places of classes ``(...)``."""
        ...


@runtime_checkable
class MadeOfPosteriors(Protocol):
    """A prior that is made of the guide's own posteriors, which it has to be given."""

    def attach(self, posterior: Any, spec: Any) -> None:
        """Take the guide's ``posterior``, for data of this kind."""
        ...


def attribute(program: Any, name: str, default: Any = None) -> Any:
    """What a program that inherits from none of our classes says of itself, or the default."""
    return getattr(program, name, default)
