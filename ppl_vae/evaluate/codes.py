r"""How codebooks are used: by how many codes, and how evenly.

.. math:: \text{perplexity} = \exp\Big(-\sum_k f_k \log f_k\Big), \qquad f_k = \text{the share of code } k

of all places of all data: of a batch, which holds few of the codes, it would be lower (van den Oord et al. 2017 tell it so).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ppl_vae.data import Split
from ppl_vae.evaluate.observed import ROWS_AT_ONCE
from ppl_vae.evaluate.rows import batches
from ppl_vae.program.capabilities import Quantized
from ppl_vae.program.context import evaluating
from ppl_vae.program.pair import Pair
from ppl_vae.program.sites import by_name

__all__ = ["code_counts", "code_numbers"]


@torch.no_grad()
def code_counts(pair: Pair, split: Split) -> dict[str, Tensor]:
    """How often each code is used at all places of all data ``(K,)`` int64, by the names of the grids; nothing of others."""
    model: Any = pair.model
    if not isinstance(model, Quantized) or pair.can.encode is None:
        return {}
    counts: dict[str, Tensor] = {}
    with evaluating(pair):
        for batch in batches(pair, split, ROWS_AT_ONCE):
            for name, codes in by_name(model.sites, pair.can.encode.posterior(*batch).mean).items():
                found = torch.bincount(codes.flatten(), minlength=model.codebook(name).size)
                counts[name] = counts[name] + found if name in counts else found
    return counts


def code_numbers(pair: Pair, split: Split) -> dict[str, float]:
    """Of a model of grids of codes, over all of a split; nothing of others.

    Args:
        pair: model and guide.
        split: the data.

    Returns:
        ``codes_used``, of ``codes``, and ``code_perplexity``; of several grids each with ``_`` and the name at its end. Of
        fewer places in all than there are codes the perplexity, which cannot be more than those, is left out.
    """
    numbers: dict[str, float] = {}
    counts = code_counts(pair, split)
    for name, found in counts.items():
        ending = f"_{name}" if len(counts) > 1 else ""
        numbers |= {f"codes_used{ending}": int((found > 0).sum()), f"codes{ending}": len(found)}
        if int(found.sum()) >= len(found):
            share = found.double() / found.sum()
            numbers[f"code_perplexity{ending}"] = torch.special.entr(share).sum().exp().item()
    return numbers
