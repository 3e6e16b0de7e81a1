"""Topic models: :class:`~ppl_vae.LDA`."""

from ppl_vae.models.topics.lda import LDA

__all__ = ["LDA"]
