"""How much memory there is, asked before it is taken: sizes that a file or a declaration names may be anything."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors
from torch.utils._pytree import tree_leaves, tree_map_only

__all__ = ["allocating", "free", "require_memory", "within_memory"]

GIB = 2**30
SMALL = 4096  # elements; an operation on so few, with no number larger than that, is not asked
LIMITS = (  # of a container: what it may take, what it has taken
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def free() -> int:
    """Bytes of main memory that can be taken now, as far as the operating system tells."""
    return min([_available(), *(_number(limit) - _number(taken, 0) for limit, taken in LIMITS)])


def require_memory(needed: int, what: str) -> None:
    """Raise ``ValueError`` if that many bytes are more than there are."""
    if needed > (most := free()):
        raise ValueError(
            f"{what}: expected at most {most / GIB:.3g} GiB, the free memory, got {needed / GIB:.3g} GiB: give less"
        )


@contextlib.contextmanager
def allocating(at_most: int, what: str, *, tensors: float = math.inf) -> Iterator[None]:
    """Inside, tensors of at most so many bytes in all are made; the first beyond is refused before it is made.

    Args:
        at_most: bytes of all tensors together, those that are freed included.
        what: for the message.
        tensors: how many may be made.

    Raises:
        ValueError: more than that.
    """
    with _Counted(at_most, what, tensors):
        yield


@contextlib.contextmanager
def within_memory(what: str) -> Iterator[None]:
    """Inside, modules of declared sizes are made; ``what`` does not fit into the free memory is refused before it is made.

    Raises:
        ValueError: tensors of more bytes than are free, or of sizes beyond 64 bits.
    """
    try:
        with allocating(free(), what):
            yield
    except (TypeError, RuntimeError) as error:
        if "Overflow when unpacking" not in str(error):
            raise
        raise ValueError(f"{what}: expected sizes that memory holds, got one beyond 64 bits: give less") from None


class _Counted(TorchFunctionMode):
    """Asks each operation on the ``meta`` device, where tensors have no values, how large its results are before it runs."""

    def __init__(self, at_most: int, what: str, tensors: float) -> None:
        super().__init__()
        self.left = self.at_most = at_most
        self.tensors = tensors
        self.what = what

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        results = _results(func, args, kwargs)
        self.left -= sum(result.numel() * result.itemsize for result in results)
        self.tensors -= len(results)
        if self.left < 0 or self.tensors < 0:
            raise ValueError(
                f"{self.what}: expected tensors of at most {self.at_most / GIB:.3g} GiB, got more: make it smaller"
            )
        return func(*args, **kwargs)


def _results(func: Any, args: Any, kwargs: dict[str, Any]) -> list[Tensor]:
    """What an operation gives, without values; nothing where it writes in place or looks at values."""
    makes = func in _device_constructors()
    inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    sizes = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, int)]
    small = max([*(x.numel() for x in inputs), *sizes], default=0) <= SMALL
    if getattr(func, "__name__", "").endswith("_") or (small and not makes):
        return []
    args, kwargs = tree_map_only(Tensor, _shape_only, (args, kwargs))
    kwargs = {name: value for name, value in kwargs.items() if name not in ("generator", "pin_memory")}
    try:
        results = func(*args, **({**kwargs, "device": "meta"} if makes else kwargs))
    except Exception:  # of whatever kind, the operation itself will raise it again
        return []
    return [leaf for leaf in tree_leaves(results) if isinstance(leaf, Tensor)]


def _shape_only(x: Tensor) -> Tensor:
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")


def _available() -> int:
    """What can be taken without swapping; all memory where the system does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 2**63


def _number(path: str, otherwise: int = 2**63) -> int:
    try:
        return int(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return otherwise
