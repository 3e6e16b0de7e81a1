"""Products of small matrices in compiled code, by a loop of its own (``small_products.h``) in place of a library's call."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

__all__ = ["small_products"]

HEADER = Path(__file__).with_suffix(".h")
FEW = 2**20  # multiplications of a product, up to which the loop is the faster, on one thread against two of a library
LONGEST = 512  # sums, as the header says
NAMES = {torch.float32: "float32", torch.float64: "float64"}


@contextlib.contextmanager
def small_products() -> Iterator[None]:
    """Let torch's compiler call that loop for products on a CPU that are small, and its libraries for all others."""
    if sys.platform == "win32":  # whose compiler knows no vectors
        yield
        return
    from torch._inductor import lowering
    from torch._inductor.ir import ExternKernel, ExternKernelOut, FixedLayout, TensorBox

    class SmallProduct(ExternKernelOut):
        def codegen(self, wrapper: Any) -> None:
            wrapper.include_extra_header(str(HEADER))
            super().codegen(wrapper)

    large = lowering.lowerings[torch.ops.aten.mm.default]

    def product(left: Any, right: Any, *others: Any, **options: Any) -> Any:
        (rows, size), columns, kind = left.get_size(), right.get_size()[1], left.get_dtype()
        small = 0 < rows * size * columns <= FEW and size <= LONGEST
        if left.get_device().type != "cpu" or kind not in NAMES or others or options or not small:
            return large(left, right, *others, **options)
        layout = FixedLayout(device=left.get_device(), dtype=kind, size=[rows, columns])
        factors = [ExternKernel.realize_input(factor) for factor in (left, right)]
        return TensorBox.create(SmallProduct(layout, factors, cpp_kernel_name=f"aoti_torch_cpu_small_product_{NAMES[kind]}"))

    with mock.patch.dict(lowering.lowerings, {torch.ops.aten.mm.default: product}):
        yield
