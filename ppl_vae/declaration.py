"""Declarations: plain, immutable descriptions of models, guides, methods and data.

A declaration is a frozen, keyword-only dataclass of plain values and other declarations. Equality, ``repr`` and
``dataclasses.replace`` come from the dataclass; YAML and command-line options come from the class's own typed signature
through jsonargparse, so there is no second schema to keep in step.

An abstract subclass of :class:`Declaration` (``Prior``, ``Network``, ...) opens a *family*: wherever one member is declared,
any other can stand, a user's own included.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import operator
import re
import sys
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Self

import yaml

from ppl_vae.named import Named
from ppl_vae.notebook import box, table
from ppl_vae.text import as_line, from_yaml, read_text

__all__ = [
    "Declaration",
    "also_called",
    "enable_families",
    "families",
    "family_members",
    "import_families",
    "parse",
    "refuse_untrusted",
    "require",
]

D = typing.TypeVar("D", bound="Declaration")

FOLDERS = ("data", "models", "priors", "likelihoods", "nn", "guides", "inference")
"""Where the library's own members of families are, each imported when it is asked for."""

FAMILIES = (
    *("Model", "Guide", "Method", "Prior", "Likelihood", "Network", "Condition", "CodesPrior", "CodebookUpdate", "Node"),
    *("Noise", "NoiseSchedule", "Objective", "WarmUp", "Sampling", "Tokenizer"),
)
"""The library's own families, in the order in which they are listed."""

# Types of fields whose text is never taken for the name of a class.
PLAIN = (bool, int, float, str, bytes, Path, NoneType, tuple, list, ...)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Declaration:
    """Base of every declaration.

    Class attributes:
        declarable: whether YAML can tell it; a class that holds a user's object is no choice of a family.
    """

    declarable: ClassVar[bool] = True

    def __new__(cls, **fields: Any) -> Self:
        """Refuse values of another type before ``__init__`` and ``__post_init__`` meet them."""
        types = _field_types(cls)
        for name, value in fields.items():
            hint = types.get(name, Any)
            require(_is_a(value, hint), f"{name}: {_type_name(hint)}", value)
        return super().__new__(cls)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__post_init__" in cls.__dict__:
            type.__setattr__(cls, "__post_init__", _of_plain(cls.__post_init__))

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = vars(self).get(field.name)
            if (plain := _python(value)) is not value:
                object.__setattr__(self, field.name, plain)

    def _repr_html_(self) -> str:
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        story = str(self)
        return box(type(self).__name__, table(fields, "" if story == repr(self) else story))

    @classmethod
    def takes(cls, value: Any) -> bool:
        """Whether a value may stand in a field of this class."""
        return isinstance(value, cls)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only: ``{"class_path": ..., "init_args": {...}}`` for a family member, else just the fields.

        Raises:
            ValueError: it holds an object that no YAML can name.
        """
        if not self.declarable:
            raise ValueError(f"{as_line(self)} holds an object that no YAML can name: use it without a run folder (out)")
        fields = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return {"class_path": _class_path(type(self)), "init_args": fields} if _in_family(type(self)) else fields

    def to_yaml(self) -> str:
        """The declaration as YAML that :meth:`from_yaml` and the command line read back."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any] | str, *, trust: Iterable[str] = ()) -> Self:
        """Rebuild a declaration from what :meth:`to_dict` gave, or a family member from its class name.

        Args:
            config: the plain values.
            trust: modules, besides ppl_vae, from which classes may be imported on the config's word.

        Raises:
            ValueError: an unknown class or argument, a value of the wrong type, a class from an untrusted module.
        """
        try:
            refuse_untrusted(config, cls, trust)
        except RecursionError:
            raise ValueError("expected a declaration that does not hold itself, got one that is too deep") from None
        return parse(cls, config)

    @classmethod
    def from_yaml(cls, source: str | Path, *, trust: Iterable[str] = ()) -> Self:
        """Rebuild a declaration from YAML text (``str``) or from a file (:class:`~pathlib.Path`)."""
        try:
            return cls.from_dict(from_yaml(read_text(source) if isinstance(source, Path) else source), trust=trust)
        except ValueError as error:
            told = not isinstance(source, Path) or str(error).startswith(str(source))
            raise ValueError(str(error) if told else f"{source}: {error}") from None


ALIASES: dict[str, type[Declaration]] = {}
"""Other names of classes, for YAML and the command line; an entry keeps its class alive, which jsonargparse looks for."""


