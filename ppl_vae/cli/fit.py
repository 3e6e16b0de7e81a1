"""``ppl-vae fit``: fit a declared model and save the run."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentParser

from ppl_vae import runs
from ppl_vae.cli.output import print_json, print_table, say_saved
from ppl_vae.data import DataSource, load_data
from ppl_vae.declaration import Declaration
from ppl_vae.guides import Guide
from ppl_vae.inference import SVI, Method, fit
from ppl_vae.inference.progress import quiet as say_nothing
from ppl_vae.models import Model

__all__ = ["options", "run"]


def run(
    *,
    model: Model,
    guide: Guide | None,
    method: Method,
    data: DataSource,
    out: str | None,
    device: str,
    overwrite: bool,
    quiet: bool,
    json: bool,
) -> None:
    """Fit a declared model to data and save the run: declaration, weights, history, metrics, pictures."""
    folder = None if out is None else runs.check_free(out, overwrite=overwrite)
    loaded = load_data(data)
    fitted = fit(model, loaded, guide=guide, method=method, device=device, progress=say_nothing if quiet or json else None)
    metrics = runs.measure(fitted, loaded.resolve(model.accepts))
    if folder is not None:
        runs.save_run(fitted, loaded, folder, metrics=metrics, overwrite=overwrite)
    if json:
        return print_json({**metrics, "out": out})
    if not quiet:
        print(f"{fitted.model}\n{fitted.guide}")
        print_table({name: numbers for name, numbers in metrics.items() if isinstance(numbers, dict)}, metrics["unit"])
        print(f"{metrics['iterations']} iterations in {metrics['seconds']:.1f} s on {fitted.device}")
        say_saved(folder)
    return None


def options(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("--config", action="config", help="a run's config.yaml: run it again, with options after it on top")
    parts: dict[str, tuple[Any, Declaration | None, str]] = {
        "model": (Model, None, "the model: a class name, an import path or a YAML file; by default VAE"),
        "guide": (Guide | None, None, "the approximate posterior, likewise; by default what suits model and method"),
        "method": (Method, SVI(), "how to fit, likewise"),
        "data": (DataSource, DataSource(), "a source (see --data.source) or a YAML file"),
    }
    for name, (base, default, what) in parts.items():
        parser.add_argument(f"--{name}", type=base, default=default, sub_configs=True, help=what)
    parser.add_argument("--out", type=str | None, help="the run folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in that folder")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda, cuda:1, mps, or auto")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
