"""Numbers of rows of different lengths in nats per token."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from ppl_vae.data import Split
from ppl_vae.types import Score

__all__ = ["per_token"]

BOUNDS = ("elbo", "log_likelihood", "iwae", "ais")


def per_token(columns: dict[str, Tensor], split: Split, constant: float | Tensor, score: Score) -> dict[str, float]:
    r"""Of each bound the sum over the data by the number of their tokens; nothing where rows have one length.

    .. math:: r = \frac{\sum_i b_i}{\sum_i n_i}, \qquad
        \mathrm{se}(r) = \frac{1}{\bar n \sqrt N} \sqrt{\tfrac1N \sum_i (b_i - r n_i)^2}

    Args:
        columns: bounds of each datum ``(N,)``, in the order of the split's rows.
        split: these rows.
        constant: the log-Jacobian of each datum.
        score: what ``elbo`` among the columns is; see :data:`ppl_vae.types.SCORES`.
    """
    if split.sizes is None:
        return {}
    tokens = split.sizes.double()
    mean = max(tokens.mean().item(), 1 / len(tokens))
    numbers: dict[str, Any] = {"tokens": tokens.mean().item()}
    for column in (name for name in BOUNDS if name in columns):
        name, values = score.name if column == "elbo" else column, columns[column] + constant
        ratio = values.mean().item() / mean
        spread = ((values - ratio * tokens) ** 2).mean().sqrt().item()
        numbers |= {f"{name}_per_token": ratio, f"{name}_per_token_se": spread / (mean * math.sqrt(len(tokens)))}
    bounds = [numbers[f"{name}_per_token"] for name in BOUNDS if f"{name}_per_token" in numbers]
    if bounds and split.transform.indices:
        known = numbers.get("log_likelihood_per_token")
        numbers["perplexity"] = math.exp(-(max(bounds) if known is None else known))
    return numbers
