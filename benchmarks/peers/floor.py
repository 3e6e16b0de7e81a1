"""What no step can do without: the matrix products of forward and backward, and one fused Adam. It learns nothing.

On CUDA a step is replayed as a CUDA graph, so that launching it costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.peers.task import LEARNING_RATE, Report, Size, Task, layers, run_epochs

__all__ = ["parameters", "train"]


def parameters(size: Size) -> int:
    """Numbers that Adam updates."""
    return sum((inputs + 1) * outputs for inputs, outputs in layers(size))


def products(task: Task) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Factors and where their product goes; every affine map's output, gradient of weights, and gradient of inputs but x's."""
    found = []

    def product(left: Tensor, right: Tensor) -> None:
        found.append((left, right, torch.empty(len(left), right.shape[1], device=task.device)))

    for place, (inputs, outputs) in enumerate(layers(task.size)):
        x, y, weight = (
            torch.randn(shape, device=task.device)
            for shape in ((task.size.batch, inputs), (task.size.batch, outputs), (outputs, inputs))
        )
        product(x, weight.T)
        product(y.T, x)
        if place > 0:
            product(y, weight)
    return found


def adam(task: Task) -> Callable[[], None]:
    """One update of all weights and biases."""
    shapes = [shape for inputs, outputs in layers(task.size) for shape in ((outputs, inputs), (outputs,))]
    values, gradients = ([torch.randn(shape, device=task.device) for shape in shapes] for _ in range(2))
    means, squares = ([torch.zeros(shape, device=task.device) for shape in shapes] for _ in range(2))
    steps = [torch.ones((), device=task.device) for _ in shapes]
    settings = {"beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0, "eps": 1e-8, "amsgrad": False, "maximize": False}
    return lambda: torch._fused_adam_(values, gradients, means, squares, [], steps, lr=LEARNING_RATE, **settings)


def train(task: Task, report: Report) -> None:
    """Repeat the step."""
    torch.manual_seed(0)
    factors, update = products(task), adam(task)

    def step() -> None:
        for left, right, out in factors:
            torch.mm(left, right, out=out)
        update()

    if task.device == "cuda":
        step = captured(step)
    synchronize = torch.cuda.synchronize if task.device == "cuda" else lambda: None

    def epoch() -> float:
        for _ in range(task.size.steps):
            step()
        synchronize()
        return math.nan

    run_epochs(task, report, epoch)


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """The step as a CUDA graph."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay
