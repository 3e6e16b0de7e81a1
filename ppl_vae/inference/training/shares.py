"""How processes share a step: each takes its part of the batch's rows, and the gradients of all add up.

    grad L = sum_r (B_r / B) grad L_r,   L the mean over the B rows of a batch, L_r that over the B_r rows of process r

Noise is drawn for all rows of the batch in every process, which takes that of its own rows: so all have the numbers that one
process has, and the generators of all stay alike. Where draws hang on the rows in a way that this cannot see, such as gamma
variables or dropout, each process draws from numbers of its own instead.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, overload

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ppl_vae.inference.training.optimizers import Optimizer
from ppl_vae.program.context import seeded
from ppl_vae.program.dispatch import DispatchMode
from ppl_vae.program.pair import Pair, Plates
from ppl_vae.program.processes import Processes
from ppl_vae.program.randomness import put_random, random_state
from ppl_vae.types import FitWarning

__all__ = ["Share", "Shares"]

Forward = Callable[..., tuple[Tensor, Tensor]]

aten = torch.ops.aten
FILLING = {  # a tensor in place, one number after another
    *(aten.normal_.default, aten.uniform_.default, aten.exponential_.default, aten.cauchy_.default),
    *(aten.log_normal_.default, aten.bernoulli_.float),
}
MAKING = {aten.rand.default: 0, aten.randn.default: 0, aten.randint.default: 1, aten.randint.low: 2}  # where their size stands
LIKE = {aten.rand_like.default, aten.randn_like.default}
BY_ELEMENT = {aten.bernoulli.default}  # one number for each element, whatever its value
NOTHING = contextlib.nullcontext()
AGREEMENT = 1e-3  # by how much of it the loss may differ that processes find together


class Share(NamedTuple):
    """What one process does of a batch.

    Attributes:
        part: which of its rows; ``None`` for all.
        rows: B, of the batch.
        weight: of what it finds in what all find.
    """

    part: slice | None
    rows: int
    weight: float

    @overload
    def of(self, value: Tensor) -> Tensor: ...

    @overload
    def of(self, value: Tensor | None) -> Tensor | None: ...

    def of(self, value: Tensor | None) -> Tensor | None:
        """The own rows of a field ``(B, ...)``."""
        return value if value is None or self.part is None else value[self.part]


class Shares:
    """The shares of the processes that take steps together; a lone process has all.

    Args:
        processes: who takes them.
        pair: model and guide, whose plate over the data tells which noise belongs to a row.

    Attributes:
        aligned: whether every row has the noise that it has in one process.
    """

    def __init__(self, processes: Processes | None = None, pair: Pair | None = None) -> None:
        self.processes = processes or Processes()
        self.pair = pair
        self.aligned = True

    @property
    def lone(self) -> bool:
        """Whether there is one process."""
        return self.processes.count == 1

    def of(self, rows: int) -> Share:
        """The share in a batch of so many rows; of fewer rows than processes each takes all, and counts by a part."""
        count = self.processes.count
        if count == 1 or rows < count:
            return Share(None, rows, 1 / count)
        part = self.processes.part(rows)
        return Share(part, rows, (part.stop - part.start) / rows)

    @contextlib.contextmanager
    def drawing(self, share: Share, batch: Sequence[Tensor]) -> Iterator[None]:
        """While an objective is computed on the own rows of a batch: noise is drawn for all of them.

        Raises:
            UnalignedError: what cannot be drawn so.
        """
        if share.part is None or not self.aligned or self.pair is None:
            yield
            return
        site = _Site(self.pair.plates(*batch))
        with site, _DrawnForAll(site, share.part, share.rows):
            yield

    def noise(self, device: torch.device) -> contextlib.AbstractContextManager[None]:
        """Around a step: where noise is not aligned, numbers of the own; the generators of all stay alike."""
        return NOTHING if self.lone or self.aligned else self._own_noise(device)

    @contextlib.contextmanager
    def _own_noise(self, device: torch.device) -> Iterator[None]:
        seed = int(torch.randint(2**62, ()))
        state = random_state(device)
        try:
            torch.manual_seed(seed + self.processes.rank)
            yield
        finally:
            put_random(state, device)

    def sum_(self, optimizer: Optimizer, numbers: Tensor, *, same: bool = False) -> None:
        """Add up the gradients that an optimizer's parameters hold, and numbers, each by its share, over all processes.

        A parameter that has a gradient in some processes alone has one in all afterwards; where all are known to have the
        ``same`` none is asked for others, and where the update is divided each process has the sums of its part alone.
        """
        if self.lone:
            return
        if same:
            if optimizer.division is not None:
                optimizer.division.sum_(optimizer.updated, numbers)
                return
            self.processes.sum_([*(value.grad for value in optimizer.updated if value.grad is not None), numbers])
            return
        parameters = optimizer.parameters
        found = [torch.zeros_like(value) if value.grad is None else value.grad for value in parameters]
        there = torch.tensor([value.grad is not None for value in parameters], dtype=numbers.dtype, device=numbers.device)
        self.processes.sum_([*found, numbers, there])
        for value, gradient, held in zip(parameters, found, there.tolist(), strict=True):
            value.grad = gradient if held else None

    def settle(self, forward: Forward, batch: tuple[Tensor, ...], buffers: Mapping[str, Tensor]) -> None:
        """Before the first step on a kind of batch: see how noise is drawn, and that the parts add up to the whole.

        Args:
            forward: from a batch to its loss, of all rows where it is told ``whole=True``.
            batch: the first of its kind.
            buffers: what a call may move; they are as before afterwards.

        Raises:
            ValueError: what is found of a batch is no mean over its rows, or a buffer follows the rows.
        """
        if self.lone:
            return
        device = batch[0].device
        before = [buffer.clone() for buffer in buffers.values()]
        try:
            with seeded(0, device):
                whole = forward(*batch, whole=True)[0].detach()
            _put(buffers, before)
            with seeded(0, device):
                loss = self._agreed(forward, batch)
            if loss is None:
                _put(buffers, before)
                with seeded(0, device), self.noise(device):
                    forward(*batch)
            self.processes.same_tensors(buffers, f"buffers that follow the rows of a batch, {ONE_PROCESS}:")
        finally:
            _put(buffers, before)
        if loss is not None and whole.isfinite():
            self.processes.sum_([loss])
            if not torch.isclose(loss, whole, rtol=AGREEMENT, atol=AGREEMENT):
                raise ValueError(
                    f"expected the loss of a batch to be the mean over its rows ({whole:.6g}), got {loss:.6g} of its parts in "
                    f"{self.processes.count} processes: it hangs on rows together, {ONE_PROCESS}"
                )

    def _agreed(self, forward: Forward, batch: tuple[Tensor, ...]) -> Tensor | None:
        """The loss of the own rows by aligned noise; ``None`` in all processes if one of them cannot align its own."""
        loss, told = None, ""
        if self.aligned:
            try:
                loss = forward(*batch)[0].detach().clone()
            except UnalignedError as error:
                told = str(error)
            failed = torch.tensor(loss is None, dtype=torch.int64)
            self.processes.sum_([failed])
            if failed:
                self.aligned = False
                warnings.warn(
                    f"each process draws noise of its own{told}: the fit's numbers are not those of one process, but as good",
                    FitWarning,
                    stacklevel=2,
                )
        return loss if self.aligned else None


ONE_PROCESS = "which several processes cannot share: fit in one process"


class UnalignedError(Exception):
    """Noise of which nobody knows which row it belongs to."""


class _Site(Messenger):
    """Which site of a program is being drawn."""

    def __init__(self, plates: Plates) -> None:
        super().__init__()
        self.plates = plates
        self.message: Any = None

    def _pyro_sample(self, msg: Any) -> None:
        self.message = msg

    def _pyro_post_sample(self, msg: Any) -> None:
        self.message = None

    @property
    def axis(self) -> int | None:
        """Where rows lie in what is drawn, counted from the right; ``None`` of a site that all rows share.

        Raises:
            UnalignedError: no site is being drawn.
        """
        if self.message is None:
            raise UnalignedError(" (the programs draw numbers outside of pyro.sample, as dropout does)")
        of_rows = not site_is_subsample(self.message) and self.plates.of_data(self.message)
        return self.plates.data_dim - self.message["fn"].event_dim if of_rows else None


class _DrawnForAll(DispatchMode):
    """Random numbers are drawn for all rows of a batch, and handed on for some."""

    def __init__(self, site: _Site, part: slice, rows: int) -> None:
        super().__init__()
        self.site, self.part, self.rows = site, part, rows

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags or (axis := self.site.axis) is None:
            return func(*args, **kwargs)
        if func in MAKING:
            place = MAKING[func]
            wide = func(*args[:place], self._wide(args[place], axis), *args[place + 1 :], **kwargs)
            return self._own(wide, axis)
        if func in FILLING:
            wide = args[0].new_empty(self._wide(args[0].shape, axis))
            return args[0].copy_(self._own(func(wide, *args[1:], **kwargs), axis))
        if func in LIKE:
            wide = args[0].new_empty(self._wide(args[0].shape, axis))
            return self._own(func(wide, *args[1:], **kwargs), axis)
        if func in BY_ELEMENT:
            self._wide(args[0].shape, axis)
            places = torch.arange(self.rows, device=args[0].device) - self.part.start
            wide = args[0].index_select(axis, places.clamp(0, args[0].shape[axis] - 1))
            return self._own(func(wide, *args[1:], **kwargs), axis)
        raise UnalignedError(f" (those of {self.site.message['name']} take more or fewer numbers by their parameters)")

    def _wide(self, shape: Sequence[int], axis: int) -> list[int]:
        """The shape of draws for all rows."""
        if len(shape) < -axis or shape[axis] != self.part.stop - self.part.start:
            raise UnalignedError(f" (those of {self.site.message['name']} do not lie row by row)")
        return [*shape[: len(shape) + axis], self.rows, *shape[len(shape) + axis + 1 :]]

    def _own(self, wide: Tensor, axis: int) -> Tensor:
        return wide.narrow(axis, self.part.start, self.part.stop - self.part.start)


@torch.no_grad()
def _put(buffers: Mapping[str, Tensor], values: Sequence[Tensor]) -> None:
    for buffer, value in zip(buffers.values(), values, strict=True):
        buffer.copy_(value)
