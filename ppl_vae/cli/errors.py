"""Bad input answered in one line, in the words of a declaration."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ppl_vae.cli.catalogue import declared
from ppl_vae.cli.together import first_to_say
from ppl_vae.declaration import Declaration, families, family_members, parse
from ppl_vae.storage import RunFolder
from ppl_vae.text import did_you_mean, from_yaml, read_text

__all__ = ["explain", "print_error"]

NOT_ACCEPTED = r"Parser key \"(\w+)\": Problem with given class_path '([\w.]+)': Option '([\w.]+)' is not accepted"
NO_DECLARATION = r"Parser key \"(\w+)\": .*NestedArg\(key='([\w.]+)'"
OR_NONE = (
    r"Does not validate against any of the Union subtypes Subtypes: \[.*?\] Errors: - (.*?) "
    r"- Expected a <class 'NoneType'> Given value type: .*"
)
NO_FILE = r'Parser key "([\w.]+)": .*?Expected a path but (.+?\.ya?ml) either not accessible'
NO_VALUE = r"Parser key \"(\w+)\": Expected a <class '(\w+)'>. Got value: (.*)$"
UNREADABLE = (
    r'Parser key "(?P<part>\w+)": Config file loop detected: (?P<file>.+) -> ',
    r"Parser key \"(?P<part>\w+)\": Unable to load config '(?P<file>.+)' - ",
)


def print_error(message: str, *, code: int, only: bool = False) -> int:
    """Say why on one line of standard error; the exit code.

    What several processes have to say alike the first of them says; what is ``only`` a consequence of the end of another
    nobody does that has said why.
    """
    if first_to_say(message, only=only):
        print(f"ppl-vae: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def explain(message: str, options: Sequence[str] = ()) -> str:
    """A parser's message in the words of a declaration: an unknown name lists the valid ones, or the nearest of ``options``."""
    message = " ".join(message.split())
    if found := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
        verbs = re.findall(r"'(.*?)'", found[2])
        return f"unknown verb {found[1]!r}: {did_you_mean(found[1], verbs) or 'choose from ' + ', '.join(verbs)}"
    if found := re.search(r"unrecognized arguments?: (--[^ =]+)", message):
        return f"{message}: {did_you_mean(found[1], options) or 'this verb takes no such option, see its --help'}"
    if "is abstract" not in message and not message.startswith('Parser key "data"'):
        message = re.sub(OR_NONE, r"\1", message)
    if found := re.search(NOT_ACCEPTED, message):
        return _no_field(*found.groups())
    if (found := re.search(NO_FILE, message)) and not Path(found[2]).exists():
        return f"--{found[1]}: there is no file {found[2]!r}: check the path"
    if found := re.search(NO_VALUE, message):
        return f"expected {found[1]}: {found[2]}, got {found[3]!r}"
    if message.startswith("Unexpected config"):
        return f"expected a YAML file of {', '.join(_parts())} after --config, as a run's {RunFolder.CONFIG} is"
    for pattern in UNREADABLE:
        if found := re.search(pattern, message):
            message = _reason(found["part"], found["file"]) or message
    nested = re.search(r"Parser key \"(\w+)\": .* is abstract .*NestedArg\(key='(\w+)'", message)
    if nested:
        option = f"--{nested[1]}.{nested[2]}"
        choices = ", ".join(sorted(cls.__name__ for cls in family_members(_parts()[nested[1]])))
        return f"{option} is a field of a {nested[1]}: name its class before it, --{nested[1]} with one of {choices}"
    if (plain := re.search(NO_DECLARATION, message)) and plain[1] == "data":  # of a run, where it is no declaration
        return (
            f"--{plain[1]}.{plain[2]} declares the data of a fit, and those of a run are read as its own were: give --data a "
            "source, or a YAML file that declares them otherwise"
        )
    unknown = re.search(r"Expected a dot import path string: (\S+)", message)
    keys = re.findall(r'Parser key "([\w.]+)"', message)
    if not unknown or not keys:
        return message
    option = keys[-1].rpartition(".")[2]
    names = sorted({cls.__name__ for base in _bases(option) for cls in family_members(base)})
    message = f"unknown {option} {unknown[1]!r}: choose from {', '.join(names)}, or give the import path of your own class"
    near = did_you_mean(unknown[1], names)
    return f"{message}; {near}" if near else message


def _no_field(part: str, path: str, option: str) -> str:
    """That a class has no such field, and which it has."""
    name = path.rpartition(".")[2]
    classes = [cls for members in declared().values() for cls in members if cls.__name__ == name]
    fields = [field.name for cls in classes for field in dataclasses.fields(cls)]
    near = did_you_mean(option, fields)
    return f"{name} (--{part}) has no field {option!r}: {near or 'it has ' + ', '.join(fields)}"


def _reason(part: str, file: str) -> str | None:
    """Why a YAML file declares no such part, which the parser keeps to itself."""
    try:
        parse(_parts()[part], from_yaml(read_text(Path(file))))
    except ValueError as error:
        return f"{file}: {' '.join(str(error).split())}"
    return None


def _parts() -> dict[str, type[Declaration]]:
    """What the parts of an experiment are declarations of."""
    from ppl_vae.fitting.experiment import PARTS

    return PARTS


def _bases(option: str) -> Iterator[type[Declaration]]:
    """The families that a field or option of this name holds."""
    bases = {cls.__name__: cls for cls in families()}
    for members in declared().values():
        for cls in members:
            for field in dataclasses.fields(cls):
                if field.name == option:
                    yield from (family for name, family in bases.items() if name in str(field.type))
    if (family := option.removesuffix("s").capitalize()) in bases:  # --method as well as --methods
        yield bases[family]
