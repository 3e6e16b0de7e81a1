"""Options that verbs share, and short spellings written out."""

from __future__ import annotations

import dataclasses
from itertools import chain, islice
from pathlib import Path

from jsonargparse import ArgumentParser

from ppl_vae.data import DataSource, Split
from ppl_vae.inference import Fit

__all__ = ["data_options", "expand", "rows_of", "run_options"]

# Short spellings. A YAML file after --data is a whole declaration, anything else is its source.
ALIASES = {
    "fit": {"--data": "--data.source", "--data-root": "--data.root", "--seed": "--method.seed"},
    "compare": {"--data": "--data.source", "--data-root": "--data.root"},
}
# Given as words: the fields of a parser's own default would stay when another class is named that has them too.
MODELS = {"fit": "VAE", "compare": "FactorAnalysis"}
YAML_SUFFIXES = (".yaml", ".yml")
SPLITS = ("train", "valid", "test", "all")


def expand(arguments: list[str]) -> list[str]:
    """A verb's short spellings written out; they come last, where `--method SVI` no longer resets them, and the model first."""
    if not arguments or arguments[0] not in ALIASES:
        return arguments
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
    default = [] if parts["--model"] else [f"--model={MODELS[verb]}"]
    return [verb, *default, *chain.from_iterable(parts.values())]


def run_options(parser: ArgumentParser) -> None:
    """Add the options of every verb that works on a run."""
    parser.add_argument("run", type=str, help="a run folder")
    parser.add_argument("--seed", type=int, default=0, help="of every random draw")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda, cuda:1, mps, or auto")
    parser.add_argument("--trust", type=str, nargs="+", default=[], help="modules of yours whose classes the run may name")


def data_options(parser: ArgumentParser, *, default: str) -> None:
    """Add the options that name rows of data."""
    parser.add_argument("--data", type=str | None, help="a source or a YAML file; the run's own data otherwise")
    parser.add_argument("--data_root", "--data-root", type=str | None, help="folder of torchvision sets")
    parser.add_argument("--split", type=str | None, help=f"{', '.join(SPLITS)}; {default}")


def rows_of(fitted: Fit, source: str | None, root: str | None, split: str) -> tuple[str, Split]:
    """The rows that a verb works on, under the fitted transform; with their name."""
    if split not in SPLITS:
        raise ValueError(f"expected a split of {', '.join(SPLITS)}, got {split!r}")
    declared = fitted.data
    if source is not None:
        is_yaml = source.endswith(YAML_SUFFIXES)
        declared = DataSource.from_yaml(Path(source)) if is_yaml else dataclasses.replace(declared, source=source)
    if root is not None:
        declared = dataclasses.replace(declared, root=root)
    return split, fitted.rows(declared, split)
