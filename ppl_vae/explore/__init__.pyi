from .page import explore
from .serving import serve

__all__ = ["explore", "serve"]
