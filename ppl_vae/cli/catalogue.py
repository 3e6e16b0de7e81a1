"""``ppl-vae list``: what can be declared."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppl_vae import fitting
from ppl_vae.cli.output import print_json
from ppl_vae.cli.sources import summaries
from ppl_vae.data import DataSource
from ppl_vae.declaration import Declaration, families, family_members
from ppl_vae.text import did_you_mean, from_yaml, read_text, without_markup

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["declared", "options", "run", "used"]

FOLDERS = ("models", "guides", "methods")


def run(*, name: str | None, json: bool) -> None:
    """List what can be declared and the YAML files here that use it, or tell the story and the fields of one declaration."""
    if name is not None:
        return _tell(name, json=json)
    files = used()
    catalogue = {
        family: {name: {"summary": told, "files": files.get(name, [])} for name, told in members.items()}
        for family, members in summaries().items()
    }
    if json:
        return print_json(catalogue)
    for family, entries in catalogue.items():
        width = max(map(len, entries))
        print(f"{family}:")
        for entry, told in entries.items():
            print(f"  {entry:<{width}}  {told['summary']}")
            print(*(f"  {'':<{width}}  {file}\n" for file in told["files"]), sep="", end="")
    return None


def options(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("name", nargs="?", help="a declaration, such as VAE")


def declared() -> dict[str, list[type[Declaration]]]:
    """The declarations of each family, by its name."""
    return {family.__name__: list(family_members(family)) for family in families()}


def used() -> dict[str, list[str]]:
    """The YAML files in ``models``, ``guides`` and ``methods`` of where the user stands, by the names that stand in them."""
    found: dict[str, list[str]] = {}
    for path in sorted(chain.from_iterable(Path(folder).glob("*.yaml") for folder in FOLDERS)):
        with contextlib.suppress(ValueError):  # a folder of that name need not be ours
            for name in sorted(set(_names(from_yaml(read_text(path))))):
                found.setdefault(name, []).append(path.as_posix())
    return found


def _names(config: Any) -> Iterator[str]:
    """Every text of a plain config, of an import path the last part."""
    if isinstance(config, str):
        yield config.rpartition(".")[2]
    elif isinstance(config, (list, Mapping)):
        for value in config.values() if isinstance(config, Mapping) else config:
            yield from _names(value)


def _tell(name: str, *, json: bool) -> None:
    """The story, the fields and the files of one declaration."""
    from ppl_vae.inference import SVI
    from ppl_vae.models import Model

    found = {cls.__name__: cls for members in declared().values() for cls in members} | {"DataSource": DataSource}
    if name not in found:
        near = did_you_mean(name, found)
        raise ValueError(f"unknown declaration {name!r}: choose from {', '.join(sorted(found))}{near and '; '}{near}")
    files = used().get(name, [])
    try:
        declaration = found[name]()
    except (TypeError, ValueError):  # some fields have no default, or none that would do
        return _tell_fields(found[name], files, json=json)
    story = str(declaration)
    if isinstance(declaration, Model):
        story += f"\n{fitting.default_guide(declaration, SVI())}"
    if json:
        return print_json({"story": story, **declaration.to_dict(), "files": files})
    print(f"{without_markup(inspect.getdoc(found[name]) or '')}\n\n{story}\n\n{declaration.to_yaml()}", end="")
    print(*(f"\n{file}" for file in files), sep="", end="\n" if files else "")
    return None


def _tell_fields(cls: type[Declaration], files: list[str], *, json: bool) -> None:
    """What there is to be said, and to be told, of a declaration that has no story by itself."""
    empty = dataclasses.MISSING
    fields = {field.name: field.default for field in dataclasses.fields(cls)}
    required = [name for name, value in fields.items() if value is empty]
    defaults = {name: value for name, value in fields.items() if value is not empty}
    if json:
        plain = {name: value.to_dict() if isinstance(value, Declaration) else value for name, value in defaults.items()}
        return print_json({"required": required, "defaults": plain, "files": files})
    print(f"{without_markup(inspect.getdoc(cls) or '')}\n")
    print(*(f"{name}: required" for name in required), *(f"{name}: {value}" for name, value in defaults.items()), sep="\n")
    print(*(f"\n{file}" for file in files), sep="", end="\n" if files else "")
    return None
