"""Exact inference and coordinate ascent against their peers, one thread each: `python -m benchmarks.exact --json`.

Each part is a module with ``measure(options) -> dict``, which says what it measures and holds what it found; peers that are
absent are told under its key ``absent``.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from benchmarks import series

PARTS = {
    "alarm": "benchmarks.exact_alarm",
    "hmm": "benchmarks.exact_hmm",
    "ising": "benchmarks.exact_ising",
    "lda": "benchmarks.exact_lda",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}, by default all")
    parser.add_argument("--rounds", type=int, default=5, help="of which the median counts")
    parser.add_argument("--small", action="store_true", help="sizes at which it runs at all, for tests")
    series.add_json(parser)
    options = parser.parse_args()
    wanted = [part for part in options.parts.split(",") if part]
    if unknown := [part for part in wanted if part not in PARTS]:
        parser.error(f"expected parts among {', '.join(PARTS)}, got {unknown[0]}")
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    absent: dict[str, str] = {}
    for part in wanted:
        found[part] = importlib.import_module(PARTS[part]).measure(options)
        absent |= found[part].pop("absent", {})
    if options.json:
        series.tell({**found, "absent": absent}, options)
        return
    for line in (*lines(found), *(f"absent: {peer}: {why}" for peer, why in absent.items())):
        print(line)


def lines(found: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """One line for each row of numbers."""
    for name, values in found.items():
        if not isinstance(values, Mapping):
            yield f"{path}{name}: {cell(values)}"
        elif any(isinstance(value, Mapping) for value in values.values()):
            yield from lines(values, f"{path}{name}: ")
        else:
            yield f"{path}{name}: " + ", ".join(f"{key} {cell(value)}" for key, value in values.items())


def cell(value: Any) -> str:
    """A number, or that there is none."""
    return "absent" if value is None else f"{value:.4g}" if isinstance(value, float | int) else str(value)


if __name__ == "__main__":
    main()
