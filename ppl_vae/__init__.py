"""Declared generative latent-variable models on Pyro: one declaration, any inference, honest numbers in nats per datum."""

import lazy_loader

from ppl_vae.deprecation import renamed_in

__version__ = "0.1.0"

_public, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
_renamed = renamed_in(__name__, {"Keeper": "Checkpointer"})


def __getattr__(name: str) -> object:
    """What is imported when it is asked for, because torch takes its time; and the names of before."""
    return _public(name) if name in __all__ else _renamed(name)
