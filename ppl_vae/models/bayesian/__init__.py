"""Models whose parameters carry priors, so that data leave a posterior over them too."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
