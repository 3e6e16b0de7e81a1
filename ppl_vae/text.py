"""Plain values from text that a stranger may have written: of bounded size and depth, every key once, nothing executed."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

__all__ = [
    *(
        "as_line",
        "at_home",
        "at_places",
        "denied",
        "did_you_mean",
        "from_json",
        "from_yaml",
        "inside",
        "is_number",
        "read_text",
    ),
    "without_markup",
]

MIB = 2**20
MOST_TEXT = MIB
MOST_VALUES = 20_000
DEEPEST = 100


def read_text(path: Path, *, at_most: int = MOST_TEXT) -> str:
    """The text of a file.

    Raises:
        ValueError: no file, or none that can be read; more bytes than that; another encoding than UTF-8.
    """
    try:
        if not path.is_file():  # a pipe would be waited for, a device read for ever
            raise ValueError(f"{path} cannot be read: expected a file, got {'a folder' if path.is_dir() else 'none'}")
        if (size := path.stat().st_size) > at_most:
            raise ValueError(f"{path}: expected text of at most {at_most / MIB:g} MiB, got {size / MIB:.1f} MiB")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ValueError(f"{path} cannot be read: expected UTF-8 text, got the byte {byte:#x}: save it as UTF-8") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {as_line(error)}") from None


def at_places(message: object, *, rows: Sequence[int] = (), columns: Sequence[object] = ()) -> str:
    """A message about some rows and columns of a table, by the names of these in the whole: ``row 0`` by the first of ``rows``.

    Examples:
        >>> at_places("got 2.5 in row 1, column 0", rows=[3, 7], columns=["'age'"])
        "got 2.5 in row 7, column 'age'"
    """
    places = {"row": rows, "column": columns}

    def named(found: re.Match[str]) -> str:
        what, place = found[1], int(found[2])
        return f"{what} {places[what][place]}" if place < len(places[what]) else found[0]

    return re.sub(r"\b(row|column) (\d+)\b", named, str(message))


def at_home(name: str) -> Path:
    """The path of that name, with the user's home for ``~``.

    Raises:
        ValueError: the home of a user who is not known.
    """
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise ValueError(f"expected a path, got {name!r}, whose home folder is not known: write the path out") from None


def inside(folder: Path, name: str) -> Path:
    """The path of a file in a folder.

    Raises:
        ValueError: a link that leads out of the folder, or in a circle.
    """
    path = folder / name
    try:
        outside = not path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be read: {as_line(error)}") from None
    if outside:
        raise ValueError(f"{path}: expected a file of this folder, got a link out of it: put the file itself there")
    return path


def from_yaml(text: str) -> Any:
    """The plain values of one YAML document.

    Raises:
        ValueError: it is not valid, too large or too deep once its anchors are written out, or names a key twice.
    """
    try:
        _check_size(text)
        return yaml.load(text, Loader=_EveryKeyOnce)
    except _RefusedError as error:
        raise ValueError(str(error)) from None
    except Exception as error:  # its constructors of numbers, dates and bytes raise nearly anything
        raise ValueError(f"not valid YAML: {as_line(error)}") from None


def from_json(text: str) -> Any:
    """The plain values of one JSON document.

    Raises:
        ValueError: it is not valid, too deep, or names a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("expected JSON that is less deep") from None
    except _RefusedError as error:
        raise ValueError(str(error)) from None
    except ValueError as error:
        raise ValueError(f"not valid JSON: {as_line(error)}") from None


def denied(path: Path, error: OSError) -> ValueError:
    """The error for a path that the file system refuses."""
    return ValueError(f"{path} cannot be read: {as_line(error)}: check the path and its permissions")


def as_line(error: object, most: int = 300) -> str:
    """What an error says, on one line of bounded length; its kind where it says nothing."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= most else f"{text[: most - 3]}..."


def without_markup(doc: str) -> str:
    """A docstring as a terminal shows it: names without the roles and backquotes of reStructuredText.

    Examples:
        >>> print(without_markup("of :class:`~ppl_vae.VQVAE`, as ``fit`` is"))
        of VQVAE, as fit is
    """
    return re.sub(r"``([^`]+)``", r"\1", re.sub(r":\w+:`(?:~[\w.]*\.)?([^`]+)`", r"\1", doc))


def is_number(value: Any) -> bool:
    """Whether a plain value is a finite number, one that a float can hold; true and false are none.

    Examples:
        >>> [is_number(value) for value in (1, -0.5, 10**400, float("nan"), True, "1", None)]
        [True, True, False, False, False, False, False]
    """
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


class _RefusedError(ValueError):
    """An answer in our own words."""


def _check_size(text: str) -> None:
    """Count values and depth in one pass over the events, with aliases written out, before anything is built."""
    sizes: dict[str, int] = {}
    opened: list[tuple[str | None, int]] = []  # the anchor of each open collection, and how many values stood before it
    count = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in opened):
                raise _RefusedError(f"expected YAML without cycles, got *{event.anchor} inside of &{event.anchor}")
            count += sizes.get(str(event.anchor), 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, count))
            count += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor is not None:
                sizes[anchor] = count - before
        else:
            count += 1
        if len(opened) > DEEPEST:
            raise _RefusedError(f"expected YAML at most {DEEPEST} levels deep, got more")
        if count > MOST_VALUES:
            raise _RefusedError(f"expected YAML of at most {MOST_VALUES} values, its anchors written out, got more")


class _EveryKeyOnce(yaml.SafeLoader):
    """YAML's safe loader, which would silently take the last of two values."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        if isinstance(node, yaml.MappingNode):
            _once([(key.value, None) for key, _ in node.value if isinstance(key, yaml.ScalarNode)])
        return super().construct_mapping(node, deep=deep)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _RefusedError(f"expected every key once, got {key[:80]!r} twice: keep one of the two")
        found[key] = value
    return found


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """A question after the choice that a word is nearest to, for a message; empty if it is near none.

    Examples:
        >>> did_you_mean("epoch", ["epochs", "seed"])
        'did you mean epochs?'
    """
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else ""
