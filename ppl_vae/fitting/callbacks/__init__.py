"""What hears of a fit as it goes on: progress, metrics, loggers, the run folder, remarks, and callbacks of a user's own."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
