"""Nested records of tensors and plain values, and their fields side by side under dotted names.

A record is a frozen dataclass or a ``NamedTuple`` whose fields are tensors, plain values, records, or mappings and tuples of
tensors and records. What a field is, its type says. The name of a value is its path: the field, then keys or places, with dots
between. A field declared by :func:`inlined` holds a record whose fields are named as if they stood in its place.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from torch import Tensor

__all__ = ["flatten", "inlined", "map_tensors", "unflatten"]

INLINED = "inlined"
R = TypeVar("R")


def inlined() -> Any:
    """A field of a dataclass that holds a record whose fields keep their own names."""
    return dataclasses.field(metadata={INLINED: True})


def flatten(record: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a record by name, not copied, and its plain values.

    Examples:
        >>> from typing import NamedTuple
        >>> from torch import tensor
        >>> class Moments(NamedTuple):
        ...     steps: int
        ...     means: tuple[Tensor, ...]
        >>> flatten(Moments(3, (tensor(1.0), tensor(2.0))))
        ({'means.0': tensor(1.), 'means.1': tensor(2.)}, {'steps': 3})
    """
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for name, value in _leaves(type(record), record, ""):
        (tensors if isinstance(value, Tensor) else plain)[name] = value
    return tensors, plain


def unflatten(kind: type[R], tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> R:
    """The record of a class that :func:`flatten` made these of; other names are left alone.

    Raises:
        LookupError: a name that is not there.
        ValueError: a place that is no number.
    """
    found: R = _read(kind, tensors, plain, "")
    return found


def map_tensors(change: Callable[[Tensor], Tensor], value: R) -> R:
    """The same record with every tensor in it changed, such as copied."""
    found: R = _changed(change, value)
    return found


def _changed(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _changed(change, one) for key, one in value.items()}
    if isinstance(value, tuple):
        changed = [_changed(change, one) for one in value]
        return type(value)(*changed) if _is_record(type(value)) else tuple(changed)
    if _is_data(type(value)):
        return type(value)(**{field.name: _changed(change, getattr(value, field.name)) for field in dataclasses.fields(value)})
    return value


def _leaves(kind: Any, value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The tensors and plain values of what a type describes."""
    if _is_record(kind):
        for name, inner, prefix in _fields(kind, path):
            yield from _leaves(inner, getattr(value, name), prefix)
    elif (origin := get_origin(kind)) is not None and issubclass(origin, Mapping):
        for key, one in value.items():
            yield from _leaves(get_args(kind)[1], one, f"{path}.{key}")
    elif origin is tuple and _holds_tensors(kind):
        for place, one in enumerate(value):
            yield from _leaves(get_args(kind)[0], one, f"{path}.{place}")
    else:
        yield path, value


def _read(kind: Any, tensors: Mapping[str, Tensor], plain: Mapping[str, Any], path: str) -> Any:
    """What a type describes, from the values below a path."""
    if kind is Tensor:
        return tensors[path]
    if _is_record(kind):
        return kind(**{name: _read(inner, tensors, plain, prefix) for name, inner, prefix in _fields(kind, path)})
    origin = get_origin(kind)
    if origin is not None and issubclass(origin, Mapping):
        of_key, of_value = get_args(kind)
        names = [name.removeprefix(f"{path}.") for name in tensors if name.startswith(f"{path}.")]
        if of_value is Tensor:
            return {of_key(name): tensors[f"{path}.{name}"] for name in names}
        keys = dict.fromkeys(name.partition(".")[0] for name in names)
        return {of_key(key): _read(of_value, tensors, plain, f"{path}.{key}") for key in keys}
    if origin is tuple and _holds_tensors(kind):
        places = {int(name.removeprefix(f"{path}.").partition(".")[0]) for name in (*tensors, *plain) if _below(name, path)}
        return tuple(_read(get_args(kind)[0], tensors, plain, f"{path}.{place}") for place in range(len(places)))
    return plain[path]


def _fields(kind: Any, path: str) -> Iterator[tuple[str, Any, str]]:
    """The fields of a record: their names, what they hold, and the path of that."""
    inline = {field.name for field in dataclasses.fields(kind) if INLINED in field.metadata} if _is_data(kind) else set()
    for name, inner in get_type_hints(kind).items():
        yield name, inner, path if name in inline else f"{path}.{name}" if path else name


def _is_data(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _is_record(kind: Any) -> bool:
    return _is_data(kind) or (isinstance(kind, type) and issubclass(kind, tuple) and kind is not tuple)


def _holds_tensors(kind: Any) -> bool:
    """Whether a type has tensors anywhere in it."""
    if get_origin(kind) in (Union, types.UnionType):
        return False
    return kind is Tensor or _is_record(kind) or any(_holds_tensors(part) for part in get_args(kind))


def _below(name: str, path: str) -> bool:
    return name.startswith(f"{path}.")
