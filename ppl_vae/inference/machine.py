"""Where a fit runs: the device, and on a CPU the threads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

__all__ = ["choose_device", "cpu_threads"]

# Multiplications in one step below which a second thread costs more in waiting than it saves: about a millisecond's worth.
WORTH_SHARING = 2**24


@contextlib.contextmanager
def cpu_threads(multiplications: int) -> Iterator[None]:
    """One thread for a step of so few multiplications, torch's own number for more; as it was afterwards.

    Threads that share a small matrix product spend their time waiting for each other, the more so on a busy machine.
    """
    threads = torch.get_num_threads()
    try:
        if multiplications < WORTH_SHARING:
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """The device of that name, or with ``auto`` the fastest that works here.

    Raises:
        ValueError: no such device.
    """
    if name != "auto":
        try:
            return torch.zeros(1, device=name).device
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"the device {str(name)!r} does not work here: {str(error).splitlines()[0]}") from None
    candidates = ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()
    for candidate in candidates:
        try:
            return torch.ones(1, device=candidate).exp().device
        except RuntimeError:
            continue
    return torch.device("cpu")
