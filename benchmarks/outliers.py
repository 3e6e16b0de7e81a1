"""Which score finds foreign data: areas under the ROC curve of MNIST, Fashion-MNIST and Omniglot, and the known failure.

A small VAE of gray levels (784-200-20-200-784, discretized logistic) is fitted to one set; test images of that set are to score
lower than images of another. An area below 1/2 says that the score finds the foreign images the more familiar ones: so does
log p(x) of a fit to Fashion-MNIST with digits, whose images are simpler (Nalisnick et al. 2019). Seconds are the processor's.

    PPL_VAE_DATA=path/to/data python -m benchmarks.outliers
    PPL_VAE_DATA=path/to/data python -m benchmarks.outliers --fitted fashionmnist --scores log_prob regret --json

Omniglot is the array ``background``, 28 x 28 and gray, of ``omniglot28.npz`` in the folder of the data; see ``--foreign``.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

from torch import Tensor

import ppl_vae as pv
from benchmarks import series
from ppl_vae.evaluate.outliers import OUTLIER_SCORES

SETS = ("mnist", "fashionmnist", "omniglot")
NETWORK = pv.MLP(hidden=(200,))
MODEL = pv.VAE(latent_dim=20, decoder=NETWORK, likelihood=pv.DiscretizedLogistic(levels=256))
STEPS = pv.Gaps(samples=1, window=25, max_steps=50)
"""How the best q of an image is looked for."""


def source(name: str) -> pv.DataSource:
    """A set's declaration, its levels as they are."""
    kind: dict[str, Any] = {"binarize": "none", "kind": "categorical"}
    if name != "omniglot":
        return pv.DataSource(source=name, valid=0.05, **kind)
    folder = Path(os.environ.get("PPL_VAE_DATA", "~/.cache/ppl_vae")).expanduser()
    return pv.DataSource(source=str(folder / "omniglot28.npz"), key="background", **kind)


def fitted(name: str, options: argparse.Namespace) -> tuple[pv.Fit, pv.Data]:
    """A fit to the training images of a set."""
    data = pv.load_data(source(name))
    method = pv.SVI(epochs=options.epochs, batch_size=100, seed=options.seed)
    return pv.fit(MODEL, data, guide=pv.AmortizedNormal(encoder=NETWORK), method=method), data


def measured(fit: pv.Fit, data: pv.Data, foreign: dict[str, Tensor], options: argparse.Namespace) -> dict[str, Any]:
    """Areas of each score against each foreign set, and means of the score of all sets."""
    sets = {"own": data.test.x[: options.rows], **foreign}
    held_out = data.valid[: options.held_out]
    table: dict[str, Any] = {}
    for score in options.scores:
        began = time.process_time()
        found = {
            name: fit.outliers(x, score=score, held_out=held_out, samples=options.samples, gaps=STEPS).score
            for name, x in sets.items()
        }
        seconds = time.process_time() - began
        curves = {name: pv.roc(found["own"], values) for name, values in found.items() if name != "own"}
        table[score] = {
            "auroc": {name: curve.auroc for name, curve in curves.items()},
            "auroc_se": {name: curve.se for name, curve in curves.items()},
            "mean": {name: float(values.mean()) for name, values in found.items()},
            "seconds": seconds,
        }
    return table


def lines(name: str, told: dict[str, Any]) -> list[str]:
    """The table of one fit."""
    foreign = [other for other in SETS if other in next(iter(told["scores"].values()))["auroc"]]
    titles = [f"{name}, fitted in {told['train_s']:.0f} s", *(f"AUROC {other}" for other in foreign)]
    means = ["mean own", *(f"mean {other}" for other in foreign)]
    found = [f"| {' | '.join([*titles, *means, 's'])} |", "|" + "---|" * (2 * len(foreign) + 3)]
    for score, row in told["scores"].items():
        areas = [f"{row['auroc'][other]:.3f} ± {row['auroc_se'][other]:.3f}" for other in foreign]
        values = [f"{row['mean'][other]:.0f}" for other in ("own", *foreign)]
        found.append("| " + " | ".join([score, *areas, *values, f"{row['seconds']:.1f}"]) + " |")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fitted", nargs="+", choices=SETS[:2], default=list(SETS[:2]))
    parser.add_argument("--foreign", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--scores", nargs="+", choices=OUTLIER_SCORES, default=list(OUTLIER_SCORES))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rows", type=int, default=2000, help="images of each set")
    parser.add_argument("--held-out", type=int, default=500, help="images of the fitted set beside them")
    parser.add_argument("--samples", type=int, default=10, help="draws of z for each image")
    parser.add_argument("--seed", type=int, default=0)
    series.add_json(parser)
    options = parser.parse_args()
    loaded = {name: pv.load_data(source(name)).test.x[: options.rows] for name in options.foreign}
    report: dict[str, Any] = {}
    for name in options.fitted:
        began = time.process_time()
        fit, data = fitted(name, options)
        others = {other: x.reshape(-1, *data.spec.event_shape) for other, x in loaded.items() if other != name}
        trained = time.process_time() - began
        report[name] = {"train_s": trained, "scores": measured(fit, data, others, options)}
        if not options.json:
            print(*lines(name, report[name]), "", sep="\n", flush=True)
    if options.json:
        series.tell(report, options)


if __name__ == "__main__":
    main()
