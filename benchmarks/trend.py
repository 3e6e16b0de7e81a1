"""What got slower: `python -m benchmarks.trend [FILE]`.

The last entry of each command on each machine stands against the median of the earlier ones. Times count, and what is done in
a unit of time; a ratio above 1 is slower. Beside a peer that got slower as much it is the machine that did.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.series import SERIES, read

__all__ = ["Change", "changes"]

TIME = re.compile(r"(^|_)(seconds?|minutes?|ms|us|s)($|_)")
RATE = re.compile(r"_per_(second|s)$")


class Change(NamedTuple):
    """A number of the last entry beside the median of ``earlier`` ones; its ``ratio`` is above 1 where it got slower."""

    command: str
    name: str
    before: float
    now: float
    earlier: int
    ratio: float


def changes(entries: Sequence[dict[str, Any]]) -> list[Change]:
    """What the last entry of each command and machine says of times, the slowest first; entries are in order of time."""
    series: dict[tuple[str, str], list[dict[str, float]]] = {}
    for entry in entries:
        key = entry["command"], json.dumps(entry["machine"], sort_keys=True)
        series.setdefault(key, []).append(dict(_times(entry["found"])))
    found = []
    for (command, _), rows in series.items():
        for name, now in rows[-1].items():
            earlier = [row[name] for row in rows[:-1] if name in row]
            if earlier and min(*earlier, now) > 0:
                before = median(earlier)
                ratio = before / now if RATE.search(_unit(name)) else now / before
                found.append(Change(command, name, before, now, len(earlier), ratio))
    return sorted(found, key=lambda change: -change.ratio)


def _times(found: Any, place: str = "") -> Iterator[tuple[str, float]]:
    """The numbers that are times or rates, by where they stand."""
    if isinstance(found, dict):
        for name, value in found.items():
            yield from _times(value, f"{place}.{name}" if place else name)
    elif isinstance(found, list):
        for number, value in enumerate(found):
            yield from _times(value, f"{place}.{number}")
    elif isinstance(found, (int, float)) and not isinstance(found, bool) and _unit(place):
        yield place, float(found)


def _unit(place: str) -> str:
    """The last part of a place that names a unit of time; empty if none does."""
    return next((part for part in reversed(place.split(".")) if TIME.search(part) or RATE.search(part)), "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=SERIES, help="JSON lines that benchmarks added to")
    parser.add_argument("--factor", type=float, default=1.1, help="what is slower by less is not shown")
    options = parser.parse_args()
    if not options.file.is_file():
        parser.error(f"expected JSON lines, got {options.file}, which is no file: run a benchmark with --json")
    found = changes(read(options.file))
    slower = [change for change in found if change.ratio > options.factor]
    for command, name, before, now, earlier, ratio in slower:
        print(f"{ratio:5.2f}x  {now:.4g} against {before:.4g} (median of {earlier})  {name}  [{command}]")
    print(f"{len(slower)} of {len(found)} times are above {options.factor:g} times what they were")


if __name__ == "__main__":
    main()
