"""What can be declared, as the library's own sources tell it: none of them is imported, and so torch is not."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ppl_vae
from ppl_vae.declaration import FAMILIES, FOLDERS
from ppl_vae.text import without_markup

__all__ = ["summaries"]


class _Source(NamedTuple):
    """A class as it is written: what its body gives a value or a method, with the value or the decorators.

    Its ``bases`` stand with the module that they are taken from.
    """

    module: str
    name: str
    dataclass: bool
    summary: str
    bases: dict[str, str]
    defined: dict[str, str]


Sources = Mapping[str, Sequence[_Source]]


def summaries() -> dict[str, dict[str, str]]:
    """Of each family its members by name, each with the first line of its docstring."""
    sources: dict[str, list[_Source]] = {}
    for source in _sources():
        sources.setdefault(source.name, []).append(source)
    lineages = [list(_lineage(source, sources)) for named in sources.values() for source in named if source.dataclass]
    members = [(above[0], {one.name for one in above}) for above in lineages if _declarable(above)]
    return {family: {one.name: one.summary for one, names in members if family in names} for family in FAMILIES}


def _lineage(source: _Source, sources: Sources) -> Iterator[_Source]:
    """The class and all that it inherits from, itself first."""
    yield source
    for name, module in source.bases.items():
        for base in sources.get(name, ()):
            if f"{base.module}.".startswith(f"{module}."):
                yield from _lineage(base, sources)


def _declarable(lineage: Sequence[_Source]) -> bool:
    """Whether YAML can tell the first of them, and no method is left open that none before defines."""
    defined: dict[str, str] = {}
    for source in lineage:
        defined = source.defined | defined
    own = lineage[0].defined.get("declarable", "True")
    return own == "True" and not any("abstractmethod" in told for told in defined.values())


def _sources() -> Iterator[_Source]:
    """The classes of the folders where members of families are."""
    root = Path(*ppl_vae.__path__)
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            body = ast.parse(path.read_text(encoding="utf-8")).body
            imports = [node for node in body if isinstance(node, ast.ImportFrom)]
            taken = {alias.name: str(node.module) for node in imports for alias in node.names}
            module = ".".join(("ppl_vae", *path.relative_to(root).with_suffix("").parts))
            yield from (_source(node, module, taken) for node in body if isinstance(node, ast.ClassDef))


def _source(node: ast.ClassDef, module: str, taken: Mapping[str, str]) -> _Source:
    names = [ast.unparse(base).partition("[")[0] for base in node.bases]
    return _Source(
        module=module,
        name=node.name,
        dataclass=any("dataclass(" in ast.unparse(one) for one in node.decorator_list),
        summary=without_markup(inspect.cleandoc(ast.get_docstring(node) or "").partition("\n")[0]),
        bases={name: taken.get(name, module) for name in names},
        defined=dict(_defined(node.body)),
    )


def _defined(body: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    for node in body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, " ".join(map(ast.unparse, node.decorator_list))
        elif isinstance(node, ast.AnnAssign | ast.Assign) and node.value is not None:
            targets: list[Any] = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((one.id, ast.unparse(node.value)) for one in targets if isinstance(one, ast.Name))
