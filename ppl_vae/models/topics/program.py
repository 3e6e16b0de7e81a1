"""The program of latent Dirichlet allocation.

    beta_k ~ Dirichlet(eta)
    for n in 1..N:
        theta_n ~ p(theta)
        x_n ~ Multinomial(total of x_n, theta_n beta)

The topic of each word is summed out.
"""

from __future__ import annotations

import math
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from ppl_vae.exact import Problem, Stochastic, Sweep
from ppl_vae.likelihoods.multinomial import LENGTH, MultinomialDistribution, typical_total
from ppl_vae.models.bayesian import BayesianModel
from ppl_vae.models.bayesian.parameters import Given
from ppl_vae.models.topics import ascent
from ppl_vae.models.topics.guide import SITE, TopicGuide
from ppl_vae.priors import Dirichlet, Prior
from ppl_vae.program.hooks import Start
from ppl_vae.program.quantities import COLUMN, LATENT, Quantity
from ppl_vae.program.rows import data_plate
from ppl_vae.program.sites import Site
from ppl_vae.types import DataSpec

__all__ = ["TopicProgram"]


class TopicProgram(BayesianModel):
    """Topics ``(K, V)``, with a prior or as point estimates; an event of several axes is modelled as one vector of V counts.

    The buffer ``total`` is the length of new documents, the mean of the training documents'.

    Args:
        topics: K.
        proportions: prior of theta.
        words: prior of the topics.
        spec: of the data.
        steps: of the fixed-point iteration of a document.
    """

    learning_rate = 1e-2
    random_start = True

    total: Tensor

    def __init__(self, topics: int, proportions: Prior, words: Prior | None, spec: DataSpec, *, steps: int) -> None:
        V = math.prod(spec.event_shape)
        start = torch.softmax(0.1 * torch.randn(topics, V), -1)
        super().__init__(spec.size, {SITE: Given(words, "simplex", start)})
        self.steps = steps
        self.event_shape = spec.event_shape
        self.latent_shape = (topics,)
        self.proportions = proportions.build((topics,))
        self.conjugate = isinstance(proportions, Dirichlet)
        self.axes = {SITE: ("component", "column")}
        self.register_buffer("total", torch.tensor(LENGTH))

    def forward(self, x: Tensor) -> Tensor:
        """The story, with the batch x ``(B, *event)`` observed."""
        topics = self.draw()[SITE]
        with data_plate(self.size, x):
            theta = pyro.sample("theta", self.prior())
            return pyro.sample("x", self._counts(theta, topics), obs=x)

    @property
    def sites(self) -> dict[str, Site]:
        """The proportions."""
        return {"theta": Site("theta", self.latent_shape, constraints.simplex)}

    @property
    def documents(self) -> bool:
        """Always."""
        return True

    @property
    def free_parameters(self) -> int:
        """V - 1 of each topic."""
        K, V = self.topics.shape
        return K * (V - 1)

    @property
    def topics(self) -> Tensor:
        """Point estimates of the topics, or their draw, ``(K, V)``."""
        return self.values[SITE]

    @property
    def alpha(self) -> Tensor:
        """Concentration of the proportions ``(K,)``."""
        proportions: Any = self.proportions
        concentration: Tensor = proportions.concentration
        return concentration

    @property
    def eta(self) -> Tensor | None:
        """Concentration of the topics ``(K, V)``; ``None`` of point estimates."""
        return self.theta[SITE].prior.concentration if self.parameter_sites else None

    def prior(self) -> dist.Distribution:
        """p(theta)."""
        return self.proportions()

    def decode(self, z: Tensor) -> MultinomialDistribution:
        """p(x | theta) for theta ``(..., K)``, of documents of the mean length."""
        return self._counts(z, self.topics)

    def quantities(self) -> dict[str, Quantity]:
        """The topics, by the names of their proportions."""
        return {"topic": Quantity(values=self.topics, axes=(LATENT, COLUMN), note="p(word | topic)")}

    def mean_field(self, spec: DataSpec) -> TopicGuide:
        """q(topics) prod_n q(theta_n), all Dirichlet.

        Raises:
            ValueError: proportions of another prior.
        """
        if not self.conjugate:
            raise ValueError(
                "coordinate ascent wants LDA(proportions=Dirichlet()), to which its factors are conjugate, got another prior: "
                "fit this by SVI with AmortizedNormal()"
            )
        return TopicGuide(self)

    def cavi(self, guide: TopicGuide, rows: Any, sweep: Sweep) -> Problem:
        """What coordinate ascent iterates: sweeps, or passes of the collapsed updates."""
        sweep.refuse("LDA", "collapsed")
        return ascent.collapsed(guide, rows, sweep) if sweep.collapsed else ascent.sweeps(guide, rows, sweep)

    def stochastic(self, guide: TopicGuide, rows: Any, sweep: Sweep) -> Stochastic:
        """Natural-gradient steps on batches (Hoffman et al. 2013)."""
        sweep.refuse("LDA")
        return ascent.stochastic(guide, rows, sweep)

    def start_fit(self, context: Start) -> None:
        """Topics start near the words of all documents, each a little apart; new documents are of the mean length."""
        x = context.sample.flatten(1)
        self.total.copy_(typical_total(x))
        words = (x.sum(0) + 1) / (x.sum() + x.shape[1])
        noise = torch.rand(self.topics.shape, generator=context.generator(), device=x.device)
        started = words * (0.5 + noise).to(words)
        self.assign({SITE: started / started.sum(-1, keepdim=True)})

    def _counts(self, theta: Tensor, topics: Tensor) -> MultinomialDistribution:
        topics = topics if topics.dim() == 2 else topics.squeeze(-3)  # draws stand left of the data's axis, which they have not
        probs = theta @ topics
        log = probs.clamp_min(torch.finfo(probs.dtype).tiny).log()
        return MultinomialDistribution(log.unflatten(-1, self.event_shape), self.total, len(self.event_shape))
