"""Why an ELBO is loose: the family of q, or the encoder (Cremer, Li and Duvenaud 2018).

    log p(x) - L[q] = (log p(x) - L[q*]) + (L[q*] - L[q])
                    = approximation gap   + amortization gap

L[q] is the ELBO of the guide's q(z | x), and q* the best member of its family for x alone. Importance sampling from q* bounds
log p(x) too, and mostly tighter than from q.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from ppl_vae.data import Split
from ppl_vae.evaluate.bar import progress_bar
from ppl_vae.evaluate.batches import layout, pieces
from ppl_vae.evaluate.bounds import bounds, enumerated_elbo
from ppl_vae.evaluate.importance import importance_bound, pareto_k
from ppl_vae.evaluate.own_batches import OwnBatches
from ppl_vae.evaluate.rows import apart
from ppl_vae.evaluate.search import Gaps
from ppl_vae.program.capture import Compile
from ppl_vae.program.context import evaluating, seeded
from ppl_vae.program.pair import Pair, Plates, Programs
from ppl_vae.program.replay import Replay, replay

__all__ = ["Gaps", "local_bounds"]

CUTS = 3  # of the learning rate, after the last of which the search ends
CUT = 1 / 3
FEWEST_DRAWS = 100  # for the ELBO of what was found


def local_bounds(
    pair: Pair,
    split: Split,
    gaps: Gaps,
    *,
    known: Tensor,
    samples: int = 1,
    seed: int = 0,
    compile: Compile = "auto",
    progress: bool = False,
) -> dict[str, Tensor]:
    """Bounds on log p(x) of each datum from q*, the best q of the guide's family for it, by name, ``(N,)`` in float64.

    Args:
        pair: model and guide; the guide offers ``local``, ``at`` and ``draw``.
        split: the data, on the pair's device.
        gaps: how it is looked for.
        known: L[q], which it is where q is exact.
        samples: S of the bounds of what was found, 100 at least, where they have no closed form.
        seed: of the samples.
        compile: as of :func:`~ppl_vae.evaluate`.
        progress: whether a bar on standard error may tell how far it is.

    Returns:
        ``local_elbo``, L[q*]; ``local_iwae``, the importance-weighted bound of q*, and ``local_k_hat``, whether its weights are
        to be trusted, unless the model knows log p(x) or q* is summed over.

    Raises:
        ValueError: a guide without local parameters.
    """
    if pair.guide_facts.exact:
        return {"local_elbo": known}
    if pair.can.vary is None:
        raise ValueError(
            "the best q for each datum is looked for among a guide's `local` parameters, which this one does not tell: use a "
            "declared guide over latent variables, such as AmortizedNormal"
        )
    rows = layout(pair, split, gaps.samples).rows
    own = OwnBatches(pair, split, rows, seed=seed)
    draws = pieces(pair, split, max(samples, FEWEST_DRAWS), rows=rows)
    size = len(split) * math.prod(split.event_shape)
    climb = _Climb(pair, gaps, elements=size * gaps.samples * gaps.max_steps, compile=compile)
    measures = {count: _measure(pair, count, elements=size * sum(draws), compile=compile) for count in set(draws)}
    found: list[dict[str, Tensor]] = []
    with (
        evaluating(pair),
        seeded(seed, split.device),
        progress_bar("local q", len(own), shown=progress) as advance,
    ):
        for batch in own:
            pair.plates(*batch)
            best = climb(batch)
            found.append(_bounds(draws, [measures[count](*batch, *best) for count in draws]))
            advance(len(batch[0]))
    return own.gathered({name: torch.cat([columns[name] for columns in found]) for name in found[0]})


def _bounds(draws: tuple[int, ...], parts: list[list[Tensor]]) -> dict[str, Tensor]:
    """Columns of a batch, of what was measured with so many samples each: the ELBO, and log-weights if there are any."""
    elbos = [count * elbo.double() for count, (elbo, *_) in zip(draws, parts, strict=True)]
    columns = {"local_elbo": torch.stack(elbos).sum(0) / sum(draws)}
    if len(parts[0]) > 1:
        log_weights = torch.cat([weights.double() for _, weights in parts])
        columns |= {"local_iwae": importance_bound(log_weights), "local_k_hat": pareto_k(log_weights)}
    return columns


class _Climb:
    """Gradient ascent of the local parameters of one batch after another."""

    def __init__(self, pair: Pair, gaps: Gaps, *, elements: int, compile: Compile) -> None:
        self.pair = pair
        self.gaps = gaps
        self.step: Replay = replay(pair, ("climb", gaps.samples), self._gradients, elements=elements, compile=compile)

    def __call__(self, batch: tuple[Tensor, ...]) -> list[Tensor]:
        """The local parameters of q* ``(B, *)``."""
        gaps = self.gaps
        local = [parameter.detach().clone() for parameter in self.pair.guide.local(*batch)]
        optimizer = torch.optim.Adam(local, gaps.learning_rate)
        before, cuts = -math.inf, 0
        for _ in range(gaps.max_steps // gaps.window):
            elbo, mean = self._window(optimizer, local, batch)
            if elbo <= before + gaps.tolerance:
                cuts += 1
                optimizer.param_groups[0]["lr"] *= CUT
            if cuts == CUTS:
                break
            before = max(before, elbo)
        return mean

    def _window(
        self, optimizer: torch.optim.Optimizer, local: list[Tensor], batch: tuple[Tensor, ...]
    ) -> tuple[float, list[Tensor]]:
        """Mean ELBO and mean parameters of a window of steps."""
        window = self.gaps.window
        total, sums = local[0].new_zeros(()), [torch.zeros_like(parameter) for parameter in local]
        for _ in range(window):
            elbo, *gradients = self.step(*batch, *local)
            for parameter, gradient in zip(local, gradients, strict=True):
                parameter.grad = -gradient
            optimizer.step()
            total = total + elbo.mean()
            for of_parameter, parameter in zip(sums, local, strict=True):
                of_parameter += parameter
        return float(total) / window, [of_parameter / window for of_parameter in sums]

    def _gradients(self, *tensors: Tensor) -> list[Tensor]:
        """Of a batch and local parameters: the ELBO of each datum, and its gradients."""
        batch, given = apart(self.pair, tensors)
        local = [tensor.detach().requires_grad_() for tensor in given]
        with torch.enable_grad():
            elbo = _elbo(self.pair, batch, local, self.gaps.samples)
            gradients = torch.autograd.grad(elbo.sum(), local)
        return [elbo.detach(), *gradients]


def _measure(pair: Pair, samples: int, *, elements: int, compile: Compile) -> Replay:
    """Of a batch and local parameters: the ELBO of each datum, and the log-weights ``(S, B)`` where they tell more."""

    def measure(*tensors: Tensor) -> list[Tensor]:
        batch, local = apart(pair, tensors)
        if _summed(pair, batch) or pair.can.marginal is not None:
            return [_elbo(pair, batch, local, samples)]
        found = bounds(_at(pair, local), batch, samples=samples, weighted=True)
        assert found.log_weights is not None
        return [found.terms.elbo, found.log_weights]

    return replay(pair, ("local bounds", samples), measure, elements=elements, compile=compile)


def _elbo(pair: Pair, batch: tuple[Tensor, ...], local: Any, samples: int) -> Tensor:
    """The ELBO of each datum ``(B,)`` at local parameters."""
    if _summed(pair, batch):
        return enumerated_elbo(_at(pair, local), batch)
    return bounds(_at(pair, local), batch, samples=samples).terms.elbo


def _summed(pair: Pair, batch: tuple[Tensor, ...]) -> bool:
    """Whether q has finitely many values, which are summed over."""
    return pair.can.marginal is None and pair.plates(*batch).enumerated


def _at(pair: Pair, local: Any) -> Any:
    return _LocalPair(pair, local)


class _LocalPair:
    """A pair whose guide is the member of its family at given parameters, whatever the data."""

    def __init__(self, pair: Pair, local: Any) -> None:
        self.pair = pair
        self.model = pair.model
        self.mean_field = pair.mean_field
        self.guide = _LocalGuide(pair.guide, local)
        self.model_facts, self.guide_facts = pair.model_facts, pair.guide_facts
        self.can = dataclasses.replace(pair.can, encode=self.guide)
        self.programs = Programs(pair.programs.model, self.guide)

    def plates(self, *batch: Tensor) -> Plates:
        """Those of the pair."""
        return self.pair.plates(*batch)


class _LocalGuide:
    """A guide without its encoder."""

    def __init__(self, guide: Any, local: Any) -> None:
        self.guide = guide
        self.local = local

    def __call__(self, *batch: Tensor) -> Any:
        """Draw the latent variables of each datum."""
        return self.guide.draw(self.posterior(*batch), *batch)

    def posterior(self, *batch: Tensor) -> Any:
        """Q at the parameters."""
        return self.guide.at(*self.local)
