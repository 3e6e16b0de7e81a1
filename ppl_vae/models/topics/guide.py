"""Mean field of latent Dirichlet allocation.

q(beta, theta, z) = prod_k Dirichlet(beta_k; lambda_k) prod_n Dirichlet(theta_n; gamma_n) prod_i q(z_ni)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ppl_vae.exact import topics as exact
from ppl_vae.models.topics.documents import of_batch
from ppl_vae.program.base import GuideProgram
from ppl_vae.types import ELBOTerms

__all__ = ["SITE", "TopicGuide"]

SITE = "topics"


class TopicGuide(GuideProgram):
    """It keeps lambda ``(K, V)``, of a prior of topics; gamma of a document follows from its counts.

    The bound is that of q with the topics z of words in it, which the model's program sums out: run as programs, the pair has a
    higher one.

    Args:
        model: the built model, whose point estimates of the topics, where they have no prior, it reads.
    """

    size: int
    concentration: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.size = model.size
        self.site = "theta"
        self._model = (model,)  # in a tuple, so that its parameters are not listed twice
        self.drawn = bool(model.parameter_sites)
        start = model.topics.detach() * model.topics.shape[-1] if self.drawn else torch.zeros(0)
        self.register_buffer("concentration", start.clone())

    def forward(self, *batch: Any, **fields: Any) -> Any:
        """Draw the topics, if they have a prior, and the proportions of each document."""
        if self.drawn:
            pyro.sample(SITE, dist.Dirichlet(self.concentration).to_event(1))
        return super().forward(*batch, **fields)

    @property
    def seen(self) -> exact.Topics:
        """What documents see of the topics."""
        return exact.Topics.of(self.log_topics(self.concentration if self.drawn else self._model[0].topics))

    def log_topics(self, state: Tensor) -> Tensor:
        """E[log beta] ``(K, V)`` under a concentration, or log beta of point estimates."""
        return exact.expected_log(state) if self.drawn else state.clamp_min(torch.finfo(state.dtype).tiny).log()

    def shared_kl(self, state: Tensor) -> Tensor:
        """KL(q(beta) || p(beta)) in nats, in float64; 0 of point estimates."""
        eta = self._model[0].eta
        return state.new_zeros((), dtype=torch.float64) if eta is None else exact.dirichlet_kl(state, eta).sum()

    @torch.no_grad()
    def posterior(self, x: Tensor) -> dist.Distribution:
        """q(theta | x) of each document, the fixed point, for x ``(B, *event)``."""
        gamma = self._model[0].alpha.new_empty(len(x), *self._model[0].latent_shape)
        for block, q in self._local(x):
            gamma[block.rows] = q.gamma
        return dist.Dirichlet(gamma)

    @torch.no_grad()
    def bound(self, x: Tensor) -> ELBOTerms:
        """ELBO, reconstruction and KL of each document in nats, ``(B,)`` in float64; the topics' KL is charged as KL / N."""
        alpha, state = self._model[0].alpha, self.concentration if self.drawn else self._model[0].topics
        elbo, kl = (x.new_empty(len(x), dtype=torch.float64) for _ in range(2))
        shared = self.shared_kl(state) / self.size
        for block, q in self._local(x):
            elbo[block.rows] = q.bound - shared
            kl[block.rows] = exact.dirichlet_kl(q.gamma, alpha) + shared
        return ELBOTerms(elbo, elbo + kl, kl)

    def drawn_parameters(self, draws: int) -> dict[str, Tensor]:
        """Draws of the topics ``(draws, K, V)``; none of point estimates."""
        return {SITE: dist.Dirichlet(self.concentration).sample((draws,))} if self.drawn else {}

    def parameter_draws(self, draws: int) -> Iterator[Any]:
        """Contexts inside which the model is at a draw of its topics."""
        found = (self.drawn_parameters(1) for _ in range(draws if self.drawn else 0))
        return (self._model[0].given({name: value[0] for name, value in each.items()}) for each in found)

    @torch.no_grad()
    def assign(self, state: Tensor) -> None:
        """Write a concentration, or point estimates, here and as point estimates into the model."""
        if self.drawn:
            self.concentration.copy_(state)
        self._model[0].assign({SITE: exact.mean(state)})

    def _local(self, x: Tensor) -> Iterator[tuple[exact.Documents, exact.Local]]:
        model, seen = self._model[0], self.seen
        for block in of_batch(x, len(model.alpha)):
            yield block, exact.local(block, seen, model.alpha, model.steps)
