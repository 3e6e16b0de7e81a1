"""Plain arguments of calls, checked where they come in; fields of declarations check themselves."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ppl_vae.text import as_line, denied

__all__ = ["as_path", "names", "whole"]


def whole(name: str, value: Any) -> int:
    """A whole number, numpy's and torch's too; a truth is none.

    Raises:
        ValueError: anything else.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise ValueError(f"expected a whole number, got {name} = {as_line(repr(value))}") from None


def as_path(value: Any) -> Path:
    """A path that can be looked at.

    Raises:
        ValueError: no path, or one that the file system refuses.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise ValueError(f"expected the path of a folder, got {as_line(repr(value))}: give a text or a Path")
    path = Path(value)
    try:
        path.exists()
    except OSError as error:  # a name that is too long, a folder above it that may not be searched
        raise denied(path, error) from None
    return path


def names(name: str, value: Any) -> tuple[str, ...]:
    """Texts, of which one stands for itself.

    Raises:
        ValueError: anything else.
    """
    found = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else (None,)
    if not all(isinstance(one, str) for one in found):
        raise ValueError(f"expected {name} as a list of names, got {as_line(repr(value))}")
    return found
