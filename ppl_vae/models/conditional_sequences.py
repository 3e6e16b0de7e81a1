"""The program of a conditional model whose rows go on element by element: a class of text, a word that was drawn.

for n in 1..N, given y_n:
z_n ~ p(z | y_n)                                                      prior
x_nt ~ p(x | network(z_n, y_n, x_n1, ..., x_n(t-1))), t = 1, 2, ...   likelihood of an element
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ppl_vae.data import sequence_mask
from ppl_vae.likelihoods import Likelihood
from ppl_vae.models.conditions.base import ConditionModule
from ppl_vae.models.sequences import Rows, chosen_codes
from ppl_vae.nn.autoregressive import Autoregressive, continued
from ppl_vae.nn.causal import CausalNetwork
from ppl_vae.program.base import ModelProgram
from ppl_vae.program.facts import prior_support
from ppl_vae.program.sites import Site
from ppl_vae.types import DataSpec

__all__ = ["ConditionalSequenceProgram"]


class ConditionalSequenceProgram(ModelProgram):
    """With a latent variable of each row, a vector, and the class of each row, one-hot, which the network sees beside it.

    Args:
        latent_shape: ``(K,)``.
        prior: module whose call returns p(z), or p(z | y) of columns of y.
        given_prior: whether it takes these.
        condition: module from labels to columns of y ``(..., C)``.
        enters: what is told y besides the prior: ``decoder``, ``encoder``.
        network: the declaration of the decoder.
        likelihood: of an element.
        spec: what the data look like.
    """

    learning_rate = 2e-3
    tempered = True

    def __init__(
        self,
        *,
        latent_shape: tuple[int, ...],
        prior: nn.Module,
        given_prior: bool,
        condition: ConditionModule,
        enters: tuple[str, ...],
        network: CausalNetwork,
        likelihood: Likelihood,
        spec: DataSpec,
    ) -> None:
        super().__init__()
        self.size = spec.size
        self.reads = ("x", "length", "y") if spec.ragged else ("x", "y")
        self.latent_shape = latent_shape
        self.prior = prior
        self.given_prior = given_prior
        self.condition = condition
        self.told = condition.columns if "decoder" in enters else 0
        self.beside_columns = condition.columns if "encoder" in enters else 0
        self.rows = Rows(network, likelihood, spec, latent_shape[0] + self.told)

    @property
    def element_features(self) -> int:
        """As many as the network gives."""
        return int(self.rows.network.feature_shape[0])

    @property
    def sites(self) -> dict[str, Site]:
        """Z, on the support of its prior."""
        return {"z": Site("z", self.latent_shape, prior_support(self.prior))}

    def known(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """The columns of y ``(..., C)`` of a batch, or of labels alone; of padded rows also which places hold elements."""
        c = self.condition(batch[-1])
        inside = self.rows.inside(*batch) if len(batch) == len(self.reads) else None
        return (c,) if inside is None else (c, inside)

    def prior_given(self, *known: Tensor) -> Any:
        """p(z | y)."""
        return self.prior(known[0]) if self.given_prior else self.prior()

    def beside(self, *batch: Tensor) -> Tensor:
        """What the guide's encoder is told beside x."""
        found: Tensor = self.condition(batch[-1])
        return found[..., : self.beside_columns]

    def decode(self, z: Tensor, c: Tensor, inside: Tensor | None = None) -> Autoregressive:
        """p(x | z, y) for z ``(..., K)`` and columns of y ``(..., C)``."""
        return self.rows(self._context(z, c), inside)

    def decoded_rows(
        self, z: Tensor, length: Tensor | None = None, *, c: Tensor, temperature: float = 0.0, top_p: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Rows of codes z ``(n, K)`` given columns of y ``(n, C)``, and their lengths."""
        inside = None if length is None else sequence_mask(length, max(self.rows.longest, int(length.max())))
        return self.decode(z, c, inside).draw(temperature=temperature, top_p=top_p)

    def drawn_lengths(self, least: Tensor) -> Tensor:
        """Lengths like those of the training rows, of all classes."""
        return self.rows.lengths.drawn(least)

    @torch.no_grad()
    def continued(
        self, given: Tensor, length: Tensor, steps: int, *, c: Tensor, end: int | None = None, **options: Any
    ) -> Tensor:
        """What may follow given elements of rows with columns of y ``(n, C)``, z drawn from p(z | these, y), approximately."""
        rows = len(given)
        prior = self.prior_given(c) if self.given_prior else self.prior().expand((rows,))
        context = chosen_codes(self.rows, prior, given, length, lambda z: self._context(z, c))
        return continued(self.rows.network, self.rows.likelihood, given, length, steps, context=context, end=end, **options)

    def _context(self, z: Tensor, c: Tensor) -> Tensor:
        """What the network sees beside the elements, ``(..., K + C)``."""
        leading = torch.broadcast_shapes(z.shape[:-1], c.shape[:-1])
        return torch.cat([z.expand(*leading, -1), c[..., : self.told].expand(*leading, -1)], -1)
