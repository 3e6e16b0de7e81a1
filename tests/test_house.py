"""What CONTRIBUTING says of the layers is what the import contract holds."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]


def test_the_layers_are_told_as_they_are() -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Layers")[2]
    told = section.partition("```\n")[2].partition("```")[0].splitlines()
    held = next(contract["layers"] for contract in CONTRACTS if contract["containers"] == ["ppl_vae"])
    assert told == held


def test_every_inner_contract_names_all_files_of_its_folder() -> None:
    for contract in CONTRACTS[1:]:
        (container,) = contract["containers"]
        named = {name.strip() for layer in contract["layers"] for name in layer.split("|")}
        folder = ROOT / container.replace(".", "/")
        assert named == {path.stem for path in folder.glob("*.py")} - {"__init__"}
        assert contract["exhaustive"]


ASKED_OF_OTHERS = {
    "declaration.py": "the class of a name in a file, and of a type hint",
    "memory.py": "the name of a function of torch",
}
"""Files that ask something by name that is no program, and what."""


def test_programs_are_asked_what_they_have_in_one_file() -> None:
    asking = {
        str(path.relative_to(ROOT / "ppl_vae")): [node.lineno for node in ast.walk(tree) if _asks(node)]
        for path in (ROOT / "ppl_vae").rglob("*.py")
        if (tree := ast.parse(path.read_text(encoding="utf-8")))
    }
    found = {file: lines for file, lines in asking.items() if lines and file not in ASKED_OF_OTHERS}
    assert set(found) == {"program/capabilities.py"}, "use pair.can, the facts of a program, or a Protocol"
    assert all(asking[file] for file in ASKED_OF_OTHERS), "no longer needed"


def _asks(node: ast.AST) -> bool:
    """Whether it is ``hasattr(...)`` or ``getattr`` with a default."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return False
    return node.func.id == "hasattr" or (node.func.id == "getattr" and len(node.args) == 3)
