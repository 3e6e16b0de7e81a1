"""Every picture of the library: plain tensors and history rows in, a matplotlib ``Figure`` out.

No function touches ``pyplot``: no backend is switched, no setting changed, and a figure that nobody
holds is freed. Show one by returning it in a notebook, keep one with `save`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
