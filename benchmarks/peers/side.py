"""A side of ``benchmarks.svi`` as the process that compares them sees it; :mod:`benchmarks.peers.worker` is its other end."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers.task import Size

__all__ = ["Absent", "Side"]

Row = dict[str, Any]


class Absent(Exception):  # noqa: N818
    """A side that cannot run here, and why."""


class Side:
    """A peer in a process of its own, asleep but for one epoch at a time.

    Args:
        name: of the peer.
        size: what it trains.
        device: where.
        epochs: for how long.
        folder: where compilers may keep what they compiled, and the log goes.
    """

    def __init__(self, name: str, size: Size, device: str, epochs: int, folder: Path) -> None:
        self.name = name
        self.size = size
        self.device = device
        self.epochs: list[Row] = []
        self.log = folder / f"{name}.log"
        command = [sys.executable, "-m", "benchmarks.peers.worker"]
        arguments = [name, json.dumps(dataclasses.asdict(size)), device, str(epochs)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=Path(__file__).parents[2],
                env=environment(size, device, folder / name),
            )
        self._read()

    def epoch(self) -> float:
        """Train for an epoch; its milliseconds a step."""
        self._go()
        self.epochs.append(self._read())
        return 1000 * self.epochs[-1]["seconds"] / self.size.steps

    def finish(self) -> Row:
        """After the last epoch: how many ``parameters`` it trained, and its ``surroundings``."""
        self._go()
        return self._read()

    def pace(self) -> float:
        """Seconds of a step at its fastest."""
        return min(epoch["seconds"] for epoch in self.epochs[1:]) / self.size.steps

    def first_step(self, pace: float) -> float:
        """Seconds to the end of the first step: to that of the first epoch, less its other steps at this pace."""
        return max(0.0, self.epochs[0]["since_start"] - (self.size.steps - 1) * pace)

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def _go(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # then reading tells why
            self.process.stdin.write("\n")
            self.process.stdin.flush()

    def _read(self) -> Row:
        line = self.process.stdout.readline()
        if not line:
            last = self.log.read_text().strip().splitlines()[-1:] or ["no message"]
            self.close()
            raise Absent(f"{self.name} stopped: {last[0]}")
        told = json.loads(line)
        if "absent" in told:
            self.close()
            raise Absent(told["absent"])
        return told


def environment(size: Size, device: str, cache: Path) -> dict[str, str]:
    """The caller's, with the size's threads and an own place for what is compiled."""
    found = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    found |= {"PPL_VAE_CACHE": str(cache / "ppl_vae"), "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor")}
    (cache / "tmp").mkdir(parents=True, exist_ok=True)
    found["TMPDIR"] = str(cache / "tmp")  # where torch keeps precompiled headers, wherever the rest of its cache is
    found |= {"JAX_PLATFORMS": "cpu"} if device == "cpu" else {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if size.threads is not None:
        found |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(size.threads))
    if size.threads == 1:
        found["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    return found
