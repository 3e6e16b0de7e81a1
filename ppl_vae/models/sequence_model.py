"""Models of rows without latent variables: the language model, the recurrent network as a directed model.

for n in 1..N:
x_nt ~ p(x | network(x_n1, ..., x_n(t-1))), t = 1, 2, ...
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor

from ppl_vae.data import Data
from ppl_vae.likelihoods import Likelihood, Tokens
from ppl_vae.models.base import Model, PosteriorFamily
from ppl_vae.models.grids import GridProgram
from ppl_vae.models.sequences import SequenceProgram, check_rows
from ppl_vae.nn import LSTM, CausalNetwork
from ppl_vae.types import DataSpec, Kind

__all__ = ["SequenceModel"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceModel(Model):
    """p(x) = prod_t p(x_t | x_1, ..., x_(t-1)), each factor by a network that sees what came earlier (Bengio et al. 2003).

    There is no latent variable, so the ELBO is log p(x) itself. Rows may differ in length, or all have one, ``(T, *element)``.
    With ``PixelCNN`` a row is an image ``(H, W)`` or ``(channels, H, W)``, read line by line (van den Oord et al. 2016).

    Args:
        network: gives the features of an element from those before it.
        likelihood: of an element, given its features.

    Examples:
        >>> print(SequenceModel(network=LSTM(hidden=64)))
        x_t | x_<t ~ Categorical(softmax LSTM(x_<t))
    """

    posterior_family: ClassVar[PosteriorFamily] = "exact"
    ragged: ClassVar[bool] = True

    network: CausalNetwork = LSTM()
    likelihood: Likelihood = Tokens()

    @property
    def accepts(self) -> frozenset[Kind]:
        """The kinds of data that the likelihood is a density of."""
        return self.likelihood.accepts

    def settled(self, data: Data) -> SequenceModel:
        """The same model with its likelihood settled."""
        likelihood = self.likelihood.settled(data)
        return self if likelihood is self.likelihood else dataclasses.replace(self, likelihood=likelihood)

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` with the remedy if the likelihood is no density of the elements."""
        self.likelihood.check(spec)
        check_rows(spec, self.network)
        if spec.missing:
            raise ValueError("expected complete rows, got missing entries (NaN): fill them or drop those rows")

    def check_values(self, x: Tensor) -> None:
        """Raise ``ValueError`` if elements x ``(n, *element)`` do not lie in the likelihood's support."""
        self.likelihood.check_values(x)

    def build(self, spec: DataSpec) -> SequenceProgram | GridProgram:
        """The Pyro program for rows of such elements, or for grids."""
        if self.network.grids:
            return GridProgram(self.network, self.likelihood, spec)
        return SequenceProgram(self.network, self.likelihood, spec)

    def story(self) -> str:
        """The factors, as mathematics."""
        return f"x_t | x_<t ~ {self.likelihood.story(self.network.causal_story())}"
