r"""Annealed importance sampling: from the prior to the posterior in many small steps (Neal 2001; Wu et al. 2017).

    p_t(u) ~ p(u) p(x | u)^b_t,   0 = b_0 < ... < b_T = 1
    u_0 ~ p(u),   u_t ~ HMC step that leaves p_t invariant,   log w = sum_t (b_t - b_(t-1)) log p(x | u_(t-1))

E[w] = p(x), so log of the mean of w bounds log p(x) from below. The same chain backwards, from a draw of p(u | x), bounds it
from above: bidirectional Monte Carlo (Grosse, Ghahramani and Adams 2015; Grosse, Ancha and Roy 2016).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ppl_vae.data import Split
from ppl_vae.evaluate.bar import Advance, progress_bar
from ppl_vae.evaluate.batches import layout
from ppl_vae.evaluate.chains import Chains, Work
from ppl_vae.evaluate.importance import importance_bound
from ppl_vae.evaluate.own_batches import OwnBatches
from ppl_vae.evaluate.rows import mean
from ppl_vae.evaluate.schedule import AIS
from ppl_vae.evaluate.unconstrained import Latents
from ppl_vae.program.capture import Compile
from ppl_vae.program.context import evaluating, seeded
from ppl_vae.program.pair import Pair

__all__ = ["AIS", "Annealed", "annealed"]

NOISE = 3.0  # standard errors of the chains' noise by which the ends of a sandwich are moved outwards


class Annealed(NamedTuple):
    """``columns`` ``(N,)`` in float64, by name, the ends of the sandwich, and what data those are of.

    That is how many, the first ones, and whether others were simulated in their places.
    """

    columns: dict[str, Tensor]
    sandwich: dict[str, float]
    sandwiched: int
    simulated: bool = False


def annealed(
    pair: Pair, split: Split, ais: AIS, *, seed: int = 0, compile: Compile = "auto", progress: bool = False
) -> Annealed:
    """Bounds on log p(x) that ask the model alone: annealed importance sampling, and the sandwich of bidirectional Monte Carlo.

    The sandwich needs a draw of p(z | x). Where the model knows its posterior it is of the split itself. Else it is of data
    simulated from the model, each with the z that it came from, and so about the mean of log p(x) under the model: that its
    ends are near each other says that ``ais`` is near log p(x) of such data. Both ends hold up to the noise of the chains, and
    are moved outwards by three standard errors of it.

    Args:
        pair: model and guide.
        split: the data, on the pair's device.
        ais: how it is annealed.
        seed: of the chains and of the simulated data.
        compile: as of :func:`~ppl_vae.evaluate`.
        progress: whether a bar on standard error may tell how far it is.

    Returns:
        Columns ``ais``, the lower bound, and ``ais_acceptance``, the share of trajectories accepted; the sandwich's ends
        ``bdmc_lower`` and ``bdmc_upper``; and how many rows those are of, or in whose places data were simulated. They lack the
        constant of the data's transform.

    Raises:
        ValueError: a latent variable that is discrete, has no real coordinates, or is shared by all data.
    """
    exact = pair.can.marginal is not None and pair.can.know_posterior is not None
    backward = ais.simulated > 0 and exact
    simulated = 0 if exact else min(ais.simulated, len(split))
    rows = layout(pair, split, ais.chains).rows
    own = OwnBatches(pair, split, rows, seed=seed)
    others = OwnBatches(pair, split[:simulated], min(rows, max(1, simulated)), seed=seed, stream=1)
    updates = ais.temperatures * ais.chains * ais.leapfrog * math.prod(split.event_shape)
    work = Work(pair, ais, updates * ((1 + backward) * len(split) + 2 * simulated), compile)
    count = ais.temperatures * ((1 + backward) * len(own) + 2 * len(others))
    with evaluating(pair), seeded(seed, split.device), progress_bar("annealing", count, shown=progress) as advance:
        columns = own.gathered(_joined([_of_batch(work, batch, advance, backward=backward) for batch in own]))
        sandwiched = columns if backward else {}
        if simulated:
            sandwiched = others.gathered(_joined([_of_simulated(work, batch, advance) for batch in others]))
    found = {"ais_acceptance": columns["ais_acceptance"], "ais": importance_bound(columns["log_weights"])}
    weights = split.arranged(pair.reads).weights if exact else None
    return Annealed(found, _sandwich(sandwiched, weights) if sandwiched else {}, len(split) if exact else simulated, not exact)


def _of_batch(work: Work, batch: tuple[Tensor, ...], advance: Advance, *, backward: bool) -> dict[str, Tensor]:
    """Log-weights ``(S, B)`` of a batch, those backwards from the exact posterior if wanted, and acceptances ``(B,)``."""
    chains = Chains(work, batch, advance)
    found = {"log_weights": chains.forward(), "ais_acceptance": chains.acceptance}
    if backward:
        z = work.pair.model.posterior(*batch).sample((work.ais.chains,))
        found["backward"] = chains.backward(chains.latents.placed(z))
    return found


def _of_simulated(work: Work, batch: tuple[Tensor, ...], advance: Advance) -> dict[str, Tensor]:
    """Log-weights ``(S, B)`` forwards and backwards of data simulated in a batch's place."""
    data, u = Latents(work.pair, batch, 1).simulated(batch)
    chains = Chains(work, data, advance)
    return {"log_weights": chains.forward(), "backward": chains.backward(u.expand(work.ais.chains, -1, -1))}


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts], -1) for name in parts[0]}


def _sandwich(parts: dict[str, Tensor], weights: Tensor | None = None) -> dict[str, float]:
    """Both ends as means over the data, moved outwards by the noise of the chains."""
    ends = []
    for name, sign in (("log_weights", 1), ("backward", -1)):
        log_weights = sign * parts[name]
        bound = importance_bound(log_weights)
        # The variance of the log of a mean of weights, to first order.
        variance = (log_weights - bound).exp().var(0) / len(log_weights)
        share = torch.full_like(bound, 1 / len(bound)) if weights is None else (weights / weights.sum()).to(bound)
        noise = NOISE * (share.square() * variance).sum().sqrt()
        ends.append(sign * (mean(bound, weights) - noise.item()))
    return {"bdmc_lower": ends[0], "bdmc_upper": ends[1]}
