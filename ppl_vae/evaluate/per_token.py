"""Numbers of rows of different lengths in nats per token."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from ppl_vae.data import Split
from ppl_vae.evaluate.rows import mean, standard_error
from ppl_vae.types import Score

__all__ = ["per_token"]

BOUNDS = ("elbo", "log_likelihood", "iwae", "ais")


def per_token(columns: dict[str, Tensor], split: Split, constant: float | Tensor, score: Score) -> dict[str, float]:
    r"""Of each bound the sum over the data by the number of their tokens; nothing where rows have one length.

    .. math:: r = \frac{\sum_i b_i}{\sum_i n_i}, \qquad
        \mathrm{se}(r) = \frac{1}{\bar n \sqrt N} \sqrt{\tfrac1N \sum_i (b_i - r n_i)^2}

    Of weighted rows all sums are weighted, and the standard error is that of the residuals' mean by their weights.

    Args:
        columns: bounds of each datum ``(N,)``, in the order of the split's rows.
        split: these rows.
        constant: the log-Jacobian of each datum.
        score: what ``elbo`` among the columns is; see :data:`ppl_vae.types.SCORES`.
    """
    if split.sizes is None:
        return {}
    tokens = split.sizes.double()
    weights = split.weights
    of_a_row = mean(tokens, weights)
    length = max(of_a_row, 1 / len(tokens))
    numbers: dict[str, Any] = {"tokens": of_a_row}
    for column in (name for name in BOUNDS if name in columns):
        name, values = score.name if column == "elbo" else column, columns[column] + constant
        ratio = mean(values, weights) / length
        rest = values - ratio * tokens
        # The mean of the rest is 0, and to rounding what is taken off.
        spread = rest.square().mean().sqrt().item() / len(rest) ** 0.5 if weights is None else standard_error(rest, weights)
        numbers |= {f"{name}_per_token": ratio, f"{name}_per_token_se": spread / length}
    bounds = [numbers[f"{name}_per_token"] for name in BOUNDS if f"{name}_per_token" in numbers]
    if bounds and split.transform.indices:
        known = numbers.get("log_likelihood_per_token")
        numbers["perplexity"] = math.exp(-(max(bounds) if known is None else known))
    return numbers
