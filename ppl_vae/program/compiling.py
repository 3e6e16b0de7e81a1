"""Records of functions as machine code: what torch's compiler is told, what it makes, and where that is kept."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, fx

from ppl_vae.program.onednn import compiled_products
from ppl_vae.program.several_steps import Several, insert_loop
from ppl_vae.program.small_products import small_products

__all__ = ["VERSION", "CaptureError", "Library", "Program", "cache", "cheaper", "compile_into", "first_line", "spent"]

VERSION = 7  # of what is done here; a library that was compiled under another is not taken
SMALL = 2**18  # numbers that a graph is called with, below which its calls are counted and not its bytes
KEPT = 100  # compiled graphs on disk, about 2 MB each
# 2 artanh(sqrt(u)) / sqrt(u) for u from 0 to 1/9, highest power first: the Chebyshev fit, off by less than 9e-9.
TWICE_ARTANH = (0.28157778363109081, 0.27965157745197269, 0.40024595230703748, 0.66666321641377773, 2.0000000076817589)
# tanh(sqrt(u)) / sqrt(u) for u from 0 to 1/4, likewise, off by less than 2e-8.
TANH = (0.01713134443132676, -0.052984238828528, 0.133247505047911, -0.33333067944422556, 0.9999999867573895)
Program = Callable[..., list[Tensor]]
aten: Any = torch.ops.aten


class CaptureError(RuntimeError):
    """A function cannot be recorded or compiled; the message says why in one line."""


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


def cache() -> Path:
    """The folder of compiled graphs, ``$PPL_VAE_CACHE`` or ``~/.cache/ppl_vae/compiled``."""
    return Path(os.environ.get("PPL_VAE_CACHE") or "~/.cache/ppl_vae/compiled").expanduser()


def compile_into(file: Path, module: fx.GraphModule, inputs: tuple[Tensor, ...], several: Several | None = None) -> None:
    """Compile a record for tensors such as these into a library on disk; the oldest ones there go.

    Args:
        file: the library.
        module: the record.
        inputs: of it.
        several: of a step, where a loop over several finds what it reads.

    Raises:
        CaptureError: no compiler, or an operation that it does not know.
    """
    # Random numbers are drawn by torch, in the order in which the program draws them.
    options: dict[str, Any] = {
        "fallback_random": True,
        "reorder_for_peak_memory": False,
        "aot_inductor.package": True,
        "post_grad_custom_post_pass": cheaper,
        # One allocation a call for all that lies between: of small tensors many small ones take as long as the arithmetic.
        "memory_planning": sum(tensor.numel() for tensor in inputs) <= SMALL and all(each.is_cpu for each in inputs),
    }
    examples = tuple(tensor.detach() for tensor in inputs)
    level, began = logging.root.manager.disable, time.monotonic()
    logging.disable(logging.WARNING)  # torch warns of a CUDA toolkit without a device, and of operations not fused
    try:
        import torch._inductor as inductor
        from torch._inductor.codegen.cpp import CppScheduling
        from torch._inductor.exc import InductorError
        from torch._inductor.package import package_aoti

        if "aot_inductor.precompile_headers" in inductor.list_options():
            # They take 12 seconds to make, and only the fifth library has earned them; two compilers side by side are done as
            # soon without (findings/compilers_cache_leaves_its_headers_behind.sh).
            options["aot_inductor.precompile_headers"] = False
        file.parent.mkdir(parents=True, exist_ok=True)
        with (
            warnings.catch_warnings(action="ignore"),  # of torch's own use of what it deprecates
            torch.no_grad(),
            ThreadPoolExecutor(2, "compiler") as others,
            _instructions_found_by(others),
            _side_by_side(others, several),
            compiled_products(),
            small_products(),
            tempfile.TemporaryDirectory(dir=_plain_folder(file.parent), ignore_cleanup_errors=True) as folder,
        ):
            options["aot_inductor.output_path"] = folder
            try:
                parts: Any = inductor.aot_compile(module, examples, options=options)
            except InductorError as error:
                if "KeyError" not in str(error):
                    raise
                # Of some mixtures torch looks for a buffer that its fusion of outer loops has taken away.
                with mock.patch.object(CppScheduling, "can_fuse_vertical_outer_loop", return_value=False):
                    parts = inductor.aot_compile(module, examples, options=options)
            made = file.with_suffix(f".{os.getpid()}")
            shutil.move(str(package_aoti(str(Path(folder) / file.name), parts)), made)
            made.rename(file)
    except Exception as error:
        raise CaptureError(first_line(error)) from error
    finally:
        logging.disable(level)
        _seconds.append(time.monotonic() - began)
    for old in sorted(file.parent.glob("*.pt2"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
        old.unlink(missing_ok=True)


_seconds: list[float] = []  # that each library took


def spent() -> float:
    """Seconds that this process has spent compiling."""
    return sum(_seconds)


def _plain_folder(cache: Path) -> Path | None:
    """Where to compile: in the cache, or where its path is none for a compiler's command line, among the temporary files."""
    return cache if re.fullmatch(r"[\w./+@:=,~-]+", str(cache)) else None


