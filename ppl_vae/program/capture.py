"""Functions of tensors as graphs: recorded once, replayed without Python, compiled where that pays.

Pyro's programs are Python: their traces, plates and distributions are built anew at every call and cost milliseconds. What
they do to tensors is nearly always the same, so it is recorded once, and the record is replayed or compiled
(AOTInductor) into a library that is kept on disk for the next process.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Literal, cast
from unittest import mock

import torch
from pyro.poutine.messenger import Messenger
from pyro.util import warn_if_nan
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from ppl_vae.program.compiling import VERSION, CaptureError, Library, Program, cache, compile_into, first_line
from ppl_vae.program.context import seeded
from ppl_vae.program.onednn import PRODUCTS
from ppl_vae.program.recording import Record, recorded, refuse_leaving
from ppl_vae.program.several_steps import Several
from ppl_vae.program.shapes import line_of

__all__ = [
    "MISCOMPILED",
    "CaptureError",
    "Compile",
    "CudaGraph",
    "Exchanged",
    "Graph",
    "Program",
    "capture",
    "check_agreement",
    "copied",
    "kept",
    "record",
]

Compile = Literal["auto"] | bool

NOT_REPEATED = (
    "its record does not repeat it, so the program differs from call to call: it may use random numbers from outside torch, or "
    "count its calls"
)
LEAVING = (torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.__array__, torch.Tensor.__dlpack__)
MISCOMPILED = "compiled, it parts from its own record by more than rounding"


class Graph:
    """What a function did to tensors, as a function of these tensors. Tensors it reached on its own are still the same ones.

    Args:
        record: of the function.

    Attributes:
        module: its placeholders are the function's tensors, then ``constants``.
        constants: tensors that the function knew from elsewhere; they are read anew at every call.
        changed: those of them that it changes in place.
    """

    def __init__(self, record: Record) -> None:
        self.module, self.constants, self.changed = record
        # Of a oneDNN LSTM what its gradient needs is kept only where gradients are enabled, whatever the record says.
        self.keeps_by_mode = any("mkldnn_rnn_layer" in str(node.target) for node in self.module.graph.nodes)

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Do it again to other tensors of the same shapes, types and device."""
        if not self.keeps_by_mode:
            return cast(list[Tensor], self.module(*inputs, *self.constants))
        with torch.enable_grad():
            return cast(list[Tensor], self.module(*(tensor.detach() for tensor in inputs), *self.constants))

    def compiled(self, *inputs: Tensor, several: Several | None = None) -> Library:
        """The same function as machine code, from the disk if it was compiled before.

        Args:
            inputs: such as it is to be called with.
            several: of a step, what its library needs to take several by one call.

        Raises:
            CaptureError: no compiler, or an operation that it does not know.
        """
        if self.keeps_by_mode:
            raise CaptureError("the gradient of oneDNN's LSTM is one operation already, which the compiler cannot call")
        inputs = (*inputs, *self.constants)
        file = self.file(*inputs, several=several)
        if not file.exists():
            compile_into(file, self.module, inputs, several)
        try:
            loader = _loader(file)
        except RuntimeError:  # what is there is no library, as after a full disk
            file.unlink(missing_ok=True)
            compile_into(file, self.module, inputs, several)
            try:
                loader = _loader(file)
            except RuntimeError as error:
                raise CaptureError(f"{file} cannot be loaded: {first_line(error)}") from error
        return Library(loader.run, [constant.detach() for constant in self.constants])

    def file(self, *inputs: Tensor, several: Several | None = None) -> Path:
        """Where the machine code is kept, by everything that it depends on."""
        signature = [(tuple(t.shape), t.stride(), t.dtype, t.device) for t in (*inputs, *self.constants)]
        threads = torch.get_num_threads() if all(t.device.type == "cpu" for t in inputs) else 0
        hardware = torch.cuda.get_device_capability() if torch.cuda.is_available() else torch.backends.cpu.get_cpu_capability()
        parts = (VERSION, self.module.code, several, signature, threads, hardware, platform.machine(), torch.__version__)
        return cache() / f"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}.pt2"


def _loader(file: Path) -> Any:
    return torch._C._aoti.AOTIModelPackageLoader(str(file), "model", True, 1, -1)


def capture(function: Program, state: Sequence[Tensor], inputs: Sequence[Tensor]) -> Graph:
    """Record what ``function(*state, *inputs)`` does; nothing is changed and no random number is used up.

    Args:
        function: of tensors to a list of tensors, the same operations at every call. It may change ``state`` in place, and draw
            from torch's global generator.
        state: what it changes; recorded on copies.
        inputs: what it only reads.

    Raises:
        CaptureError: it decides by the values of tensors, or does what cannot be recorded; the message names the place.
    """
    copies = [tensor.detach().clone() for tensor in state]
    examples = [*copies, *(tensor.detach() for tensor in inputs)]
    last = _LastSite()
    try:
        with seeded(0, examples[0].device), warnings.catch_warnings(), _as_if_traced(), last:
            warnings.simplefilter("ignore")
            return Graph(recorded(function, examples, PRODUCTS))
    except Exception as error:
        raise CaptureError(f"{last}{line_of(error)}{first_line(error)}") from error


def record(function: Program, state: Sequence[Tensor], inputs: Sequence[Tensor], *, long: bool) -> Program:
    """A function as its record, compiled for long work, once it was found to do the same.

    Args:
        function: as for :func:`capture`.
        state: what it changes.
        inputs: what it only reads.
        long: whether so much work is ahead that compiling it pays.

    Raises:
        CaptureError: it cannot be recorded or compiled, or its record does something else.
    """
    graph = capture(function, state, inputs)
    with kept(graph.changed):
        check_agreement(function, graph, state, inputs)
    if not long or graph.keeps_by_mode:
        return graph
    program = graph.compiled(*state, *inputs)
    with kept(graph.changed):
        check_agreement(graph, program, state, inputs, reason=MISCOMPILED)
    return program


def check_agreement(
    expected: Program,
    found: Program,
    state: Sequence[Tensor],
    inputs: Sequence[Tensor],
    *,
    reason: str = NOT_REPEATED,
    tolerance: float = 1e-3,
) -> None:
    """Do both to copies of ``state``, from the same random numbers.

    Args:
        expected: the program.
        found: what is to stand in its place.
        state: tensors that they may change in place.
        inputs: tensors that they only read.
        reason: what to say if they part.
        tolerance: how far they may part by rounding, of the largest number that comes out.

    Raises:
        CaptureError: their outputs part by more than rounding.
    """
    outputs = []
    for function in (expected, found):
        with seeded(1, inputs[0].device):  # others than those of the recording, which may have stayed in it
            outputs.append(function(*(copied(tensor) for tensor in state), *inputs))
    if len(outputs[0]) != len(outputs[1]):
        raise CaptureError(reason)
    scale = max(float(value.nan_to_num(0.0, 0.0, 0.0).abs().max()) for value in outputs[0] if value.numel())
    for ours, theirs in zip(*outputs, strict=True):
        if not torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance * scale, equal_nan=True):
            raise CaptureError(reason)


