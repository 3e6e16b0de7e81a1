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
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten
from torch.utils.weak import WeakTensorKeyDictionary

from ppl_vae.program.dispatch import DispatchMode

__all__ = ["Record", "being_recorded", "recorded", "refuse_leaving"]

aten = torch.ops.aten
MASKS = (torch.bool, torch.uint8)
OUT_OF_SIGHT = (
    "it makes a tensor where torch does not see it (as copy.deepcopy, nn.Parameter(...) or numpy do), which a record would "
    "hold still: make it by torch's functions"
)


class Record(NamedTuple):
    """What a function did.

    Attributes:
        module: its operations; the placeholders are the function's arguments, then ``constants``.
        constants: tensors that it knew from elsewhere.
        changed: those of them that it changes in place.
    """

    module: fx.GraphModule
    constants: list[Tensor]
    changed: list[Tensor]


def being_recorded() -> bool:
    """Whether what is done now is recorded, here or by a function of torch's: a record cannot decide by values."""
    return _ACTIVE.get() is not None or get_proxy_mode() is not None


def refuse_leaving(tensor: Any) -> None:
    """Raise ``RuntimeError`` if numbers leave torch that are others at every call, such as for numpy."""
    recorder = _ACTIVE.get()
    if recorder is not None and isinstance(tensor, Tensor) and recorder.varies(tensor):
        raise RuntimeError("it takes numbers out of torch (numpy, tolist), which a record would hold still: stay with torch")


def recorded(
    function: Callable[..., Sequence[Tensor]], examples: Sequence[Tensor], instead: Mapping[Any, Callable[..., Any]]
) -> Record:
    """Run a function of tensors, twice where it knows tensors from elsewhere, and write down what it does.

    Args:
        function: to be recorded; what it does in place it does to the examples, and not to tensors from elsewhere.
        examples: its arguments.
        instead: what is recorded in place of an operation, unless it answers ``NotImplemented``.

    Returns:
        The record, whose outputs share no memory with each other and with what the function was given.

    Raises:
        RuntimeError: it asks for a value, or for a size that hangs on values, or does what cannot be repeated.
    """
    recorder = _run(function, examples, instead)
    # What is there before a call is there at the next; what is not was made in the call, unseen.
    if recorder.elsewhere and _places(recorder) != _places(_run(function, examples, instead)):
        raise RuntimeError(OUT_OF_SIGHT)
    recorder.graph.eliminate_dead_code()
    return Record(fx.GraphModule(nn.Module(), recorder.graph), recorder.constants, recorder.changed)


def _run(
    function: Callable[..., Sequence[Tensor]], examples: Sequence[Tensor], instead: Mapping[Any, Callable[..., Any]]
) -> _Recorder:
    recorder = _Recorder(examples, instead)
    token = _ACTIVE.set(recorder)
    try:
        with recorder, _without_cache():
            outputs = function(*examples)
    finally:
        _ACTIVE.reset(token)
        recorder.put_back()
    recorder.finish(outputs)
    return recorder


def _places(recorder: _Recorder) -> list[int]:
    """Where the tensors from elsewhere lie; as long as the recorder is there nothing else lies there."""
    return [tensor.data_ptr() for tensor in recorder.elsewhere]


