"""What must be the same when a fit goes on: everything that was declared but how long it is and where the data lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ppl_vae.declaration import Declaration

__all__ = ["differences", "fixed"]


def fixed(declared: Mapping[str, Declaration]) -> dict[str, Any]:
    """The fields of model, guide, method and data that stay as they are, by the names that the command line has for them."""
    free = (f"method.{getattr(declared['method'], 'length', None)}", "data.root", "data.download")
    fields = _flat({name: part.to_dict() for name, part in declared.items()})
    return {name: value for name, value in fields.items() if name not in free}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What differs between the fields of two fits, in words; nothing if nothing does."""
    differ = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    return "; ".join(f"{name} was {old.get(name)!r}, now {new.get(name)!r}" for name in differ)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    joined = {"class_path": prefix, "init_args": prefix}
    inner = ((joined.get(name, f"{prefix}.{name}".strip(".")), part) for name, part in value.items())
    return {key: v for name, part in inner for key, v in _flat(part, name).items()}
