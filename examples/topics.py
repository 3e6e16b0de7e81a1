"""Topics of documents by mean field, in stochastic steps, collapsed, and by ProdLDA: completion beside what each bound says.

UCI's KOS, blog entries of the year 2004, if PPL_VAE_DATA names a folder with `bow_kos`; else digits, whose words are pixels.
Completion is the log-predictive of a word of one half of a document given the other, in nats: the same question to all.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

import ppl_vae as pv
from ppl_vae import plots


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topics", type=int, default=20)
    parser.add_argument("--sweeps", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=20, help="of ProdLDA")
    parser.add_argument("--data", help="a file of counts, or the name of a data set")
    parser.add_argument("--out", help="where a picture of the collapsed topics goes, a .png")
    options = parser.parse_args()

    kos = Path(os.environ.get("PPL_VAE_DATA", "")) / "bow_kos" / "docword.kos.txt.gz"
    data = pv.load_data(options.data or (str(kos) if kos.is_file() else "digits"), kind="count")
    lda = pv.LDA(topics=options.topics)
    prod_lda = pv.VAE(
        latent_dim=options.topics,
        prior=pv.LogisticNormal(),
        decoder=pv.Linear(bias=False, batch_norm=True),
        likelihood=pv.Multinomial(),
    )
    fits = {
        "mean field": pv.fit(lda, data, method=pv.CAVI(sweeps=options.sweeps)),
        "stochastic": pv.fit(lda, data, method=pv.CAVI(sweeps=max(1, options.sweeps // 5), batch_size=128)),
        "collapsed": pv.fit(lda, data, method=pv.CAVI(sweeps=2 * options.sweeps, collapsed=True)),
        "ProdLDA": pv.fit(prod_lda, data, method=pv.SVI(epochs=options.epochs)),
    }
    print(f"{'':12}{'ELBO per word':>14}{'completion':>12}{'NPMI':>8}{'seconds':>9}")
    for name, fit in fits.items():
        n = fit.evaluate(data.test)
        seconds = fit.history[-1]["seconds"]
        print(f"{name:12}{n['elbo_per_word']:14.3f}{n['completion']:12.3f}{n['npmi']:8.3f}{seconds:9.1f}")

    topics = torch.from_numpy(fits["collapsed"].parameters()["topic"].values)
    names = data.spec.columns or tuple(f"x{place}" for place in range(1, topics.shape[1] + 1))
    sizes = fits["collapsed"].encode(data.train).double().mean(0)
    print("\nthe largest topics:")
    for topic in sizes.topk(min(5, len(sizes))).indices.tolist():
        print(f"{100 * sizes[topic]:5.1f} %  {', '.join(names[word] for word in topics[topic].topk(8).indices.tolist())}")
    if options.out:
        plots.save(plots.topics(topics, sizes, data.spec.columns), options.out)


if __name__ == "__main__":
    main()
