from .result import Selection
from .select import select

__all__ = ["Selection", "select"]
