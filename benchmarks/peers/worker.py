"""One side of ``benchmarks.svi`` in a process of its own: no library's threads or memory are another's.

``python -m benchmarks.peers.worker PEER SIZE DEVICE EPOCHS``, SIZE being a JSON object, writes JSON lines: that it is ready, a
line after every epoch, and at last what it was; it waits for a line of input before each, and ends when the input does.
Whatever libraries print goes to standard error.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from importlib import metadata
from typing import IO, Any

from benchmarks.peers import PEERS
from benchmarks.peers.task import Size, Task, rows

__all__: list[str] = []

LIBRARIES = {"torch": "torch", "pyro": "pyro-ppl", "jax": "jax", "numpyro": "numpyro", "pythae": "pythae"}  # module: package


class Channel:
    """Lines to and from the process that started this one."""

    def __init__(self, out: IO[str]) -> None:
        self.out = out

    def tell(self, **line: Any) -> None:
        """Send a line."""
        print(json.dumps(line), file=self.out, flush=True)

    def wait(self) -> None:
        """Go on when told to."""
        if not sys.stdin.readline():
            raise SystemExit


def peak_mib(device: str) -> float:
    """The most memory that was held: of the process, or on the device."""
    if device == "cuda" and "torch" in sys.modules:
        return sys.modules["torch"].cuda.max_memory_reserved() / 2**20
    if device == "cuda":
        return sys.modules["jax"].devices()[0].memory_stats()["peak_bytes_in_use"] / 2**20
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def surroundings(device: str) -> dict[str, Any]:
    """Versions of what was imported, torch's threads, and the accelerator."""
    found: dict[str, Any] = {name: metadata.version(name) for module, name in LIBRARIES.items() if module in sys.modules}
    if "torch" in sys.modules:
        found["torch threads"] = sys.modules["torch"].get_num_threads()
    if "torch" in sys.modules and device == "cuda":
        found["device"] = sys.modules["torch"].cuda.get_device_name()
    return found


def main() -> None:
    channel = Channel(os.fdopen(os.dup(1), "w"))
    os.dup2(2, 1)
    name, size, device, epochs = sys.argv[1:]
    peer, task_size = PEERS[name], Size(**json.loads(size))
    try:
        module = importlib.import_module(f"benchmarks.peers.{peer.module}")
        task = Task(task_size, rows(task_size), device, int(epochs))
        channel.tell(ready=True)
        channel.wait()
        began = time.perf_counter()

        def report(seconds: float, nats: float) -> None:
            channel.tell(seconds=seconds, since_start=time.perf_counter() - began, nats=nats, peak_mib=peak_mib(device))
            channel.wait()

        module.train(task, report, **peer.options)
        channel.tell(parameters=module.parameters(task_size), surroundings=surroundings(device))
    except ModuleNotFoundError as error:
        channel.tell(absent=f"{error}: pip install '{peer.extra}'")
    except ImportError as error:
        channel.tell(absent=str(error))


if __name__ == "__main__":
    main()
