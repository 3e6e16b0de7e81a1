"""Records multiply matrices by oneDNN on processors of which torch's own library uses half."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ppl_vae.program import onednn
from ppl_vae.program.capture import capture

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")


@pytest.fixture(autouse=True)
def wider(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor such as this one for all tests: oneDNN's numbers are the same on any."""
    monkeypatch.setattr(onednn, "is_wider", lambda: True)


def calls(function: Callable[..., list[Tensor]], *inputs: Tensor) -> int:
    """How many products of a record are oneDNN's."""
    return sum(node.target is onednn.ONEDNN for node in capture(function, [], inputs).module.graph.nodes)


@pytest.mark.parametrize(
    ("processor", "family"),
    [
        ("processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 2\n", 26),
        ("processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\n", 0),
        ("AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD", 25),
        ("Intel64 Family 6 Model 158 Stepping 10, GenuineIntel", 0),
        ("processor\t: 0\nBogoMIPS\t: 2100.00\nCPU implementer\t: 0x41\n", 0),
        ("arm", 0),
        ("", 0),
    ],
)
def test_the_family_of_a_processor(processor: str, family: int) -> None:
    assert onednn._family_of_amd(processor) == family


def test_whatever_lies_between_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns of a larger matrix, repeated rows: copied first, as oneDNN would take a thousand times as long."""
    from torch._inductor import mkldnn_ir

    monkeypatch.setenv("PPL_VAE_CACHE", str(tmp_path))
    asked: list[Tensor] = []
    compiled: list[Any] = []
    original = torch.ops.mkldnn._linear_pointwise.default

    class Seen(mkldnn_ir.LinearUnary):  # type: ignore[misc]
        def __init__(self, layout: Any, inputs: Any, **others: Any) -> None:
            compiled.append(inputs[1])
            super().__init__(layout, inputs, **others)

    monkeypatch.setattr(mkldnn_ir, "LinearUnary", Seen)

    def products(left: Tensor, right: Tensor) -> list[Tensor]:
        parts = right[:200, 50:250], right[:1, :200].expand(200, 200), right[:200, 50:250].t(), right[:200]
        return [left @ part for part in parts]

    left, right = torch.randn(100, 200), torch.randn(400, 400)
    graph = capture(products, [], [left, right])
    assert sum(node.target is onednn.ONEDNN for node in graph.module.graph.nodes) == 4
    library = graph.compiled(left, right)
    monkeypatch.setattr(torch.ops.mkldnn._linear_pointwise, "default", lambda *args: asked.append(args[1]) or original(*args))
    expected = products(left.double(), right.double())
    for found in (graph(left, right), library(left, right)):
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)
    assert all(onednn._is_dense(weight.shape, weight.stride()) for weight in asked)
    assert all(onednn._is_dense(weight.get_size(), weight.get_stride()) for weight in compiled)
    assert len(asked) == len(compiled) == 4


def network(x: Tensor, first: Tensor, second: Tensor, bias: Tensor) -> list[Tensor]:
    """Outputs of two layers, and their gradients."""
    leaves = [tensor.detach().requires_grad_() for tensor in (x, first, second, bias)]
    with torch.enable_grad():
        y = functional.linear(functional.linear(leaves[0], leaves[1], leaves[3]).relu(), leaves[2])
        return [y.detach(), *torch.autograd.grad(y.square().sum(), leaves)]


def tensors() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in ((128, 300), (200, 300), (90, 200), (200,))]


def largest_difference(found: list[Tensor], inputs: list[Tensor]) -> float:
    """From the same in double precision, relative to the largest number of each."""
    expected = network(*(tensor.double() for tensor in inputs))
    assert [tensor.shape for tensor in found] == [tensor.shape for tensor in expected]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True))


def test_a_record_multiplies_by_it_forwards_and_backwards() -> None:
    inputs = tensors()
    graph = capture(network, [], inputs)
    # Two layers, the gradients of both weights, and of what goes into each.
    assert sum(node.target is onednn.ONEDNN for node in graph.module.graph.nodes) == 6
    assert largest_difference(graph(*inputs), inputs) < 1e-5


def test_compiled_it_does_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPL_VAE_CACHE", str(tmp_path))
    inputs = tensors()
    library = capture(network, [], inputs).compiled(*inputs)
    assert largest_difference(library(*inputs), inputs) < 1e-5
    assert largest_difference(library(*(2 * tensor for tensor in inputs)), [2 * tensor for tensor in inputs]) < 1e-5


def test_where_it_is_no_gain_or_not_the_same_torchs_own_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def product(left: Tensor, right: Tensor) -> list[Tensor]:
        return [left @ right]

    def scaled(bias: Tensor, left: Tensor, right: Tensor) -> list[Tensor]:
        return [torch.addmm(bias, left, right, alpha=-2)]

    large = torch.randn(200, 200)
    assert calls(product, large, large) == 1
    assert calls(product, large[:20], large) == 0
    assert calls(product, large.double(), large.double()) == 0
    assert calls(product, large.bfloat16(), large.bfloat16()) == 0
    assert calls(scaled, large[0], large, large) == 0
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.mkldnn, "enabled", False)
        assert calls(product, large, large) == 0
    assert calls(product, large, large) == 1
    monkeypatch.setattr(onednn, "is_wider", lambda: False)
    assert calls(product, large, large) == 0
