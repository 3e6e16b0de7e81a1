"""One page on which the codes of a fit are moved and what they decode to is seen; and a server that decodes for it."""

from ppl_vae.explore.page import explore
from ppl_vae.explore.serving import serve

__all__ = ["explore", "serve"]
