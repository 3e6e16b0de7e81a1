"""The update of parameters, divided between the processes of one machine.

    own gradients -> memory;  wait;  add up the own part;  update it;  own part -> memory;  wait;  take the others' parts

The parameters of an optimizer are one row of numbers, of which each process has a part. What is kept of each number lies in
memory that all processes see, so that each has all of it at hand. A step takes each number through memory twice, where messages
take it through several buffers and every process updates all.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from ppl_vae.program.processes import Processes

__all__ = ["Division"]

WORTH_DIVIDING = 2**18  # numbers from which common memory costs less than messages
TAIL = 4  # numbers in float64 behind each row: three sums, and the norm of a gradient


class Division:
    """Which part of an optimizer's parameters this process updates, and the memory in which it meets the others.

    Args:
        processes: who update them together.
        parameters: all that are updated, contiguous ones of float32 on a CPU.
        kept: how many tensors are kept for each of them.
        memory: zeros of :meth:`Processes.common_memory`: a row for the gradients of each process, one for the parameters, one
            for each that is kept; behind each row stand ``TAIL`` numbers in float64.
    """

    def __init__(self, processes: Processes, parameters: Sequence[nn.Parameter], kept: int, memory: Tensor) -> None:
        ends = list(accumulate((parameter.numel() for parameter in parameters), initial=0))
        part = processes.part(ends[-1])
        self.processes = processes
        self._places = {value: slice(*place) for value, place in zip(parameters, pairwise(ends), strict=True)}
        self._own = {value: self._overlap(place, part) for value, place in self._places.items()}
        count = processes.count
        self._gradients, self._values, self._kept = memory[:count], memory[count], memory[count + 1 :]
        self._tails = memory[:count, -2 * TAIL :].view(torch.float64)
        assert len(self._kept) == kept

    @classmethod
    def of(cls, processes: Processes, parameters: Sequence[nn.Parameter], kept: int) -> Division | None:
        """One of these parameters; ``None`` where they are too few or of other kinds, or where there is no such memory.

        Raises:
            LostProcessError: another process is gone.
        """
        numbers = sum(parameter.numel() for parameter in parameters)
        fit = all(value.dtype == torch.float32 and value.device.type == "cpu" and value.is_contiguous() for value in parameters)
        if processes.count == 1 or numbers < WORTH_DIVIDING or not fit:
            return None
        memory = processes.common_memory(processes.count + 1 + kept, numbers + numbers % 2 + 2 * TAIL)
        return None if memory is None else cls(processes, parameters, kept, memory)

    @staticmethod
    def _overlap(place: slice, part: slice) -> slice:
        """Which of the numbers at a place are of a part, counted from the first of the place."""
        return slice(*(min(max(at, place.start), place.stop) - place.start for at in (part.start, part.stop)))

    def own(self, parameter: nn.Parameter, tensor: Tensor) -> Tensor:
        """The own part, one row that may be empty, of a tensor of a parameter's shape."""
        return tensor.detach().view(-1)[self._own[parameter]]

    def kept(self, parameter: nn.Parameter, place: int) -> Tensor:
        """What is kept of a parameter, zeros at first: the tensor of that place, of its shape."""
        return self._kept[place, self._places[parameter]].view_as(parameter)

    @torch.no_grad()
    def sum_(self, parameters: Sequence[nn.Parameter], numbers: Tensor) -> None:
        """Add up the gradients of parameters, over the own part alone, and numbers ``(3,)``, over all processes.

        Raises:
            LostProcessError: another process is gone.
        """
        rank = self.processes.rank
        for parameter in parameters:
            row, found = self._gradients[rank, self._places[parameter]], _gradient(parameter).view(-1)
            for part in self._others(parameter):
                row[part].copy_(found[part])
        self._tails[rank, : len(numbers)].copy_(numbers)
        self.processes.wait()
        for parameter in parameters:
            rows = self._gradients[:, self._places[parameter]]
            first, *others = (row for other, row in enumerate(rows[:, self._own[parameter]]) if other != rank)
            # What was found may be another's tensor too, as of a sum of parameters.
            total = torch.add(self.own(parameter, _gradient(parameter)), first, out=rows[rank, self._own[parameter]])
            for row in others:
                total += row
            parameter.grad = rows[rank].view_as(parameter)
        numbers.copy_(self._tails[:, : len(numbers)].sum(0))

    def total(self, number: Tensor) -> Tensor:
        """The sum of a number ``()`` over all processes, between :meth:`sum_` and :meth:`share`.

        Raises:
            LostProcessError: another process is gone.
        """
        self._tails[self.processes.rank, -1] = number
        self.processes.wait()
        return self._tails[:, -1].sum().to(number.dtype)

    @torch.no_grad()
    def share(self, parameters: Sequence[nn.Parameter]) -> None:
        """Give the others the own part of parameters, and take theirs.

        Raises:
            LostProcessError: another process is gone.
        """
        for parameter in parameters:
            self.own(parameter, self._values[self._places[parameter]]).copy_(self.own(parameter, parameter))
        self.processes.wait()
        for parameter in parameters:
            row = self._values[self._places[parameter]]
            for part in self._others(parameter):
                parameter.view(-1)[part].copy_(row[part])

    def _others(self, parameter: nn.Parameter) -> list[slice]:
        """The parts of a parameter that other processes update."""
        own = self._own[parameter]
        return [part for part in (slice(0, own.start), slice(own.stop, parameter.numel())) if part.stop > part.start]


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
