"""Sketch-RNN beside its decoder alone on drawings, in nats: what a code of the whole drawing is worth, and what it costs.

Protocol: drawings of Omniglot as strokes with the file's own 30,000 / 1,000 / 1,000 (D. Ha), offsets divided by their standard
deviation, whose log-determinant is counted, so numbers are in the units of the file. All models have the same LSTM and the same
mixture; the test numbers are those of the best validation epoch.

* ``decoder``: no code, log p(x) is exact.
* ``vae``: a code, its KL weighted by one from the first step on.
* ``free_bits``: the same with a linear warm-up over a quarter of the epochs and ``free_bits`` nats a drawing free.
* ``pretrained``: a quarter of the epochs as an autoencoder, without a KL; then with free bits (Li et al. 2019).

Of each model ``nats`` (log p(x), or its importance-weighted bound) a drawing and a point, ``elbo``, ``kl``, ``active``
dimensions of the code, ``ms_per_step`` over the whole fit, and the seconds in which 100 drawings are drawn.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

import ppl_vae as pv
from benchmarks import series

MODELS = ("decoder", "vae", "free_bits", "pretrained")


def fitted(name: str, data: pv.Data, options: argparse.Namespace) -> pv.Fit:
    """The model of that name."""
    network, likelihood = pv.LSTM(hidden=options.hidden), pv.Strokes(components=options.components)
    svi: dict[str, Any] = {
        "batch_size": 100,
        "learning_rate": options.learning_rate,
        "clip_norm": 1.0,
        "schedule": "cosine",
        "restore_best": True,
        "seed": options.seed,
    }
    if name == "decoder":
        model: pv.Model = pv.SequenceModel(network=network, likelihood=likelihood)
        return pv.fit(model, data, method=pv.SVI(epochs=options.epochs, **svi), device=options.device)
    model = pv.VAE(latent_dim=options.latent_dim, decoder=network, likelihood=likelihood)
    guide = pv.AmortizedNormal(encoder=pv.LSTM(hidden=options.hidden // 2, bidirectional=True))
    quarter = max(1, options.epochs // 4)
    if name == "pretrained":
        objective = pv.BetaELBO(free_bits=options.free_bits)
        first = pv.SVI(
            epochs=quarter, objective=pv.BetaELBO(beta=0.0), **{**svi, "restore_best": False, "schedule": "constant"}
        )
        method = pv.Stages(methods=(first, pv.SVI(epochs=max(1, options.epochs - quarter), objective=objective, **svi)))
        return pv.fit(model, data, guide=guide, method=method, device=options.device)
    objectives = {
        "vae": pv.ELBO(),
        "free_bits": pv.BetaELBO(free_bits=options.free_bits, warm_up=pv.LinearWarmUp(epochs=quarter)),
    }
    method = pv.SVI(epochs=options.epochs, objective=objectives[name], **svi)
    return pv.fit(model, data, guide=guide, method=method, device=options.device)


def measured(name: str, data: pv.Data, options: argparse.Namespace) -> dict[str, Any]:
    """A row of the result."""
    fit = fitted(name, data, options)
    steps = options.epochs * sum(1 for _ in data.train.steps(100, generator=torch.Generator(), reads=("x", "length")))
    if options.out is not None:
        pv.save_run(fit, data, Path(options.out) / name)
    found = fit.evaluate(data.test, samples=options.samples)
    bound = "log_likelihood" if name == "decoder" else "iwae"
    begun = time.perf_counter()
    fit.sample(100, length=data.spec.fields[0].longest)
    drawn = time.perf_counter() - begun
    active = None if name == "decoder" else int((fit.encode(data.test).var(0) > 0.01).sum())
    return {
        "model": name,
        "nats": found[bound],
        "nats_se": found[f"{bound}_se"],
        "nats_per_point": found[f"{bound}_per_token"],
        "elbo": found["elbo"],
        "kl": found["kl"],
        "active": active,
        "ms_per_step": 1000 * fit.history[-1]["seconds"] / steps,
        "seconds_for_100": drawn,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="by default sketch/omniglot_strokes.npz in the folder of the data sets")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--limit", type=int, help="so many training drawings alone, their own splits made of them")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--latent-dim", type=int, default=64)
    parser.add_argument("--components", type=int, default=20)
    parser.add_argument("--free-bits", type=float, default=8.0, help="nats a drawing")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--out", help="folder that each fit is saved in, with its pictures")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--samples", type=int, default=100, help="of the importance-weighted bound")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    series.add_json(parser)
    options = parser.parse_args()
    data = pv.load_data(options.data or os.fspath(pv.DataSource().folder / "sketch" / "omniglot_strokes.npz"))
    if options.limit is not None:
        data = pv.load_data(data.train.raw[: options.limit], kind="strokes")
    rows = []
    for name in options.models:
        rows.append(measured(name, data, options))
        shown = {key: round(value, 3) if isinstance(value, float) else value for key, value in rows[-1].items()}
        print(shown, file=sys.stderr, flush=True)
    settings = {"rows": repr(data), "torch": torch.__version__, "threads": torch.get_num_threads(), **vars(options)}
    series.tell({"settings": settings, "rows": rows}, options)


if __name__ == "__main__":
    main()
