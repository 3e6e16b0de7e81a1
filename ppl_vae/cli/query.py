"""``ppl-vae query``: what a fitted network says of some of its nodes, given others."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentParser

from ppl_vae import runs
from ppl_vae.cli.options import run_options
from ppl_vae.cli.output import print_json

__all__ = ["options", "run"]


def run(
    *,
    run: str,
    names: list[str],
    given: list[str],
    do: list[str],
    seed: int,
    device: str,
    trust: list[str],
    json: bool,
) -> None:
    """Say how some nodes of a fitted network are distributed given others, exactly, and how likely that is which is given."""
    fitted = runs.load_run(run, trust=trust, device=device)
    answer = fitted.query(names, _values("given", given), do=_values("do", do))
    if json:
        return print_json(answer.to_dict())
    _print(answer.to_dict())
    return None


def options(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    run_options(parser)
    parser.add_argument("names", type=str, nargs="+", help="the nodes that are asked for")
    parser.add_argument("--given", type=str, nargs="+", action="extend", default=[], help="what is observed: wet=yes,temp=12.5")
    what = "what is set from outside, likewise: such nodes no longer hang on their parents"
    parser.add_argument("--do", type=str, nargs="+", action="extend", default=[], help=what)


def _values(option: str, texts: list[str]) -> dict[str, str]:
    """The values by name of words such as ``a=1,b=yes``.

    Raises:
        ValueError: a part without a name or a value, or a name twice.
    """
    found: dict[str, str] = {}
    for part in filter(None, (word.strip() for text in texts for word in text.split(","))):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not (name and equals and value) or name in found:
            raise ValueError(f"expected --{option} NAME=VALUE,NAME=VALUE with every name once, got {part[:80]!r}")
        found[name] = value
    return found


def _print(found: dict[str, Any]) -> None:
    """Print a line for each state or number."""
    for name, values in found.items():
        if name == "log_evidence":
            print(f"log p(given) = {values:.4f} nats")
        elif name == "most_probable":
            print("most probable:", ", ".join(f"{each}={_cell(value)}" for each, value in values.items()))
        elif name != "joint":
            print(f"{name}:", ", ".join(f"{state} {_cell(value)}" for state, value in values.items()))


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
