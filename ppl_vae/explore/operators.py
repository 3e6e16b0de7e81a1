"""A graph of tensors as a list of steps that the script of a page runs.

Every operator here has a function in ``script/graph.js``, which takes its arguments in the order of torch's schema.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

__all__ = ["OPERATORS", "steps_of"]

SAME = (
    "abs add.Tensor add.Scalar addmm argmax broadcast_tensors cat clamp clamp_min clamp_max clone contiguous conv2d "
    "conv_transpose2d.input cos div.Tensor div.Scalar elu exp expand expm1 flatten.using_ints ge.Scalar gelu group_norm "
    "gt.Scalar hardtanh layer_norm le.Scalar leaky_relu linear log log1p logsumexp lt.Scalar matmul maximum mean.dim "
    "minimum mul.Tensor mul.Scalar neg permute pow.Tensor_Scalar reciprocal relu reshape rsqrt rsub.Scalar select.int "
    "sigmoid sign silu sin slice.Tensor softmax.int softplus split.Tensor split_with_sizes sqrt square squeeze.dim stack "
    "sub.Tensor sub.Scalar sum.dim_IntList sym_size.int t tanh transpose.int unbind.int unflatten.int unsqueeze view "
    "where.self"
)
OTHERS = {
    "_softmax.default": "softmax",
    "_unsafe_view.default": "view",
    "_to_copy.default": "clone",
    "alias.default": "clone",
    "detach_.default": "clone",
    "detach.default": "clone",
    "lift_fresh_copy.default": "clone",
    "to.dtype": "clone",
    "upsample_nearest2d.vec": "upsample",
    "mm.default": "matmul",
    "bmm.default": "matmul",
}
OPERATORS = {
    **{f"aten.{name if '.' in name else f'{name}.default'}": name.partition(".")[0] for name in SAME.split()},
    **{f"aten.{name}": script for name, script in OTHERS.items()},
}
"""The functions of the script by the names of torch's operators."""
PYTHON: Mapping[Any, str] = {operator.getitem: "getitem", operator.mul: "mul", operator.add: "add", operator.sub: "sub"}


def steps_of(graph: fx.GraphModule) -> tuple[list[list[Any]], list[Tensor]]:
    """The steps of a graph of one output, and its constants.

    Args:
        graph: as :func:`ppl_vae.fitting.graphs.exported` makes it, its module.

    Returns:
        Of each step ``[function, *arguments]``, where ``{"v": i}`` is value i: first the inputs, then the constants, then what
        each step gives; and the constants. The last step gives the output.

    Raises:
        ValueError: an operator that the script has not, or a constant that is no real number.
    """
    nodes = list(graph.graph.nodes)
    inputs = [node for node in nodes if node.op == "placeholder"]
    held = [node for node in nodes if node.op == "get_attr"]
    places = {node: place for place, node in enumerate((*inputs, *held))}
    constants = [_constant(operator.attrgetter(str(node.target))(graph)) for node in held]
    steps: list[list[Any]] = []
    for node in nodes:
        if node.op == "call_function":
            steps.append([_function(node), *(_argument(value, places) for value in _arguments(node))])
            places[node] = len(places)
        elif node.op == "output":
            (found,) = torch.utils._pytree.tree_leaves(node.args)
            steps.append(["clone", {"v": places[found]}])
        elif node.op not in ("placeholder", "get_attr") and node.users:  # others check the example's shapes
            raise ValueError(f"a page has no form of {node.op}")
    return steps, constants


def _constant(value: Tensor) -> Tensor:
    if value.is_complex():
        raise ValueError("a page has no form of complex numbers")
    return value.detach().cpu()


def _function(node: fx.Node) -> str:
    found = PYTHON.get(node.target) or OPERATORS.get(str(node.target))
    if found is None:
        raise ValueError(f"a page has no form of {node.target}")
    return found


def _arguments(node: fx.Node) -> list[Any]:
    """Those of a call in the order of the operator's schema, defaults filled in."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return list(node.args)
    positional, named = list(node.args), node.kwargs
    return [
        positional[place] if place < len(positional) else named.get(each.name, each.default_value)
        for place, each in enumerate(node.target._schema.arguments)
    ]


def _argument(value: Any, places: Mapping[fx.Node, int]) -> Any:
    if isinstance(value, fx.Node):
        return {"v": places[value]}
    if isinstance(value, (list, tuple)):
        return [_argument(each, places) for each in value]
    return value if isinstance(value, (int, float, str, bool)) or value is None else None  # dtypes and layouts
