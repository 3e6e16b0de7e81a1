"""``ppl-vae evaluate``: how good a run is."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Any, Literal

from ppl_vae import runs
from ppl_vae.cli.options import data_options, declared_rows, rows_of, run_options
from ppl_vae.cli.output import cell, heading, print_json
from ppl_vae.evaluate import AIS, Gaps
from ppl_vae.storage import RunFolder
from ppl_vae.types import Score

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser
    from torch import Tensor

    from ppl_vae.data import Split
    from ppl_vae.fitting import Fit

__all__ = ["options", "run"]

FEW_LABELS = (1, 10, 100)  # per class
MANY = 1000  # samples for the log p(x) that gaps are counted from


def run(
    *,
    run: str,
    data: str | None,
    data_root: str | None,
    label: str | None,
    weights: str | None,
    y: str | None,
    split: str | None,
    samples: int | None,
    gaps: bool,
    ais: bool,
    search: Gaps,
    annealing: AIS,
    latents: bool,
    sample_quality: bool,
    probe: bool,
    factors: list[str] | None,
    limit: int | None,
    precision: Literal["32", "bf16", "tf32"],
    summed: bool | Literal["auto"],
    save: bool,
    seed: int,
    device: str,
    trust: list[str],
    json: bool,
) -> None:
    """Say how good a run is on data, in nats per datum."""
    if save and data is not None:
        raise ValueError("--save keeps what is found on the run's own data in its folder: leave --data or --save out")
    from ppl_vae.models import Model

    fitted = runs.load_run(run, trust=trust, device=device)
    held_out = data is None and not (isinstance(fitted.model, Model) and fitted.model.data_free)
    split = split or ("test" if held_out else "all")
    name, rows = rows_of(fitted, data, data_root, split, label=label, y=y, weights=weights)
    wanted: dict[str, Any] = {"gaps": search if gaps else False, "ais": annealing if ais else False}
    if samples is None:
        samples = MANY if gaps and not (ais or fitted.pair.can.marginal) else 1
    numbers = fitted.evaluate(rows, samples=samples, **wanted, limit=limit, precision=precision, summed=summed, seed=seed)
    others = {"simulated": numbers.pop("simulated")} if "simulated" in numbers else {}  # no numbers of this split
    asked = {"latents": latents, "sample_quality": sample_quality, "probe": probe}
    parts = _parts(fitted, rows if limit is None else rows[:limit], asked, seed=seed)
    if factors:
        with_factors = dataclasses.replace(declared_rows(fitted, data, data_root, label=label), fields=tuple(factors))
        seen = fitted.rows(with_factors, split)
        parts["disentanglement"] = fitted.disentanglement(seen if limit is None else seen[:limit], seed=seed)
    content = {name: {**numbers, **parts}, **others, "unit": fitted.unit}
    if save:
        runs.save_evaluation(run, {**content, "iterations": len(fitted.history)})
    if json:
        return print_json(content)
    print(f"{fitted.model}\n{fitted.guide}")
    _print_all({name: numbers, **{f"{title} data": part for title, part in others.items()}, **parts}, fitted)
    return None


def _parts(fitted: Fit, rows: Split, asked: dict[str, bool], *, seed: int) -> dict[str, dict[str, Any]]:
    """What is asked for besides the bounds: numbers of the codes, of each latent variable, of samples, of a classifier."""
    parts: dict[str, dict[str, Any]] = {}
    if asked["latents"]:
        parts["latents"] = fitted.latents(rows, seed=seed)
        parts |= {f"latents_{name}": numbers for name, numbers in parts["latents"].pop("sites", {}).items()}
    if asked["sample_quality"]:
        parts["sample_quality"] = fitted.sample_quality(rows, seed=seed)
    if asked["probe"]:
        train = fitted.rows(fitted.data, "train")
        parts["probe"] = fitted.probe(train, rows, labels_per_class=_few(train.labels), seed=seed)
    return parts


def _few(labels: Tensor) -> list[int]:
    """Numbers of labels per class that the training data have enough of."""
    counts = labels.bincount()
    return [n for n in FEW_LABELS if n <= int(counts[counts > 0].min())]


def options(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    run_options(parser)
    data_options(parser, default="test for the run's own data, all for others")
    what = f"per datum, above 1 for the importance-weighted bound; 1, with gaps {MANY}"
    parser.add_argument("--samples", type=int | None, default=None, help=what)
    what = "column or array of weights, or none; of the run's own data its own"
    parser.add_argument("--weights", type=str | None, help=what)
    parser.add_argument("--gaps", action="store_true", help="log p(x) - ELBO as approximation and amortization gap")
    parser.add_argument("--ais", action="store_true", help="annealed importance sampling, between two bounds where possible")
    what = "what the codes hold: active units, KL by dimension, mutual information, total correlation"
    parser.add_argument("--latents", action="store_true", help=what)
    what = "two-sample tests of new samples and the data: MMD, a classifier, precision and recall, Fréchet distance"
    parser.add_argument("--sample_quality", "--sample-quality", action="store_true", help=what)
    what = "accuracy of a linear classifier of the codes, also with few labels"
    parser.add_argument("--probe", action="store_true", help=what)
    what = "how far dimensions of the codes stand for these fields of the source beside x: MIG, modularity, SAP, DCI"
    parser.add_argument("--factors", type=str, nargs="+", help=what)
    parser.add_argument("--limit", "--n", type=int | None, default=None, help="only the first so many data")
    what = "of layers' products; precision_shift is its doing"
    parser.add_argument("--precision", type=Literal["32", "bf16", "tf32"], default="32", help=what)
    what = "all steps of a diffusion, or an estimate by --samples of them"
    parser.add_argument("--summed", type=bool | Literal["auto"], default=True, help=what)
    what = f"keep the numbers in {RunFolder.EVALUATION} of the run, which its report shows"
    parser.add_argument("--save", action="store_true", help=what)
    parser.add_class_arguments(Gaps, "search", help="how the best q of each datum is looked for, with --gaps")
    parser.add_class_arguments(AIS, "annealing", help="how it is annealed, with --ais")


def _print_all(parts: dict[str, dict[str, Any]], fitted: Fit) -> None:
    for title, part in parts.items():
        unit = "" if title in ("probe", "sample_quality", "disentanglement") else f", {fitted.unit}"
        _print_numbers(f"{title.replace('_', ' ')}{unit}", part, fitted.pair.score)


def _print_numbers(title: str, numbers: dict[str, Any], score: Score) -> None:
    """Print a line for each number, with its standard error."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in ("", "mean", "standard error"):
        table.add_column(column, justify="left" if not column else "right")
    for name, value in numbers.items():
        if isinstance(value, dict):  # why something is left out
            print(*(f"{left_out}: {why}" for left_out, why in value.items()), sep="\n")
        elif not name.endswith("_se"):
            table.add_row(heading(name, score), cell(value), cell(numbers.get(f"{name}_se", "")))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
