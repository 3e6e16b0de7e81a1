"""What helps against posterior collapse: which remedies apply to the fit at hand and are not in use already."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from ppl_vae.fitting.callbacks.base import FitContext
from ppl_vae.guides import AmortizedNormal
from ppl_vae.inference.methods.stages import Stages
from ppl_vae.inference.methods.svi import SVI
from ppl_vae.inference.objectives import BetaELBO
from ppl_vae.nn import Network
from ppl_vae.priors import Prior, StandardNormal

__all__ = ["remedies"]


@runtime_checkable
class _Decoding(Protocol):
    """A declared model of a prior and a decoder."""

    prior: Prior
    decoder: Network


@runtime_checkable
class _Hiding(Protocol):
    """A declared network that can hide elements from those after them."""

    word_dropout: float


def remedies(context: FitContext) -> str:
    """What is left to try, as half a sentence."""
    model, guide, method = context.model, context.guide, context.method
    rows = context.pair.can.decode_rows is not None
    normal = guide if isinstance(guide, AmortizedNormal) else None
    staged = isinstance(method, Stages)
    svi = method if isinstance(method, SVI) else None
    objective = method.objective if method.objective is not None else BetaELBO()
    free = isinstance(objective, BetaELBO) and objective.frees
    hides = isinstance(model, _Decoding) and isinstance(model.decoder, _Hiding) and model.decoder.word_dropout == 0
    bounded = isinstance(model, _Decoding) and model.prior == StandardNormal() and normal is not None
    table = (
        (objective.ramp == 0, "warm the KL up (BetaELBO(warm_up=LinearWarmUp(...)))"),
        (not free, "ask for free_bits"),
        (normal is not None and normal.batch_norm_mean is None, "spread the guide's means (batch_norm_mean=0.5)"),
        (bounded and normal is not None and normal.takes_floor, "bound its scales (min_kl=2.0)"),
        (hides, "hide elements from the decoder (word_dropout=0.25)"),
        (rows and svi is not None and svi.encoder_steps == 1, "let the guide run ahead (alternate='steps', encoder_steps=10)"),
        (rows and not staged, "pretrain without a KL (Stages, BetaELBO(beta=0.0) first)"),
        (not rows, "weaken the decoder"),
    )
    *others, last = [told for applies, told in table if applies] or ["give z fewer dimensions"]
    return f"{', '.join(others)}, or {last}" if others else last
