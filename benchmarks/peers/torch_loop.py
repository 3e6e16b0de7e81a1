"""Hand-written PyTorch: eager with ``torch.optim.Adam`` or compiled with the fused Adam, by a DataLoader or rows in memory.

The sum of the losses stays on the device and is read once an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.peers.structured.denoising import Denoising
from benchmarks.peers.structured.ladder import Ladder
from benchmarks.peers.structured.quantized import VQVAE
from benchmarks.peers.structured.recurrent import SketchRNN, TextVAE
from benchmarks.peers.task import LEARNING_RATE, Report, Size, Task, run_epochs
from benchmarks.peers.torch_network import Decoder, Encoder, InMemory, count, loader

__all__ = ["parameters", "train"]


class VAE(nn.Module):
    """A batch to its negative ELBO: one sample, closed-form KL, in nats per datum."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.encoder = Encoder(size)
        self.decoder = Decoder(size)

    def forward(self, x: Tensor) -> Tensor:
        loc, scale = self.encoder(x)
        z = loc + scale * torch.randn_like(scale)
        reconstruction = binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        kl = (loc.square() + scale.square() - 1).sum() / 2 - scale.log().sum()
        return (reconstruction + kl) / len(x)


class IWAE(VAE):
    """A batch to minus its importance-weighted bound (Burda, Grosse and Salakhutdinov 2016), in nats per datum."""

    def __init__(self, size: Size) -> None:
        super().__init__(size)
        self.samples = size.samples

    def forward(self, x: Tensor) -> Tensor:
        loc, scale = self.encoder(x)
        noise = torch.randn(self.samples, *scale.shape, device=x.device)
        z = loc + scale * noise
        logits = self.decoder(z)
        reconstruction = -binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)
        log_ratio = (noise.square() - z.square()).sum(-1) / 2 + scale.log().sum(-1)
        return math.log(self.samples) - (reconstruction + log_ratio).logsumexp(0).mean()


CASES: dict[str, Callable[[Size], nn.Module]] = {
    "text": TextVAE,
    "sketch": SketchRNN,
    "hvae": Ladder,
    "unet": Denoising,
    "vq": VQVAE,
}


def program(size: Size) -> nn.Module:
    """The loss that a row of the table asks for."""
    if size.case:
        return CASES[size.case](size)
    return IWAE(size) if size.samples > 1 else VAE(size)


def parameters(size: Size) -> int:
    """Numbers that are trained."""
    return count(program(size))


def train(task: Task, report: Report, *, compiled: bool = False, in_memory: bool = False) -> None:
    """Train as a careful user would."""
    torch.manual_seed(0)
    batches = InMemory(task) if in_memory else loader(task)
    vae = program(task.size).to(task.device)
    optimizer = torch.optim.Adam(vae.parameters(), lr=LEARNING_RATE, fused=compiled or None)
    objective = torch.compile(vae) if compiled else vae
    follow = getattr(vae, "follow", None)  # what learns without gradients
    if follow is not None and compiled:
        follow = torch.compile(follow)

    def epoch() -> float:
        total = torch.zeros((), device=task.device)
        for x, *length in batches:
            optimizer.zero_grad()
            loss = objective(x.to(task.device, non_blocking=True), *length)
            loss.backward()
            optimizer.step()
            if follow is not None:
                follow()
            total += loss.detach()
        return total.item() / task.size.steps

    run_epochs(task, report, epoch)
