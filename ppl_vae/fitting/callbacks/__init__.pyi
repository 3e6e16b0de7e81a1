from .base import Callback, FitContext
from .loggers import Logger

__all__ = ["Callback", "FitContext", "Logger"]
