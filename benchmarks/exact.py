"""Exact inference against its peers, in seconds of the processor, one thread each: `python -m benchmarks.exact --json`.

The network is ALARM (Beinlich et al. 1989), 37 nodes, as pgmpy ships it. Evidence: 50 rows of its own draws at 8 leaves; what
is timed is every other node's posterior. EM: 1000 rows of which 20 % of the entries are missing, seconds an iteration.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch

import ppl_vae as pv

QUESTIONS, LEAVES, ROWS = 50, 8, 1000
Given = dict[str, list[str]]


def alarm() -> str:
    """The text of the network.

    Raises:
        ImportError: pgmpy is not installed.
    """
    try:
        home = importlib.metadata.distribution("pgmpy")
    except importlib.metadata.PackageNotFoundError:
        raise ImportError("pgmpy, which ships ALARM, is absent: pip install 'ppl_vae[bench]'") from None
    return gzip.decompress(Path(str(home.locate_file("pgmpy/utils/example_models/alarm.bif.gz"))).read_bytes()).decode()


def timed(work: Callable[[], Any], rounds: int) -> float:
    """Median seconds of the processor, once warm."""
    work()
    seconds = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return median(seconds)


def ours(path: Path, given: Given, rounds: int) -> float:
    """All posteriors of all questions."""
    program = pv.BayesianNetwork.from_bif(path).declared()
    return timed(lambda: program.marginals(given, {}), rounds)


def pyagrum(path: Path, given: Given, rounds: int) -> float:
    """Lazy propagation, question by question."""
    import pyagrum as gum

    engine, names = gum.LazyPropagation(gum.loadBN(str(path))), list(gum.loadBN(str(path)).names())
    left = [name for name in names if name not in given]

    def work() -> None:
        for row in range(QUESTIONS):
            engine.setEvidence({name: values[row] for name, values in given.items()})
            engine.makeInference()
            for name in left:
                engine.posterior(name)

    return timed(work, rounds)


def pgmpy(path: Path, given: Given, rounds: int) -> float:
    """Variable elimination, node by node, of one question; as many times as there are questions."""
    from pgmpy.inference import VariableElimination
    from pgmpy.readwrite import BIFReader

    model = BIFReader(str(path)).get_model()
    engine, evidence = VariableElimination(model), {name: values[0] for name, values in given.items()}
    left = [name for name in model.nodes() if name not in given]
    return QUESTIONS * timed(lambda: [engine.query([name], evidence=evidence, show_progress=False) for name in left], 1)


def evidence_seconds(path: Path, network: pv.BayesianNetwork, rounds: int, absent: dict[str, str]) -> dict[str, float | None]:
    """Milliseconds of the processor for one question, by peer."""
    above = {parent for node in network.nodes.values() for parent in node.parents}
    leaves = [name for name in network.nodes if name not in above][:LEAVES]
    columns = network.sample(QUESTIONS)
    given = {name: columns[name].tolist() for name in leaves}
    found: dict[str, float | None] = {}
    for name, measure in {"ours": ours, "pyagrum": pyagrum, "pgmpy": pgmpy}.items():
        try:
            found[name] = 1e3 * measure(path, given, rounds) / QUESTIONS
        except ImportError as error:
            found[name], absent[name] = None, f"{error}: pip install 'ppl_vae[bench]'"
    return found


def em_seconds(path: Path, network: pv.BayesianNetwork, absent: dict[str, str]) -> dict[str, float | None]:
    """Seconds of the processor of an iteration of EM, by peer."""
    table = pd.DataFrame(network.sample(ROWS, seed=1)).astype(object)
    table = table.mask(np.random.default_rng(0).random(table.shape) < 0.2)
    nodes = {name: pv.Table(parents=node.parents, states=node.declared_states) for name, node in network.nodes.items()}
    data = pv.load_data(table, valid=0.0, test=0.0, missing="ignore")
    program = pv.BayesianNetwork(nodes=nodes).build(data.spec)
    problem = program.em(data.train.transformed())
    state = problem.start
    found: dict[str, float | None] = {"ours": timed(lambda: problem.step(state), 5)}
    try:
        import pyagrum as gum
    except ImportError as error:
        return {**found, "pyagrum": None} if absent.setdefault("pyagrum", str(error)) else found
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.csv"
        table.fillna("?").to_csv(file, index=False)
        model = gum.loadBN(str(path))
        began = time.process_time()
        learner = gum.BNLearner(str(file), model, ["?"])
        learner.useEMWithRateCriterion(1e-4)
        learner.useSmoothingPrior(1e-6)
        learner.learnParameters(model.dag())
        found["pyagrum"] = (time.process_time() - began) / max(1, learner.EMnbrIterations())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    torch.set_num_threads(1)
    absent: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "alarm.bif"
        try:
            path.write_text(alarm())
        except ImportError as error:
            print(json.dumps({"alarm": None, "absent": {"pgmpy": str(error)}}))
            return
        network = pv.BayesianNetwork.from_bif(path)
        found = {
            "ms_per_evidence": evidence_seconds(path, network, options.rounds, absent),
            "em_seconds": em_seconds(path, network, absent),
        }
    if options.json:
        print(json.dumps({"alarm": found, "absent": absent}))
        return
    for title, row in found.items():
        print(title, ", ".join(f"{peer} {'absent' if value is None else f'{value:.4g}'}" for peer, value in row.items()))


if __name__ == "__main__":
    main()
