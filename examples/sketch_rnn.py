"""Sketch-RNN beside the same decoder without a code: drawings in nats, and drawn again.

Both models give every point of a drawing given those before it, by an LSTM and a mixture of bivariate normals times the state
of the pen. The VAE's decoder also sees a code of the whole drawing, which its encoder reads from it. A row of the table is a
model: the bound on log p(x) per drawing and per point, in nats of the source's units (a density: it may be positive), and the
KL. What the code is worth shows where the importance-weighted bound is above the other's log-likelihood; a KL of 0 says that
the decoder does without it.

The pictures: drawings and what is drawn from their codes at three temperatures, drawings that were begun and are gone on with,
and what lies between two codes. Ha and Eck 2018, "A neural representation of sketch drawings".
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import ppl_vae as pv
from ppl_vae import plots
from ppl_vae.runs.pictures import run_pictures

SHOWN = ("data", "reconstructions", "samples", "completions", "interpolations")


def shapes(n: int) -> pv.Ragged:
    """Polygons of 3 to 6 corners of different sizes, half of them crossed by a line, as a shaky hand draws them."""
    rng = np.random.default_rng(0)
    drawings = []
    for corners in rng.integers(3, 7, n):
        angle = 2 * np.pi * (np.arange(corners + 1) / corners + rng.random())
        strokes = [rng.uniform(20, 60) * np.stack([np.cos(angle), np.sin(angle)], 1)]
        strokes += [np.array([[-60.0, 0.0], [60.0, 0.0]])] * int(rng.integers(2))
        pen = np.concatenate([np.arange(len(stroke)) == len(stroke) - 1 for stroke in strokes])
        places = np.concatenate(strokes) + rng.normal(0, 2, (len(pen), 2))
        drawings.append(np.concatenate([np.diff(places, axis=0, prepend=0), pen[:, None]], 1).round())
    return pv.Ragged.from_list(drawings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="drawings: .npz, of the published files too, or .ndjson; by default polygons are made")
    parser.add_argument("--limit", type=int, help="use so many drawings alone, or make so many")
    parser.add_argument("--latent-dim", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--components", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--samples", type=int, default=20, help="of the importance-weighted bound")
    parser.add_argument("--out", default="sketches", help="folder of the pictures")
    options = parser.parse_args()

    data = pv.load_data(shapes(options.limit or 2000) if options.data is None else options.data, kind="strokes")
    if options.data is not None and options.limit is not None:
        data = pv.load_data(data.train.raw[: options.limit], kind="strokes")
    print(data, f"offsets divided by {float(data.train.transform.scale[0]):.4g}")
    network, likelihood = pv.LSTM(hidden=options.hidden), pv.Strokes(components=options.components)
    method = pv.SVI(
        epochs=options.epochs,
        clip_norm=1.0,
        objective=pv.BetaELBO(free_bits=0.2, warm_up=pv.LinearWarmUp(epochs=max(1, options.epochs // 4))),
    )
    alone = pv.fit(pv.SequenceModel(network=network, likelihood=likelihood), data, method=pv.SVI(epochs=options.epochs))
    model = pv.VAE(latent_dim=options.latent_dim, decoder=network, likelihood=likelihood)
    guide = pv.AmortizedNormal(encoder=pv.LSTM(hidden=options.hidden // 2, bidirectional=True))
    coded = pv.fit(model, data, guide=guide, method=method)

    print(f"{'':14}{'a drawing':>12}{'a point':>10}{'KL':>8}")
    for name, fit, bound in (("decoder alone", alone, "log_likelihood"), ("Sketch-RNN", coded, "iwae")):
        numbers = fit.evaluate(data.test, samples=options.samples)
        print(f"{name:14}{numbers[bound]:12.2f}{numbers[bound + '_per_token']:10.3f}{numbers['kl']:8.2f}")
    for name, figure in run_pictures(coded, data):
        if name in SHOWN:
            for suffix in ("png", "svg"):
                plots.save(figure, Path(options.out) / f"{name}.{suffix}")
    print(f"pictures in {options.out}")


if __name__ == "__main__":
    main()
