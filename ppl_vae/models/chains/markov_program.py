"""The program of a Markov chain of tokens.

for n in 1..N:
x_t | x_(t-k), ..., x_(t-1) ~ Categorical(table[context])
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from ppl_vae.models.chains.contexts import ContextCounts, Seen, context_codes, counted
from ppl_vae.models.chains.rows import RowProgram, row_blocks
from ppl_vae.program.hooks import Start
from ppl_vae.program.quantities import TOKEN, Chart, Quantity
from ppl_vae.types import DataSpec

__all__ = ["MarkovProgram"]


MOST = 1000  # tokens in a picture


class MarkovProgram(RowProgram):
    """Tables of counts, the one of order k last; those of lower orders where these say how pseudo-counts are spread.

    Args:
        spec: of the data.
        order: k.
        levels: V.
        pseudo_counts: added to the count of a token, on average over all.
        shorter: whether they are spread as the chain of one order less says.
    """

    def __init__(self, spec: DataSpec, order: int, levels: int, *, pseudo_counts: float, shorter: bool) -> None:
        super().__init__(spec)
        self.tokens = True
        self.order, self.levels, self.mass = order, levels, pseudo_counts * levels
        self.tables = nn.ModuleList(ContextCounts(k, levels) for k in (range(order + 1) if shorter else [order]))

    @property
    def free_parameters(self) -> int:
        """All but one probability of each context that was seen."""
        return len(self._counts[-1].contexts) * (self.levels - 1)

    def log_density(self, x: Tensor, inside: Tensor) -> Tensor:
        """Log p of each row, in float64."""
        each = self._shares(x, [context_codes(x, k, self.levels) for k in self._orders]).log()
        return torch.where(inside, each, 0).sum(-1)

    @torch.no_grad()
    def log_prob(self, *batch: Tensor) -> Tensor:
        """Exact log p of each row in nats, ``(B,)``; minus infinity of a token that never followed, without pseudo-counts."""
        return self.log_density(*self.padded(*batch))

    def posterior(self, *batch: Tensor) -> Any:
        """Of nothing.

        Raises:
            ValueError: always.
        """
        raise ValueError("a Markov chain has no hidden states, so that rows have no codes: use HMM")

    @torch.no_grad()
    def continued(self, given: Tensor, length: Tensor, steps: int, *, end: int | None = None) -> Tensor:
        """What may follow given tokens, until each row has its end."""
        recent = self._recent(given.long(), length)
        drawn = []
        every = torch.arange(self.levels, device=given.device)
        over = torch.zeros_like(length, dtype=torch.bool)
        for _ in range(steps):
            contexts = [self._code(recent[:, self.order - k :])[:, None].expand(-1, self.levels) for k in self._orders]
            shares = self._shares(every.expand(len(given), -1), contexts)
            lost = shares.sum(1, keepdim=True) <= 0  # a context that no token followed
            token = torch.multinomial(torch.where(lost, 1.0, shares), 1)
            drawn.append(token)
            recent = torch.cat([recent, token], 1)[:, 1:]
            over |= token[:, 0] == end
            if end is not None and bool(over.all()):
                break
        return torch.cat(drawn, 1).to(given.dtype)

    def charts(self) -> dict[str, Chart]:
        """Of an order of 1 p(token | the one before), where there are not too many."""
        if self.order != 1 or self.levels > MOST:
            return {}
        shares = self._after(range(self.levels))
        return {"transitions": Chart(values=shares, rows="token", columns="next token", tokens=True)}

    def quantities(self) -> dict[str, Quantity]:
        """The tables of an order of 0 or 1, where there are not too many tokens; else how many contexts have one."""
        if self.order > 1 or self.levels > MOST:
            numbers = torch.tensor([float(len(table.contexts)) for table in self._counts])
            labels = (tuple(f"order {order}" for order in self._orders),)
            note = f"how many were seen, each with counts of the {self.levels} tokens after it"
            return {"contexts": Quantity(values=numbers, axes=("order",), labels=labels, note=note)}
        if not self.order:
            return {"probability": Quantity(values=self._after([0])[0], axes=(TOKEN,))}
        transition = self._after(range(self.levels))
        return {
            "initial": Quantity(values=self._after([self.levels])[0], axes=(TOKEN,)),
            "transition": Quantity(values=transition, axes=(TOKEN, TOKEN), note="from a token (row) to the next"),
        }

    def closed_form(self, rows: Any) -> list[Seen]:
        """The counts of rows of a split, of each order.

        Raises:
            ValueError: a row of length 0.
        """
        blocks = list(row_blocks(self, rows))

        def parts(order: int) -> list[tuple[Tensor, Tensor, Tensor]]:
            found = []
            for block in blocks:
                x = block.x.long()
                weight = block.spread(torch.ones_like(x, dtype=torch.float64)[..., None])[:, 0]
                found.append((context_codes(x, order, self.levels)[block.inside], x[block.inside], weight))
            return found

        return [counted(parts(order), self.levels) for order in self._orders]

    def assign(self, parameters: list[Seen]) -> None:
        """Write counts into the tables."""
        for table, seen in zip(self._counts, parameters, strict=True):
            table.assign(seen)

    def start_fit(self, context: Start) -> None:
        """There is nothing to climb.

        Raises:
            ValueError: always.
        """
        raise ValueError("a Markov chain is fitted by counting and has nothing that SVI could climb: use ClosedForm")

    @property
    def _counts(self) -> list[ContextCounts]:
        return [cast(ContextCounts, table) for table in self.tables]

    @property
    def _orders(self) -> list[int]:
        return [table.order for table in self._counts]

    def _shares(self, tokens: Tensor, contexts: list[Tensor]) -> Tensor:
        """p(token | context), in float64."""
        found = torch.full(tokens.shape, 1 / self.levels, dtype=torch.float64, device=tokens.device)
        for table, codes in zip(self._counts, contexts, strict=True):
            found = table.shares(codes, tokens, found, self.mass)
        return found

    def _after(self, contexts: Iterable[int]) -> Tensor:
        """p(token | context) of contexts of a token at most, ``(C, V)``."""
        tokens = torch.arange(self.levels, device=self._counts[-1].contexts.device)
        context = torch.tensor(list(contexts), device=tokens.device)[:, None].expand(-1, self.levels)
        each = [context if order else torch.zeros_like(context) for order in self._orders]
        return self._shares(tokens.expand(len(context), -1), each)

    def _recent(self, x: Tensor, length: Tensor) -> Tensor:
        """The last k of given tokens ``(n, k)``, before their first one V."""
        padded = nn.functional.pad(x, (self.order, 0), value=self.levels)
        return padded.gather(1, length[:, None] + torch.arange(self.order, device=x.device))

    def _code(self, recent: Tensor) -> Tensor:
        code = recent.new_zeros(len(recent))
        for digit in recent.unbind(1):
            code = code * (self.levels + 1) + digit
        return code
