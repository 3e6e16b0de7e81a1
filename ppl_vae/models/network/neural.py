"""A node whose distribution is given by a neural network of its parents.

p(node | parents) = likelihood(node; f(one-hot states, standardized numbers))
"""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from ppl_vae.declaration import require
from ppl_vae.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood
from ppl_vae.likelihoods.categorical import Levels
from ppl_vae.models.network.neural_mechanisms import NeuralNumber, NeuralStates
from ppl_vae.models.network.nodes import Facts, Node
from ppl_vae.nn import MLP, Network
from ppl_vae.text import at_places
from ppl_vae.types import REAL

__all__ = ["Neural"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Neural(Node):
    """A node with states, or a number, of any likelihood, whose features are a network of the parents.

    States of parents enter one-hot, numbers standardized. A likelihood with a location and a learned scale also has the node's
    own values standardized. ``MixtureDensity`` gives densities of several peaks (Bishop 1994, "Mixture density networks").
    Fitted by ``SVI``, which of complete data is maximum likelihood by gradients; hidden states are summed out. Asked exactly
    where its value is known or says nothing, else by sampling (``fit.query(..., method="sampling")``).

    Args:
        parents: names of nodes, with states or numbers.
        states: its own, as for ``Table``; a node that declares some has states.
        network: from the parents to the features of the likelihood.
        likelihood: ``Categorical`` (of as many levels as there are states) or ``Bernoulli`` for states, others for numbers; by
            default ``Categorical`` where states are declared, else ``Gaussian`` of one learned scale.
        learned: always; a fit changes its weights.

    Raises:
        ValueError: states under a likelihood of numbers, a likelihood that leaves out missing entries or does not take the
            elements of a datum apart; ``learned=False``.

    Examples:
        >>> Neural(parents=("dose",), likelihood=Gaussian(scale="amortized")).discrete
        False
        >>> Neural(parents=("dose",), states=("ill", "well")).density
        Categorical(levels=2)
    """

    states: tuple[str, ...] = ()
    network: Network = MLP(hidden=(32,))
    likelihood: Likelihood | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "states", tuple(self.states))
        require(len(set(self.states)) == len(self.states), "every state once", self.states)
        likelihood = self.density
        require(
            likelihood.factorizes and not likelihood.missing, "a likelihood of one value, which may not be missing", likelihood
        )
        require(self.discrete or not self.states, "no states under a likelihood of numbers", self.states)
        super().__post_init__()

    @property
    def density(self) -> Likelihood:
        """The likelihood, also where none is declared."""
        if self.likelihood is not None and not isinstance(self.likelihood, Levels):
            return self.likelihood
        if self.likelihood is None and not self.states:
            return Gaussian()
        levels = {"levels": len(self.states)} if len(self.states) > 1 else {}
        return dataclasses.replace(self.likelihood or Categorical(), **levels)

    @property
    def discrete(self) -> bool:
        """Whether its likelihood is one of states."""
        return isinstance(self.density, Bernoulli | Levels)

    @property
    def unit_free(self) -> bool:
        """Whether its likelihood is, and of any real number."""
        return not self.discrete and self.density.unit_free and REAL in self.density.accepts

    @property
    def given(self) -> bool:
        """Never: its weights are found by a fit."""
        return False

    @property
    def declared_states(self) -> tuple[str, ...]:
        """The states that it declares."""
        return self.states

    def check(self, facts: Facts) -> None:
        """Raise ``ValueError`` for another number of states than its likelihood takes."""
        if self.discrete and (len(facts.states) < 2 or (isinstance(self.density, Bernoulli) and len(facts.states) != 2)):
            raise ValueError(
                f"expected two states of {facts.name} under a Bernoulli, at least two under others, got "
                f"{len(facts.states)}: use Categorical, or Table"
            )

    def check_values(self, name: str, x: Tensor) -> None:
        """Raise ``ValueError`` if values ``(n,)`` of a number, as the model sees them, leave the likelihood's support."""
        if self.discrete:
            return
        try:
            self.density.check_values(x.unsqueeze(-1))
        except ValueError as error:
            raise ValueError(f"node {name}: {at_places(error, columns=[repr(name)])}") from None

    def build(self, facts: Facts) -> NeuralStates | NeuralNumber:
        """Its mechanism."""
        if not self.discrete:
            return NeuralNumber(facts, self, self.network, self.density)
        levels = {"levels": len(facts.states)} if isinstance(self.density, Levels) else {}
        return NeuralStates(facts, self, self.network, dataclasses.replace(self.density, **levels))

    def filled(self, mechanism: Any) -> Neural:
        """Not to be had: weights of a network are no numbers of a declaration.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"the node {mechanism.facts.name} (Neural) has weights, which are no numbers of a declaration: ask and save the fit"
        )

    def story(self, name: str) -> str:
        """Its density, as mathematics."""
        inputs = ", ".join(self.parents) or "1"
        if self.discrete:
            return f"{name} ~ {type(self.density).__name__}({self.network.story(inputs)})"
        return f"{name} ~ {self.density.story(self.network.story(inputs)).replace('(z)', f'({inputs})')}"
