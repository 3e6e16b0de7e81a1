"""``ppl-vae fit``: fit a declared model and save the run."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppl_vae import fitting, runs
from ppl_vae.cli.output import print_json, print_table, say_saved
from ppl_vae.data import DataSource
from ppl_vae.declaration import Declaration
from ppl_vae.fitting.table import short
from ppl_vae.storage import RunFolder
from ppl_vae.types import STROKES, DataSpec, pass_name

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from ppl_vae.fitting import Experiment, Fit
    from ppl_vae.fitting.callbacks.loggers import Logger
    from ppl_vae.guides import Guide
    from ppl_vae.inference import Method
    from ppl_vae.models import Model
    from ppl_vae.runs import SavedRun

__all__ = ["options", "run"]


def run(
    *,
    model: Model,
    guide: Guide | None,
    method: Method | None,
    data: DataSource,
    seed: int | None,
    out: str | None,
    resume: SavedRun | None,
    keep_every: float,
    trust: list[str],
    track: str,
    log: str,
    device: str,
    overwrite: bool,
    quiet: bool,
    json: bool,
) -> None:
    """Fit a declared model to data and save the run: declaration, weights, history, metrics, pictures."""
    from ppl_vae.fitting.callbacks.progress import quiet as say_nothing
    from ppl_vae.fitting.fit import DIGITS, place, settled, without_data
    from ppl_vae.storage import Checkpointer

    folder = resume.folder.path if resume else None if out is None else Path(out)
    if resume is not None and (out is not None or overwrite):
        raise ValueError(f"--resume goes on in {folder} itself: leave --out and --overwrite away")
    checkpointer = None
    if resume is None and folder is not None:
        checkpointer = Checkpointer(folder, every=keep_every, overwrite=overwrite)
    data = without_data(model, DIGITS if data == DataSource() else data)
    placed = place(model, data, device)
    model = settled(model, placed)
    method = fitting.default_method(model, guide, placed) if method is None else method
    method = method if seed is None else dataclasses.replace(method, seed=seed)
    experiment = fitting.Experiment(model=model, guide=guide or fitting.default_guide(model, method), method=method, data=data)
    if resume is not None:
        runs.check_unchanged(resume, experiment)
    heard: dict[str, Any] = {
        "progress": say_nothing if quiet or json else None,
        "track": _words(track),
        "loggers": _loggers(_words(log), folder, experiment),
    }
    if placed.spec.table and not (quiet or json):
        print(f"{placed.summary()}\n")
    if resume is None:
        fitted = fitting.fit(model, placed, guide=experiment.guide, method=method, device=device, out=checkpointer, **heard)
    else:
        fitted = runs.resume_fit(resume, method=method, data=placed, every=keep_every, device=device, **heard)
    metrics = runs.measure(fitted, placed)
    if folder is not None:
        runs.save_run(fitted, placed, folder, metrics=metrics)
    if json:
        print_json({**metrics, "out": None if folder is None else str(folder)})
    elif not quiet:
        _print(fitted, metrics)
        say_saved(folder)
        print(next_step(folder, fitted))


def next_step(folder: Path | None, fitted: Fit) -> str:
    """What there is to do with a fit, as far as it can be done with this one."""
    if folder is None:
        return "next: nothing was kept; --out runs/NAME keeps the fit, for ppl-vae evaluate, sample, encode and report"
    run = shlex.quote(str(folder))
    from ppl_vae.models import Model

    can, facts, spec = fitted.pair.can, fitted.pair.model_facts, fitted.spec
    told = can.marginal is not None or can.bound is not None or can.sum_bound is not None or fitted.pair.guide_facts.certain
    estimated = not told and fitted.score.bound == "lower"  # which more draws make tighter
    encoded = bool(facts.sites) and not (isinstance(fitted.model, Model) and fitted.model.data_free)
    steps = [
        f"report {run}",
        f"evaluate {run}{' --samples 100' if estimated else ''}",
        *([f"encode {run} --out codes.csv"] if encoded else []),
        f"sample {run} {_drawn(spec)}",
    ]
    return f"next: ppl-vae {', '.join(steps)}"


def _drawn(spec: DataSpec) -> str:
    """How new data are asked for: texts are printed, all else is written."""
    if not spec.ragged:
        return "--out new.csv" if spec.table else "--out new.npy"
    if spec.kind == STROKES:
        return "--n 3 --out new.svg"
    return "--n 3" if spec.fields[0].vocabulary else "--n 3 --out new.npz"


def _print(fitted: Fit, metrics: dict[str, Any]) -> None:
    """Tell what was fitted, how good it is and what it cost."""
    from ppl_vae.inference import EM

    latent = [str(fitted.guide)] if fitted.pair.model_facts.sites else []
    print(*[str(fitted.model), *latent, f"by {short(fitted.method)}"], sep="\n")
    splits = {name: numbers for name, numbers in metrics.items() if isinstance(numbers, dict)}
    if splits:
        print_table(splits, metrics["unit"], fitted.pair.score)
    else:
        score = fitted.pair.score
        print(
            f"{score.label} {fitted.history[-1][score.name]:.3f} {metrics['unit']}, of the training data: no others were kept"
        )
    if (best := metrics.get("without_latents")) is not None:
        print(f"without latent variables the likelihood reaches {best:.3f} on the training data")
    turns = fitted.history[-1]["epoch"]
    passes = f"{turns} {pass_name(fitted.history)}{'s'[: turns != 1]}"
    print(f"{passes} in {metrics['seconds']:.1f} s on {fitted.device}")
    if isinstance(fitted.method, EM) and turns == fitted.method.max_iterations:
        before, last = fitted.history[-2:]
        gain = last["objective"] - before["objective"]
        print(f"--method.max_iterations allows no more; the last one gained {gain:.2g} nats per datum")


def _words(text: str) -> list[str]:
    """The words of a list with commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def _loggers(names: list[str], folder: Path | None, experiment: Experiment) -> list[Logger]:
    """The loggers of these names, which show the run under its folder's name."""
    if names and folder is None:
        raise ValueError("--log shows a run under its folder's name: give --out")
    from ppl_vae.fitting.callbacks.loggers import open_logger

    return [open_logger(name, folder, experiment.to_dict()) for name in names if folder is not None]


