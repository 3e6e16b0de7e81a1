"""``ppl-vae query``: what a fitted network says of some of its nodes, given others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from ppl_vae import runs
from ppl_vae.cli.options import run_options
from ppl_vae.cli.output import print_json

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["options", "run"]


def run(
    *,
    run: str,
    names: list[str],
    given: list[str],
    do: list[str],
    map: bool,  # noqa: A002
    method: Literal["exact", "sampling"],
    draws: int | None,
    seed: int,
    device: str,
    trust: list[str],
    json: bool,
) -> None:
    """Say how some nodes of a fitted network are distributed given others, and how likely that is which is given.

    With ``map`` instead what all nodes that are not given most probably are together.

    Raises:
        ValueError: no names, without ``map``; or names with it that are no nodes which it tells of, or options of sampling.
    """
    if not (names or map):
        raise ValueError("expected names of nodes, or --map for the most probable state of all of them, got none")
    fitted = runs.load_run(run, trust=trust, device=device)
    seen, done = _values("given", given), _values("do", do)
    if map and (method != "exact" or draws is not None):
        asked = "--method sampling" if method != "exact" else f"--draws {draws}"
        raise ValueError(f"expected --map by itself, which is found exactly, got {asked}: leave it out")
    if map:
        found = _explained(fitted.explain(seen, do=done).to_dict(), names)
    else:
        found = fitted.query(names, seen, do=done, method=method, draws=draws, seed=seed).to_dict()
    if json:
        return print_json(found)
    _print(found if seen else {name: value for name, value in found.items() if name != "log_evidence"})
    return None


def options(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    run_options(parser)
    parser.add_argument("names", type=str, nargs="*", default=[], help="the nodes that are asked for")
    parser.add_argument("--given", type=str, nargs="+", action="extend", default=[], help="what is observed: wet=yes,temp=12.5")
    what = "what is set from outside, likewise: such nodes no longer hang on their parents"
    parser.add_argument("--do", type=str, nargs="+", action="extend", default=[], help=what)
    joint = "what all nodes that are not given most probably are together; names say which to show"
    parser.add_argument("--map", action="store_true", help=joint)
    how = "sampling also answers where exact sums would not fit, with standard errors"
    parser.add_argument("--method", type=Literal["exact", "sampling"], default="exact", help=how)
    parser.add_argument("--draws", type=int | None, default=None, help="of sampling; 10000 by default")


def _explained(found: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The explanation with some of its nodes, by default all; its probability stays that of all, which is said."""
    values = found["most_probable"]
    if unknown := [name for name in names if name not in values]:
        raise ValueError(f"expected names of nodes that are not given, {', '.join(values)}, got {unknown[0][:80]!r}")
    shown = {**found, "most_probable": {name: values[name] for name in names or values}}
    return shown if len(shown["most_probable"]) == len(values) else {**shown, "log_probability_of": list(values)}


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
    estimated = found.get("estimated", {})
    off = {"given": estimated.get("log_evidence_error")} if estimated else {}
    for name, values in found.items():
        if name == "log_evidence":
            print(f"log p(given) = {values:.4f}{_off(off.get('given'))} nats")
        elif name == "log_probability":
            together = f"{', '.join(found['log_probability_of'])} together" if "log_probability_of" in found else "these"
            print(f"log p({together} | given) = {values:.4f} nats")
        elif name == "most_probable":
            print("most probable:", ", ".join(f"{each}={_cell(value)}" for each, value in values.items()))
        elif name == "estimated":
            print(f"estimated by {values['draws']} draws, worth {values['effective']:.0f} of equal weight")
        elif name not in ("joint", "log_probability_of"):
            errors = estimated.get("errors", {}).get(name, {})
            errors = errors if isinstance(errors, dict) else {"mean": errors}
            print(f"{name}:", ", ".join(f"{state} {_cell(value)}{_off(errors.get(state))}" for state, value in values.items()))


def _off(error: float | None) -> str:
    return "" if error is None else f" +- {error:.2g}"


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
