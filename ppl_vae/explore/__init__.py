"""One page on which the codes of a fit are moved and what they decode to is seen; and a server that decodes for it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
