"""The bounds of one batch after another: eager at first, then replayed from a record, compiled for long evaluations."""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Iterable

import pyro
from torch import Tensor, nn
from torch.func import functional_call

from ppl_vae.capture import CaptureError, Compile, Program, capture, check_agreement
from ppl_vae.evaluate.bounds import elbo_terms, log_weights
from ppl_vae.pair import Pair

__all__ = ["bounds_of_batches"]

WORTH_RECORDING = 4  # batches of one shape; recording one costs about as much as ten eager ones
WORTH_COMPILING = 2**31  # elements of the data, counted once for every sample


def bounds_of_batches(
    pair: Pair, batches: Iterable[tuple[Tensor, ...]], samples: int, *, compile: Compile, elements: int
) -> list[tuple[Tensor, ...]]:
    """ELBO, reconstruction and KL of each datum, and log p(x) where it is known or bounded more tightly; by batches.

    Args:
        pair: model and guide, in evaluation mode.
        batches: what the programs are called with, first x ``(B, *event)``.
        samples: S, samples of the latent variables per datum.
        compile: ``False`` stays eager; ``True`` compiles; ``auto`` does what pays.
        elements: of all batches and samples together.

    Raises:
        ValueError: it has to be compiled and cannot be.
    """
    records = _records.setdefault(pair, _Records())
    return [tuple(records(pair, batch, samples, compile, elements)) for batch in batches]


class _Bounds(nn.Module):
    """What is wanted of a batch, as a module: its parameters can be given from outside."""

    def __init__(self, pair: Pair, samples: int) -> None:
        super().__init__()
        self.pair = pair
        self.samples = samples

    def forward(self, *batch: Tensor) -> list[Tensor]:
        """Of a batch, first x ``(B, *event)``, tensors ``(B,)``."""
        terms = elbo_terms(self.pair, batch, samples=self.samples)
        if hasattr(self.pair.model, "log_prob"):
            return [*terms, self.pair.model.log_prob(*batch)]
        if self.samples == 1:
            return list(terms)
        log_w = log_weights(self.pair, batch, samples=self.samples)
        return [*terms, log_w.logsumexp(0) - math.log(self.samples)]


class _Records:
    """What was recorded of one pair, good for any values of its parameters and buffers; the pair itself is not held."""

    def __init__(self) -> None:
        self.seen: Counter = Counter()
        self.programs: dict[tuple, Program | None] = {}

    def __call__(self, pair: Pair, batch: tuple[Tensor, ...], samples: int, compile: Compile, elements: int) -> list[Tensor]:
        state = {**dict(pair.named_parameters("pair")), **dict(pair.named_buffers("pair"))}
        long = compile is True or elements >= WORTH_COMPILING
        inputs = tuple((part.shape, part.dtype, part.device) for part in batch)
        key = (inputs, tuple((name, tensor.dtype) for name, tensor in state.items()), samples, long)
        self.seen[key] += 1
        if compile is False or not (long or self.seen[key] > WORTH_RECORDING):
            return _Bounds(pair, samples)(*batch)
        if key not in self.programs:
            try:
                self.programs[key] = self._captured(pair, batch, samples, state, long)
            except CaptureError as error:
                if compile is True:
                    raise ValueError(f"this evaluation cannot be compiled ({error}): use compile='auto' or False") from None
                self.programs[key] = None
        program = self.programs[key]
        return program(*(tensor.detach() for tensor in state.values()), *batch) if program else _Bounds(pair, samples)(*batch)

    def _captured(self, pair: Pair, batch: tuple[Tensor, ...], samples: int, state: dict[str, Tensor], long: bool) -> Program:
        bounds = _Bounds(pair, samples)

        def function(*tensors: Tensor) -> list[Tensor]:
            values = dict(zip(state, tensors[: len(state)], strict=True))
            with pyro.validation_enabled(False):  # which looks at values
                return functional_call(bounds, values, tensors[len(state) :])

        tensors = [tensor.detach() for tensor in state.values()]
        pair.plates(*batch)
        graph = capture(function, tensors, list(batch))
        program = graph.compiled(*tensors, *batch) if long else graph
        check_agreement(function, program, tensors, list(batch))
        return program


_records: weakref.WeakKeyDictionary[Pair, _Records] = weakref.WeakKeyDictionary()