def options(parser: ArgumentParser, families: Any) -> None:
    """Add the verb's options, some of which hold members of ``families``."""
    what = f"a run's {RunFolder.CONFIG}: run it again, with options after it on top"
    parser.add_argument("--config", action="config", help=what)
    what = "how to fit, likewise; by default EM or a formula where the model offers it, else SVI, by the number of rows"
    parts: dict[str, tuple[Any, Declaration | None, str]] = {
        "model": (families.Model, None, "the model: a class name, an import path or a YAML file; by default VAE"),
        "guide": (families.Guide | None, None, "the approximate posterior, likewise; by default what suits model and method"),
        "method": (families.Method | None, None, what),
        "data": (DataSource, DataSource(), "a source (see --data.source) or a YAML file"),
    }
    for name, (base, default, what) in parts.items():
        parser.add_argument(f"--{name}", type=base, default=default, sub_configs=True, help=what)
    parser.add_argument("--seed", type=int, default=None, help="of the method")
    parser.add_argument("--out", type=str | None, help="the run folder to write, while the fit goes on")
    what = "a run folder whose fit was stopped, or is to be longer (--method.epochs 200): go on with it"
    parser.add_argument("--resume", type=str | None, help=what)
    what = "seconds between two states of training that --out keeps"
    parser.add_argument("--keep_every", "--keep-every", type=float, default=60.0, help=what)
    what = "numbers of the validation data for each row of the history, such as active_units,mutual_information,iwae:50"
    parser.add_argument("--track", type=str, default="", help=what)
    what = "show the rows as they come: tensorboard (event files in the run folder; extra `track`), mlflow"
    parser.add_argument("--log", type=str, default="", help=what)
    what = "modules of yours whose classes the resumed run may name"
    parser.add_argument("--trust", type=str, nargs="+", default=[], help=what)
    parser.add_argument("--overwrite", action="store_true", help="replace the run in that folder")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda, cuda:1, mps, or auto")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
