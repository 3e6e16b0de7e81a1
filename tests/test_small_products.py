"""Compiled code multiplies small matrices by a loop of its own."""

from __future__ import annotations

import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ppl_vae.program import small_products
from ppl_vae.program.capture import capture

SHAPES = [(1, 1, 1), (64, 64, 32), (3, 5, 7), (17, 512, 33), (9, 30, 8), (2, 1, 100), (50, 20, 1), (8, 16, 16), (5, 3, 48)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PPL_VAE_CACHE", str(tmp_path))
    return tmp_path


def code_of(function: Callable[..., list[Tensor]], inputs: list[Tensor], folder: Path) -> tuple[list[Tensor], str]:
    """What a compiled function gives, and the code that calls it."""
    found = capture(function, [], inputs).compiled(*inputs)(*inputs)
    with zipfile.ZipFile(next(folder.glob("*.pt2"))) as library:
        code = next(name for name in library.namelist() if name.endswith(".wrapper.cpp"))
        return found, library.read(code).decode()


def test_products_of_all_shapes_and_layouts_are_torchs(own_cache: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs: list[Tensor] = []
    for rows, size, columns in SHAPES[1:]:  # a product of two numbers is none for the compiler
        for dtype in (torch.float32, torch.float64):
            inputs += [torch.randn(shape, generator=generator, dtype=dtype) for shape in ((rows, size), (size, columns))]
    # By rows, by columns, every other number, the same row again.
    inputs += [factor.t().contiguous().t() for factor in inputs[:8]]
    inputs += [torch.randn(2 * a, 2 * b, generator=generator)[::2, 1::2] for a, b in ((20, 30), (30, 40))]
    inputs += [torch.randn(1, 12, generator=generator).expand(6, 12), torch.randn(12, 6, generator=generator)]

    def products(*factors: Tensor) -> list[Tensor]:
        return [left @ right for left, right in zip(factors[::2], factors[1::2], strict=True)]

    found, code = code_of(products, inputs, own_cache)
    assert code.count("(aoti_torch_cpu_small_product_float") == len(inputs) // 2
    for ours, left, right in zip(found, inputs[::2], inputs[1::2], strict=True):
        # No sum may be off by more than its own roundings, whatever their order.
        bound = left.abs().double() @ right.abs().double() * (left.shape[1] + 1) * torch.finfo(ours.dtype).eps
        assert ours.shape == (left.shape[0], right.shape[1])
        assert ((ours.double() - left.double() @ right.double()).abs() <= bound).all()


def test_what_is_no_number_stays_none_in_its_row_and_column(own_cache: Path) -> None:
    left, right = torch.ones(10, 6), torch.ones(6, 20)
    left[3, 2], right[4, 17] = torch.inf, torch.nan

    def product(left: Tensor, right: Tensor) -> list[Tensor]:
        return [left @ right]

    ((found,), _) = code_of(product, [left, right], own_cache)
    torch.testing.assert_close(found, left @ right, equal_nan=True)


def test_large_products_and_other_numbers_are_a_librarys(own_cache: Path) -> None:
    many, few = torch.randn(1100, 1000), torch.randn(4, 1100)

    def products(many: Tensor, few: Tensor, halves: Tensor) -> list[Tensor]:
        return [few @ many, many[:600].t() @ many[:600, :2], halves @ halves.t()]

    found, code = code_of(products, [many, few, few.bfloat16()], own_cache)
    assert "small_product_float32(" not in code
    torch.testing.assert_close(found[0], few @ many, rtol=1e-4, atol=1e-3)


def test_the_header_knows_the_longest_sum() -> None:
    assert f"constexpr int LONGEST = {small_products.LONGEST};" in small_products.HEADER.read_text()


@pytest.mark.parametrize("flags", [["-mno-avx512f", "-mavx2", "-mfma"], ["-mno-avx"]])
def test_it_is_the_same_without_the_widest_vectors(flags: list[str], tmp_path: Path) -> None:
    """As on other processors: whatever the vectors, the sums are those of the rows and columns."""
    import ctypes
    import platform

    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch.utils.cpp_extension import include_paths

    if platform.machine() != "x86_64":
        pytest.skip("flags of x86-64's vectors")
    source, library = tmp_path / "code.cpp", tmp_path / "code.so"
    source.write_text(
        f"#include <{small_products.HEADER}>\n"
        'extern "C" void multiply(const float* a, long ar, long ac, const float* b, long br, long bc, float* out, '
        "long m, long k, long n) {\n  ppl_vae::Product<float>{a, ar, ac, b, br, bc, out, m, k, n}();\n}\n"
    )
    options = ["-O1", "-shared", "-fPIC", "-march=native", *flags, "-Wno-psabi", *(f"-I{path}" for path in include_paths())]
    subprocess.run([get_cpp_compiler(), *options, str(source), "-o", str(library)], check=True)
    multiply: Any = ctypes.CDLL(str(library)).multiply
    rng = np.random.default_rng(0)
    for rows, size, columns in SHAPES:
        left, right = rng.normal(size=(rows, size)).astype("f"), rng.normal(size=(columns, size)).astype("f").T
        found = np.full((rows, columns), np.nan, "f")
        parts = []
        for factor in (left, right):
            parts += [ctypes.c_void_p(factor.ctypes.data), *(ctypes.c_long(stride // 4) for stride in factor.strides)]
        multiply(*parts, ctypes.c_void_p(found.ctypes.data), *map(ctypes.c_long, (rows, size, columns)))
        np.testing.assert_allclose(found, left @ right, atol=1e-4)
