from .lda import LDA

__all__ = ["LDA"]
