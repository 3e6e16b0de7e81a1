"""Data: where they come from, how they are split, and what the model sees of them.

:func:`load_data` reads a named set, a file, a folder of images or an array into a :class:`Data`: a :class:`Split` each
of raw train, valid and test values in their smallest dtype, a :class:`Transform` from these to what the model sees, wherever
they lie, and the :class:`~ppl_vae.types.DataSpec` from which models are built. Files that are larger than memory are streamed.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
