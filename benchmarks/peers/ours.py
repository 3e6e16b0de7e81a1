"""Ours: a declared VAE through ``pv.fit``, an epoch being a row of the fit's history; as images where it is convolutional."""

from __future__ import annotations

import dataclasses
from typing import Any

import ppl_vae as pv
from benchmarks.peers.structured.declared import DECLARED, LOADED
from benchmarks.peers.task import LEARNING_RATE, Report, Size, Task, rows
from benchmarks.peers.torch_network import count
from ppl_vae.inference.training import step

__all__ = ["parameters", "train", "train_pair"]


def declared(size: Size) -> tuple[Any, Any]:
    """Model and guide."""
    if size.case:
        return DECLARED[size.case](size)
    network = pv.Conv(channels=size.channels) if size.channels else pv.MLP(hidden=(size.hidden,))
    return pv.VAE(latent_dim=size.latent, decoder=network), pv.AmortizedNormal(encoder=network)


def objective(size: Size) -> pv.Objective:
    """What is climbed."""
    return pv.IWAE(samples=size.samples) if size.samples > 1 else pv.ELBO()


def loaded(size: Size, x: Any) -> pv.Data:
    """The rows as they are, all of them to train on."""
    if size.case:
        return LOADED[size.case](size, x)
    shape = (1, size.side, size.side) if size.channels else (size.data,)
    return pv.load_data(x.reshape(-1, *shape), scale="none", valid=0.0, test=0.0)


def parameters(size: Size) -> int:
    """Numbers that are trained."""
    few = size if size.case else dataclasses.replace(size, rows=2)
    return count(pv.build(*declared(size), loaded(size, rows(few)).spec))


def train(task: Task, report: Report, **options: Any) -> None:
    """One fit; the next epoch begins when ``report`` returns."""
    if task.size.case and options["compile"]:
        options["compile"] = "auto"  # not all of them can be compiled; go the fastest way that a long fit would
        step.WORTH_RECORDING = step.WORTH_COMPILING = 1
    train_pair(task, report, *declared(task.size), **options)


def train_pair(task: Task, report: Report, model: Any, guide: Any, **options: Any) -> None:
    """The same of this model and guide."""
    options |= {"objective": objective(task.size), "batch_size": task.size.batch}
    method = pv.SVI(epochs=task.epochs, learning_rate=LEARNING_RATE, schedule="constant", **options)
    before = 0.0

    def progress(row: dict[str, Any]) -> None:
        nonlocal before
        seconds, before = row["seconds"] - before, row["seconds"]
        report(seconds, -row["objective"])

    pv.fit(model, loaded(task.size, task.x), guide=guide, method=method, device=task.device, progress=progress)