def also_called(name: str, cls: type[D]) -> type[D]:
    """A class by which YAML and the command line make objects of another one; to be bound to that name in the same module."""

    def __new__(_: type[D], **fields: Any) -> D:  # noqa: N807
        return cls(**fields)

    summary = (cls.__doc__ or "").partition("\n")[0]
    told = {"__new__": __new__, "__module__": cls.__module__, "__doc__": summary, "declarable": False}
    ALIASES[name] = type(name, (cls,), told)
    return ALIASES[name]  # type: ignore[return-value]


def parse(cls: type[D], config: Any) -> D:
    """A declaration from plain values whose classes were found trustworthy.

    Raises:
        ValueError: an unknown class or argument, or a value of the wrong type.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    require(isinstance(config, (str, Mapping)), f"a {cls.__name__}, by its class name or its fields", config)
    import_families(str(config))
    enable_families()
    name = cls.__name__.lower()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument(f"--{name}", type=cls)
    try:
        return parser.instantiate(parser.parse_object({name: config}))[name]
    except ValueError:
        raise
    except (ArgumentError, AttributeError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"not a declaration of {cls.__name__}: {as_line(error, most=600)}") from None


def require(condition: bool, expected: str, got: object) -> None:
    """Raise the ``ValueError`` of a declaration's ``__post_init__``: what was expected and what came."""
    if not condition:
        raise ValueError(f"expected {expected}, got {as_line(repr(got))}")


def family_members(base: type[Declaration]) -> Iterator[type[Declaration]]:
    """Every concrete class of a family: the library's own, and those of a user's that are imported now."""
    import_families()
    return _members(base)


def _members(base: type[Declaration]) -> Iterator[type[Declaration]]:
    for cls in base.__subclasses__():
        if not inspect.isabstract(cls) and cls.declarable:
            yield cls
        yield from _members(cls)


def families() -> list[type[Declaration]]:
    """Every family: the library's own, and those of a user's that are imported now."""
    import_families()
    return [cls for cls in Declaration.__subclasses__() if inspect.isabstract(cls)]


def import_families(text: str | None = None) -> None:
    """Import whatever of the library can be declared, which is else imported when it is asked for.

    Args:
        text: import only the families and what is named there, in small letters or large ones.
    """
    words = None if text is None else {word.lower() for word in (*FAMILIES, *re.findall(r"\w+", text))}
    for folder in FOLDERS:
        package = importlib.import_module(f"ppl_vae.{folder}")
        for name in package.__all__:
            if words is None or name.lower() in words:
                getattr(package, name)


def enable_families() -> None:
    """Tell jsonargparse that a member of a family may be replaced by any other; concerns our own classes only."""
    from jsonargparse import set_parsing_settings

    set_parsing_settings(subclasses_enabled=[cls for cls in Declaration.__subclasses__() if inspect.isabstract(cls)])


def refuse_untrusted(config: Any, cls: type[Declaration], trust: Iterable[str] = ()) -> None:
    """Raise ``ValueError`` if a plain config of ``cls`` names a class outside ppl_vae, the trusted modules and ``__main__``."""
    _refuse(config, cls, {"ppl_vae", "__main__", *([trust] if isinstance(trust, str) else trust)})


def _refuse(config: Any, hint: Any, trusted: Collection[str]) -> None:
    """Walk a config along the declared types: text names a class only where one may stand."""
    if isinstance(config, str):
        if _may_hold_class(hint):
            _trusted_class(config, hint, trusted)
    elif isinstance(config, Mapping) and typing.get_origin(hint) is Mapping:
        for value in config.values():
            _refuse(value, typing.get_args(hint)[1], trusted)
    elif isinstance(config, Mapping):
        cls = _trusted_class(config["class_path"], hint, trusted) if "class_path" in config else hint
        types = _field_types(cls)
        for name, value in config.items():
            if name in ("init_args", "dict_kwargs"):
                require(isinstance(value, Mapping), f"{name} that are names and values", value)
                for argument, inner in value.items():
                    _refuse(inner, types.get(argument, Any), trusted)
            elif name != "class_path":
                _refuse(value, types.get(name, Any), trusted)
    elif isinstance(config, (list, tuple)):
        for item in config:
            _refuse(item, hint if typing.get_args(hint) else Any, trusted)


