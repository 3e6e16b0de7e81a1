"""One family, one table: the models of this library on the same binarized MNIST, in nats per image, each with its seconds.

Training images are binarized anew at every epoch, the 10,000 test images once. ``log p(x) >=`` is the importance-weighted
bound where there are latent variables to weigh, the ELBO itself where q is a point or the noise of a diffusion, and exact where
a model knows log p(x).

    PPL_VAE_DATA=path/to/data python -m benchmarks.family --out runs/family
    PPL_VAE_DATA=path/to/data python -m benchmarks.family --rows vae vq --effort 0.1 --test 1000 --json

A run that is there already is taken as it is, so that the table can be made row by row.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import ppl_vae as pv
from benchmarks import series

DATA = pv.DataSource(source="mnist", binarize="dynamic", valid=0.0)
WIDE = pv.MLP(hidden=(200, 200), activation="tanh")
NORMAL = pv.AmortizedNormal(encoder=WIDE)
STL = pv.ELBO(gradient="sticking_the_landing")


class Row(NamedTuple):
    """How a model is declared and fitted."""

    model: pv.Model
    guide: pv.Guide | None = None
    objective: pv.Objective = STL
    epochs: int = 60
    learning_rate: float | None = None


def vae(**parts: Any) -> pv.VAE:
    """That of Burda et al. (2016) and Cremer et al. (2018): 784-200-200-50."""
    return pv.VAE(**{"latent_dim": 50, "decoder": WIDE, "likelihood": pv.Bernoulli()} | parts)


ROWS: dict[str, Row] = {
    "mixture": Row(vae(prior=pv.OneHotCategorical(), decoder=pv.Linear()), pv.AmortizedCategorical(), pv.ELBO(), epochs=15),
    "factors": Row(vae(decoder=pv.Linear()), NORMAL),
    "vae": Row(vae(), NORMAL),
    "iwae": Row(vae(), NORMAL, pv.IWAE(samples=10, gradient="doubly_reparameterized")),
    "flow": Row(
        vae(),
        pv.AmortizedFlow(transform="iaf", layers=2, hidden=(200,), context=50, base=NORMAL, encoder=WIDE),
        pv.ELBO(),
        learning_rate=1e-3,
    ),
    "vamp": Row(vae(prior=pv.VampPrior(components=500)), NORMAL),
    "hierarchy": Row(
        pv.HierarchicalVAE(
            groups=(
                pv.Group(latent_dim=8, network=pv.MLP(hidden=(200,), activation="leaky_relu")),
                pv.Group(latent_dim=16, features=128, network=pv.MLP(hidden=(200,), activation="leaky_relu")),
                pv.Group(latent_dim=32, features=128, network=pv.MLP(hidden=(400,), activation="leaky_relu")),
            ),
        ),
        pv.TopDown(),
        pv.BetaELBO(warm_up=pv.LinearWarmUp(epochs=10)),
    ),
    "vq": Row(
        pv.VQVAE(
            codebook=pv.Codebook(size=128, dim=16, grid=(7, 7), rate=1.0, warm_up=2400),
            prior=pv.PixelCNN(channels=32, layers=5),
            likelihood=pv.Bernoulli(),
            decoder=pv.Conv(channels=(32, 64), blocks=1, spatial=True),
        ),
        objective=pv.ELBO(),
        epochs=18,
        learning_rate=1e-3,
    ),
    "diffusion": Row(
        pv.Diffusion(denoiser=pv.UNet(channels=(16, 32, 32)), likelihood=pv.Bernoulli()), objective=pv.ELBO(), epochs=10
    ),
    "pixels": Row(
        pv.SequenceModel(network=pv.PixelCNN(channels=32, layers=6), likelihood=pv.Bernoulli()), objective=pv.ELBO(), epochs=5
    ),
}
"""From the plainest to the richest; epochs are those that an hour of one core for all of them leaves."""


def fitted(name: str, out: Path, effort: float) -> pv.Fit:
    """The run of a row, fitted now if it is not there."""
    if (out / name / "metrics.json").is_file():
        return pv.load_run(out / name)
    row = ROWS[name]
    epochs = max(1, round(effort * row.epochs))
    method: pv.Method = pv.SVI(objective=row.objective, epochs=epochs, batch_size=100, learning_rate=row.learning_rate)
    data = pv.load_data(DATA)
    fit = pv.fit(row.model, data, guide=row.guide, method=method)
    pv.save_run(fit, data, out / name)
    return fit


def measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """A row's numbers on the test data."""
    fit = fitted(name, options.out, options.effort)
    test = fit.rows(fit.data, "test")[: options.test]
    began = time.perf_counter()
    numbers = fit.evaluate(test, samples=options.samples)
    return {
        "model": str(ROWS[name].model),
        "elbo": numbers.get("elbo", numbers.get("log_likelihood")),
        "bound": numbers.get("iwae", numbers.get("log_likelihood", numbers.get("elbo"))),
        "kl": numbers.get("kl"),
        "epochs": len(fit.history),
        "train_s": fit.history[-1]["seconds"],
        "evaluate_s": time.perf_counter() - began,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--out", type=Path, default=Path("runs/family"), help="the folder of the runs")
    parser.add_argument("--effort", type=float, default=1.0, help="share of the epochs")
    parser.add_argument("--test", type=int, default=10_000, help="test images")
    parser.add_argument("--samples", type=int, default=500, help="of the importance-weighted bound")
    series.add_json(parser)
    options = parser.parse_args()
    found = {}
    for name in options.rows:
        found[name] = row = measured(name, options)
        if not options.json:
            print(
                f"{name:10} ELBO {row['elbo']:9.2f}  log p(x) >= {row['bound']:9.2f}  KL {row['kl'] or 0:7.2f}  "
                f"{row['epochs']:4} epochs  {row['train_s']:6.0f} s",
                flush=True,
            )
    if options.json:
        series.tell(found, options)


if __name__ == "__main__":
    main()
