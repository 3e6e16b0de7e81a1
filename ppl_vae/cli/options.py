"""Options that verbs share, and short spellings written out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from itertools import chain, islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ppl_vae
from ppl_vae import runs
from ppl_vae.data import DataSource
from ppl_vae.declaration import enable_families, import_families
from ppl_vae.storage import RunFolder
from ppl_vae.text import at_home, from_yaml, read_text

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from ppl_vae.data import Split
    from ppl_vae.fitting import Fit
    from ppl_vae.runs import SavedRun

__all__ = [
    "AnyFamily",
    "check_options",
    "check_out",
    "data_options",
    "declared_rows",
    "expand",
    "import_named",
    "rows_of",
    "run_options",
    "yaml_texts",
]

# Short spellings. A YAML file after --data is a whole declaration, anything else is its source.
ALIASES = {
    "fit": {"--data": "--data.source", "--data-root": "--data.root"},
    "compare": {"--data": "--data.source", "--data-root": "--data.root"},
    "select": {"--data": "--data.source", "--data-root": "--data.root"},
}
# Given as words: the fields of a parser's own default would stay when another class is named that has them too.
MODELS = {"fit": "VAE", "compare": "FactorAnalysis", "select": "GMM"}
SEVERAL = ("--data.columns", "--data.drop", "--data.fields")
"""Options that take several words."""
OF_CLASSES = ("--model", "--guide", "--method", "--methods", "--guides", "--data.patches", "--data.tokens")
"""Options whose fields are those of a class that they name."""
YAML_SUFFIXES = (".yaml", ".yml")
SPLITS = ("train", "valid", "test", "all")
FILES = ("data", "image", "mask", "truth", "given")
"""Options that may name a file which is read."""


class AnyFamily:
    """What stands for the families where nothing is parsed, so that their classes need not be imported: anything."""

    Model = Guide = Method = Any


def import_named(text: str) -> Any:
    """The families, once whatever they have that a text names is imported; all of it where help of a class is asked for."""
    import_families(None if ".help" in text else text)
    enable_families()
    return ppl_vae


def yaml_texts(arguments: list[str]) -> list[str]:
    """The texts of the YAML files among the words.

    The parser, which reads the files again, bounds nothing. What it says of files that it cannot read stays its own.

    Raises:
        ValueError: one is too large or too deep, or names a key twice.
    """
    found = []
    for word in arguments:
        path = Path(word.rpartition("=")[2])
        if path.suffix in YAML_SUFFIXES and path.is_file():
            found.append(read_text(path))
            try:
                from_yaml(found[-1])
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None
    return found


def check_options(arguments: list[str], options: list[str]) -> None:
    """Raise ``ValueError`` for an option that is none, whatever the classes have that others name."""
    aliases = ALIASES.get(arguments[0], {})
    for place, word in enumerate(arguments):
        name = word.partition("=")[0]
        named = any(name.startswith(f"{option}.") for option in OF_CLASSES) or name in aliases
        if name.startswith("--") and not named and not any(option.startswith(name) for option in options):
            values = takewhile(lambda value: not value.startswith("--"), arguments[place + 1 :])
            raise ValueError(f"unrecognized arguments: {' '.join([word, *values])}")


def check_out(chosen: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` if a verb would write over a file of data: one that it is to read, or that of its run."""
    out = chosen.get("out")
    if not isinstance(out, str) or not (path := Path(out)).is_file():
        return
    for option, source in _sources(chosen):
        there = at_home(source)
        within = there.is_dir() and path.resolve().is_relative_to(there.resolve())
        if within or (there.is_file() and there.samefile(path)):
            raise ValueError(f"expected --out to be another file than the data of {option}, got {out!r}, which would be lost")


