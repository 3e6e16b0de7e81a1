"""Markov chains of tokens.

    p(x) = prod_t p(x_t | x_(t-k), ..., x_(t-1))

Markov (1913); Shannon (1948).
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal, get_args

from ppl_vae.declaration import require
from ppl_vae.models.base import Model
from ppl_vae.models.chains.markov_program import MarkovProgram
from ppl_vae.models.chains.rows import check_elements
from ppl_vae.types import BINARY, CATEGORICAL, DataSpec, Kind

__all__ = ["MarkovChain"]

Spread = Literal["even", "shorter"]
MOST = 2**62  # contexts with a token that have a number


@dataclasses.dataclass(frozen=True, kw_only=True)
class MarkovChain(Model):
    """Rows of tokens, each of which hangs on the k before it: p(x) = prod_t p(x_t | x_{t-k}, ..., x_{t-1}).

    The first tokens of a row hang on the fewer before them and on being the first. ``ClosedForm`` counts: p is the share of a
    token among those after a context. Only contexts that were seen are stored. A token that never followed a context has
    probability 0 there, and a row with it log p of minus infinity, unless there are pseudo-counts.

    Args:
        order: k, from 0, whose tokens are independent.
        pseudo_counts: a of p = (count + a V p_0) / (total + a V), where V is the number of tokens: the posterior mean under a
            Dirichlet prior.
        spread: p_0: ``even``, 1 / V, or as the chain of one order ``shorter`` says, which has such a p_0 itself (MacKay and
            Peto 1995, "A hierarchical Dirichlet language model").

    Raises:
        ValueError: an order or pseudo-counts below zero, another spread, or one of no pseudo-counts.

    Examples:
        >>> print(MarkovChain(order=2))
        x_t ~ Categorical(table[x_{t-2}, x_{t-1}])
    """

    posterior_family: ClassVar[Literal["unknown", "linear", "discrete", "exact"]] = "exact"
    ragged: ClassVar[bool] = True

    order: int = 1
    pseudo_counts: float = 0.0
    spread: Spread = "even"

    def __post_init__(self) -> None:
        require(isinstance(self.order, int) and self.order >= 0, "an order of at least 0", self.order)
        require(0 <= self.pseudo_counts < math.inf, "pseudo_counts of at least 0", self.pseudo_counts)
        require(self.spread in get_args(Spread), f"a spread of {' or '.join(get_args(Spread))}", self.spread)
        require(self.spread == "even" or self.pseudo_counts > 0, "pseudo_counts above 0, which are spread", self.pseudo_counts)

    @property
    def accepts(self) -> frozenset[Kind]:
        """Tokens, and zeros and ones."""
        return frozenset({BINARY, CATEGORICAL})

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` if the data are no rows of tokens, or contexts of them have too many numbers."""
        if spec.kind not in self.accepts:
            raise ValueError(
                f"MarkovChain is a model of tokens, but these data are {spec.kind}: load them with kind='categorical', or use "
                "HMM or LinearDynamicalSystem"
            )
        check_elements("MarkovChain", spec, 0)
        levels = _levels(spec)
        if (levels + 1) ** self.order * levels > MOST:
            most = int(math.log(MOST / levels) / math.log(levels + 1))
            raise ValueError(f"expected an order of at most {most} for {levels} tokens, got {self.order}")

    def build(self, spec: DataSpec) -> MarkovProgram:
        """The Pyro program for data of this shape and number."""
        shorter = self.spread == "shorter"
        return MarkovProgram(spec, self.order, _levels(spec), pseudo_counts=self.pseudo_counts, shorter=shorter)

    def story(self) -> str:
        """The sites from top to bottom, as mathematics."""
        before = [f"x_{{t-{place}}}" for place in range(self.order, 0, -1)]
        told = ", ".join(before if len(before) < 4 else [before[0], "...", before[-1]])
        return f"x_t ~ Categorical(table[{told}])" if before else "x_t ~ Categorical(table)"


def _levels(spec: DataSpec) -> int:
    return 2 if spec.kind == BINARY else max(1, spec.levels or 1)
