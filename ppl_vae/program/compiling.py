"""What torch's compiler does better on a CPU when it is told another way, and what it makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

__all__ = ["VERSION", "Library", "Program", "cheaper"]

VERSION = 2  # of what is done here; a library that was compiled under another is not taken
Program = Callable[..., list[Tensor]]
aten: Any = torch.ops.aten


class Library:
    """A compiled graph: a function of its tensors.

    Args:
        run: of a list of all tensors, ``constants`` last.
        constants: tensors that are the same at every call.
    """

    def __init__(self, run: Callable[[list[Tensor]], list[Tensor]], constants: list[Tensor]) -> None:
        self.run = run
        self.constants = constants

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Do what was compiled."""
        return self.run([*inputs, *self.constants])

    def after(self, state: Sequence[Tensor], inputs: int) -> Program:
        """The same, as a function of so many last ``inputs``, of one ``state`` before them: one list serves all calls."""
        arguments = [*state, *[torch.empty(0)] * inputs, *self.constants]
        changing, run = slice(len(state), len(state) + inputs), self.run

        def call(*inputs: Tensor) -> list[Tensor]:
            arguments[changing] = inputs
            return run(arguments)

        return call


def cheaper(graph: fx.Graph) -> None:
    """Exchange operations of a compiler's graph for others that do the same with fewer passes over memory, on a CPU.

    An affine map ``b + x W`` is by default one call that first fills its output with copies of b, which the product then reads
    and adds to; apart, the sum goes into the loop that comes next, mostly an activation. Normal numbers are by default drawn
    into a copy of memory that was never written; they are drawn directly, the same ones. The sigmoid that is the gradient of
    ``log(1 + exp(-|x|))`` is made of the exponential that stands there already.

    Args:
        graph: functional, each node with an example of its value; it is changed in place.
    """
    for node in graph.find_nodes(op="call_function", target=aten.addmm.default):
        if len(node.args) == 3 and not node.kwargs and _is_exact(node):
            bias, left, right = node.args
            with graph.inserting_before(node):
                product = _like(node, graph.call_function(aten.mm.default, (left, right)))
                _replace(node, _like(node, graph.call_function(aten.add.Tensor, (product, bias))))
    for node in graph.find_nodes(op="call_function", target=aten.normal_functional.default):
        arguments: Any = node.args
        memory, *moments = arguments
        value, standard = node.meta["val"], moments in ([], [0.0, 1.0]) and not node.kwargs
        if memory.target is aten.empty.memory_format and standard and value.is_contiguous() and _is_exact(node):
            with graph.inserting_before(node):
                made = {"dtype": value.dtype, "device": value.device}
                _replace(node, _like(node, graph.call_function(aten.randn.default, (list(value.shape),), made)))
            if not memory.users:
                graph.erase_node(memory)
    magnitudes = _magnitudes(graph)
    for node in graph.find_nodes(op="call_function", target=aten.sigmoid.default):
        if node.args[0] in magnitudes and _is_exact(node):
            with graph.inserting_before(node):
                _replace(node, _sigmoid_by_exponential(graph, node))


def _magnitudes(graph: fx.Graph) -> set[Any]:
    """Every x of which ``exp(-|x|)`` is taken."""
    found = set()
    for node in graph.find_nodes(op="call_function", target=aten.exp.default):
        negated: Any = node.args[0]
        if negated.target is aten.neg.default and negated.args[0].target is aten.abs.default:
            found.add(negated.args[0].args[0])
    return found


def _sigmoid_by_exponential(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """``e / (1 + e)`` below zero, else ``1 / (1 + e)``; a loop takes ``e = exp(-|x|)`` once, however often it stands there."""
    x: Any = node.args[0]
    value = node.meta["val"]

    def call(target: Any, *args: Any) -> fx.Node:
        return _like(node, graph.call_function(target, args))

    e = call(aten.exp.default, call(aten.neg.default, call(aten.abs.default, x)))
    below = graph.call_function(aten.lt.Scalar, (x, 0))
    below.meta.update({**node.meta, "val": value.lt(0)})
    return call(aten.div.Tensor, call(aten.where.ScalarOther, below, e, 1.0), call(aten.add.Scalar, e, 1.0))


def _is_exact(node: fx.Node) -> bool:
    """Whether numbers are in full precision, so that the order of the operations is all that changes, and on a CPU."""
    value = node.meta["val"]
    return value.device.type == "cpu" and value.dtype in (torch.float32, torch.float64)


def _like(node: fx.Node, other: fx.Node) -> fx.Node:
    other.meta.update(node.meta)
    return other


def _replace(node: fx.Node, other: fx.Node) -> None:
    node.replace_all_uses_with(other)
    node.graph.erase_node(node)
