"""``ppl-vae list``: what can be declared."""

from __future__ import annotations

import inspect

from jsonargparse import ArgumentParser

from ppl_vae.cli.output import print_json
from ppl_vae.declaration import Declaration, family_members
from ppl_vae.inference import SVI
from ppl_vae.inference.fit import default_guide
from ppl_vae.models import Model

__all__ = ["declared", "options", "run"]


def run(*, name: str | None, json: bool) -> None:
    """List what can be declared, or tell the story and the fields of one declaration."""
    if name is not None:
        found = {cls.__name__: cls for members in declared().values() for cls in members}
        if name not in found:
            raise ValueError(f"unknown declaration {name!r}: choose from {', '.join(sorted(found))}")
        declaration = found[name]()
        story = str(declaration)
        if isinstance(declaration, Model):
            story += f"\n{default_guide(declaration, SVI())}"
        if json:
            return print_json({"story": story, **declaration.to_dict()})
        print(f"{_summary(found[name])}\n\n{story}\n\n{declaration.to_yaml()}", end="")
        return None
    catalogue = {family: {cls.__name__: _summary(cls) for cls in members} for family, members in declared().items()}
    if json:
        return print_json(catalogue)
    for family, members in catalogue.items():
        print(f"{family}:", *(f"  {name:<18} {summary}" for name, summary in members.items()), sep="\n")
    return None


def options(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("name", nargs="?", help="a declaration, such as VAE")


def declared() -> dict[str, list[type[Declaration]]]:
    """The declarations of each family, by its name."""
    families = [cls for cls in Declaration.__subclasses__() if inspect.isabstract(cls)]
    return {family.__name__: list(family_members(family)) for family in families}


def _summary(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]
