"""The hidden Markov model.

    s_1 ~ Categorical(pi);  s_t | s_(t-1) ~ Categorical(A[s_(t-1)]);  x_t | s_t ~ any likelihood

Baum, Petrie, Soules and Weiss (1970); Rabiner (1989).
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

from ppl_vae.declaration import require
from ppl_vae.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood, Poisson
from ppl_vae.models.base import Model
from ppl_vae.models.chains.hmm_program import HMMProgram
from ppl_vae.models.chains.rows import check_elements
from ppl_vae.types import BINARY, CATEGORICAL, COUNT, REAL, UNIT_INTERVAL, DataSpec, Kind

__all__ = ["HMM"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HMM(Model):
    """Rows whose elements hang on a hidden state that moves from one to the next.

    p(x) = sum over s of p(s_1) p(x_1 | s_1) prod_t p(s_t | s_{t-1}) p(x_t | s_t). The first state emits before any transition.
    States are summed out exactly, so the ELBO is log p(x): ``EM`` (Baum-Welch) fits emissions that have a formula, ``SVI`` any.

    Args:
        states: K.
        emission: p(x_t | s_t), features of its own for each state; by default the kind of the data says it: ``Categorical`` for
            tokens, ``Bernoulli``, ``Poisson``, else ``Gaussian(scale="amortized")``, a scale for each state.
        pseudo_counts: what EM adds to each expected count of a first state, a transition and a token: the most probable tables
            (MAP) under Dirichlet priors of one more than these.
        stickiness: what it adds to the count of each state after itself (Fox et al. 2011).

    Raises:
        ValueError: fewer than one state, or counts below zero.

    Examples:
        >>> print(HMM(states=3, emission=Poisson()))
        s_1 ~ Categorical(pi_1..pi_3); s_t | s_{t-1} ~ Categorical(A[s_{t-1}]); x_t | s_t ~ Poisson(exp h[s_t])
    """

    posterior_family: ClassVar[Literal["unknown", "linear", "discrete", "exact"]] = "exact"
    ragged: ClassVar[bool] = True

    states: int = 8
    emission: Likelihood | None = None
    pseudo_counts: float = 0.0
    stickiness: float = 0.0

    def __post_init__(self) -> None:
        require(isinstance(self.states, int) and self.states >= 1, "at least 1 state", self.states)
        require(0 <= self.pseudo_counts < math.inf, "pseudo_counts of at least 0", self.pseudo_counts)
        require(0 <= self.stickiness < math.inf, "a stickiness of at least 0", self.stickiness)

    @property
    def accepts(self) -> frozenset[Kind]:
        """What the emission does."""
        every = frozenset({BINARY, UNIT_INTERVAL, REAL, COUNT, CATEGORICAL})
        return every if self.emission is None else frozenset(map(Kind.of, self.emission.accepts))

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` if the data are no rows of elements, or these not in the support of the emission."""
        check_elements("HMM", spec, 0 if spec.kind.levelled else 1)
        self._emission(spec).check(spec)

    def build(self, spec: DataSpec) -> HMMProgram:
        """The Pyro program for data of this shape and number."""
        return HMMProgram(spec, self.states, self._emission(spec), pseudo_counts=self.pseudo_counts, stickiness=self.stickiness)

    def story(self) -> str:
        """The sites from top to bottom, as mathematics."""
        emission = "p(x; h[s_t])" if self.emission is None else self.emission.story("h[s_t]")
        return f"s_1 ~ Categorical(pi_1..pi_{self.states}); s_t | s_{{t-1}} ~ Categorical(A[s_{{t-1}}]); x_t | s_t ~ {emission}"

    def _emission(self, spec: DataSpec) -> Likelihood:
        """The emission, where it is not declared that of the data's kind."""
        by_kind = {BINARY: Bernoulli(), COUNT: Poisson(), CATEGORICAL: Categorical(levels=max(2, spec.levels or 2))}
        return by_kind.get(spec.kind, Gaussian(scale="amortized")) if self.emission is None else self.emission