@contextlib.contextmanager
def kept(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Tensors are afterwards what they were."""
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)


def copied(tensor: Tensor) -> Tensor:
    """A copy with the same strides, as compiled code needs it: torch's own is dense where a tensor is a slice of another."""
    span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    if span <= tensor.numel() or not tensor.numel():
        return tensor.clone()
    whole = tensor.detach().as_strided((span,), (1,)).clone()
    return whole.as_strided(tensor.shape, tensor.stride(), 0)


class Exchanged(TorchFunctionMode):
    """Inside, torch sees other tensors in place of some, wherever a program holds them; the program sees its own.

    Args:
        originals: tensors that the program holds, in modules, in closures, in Pyro's store.
        others: what torch sees in their place.
    """

    def __init__(self, originals: Sequence[Tensor], others: Sequence[Tensor]) -> None:
        super().__init__()
        self.there = {id(original): other for original, other in zip(originals, others, strict=True)}
        self.back = {id(other): original for original, other in zip(originals, others, strict=True)}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function of torch with the others; what it changed in place comes back as the program's own."""
        args, kwargs = tree_map_only(Tensor, lambda tensor: self.there.get(id(tensor), tensor), (args, kwargs or {}))
        result = func(*args, **kwargs)
        return self.back.get(id(result), result) if isinstance(result, Tensor) else result


class CudaGraph:
    """A program on CUDA as one launch, replayed on the same memory; random numbers go on from replay to replay.

    Args:
        program: of ``(*state, *inputs)``; it changes ``state`` in place.
        state: tensors that stay where they are.
        inputs: examples of those that are given anew at every call.
    """

    def __init__(self, program: Program, state: Sequence[Tensor], inputs: Sequence[Tensor]) -> None:
        self.inputs = [tensor.clone() for tensor in inputs]
        before = [tensor.clone() for tensor in state]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with seeded(0, inputs[0].device), torch.cuda.stream(stream):
            program(*state, *self.inputs)  # what is allocated or chosen at a first call must not be captured
        torch.cuda.current_stream().wait_stream(stream)
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outputs = program(*state, *self.inputs)

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Run it on these inputs; the outputs are overwritten by the next call."""
        for fixed, value in zip(self.inputs, inputs, strict=True):
            fixed.copy_(value, non_blocking=True)
        self.graph.replay()
        return self.outputs


class _LastSite(Messenger):
    """Remembers at which site of a program its recording stopped."""

    name = ""

    def _pyro_post_sample(self, msg: Any) -> None:
        self.name = msg["name"]

    def __str__(self) -> str:
        return f"after the site {self.name!r}, " if self.name else ""


class _Deferred(TorchFunctionMode):
    """Answers questions about values that Pyro asks to log them or to save work, and torch to check them, without knowing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.__bool__ and _asked_by("torch.distributions.distribution"):
            return True  # a distribution that was made to check its arguments; the eager step found them valid
        if func is torch.Tensor.item and _asked_by_pyro():
            return args[0].detach()
        if func is torch.Tensor.masked_select and _asked_by_pyro():
            return torch.where(args[1], args[0], 0.0)  # summed afterwards
        if func is torch.Tensor.__bool__ and _caller().f_code is warn_if_nan.__code__:
            return False
        if func in LEAVING:
            refuse_leaving(args[0])
        if func is torch.nn.functional.one_hot:
            return _one_hot(*args, **(kwargs or {}))
        if func is torch.Tensor.register_hook and args[1].__module__ == warn_if_nan.__module__:
            return None  # of a loss, whose gradient is to be looked at
        return func(*args, **(kwargs or {}))


def _one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Torch's, where the number of classes is told without a look whether all are below it: rows of others are zero."""
    if num_classes < 0:
        return torch.nn.functional.one_hot(tensor)
    return (tensor[..., None] == torch.arange(num_classes, device=tensor.device)).long()


@contextlib.contextmanager
def _as_if_traced() -> Iterator[None]:
    """Pyro, and no other library, takes the branches that it has for ``torch.jit.trace``."""
    with mock.patch.object(torch._C, "_get_tracing_state", _asked_by_pyro), _Deferred():
        yield


def _asked_by_pyro() -> bool:
    """Whether the caller of the calling torch function is part of Pyro."""
    return _asked_by("pyro.")


def _asked_by(modules: str) -> bool:
    """Whether the caller of the calling torch function is in a module whose name starts so."""
    return str(_caller().f_globals.get("__name__", "")).startswith(modules)


def _caller() -> FrameType:
    """The frame that called the calling torch function."""
    frame = sys._getframe(1)
    while frame.f_code.co_name in ("__torch_function__", "_asked_by_pyro", "_asked_by") and frame.f_back is not None:
        frame = frame.f_back
    return frame
