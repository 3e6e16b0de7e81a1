"""Products of float32 matrices by oneDNN, in records and compiled, on processors of which torch's own library uses half.

Torch multiplies float32 matrices with MKL, which takes AVX2 on AMD's processors. From Zen 5 on these multiply twice as many
numbers an instruction with AVX-512, which oneDNN, part of torch too, does on any maker's (torch 2.14.1: 105 against 220 to 250
GFLOP/s a core).
"""

from __future__ import annotations

import contextlib
import functools
import platform
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

__all__ = ["PRODUCTS", "compiled_products", "is_wider"]

# An operation of its own, in which no pass of the compiler sees a layer of a trained network, whose weights stay the same.
LIBRARY = torch.library.Library("ppl_vae", "DEF")
LIBRARY.define("onednn_product(Tensor left, Tensor right) -> Tensor")
ONEDNN: Any = torch.ops.ppl_vae.onednn_product.default

ZEN_5 = 26  # the number of the first family of AMD's whose units for AVX-512 are as wide as its numbers

# Multiplications of a product from which oneDNN's is the faster: it takes some 8 microseconds to be called.
WORTH_CALLING = 2_000_000


@functools.cache
def is_wider() -> bool:
    """Whether oneDNN's products take wider instructions than MKL's: a matter of the processor alone, not of any clock."""
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.mkl.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and _family_of_amd(_processor()) >= ZEN_5
    )


def _processor() -> str:
    """What the system says of the processor."""
    try:
        return Path("/proc/cpuinfo").read_text()[:1000]
    except OSError:
        return platform.processor()


def _family_of_amd(processor: str) -> int:
    """The family of a processor of AMD's, by what Linux or Windows says of it; 0 of others."""
    family = re.search(r"family\s*:?\s*(\d+)", processor, re.IGNORECASE)
    return int(family[1]) if family and "AuthenticAMD" in processor else 0


def _product(left: Tensor, right: Tensor) -> Any:
    """``left @ right`` by oneDNN where that is the faster, else not implemented."""
    multiplications = left.shape[0] * left.shape[1] * right.shape[1]
    like = left.dtype == right.dtype == torch.float32 and left.device.type == "cpu"
    if not like or multiplications < WORTH_CALLING or not is_wider() or not torch.backends.mkldnn.enabled:
        return NotImplemented
    return ONEDNN(left, right)


@torch.library.impl(LIBRARY, "onednn_product", "CPU")
def _on_a_cpu(left: Tensor, right: Tensor) -> Any:
    if not _is_dense(right.shape, right.stride()):
        right = right.contiguous()
    return torch.ops.mkldnn._linear_pointwise.default(left, right.t(), None, "none", [], "")


@torch.library.impl(LIBRARY, "onednn_product", "Meta")
def _of_no_numbers(left: Tensor, right: Tensor) -> Tensor:
    return left.new_empty(left.shape[0], right.shape[1])


def _is_dense(size: Sequence[Any], stride: Sequence[Any]) -> bool:
    """Whether a matrix has all memory from its first number to its last; of others oneDNN takes a thousand times as long."""
    return tuple(stride) in ((size[1], 1), (1, size[0]))


def _affine(bias: Tensor, left: Tensor, right: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    """``bias + left @ right``, likewise."""
    return NotImplemented if (beta, alpha) != (1, 1) or (found := _product(left, right)) is NotImplemented else found + bias


# What a record does in place of an operation of torch's, where that is implemented.
PRODUCTS: dict[Any, Any] = {torch.ops.aten.mm.default: _product, torch.ops.aten.addmm.default: _affine}


@contextlib.contextmanager
def compiled_products() -> Iterator[None]:
    """Let torch's compiler call oneDNN's product for a second factor that changes, and lies as it lies.

    By itself it does so for weights alone that stay the same.
    """
    if not is_wider():
        yield
        return
    from torch._inductor import lowering
    from torch._inductor.ir import ExternKernel, FixedLayout, TensorBox
    from torch._inductor.mkldnn_ir import LinearUnary

    def product(left: Any, right: Any) -> Any:
        left = ExternKernel.require_contiguous(ExternKernel.realize_input(left))
        right = ExternKernel.realize_input(lowering.permute(right, [1, 0]))
        right.freeze_layout()
        if not _is_dense(right.get_size(), right.get_stride()):
            right = ExternKernel.require_contiguous(right)
        size = [left.get_size()[0], right.get_size()[0]]
        layout = FixedLayout(device=left.get_device(), dtype=left.get_dtype(), size=size)
        return TensorBox.create(LinearUnary(layout=layout, inputs=[left, right], constant_args=[None, "none", [-1], ""]))

    with mock.patch.dict(lowering.lowerings, {ONEDNN: product}):
        yield
