"""Published tables, declared: each row is a YAML file of ``benchmarks/reproductions`` with its protocol in the comment.

A row is fitted like ``ppl-vae fit --config ROW.yaml --out OUT/ROW`` (a run that is there already is taken as it is) and scored
by the importance-weighted bound on all test data; ``--gaps`` adds the approximation and amortization gaps of Cremer et
al. (2018) on the first test data. The files' 100 epochs take minutes on a CPU; ``--full`` trains for
as many epochs as the publication did, in the file's batches and at its rates.

    PPL_VAE_DATA=path/to/data python -m benchmarks.reproduce vae_mnist iwae_mnist --out runs/reproductions
    PPL_VAE_DATA=path/to/data python -m benchmarks.reproduce vae_mnist --gaps 1000
    PPL_VAE_DATA=path/to/data python -m benchmarks.reproduce --pythae
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import yaml

import ppl_vae as pv
from ppl_vae.fitting.experiment import PARTS
from ppl_vae.runs import save_run

FOLDER = Path(__file__).parent / "reproductions"
ROWS = sorted(path.stem for path in FOLDER.glob("*.yaml"))

FULL = dict.fromkeys(ROWS, 3280) | {"vae_fashion": 2000, "vamp_fashion": 2000, "hvae_mnist": 2000}
"""Epochs of the publications."""

PUBLISHED = {
    "vae_mnist": "-86.76 (Burda 2016, quoted), -86.35 (reproduction, read)",
    "vae_mnist_static": "-88.71 (Burda 2016, quoted), -89.93 (reproduction, read)",
    "iwae_mnist": "-85.54 (Burda 2016, quoted), -85.18 (reproduction, read)",
    "iaf_mnist": "about -89.0 (Cremer 2018, from memory)",
    "hvae_mnist": "-81.74 (Sonderby 2016, quoted; five groups)",
    "vq_mnist": "none of codes and their prior; a VAE of 100 epochs reaches an ELBO of -93.07 (vae_mnist)",
    "vae_omniglot": "-108.11 (Burda 2016, from memory; another split)",
    "vae_fashion": "-228.70 (Norouzi 2020, read)",
    "vamp_fashion": "-227.35 (Norouzi 2020, read)",
}
"""Log p(x) in nats; each read in its source, quoted by another, or from memory and to be checked before it is relied on."""


def declared(row: str, *, epochs: int | None) -> dict[str, Any]:
    """Model, guide, method and data of a row; files of data lie in ``$PPL_VAE_DATA``."""
    parts = yaml.safe_load((FOLDER / f"{row}.yaml").read_text(encoding="utf-8"))
    found: dict[str, Any] = {name: base.from_dict(parts[name]) for name, base in PARTS.items()}
    if epochs is not None:
        found["method"] = as_long(found["method"], epochs)
    if found["data"].source.endswith(".npz"):
        path = Path(os.environ.get("PPL_VAE_DATA", ".")) / found["data"].source
        found["data"] = dataclasses.replace(found["data"], source=str(path))
    return found


def as_long(method: Any, epochs: int) -> Any:
    """A method of so many epochs, those of stages in the same proportion."""
    if not isinstance(method, pv.Stages):
        return dataclasses.replace(method, epochs=epochs)
    share = epochs / method.iterations
    return dataclasses.replace(
        method, methods=tuple(dataclasses.replace(each, epochs=max(1, round(share * each.epochs))) for each in method.methods)
    )


def fitted(row: str, out: Path, *, epochs: int | None) -> pv.Fit:
    """The run of a row, fitted now if it is not there."""
    if (out / row / "metrics.json").is_file():
        return pv.load_run(out / row)
    parts = declared(row, epochs=epochs)
    data = pv.load_data(parts["data"])
    fit = pv.fit(parts["model"], data, guide=parts["guide"], method=parts["method"], progress=shown)
    save_run(fit, data, out / row)
    return fit


def shown(row: dict[str, Any]) -> None:
    """Tell of an epoch."""
    print(f"  {row['epoch']}: ELBO {row['elbo']:.2f}, {row['seconds']:.0f} s", file=sys.stderr, flush=True)


def reproduce(row: str, out: Path, *, epochs: int | None, samples: int, gaps: int) -> dict[str, Any]:
    """A row's numbers on its test data."""
    fit = fitted(row, out, epochs=epochs)
    test = fit.rows(fit.data, "test")
    began = time.perf_counter()
    numbers = fit.evaluate(test, samples=samples)
    seconds = {"train_s": fit.history[-1]["seconds"], "evaluate_s": time.perf_counter() - began}
    found = {**numbers, "epochs": len(fit.history), **seconds}
    if gaps:
        found["gaps"] = fit.evaluate(test[:gaps], samples=samples, gaps=True)
    (out / row / "reproduction.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def pythae_row(*, epochs: int | None, samples: int) -> dict[str, Any]:
    """The network, data, epochs and batch of ``vae_mnist`` in pythae, scored by our importance-weighted bound too."""
    from benchmarks.peers import pythae_vae

    parts = declared("vae_mnist", epochs=epochs)
    data = pv.load_data(parts["data"])
    method, network = parts["method"], parts["model"].decoder
    return pythae_vae.train_and_score(
        data,
        hidden=network.hidden,
        latent=parts["model"].latent_dim,
        epochs=method.epochs,
        batch=method.batch_size,
        samples=samples,
        seed=method.seed,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)}; all of them by default")
    parser.add_argument("--out", type=Path, default=Path("runs/reproductions"), help="the folder of the runs")
    parser.add_argument("--epochs", type=int, help="instead of the file's")
    parser.add_argument("--full", action="store_true", help="as many epochs as were published")
    parser.add_argument("--samples", type=int, default=5000, help="of the importance-weighted bound")
    parser.add_argument("--gaps", type=int, default=0, help="inference gaps on so many test data")
    parser.add_argument("--pythae", action="store_true", help="the network of vae_mnist trained by pythae, instead of rows")
    options = parser.parse_args()
    unknown = set(options.rows) - set(ROWS)
    if unknown:
        parser.error(f"unknown rows {', '.join(sorted(unknown))}: choose from {', '.join(ROWS)}")
    print(f"| row | ELBO | log p(x) >=, {options.samples} samples | published | epochs | training s | evaluation s |")
    print("|---|---|---|---|---|---|---|")
    if options.pythae:
        return _print("vae_mnist by pythae", pythae_row(epochs=options.epochs, samples=options.samples), "")
    for row in options.rows or ROWS:
        epochs = FULL[row] if options.full else options.epochs
        numbers = reproduce(row, options.out, epochs=epochs, samples=options.samples, gaps=options.gaps)
        _print(row, numbers, PUBLISHED[row])
        if options.gaps:
            print(json.dumps(numbers["gaps"]))
    return None


def _print(row: str, numbers: dict[str, Any], published: str) -> None:
    bounds = [f"{numbers[name]:.2f} +- {numbers[name + '_se']:.2f}" if name in numbers else "" for name in ("elbo", "iwae")]
    seconds = [f"{numbers[name]:.0f}" for name in ("train_s", "evaluate_s")]
    print("| " + " | ".join([row, *bounds, published, str(numbers["epochs"]), *seconds]) + " |", flush=True)


if __name__ == "__main__":
    main()
