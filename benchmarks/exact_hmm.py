"""Baum-Welch against hmmlearn and dynamax, seconds of the processor an iteration: `python -m benchmarks.exact_hmm --json`.

A hidden Markov model of 16 states over the characters of tinyshakespeare, 100,000 of them in rows of 200, all from one start.
hmmlearn is asked with `implementation="scaling"`, its fast one. log p of the start is compared with hmmlearn's.
"""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ppl_vae as pv
from benchmarks import series
from benchmarks.exact_timing import timed
from ppl_vae.data.matrices import Matrices
from ppl_vae.models.chains.hmm_program import HMMState

STATES, CHARACTERS, LENGTH, SEED = 16, 100_000, 200, 0
Start = tuple[np.ndarray, np.ndarray, np.ndarray]


def characters(number: int) -> tuple[np.ndarray, int]:
    """The first characters of the text as rows ``(N, T)`` of numbers, and how many there are.

    Raises:
        ValueError: the text is not where data are.
    """
    path = Path(os.environ.get("PPL_VAE_DATA", str(Path.home() / ".cache" / "ppl_vae"))) / "text" / "tinyshakespeare.txt"
    if not path.is_file():
        raise ValueError(f"expected the text of tinyshakespeare in {path}, got no such file: set PPL_VAE_DATA")
    text = path.read_text(encoding="utf-8")[:number]
    letters = sorted(set(text))
    codes = np.array([letters.index(letter) for letter in text])
    return codes.reshape(-1, LENGTH), len(letters)


def start(levels: int) -> Start:
    """First states, transitions and tables from Dirichlet distributions."""
    rng = np.random.default_rng(SEED)
    return (
        rng.dirichlet(np.full(STATES, 5.0)),
        rng.dirichlet(np.full(STATES, 5.0), STATES),
        rng.dirichlet(np.full(levels, 5.0), STATES),
    )


def ours(x: np.ndarray, parameters: Start, rounds: int) -> tuple[float, float]:
    """Seconds an iteration, and log p of the start, in nats."""
    levels = parameters[2].shape[1]
    rows = pv.Ragged(x.reshape(-1), np.arange(len(x) + 1) * x.shape[1])
    data = pv.load_data(rows, kind="categorical", valid=0.0, test=0.0)
    program = pv.HMM(states=STATES, emission=pv.Categorical(levels=levels)).build(data.spec)
    problem = program.em(Matrices(data.train, relative=True))
    initial, transition, table = (torch.from_numpy(part).log() for part in parameters)
    state = HMMState(initial, transition, (table,))
    return timed(lambda: problem.step(state), rounds), float(problem.step(state)[1]) * len(x)


def hmmlearn(x: np.ndarray, parameters: Start, rounds: int) -> tuple[float, float]:
    """Likewise."""
    from hmmlearn.hmm import CategoricalHMM

    model = CategoricalHMM(
        STATES, n_iter=1, tol=-np.inf, init_params="", implementation="scaling", n_features=parameters[2].shape[1]
    )
    column, lengths = x.reshape(-1, 1), [x.shape[1]] * len(x)

    def work() -> None:
        model.startprob_, model.transmat_, model.emissionprob_ = (part.copy() for part in parameters)
        model.fit(column, lengths)

    return timed(work, rounds), float(model.monitor_.history[0])


def dynamax(x: np.ndarray, parameters: Start, rounds: int) -> float:
    """Seconds an iteration, of five in one call, compiled before."""
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    import jax
    import jax.numpy as jnp
    from dynamax.hidden_markov_model import CategoricalHMM

    initial, transition, table = map(jnp.array, parameters)
    model = CategoricalHMM(STATES, 1, table.shape[1])
    found, properties = model.initialize(
        jax.random.PRNGKey(0), initial_probs=initial, transition_matrix=transition, emission_probs=table[:, None]
    )
    emissions, iterations = jnp.array(x)[..., None], 5

    def work() -> None:
        jax.block_until_ready(model.fit_em(found, properties, emissions, num_iters=iterations, verbose=False)[1])

    return timed(work, rounds) / iterations


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of an EM iteration by whom, and how far log p is from hmmlearn's, relatively."""
    rounds, number = options.rounds, LENGTH * 10 if options.small else CHARACTERS
    x, levels = characters(number)
    parameters = start(levels)
    absent, difference = {}, None
    own, log_prob = ours(x, parameters, rounds)
    seconds: dict[str, float | None] = {"ours": own, "hmmlearn": None, "dynamax": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            seconds["hmmlearn"], theirs = hmmlearn(x, parameters, rounds)
            difference = abs(log_prob - theirs) / abs(theirs)
        except ImportError as error:
            absent["hmmlearn"] = str(error)
        try:
            seconds["dynamax"] = dynamax(x, parameters, rounds)
        except ImportError as error:
            absent["dynamax"] = str(error)
    log_probs = {"ours_per_character": log_prob / x.size, "relative_difference_to_hmmlearn": difference}
    return {"em_seconds": seconds, "log_prob": log_probs, "absent": absent}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of which the median counts")
    parser.add_argument("--small", action="store_true", help="a size at which it runs at all, for tests")
    series.add_json(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {"hmm": measure(options)}
    if options.json:
        series.tell(found, options)
        return
    print(found)


if __name__ == "__main__":
    main()
