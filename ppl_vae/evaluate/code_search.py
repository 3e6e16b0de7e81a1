"""The most probable code of a datum behind white noise: MAP in z.

z = argmax  log p(z) + sum over known elements i of log N(y_i | E[x_i | z], v_i)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ppl_vae.evaluate.paths import unbounded
from ppl_vae.program.joint import Joint
from ppl_vae.program.pair import Pair
from ppl_vae.program.sites import by_name, tree

__all__ = ["denoised_by_code"]


def denoised_by_code(pair: Pair, y: Tensor, scale: Tensor, guesses: Tensor, *, steps: int, starts: int) -> Tensor:
    """E[x | z] at the most probable z of each datum, ``(B, *event)``, by L-BFGS (Nocedal 1980) from several starts.

    Args:
        pair: a fitted pair, whose parameters stay as they are.
        y: data with noise, ``(B, *event)`` as the model sees them, NaN where nothing is known.
        scale: standard deviation of the noise of each element, ``(*event)``.
        guesses: the data as the guide is shown them for the first start, ``(B, *event)``.
        steps: of the search, at most.
        starts: the posterior mean of the guesses, and as many draws from the prior as make this number.

    Raises:
        ValueError: latent variables that are no real numbers, or data given which p(z) or p(x | z) are.
    """
    codes = _starts(pair, guesses, starts)
    optimizer = torch.optim.LBFGS(list(codes.values()), max_iter=steps, line_search_fn="strong_wolfe")
    known, target = ~y.isnan(), y.nan_to_num()

    def losses() -> tuple[Tensor, Tensor]:
        """Less the log-density of each start and datum ``(S, B)``, and E[x | z]."""
        mean = pair.model_facts.decode(tree(codes)).mean
        misfit = ((mean - target) / scale).square().masked_fill(~known, 0.0) / 2
        return misfit.flatten(2).sum(2) - pair.model_facts.prior().log_prob(tree(codes)), mean

    def climb() -> float:
        loss = losses()[0].sum()
        for code, gradient in zip(codes.values(), torch.autograd.grad(loss, list(codes.values())), strict=True):
            code.grad = gradient
        return float(loss.detach())

    with torch.enable_grad():
        for code in codes.values():
            code.requires_grad_()
        optimizer.step(climb)
    with torch.no_grad():
        loss, mean = losses()
    return mean[loss.argmin(0), torch.arange(len(y), device=y.device)]


def _starts(pair: Pair, guesses: Tensor, starts: int) -> dict[str, Tensor]:
    """Codes by name, ``(S, B, *latent)``."""
    facts = pair.model_facts
    if facts.labelled or facts.known_entries is not None or facts.given_prior or pair.can.covary is not None:
        raise ValueError("expected a model of images alone to denoise by, got one that is conditioned on something: fit a VAE")
    p = facts.prior()
    supports: dict[str, Any] = p.support if isinstance(p, Joint) else {"z": p.support}
    if not supports or not all(map(unbounded, supports.values())):
        raise ValueError("expected latent variables that are real numbers to denoise by, got others: fit a VAE or a GMM")
    drawn = by_name(supports, p.sample((starts, len(guesses))))
    if pair.can.encode is not None:
        encoded = by_name(supports, pair.can.encode.posterior(guesses).mean)
        drawn = {name: torch.cat([encoded[name][None], value[1:]]) for name, value in drawn.items()}
    return {name: value.detach().clone() for name, value in drawn.items()}
