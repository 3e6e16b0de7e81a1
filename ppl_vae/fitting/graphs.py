"""A part of a fit as one graph of tensors, in the units of the source, which other programs can run.

What depends on parameters alone is computed when the graph is made: a Cholesky factor becomes a constant, and to solve with it
a product with its inverse, so that formats without linear algebra can hold exact posteriors too.
"""

from __future__ import annotations

import contextlib
import io
import operator
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pyro
import torch
from torch import Tensor, fx, nn
from torch.export.passes import move_to_device_pass

from ppl_vae.data import Transform
from ppl_vae.fitting.inputs import in_source_units
from ppl_vae.likelihoods.base import point_prediction
from ppl_vae.program.context import evaluating
from ppl_vae.program.pair import Pair
from ppl_vae.program.sites import leaves, tree
from ppl_vae.text import as_line
from ppl_vae.types import DataSpec

__all__ = ["DecoderGraph", "EncoderGraph", "exported", "recorded"]

aten = torch.ops.aten
SUMS = {aten.einsum.default: torch.export.default_decompositions()[aten.einsum.default]}  # whose ellipses ONNX reads otherwise


class EncoderGraph(nn.Module):
    """From data in the units of the source ``(B, *event)`` to posterior means, one tensor ``(B, *latent)`` a name.

    Args:
        pair: the fitted pair.
        transform: from the source's data to what the model sees; noise is left out: the mean of what is added to levels takes
            its place, and what is binarized comes in as zeros and ones.
        names: of the latent variables that a datum has of its own, in order.
    """

    def __init__(self, pair: Pair, transform: Transform, names: Sequence[str]) -> None:
        super().__init__()
        self.pair, self.transform = pair, transform
        self.names = tuple(names)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The means, fed forward from site to site."""
        means = leaves(self.pair.guide.posterior(self.seen(x)).mean)
        return tuple(means[name] for name in self.names)

    def seen(self, x: Tensor) -> Tensor:
        """What the model sees."""
        if self.transform.binarize:
            return x
        return self.transform.affine(x + 0.5 if self.transform.dequantize else x)


class DecoderGraph(nn.Module):
    """From codes, one tensor ``(B, *latent)`` a name, to means of p(x | z) ``(B, *event)`` in the units of the source.

    Args:
        pair: the fitted pair.
        transform: from the source's data to what the model sees.
        spec: what the data look like.
        names: of the latent variables, in order.
        dequantized: whether the model saw levels with noise.
    """

    def __init__(self, pair: Pair, transform: Transform, spec: DataSpec, names: Sequence[str], *, dequantized: bool) -> None:
        super().__init__()
        self.pair, self.transform = pair, transform
        self.spec, self.names, self.dequantized = spec, tuple(names), dequantized

    def forward(self, *z: Tensor) -> tuple[Tensor, ...]:
        """The means; of categories in no order the most probable one."""
        values = point_prediction(self.pair.model.decode(tree(dict(zip(self.names, z, strict=True)))))
        x = values.reshape(-1, *self.spec.event_shape)
        return (in_source_units(x, self.transform, self.spec, means=True, dequantized=self.dequantized),)


def exported(module: nn.Module, examples: tuple[Tensor, ...], *, several: bool = False) -> torch.export.ExportedProgram:
    """The module as a graph for any number of rows, on the CPU, everything computed that does not depend on its inputs.

    Args:
        module: which takes tensors and gives a tuple of them; itself it stays as it is.
        examples: of its inputs, two rows or more of each, on its device.
        several: whether the module takes them as ``*inputs``.

    Raises:
        ValueError: torch cannot make a graph of it; why.
    """
    with _told():
        graph = _recorded(module, examples, several=several)
        with pyro.validation_enabled(False):
            home = tuple(example.cpu() for example in examples)
            return torch.export.export(graph, home, dynamic_shapes=_any_rows(examples))


def recorded(module: nn.Module, examples: tuple[Tensor, ...]) -> fx.GraphModule:
    """The graph that :func:`exported` makes, as a module that is run and read but not saved.

    Raises:
        ValueError: torch cannot make a graph of it; why.
    """
    with _told():
        return _recorded(module, examples, several=False)


def _recorded(module: nn.Module, examples: tuple[Tensor, ...], *, several: bool) -> fx.GraphModule:
    shapes = _any_rows(examples)
    with evaluating(module), pyro.validation_enabled(False):  # torch cannot record what the checks of arguments decide
        traced = torch.export.export(module, examples, dynamic_shapes=(shapes,) if several else shapes)
        return folded(move_to_device_pass(traced.run_decompositions(SUMS), "cpu").module())


def _any_rows(examples: tuple[Tensor, ...]) -> Any:
    return tuple({0: torch.export.Dim("batch", min=1)} for _ in examples)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Whatever torch raises on the way to a graph as ``ValueError``."""
    try:
        with contextlib.redirect_stderr(io.StringIO()) as told:  # where torch prints what it has recorded, if it fails
            yield
        sys.stderr.write(told.getvalue())
    except Exception as error:  # torch raises whatever it stumbles over
        raise ValueError(
            f"torch.export makes no graph of this part for any number of rows ({type(error).__name__}: {as_line(error)}): use "
            "the fit itself from Python"
        ) from error


