"""Where networks start: at the features under which the training data are likeliest, alike for all of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["likeliest_features"]

STEPS, STEP = 100, 0.3  # with which they are looked for


@torch.enable_grad()
def likeliest_features(likelihood: Any, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The features h ``(*shape)``, alike for all data x ``(N, *event)``, with about the highest log p(x | h).

    Climbed by a bounded number of steps of a bounded length, so that of an element that never varies they stay finite.
    """
    parameters = list(likelihood.parameters())
    kind = parameters[0].dtype if parameters else x.dtype if x.is_floating_point() else torch.get_default_dtype()
    h = x.new_zeros(shape, dtype=kind).requires_grad_()
    ascent = torch.optim.Adam([h], maximize=True)
    for step in range(STEPS):
        ascent.param_groups[0]["lr"] = STEP * (1 - step / STEPS)
        (h.grad,) = torch.autograd.grad(likelihood(h).log_prob(x).mean(), [h])
        ascent.step()
    return h.detach()
