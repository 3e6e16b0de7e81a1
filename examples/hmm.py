"""The occasionally dishonest casino (Durbin, Eddy, Krogh and Mitchison 1998): which rolls are of the loaded die?

A hidden Markov model of two states over rows of rolls, by EM and by SVI, which climb the same log p(x), beside Markov chains
that count. Nats per roll of test rows; then how often the smoothed states and the most probable path name the die that was
rolled, and what is forecast after many sixes.
"""

from __future__ import annotations

import argparse

import numpy as np

import ppl_vae as pv

STAY = np.array([0.95, 0.9])
SIDES = np.array([[1 / 6] * 6, [0.1] * 5 + [0.5]])


def rolled(rng: np.random.Generator, rolls: int) -> tuple[np.ndarray, np.ndarray]:
    """Dice and what they show."""
    dice = [int(rng.integers(2))]
    while len(dice) < rolls:
        dice.append(dice[-1] if rng.random() < STAY[dice[-1]] else 1 - dice[-1])
    return np.array(dice), np.array([rng.choice(6, p=SIDES[die]) for die in dice])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--iterations", type=int, default=300, help="of EM, at most")
    parser.add_argument("--epochs", type=int, default=30, help="of SVI")
    options = parser.parse_args()

    rng = np.random.default_rng(0)
    rows = [rolled(rng, int(rng.integers(50, 100))) for _ in range(options.rows)]
    dice, rolls = zip(*rows[: options.rows // 2], strict=True)
    train = pv.load_data(pv.Ragged.from_list([row for _, row in rows[options.rows // 2 :]]), kind="categorical", test=0.0)
    test = pv.Ragged.from_list(rolls)

    models = {
        "Markov chain of order 0": (pv.MarkovChain(order=0), pv.ClosedForm()),
        "Markov chain of order 1": (pv.MarkovChain(order=1), pv.ClosedForm()),
        "HMM of 2 states, SVI": (pv.HMM(states=2), pv.SVI(epochs=options.epochs, batch_size=50)),
        "HMM of 2 states, EM": (pv.HMM(states=2, stickiness=10.0), pv.EM(max_iterations=options.iterations, n_init=2)),
    }
    for name, (model, method) in models.items():
        fit = pv.fit(model, train, method=method)
        numbers = fit.evaluate(test)
        print(f"{name:24s} {numbers['log_likelihood_per_token']:.4f} +- {numbers['log_likelihood_per_token_se']:.4f}")

    truth = np.concatenate(dice)
    smoothed = fit.encode(test).values.argmax(1).numpy()
    path = fit.encode(test, path=True).values.numpy()
    for name, found in (("smoothed states", smoothed), ("most probable path", path)):
        right = (found == truth).mean()
        print(f"{name}: the die of {100 * max(right, 1 - right):.0f} % of the rolls")
    forecasts = fit.sample(2000, given=np.full(8, 5), length=9)
    print(f"after eight sixes the next one is forecast with {100 * (forecasts.values[8::9] == 5).float().mean():.0f} %")


if __name__ == "__main__":
    main()
