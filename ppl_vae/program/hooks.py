"""How modules take part in a fit besides being run: the start hook, the finish hook, and what is written each epoch.

A module of a pair, at any depth, that has ``start_fit`` is asked for it once before its first step, and one that has
``finish_fit`` once after the last; children before their parents, the model's before the guide's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from ppl_vae.deprecation import warn_renamed

__all__ = [
    "Finish",
    "Finishing",
    "MedianWriting",
    "Phased",
    "Start",
    "Starting",
    "TrainingRows",
    "Waking",
    "finish",
    "median_writer",
    "phases",
    "start",
]


class TrainingRows(Protocol):
    """The training data as hooks may walk them; :class:`ppl_vae.Split` is one."""

    transform: Any
    weights: Tensor | None

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor, /) -> Self: ...

    @property
    def has_label(self) -> Tensor:
        """Which rows have a class ``(N,)``."""

    @property
    def total(self) -> float:
        """How many rows they count as, the sum of their weights; their number where they have none."""

    def transformed(self) -> Tensor:
        """What the model sees, ``(N, *event)``; drawn anew where the transform is noisy."""

    def blocks(self, batch_size: int, *, generator: torch.Generator, reads: tuple[str, ...]) -> Iterator[tuple[Tensor, ...]]:
        """One pass in random order: raw rows, the fields beside x that are read, and their order."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """What a module may look at to find where it starts.

    Attributes:
        model, guide: the halves of the pair, built.
        split: the training data.
        rows: the training data as matrices ``(B, D)`` in their order, walked anew at every pass; its ``weights (N,)`` are those
            of the rows, such that rows which count at all count once on average, ``None`` where all count alike.
        sample: rows from all over the training data as the model sees them, ``(R, *event)``; all of them if they are few.
        seed: of the fit.
    """

    model: Any
    guide: Any
    split: TrainingRows
    rows: Iterable[Tensor]
    sample: Tensor
    seed: int = 0

    def generator(self) -> torch.Generator:
        """A new generator of the fit's seed, on the device of the data; every module that asks gets one alike."""
        return torch.Generator(self.sample.device).manual_seed(self.seed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finish:
    """What a module may look at when the fit is over.

    Attributes:
        model, guide: the halves of the pair, fitted, in evaluation mode.
        batches: the training data as the model sees them, ``(B, *event)``, walked anew at every pass; its ``weights (N,)`` are
            those of the rows, ``None`` where all count once.
        lengths: how many elements each row has ``(N,)``, where rows differ in length.
    """

    model: Any
    guide: Any
    batches: Iterable[Tensor]
    lengths: Tensor | None = None


@runtime_checkable
class Starting(Protocol):
    """A module that knows a good start from the training data."""

    def start_fit(self, context: Start) -> None:
        """Write the start into its parameters and buffers."""
        ...


@runtime_checkable
class Waking(Protocol):
    """A module that has no effect until it is to be trained, also in a half that holds an earlier fit's parameters."""

    def wake(self) -> None:
        """Have one."""
        ...


@runtime_checkable
class Phased(Protocol):
    """A module that does other operations from some event on, of which no tensor tells.

    A record of one phase is none of the next.
    """

    @property
    def phase(self) -> int:
        """Which one it is in."""
        ...


@runtime_checkable
class Finishing(Protocol):
    """A module that has to learn something from the training data when all else is fitted."""

    def finish_fit(self, context: Finish) -> None:
        """Write it into its parameters and buffers."""
        ...


@runtime_checkable
class MedianWriting(Protocol):
    """A guide over parameters of the model, which hold its point estimates."""

    def write_medians(self) -> None:
        """Write the medians of q into the model; asked for after every epoch."""
        ...


def start(context: Start, warm: Iterable[str] = (), still: Iterable[nn.Module] = ()) -> None:
    """Let every module that knows a good start take it.

    Args:
        context: what they may look at.
        warm: halves, ``model`` or ``guide``, that hold an earlier fit's parameters and stay as they are.
        still: modules besides that stay as they are; what lies in them is asked all the same.
    """
    unasked = {id(module) for module in still}
    for module in (*context.model.modules(), *context.guide.modules()):
        if isinstance(module, Waking) and id(module) not in unasked:
            module.wake()
    kept = set(warm)
    seen = {id(module) for half in kept for module in _half(context, half).modules()}
    for half in ("model", "guide"):
        if half not in kept:
            for module in _children_first(_half(context, half), seen):
                if isinstance(module, Starting) and id(module) not in unasked:
                    module.start_fit(context)
            if id(_half(context, half)) not in unasked:
                _start_as_before(context, half)


def phases(module: nn.Module) -> tuple[int, ...]:
    """Which operations a module and those in it do, as far as they change."""
    return tuple(each.phase for each in module.modules() if isinstance(each, Phased))


def finish(context: Finish) -> None:
    """Let every module learn what it has to when all else is fitted."""
    seen: set[int] = set()
    for half in (context.model, context.guide):
        for module in _children_first(half, seen):
            if isinstance(module, Finishing):
                module.finish_fit(context)
    if isinstance(context.model, _FitCodes):
        _warn(context.model, "fit_codes", "finish_fit")
        context.model.fit_codes(context.guide.posterior(x).mean for x in context.batches)


def median_writer(guide: Any) -> Callable[[], None]:
    """What lets a guide over parameters write its point estimates into the model; for other guides nothing."""
    if isinstance(guide, MedianWriting):
        return guide.write_medians
    if isinstance(guide, _Settle):
        _warn(guide, "settle", "write_medians")
        return guide.settle
    return lambda: None


def _half(context: Start, name: str) -> nn.Module:
    half: nn.Module = getattr(context, name)
    return half


def _children_first(module: nn.Module, seen: set[int]) -> Iterator[nn.Module]:
    """The modules in a module that were not seen yet, and itself, last."""
    if id(module) in seen:
        return
    seen.add(id(module))
    for child in module.children():
        yield from _children_first(child, seen)
    yield module


# --- the hooks of the release before, of users' own programs


@runtime_checkable
class _CentreOn(Protocol):
    def centre_on(self, x: Tensor) -> None: ...


@runtime_checkable
class _Prepare(Protocol):
    def prepare(self, rows: Any, generator: torch.Generator) -> None: ...


@runtime_checkable
class _Initialize(Protocol):
    def initialize(self, *arguments: Any) -> None: ...


@runtime_checkable
class _FitCodes(Protocol):
    def fit_codes(self, codes: Iterable[Tensor]) -> None: ...


@runtime_checkable
class _Settle(Protocol):
    def settle(self) -> None: ...


@runtime_checkable
class _HasPrior(Protocol):
    prior: Any


def _start_as_before(context: Start, half: str) -> None:
    """Call what used to be the hooks of a half, with the arguments that they had."""
    program = _half(context, half)
    for module in program.modules():
        if isinstance(module, _CentreOn):
            _warn(module, "centre_on", "start_fit")
            module.centre_on(context.sample)
    if half == "model" and isinstance(program, _Prepare):
        _warn(program, "prepare", "start_fit")
        program.prepare(context.split, context.generator())
    if isinstance(program, _Initialize):
        _warn(program, "initialize", "start_fit")
        program.initialize(context.rows, context.generator() if half == "model" else context.model)
    if half == "model" and isinstance(program, _HasPrior) and isinstance(program.prior, _Initialize):
        _warn(program.prior, "initialize", "start_fit")
        program.prior.initialize(context.split)


def _warn(module: object, before: str, now: str) -> None:
    kind = type(module).__name__
    warn_renamed(f"{kind}.{before}", f"{kind}.{now}(context)" if now != "write_medians" else f"{kind}.{now}", stacklevel=4)
