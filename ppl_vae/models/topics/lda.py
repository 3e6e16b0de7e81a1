"""Latent Dirichlet allocation (Blei, Ng and Jordan 2003).

for k in 1..K:
beta_k ~ Dirichlet(eta)                 topics
for n in 1..N:
theta_n ~ Dirichlet(alpha)              proportions
x_n ~ Multinomial(total, theta_n beta)  counts of words
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from ppl_vae.declaration import require
from ppl_vae.likelihoods import Likelihood
from ppl_vae.likelihoods.multinomial import Multinomial
from ppl_vae.models.base import Model, PosteriorFamily
from ppl_vae.models.topics.documents import check_counts
from ppl_vae.models.topics.program import TopicProgram
from ppl_vae.priors import Dirichlet, Prior
from ppl_vae.types import DataSpec, Kind

__all__ = ["LDA"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LDA(Model):
    """Documents of several topics: theta ~ Dirichlet(alpha), x ~ Multinomial(theta beta), beta_k ~ Dirichlet(eta).

    A datum is a document, its elements counts of words, its number log p(counts | their total). A document without words is
    allowed and tells nothing. ``CAVI`` fits it by mean field, with a ``batch_size`` in stochastic steps (Hoffman et al. 2013),
    ``collapsed`` as CVB0 (Asuncion et al. 2009), which finds topics that predict better; ``SVI`` with an amortized guide.

    Args:
        topics: K.
        proportions: prior of a document's proportions theta, on the simplex. CAVI wants a ``Dirichlet``.
        words: prior of each topic's words, a ``Dirichlet`` alike for all topics; ``None`` for point estimates, with which CAVI
            is the variational EM of Blei et al., and a word that no training document has is impossible.
        steps: updates of a document's factor, from the even one, in each sweep. Fewer are faster, and topics worse.

    Raises:
        ValueError: no topics, fewer than one step, proportions that are not on the simplex, or words of another prior.

    Examples:
        >>> print(LDA(topics=3))
        beta_k ~ Dirichlet(0.01), k = 1..3; theta ~ Dirichlet(0.1); x | theta ~ Multinomial(total of x, theta beta)
    """

    posterior_family: ClassVar[PosteriorFamily] = "factors"

    topics: int = 10
    proportions: Prior = Dirichlet(concentration=0.1)
    words: Prior | None = Dirichlet(concentration=0.01)
    steps: int = 10

    def __post_init__(self) -> None:
        require(self.topics >= 1, "at least 1 topic", self.topics)
        require(self.steps >= 1, "at least 1 step", self.steps)
        require(self.proportions.support == "simplex", "proportions on the simplex, such as Dirichlet()", self.proportions)
        require(self.words is None or isinstance(self.words, Dirichlet), "words of a Dirichlet(), or none", self.words)

    @property
    def parameter_priors(self) -> Mapping[str, Prior]:
        """That of the topics, if they have one."""
        return {} if self.words is None else {"words": self.words}

    @property
    def accepts(self) -> frozenset[Kind]:
        """Counts."""
        return Multinomial.accepts

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` with the remedy if the data are no counts, or some are missing."""
        Multinomial().check(spec)
        if spec.missing:
            raise ValueError(
                "LDA is a model of complete counts, but entries of these are missing: give a word that does not occur the "
                "count 0"
            )

    def check_values(self, x: Tensor) -> None:
        """Raise ``ValueError`` with the row and the column of a count that is negative or not whole."""
        check_counts(x)

    def without_latents(self, spec: DataSpec) -> Likelihood | None:
        """One distribution of words for all documents."""
        return Multinomial()

    def build(self, spec: DataSpec) -> TopicProgram:
        """The Pyro program for data of this shape and number."""
        return TopicProgram(self.topics, self.proportions, self.words, spec, steps=self.steps)

    def story(self) -> str:
        """The sites from top to bottom, as mathematics."""
        topics = "" if self.words is None else f"beta_k ~ {self.words.story(())}, k = 1..{self.topics}; "
        return f"{topics}theta ~ {self.proportions.story(())}; x | theta ~ Multinomial(total of x, theta beta)"
