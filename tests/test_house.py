"""What CONTRIBUTING says of the layers is what the import contract holds."""

from __future__ import annotations

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
        files, folders = folder.glob("*.py"), folder.glob("*/__init__.py")
        assert named == {path.stem for path in files} - {"__init__"} | {path.parent.name for path in folders}
        assert contract["exhaustive"]
