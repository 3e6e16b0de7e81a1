"""What is done to a pair and a batch again and again: eager at first, then replayed from a record, compiled for long work."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Hashable

import pyro
from torch import Tensor

from ppl_vae.program.capture import CaptureError, Compile, Exchanged, Program, record
from ppl_vae.program.hooks import phases
from ppl_vae.program.pair import Pair

__all__ = ["Replay", "go_on_after", "replay"]

WORTH_RECORDING = 4  # calls of one shape; recording one costs about as much as ten eager ones
WORTH_COMPILING = 2**31  # elements of the data, counted once for every time that they are decoded


def replay(pair: Pair, name: Hashable, function: Callable[..., list[Tensor]], *, elements: int, compile: Compile) -> Replay:
    """``function``, called with tensors, the fastest way that pays; what was recorded of the pair before serves again.

    Args:
        pair: model and guide, in evaluation mode; ``function`` reads their parameters and buffers and changes none.
        name: what ``function`` is among those of this pair, with all that it knows besides its arguments.
        function: of tensors to a list of tensors.
        elements: of the data, once for every time that they are decoded in all the calls to come.
        compile: ``False`` stays eager; ``True`` compiles; ``auto`` does what pays.
    """
    return Replay(pair, name, function, compile is True or elements >= WORTH_COMPILING, compile)


def go_on_after(pair: Pair, calls: int) -> None:
    """Count calls that an earlier process made of each function of a pair, so that its numbers go on to the same bits."""
    _records.setdefault(pair, _Records()).before = calls


class Replay:
    """A function of tensors and of a pair's present parameters.

    Raises:
        ValueError: it has to be compiled and cannot be.
    """

    def __init__(self, pair: Pair, name: Hashable, function: Callable[..., list[Tensor]], long: bool, compile: Compile) -> None:
        self.pair = pair
        self.function = function
        self.long = long
        self.compile = compile
        self.originals = [*pair.parameters(), *pair.buffers()]
        self.state = [tensor.detach() for tensor in self.originals]
        names = [*dict(pair.named_parameters()), *dict(pair.named_buffers())]
        self.key = (name, tuple(zip(names, (tensor.dtype for tensor in self.state), strict=True)), long, phases(pair))
        self.records = _records.setdefault(pair, _Records())

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Call it with these tensors, first those of a batch's size or more."""
        if self.compile is False or self.pair.local:  # a record would hold the rows of one batch
            return self.function(*inputs)
        inputs = tuple(tensor.contiguous() for tensor in inputs)  # a record knows one layout
        key = (*self.key, tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in inputs))
        if key not in self.records.seen:
            self.records.seen[key] = self.records.before
        self.records.seen[key] += 1
        if self.compile is not True and self.records.seen[key] <= (1 if self.long else WORTH_RECORDING):
            return self.function(*inputs)
        if key not in self.records.programs:
            self.records.programs[key] = self._recorded(inputs)
        program = self.records.programs[key]
        return program(*self.state, *inputs) if program else self.function(*inputs)

    def _recorded(self, inputs: tuple[Tensor, ...]) -> Program | None:
        try:
            return self._captured(inputs)
        except CaptureError as error:
            if self.compile is True:
                raise ValueError(f"this evaluation cannot be compiled ({error}): use compile='auto' or False") from None
            return None

    def _captured(self, inputs: tuple[Tensor, ...]) -> Program:
        def function(*tensors: Tensor) -> list[Tensor]:
            state, others = tensors[: len(self.originals)], tensors[len(self.originals) :]
            with pyro.validation_enabled(False), Exchanged(self.originals, state):  # validation looks at values
                return self.function(*others)

        return record(function, self.state, list(inputs), long=self.long)


class _Records:
    """What was recorded of one pair, good for any values of its parameters and buffers; the pair itself is not held."""

    def __init__(self) -> None:
        self.seen: Counter[Hashable] = Counter()
        self.before = 0
        self.programs: dict[Hashable, Program | None] = {}


_records: weakref.WeakKeyDictionary[Pair, _Records] = weakref.WeakKeyDictionary()
