"""Results of benchmarks as a series, a line of JSON for each run, which `python -m benchmarks.trend` reads."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["add_json", "read", "tell"]

HERE = Path(__file__).parent
SERIES = HERE / "series.jsonl"  # which git ignores: numbers of one machine
PACKAGES = ("torch", "pyro-ppl", "numpy", "numpyro", "jax", "pythae")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``, and ``--series`` for where such results are also kept."""
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    what = "with --json also add it to these JSON lines, '' for none (benchmarks/series.jsonl)"
    parser.add_argument("--series", default=os.fspath(SERIES), metavar="FILE", help=what)


def tell(found: Any, options: argparse.Namespace, **layout: Any) -> None:
    """Print what was found as JSON, and with ``--json`` add it to the series.

    Args:
        found: plain values.
        options: of a parser that :func:`add_json` has met.
        layout: of the printed JSON, as ``json.dumps`` takes it.
    """
    print(json.dumps(found, **layout))
    if options.json and options.series:
        with Path(options.series).open("a", encoding="utf-8") as file:
            file.write(json.dumps({**_surroundings(), "found": found}) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """The entries of a series, the oldest first."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def _surroundings() -> Mapping[str, Any]:
    """When, what, of which commit, with which versions, and on which machine."""
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": _command(),
        "commit": _git("rev-parse", "HEAD"),
        "changed": bool(_git("status", "--porcelain", "--untracked-files=no")),  # since that commit
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "machine": _machine(),
    }


def _command() -> str:
    """The benchmark and its options, but for where its results go."""
    words = [Path(sys.argv[0]).stem, *sys.argv[1:]]
    return re.sub(r" --series(=| )('[^']*'|\S+)", "", shlex.join(words))


def _machine() -> dict[str, Any]:
    told = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", told.read_text(encoding="utf-8")) if told.exists() else None
    torch = sys.modules.get("torch")
    return {
        "processor": model[1] if model else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "device": torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else "cpu",
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):  # no git, or no repository
        return None
    return done.stdout.strip()
