"""Fields of declarations that stand in declarations, by joined names: ``prior__components`` of a VAE."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from ppl_vae.declaration import Declaration
from ppl_vae.text import did_you_mean

__all__ = ["field_at", "fields_within", "path_of", "plain_field", "with_fields"]

D = TypeVar("D", bound=Declaration)
BETWEEN = "__"


def path_of(name: str) -> str:
    """A joined name as options and readers have it.

    Examples:
        >>> path_of("prior__components")
        'prior.components'
    """
    return name.replace(BETWEEN, ".")


def fields_within(declared: Declaration, prefix: str = "") -> dict[str, Any]:
    """Every field, and those of the declarations in them, by joined names.

    Examples:
        >>> fields_within(VAE(prior=GaussianMixture(components=4)))["prior__components"]
        4
    """
    found: dict[str, Any] = {}
    for field in dataclasses.fields(declared):
        value, name = getattr(declared, field.name), f"{prefix}{field.name}"
        found[name] = value
        if isinstance(value, Declaration):
            found |= fields_within(value, f"{name}{BETWEEN}")
    return found


def field_at(declared: Declaration, name: str) -> Any:
    """The value of a field by its joined name.

    Raises:
        ValueError: no such field.
    """
    first, _, rest = name.partition(BETWEEN)
    value = getattr(declared, _known(declared, first))
    return field_at(_declaration(declared, first, value), rest) if rest else value


def with_fields(declared: D, values: Mapping[str, Any]) -> D:
    """The same declaration with other values of fields by joined names; of a declaration and its fields, the declaration first.

    Raises:
        ValueError: no such field, or a value that the declaration does not take.

    Examples:
        >>> with_fields(VAE(prior=GaussianMixture()), {"prior__components": 3, "latent_dim": 2}).prior.components
        3
    """
    for name, value in sorted(values.items(), key=lambda item: item[0].count(BETWEEN)):
        first, _, rest = name.partition(BETWEEN)
        inner = getattr(declared, _known(declared, first))
        value = with_fields(_declaration(declared, first, inner), {rest: value}) if rest else value
        declared = dataclasses.replace(declared, **{first: value})
    return declared


def plain_field(declared: Declaration, name: str, value: Any) -> Any:
    """A plain value, such as the name of a class, as what the field of that joined name takes.

    Raises:
        ValueError: no such field, or a value that it does not take.

    Examples:
        >>> plain_field(VAE(), "prior", {"class_path": "GaussianMixture", "init_args": {"components": 3}}).components
        3
    """
    first, _, rest = name.partition(BETWEEN)
    inner = getattr(declared, _known(declared, first))
    if rest:
        return plain_field(_declaration(declared, first, inner), rest, value)
    config = declared.to_dict()
    within = config["init_args"] if "class_path" in config else config
    return getattr(type(declared).from_dict({**config, "init_args": {**within, first: value}}), first)


def _known(declared: Declaration, name: str) -> str:
    names = [field.name for field in dataclasses.fields(declared)]
    if name not in names:
        near = did_you_mean(name, names)
        told = f"expected a field of {type(declared).__name__} ({', '.join(names)}), got {name!r}"
        raise ValueError(f"{told}: {near or 'choose one of these'}")
    return name


def _declaration(declared: Declaration, name: str, value: Any) -> Declaration:
    if not isinstance(value, Declaration):
        raise ValueError(
            f"expected a declaration as {name} of {type(declared).__name__}, whose fields could be named, got {value!r}: "
            f"give {name} itself"
        )
    return value
