"""Three groups of latent variables against one of their total width, trained for equal seconds on MNIST.

Both have the networks of ``benchmarks/reproductions/hvae_mnist.yaml``, the lone group those of its bottom group. An epoch of
each is timed first, in seconds of this process's CPU (``--clock wall`` on a GPU), and each then trains as many epochs as fit in
the budget, its learning rate falling over all of them. Three groups are worth it if their importance-weighted bound on the test
data is 2 nats above that of the one, and each of them is used: KL above 0.1 nats.

    PPL_VAE_DATA=path/to/data python -m benchmarks.hierarchy --seconds 1500
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from typing import Any

import ppl_vae as pv
from benchmarks.reproduce import declared

CLOCKS = {"cpu": time.process_time, "wall": time.perf_counter}
WARM_UP, BETTER, USED = 0.2, 2.0, 0.1  # a part of all epochs; nats; nats


def models(norm: str) -> dict[str, Any]:
    """The hierarchy of the reproduction, and a lone group as wide as all of its groups together."""
    three = declared("hvae_mnist", epochs=None)["model"]
    groups = tuple(dataclasses.replace(group, network=dataclasses.replace(group.network, norm=norm)) for group in three.groups)
    one = dataclasses.replace(groups[-1], latent_dim=sum(group.latent_dim for group in groups))
    return {name: dataclasses.replace(three, groups=each) for name, each in (("three", groups), ("one", (one,)))}


def method(epochs: int, batch: int) -> pv.SVI:
    warm_up = pv.LinearWarmUp(epochs=max(WARM_UP * epochs, 1.0))
    return pv.SVI(epochs=epochs, batch_size=batch, objective=pv.BetaELBO(warm_up=warm_up))


def trained(model: pv.Model, data: pv.Data, options: argparse.Namespace) -> tuple[pv.Fit, dict[str, float]]:
    """A fit that takes the budget, by the time of the second of two epochs of a first fit."""
    clock = CLOCKS[options.clock]
    ends: list[float] = []
    pv.fit(model, data, method=method(2, options.batch), progress=lambda row: ends.append(clock()))
    epochs = max(1, round(options.seconds / (ends[1] - ends[0])))
    began = clock()
    fit = pv.fit(model, data, method=method(epochs, options.batch))
    return fit, {"epochs": epochs, "seconds": clock() - began}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1500.0, help="for each of the two trainings")
    parser.add_argument("--clock", choices=CLOCKS, default="cpu")
    parser.add_argument("--norm", choices=("none", "layer", "batch"), default="batch", help="of all networks")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--samples", type=int, default=500, help="of the importance-weighted bound")
    parser.add_argument("--limit", type=int, default=10000, help="of the test data")
    options = parser.parse_args()
    data = pv.load_data("mnist", binarize="dynamic", valid=0.0)
    found: dict[str, Any] = {}
    for name, model in models(options.norm).items():
        fit, cost = trained(model, data, options)
        test = data.test[: options.limit]
        sites = fit.latents(test, rows=2000).get("sites", {})
        kl = {site: round(numbers["kl"], 3) for site, numbers in sites.items()}
        found[name] = {**cost, **fit.evaluate(test, samples=options.samples), "kl_of_groups": kl}
        print(json.dumps({name: found[name]}), flush=True)
    gain, used = found["three"]["iwae"] - found["one"]["iwae"], min(found["three"]["kl_of_groups"].values())
    verdict = "worth it" if gain >= BETTER and used > USED else "not shown"
    print(f"three groups against one: {gain:+.2f} nats, the least used with {used:.2f} nats: {verdict}")


if __name__ == "__main__":
    main()
