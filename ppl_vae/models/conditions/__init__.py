"""What a conditional model is given: labels or covariates beside the data, or a part of the data, one kind a file."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
