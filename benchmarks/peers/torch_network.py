"""The network and the batches as a user of plain PyTorch writes them; the torch-based peers share them."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from benchmarks.peers.task import MIN_SCALE, Size, Task

__all__ = ["Decoder", "Encoder", "count", "loader", "mlp"]


def mlp(*widths: int) -> nn.Sequential:
    """Affine maps with ReLU between them."""
    maps = [[nn.Linear(inputs, outputs), nn.ReLU()] for inputs, outputs in itertools.pairwise(widths)]
    return nn.Sequential(*itertools.chain(*maps))[:-1]


class Encoder(nn.Module):
    """x ``(B, D)`` to mean and standard deviation of q(z | x), ``(B, K)`` each."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.layers = mlp(size.data, size.hidden, 2 * size.latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both moments."""
        loc, raw_scale = self.layers(x).chunk(2, dim=-1)
        return loc, softplus(raw_scale) + MIN_SCALE


class Decoder(nn.Module):
    """The latent z ``(B, K)`` to logits of x, ``(B, D)``."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.layers = mlp(size.latent, size.hidden, size.data)

    def forward(self, z: Tensor) -> Tensor:
        """The logits."""
        return self.layers(z)


def count(*modules: nn.Module) -> int:
    """Numbers that are trained."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def loader(task: Task) -> DataLoader:
    """A ``DataLoader`` of float32 rows in main memory, shuffled anew every epoch, in the order that ours has on a CPU."""
    rows = TensorDataset(torch.from_numpy(task.x).float())
    order = RandomSampler(rows, generator=torch.Generator().manual_seed(0))
    return DataLoader(rows, task.size.batch, sampler=order, pin_memory=task.device == "cuda")
