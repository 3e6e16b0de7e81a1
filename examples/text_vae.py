"""A VAE of sentences beside the language model that it has to beat, with and without what helps against posterior collapse.

Sentences are made by a small grammar, or are the first ones of a file, one a line or in the first column of a .tsv file.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import torch

import ppl_vae as pv

PARTS = (
    ("the cat", "a dog", "my neighbour", "the old captain", "she", "nobody"),
    ("sees", "likes", "follows", "never forgets", "paints"),
    ("the sea", "a red house", "the moon", "his brother", "an orange"),
    ("", "at night", "in the garden", "without a word"),
)


def sentences(path: Path | None, limit: int) -> list[str]:
    """Of a file, or of the grammar."""
    if path is None:
        return [" ".join(filter(None, words)) + " ." for words in itertools.product(*PARTS)][:limit]
    lines = [line.split("\t")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    order = torch.randperm(len(lines), generator=torch.Generator().manual_seed(0)).tolist()
    return [lines[place] for place in order[:limit] if lines[place]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, default=None, help="of sentences")
    parser.add_argument("--limit", type=int, default=3000, help="of the sentences")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--latent-dim", type=int, default=8)
    parser.add_argument("--samples", type=int, default=50, help="of the importance-weighted bound")
    options = parser.parse_args()

    data = pv.load_data(sentences(options.file, options.limit), tokens="words")
    guide = pv.AmortizedNormal(encoder=pv.LSTM(hidden=options.hidden, bidirectional=True))

    def method(**objective: object) -> pv.SVI:
        return pv.SVI(epochs=options.epochs, batch_size=32, learning_rate=5e-3, objective=pv.BetaELBO(**objective))  # type: ignore[arg-type]

    def vae(word_dropout: float) -> pv.VAE:
        decoder = pv.LSTM(hidden=options.hidden, word_dropout=word_dropout)
        return pv.VAE(latent_dim=options.latent_dim, decoder=decoder, likelihood=pv.Tokens())

    warm_up = pv.LinearWarmUp(epochs=max(1, options.epochs // 2))
    language = pv.fit(pv.SequenceModel(network=pv.LSTM(hidden=options.hidden)), data, method=method())
    fits = {
        "VAE": pv.fit(vae(0.0), data, guide=guide, method=method()),
        "+ warm-up": pv.fit(vae(0.0), data, guide=guide, method=method(warm_up=warm_up)),
        "+ free bits, word dropout": pv.fit(vae(0.4), data, guide=guide, method=method(warm_up=warm_up, free_bits=0.5)),
    }

    print(f"{'nats per sentence':28}{'ELBO':>9}{'log p(x) >=':>13}{'KL':>7}{'active units':>14}{'per token':>11}")
    exact = language.evaluate(data.test)
    numbers = exact["log_likelihood"], exact["log_likelihood_per_token"]
    print(f"{'language model':28}{numbers[0]:9.2f}{numbers[0]:13.2f}{0:7.2f}{'':>14}{numbers[1]:11.3f}")
    for name, fit in fits.items():
        found, units = fit.evaluate(data.test, samples=options.samples), fit.latents(data.test)["active_units"]
        print(f"{name:28}{found['elbo']:9.2f}{found['iwae']:13.2f}{found['kl']:7.2f}{units:14}{found['iwae_per_token']:11.3f}")

    z = fit.encode(data.test[:2])
    line = torch.lerp(z[0], z[1], torch.linspace(0, 1, 5)[:, None])
    print("\nbetween two sentences:", *fit.decode(line), sep="\n  ")
    print("\nnew ones:", *fit.sample(3), sep="\n  ")


if __name__ == "__main__":
    main()
