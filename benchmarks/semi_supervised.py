"""Few labels: the errors of M2 and of M1 + M2 over draws of the labels, and what a step of M2 takes beside Pyro's own.

    python -m benchmarks.semi_supervised --json

MNIST in [0, 1], so many labels, as many of each class; all other training rows stand without theirs, of as many classes as they
come. A row with a label stands ``--repeat`` times among the training rows with a weight of 1 / ``--repeat``, so that nearly
every other step meets some while the objective stays what it is. M2 is :class:`~ppl_vae.SemiSupervisedVAE` of the pixels, its
classifier of convolutions or, with ``--classifier mlp``, dense as in the paper; M1 + M2 trains a VAE first, once, for each draw
of the labels its prior with a class, and then all of it for so many epochs (``--joint_epochs``, 0 for the two stages of the
paper alone). Errors are of the test rows.
The step: the same arithmetic, of a dense classifier, written by hand for Pyro, ``config_enumerate`` and ``TraceEnum_ELBO``, as
in its example of M2.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
import warnings
from typing import Any

import numpy as np
import torch

import ppl_vae as pv
from benchmarks import series
from benchmarks.peers import pyro_m2

Row = dict[str, Any]
M1_PARTS = ("model.decoder", "model.likelihood", "guide.encoder")
M2_PARTS = ("model.network", "guide.classifier", "guide.rest")


def labels_drawn(y: np.ndarray, number: int, seed: int) -> np.ndarray:
    """Which rows have a label ``(N,)``: as many of each class."""
    rng = np.random.default_rng(seed)
    known = np.zeros(len(y), dtype=bool)
    for place in range(10):
        known[rng.permutation(np.flatnonzero(y == place))[: number // 10]] = True
    return known


def few_labels(x: np.ndarray, y: np.ndarray, known: np.ndarray, repeat: int) -> pv.Data:
    """The rows of which some have a label, each of these so many times."""
    order = np.concatenate([np.flatnonzero(~known), np.repeat(np.flatnonzero(known), repeat)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pv.FitWarning)
        return pv.load_data(
            x[order],
            y=np.where(known, y, -1)[order],
            weights=np.where(known, 1.0 / repeat, 1.0)[order],
            valid=0.0,
            test=0.0,
            binarize="dynamic",
        )


def m2(args: argparse.Namespace, classifier: str) -> tuple[pv.Model, pv.Guide]:
    """M2 of the pixels."""
    network = pv.MLP(hidden=(args.width,))
    seen = network if classifier == "mlp" else pv.Conv(channels=(16, 32), norm="batch")
    return (
        pv.SemiSupervisedVAE(latent_dim=50, decoder=network),
        pv.AmortizedClassifier(encoder=network, classifier=seen, weight=args.weight),
    )


def m1_m2(args: argparse.Namespace) -> tuple[pv.Model, pv.Guide]:
    """M1 with the class in its prior."""
    wide, upper = (pv.MLP(hidden=hidden) for hidden in ((args.width,) * 2, (args.upper,)))
    return (
        pv.StackedSemiSupervisedVAE(latent_dim=args.latent_dim, rest_dim=args.rest_dim, network=upper, decoder=wide),
        pv.StackedClassifier(encoder=wide, classifier=upper, rest=upper, weight=args.stacked_weight),
    )


def summary(errors: list[float], seconds: list[float]) -> Row:
    """The mean with its standard error, and the spread."""
    spread = statistics.stdev(errors) if len(errors) > 1 else math.nan
    return {
        "error_percent": statistics.fmean(errors),
        "standard_error": spread / math.sqrt(len(errors)),
        "standard_deviation": spread,
        "draws": len(errors),
        "seconds_each": statistics.fmean(seconds),
        "errors": errors,
    }


def errors(args: argparse.Namespace) -> dict[str, Row]:
    """The errors of both, draw by draw."""
    train, test = (pv.load_data("mnist", valid=0.0).train, pv.load_data("mnist", valid=0.0).test)
    rows = np.random.default_rng(0).permutation(len(train))[: args.rows]
    x, y = train.x[rows].numpy(), train.y[rows].numpy()
    xt, yt = test.x, test.y
    found: dict[str, Row] = {}
    svi = {"batch_size": args.batch_size, "learning_rate": args.rate, "schedule": args.schedule, "precision": args.precision}

    def run(name: str, draws: int, fitted: Any) -> None:
        wrong, seconds = [], []
        for draw in range(draws):
            began = time.perf_counter()
            fit = fitted(few_labels(x, y, labels_drawn(y, args.labels, draw), args.repeat), draw)
            seconds.append(time.perf_counter() - began)
            wrong.append(100 * (1 - fit.accuracy(xt, y=yt)["accuracy"]))
            print(f"{name}, draw {draw}: error {wrong[-1]:.2f} %, {seconds[-1]:.0f} s", file=sys.stderr, flush=True)
        if wrong:
            found[name] = summary(wrong, seconds)

    if args.m1_m2_draws:
        model, guide = m1_m2(args)
        began = time.perf_counter()
        plain = few_labels(x, y, labels_drawn(y, args.labels, 0), 1)
        first = pv.fit(model, plain, guide=guide, method=pv.SVI(epochs=args.m1_epochs, only=M1_PARTS, **svi), progress=shown)
        spent = time.perf_counter() - began
        print(f"M1: {spent:.0f} s, ELBO {first.history[-1]['elbo']:.2f}", file=sys.stderr, flush=True)
        second = {"epochs": args.m2_epochs, "only": M2_PARTS, **svi, "learning_rate": args.m2_rate}

        def stacked(data: pv.Data, seed: int) -> pv.Fit:
            fit = pv.fit(model, data, guide=guide, warm_start=first, method=pv.SVI(seed=seed, **second), progress=shown)
            if not args.joint_epochs:
                return fit
            last = pv.SVI(seed=seed, epochs=args.joint_epochs, **svi)
            return pv.fit(model, data, guide=guide, warm_start=fit, method=last, progress=shown)

        run("M1 + M2", args.m1_m2_draws, stacked)
        found["M1 + M2"]["seconds_of_m1"] = spent
    if args.m2_draws:
        model, guide = m2(args, args.classifier)
        pixels = {**svi, "epochs": args.epochs, "learning_rate": args.pixels_rate}
        run(
            "M2",
            args.m2_draws,
            lambda data, seed: pv.fit(model, data, guide=guide, method=pv.SVI(seed=seed, **pixels), progress=shown),
        )
    return found


def shown(row: Row) -> None:
    """Tell of a row."""
    print(f"  {row['epoch']}: elbo {row['elbo']:.2f}, {row['seconds']:.0f} s", file=sys.stderr, flush=True)


def main(words: list[str] | None = None) -> None:
    """Run what is asked for and print a table or JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks.semi_supervised", description=__doc__.partition("\n")[0])
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--rows", type=int, default=50_000, help="training rows in all")
    parser.add_argument("--repeat", type=int, default=250, help="copies of each row with a label")
    parser.add_argument("--weight", type=float, default=50.0, help="of the classifier")
    parser.add_argument("--stacked_weight", type=float, default=50.0, help="of the classifier of M1 + M2")
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--classifier", choices=("conv", "mlp"), default="conv", help="of M2 on the pixels")
    parser.add_argument("--latent_dim", type=int, default=12, help="dimensions of the codes of M1")
    parser.add_argument("--upper", type=int, default=500, help="width of the networks of M2 on the codes of M1")
    parser.add_argument("--rest_dim", type=int, default=20, help="dimensions of what the class leaves open of a code of M1")
    parser.add_argument("--batch_size", type=int, default=200)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--schedule", default="cosine")
    parser.add_argument("--precision", choices=("32", "bf16", "tf32"), default="32")
    parser.add_argument("--epochs", type=int, default=20, help="of M2 on the pixels")
    parser.add_argument("--pixels_rate", type=float, default=3e-3, help="of M2 on the pixels")
    parser.add_argument("--m1_epochs", type=int, default=30)
    parser.add_argument("--m2_epochs", type=int, default=10, help="of M2 on the codes of M1")
    parser.add_argument("--m2_rate", type=float, default=3e-3, help="of M2 on the codes of M1")
    parser.add_argument("--joint_epochs", type=int, default=100, help="of M1 and M2 together, last")
    parser.add_argument("--m2_draws", type=int, default=10)
    parser.add_argument("--m1_m2_draws", type=int, default=10)
    parser.add_argument("--steps", type=int, default=40, help="steps a round of the timing; 0 leaves it out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="time compiled steps, as of long fits")
    series.add_json(parser)
    args = parser.parse_args(words)
    torch.set_num_threads(args.threads)
    found: Row = {}
    if args.steps:
        found["step"] = pyro_m2.compared(
            *m2(args, "mlp"),
            width=args.width,
            batch_size=args.batch_size,
            steps=args.steps,
            rounds=args.rounds,
            weight=args.weight,
            compile=args.compile,
        )
    found |= errors(args) if args.m2_draws or args.m1_m2_draws else {}
    if args.json:
        series.tell({"conditions": vars(args), **found}, args, indent=2)
        return
    for name, row in found.items():
        print(name, *(f"{key}={value:.4g}" for key, value in row.items() if isinstance(value, (int, float))))


if __name__ == "__main__":
    main()
