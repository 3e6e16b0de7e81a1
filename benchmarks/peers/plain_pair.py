"""Ours of plain Pyro programs: those of ``pyro_svi`` as they are, with their ``pyro.module``, through ``pv.fit``."""

from __future__ import annotations

from typing import Any

import pyro

from benchmarks.peers.ours import train_pair
from benchmarks.peers.pyro_svi import VAE, parameters
from benchmarks.peers.task import Report, Task

__all__ = ["parameters", "train"]


def train(task: Task, report: Report, **options: Any) -> None:
    """One fit."""
    pyro.set_rng_seed(0)
    vae = VAE(task.size).to(task.device)
    train_pair(task, report, vae.model, vae.guide, **options)
