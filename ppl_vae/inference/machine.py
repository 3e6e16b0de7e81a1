"""Where and how a fit computes: the device, the threads of a CPU, the precision of networks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

__all__ = ["Precision", "arithmetic", "choose_device", "cpu_threads"]

Precision = Literal["32", "bf16", "tf32"]

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


@contextlib.contextmanager
def arithmetic(precision: Precision) -> Iterator[None]:
    """What the layers of networks compute with; everything else, log-probabilities and KL too, stays in the data's precision.

    With ``bf16`` linear and convolutional layers multiply bfloat16 numbers and give float32; with ``tf32`` the products of
    float32 matrices may be rounded to TensorFloat-32 where the hardware has it.
    """
    if precision == "bf16":
        with _Bfloat16Layers():
            yield
    elif precision == "tf32":
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
    else:
        yield


class _Bfloat16Layers(TorchFunctionMode):
    """Layers on float32 tensors take bfloat16 operands and return float32, forwards and backwards."""

    LAYERS = frozenset(
        {
            *(functional.linear, functional.conv1d, functional.conv2d, functional.conv3d),
            *(functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d),
        }
    )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in self.LAYERS or args[0].dtype != torch.float32:
            return func(*args, **kwargs)
        args, kwargs = tree_map_only(Tensor, Tensor.bfloat16, (args, kwargs))
        return func(*args, **kwargs).float()
