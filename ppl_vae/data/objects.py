"""Arrays of arrays out of pickled ``.npy`` members, as the published files of sketch-rnn hold them, without unpickling.

A pickle is a program: loading one calls what it names. Here its instructions are only read (``pickletools.genops``) and what
they describe is noted down: numbers, text, lists, tuples, and "this name called with these arguments". Nothing is imported and
nothing is called. Of the notes only one shape is understood, a list of numeric arrays as numpy writes them, and these are made
from their bytes.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from typing import IO, Any, NamedTuple

import numpy as np

from ppl_vae.memory import require_memory

__all__ = ["read_rows"]


class Name(NamedTuple):
    """A name that the pickle would import."""

    module: str
    name: str


class Called:
    """What the pickle would call, with which arguments, and the state that it would give to the result."""

    def __init__(self, what: Any, arguments: Any) -> None:
        self.what = what
        self.arguments = arguments
        self.state: Any = None


NUMPY = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
RECONSTRUCT = {Name(module, "_reconstruct") for module in NUMPY}
ARRAY, DTYPE, ENCODE = Name("numpy", "ndarray"), Name("numpy", "dtype"), Name("_codecs", "encode")
KNOWN = {*RECONSTRUCT, ARRAY, DTYPE, ENCODE}
CODES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
MARK = object()


def read_rows(file: IO[bytes], shape: tuple[int, ...], name: str) -> list[np.ndarray]:
    """The arrays of a pickled array of objects ``(N,)``, each of numbers.

    Args:
        file: at the pickle, after the header of the ``.npy`` member.
        shape: what the header says.
        name: for messages.

    Raises:
        ValueError: another shape, an object that is no numeric array, a pickle that would call anything else.
    """
    if len(shape) != 1:
        raise ValueError(f"{name}: expected a list of arrays as objects, (N,), got objects of shape {shape}")
    try:
        top = _noted(file)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, StopIteration, OverflowError) as error:
        raise ValueError(f"{name}: expected arrays of numbers, got pickled objects that are none: {str(error)[:200]}") from None
    cells = _cells(top)
    if cells is None or len(cells) != shape[0]:
        raise ValueError(f"{name}: expected {shape[0]} arrays of numbers, got pickled objects of another kind")
    found = [_array(cell, f"{name}, row {place} (from 0)") for place, cell in enumerate(cells)]
    require_memory(sum(array.nbytes for array in found), name)
    return found


def _noted(file: IO[bytes]) -> Any:
    """What the instructions describe."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    for code, argument, _ in pickletools.genops(file):
        name = code.name
        if name in ("STOP", "PROTO", "FRAME"):
            continue
        if name in PUSHED:
            stack.append(PUSHED[name](argument))
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument)])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[int(argument)] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        else:
            _built(name, stack)
    (top,) = stack
    return top


PUSHED: dict[str, Callable[[Any], Any]] = {
    "MARK": lambda _: MARK,
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_TUPLE": lambda _: (),
    "EMPTY_LIST": lambda _: [],
    "GLOBAL": lambda argument: _known(Name(*argument.split(" ", 1))),
    **dict.fromkeys(("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2"), int),
    **dict.fromkeys(
        ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), str
    ),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"), bytes),
}
"""What an instruction puts on the stack that holds all it needs; text of Python 2 is bytes, one a letter."""


def _built(name: str, stack: list[Any]) -> None:
    """An instruction that takes things from the stack and puts what it makes of them there."""
    if name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        size = int(name[-1])
        stack[-size:] = [tuple(stack[-size:])]
    elif name == "TUPLE":
        stack.append(tuple(_marked(stack)))
    elif name == "LIST":
        stack.append(_marked(stack))
    elif name == "APPEND":
        item = stack.pop()
        _listed(stack).append(item)
    elif name == "APPENDS":
        items = _marked(stack)
        _listed(stack).extend(items)
    elif name == "STACK_GLOBAL":
        names = stack[-2:]
        stack[-2:] = [_known(Name(*names))]
    elif name == "REDUCE":
        what, arguments = stack[-2:]
        stack[-2:] = [_encoded(arguments) if what == ENCODE else Called(what, arguments)]
    elif name == "BUILD":
        stack[-2].state = stack[-1]
        stack.pop()
    else:
        raise ValueError(f"the instruction {name}, which no array of numbers needs")


def _known(name: Name) -> Name:
    if name not in KNOWN:
        raise ValueError(f"it calls {name.module}.{name.name}, which is not done")
    return name


def _encoded(arguments: Any) -> bytes:
    """Bytes that Python 3 wrote for Python 2 as text."""
    text, how = arguments
    if how not in ("latin1", "latin-1"):
        raise ValueError(f"bytes in {how!r}")
    return str(text).encode("latin-1")


def _marked(stack: list[Any]) -> list[Any]:
    """What lies above the last mark, taken from the stack with it."""
    place = next(place for place in range(len(stack) - 1, -1, -1) if stack[place] is MARK)
    items = stack[place + 1 :]
    del stack[place:]
    return items


def _listed(stack: list[Any]) -> list[Any]:
    if not isinstance(stack[-1], list):
        raise ValueError("an entry for what is no list")
    return stack[-1]


def _cells(top: Any) -> list[Any] | None:
    """The objects of an array of objects."""
    if not _is_array(top):
        return None
    _, _, dtype, _, cells = top.state
    return cells if isinstance(cells, list) and _dtype(dtype, "objects") is None else None


def _is_array(noted: Any) -> bool:
    """Whether it was called for an array and given the state of one."""
    called = isinstance(noted, Called) and isinstance(noted.what, Name) and noted.what in RECONSTRUCT
    return called and isinstance(noted.state, tuple) and len(noted.state) == 5


def _array(cell: Any, name: str) -> np.ndarray:
    """A numeric array from its bytes."""
    told = f"{name}: expected an array of numbers, got"
    if not _is_array(cell):
        raise ValueError(f"{told} {type(cell).__name__}")
    _, shape, declared, fortran, data = cell.state
    dtype = _dtype(declared, name)
    data = data.encode("latin-1") if isinstance(data, str) else data
    plain = isinstance(shape, tuple) and all(isinstance(size, int) and size >= 0 for size in shape)
    if dtype is None or not plain or not isinstance(data, bytes) or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{told} other bytes than its shape says")
    return (np.frombuffer(data, dtype) if data else np.zeros(0, dtype)).reshape(shape, order="F" if fortran else "C")


def _dtype(declared: Any, name: str) -> np.dtype | None:
    """The dtype of numbers that is declared; none for objects.

    Raises:
        ValueError: another one.
    """
    if isinstance(declared, Called) and declared.what == DTYPE and isinstance(declared.arguments, tuple) and declared.arguments:
        code = declared.arguments[0]
        order = declared.state[1] if isinstance(declared.state, tuple) and len(declared.state) > 1 else "|"
        if code in ("O8", "O4", "O"):
            return None
        if code in CODES and order in ("<", ">", "|", "="):
            return np.dtype(order.replace("|", "=") + code)
    raise ValueError(f"{name}: expected numbers, got a dtype that is none of such")
