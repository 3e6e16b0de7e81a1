"""A diffusion with a small residual U-Net in hand-written PyTorch (Kingma et al. 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, logsigmoid, silu

from benchmarks.peers.task import Size

__all__ = ["Denoising"]

STEPS, LOW, HIGH = 1000, 2 * math.log(1 / 3), 5.0
CHANNELS, EMBEDDED, OCTAVES = (16, 32, 32), 64, 7


class Block(nn.Module):
    """A residual block, told the time."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(before // 4 if before < 32 else 8, before), nn.Conv2d(before, after, 3, padding=1)
        self.time = nn.Linear(EMBEDDED, 2 * after)
        self.norm2, self.conv2 = nn.GroupNorm(after // 4 if after < 32 else 8, after), nn.Conv2d(after, after, 3, padding=1)
        self.shortcut = nn.Identity() if before == after else nn.Conv2d(before, after, 1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        """Of h and the embedded time."""
        scale, shift = self.time(time)[:, :, None, None].chunk(2, dim=1)
        found = self.norm2(self.conv1(silu(self.norm1(h)))) * (1 + scale) + shift
        return self.shortcut(h) + self.conv2(silu(found))


class UNet(nn.Module):
    """Three sizes."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c = CHANNELS
        self.time = nn.Sequential(nn.Linear(1 + 2 * OCTAVES, EMBEDDED), nn.SiLU())
        self.first = nn.Conv2d(1, a, 3, padding=1)
        self.down = nn.ModuleList([Block(a, a), Block(b, b), Block(c, c)])
        self.smaller = nn.ModuleList([nn.Conv2d(a, b, 3, 2, 1), nn.Conv2d(b, c, 3, 2, 1)])
        self.up = nn.ModuleList([Block(b + c, b), Block(a + b, a)])
        self.last = nn.Sequential(nn.GroupNorm(4, a), nn.SiLU(), nn.Conv2d(a, 1, 3, padding=1))
        nn.init.zeros_(self.last[-1].weight)
        nn.init.zeros_(self.last[-1].bias)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        """The noise in z ``(B, 1, H, W)`` at times ``(B,)``."""
        angles = t[:, None] * math.pi * 2.0 ** torch.arange(OCTAVES, device=t.device)
        time = self.time(torch.cat([2 * t[:, None] - 1, angles.sin(), angles.cos()], dim=-1))
        first = self.down[0](self.first(z), time)
        second = self.down[1](self.smaller[0](first), time)
        h = self.down[2](self.smaller[1](second), time)
        for block, skip in zip(self.up, (second, first), strict=True):
            h = block(torch.cat([skip, interpolate(h, size=skip.shape[-2:])], dim=1), time)
        return self.last(h)


class Denoising(nn.Module):
    """A batch of binary images to its negative ELBO, one step of each counted as all, in nats per datum."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.network = UNet()
        self.side = size.side

    def forward(self, x: Tensor) -> Tensor:
        """Noise of three times: none, one step's and all."""
        clean = 2 * x.reshape(-1, 1, self.side, self.side) - 1
        places = torch.arange(len(x), device=x.device) / len(x)
        t = ((torch.rand((), device=x.device) + places) % 1 * STEPS).ceil() / STEPS
        gamma_t, gamma_s = LOW + (HIGH - LOW) * t, LOW + (HIGH - LOW) * (t - 1 / STEPS)
        a, s = (torch.sigmoid(sign * gamma_t).sqrt()[:, None, None, None] for sign in (-1, 1))
        z = a * clean + s * torch.randn_like(clean)
        predicted = (z - s * self.network(z, t)) / a
        weight = torch.exp(-gamma_s) * -torch.expm1(gamma_s - gamma_t)
        steps = STEPS / 2 * (weight * (clean - predicted).square().sum((1, 2, 3))).sum()
        low, high = torch.tensor(LOW), torch.tensor(HIGH)
        var, share = torch.sigmoid(high), torch.sigmoid(-high)
        prior = ((var - 1 - var.log()) * clean.numel() + share * clean.square().sum()) / 2
        z_0 = torch.sigmoid(-low).sqrt() * clean + torch.sigmoid(low).sqrt() * torch.randn_like(clean)
        logits = 2 * torch.sigmoid(-low).sqrt() / torch.sigmoid(low) * z_0
        return (steps + prior - logsigmoid(clean * logits).sum()) / len(x)
