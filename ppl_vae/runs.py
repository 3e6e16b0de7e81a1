"""Run folders: what a fit leaves on disk, and the way back. Text, safetensors and pictures; nothing that executes.

=====================  ============================================================
``config.yaml``        the whole declaration; ``ppl-vae fit --config`` runs it again
``data.json``          what the data look like, so the pair is rebuilt without them
``model.safetensors``  parameters of model and guide, constants of the transform
``history.jsonl``      a line per iteration
``metrics.json``       ELBO, reconstruction and KL of each split
``environment.json``   versions, device, threads
``*.png``              the pictures
=====================  ============================================================
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from matplotlib.figure import Figure
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ppl_vae import plots
from ppl_vae.data import Data, DataSource, Split, Transform
from ppl_vae.declaration import Declaration
from ppl_vae.evaluate.metrics import UNIT
from ppl_vae.guides import Guide
from ppl_vae.inference import Comparison, Fit, Method, build
from ppl_vae.inference.machine import choose_device
from ppl_vae.inference.method import Row
from ppl_vae.models import Model
from ppl_vae.types import DataSpec

__all__ = ["check_free", "load_run", "measure", "save_comparison", "save_run"]

PARTS: dict[str, type[Declaration]] = {"model": Model, "guide": Guide, "method": Method, "data": DataSource}
AFFINE = ("loc", "scale")
NOISE = ("dequantize", "binarize")
SIGNATURES = {  # the files that tell a folder of ours from another
    "run": ("config.yaml", "data.json", "model.safetensors"),
    "comparison": ("comparison.json", "comparison.md", "comparison.png"),
}
MOST_CLASSES = 20  # in one picture
PICTURED = 2000  # data in the scatter of codes; more only cover each other


def save_run(
    fit: Fit, data: Data, path: str | Path, *, metrics: Mapping[str, Any] | None = None, overwrite: bool = False
) -> Path:
    """Write a fit into a new run folder; it appears whole or not at all.

    Args:
        fit: what :func:`ppl_vae.fit` returned, of a declared model.
        data: the data it was fitted to, for the pictures and the metrics.
        path: the folder.
        metrics: what :func:`measure` gave, if it was called already.
        overwrite: replace a run that is there.

    Raises:
        ValueError: the folder is taken, or the fit is of plain Pyro programs, which no YAML can name.
    """
    path = check_free(path, overwrite=overwrite)
    if not isinstance(fit.model, Model):
        raise ValueError("a fit of plain Pyro programs has no declaration to save: keep fit.pair.state_dict() yourself")
    data = data.resolve(fit.model.accepts).to(fit.device)
    with _whole(path) as partial:
        (partial / "config.yaml").write_text(config(fit), encoding="utf-8")
        _write_json(partial / "data.json", _described(fit))
        save_file(_state(fit), partial / "model.safetensors")
        with (partial / "history.jsonl").open("w", encoding="utf-8") as history:
            history.writelines(json.dumps(row) + "\n" for row in fit.history)
        _write_json(partial / "metrics.json", metrics or measure(fit, data))
        _write_json(partial / "environment.json", _environment(fit.device))
        for name, figure in _pictures(fit, data):
            plots.save(figure, partial / f"{name}.png")
    return path


def save_comparison(comparison: Comparison, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write ``comparison.json``, ``comparison.md`` and ``comparison.png`` into a new folder; it appears whole or not at all.

    The JSON file holds besides the table the declared model and data and every way up (``climbs``).

    Args:
        comparison: what :func:`ppl_vae.compare` returned.
        path: the folder.
        overwrite: replace a comparison that is there.

    Raises:
        ValueError: the folder is taken.
    """
    path = check_free(path, overwrite=overwrite, kind="comparison")
    model, source = comparison.model, comparison.data.source
    told = model.to_dict() if isinstance(model, Model) else str(model)
    with _whole(path) as partial:
        content = {**comparison.to_dict(), "model": told, "data": source.to_dict(), "climbs": comparison.climbs}
        _write_json(partial / "comparison.json", content)
        title = f"{model}\n\n{len(comparison.data.train)} data of `{source.source}`; {UNIT}; times in seconds.\n\n"
        (partial / "comparison.md").write_text(f"{title}{comparison.to_markdown()}\n", encoding="utf-8")
        plots.save(plots.compare(comparison), partial / "comparison.png")
    return path