class _Recorder(DispatchMode):
    """Writes down every operation on tensors.

    Args:
        examples: the first placeholders.
        instead: what is recorded in place of an operation.

    Attributes:
        graph: the operations so far.
        constants: tensors that are no examples, in the order of their placeholders, which follow the first ones.
        elsewhere: those of them that are not made of numbers in the program.
        changed: those of them that are changed in place.
    """

    def __init__(self, examples: Sequence[Tensor], instead: Mapping[Any, Callable[..., Any]]) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.constants: list[Tensor] = []
        self.elsewhere: list[Tensor] = []
        self.changed: list[Tensor] = []
        self._before: list[Tensor] = []  # what these were
        self._lying_at: dict[int, list[Tensor]] = {}  # those from elsewhere that were not changed yet, by their memory
        self._examples = list(examples)
        self._instead = instead
        self._nodes, self._elsewhere = WeakTensorKeyDictionary(), WeakTensorKeyDictionary()
        self._known = WeakTensorKeyDictionary()  # those of one number, the same at every call: made of numbers in the program
        self._last: fx.Node | None = None
        for place, example in enumerate(examples):
            self._nodes[example] = self._placeholder(f"input_{place}")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do an operation, and write it down."""
        kwargs = kwargs or {}
        if (found := self._otherwise(func, args, kwargs)) is not NotImplemented:
            return found
        flat, structure = tree_flatten((args, kwargs))
        tensors = [value for value in flat if isinstance(value, Tensor)]
        known = all(tensor in self._known for tensor in tensors)
        own = [tensor for tensor in tensors if tensor in self._nodes]
        self._check(func, args, flat, known=known)
        if torch.Tag.data_dependent_output in func.tags:
            return func(*args, **kwargs)
        fresh = func is aten.lift_fresh.default  # torch made it of numbers in the program: every call needs one of its own
        target = aten.lift_fresh_copy.default if fresh else func
        nodes = [self.node_of(value, fresh=fresh) if isinstance(value, Tensor) else value for value in flat]
        if func._schema.is_mutable:
            self._note_changes(func, args, kwargs)
        result = func(*args, **kwargs)
        own_args, own_kwargs = tree_unflatten(nodes, structure)
        name = func.overloadpacket.__name__
        self._write(result, self.graph.create_node("call_function", target, own_args, own_kwargs, name))
        drawn = torch.Tag.nondeterministic_seeded in func.tags
        if func._schema.is_mutable and (drawn or not known):
            self._known.clear()  # what was changed may share its memory with any
        repeated = bool(own) and known and not drawn
        if (fresh or repeated) and isinstance(result, Tensor) and result.numel() == 1:
            self._known[result] = True
        return result

    def _check(self, func: Any, args: Any, flat: Sequence[Any], *, known: bool) -> None:
        """Raise ``RuntimeError`` for what cannot be repeated."""
        if any(isinstance(value, torch.Generator) for value in flat):
            raise RuntimeError("it draws from a generator of its own, torch.Generator(), which a record would not start anew")
        if any(isinstance(value, torch.UntypedStorage | torch.TypedStorage) for value in flat):
            raise RuntimeError(OUT_OF_SIGHT)
        if torch.Tag.data_dependent_output in func.tags and not known:
            raise RuntimeError("it asks for the value of a tensor, by which a record cannot decide")
        if torch.Tag.dynamic_output_shape in func.tags:
            choosing = args[1] if func is aten.index.Tensor else flat
            masks = [value for value in choosing if isinstance(value, Tensor)]
            if func is aten.index.Tensor:
                masks = [value for value in masks if value.dtype in MASKS]
            if any(self.varies(value) for value in masks):
                told = "x[mask]" if func is aten.index.Tensor else func.overloadpacket.__name__
                raise RuntimeError(
                    f"it makes a tensor whose size hangs on values ({told}), which a record would hold still: use torch.where "
                    "or sums of products with the mask"
                )

    def varies(self, tensor: Tensor) -> bool:
        """Whether a tensor may have other numbers at every call."""
        return tensor in self._nodes and tensor not in self._known

    def put_back(self) -> None:
        """Give what was changed of tensors from elsewhere its numbers back."""
        with torch.no_grad():
            for tensor, before in reversed(list(zip(self.changed, self._before, strict=True))):  # some share memory
                tensor.copy_(before)

    def finish(self, outputs: Sequence[Tensor]) -> None:
        """Write down what is given back, in memory of its own: who changes it in place changes nothing else."""
        nodes = [self.node_of(output) for output in outputs]
        taken = {tensor.untyped_storage().data_ptr() for tensor in (*self._examples, *self.constants)}
        for place, output in enumerate(outputs):
            if (memory := output.untyped_storage().data_ptr()) in taken:
                nodes[place] = self.graph.call_function(aten.clone.default, (nodes[place],))
            taken.add(memory)
        self.graph.output(nodes)

    def _note_changes(self, func: Any, args: Any, kwargs: Any) -> None:
        """Keep what tensors from elsewhere are before they are changed in place."""
        given = {**dict(zip((each.name for each in func._schema.arguments), args, strict=False)), **kwargs}
        written = [given.get(each.name) for each in func._schema.arguments if each.alias_info and each.alias_info.is_write]
        for tensor in tree_leaves(written):
            for other in self._lying_at.pop(tensor.untyped_storage().data_ptr(), ()) if isinstance(tensor, Tensor) else ():
                self.changed.append(other)
                self._before.append(other.clone())

    def node_of(self, tensor: Tensor, *, fresh: bool = False) -> fx.Node:
        """Where a tensor came from."""
        for found in (self._nodes, self._elsewhere):
            if tensor in found:
                node: fx.Node = found[tensor]
                return node
        with self.graph.inserting_after(self._last):
            self._elsewhere[tensor] = node = self._placeholder(f"constant_{len(self.constants)}")
        self.constants.append(tensor.detach())
        if not fresh:
            self.elsewhere.append(self.constants[-1])
            self._lying_at.setdefault(tensor.untyped_storage().data_ptr(), []).append(self.constants[-1])
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


_ACTIVE: ContextVar[_Recorder | None] = ContextVar("recorder", default=None)


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
