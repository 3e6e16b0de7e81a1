"""Run folders written: a fit with its numbers and pictures."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ppl_vae import plots
from ppl_vae.arguments import as_path
from ppl_vae.data import Data
from ppl_vae.data.fingerprint import fingerprints
from ppl_vae.fitting import Fit
from ppl_vae.fitting.described import describe, weights
from ppl_vae.fitting.fit import place
from ppl_vae.models import Model
from ppl_vae.program.processes import by_first
from ppl_vae.runs.pictures import run_pictures
from ppl_vae.storage import RunFolder, check_free
from ppl_vae.storage.swap import new_folder, replace_folder

__all__ = ["measure", "save_evaluation", "save_run"]


@by_first
def save_run(
    fit: Fit, data: Data, path: str | Path, *, metrics: Mapping[str, Any] | None = None, overwrite: bool = False
) -> Path:
    """Write a fit into a new run folder; it appears whole or not at all.

    A folder that ``fit(..., out=path)`` wrote gets what it has not: pictures and metrics.

    Args:
        fit: what :func:`ppl_vae.fit` returned, of a declared model.
        data: the data it was fitted to, for the pictures and the metrics.
        path: the folder.
        metrics: what :func:`measure` gave, if it was called already.
        overwrite: replace a run that is there.

    Raises:
        ValueError: the folder is taken, or the fit is of plain Pyro programs, which no YAML can name.
    """
    path = as_path(path)
    begun = _holds(path, fit)
    if not begun:
        check_free(path, overwrite=overwrite)
    if not isinstance(fit.model, Model):
        raise ValueError("a fit of plain Pyro programs has no declaration to save: keep fit.pair.state_dict() yourself")
    data = place(fit.model, data, fit.device)
    replace = partial(_add, fit=fit) if begun else partial(replace_folder, overwrite=overwrite)
    with new_folder(path, replace) as partial_folder:
        run = RunFolder(partial_folder)
        if not begun:
            run.begin(describe(fit, fingerprints(data.parts)))
            run.finish(weights(fit), fit.history)
        run.write(run.METRICS, metrics or measure(fit, data))
        run.write(run.ENVIRONMENT, _environment(fit.device))
        for name, figure in run_pictures(fit, data):
            plots.save(figure, run.picture(name))
    return path


@by_first
def save_evaluation(path: str | Path, content: Mapping[str, Any]) -> None:
    """Keep what was found about a run in its ``evaluation.json``, in place of what was found before."""
    RunFolder(path).write(RunFolder.EVALUATION, content)


def measure(fit: Fit, data: Data, *, samples: int = 1) -> dict[str, Any]:
    """What ``metrics.json`` holds: each held-out split's numbers, their unit, and what the fit cost.

    Of a model without data it is the numbers of the model itself, under ``train``.
    """
    held_out = {name: split for name, split in (("valid", data.valid), ("test", data.test)) if len(split)}
    splits = {"train": data.train} if isinstance(fit.model, Model) and fit.model.data_free else held_out
    return {
        **{name: fit.evaluate(split, samples=samples, summed="auto") for name, split in splits.items()},
        "unit": fit.unit,
        **({} if fit.without_latents is None else {"without_latents": fit.without_latents}),
        "iterations": len(fit.history),
        "seconds": fit.history[-1]["seconds"],
    }


def _holds(path: Path, fit: Fit) -> bool:
    """Whether a folder was written by this very fit as it went on."""
    run = RunFolder(path)
    going_on = run.has(run.SNAPSHOT) or not run.has(run.METRICS)  # methods that end at once keep no state
    if not (isinstance(fit.model, Model) and going_on and run.finished):
        return False
    same = (path / run.CONFIG).read_text(encoding="utf-8") == describe(fit)[run.CONFIG]
    kept, ours = run.weights() if same else {}, weights(fit)
    return kept.keys() == ours.keys() and all(torch.equal(value.cpu(), kept[name]) for name, value in ours.items())


def _add(new: Path, path: Path, *, fit: Fit) -> None:
    """Put the files of a folder into another that holds the same fit, the metrics last: a run that has them is finished."""
    if not _holds(path, fit):
        raise ValueError(f"{path} no longer holds this fit, another went on there: save it to another folder")
    for file in sorted(new.iterdir(), key=lambda file: file.name == RunFolder.METRICS):
        file.replace(path / file.name)
    new.rmdir()


def _environment(device: torch.device) -> dict[str, Any]:
    packages = ("ppl_vae", "torch", "pyro-ppl", "numpy", "safetensors", "jsonargparse")
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "versions": {name: _version(name) for name in packages},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
