"""How plain programs are called: which fields of the data are their arguments, by position or by name.

A batch is what the program reads. Between programs it is a tuple of tensors, in the order of the fields; here it becomes the
arguments of each program as its author wrote them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pyro.poutine.messenger import _bound_partial, _context_wrap
from torch import Tensor, nn

from ppl_vae.types import DataSpec

__all__ = ["Call", "Reads", "reads", "signature"]

Parameter = inspect.Parameter
ANYTHING = inspect.Signature(
    [Parameter("args", Parameter.VAR_POSITIONAL), Parameter("kwargs", Parameter.VAR_KEYWORD)], __validate_parameters__=False
)
BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
BY_NAME = (Parameter.KEYWORD_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class Call(NamedTuple):
    """How a program is called.

    ``positional`` are the fields that are its first arguments, ``keywords`` those that it gets by name. ``without`` is what it
    gets in place of a field that some batches lack.
    """

    positional: tuple[str, ...]
    keywords: tuple[str, ...] = ()
    without: Mapping[str, Any] = {}

    def arguments(self, names: Sequence[str], batch: Sequence[Tensor]) -> tuple[list[Any], dict[str, Any]]:
        """Those of the program, for a batch of these fields; one that is short lacks the field that rows may lack."""
        if len(batch) < len(names):
            names = [name for name in names if name not in self.without]
        fields = {**self.without, **dict(zip(names, batch, strict=True))}
        return [fields[name] for name in self.positional], {name: fields[name] for name in self.keywords}


class Reads(NamedTuple):
    """The fields of a batch in their order, and how model and guide are called with them."""

    names: tuple[str, ...]
    model: Call
    guide: Call


def reads(model: Callable[..., Any], guide: Callable[..., Any], spec: DataSpec) -> Reads:
    """What two plain programs read of such data.

    Fields given by position are the arguments of both programs, as in Pyro. Of fields given by name each program gets those
    that it names; so of rows of different lengths, whose lengths are a field beside them. Of a lone x with class labels a
    program gets the labels if it has an argument ``y`` or needs a second one.

    Raises:
        ValueError: a program that cannot be called with these fields, or a field that no program reads.
    """
    names = (*(field.name for field in spec.fields), *spec.lengths) or ("x",)
    ways = {"model": signature(model), "guide": signature(guide)}
    if spec.fields and not names[0].isdigit():
        names = (*names, "y") if spec.classes and any(_named(way, "y") for way in ways.values()) else names
        calls = _by_name(names, ways, spec.lengths)
    elif not spec.fields and spec.classes and (labelled := _labels(ways)):
        names, calls = ("x", "y"), labelled
    else:
        calls = dict.fromkeys(ways, Call(names))
    partial = [field.name for field in spec.fields if field.partial]
    for role, call in calls.items():
        _check(role, ways[role], call, names)
        calls[role] = call._replace(without={name: _default(ways[role], call, name) for name in partial})
    return Reads(names, calls["model"], calls["guide"])


def signature(program: Callable[..., Any]) -> inspect.Signature:
    """The arguments of a program, seen through Pyro's handlers (``config_enumerate``, ``poutine.scale``) and modules."""
    while isinstance(program, (functools.partial, _bound_partial)):
        if isinstance(program, _bound_partial):
            program = program.func
        elif program.func is _context_wrap:
            program = program.args[1]
        else:
            break
    try:
        return inspect.signature(program.forward if isinstance(program, nn.Module) else program)
    except (TypeError, ValueError):
        return ANYTHING


def _by_name(names: tuple[str, ...], ways: dict[str, inspect.Signature], lengths: tuple[str, ...] = ()) -> dict[str, Call]:
    """Each program gets the fields that it names; one that takes any gets all that the model reads."""
    model = tuple(name for name in names if _takes_any(ways["model"]) or _named(ways["model"], name))
    guide = tuple(name for name in (model if _takes_any(ways["guide"]) else names) if _reads(ways["guide"], name))
    unread = [name for name in names if name not in (*model, *guide)]
    if unread and unread[0] in lengths:
        raise ValueError(
            f"expected programs that read {unread[0]!r}, since rows of different lengths come padded, got model{ways['model']} "
            f"and guide{ways['guide']}: add the argument, and leave the padding out by sequence_mask({unread[0]}, T)"
        )
    if unread:
        raise ValueError(
            f"expected fields that the programs read, got {', '.join(unread)}, an argument of neither model{ways['model']} nor "
            f"guide{ways['guide']}: leave it out, or name the argument so"
        )
    return {"model": Call((), model), "guide": Call((), guide)}


def _labels(ways: dict[str, inspect.Signature]) -> dict[str, Call] | None:
    """How programs get the class labels; ``None`` if neither asks for them."""
    calls = {role: _call_with_labels(way) for role, way in ways.items() if not _takes_all(way)}
    if not any(call != Call(("x",)) for call in calls.values()):
        return None
    return {role: calls.get(role, calls.get("model", Call(("x", "y")))) for role in ways}


def _call_with_labels(way: inspect.Signature) -> Call:
    positional = [parameter for parameter in way.parameters.values() if parameter.kind in BY_POSITION]
    if len(positional) > 1 and (positional[1].name == "y" or positional[1].default is Parameter.empty):
        return Call(("x", "y"))
    return Call(("x",), ("y",)) if _named(way, "y") and [p.name for p in positional[:1]] != ["y"] else Call(("x",))


def _named(way: inspect.Signature, name: str) -> bool:
    return name in way.parameters and way.parameters[name].kind in BY_NAME


def _reads(way: inspect.Signature, name: str) -> bool:
    return _takes_any(way) or _named(way, name)


def _takes_any(way: inspect.Signature) -> bool:
    """Whether arguments of any name are taken."""
    return any(parameter.kind == Parameter.VAR_KEYWORD for parameter in way.parameters.values())


def _takes_all(way: inspect.Signature) -> bool:
    """Whether any arguments are taken, as by an automatic guide, which hands them on to its model."""
    return _takes_any(way) and any(parameter.kind == Parameter.VAR_POSITIONAL for parameter in way.parameters.values())


def _default(way: inspect.Signature, call: Call, name: str) -> Any:
    """What the program says that an argument is if it is not given; else nothing."""
    if name in call.positional:
        at = call.positional.index(name)
        found = [parameter for parameter in way.parameters.values() if parameter.kind in BY_POSITION][at : at + 1]
    else:
        found = [way.parameters[name]] if name in way.parameters else []
    return found[0].default if found and found[0].default is not Parameter.empty else None


def _check(role: str, way: inspect.Signature, call: Call, names: tuple[str, ...]) -> None:
    """Raise ``ValueError`` if a program cannot be called so."""
    try:
        way.bind(*call.positional, **dict.fromkeys(call.keywords))
    except TypeError as error:
        found = f"{len(names)} fields by position" if names[0].isdigit() else f"the fields {', '.join(names)}"
        raise ValueError(
            f"expected a {role} that can be called with {found}, got {role}{way}, which says: {error}; give what it reads as "
            "fields of the data, (x, y) by position or {'x': x, 'y': y} by name; bind what is the same for all batches by "
            "functools.partial"
        ) from None