def _sources(chosen: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The names of files of data, each with what names it."""
    for name in FILES:
        if isinstance(source := chosen.get(name), str):
            declared = name == "data" and source.endswith(YAML_SUFFIXES)
            yield f"--{name}", DataSource.from_yaml(Path(source)).source if declared else source
    if isinstance(run := chosen.get("run"), str) and (folder := RunFolder(run)).has(folder.CONFIG):
        data = folder.config().get("data")
        if isinstance(data, dict) and isinstance(source := data.get("source"), str):
            yield "the run", source


def expand(arguments: list[str]) -> tuple[list[str], SavedRun | None]:
    """A verb's short spellings written out, and the run that is to be resumed, if one is.

    They come last, where `--method SVI` no longer resets them, and the model first; the declaration of a run to resume, as
    options to start from, before all.
    """
    if not arguments or arguments[0] not in ALIASES:
        return arguments, None
    arguments = _lists(arguments)
    verb, aliases = arguments[0], ALIASES[arguments[0]]
    parts: dict[str, list[str]] = {"--config": [], "--model": [], "": [], "short": []}
    words = iter(arguments[1:])
    for word in words:
        name, equals, value = word.partition("=")
        if name not in aliases and name not in ("--config", "--model"):
            parts[""].append(word)
            continue
        values = [value] if equals else list(islice(words, 1))
        whole = name == "--data" and "".join(values).endswith(YAML_SUFFIXES)
        place = name if name in parts else "" if whole else "short"
        parts[place].append("=".join([aliases[name], *(values or [""])] if place == "short" else [name, *values]))
    resumed = _run_to_resume(parts[""])
    if resumed is not None:
        parts["--config"] += ["--config", resumed.experiment.to_yaml()]
    default = [] if parts["--model"] else [f"--model={MODELS[verb]}"]
    if verb in ("fit", "select") and any(word.startswith("--method.") for word in parts[""]):
        default.append("--method=SVI")  # whose field it is, if no method is named; without any, the method goes by the model
    return [verb, *default, *chain.from_iterable(parts.values())], resumed


def _lists(arguments: list[str]) -> list[str]:
    """The same with the words after options that take several as one list: ``--data.columns a b`` is ``["a", "b"]``."""
    found: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        values = list(takewhile(lambda value: not value.startswith(("-", "[")), rest)) if word in SEVERAL else []
        rest = rest[len(values) :]
        found += [f"{word}={json.dumps(values)}"] if values else [word]
    return found


def _run_to_resume(arguments: list[str]) -> SavedRun | None:
    """The run that is to be resumed, whose classes were found trustworthy."""
    words = [word for given in arguments for word in (given.split("=", 1) if given.startswith("--") else [given])]
    if "--resume" not in words[:-1]:
        return None
    folder = words[words.index("--resume") + 1]
    trusted = words[words.index("--trust") + 1 :] if "--trust" in words else []
    return runs.SavedRun.open(folder, trust=tuple(takewhile(lambda word: not word.startswith("-"), trusted)))


def run_options(parser: ArgumentParser) -> None:
    """Add the options of every verb that works on a run."""
    parser.add_argument("run", type=str, help="a run folder")
    parser.add_argument("--seed", type=int, default=0, help="of every random draw")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda, cuda:1, mps, or auto")
    parser.add_argument("--trust", type=str, nargs="+", default=[], help="modules of yours whose classes the run may name")


def data_options(parser: ArgumentParser, *, default: str | None) -> None:
    """Add the options that name rows of data, with the split that is the default, or none where it is all rows always."""
    parser.add_argument("--data", type=str | None, help="a source or a YAML file; the run's own data otherwise")
    parser.add_argument("--data_root", "--data-root", type=str | None, help="folder of torchvision sets")
    parser.add_argument(
        "--label", type=str | None, help="column or array of labels in --data, or none; as in the run otherwise"
    )
    parser.add_argument("--y", type=str | None, help="the class of all rows, by its name, where the data name none")
    if default is not None:
        parser.add_argument("--split", type=str | None, help=f"{', '.join(SPLITS)}; {default}")


def rows_of(
    fitted: Fit,
    source: str | None,
    root: str | None,
    split: str,
    *,
    label: str | None = None,
    y: str | None = None,
    weights: str | None = None,
) -> tuple[str, Split]:
    """The rows that a verb works on, matched to the fit and under its transform; with their name."""
    if split not in SPLITS:
        raise ValueError(f"expected a split of {', '.join(SPLITS)}, got {split!r}")
    if y is not None and source is not None and label is None:  # other rows need not have what is told
        label = "none"
    rows = fitted.rows(declared_rows(fitted, source, root, label=label, weights=weights), split)
    return split, rows if y is None else rows.labelled(fitted.classes(y).expand(len(rows)), fitted.spec.classes)


def declared_rows(
    fitted: Fit, source: str | None, root: str | None, *, label: str | None = None, weights: str | None = None
) -> DataSource:
    """The declaration of the rows that a verb works on: the fit's own, or others read as these."""
    from ppl_vae.data.rows import read_like

    declared = fitted.data
    if source is not None:
        declared = (
            DataSource.from_yaml(Path(source))
            if source.endswith(YAML_SUFFIXES)
            else read_like(declared, source, fitted.spec.columns)
        )
    if root is not None:
        declared = dataclasses.replace(declared, root=root)
    if label is not None:
        declared = dataclasses.replace(declared, label=None if label == "none" else label)
    if weights is not None:
        declared = dataclasses.replace(declared, weights=None if weights == "none" else weights)
    return declared
