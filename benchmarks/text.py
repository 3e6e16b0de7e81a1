"""Text VAEs beside the language model of the same size, with each remedy against posterior collapse, in nats per sentence.

Protocol: 27,661 English sentences of tatoeba.org, shuffled, 25,000 to train on and half of the rest each to choose the epoch by
and to test; words, an LSTM of 256 as decoder and as encoder, 32 latent dimensions. All rows see the same data in as many
epochs, the learning rate along a half cosine, and are scored at their best validation epoch.

* ``language_model``: no code, log p(x) is exact.
* ``vae``: as is.
* ``warm_up``, ``cyclical``: the weight of the KL rises linearly over half of the epochs, or four times.
* ``free_bits``: ``free_bits`` nats free in all.
* ``word_dropout``: with the linear warm-up, a quarter of the words hidden from the decoder.
* ``both``: free bits and word dropout.
* ``ahead``: a quarter of the epochs with ten steps of the encoder before each of the decoder (He et al. 2019), then both at
  once.
* ``batch_norm``: the guide's means keep the deviation ``gamma`` over the data (Zhu et al. 2020).
* ``min_kl``: the guide's scales are so small that no sentence has a KL below this (Razavi et al. 2019).
* ``pretrained``: a quarter of the epochs as an autoencoder, without a KL; then with free bits (Li et al. 2019).

``--data synthetic`` makes sentences from a random LSTM with a known z of two dimensions, as in He et al. 2019; its row
``truth`` has log p(x) and the mutual information of z and x of the model that made them. ``intents`` is the accuracy of a
linear probe of the codes of CLINC150's requests for its 150 intents, which no model was fitted to.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings
from typing import Any

import torch

import ppl_vae as pv
from benchmarks import series
from ppl_vae.types import Field

REMEDIES = ("warm_up", "cyclical", "free_bits", "word_dropout", "both", "ahead", "batch_norm", "min_kl", "pretrained")
MODELS = ("language_model", "vae", *REMEDIES)
WARMED = ("warm_up", "word_dropout")
FREE = ("free_bits", "both", "pretrained")
FIRST: dict[str, dict[str, Any]] = {  # the stage before the other
    "ahead": {"alternate": "steps", "encoder_steps": 10},
    "pretrained": {"objective": pv.BetaELBO(beta=0.0)},
}
TRUE_WORDS, TRUE_LENGTH, PRIOR_DRAWS = 200, 20, 1000


def tatoeba(options: argparse.Namespace) -> pv.Data:
    """The sentences, cut into words."""
    lines = (pv.DataSource().folder / "text" / "tatoeba_en.tsv").read_text(encoding="utf-8").splitlines()
    order = torch.randperm(len(lines), generator=torch.Generator().manual_seed(0)).tolist()
    texts = [lines[place].split("\t")[0] for place in order[: options.limit]]
    held_out = (1 - min(25_000 / 27_661, 0.9)) / 2
    return pv.load_data(texts, tokens="words", vocabulary=options.vocabulary, valid=held_out, test=held_out)


class Truth:
    """A random LSTM with a code of two dimensions, and what it says of rows that it made."""

    def __init__(self, seed: int) -> None:
        name = Field(name="x", event_shape=(), kind="integer", ragged=True, buckets=(TRUE_LENGTH,), length="length")
        spec = pv.DataSpec(event_shape=(), kind="categorical", size=1, levels=TRUE_WORDS, fields=(name,))
        torch.manual_seed(seed)
        declared = pv.VAE(latent_dim=2, decoder=pv.LSTM(hidden=100), likelihood=pv.Tokens(levels=TRUE_WORDS, end=0))
        self.model: Any = declared.build(spec).eval()
        for parameter in self.model.parameters():
            torch.nn.init.uniform_(parameter, -0.5, 0.5)

    @torch.no_grad()
    def data(self, count: int) -> pv.Data:
        """So many rows."""
        x, length = self.model.decode(self.model.prior().sample((count,))).draw()
        x = x.long()
        words = ("<end>", *(f"w{place}" for place in range(1, TRUE_WORDS)))
        rows = pv.Ragged.from_list([row[:n].tolist() for row, n in zip(x, length, strict=True)], vocabulary=words)
        return pv.load_data(rows, kind="categorical", valid=0.05, test=0.05)

    @torch.no_grad()
    def row(self, split: pv.Split) -> dict[str, Any]:
        """Log p(x) by draws of the prior, and the mutual information of z and x, E[log p(x | z) - log p(x)] at p(z | x)."""
        total, information = [], []
        for x, length in split.read(("x", "length"), 50):
            inside = pv.sequence_mask(length, x.shape[1])
            prior = self.model.prior()
            draws = torch.stack([self.model.decode(prior.sample((len(x),)), inside).log_prob(x) for _ in range(PRIOR_DRAWS)])
            total.append(draws.logsumexp(0) - math.log(PRIOR_DRAWS))
            information.append((draws.softmax(0) * draws).sum(0) - total[-1])
        found, held = torch.cat(total).mean().item(), torch.cat(information).mean().item()
        tokens = 1.0 if split.sizes is None else split.sizes.double().mean().item()
        return {"model": "truth", "nats": found, "nats_per_token": found / tokens, "mutual_information": held}


def objective(name: str, options: argparse.Namespace) -> pv.Objective:
    """What is climbed."""
    half = max(1, options.epochs // 2)
    if name == "cyclical":
        return pv.BetaELBO(warm_up=pv.CyclicalWarmUp(epochs=max(4, half), cycles=4))
    warm_up = pv.LinearWarmUp(epochs=half) if name in WARMED else pv.NoWarmUp()
    return pv.BetaELBO(warm_up=warm_up, free_bits=options.free_bits if name in FREE else 0.0)


def fitted(name: str, data: pv.Data, options: argparse.Namespace) -> pv.Fit:
    """The model of that name."""
    svi: dict[str, Any] = {
        "batch_size": options.batch_size,
        "learning_rate": options.learning_rate,
        "clip_norm": 5.0,
        "schedule": "cosine",
        "restore_best": True,
        "seed": options.seed,
    }
    widths: dict[str, Any] = {"hidden": options.hidden, "embedding": options.embedding}
    word_dropout = 0.25 if name in ("word_dropout", "both") else 0.0
    network = pv.LSTM(projection=options.projection, dropout=options.dropout, word_dropout=word_dropout, **widths)
    if name == "language_model":
        method = pv.SVI(epochs=options.epochs, **svi)
        return pv.fit(pv.SequenceModel(network=network), data, method=method, device=options.device)
    model = pv.VAE(latent_dim=options.latent_dim, decoder=network, likelihood=pv.Tokens())
    guide = pv.AmortizedNormal(
        encoder=pv.LSTM(dropout=options.encoder_dropout, bidirectional=options.bidirectional, **widths),
        batch_norm_mean=options.gamma if name == "batch_norm" else None,
        min_kl=options.min_kl if name == "min_kl" else 0.0,
    )
    epochs = options.epochs if name != "vae" or options.plain_epochs is None else options.plain_epochs
    before = max(1, options.epochs // 4) if name in FIRST else 0
    method = pv.SVI(epochs=max(1, epochs - before), objective=objective(name, options), **svi)
    if not before:
        return pv.fit(model, data, guide=guide, method=method, device=options.device)
    first = pv.SVI(epochs=before, **FIRST[name], **{**svi, "restore_best": False, "schedule": "constant"})
    return pv.fit(model, data, guide=guide, method=pv.Stages(methods=(first, method)), device=options.device)


def intents(fit: pv.Fit, options: argparse.Namespace) -> float:
    """Accuracy of a linear probe on CLINC150."""
    file = pv.DataSource().folder / "text" / "clinc150_data_full.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    splits = []
    for part in ("train", "test"):
        stride = max(1, len(found[part]) // (options.requests or len(found[part])))  # they come intent by intent
        texts, labels = zip(*found[part][::stride], strict=True)
        splits.append(pv.load_data(list(texts), y=list(labels), tokens="words", valid=0.0, test=0.0).train)
    return float(fit.probe(*splits, seed=options.seed)["accuracy"])


def measured(name: str, data: pv.Data, options: argparse.Namespace) -> dict[str, Any]:
    """A row of the result."""
    fit = fitted(name, data, options)
    seconds = fit.history[-1]["seconds"]
    if name == "language_model":
        found = fit.evaluate(data.test)
        exact = found["log_likelihood"]
        row = {"elbo": exact, "nats": exact, "nats_se": found["log_likelihood_se"]}
        row |= {"nats_per_token": found["log_likelihood_per_token"], "perplexity": found["perplexity"], "kl": 0.0}
        return {"model": name, **row, "seconds": seconds}
    found = fit.evaluate(data.test, samples=options.samples)
    held = fit.latents(data.test)
    row = {name: found[key] for name, key in (("elbo", "elbo"), ("nats", "iwae"), ("nats_se", "iwae_se"))}
    row |= {"nats_per_token": found["iwae_per_token"], "perplexity": found["perplexity"], "kl": found["kl"], "seconds": seconds}
    row |= {key: held.get(key) for key in ("mutual_information", "active_units")}
    return {"model": name, **row, "intents": intents(fit, options) if options.data == "tatoeba" else None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("tatoeba", "synthetic"), default="tatoeba")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--limit", type=int, default=None, help="of the sentences; of synthetic ones 16,000 by default")
    parser.add_argument("--requests", type=int, default=None, help="of CLINC150, of each of its splits")
    parser.add_argument("--vocabulary", type=int, default=5000)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--embedding", type=int, default=128)
    parser.add_argument("--projection", type=int, default=128, help="before the vocabulary")
    parser.add_argument("--bidirectional", action="store_true", help="the encoder")
    parser.add_argument("--latent-dim", type=int, default=32)
    parser.add_argument("--free-bits", type=float, default=4.0, help="nats in all")
    parser.add_argument("--gamma", type=float, default=0.5, help="deviation of batch-normalized means")
    parser.add_argument("--min-kl", type=float, default=2.0, help="nats of every sentence")
    parser.add_argument("--dropout", type=float, default=0.35, help="of the decoder and the language model")
    parser.add_argument("--encoder-dropout", type=float, default=0.2)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--plain-epochs", type=int, default=None, help="of the VAE as is, where fewer show its collapse")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--samples", type=int, default=500, help="of the importance-weighted bound")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    series.add_json(parser)
    options = parser.parse_args()
    if options.json:
        warnings.simplefilter("ignore", pv.FitWarning)
    truth = Truth(options.seed) if options.data == "synthetic" else None
    data = truth.data(options.limit or 16_000) if truth else tatoeba(options)
    rows: list[dict[str, Any]] = [truth.row(data.test)] if truth else []
    for name in options.models:
        rows.append(measured(name, data, options))
        shown = {key: round(value, 3) if isinstance(value, float) else value for key, value in rows[-1].items()}
        print(shown, file=sys.stderr, flush=True)
    settings = {"rows": repr(data), "torch": torch.__version__, "threads": torch.get_num_threads(), **vars(options)}
    series.tell({"settings": settings, "rows": rows}, options)


if __name__ == "__main__":
    main()
