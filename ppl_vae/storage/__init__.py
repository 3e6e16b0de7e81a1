"""What lies on disk: files that are whole, the run folder with its lock, snapshots of a fit that goes on."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
