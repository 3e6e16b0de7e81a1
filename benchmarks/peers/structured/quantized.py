"""A VQ-VAE in hand-written PyTorch: gradients straight through, moving averages (van den Oord et al. 2017)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.peers.task import Size

__all__ = ["VQVAE"]

DECAY, COMMITMENT, RESTART = 0.99, 0.25, 100


class Residual(nn.Module):
    """h plus two convolutions of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 1))

    def forward(self, h: Tensor) -> Tensor:
        """Keep the shape."""
        return h + self.layers(h)


class VQVAE(nn.Module):
    """A batch of binary images to minus the bound, log p(x | k) + log p(k) of uniform codes, and the commitment."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.side, self.codes = size.side, size.components
        dim = size.latent
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 32, 4, 2, 1), nn.ReLU(), Residual(32), nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU(), Residual(64),
            nn.Conv2d(64, dim, 1),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Conv2d(dim, 64, 1), nn.ReLU(), Residual(64), nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU(), Residual(32),
            nn.ConvTranspose2d(32, 1, 4, 2, 1),
        )  # fmt: skip
        self.register_buffer("vectors", torch.empty(self.codes, dim).uniform_(-1 / self.codes, 1 / self.codes))
        self.register_buffer("sums", self.vectors.clone())
        self.register_buffer("counts", torch.ones(self.codes))
        self.register_buffer("idle", torch.zeros(self.codes))

    def forward(self, x: Tensor) -> Tensor:
        """Encode, quantize, decode."""
        images = x.reshape(-1, 1, self.side, self.side)
        outputs = self.encoder(images)
        rows = outputs.detach().permute(0, 2, 3, 1).reshape(-1, outputs.shape[1])
        codes = (self.vectors.square().sum(1) - 2 * rows @ self.vectors.T).argmin(1)
        height, width = outputs.shape[-2:]
        quantized = self.vectors[codes].reshape(-1, height, width, outputs.shape[1]).permute(0, 3, 1, 2)
        commitment = COMMITMENT * (outputs - quantized).square().sum()
        logits = self.decoder(outputs + (quantized - outputs).detach())
        self.seen = rows, codes
        nats = binary_cross_entropy_with_logits(logits, images, reduction="sum")
        return (nats + commitment) / len(x) + height * width * math.log(self.codes)

    @torch.no_grad()
    def follow(self) -> None:
        """Let the vectors follow the last batch, once its gradients are taken: compiled, they read the vectors again."""
        rows, codes = self.seen
        counts = torch.bincount(codes, minlength=self.codes).to(rows)
        self.counts.lerp_(counts, 1 - DECAY)
        self.sums.lerp_(torch.zeros_like(self.sums).index_add_(0, codes, rows), 1 - DECAY)
        self.vectors.copy_(self.sums / self.counts.clamp_min(1e-6)[:, None])
        idle = torch.where(counts > 0, 0.0, self.idle + 1)
        dead = (idle >= RESTART)[:, None]
        fresh = rows[torch.randint(len(rows), (self.codes,))]
        self.vectors.copy_(torch.where(dead, fresh, self.vectors))
        self.sums.copy_(torch.where(dead, fresh, self.sums))
        self.counts.copy_(torch.where(dead[:, 0], 1.0, self.counts))
        self.idle.copy_(torch.where(dead[:, 0], 0.0, idle))
