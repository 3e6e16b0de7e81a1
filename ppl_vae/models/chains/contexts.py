"""How often tokens follow contexts, of which only those are stored that were seen.

A context is the k tokens before an element, written as one number in base V + 1, whose last digit is the latest token; before a
row's first element stands the digit V.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["ContextCounts", "Seen", "context_codes", "counted"]


class Seen(NamedTuple):
    """Contexts ``(C,)`` and how often each stood before a token; contexts with the token after them ``(M,)`` and how often.

    Both kinds of numbers rise.
    """

    contexts: Tensor
    totals: Tensor
    pairs: Tensor
    counts: Tensor


class ContextCounts(nn.Module):
    """A table of counts of one order, as large as what was seen.

    Args:
        order: k.
        levels: V.
    """

    contexts: Tensor
    totals: Tensor
    pairs: Tensor
    counts: Tensor

    def __init__(self, order: int, levels: int) -> None:
        super().__init__()
        self.order, self.levels = order, levels
        for name, dtype in zip(Seen._fields, (torch.int64, torch.float64) * 2, strict=True):
            self.register_buffer(name, torch.zeros(0, dtype=dtype))

    def assign(self, seen: Seen) -> None:
        """Take these counts."""
        for name, values in seen._asdict().items():
            setattr(self, name, values.to(self.contexts.device))

    def shares(self, contexts: Tensor, tokens: Tensor, base: Tensor, mass: float) -> Tensor:
        """p(token | context) ``(...)``: shares of the counts and of ``mass`` more that are spread as ``base`` says."""
        total = _found(self.contexts, self.totals, contexts)
        count = _found(self.pairs, self.counts, contexts * self.levels + tokens)
        return (count + mass * base) / (total + mass).clamp_min(torch.finfo(torch.float64).tiny)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """As many counts as were kept."""
        for name in Seen._fields:
            if (kept := state.get(prefix + name)) is not None:
                setattr(self, name, torch.zeros_like(kept, device=self.contexts.device))
        super()._load_from_state_dict(state, prefix, *rest)  # type: ignore[no-untyped-call]


def context_codes(x: Tensor, order: int, levels: int) -> Tensor:
    """The context of each element of tokens x ``(B, T)``, ``(B, T)``.

    Examples:
        >>> context_codes(torch.tensor([[1, 0, 1]]), 1, 2)  # 2 stands before the first
        tensor([[2, 1, 0]])
    """
    padded = nn.functional.pad(x, (order, 0), value=levels)
    code = torch.zeros_like(x)
    for place in range(order):
        code = code * (levels + 1) + padded[:, place : place + x.shape[1]]
    return code


def counted(parts: Iterable[tuple[Tensor, Tensor, Tensor]], levels: int) -> Seen:
    """The counts of contexts, tokens after them and weights, ``(M,)`` each, part by part."""
    pairs, counts = _summed([(context * levels + token, weight) for context, token, weight in parts])
    contexts, totals = _summed([(pairs // levels, counts)])
    return Seen(contexts, totals, pairs, counts)


def _summed(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Each number once, rising, and the sum of its weights."""
    each = []
    for code, weight in parts:
        found, place = code.unique(return_inverse=True)
        each.append((found, weight.new_zeros(len(found)).index_add_(0, place, weight)))
    return each[0] if len(each) == 1 else _summed([(torch.cat([code for code, _ in each]), torch.cat([w for _, w in each]))])


def _found(codes: Tensor, values: Tensor, wanted: Tensor) -> Tensor:
    """The value of each code, 0 of one that is not there."""
    if not len(codes):
        return torch.zeros(wanted.shape, dtype=torch.float64, device=wanted.device)
    place = torch.searchsorted(codes, wanted.contiguous()).clamp_max(len(codes) - 1)
    return torch.where(codes[place] == wanted, values[place], 0)
