"""The ladder of three groups in hand-written PyTorch: numbers of x rise, groups are drawn going down (Sonderby et al. 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from benchmarks.peers.task import MIN_SCALE, Size

__all__ = ["Ladder"]

FEATURES = 128


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """One hidden layer."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.LeakyReLU(), nn.Linear(hidden, outputs))


class Ladder(nn.Module):
    """A batch to its negative ELBO: one sample, closed-form KLs, in nats per datum."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        wide, narrow = size.hidden, size.hidden // 2
        a, b, c = self.latents = (size.latent // 4, size.latent // 2, size.latent)
        self.up1 = mlp(size.data, wide, 2 * c + FEATURES)
        self.up2 = mlp(FEATURES, narrow, 2 * b + FEATURES)
        self.up3 = mlp(FEATURES, narrow, 2 * a)
        self.down2 = mlp(a, narrow, 2 * b + FEATURES)
        self.down1 = mlp(b + FEATURES, wide, 2 * c + FEATURES)
        self.decoder = mlp(c + FEATURES, wide, size.data)

    def forward(self, x: Tensor) -> Tensor:
        """Up, then down, a draw at each group."""
        a, b, c = self.latents
        loc1, raw1, h = self.up1(x).split([c, c, FEATURES], dim=-1)
        loc2, raw2, h = self.up2(h).split([b, b, FEATURES], dim=-1)
        loc3, raw3 = self.up3(h).split([a, a], dim=-1)
        scale3 = softplus(raw3) + MIN_SCALE
        z3 = loc3 + scale3 * torch.randn_like(scale3)
        kl = (loc3.square() + scale3.square() - 1).sum() / 2 - scale3.log().sum()
        z2, h, kl2 = merged(self.down2(z3), loc2, raw2)
        z1, h, kl1 = merged(self.down1(torch.cat([z2, h], dim=-1)), loc1, raw1)
        logits = self.decoder(torch.cat([z1, h], dim=-1))
        return (binary_cross_entropy_with_logits(logits, x, reduction="sum") + kl + kl2 + kl1) / len(x)


def merged(prior: Tensor, loc: Tensor, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A draw of the product of the prior and a normal of x, the features handed on, and the KL from the prior."""
    K = loc.shape[-1]
    prior_loc, prior_raw, features = prior.split([K, K, FEATURES], dim=-1)
    prior_variance, variance = (softplus(prior_raw) + MIN_SCALE).square(), (softplus(raw) + MIN_SCALE).square()
    total = prior_variance + variance
    q_loc, q_variance = (prior_loc * variance + loc * prior_variance) / total, prior_variance * variance / total
    z = q_loc + q_variance.sqrt() * torch.randn_like(q_loc)
    ratio = q_variance / prior_variance
    return z, features, (ratio + (q_loc - prior_loc).square() / prior_variance - 1 - ratio.log()).sum() / 2
