"""Declarations: plain, immutable descriptions of models, guides, methods and data.

A declaration is a frozen, keyword-only dataclass of plain values and other declarations. Equality, ``repr`` and
``dataclasses.replace`` come from the dataclass; YAML and command-line options come from the class's own typed signature
through jsonargparse, so there is no second schema to keep in step.

An abstract subclass of :class:`Declaration` (``Prior``, ``Network``, ...) opens a *family*: wherever one member is declared,
any other can stand, a user's own included.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import yaml

__all__ = ["Declaration", "enable_families", "family_members", "refuse_untrusted", "require"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Declaration:
    """Base of every declaration."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values only: ``{"class_path": ..., "init_args": {...}}`` for a family member, else just the fields."""
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
        from jsonargparse import ArgumentError, ArgumentParser

        refuse_untrusted(config, trust)
        enable_families()
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--it", type=cls)
        try:
            return parser.instantiate(parser.parse_object({"it": config})).it
        except ArgumentError as error:
            raise ValueError(f"not a declaration of {cls.__name__}: {' '.join(str(error).split())}") from None

    @classmethod
    def from_yaml(cls, source: str | Path, *, trust: Iterable[str] = ()) -> Self:
        """Rebuild a declaration from YAML text (``str``) or from a file (:class:`~pathlib.Path`)."""
        text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
        try:
            config = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"not valid YAML: {' '.join(str(error).split())}") from None
        return cls.from_dict(config, trust=trust)


def require(condition: bool, expected: str, got: object) -> None:
    """Raise the ``ValueError`` of a declaration's ``__post_init__``: what was expected and what came."""
    if not condition:
        raise ValueError(f"expected {expected}, got {got!r}")


def family_members(base: type[Declaration]) -> Iterator[type[Declaration]]:
    """Every concrete class of a family that is imported now, in order of definition."""
    for cls in base.__subclasses__():
        if not inspect.isabstract(cls):
            yield cls
        yield from family_members(cls)


def enable_families() -> None:
    """Tell jsonargparse that a member of a family may be replaced by any other; concerns our own classes only."""
    from jsonargparse import set_parsing_settings

    set_parsing_settings(subclasses_enabled=[cls for cls in Declaration.__subclasses__() if inspect.isabstract(cls)])


def refuse_untrusted(config: Any, trust: Iterable[str]) -> None:
    """Raise ``ValueError`` if a plain config names a class outside ppl_vae, the trusted modules and ``__main__``."""
    trusted = {"ppl_vae", "__main__", *trust}
    for path in _class_paths(config):
        module = path.rpartition(".")[0]
        if module and not any(module == name or module.startswith(name + ".") for name in trusted):
            raise ValueError(f"the class {path!r} is not part of ppl_vae: if you trust its code, name its module in `trust`")


def _class_paths(config: Any) -> Iterator[str]:
    if isinstance(config, Mapping):
        if isinstance(config.get("class_path"), str):
            yield config["class_path"]
        config = list(config.values())
    elif isinstance(config, str) and config.replace(".", "").isidentifier():
        yield config
    if isinstance(config, list):
        for item in config:
            yield from _class_paths(item)


def _in_family(cls: type) -> bool:
    return any(inspect.isabstract(base) for base in cls.__mro__)


def _class_path(cls: type) -> str:
    public = getattr(sys.modules.get("ppl_vae"), cls.__name__, None)
    return f"ppl_vae.{cls.__name__}" if public is cls else f"{cls.__module__}.{cls.__qualname__}"


def _plain(value: Any) -> Any:
    if isinstance(value, Declaration):
        return value.to_dict()
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value
