"""What a function does to tensors, written down as a graph while it runs once.

    call of torch on tensors  ->  node (operation, nodes of its tensors, other arguments)

As ``make_fx`` of torch does it, below gradients, where a call is one operation; but ``make_fx`` imports torch's compiler and
its algebra of shapes, a second of every process that records anything, and shapes are known here.
"""

from __future__ import annotations

import contextlib
import functools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["being_recorded", "recorded"]

aten = torch.ops.aten

_ACTIVE: ContextVar[bool] = ContextVar("recording", default=False)


def being_recorded() -> bool:
    """Whether what is done now is recorded, here or by a function of torch's: a record cannot decide by values."""
    return _ACTIVE.get() or get_proxy_mode() is not None


def recorded(
    function: Callable[..., Sequence[Tensor]], examples: Sequence[Tensor], instead: Mapping[Any, Callable[..., Any]]
) -> tuple[fx.GraphModule, list[Tensor]]:
    """Run a function of tensors once, and write down what it does.

    Args:
        function: to be recorded; what it does in place it does to the examples.
        examples: its arguments.
        instead: what is recorded in place of an operation, unless it answers ``NotImplemented``.

    Returns:
        The record, whose placeholders are the function's arguments and then the tensors that it knew from elsewhere; and these.

    Raises:
        RuntimeError: it asks for a value, or draws from a generator of its own.
    """
    recorder = _Recorder(examples, instead)
    token = _ACTIVE.set(True)
    try:
        with recorder, _without_cache():
            outputs = function(*examples)
    finally:
        _ACTIVE.reset(token)
    recorder.graph.output([recorder.node_of(output) for output in outputs])
    recorder.graph.eliminate_dead_code()
    return fx.GraphModule(nn.Module(), recorder.graph), recorder.constants


class _Recorder(TorchDispatchMode):
    """Writes down every operation on tensors.

    Args:
        examples: the first placeholders.
        instead: what is recorded in place of an operation.

    Attributes:
        graph: the operations so far.
        constants: tensors that came from elsewhere, in the order of their placeholders, which follow the first ones.
    """

    def __init__(self, examples: Sequence[Tensor], instead: Mapping[Any, Callable[..., Any]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = fx.Graph()
        self.constants: list[Tensor] = []
        self._instead = instead
        self._nodes, self._elsewhere = WeakTensorKeyDictionary(), WeakTensorKeyDictionary()
        self._known = WeakTensorKeyDictionary()  # those of one number, the same at every call: made of numbers in the program
        self._last: fx.Node | None = None
        for place, example in enumerate(examples):
            self._nodes[example] = self._placeholder(f"input_{place}")

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: to be left out by torch's compiler, which does not see it, it would have to be imported."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do an operation, and write it down."""
        kwargs = kwargs or {}
        if (found := self._otherwise(func, args, kwargs)) is not NotImplemented:
            return found
        flat, structure = tree_flatten((args, kwargs))
        if any(isinstance(value, torch.Generator) for value in flat):
            raise RuntimeError("it draws from a generator of its own, torch.Generator(), which a record would not start anew")
        own = [value for value in flat if isinstance(value, Tensor) and value in self._nodes]
        known = all(tensor in self._known for tensor in own)
        if torch.Tag.data_dependent_output in func.tags:
            if not known:
                raise RuntimeError("it asks for the value of a tensor, by which a record cannot decide")
            return func(*args, **kwargs)
        fresh = func is aten.lift_fresh.default  # torch made it of numbers in the program: every call needs one of its own
        target = aten.lift_fresh_copy.default if fresh else func
        nodes = [self.node_of(value) if isinstance(value, Tensor) else value for value in flat]
        result = func(*args, **kwargs)
        own_args, own_kwargs = tree_unflatten(nodes, structure)
        name = func.overloadpacket.__name__
        self._write(result, self.graph.create_node("call_function", target, own_args, own_kwargs, name))
        if not known and func._schema.is_mutable:
            self._known.clear()  # what was changed may share its memory with any
        repeated = bool(own) and known and torch.Tag.nondeterministic_seeded not in func.tags
        if (fresh or repeated) and isinstance(result, Tensor) and result.numel() == 1:
            self._known[result] = True
        return result

    def node_of(self, tensor: Tensor) -> fx.Node:
        """Where a tensor came from."""
        for found in (self._nodes, self._elsewhere):
            if tensor in found:
                node: fx.Node = found[tensor]
                return node
        with self.graph.inserting_after(self._last):
            self._elsewhere[tensor] = node = self._placeholder(f"constant_{len(self.constants)}")
        self.constants.append(tensor.detach())
        return node

    def _otherwise(self, func: Any, args: Any, kwargs: Any) -> Any:
        """What is done in place of an operation, and recorded."""
        with self:
            found = self._instead[func](*args, **kwargs) if func in self._instead else NotImplemented
            if found is NotImplemented and _is_made_of_others(func, _device_of(args)):
                found = func.decompose(*args, **kwargs)
        return found

    def _placeholder(self, name: str) -> fx.Node:
        self._last = self.graph.placeholder(name)
        return self._last

    def _write(self, result: Any, node: fx.Node) -> None:
        """Note that what an operation gave came from a node."""
        if isinstance(result, Tensor):
            self._nodes[result] = node
        elif isinstance(result, tuple | list):
            for place, part in enumerate(result):
                self._write(part, self.graph.call_function(operator.getitem, (node, place)))


def _device_of(args: Any) -> str:
    """The kind of the device of the first tensor."""
    return next((value.device.type for value in tree_leaves(args) if isinstance(value, Tensor)), "")


@functools.cache
def _is_made_of_others(func: Any, device: str) -> bool:
    """Whether an operation is taken apart before gradients, which it is not where none can be (in inference mode)."""
    key = torch._C._dispatch_key_for_device(device) if device else None
    return key is None or not torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key)


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
    """Autocast converts anew: a weight that was converted before would be a tensor from elsewhere."""
    enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(enabled)
