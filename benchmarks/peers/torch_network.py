"""The network and the batches as a user of plain PyTorch writes them; the torch-based peers share them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from benchmarks.peers.structured.recurrent import collate
from benchmarks.peers.task import MIN_SCALE, Size, Task

__all__ = ["Decoder", "Encoder", "InMemory", "convolutions", "count", "loader", "mlp"]


def mlp(*widths: int) -> nn.Sequential:
    """Affine maps with ReLU between them."""
    maps = [[nn.Linear(inputs, outputs), nn.ReLU()] for inputs, outputs in itertools.pairwise(widths)]
    return nn.Sequential(*itertools.chain(*maps))[:-1]


def convolutions(size: Size) -> tuple[nn.Sequential, nn.Sequential]:
    """From rows to twice the latent variables and from these to rows, halving images and doubling them."""
    wide = (1, *size.channels)
    small = size.side // 2 ** len(size.channels)
    code = size.channels[-1] * small**2
    down = [[nn.Conv2d(a, b, 4, stride=2, padding=1), nn.ReLU()] for a, b in itertools.pairwise(wide)]
    up = [[nn.ReLU(), nn.ConvTranspose2d(a, b, 4, stride=2, padding=1)] for a, b in itertools.pairwise(wide[::-1])]
    encoder = [
        nn.Unflatten(-1, (1, size.side, size.side)),
        *itertools.chain(*down),
        nn.Flatten(),
        nn.Linear(code, 2 * size.latent),
    ]
    image = nn.Unflatten(-1, (size.channels[-1], small, small))
    return nn.Sequential(*encoder), nn.Sequential(nn.Linear(size.latent, code), image, *itertools.chain(*up), nn.Flatten())


class Encoder(nn.Module):
    """x ``(B, D)`` to mean and standard deviation of q(z | x), ``(B, K)`` each."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.layers = convolutions(size)[0] if size.channels else mlp(size.data, size.hidden, 2 * size.latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both moments."""
        loc, raw_scale = self.layers(x).chunk(2, dim=-1)
        return loc, softplus(raw_scale) + MIN_SCALE


class Decoder(nn.Module):
    """The latent z ``(..., B, K)`` to logits of x, ``(..., B, D)``; convolutions take no axis before B."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.layers = convolutions(size)[1] if size.channels else mlp(size.latent, size.hidden, size.data)

    def forward(self, z: Tensor) -> Tensor:
        """The logits."""
        return self.layers(z)


def count(*modules: nn.Module) -> int:
    """Numbers that are trained."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def loader(task: Task) -> DataLoader:
    """A ``DataLoader`` of float32 rows in main memory, shuffled anew every epoch, in the order that ours has on a CPU."""
    if task.size.longest:
        sequences = [torch.from_numpy(row) for row in task.x]
        order = RandomSampler(sequences, generator=torch.Generator().manual_seed(0))
        return DataLoader(sequences, task.size.batch, sampler=order, collate_fn=collate)
    rows = TensorDataset(torch.from_numpy(task.x).float())
    order = RandomSampler(rows, generator=torch.Generator().manual_seed(0))
    return DataLoader(rows, task.size.batch, sampler=order, pin_memory=task.device == "cuda")


class InMemory:
    """The same batches from one float32 tensor on the device; rows of different lengths padded to the longest of all."""

    def __init__(self, task: Task) -> None:
        self.length = None
        if task.size.longest:
            self.rows, self.length = collate([torch.from_numpy(row) for row in task.x])
        else:
            self.rows = torch.from_numpy(task.x).float().to(task.device)
        self.batch = task.size.batch
        self.generator = torch.Generator().manual_seed(0)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        order = torch.randperm(len(self.rows), generator=self.generator).to(self.rows.device)
        parts = (self.rows,) if self.length is None else (self.rows, self.length)
        return (tuple(part[chosen] for part in parts) for chosen in order.split(self.batch))
