"""Where and how a fit computes: the device, the threads of a CPU, the precision of networks."""

from __future__ import annotations

import contextlib
import math
import platform
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from ppl_vae.text import as_line
from ppl_vae.types import FitWarning

__all__ = [
    "Precision",
    "choose_device",
    "choose_precision",
    "cpu_threads",
    "layers",
    "multiplies_bfloat16",
    "products",
    "read_special_results",
]

Precision = Literal["32", "bf16", "tf32"]

# Torch's vector code of these functions for AVX-512 (SLEEF) loads the results of special cases behind a mask. A masked load of
# nothing, from a page that the process has not read yet, goes by microcode and leaves the page unread: until the first -0.0
# log1p and expm1 of float32 take six to eight times as long, in compiled code too (torch 2.14.1, AMD Zen 4).
WITH_SPECIAL_CASES = (torch.log1p, torch.expm1, torch.lgamma, torch.erfc)
SPECIAL_CASES = (-0.0, -1.0, -2.0, math.inf, -math.inf, math.nan)

# Multiplications in one step below which a second thread costs more in waiting than it saves: about a millisecond's worth.
WORTH_SHARING = 2**24

# Multiplications in one step below which a CPU spends more on rounding to bfloat16 than it saves in products: measured with
# AVX-512 BF16, 1.4 times the time of float32 at 2.8 million, 0.81 to 0.96 at 11 million.
WORTH_ROUNDING = 2**23


def read_special_results() -> None:
    """Let the process read the pages that hold the results of special cases, once, for what it computes from here on."""
    for dtype in (torch.float32, torch.float64):
        values = torch.tensor(SPECIAL_CASES, dtype=dtype, device="cpu")
        for function in WITH_SPECIAL_CASES:
            function(values)


read_special_results()


@contextlib.contextmanager
def cpu_threads(multiplications: int, *, like: int | None = None) -> Iterator[None]:
    """One thread for a step of so few multiplications, torch's own number for more; as it was afterwards.

    Threads that share a small matrix product spend their time waiting for each other, the more so on a busy machine. Sums
    hang on their number: a fit that goes on takes as many as it had (``like``).
    """
    threads = torch.get_num_threads()
    try:
        if like is not None or multiplications < WORTH_SHARING:
            torch.set_num_threads(like or 1)
        yield
    finally:
        torch.set_num_threads(threads)


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """The device of that name, or with ``auto`` the fastest that works here.

    Raises:
        ValueError: no such device.
    """
    if name != "auto":
        if not isinstance(name, (str, torch.device)) or str(name).startswith("meta"):
            raise ValueError(f"expected a device such as 'cpu' or 'cuda', got {as_line(repr(name))}")
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


def choose_precision(precision: Precision, device: torch.device, multiplications: int | None = None) -> Precision:
    """The precision asked for, or with a remark float32 where ``bf16`` would take longer on a CPU.

    It looks at the processor and at what is to be multiplied, and at no clock, so that a fit ends with the same numbers on a
    busy machine.

    Args:
        precision: asked for.
        device: that multiplies.
        multiplications: of a step, forwards, where steps are many.
    """
    if precision != "bf16" or device.type != "cpu":
        return precision
    if not multiplies_bfloat16():
        why = (
            "this CPU has no instructions for bfloat16 products (AMX, AVX-512 BF16 or Arm's BF16) and would take several times "
            "as long to emulate them; use precision='32' or device='cuda'"
        )
    elif multiplications is not None and multiplications < WORTH_ROUNDING:
        why = (
            f"a step multiplies {multiplications:,} times, and below {WORTH_ROUNDING:,} rounding takes a CPU longer than "
            "bfloat16 products save; use precision='32', or a larger batch_size"
        )
    else:
        return precision
    warnings.warn(f"layers multiply float32 numbers, not bf16: {why}", FitWarning, stacklevel=2)
    return "32"


def multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions that multiply bfloat16 numbers."""
    if platform.machine() in ("x86_64", "AMD64"):
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def layers(precision: Precision) -> contextlib.AbstractContextManager[Any]:
    """What the layers of networks multiply: with ``bf16`` bfloat16 numbers, giving float32; else what they are given.

    Everything else, log-probabilities and KL too, stays in the data's precision.
    """
    return _Bfloat16Layers() if precision == "bf16" else contextlib.nullcontext()


@contextlib.contextmanager
def products(precision: Precision) -> Iterator[None]:
    """How products of float32 matrices are rounded: with ``tf32`` to TensorFloat-32 where the hardware has it."""
    before = torch.get_float32_matmul_precision()
    try:
        if precision == "tf32":
            torch.set_float32_matmul_precision("high")
        yield
    finally:
        torch.set_float32_matmul_precision(before)


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