@contextlib.contextmanager
def _instructions_found_by(others: ThreadPoolExecutor) -> Iterator[None]:
    """Let torch take the vector instructions that are looked for from here on, while it reads the record."""
    from torch._inductor import cpu_vec_isa

    found = others.submit(_instructions, cpu_vec_isa.valid_vec_isa_list)
    with mock.patch.object(cpu_vec_isa, "valid_vec_isa_list", found.result):
        yield


@contextlib.contextmanager
def _side_by_side(others: ThreadPoolExecutor, several: Several | None) -> Iterator[None]:
    """Let torch's two compilers of a library run at the same time: of its loops, and of the code that calls them.

    The latter takes the longer, mostly over code that is the same in every library. It gets a loop over ``several`` steps.
    """
    from torch._inductor import codecache

    calling: list[Future[None]] = []

    class Builder(codecache.CppBuilder):
        def build(self) -> None:
            target = Path(self.get_target_file_path())
            if target.name.endswith(".wrapper.o"):
                source = target.with_suffix(".cpp")
                if several is not None and source.exists():
                    source.write_text(insert_loop(source.read_text(), several))
                calling.append(others.submit(super().build))
                return
            if target.suffix == ".so":  # which is linked of both
                for each in calling:
                    each.result()
            super().build()

    with mock.patch.object(codecache, "CppBuilder", Builder):
        yield


def _instructions(every: Callable[[], list[Any]]) -> list[Any]:
    """The vector instructions that both the processor and the compiler know: of x86 the widest alone, which torch takes.

    Whether the compiler knows some torch finds out by compiling one to four files for each of them, once on a machine.
    """
    from torch._inductor import config, cpu_vec_isa

    if "ATEN_CPU_CAPABILITY" in os.environ or config.cpp.simdlen is not None:
        return every()
    flags = cpu_vec_isa.x86_isa_checker() if platform.machine() in ("x86_64", "AMD64") else []
    there = (isa for isa in cpu_vec_isa.supported_vec_isa_list if set(str(isa).split()) <= set(flags))
    widest = next((isa for isa in there if isa), None)
    return every() if widest is None else [widest]