def _trusted_class(name: Any, hint: Any, trusted: Collection[str]) -> Any:
    """The class of that name or import path; ``Any`` if there is none. Only trusted modules are imported."""
    require(isinstance(name, str) and name.replace(".", "").isidentifier(), "the name of a class", name)
    module = name.rpartition(".")[0]
    if module and not any(module == prefix or module.startswith(prefix + ".") for prefix in trusted):
        raise ValueError(f"the class {name!r} is not part of ppl_vae: if you trust its code, name its module in `trust`")
    if module:
        try:
            cls = getattr(importlib.import_module(module), name.rpartition(".")[2], None)
        except ModuleNotFoundError as error:
            raise ValueError(f"the class {name!r} cannot be imported: {error}") from None
        require(isinstance(cls, type) and issubclass(cls, Declaration), "the import path of a declaration's class", name)
        return cls
    import_families(name)
    members = {cls.__name__: cls for cls in _members(Declaration)} | ALIASES
    if isinstance(hint, type) and issubclass(hint, Declaration) and not issubclass(members.get(name, object), hint):
        valid = sorted(key for key, cls in _every_member().items() if issubclass(cls, hint))
        raise ValueError(
            f"unknown {hint.__name__} {name!r}: choose from {', '.join(valid)}, or give the import path of your own class"
        )
    return members.get(name, Any)


def _every_member() -> dict[str, type[Declaration]]:
    return {cls.__name__: cls for cls in family_members(Declaration)} | ALIASES


def _field_types(cls: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls) if isinstance(cls, type) and issubclass(cls, Declaration) else {}
    except (NameError, TypeError, AttributeError):
        return {}


def _is_a(value: Any, hint: Any) -> bool:
    """Whether a value is of a declared type, a list standing for a tuple and numpy's numbers for Python's.

    Which number or text a ``Literal`` may be its class says best; of types that are not plain only ``None`` is told apart.
    """
    arguments = typing.get_args(hint)
    origin = typing.get_origin(hint) or hint
    if origin in (typing.Union, UnionType):
        return any(_is_a(value, argument) for argument in arguments)
    if origin in (bool, int, float):
        kind = {bool: bool, int: Integral, float: Real}[origin]
        return isinstance(value, kind) and (origin is bool or not isinstance(value, bool))
    if origin is tuple:
        item = arguments[0] if arguments else Any
        return isinstance(value, (tuple, list)) and (arguments[1:] != (...,) or all(_is_a(each, item) for each in value))
    if origin is typing.Literal:
        return isinstance(value, (str, Real, Named))
    if isinstance(origin, type) and issubclass(origin, Declaration):
        return origin.takes(value)
    if origin is str:
        return isinstance(value, str)
    return value is None if hint in (None, NoneType) else hint is Any or value is not None


def _type_name(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint)) if not typing.get_args(hint) else str(hint).replace("ppl_vae.", "")


def _may_hold_class(hint: Any) -> bool:
    if typing.get_origin(hint) is typing.Literal:
        return False
    arguments = typing.get_args(hint)
    return any(_may_hold_class(argument) for argument in arguments) if arguments else hint not in PLAIN


def _in_family(cls: type) -> bool:
    return any(inspect.isabstract(base) for base in cls.__mro__)


def _class_path(cls: type) -> str:
    public = getattr(sys.modules.get("ppl_vae"), cls.__name__, None)
    return f"ppl_vae.{cls.__name__}" if public is cls else f"{cls.__module__}.{cls.__qualname__}"


def _plain(value: Any) -> Any:
    if isinstance(value, Declaration):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else _python(value)


def _of_plain(check: Callable[[Any], None]) -> Callable[[Any], None]:
    """A ``__post_init__`` that meets numpy's numbers and text as Python's."""

    @functools.wraps(check)
    def checked(self: Declaration) -> None:
        Declaration.__post_init__(self)
        check(self)

    return checked


def _python(value: Any) -> Any:
    """The value itself, or in place of numpy's numbers and text, which neither YAML nor JSON knows, Python's.

    A record that goes by its name is told by it.
    """
    if type(value) in (tuple, list):
        plain = type(value)(map(_python, value))
        return value if all(map(operator.is_, plain, value)) else plain
    if isinstance(value, bool) or type(value) in (int, float, str):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Named):
        return value.name
    return int(value) if isinstance(value, Integral) else float(value) if isinstance(value, Real) else value
