"""From counting to a recurrent network: what each earlier character is worth, in nats per character of held-out text.

Markov chains by counting, a hidden Markov model by EM, causal convolutions and an LSTM by gradients, all on the same rows of
one text. Every number is an exact log p(x).
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import ppl_vae as pv

TEXT = (
    "Tomorrow, and tomorrow, and tomorrow,\nCreeps in this petty pace from day to day\nTo the last syllable of recorded time,\n"
    "And all our yesterdays have lighted fools\nThe way to dusty death. Out, out, brief candle!\nLife's but a walking shadow, "
    "a poor player\nThat struts and frets his hour upon the stage\nAnd then is heard no more: it is a tale\nTold by an idiot, "
    "full of sound and fury,\nSignifying nothing.\n"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, default=None, help="a text; by default text/tinyshakespeare.txt of $PPL_VAE_DATA")
    parser.add_argument("--characters", type=int, default=1_200_000, help="of it that are taken")
    parser.add_argument("--chunk", type=int, default=256, help="characters of a row")
    parser.add_argument("--orders", type=int, nargs="+", default=[0, 1, 2, 3, 4, 5])
    parser.add_argument("--states", type=int, nargs="+", default=[16])
    parser.add_argument("--epochs", type=int, default=11)
    parser.add_argument("--hidden", type=int, default=128)
    options = parser.parse_args()

    found = options.file or Path(os.environ.get("PPL_VAE_DATA", "")) / "text" / "tinyshakespeare.txt"
    text = (found.read_text(encoding="utf-8") if found.is_file() else TEXT * 20)[: options.characters]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "text.txt")
        path.write_text(text, encoding="utf-8")
        data = pv.load_data(path, chunk=options.chunk)  # training rows, then those to validate and to test, as they stand

    svi = pv.SVI(epochs=options.epochs, batch_size=16)
    models: dict[str, tuple[pv.Model, pv.Method]] = {
        **{
            f"Markov chain of order {order}": (
                pv.MarkovChain(order=order, pseudo_counts=0.05, spread="shorter"),
                pv.ClosedForm(),
            )
            for order in options.orders
        },
        **{f"HMM of {states} states": (pv.HMM(states=states), pv.EM(max_iterations=20)) for states in options.states},
        "causal convolutions": (pv.SequenceModel(network=pv.CausalConv(hidden=options.hidden)), svi),
        "LSTM": (pv.SequenceModel(network=pv.LSTM(hidden=options.hidden)), svi),
    }
    print(f"{'nats per character':28}{'train':>8}{'test':>8}{'perplexity':>12}{'seconds':>9}")
    for name, (model, method) in models.items():
        fit = pv.fit(model, data, method=method)
        train, test = fit.evaluate(data.train, limit=200), fit.evaluate(data.test)
        each = "log_likelihood_per_token"
        seconds = fit.history[-1]["seconds"]
        print(f"{name:28}{-train[each]:8.3f}{-test[each]:8.3f}{test['perplexity']:12.2f}{seconds:9.1f}")
    print("\nthe LSTM goes on:", fit.sample(1, given="To ", length=200)[0], sep="\n")


if __name__ == "__main__":
    main()