def first_line(error: Exception) -> str:
    """What an error says first."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def cheaper(graph: fx.Graph) -> None:
    """Exchange operations of a compiler's graph for others that do the same with fewer passes over memory, on a CPU.

    An affine map ``b + x W`` is by default one call that first fills its output with copies of b, which the product then reads
    and adds to; apart, the sum goes into the loop that comes next, mostly an activation. Normal numbers are by default drawn
    into a copy of memory that was never written; they are drawn directly, the same ones. The sigmoid that is the gradient of
    ``log(1 + exp(-|x|))`` is made of the exponential that stands there already. ``log1p`` of an exponential and ``tanh`` of
    float32 become polynomials of an exponential, in less than half the time of torch's vector functions.

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
    for node in graph.find_nodes(op="call_function", target=aten.log1p.default):
        raised: Any = node.args[0]
        if raised.target is aten.exp.default and node.meta["val"].dtype == torch.float32 and _is_exact(node):
            with graph.inserting_before(node):
                _replace(node, _log_one_plus_exponential(graph, node, raised))
    for node in graph.find_nodes(op="call_function", target=aten.tanh.default):
        if node.meta["val"].dtype == torch.float32 and _is_exact(node) and node.args[0].meta["val"].dtype == torch.float32:
            with graph.inserting_before(node):
                _replace(node, _tanh_by_exponential(graph, node))
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


def _log_one_plus_exponential(graph: fx.Graph, node: fx.Node, raised: fx.Node) -> fx.Node:
    """``log(1 + exp(y)) = max(y, 0) + log(1 + e)``, ``e = exp(-|y|)``, which is ``2 artanh(s)`` with ``s = e / (2 + e)``.

    ``artanh(s) / s`` is a smooth function of s squared, which is at most a ninth: the polynomial is nearer to it than float32
    can tell, so the result keeps as many digits where e is small.
    """
    call = _calls_like(graph, node)
    y: Any = raised.args[0]
    small = y.target is aten.neg.default and y.args[0].target is aten.abs.default
    e = raised if small else call(aten.exp.default, call(aten.neg.default, call(aten.abs.default, y)))
    s = call(aten.div.Tensor, e, call(aten.add.Scalar, e, 2.0))
    found = call(aten.mul.Tensor, _polynomial(call, TWICE_ARTANH, call(aten.mul.Tensor, s, s)), s)
    return found if small else call(aten.add.Tensor, call(aten.clamp_min.default, y, 0.0), found)


def _tanh_by_exponential(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """``(1 - e) / (1 + e)`` with the sign of x, ``e = exp(-2 |x|)``; below 1/2, where 1 - e would lose digits, a polynomial."""
    call = _calls_like(graph, node)
    x: Any = node.args[0]
    value, magnitude = node.meta["val"], call(aten.abs.default, x)
    e = call(aten.exp.default, call(aten.mul.Scalar, magnitude, -2.0))
    far = call(aten.div.Tensor, call(aten.add.Scalar, call(aten.neg.default, e), 1.0), call(aten.add.Scalar, e, 1.0))
    below, near = call(aten.lt.Scalar, x, 0.0), call(aten.lt.Scalar, magnitude, 0.5)
    for question in (below, near):
        question.meta.update({**node.meta, "val": value.lt(0)})
    far = call(aten.where.self, below, call(aten.neg.default, far), far)
    return call(aten.where.self, near, call(aten.mul.Tensor, _polynomial(call, TANH, call(aten.mul.Tensor, x, x)), x), far)


def _calls_like(graph: fx.Graph, node: fx.Node) -> Callable[..., fx.Node]:
    """What adds a call to a graph whose value is like that of a node."""
    return lambda target, *args: _like(node, graph.call_function(target, args))


def _polynomial(call: Callable[..., fx.Node], coefficients: Sequence[float], u: fx.Node) -> fx.Node:
    """Of u, the highest power first."""
    first, second, *others = coefficients
    found = call(aten.add.Scalar, call(aten.mul.Scalar, u, first), second)
    for coefficient in others:
        found = call(aten.add.Scalar, call(aten.mul.Tensor, found, u), coefficient)
    return found


def _sigmoid_by_exponential(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """``e / (1 + e)`` below zero, else ``1 / (1 + e)``; a loop takes ``e = exp(-|x|)`` once, however often it stands there."""
    x: Any = node.args[0]
    value, call = node.meta["val"], _calls_like(graph, node)
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