def folded(module: fx.GraphModule) -> fx.GraphModule:
    """The same graph in which what depends on no input is a constant, and solving with a constant factor a product."""
    folding = _Folding()
    for node in module.graph.nodes:
        if node.op == "call_module" or node.target is aten._assert_tensor_metadata.default:
            continue  # checks of what the example had
        if node.op == "get_attr":
            folding.known[node] = operator.attrgetter(node.target)(module)
        elif node.op == "call_function" and all(source in folding.known for source in node.all_input_nodes):
            args, options = fx.node.map_arg((node.args, node.kwargs), folding.known.__getitem__)
            folding.known[node] = node.target(*args, **options)
        else:
            folding.keep(node)
    folding.graph.eliminate_dead_code()
    return fx.GraphModule(folding.constants, folding.graph)


class _Folding:
    """A graph that grows while another is walked.

    Attributes:
        graph: the new one.
        constants: its tensors by name.
        known: values of nodes of the other that depend on no input.
        kept: the twins of those that do.
    """

    def __init__(self) -> None:
        self.graph = fx.Graph()
        self.constants: dict[str, Tensor] = {}
        self.known: dict[fx.Node, Any] = {}
        self.kept: dict[fx.Node, fx.Node] = {}

    def keep(self, node: fx.Node) -> None:
        """Copy a node that depends on an input; a solution for it becomes a product."""
        factor, other = _solved(node)
        if factor in self.known:
            self.kept[node] = self._product(_inverse(node, self.known[factor]), other)
        else:
            self.kept[node] = self.graph.node_copy(node, self._argument)

    def _product(self, matrix: Tensor, other: Any) -> fx.Node:
        return self.graph.call_function(aten.matmul.default, (self._constant(matrix), self._argument(other)))

    def _argument(self, node: fx.Node) -> Any:
        """What stands in the new graph for a node of the other."""
        if node in self.kept:
            return self.kept[node]
        value = self.known[node]
        return self._constant(value) if isinstance(value, Tensor) else value

    def _constant(self, value: Tensor) -> fx.Node:
        name = f"constant_{len(self.constants)}"
        self.constants[name] = value.detach().clone(memory_format=torch.contiguous_format)
        return self.graph.get_attr(name)


def _solved(node: fx.Node) -> tuple[Any, Any]:
    """The factor of a node that solves with one from the left, and the right-hand side; of another nothing."""
    if node.target is aten.cholesky_solve.default:
        return node.args[1], node.args[0]
    if node.target is aten.linalg_solve_triangular.default and node.kwargs.get("left", True):
        return node.args[0], node.args[1]
    return None, None


def _inverse(node: fx.Node, factor: Tensor) -> Tensor:
    """What a node that solves with this factor multiplies by."""
    args: Any = node.args[2:]
    options: dict[str, Any] = dict(node.kwargs)
    if node.target is aten.cholesky_solve.default:
        inverse: Tensor = torch.cholesky_inverse(factor, *args, **options)
        return inverse
    unit = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device).expand_as(factor)
    found: Tensor = torch.linalg.solve_triangular(factor, unit, **options)
    return found
