"""The gallery: a small model of each family, its number in nats per test row, and a picture of it 360 pixels wide.

Digits as bits, levels or counts wherever a family takes them, else sentences of a made grammar, triangles, made patients. A
number is log p(x) itself (=), or the ELBO, which log p(x) is not below (>=); numbers of one and the same data compare.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps

import ppl_vae as pv
from ppl_vae import plots
from ppl_vae.runs.pictures import run_pictures

BITS, STILL, SMOOTH, LEVELS = {"binarize": "dynamic"}, {"binarize": "static"}, {"dequantize": "static"}, {"kind": "categorical"}
SVI, WARM = pv.SVI(epochs=60), pv.SVI(epochs=60, objective=pv.BetaELBO(warm_up=pv.LinearWarmUp(epochs=40)))
FREE, GREY = pv.SVI(epochs=60, learning_rate=3e-3, objective=pv.BetaELBO(free_bits=3.0)), pv.Categorical(levels=17)
LSTM, READER = pv.LSTM(hidden=32), pv.AmortizedNormal(encoder=pv.LSTM(hidden=32, bidirectional=True))
PIXELS, CODES = pv.PixelCNN(channels=16, layers=3, dropout=0.2), pv.Codebook(size=32, dim=16, grid=(4, 4))
ASIA = pv.BayesianNetwork.from_yaml(Path(__file__).parents[1].joinpath("models", "asia.yaml").read_text(encoding="utf-8"))
WORDS = ("the a", "old small red", "cat dog king", "sees likes hears", "the a", "blue tall", "bird tree ship", ". !")
FAMILIES = {  # data, model, guide, method, and the picture: one of a run's, or one that is made below
    "mixture": (SMOOTH, pv.GMM(components=30, covariance="diagonal"), None, pv.EM(), "means"),
    "factors": (SMOOTH, pv.FactorAnalysis(latent_dim=8), None, pv.EM(), "loadings"),
    "vae": (BITS, pv.VAE(latent_dim=2), None, SVI, "plane"),
    "conditional": (BITS, pv.CVAE(latent_dim=8), None, SVI, "samples"),
    "codes": (BITS, pv.VQVAE(codebook=CODES, prior=PIXELS, decoder=pv.Conv(channels=(32,), spatial=True)), None, SVI, "codes"),
    "hierarchy": (BITS, pv.HierarchicalVAE(groups=(pv.Group(latent_dim=2), pv.Group(latent_dim=8))), None, WARM, "from z2"),
    "text": ("grammar", pv.VAE(latent_dim=8, decoder=LSTM, likelihood=pv.Tokens()), READER, FREE, "between"),
    "sketch": ("triangles", pv.VAE(latent_dim=8, decoder=LSTM, likelihood=pv.Strokes(components=5)), READER, FREE, "samples"),
    "topics": ({"kind": "count"}, pv.LDA(topics=16), None, pv.CAVI(sweeps=20), "topics"),
    "graph": ("patients", ASIA, None, pv.ClosedForm(), "graph"),
    "lattice": (STILL, pv.Ising(shape=(8, 8), coupling=0.5, observed=pv.Flip(rate=0.1)), None, pv.ClosedForm(), "denoised"),
    "chain": ("grammar", pv.HMM(states=12), None, pv.EM(n_init=10), "emissions"),
    "diffusion": (LEVELS, pv.Diffusion(steps=100, predicts="levels", likelihood=GREY), None, SVI, "samples"),
    "pixels": (BITS, pv.SequenceModel(network=PIXELS, likelihood=pv.Bernoulli()), None, SVI, "samples"),
}
OWN = {
    "means": lambda fit, x: plots.grid(fit.decode(torch.eye(30)), columns=10, kind="real", title="means of the components"),
    "loadings": lambda fit, x: plots.grid(fit.pair.model.rotated_loadings().T.reshape(8, 8, 8), columns=4, kind="real"),
    "plane": lambda fit, x: plots.manifold(fit.decode(plots.quantile_grid(12).reshape(12, 12, 2)), kind="binary"),
    "from z2": lambda fit, x: plots.comparison(x[:20].x, fit.decode({"z2": fit.encode(x[:20])["z2"]}), kind="binary"),
    "between": lambda fit, x: plots.texts(fit.interpolate(x[0], x[1], steps=7).decoded),
    "topics": lambda fit, x: plots.grid(torch.tensor(fit.parameters()["topic"].values).reshape(-1, 8, 8), kind="real"),
    "denoised": lambda fit, x: plots.comparison(x[:20].x[:, 0], (fit.encode(x[:20]) + 1) / 2, kind="unit_interval"),
}


def rows(what):
    rng = np.random.default_rng(0)
    if what == "grammar":  # such as: the old cat sees a tall tree .
        return pv.load_data([" ".join(rng.choice(words.split()) for words in WORDS) for _ in range(800)], tokens="words")
    if what == "triangles":
        offsets = [np.diff(rng.uniform(-50, 50, (3, 2))[[0, 1, 2, 0]], axis=0, prepend=0) for _ in range(800)]
        return pv.load_data(pv.Ragged.from_list([np.c_[row, [0, 0, 0, 1]].round() for row in offsets]), kind="strokes")
    return pv.load_data(pd.DataFrame(ASIA.sample(2000))) if what == "patients" else pv.load_data("digits", **what)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--out", type=Path, default=Path("gallery"), help="folder of the pictures")
    options = parser.parse_args()
    for name, (what, model, guide, method, shown) in ((name, FAMILIES[name]) for name in options.only):
        fit = pv.fit(model, data := rows(what), guide=guide, method=method)
        sign, key = ("=", "log_likelihood") if "log_likelihood" in (found := fit.evaluate(data.test)) else (">=", "elbo")
        print(f"{name:12}{sign:>3}{found[key]:9.2f} +- {found[key + '_se']:.2f} nats,{fit.history[-1]['seconds']:6.1f} s")
        path = options.out / f"{name}.png"
        plots.save(OWN[shown](fit, data.test) if shown in OWN else dict(run_pictures(fit, data))[shown], path)
        image = Image.open(path).convert("RGB")
        image = image.crop(ImageOps.invert(image).getbbox())
        ImageOps.contain(image, (360, 720)).quantize(32).save(path, optimize=True)


if __name__ == "__main__":
    main()
