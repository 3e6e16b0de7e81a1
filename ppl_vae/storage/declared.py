"""Declarations field by field: what differs between two, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["differences", "flat"]


PLACES = ("data.source", "data.root", "data.download")  # where data lie, which what they are tells apart, not these


def differences(old: Mapping[str, Any], new: Mapping[str, Any], defaults: Iterable[str] = ()) -> str:
    """What differs between the fields of two fits, but where their data lie, in words; nothing if nothing does.

    Args:
        old: the fields of a fit that was begun, by name.
        new: those of the fit that goes on.
        defaults: the fields of the latter that are what they are by default: the former may not have had them yet.
    """
    names = (old.keys() | (new.keys() - set(defaults))) - set(PLACES)
    differ = sorted(name for name in names if old.get(name) != new.get(name))
    return "; ".join(f"{name} was {old.get(name)!r}, now {new.get(name)!r}" for name in differ)


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Plain values of nested declarations by the names that the command line has for them."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    joined = {"class_path": prefix, "init_args": prefix}
    inner = ((joined.get(name, f"{prefix}.{name}".strip(".")), part) for name, part in value.items())
    return {key: v for name, part in inner for key, v in flat(part, name).items()}