def load_run(path: str | Path, *, trust: Iterable[str] = (), device: str | torch.device = "auto") -> Fit:
    """The fit that a run folder holds. Nothing in the folder is executed.

    Args:
        path: the folder.
        trust: modules, besides ppl_vae, whose classes the declaration may name.
        device: where the pair goes.

    Raises:
        ValueError: no run there, a damaged file, or a class from a module that is not trusted.
    """
    path = Path(path)
    if not (path / "config.yaml").is_file():
        raise ValueError(f"there is no run in {path}: expected a folder with config.yaml, as `ppl-vae fit --out` writes it")
    parts = _read(path / "config.yaml", yaml.safe_load)
    described = _read(path / "data.json", json.loads)
    history = _read(path / "history.jsonl", _history)
    try:
        declared: dict[str, Any] = {name: base.from_dict(parts[name], trust=trust) for name, base in PARTS.items()}
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in described["spec"].items()}
        spec = DataSpec(**fields)
        state = load_file(path / "model.safetensors")
        affine = {name: state.pop(f"transform.{name}") for name in AFFINE}
        transform = Transform(spec.event_shape, **affine, **{name: described["transform"][name] for name in NOISE})
        pair = build(declared["model"], declared["guide"], spec)
        pair.load_state_dict({name.removeprefix("pair."): value for name, value in state.items()})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except (AttributeError, KeyError, TypeError, OSError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{path} is not a whole run: {type(error).__name__} {' '.join(str(error).split())}") from None
    fit = Fit(pair=pair, spec=spec, transform=transform, history=history, **declared)
    device = choose_device(device)
    fit.pair.to(device)
    fit.transform.to(device)
    return fit


def measure(fit: Fit, data: Data, *, samples: int = 1) -> dict[str, Any]:
    """What ``metrics.json`` holds: each held-out split's numbers, their unit, and what the fit cost."""
    splits = {name: split for name, split in (("valid", data.valid), ("test", data.test)) if len(split)}
    return {
        **{name: fit.evaluate(split, samples=samples) for name, split in splits.items()},
        "unit": UNIT,
        "iterations": len(fit.history),
        "seconds": fit.history[-1]["seconds"],
    }


def check_free(path: str | Path, *, overwrite: bool, kind: Literal["run", "comparison"] = "run") -> Path:
    """The path, if a folder of that kind may be written there.

    Raises:
        ValueError: something is there that may not be replaced.
    """
    path = Path(path)
    in_the_way = next((parent for parent in path.absolute().parents if parent.is_file()), None)
    if in_the_way is not None:
        raise ValueError(f"{path} cannot be a folder, because {in_the_way} is a file: choose another folder")
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return path
    if not all((path / name).is_file() for name in SIGNATURES[kind]):
        raise ValueError(f"{path} exists and is not a {kind}: choose another folder")
    if not overwrite:
        raise ValueError(f"{path} already holds a {kind}: choose another folder, or overwrite it (--overwrite)")
    return path


def config(fit: Fit) -> str:
    """The whole declaration of a fit as YAML."""
    return yaml.safe_dump({name: getattr(fit, name).to_dict() for name in PARTS}, sort_keys=False)


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of ``path`` in the end, or vanishes if something goes wrong."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        yield partial
        if path.exists():
            shutil.rmtree(path)
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _described(fit: Fit) -> dict[str, Any]:
    return {"spec": dataclasses.asdict(fit.spec), "transform": {name: getattr(fit.transform, name) for name in NOISE}}


def _state(fit: Fit) -> dict[str, Tensor]:
    modules = nn.ModuleDict({"pair": fit.pair, "transform": fit.transform})
    return {name: value.contiguous() for name, value in modules.state_dict().items()}


def _pictures(fit: Fit, data: Data) -> Iterator[tuple[str, Figure]]:
    kind = fit.spec.kind
    shown = next((split for split in (data.test, data.valid) if len(split)), data.train)
    rows = shown[:40].fixed(torch.Generator().manual_seed(0))
    x = fit.seen(rows)
    yield "data", plots.grid(x, kind=kind, title="data")
    yield "reconstructions", plots.comparison(x, fit.reconstruct(rows), kind=kind)
    yield _sampled(fit, rows[:10])
    yield "learning_curve", plots.learning_curve(fit.history)
    codes = shown[:PICTURED]
    latent = fit.encode(codes).flatten(1)
    if latent.shape[1] >= 2:
        yield "latent", plots.latent_scatter(latent, codes.y, fit.spec.classes)
    if latent.shape[1] == 2 and not hasattr(fit.pair.model, "condition"):
        yield "manifold", plots.manifold(fit.decode(plots.quantile_grid(20)), kind=kind)


def _sampled(fit: Fit, rows: Split) -> tuple[str, Figure]:
    """New data from the prior; of each class, or completed from what is known of the rows, as the model is conditioned."""
    kind, known = fit.spec.kind, getattr(fit.pair.model, "known_entries", None)
    if getattr(fit.pair.model, "labelled", False):
        classes = fit.spec.classes[:MOST_CLASSES]
        return "samples", plots.by_class(fit.by_class(8)[:, : len(classes)], classes, kind=kind)
    if known is not None:
        samples = torch.stack([fit.sample(len(rows), x=rows, seed=seed) for seed in range(4)])
        return "completions", plots.completions(fit.seen(rows), known, samples, kind=kind)
    return "samples", plots.grid(fit.sample(64), kind=kind, title="samples from the prior")


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


def _history(text: str) -> list[Row]:
    rows = [json.loads(line) for line in text.splitlines()]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected a line for each iteration, with its numbers by name")
    return rows


def _read(path: Path, parse: Any) -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}") from None


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
