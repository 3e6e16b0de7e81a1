"""Names that were changed: the old one works for one more release, and says what it is called now."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["RenamedAttribute", "renamed_in", "warn_renamed"]


def renamed_in(module: str, renamed: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module of which public names were changed.

    Args:
        module: its name.
        renamed: the names of now by those of before.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807
        if name not in renamed:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warn_renamed(f"{module}.{name}", f"{module}.{renamed[name]}")
        return getattr(sys.modules[module], renamed[name])

    return __getattr__


class RenamedAttribute:
    """An attribute or method under the name that it had before.

    Args:
        now: its name.
    """

    def __init__(self, now: str) -> None:
        self.now = now

    def __set_name__(self, owner: type, name: str) -> None:
        self.before = name

    def __get__(self, instance: object, owner: type) -> Any:
        if instance is None:
            return self
        warn_renamed(f"{owner.__name__}.{self.before}", f"{owner.__name__}.{self.now}")
        return getattr(instance, self.now)


def warn_renamed(before: str, now: str, *, stacklevel: int = 3) -> None:
    """Warn that something was met under its old name.

    Args:
        before: the name.
        now: what it is called.
        stacklevel: of whom it is told, see ``warnings.warn``; 1 is who calls this.
    """
    warnings.warn(
        f"{before} is called {now} now; the old name goes with the next release: use the new one",
        DeprecationWarning,
        stacklevel=stacklevel,
    )
