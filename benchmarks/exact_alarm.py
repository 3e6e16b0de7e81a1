"""Exact posteriors and EM of a network: ALARM (Beinlich et al. 1989), 37 nodes, as pgmpy ships it.

Evidence: 50 rows of its own draws at 8 leaves; what is timed is every other node's posterior given each. Ours and nbn answer
the rows in one batch, pyAgrum and pgmpy one after the other, the latter only some of them. EM: 1000 rows of which 20 % of the
entries are missing, seconds an iteration. All seconds are the processor's. The largest difference between our posteriors and
pyAgrum's, given 50 such rows, is told of ALARM and of other networks that pgmpy ships.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

import ppl_vae as pv
from benchmarks.exact_timing import absence, timed

QUESTIONS, LEAVES, ROWS = 50, 8, 1000
NETWORKS = ("asia", "alarm", "insurance", "hailfinder")
AFTER_EACH_OTHER = 5  # questions of a peer that is slow


class Task(NamedTuple):
    """The network's file, and the states of its leaves in each question."""

    path: Path
    given: dict[str, list[str]]

    @property
    def questions(self) -> int:
        """How many there are."""
        return len(next(iter(self.given.values())))

    def row(self, place: int) -> dict[str, str]:
        """One question."""
        return {name: values[place] for name, values in self.given.items()}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds for one question and seconds for an iteration of EM, by peer."""
    absent: dict[str, str] = {}
    count = 4 if options.small else QUESTIONS
    with tempfile.TemporaryDirectory() as folder:
        try:
            tasks = {name: task_of(name, Path(folder), count) for name in NETWORKS}
        except ImportError as error:
            return {"ms_per_evidence": {}, "em_seconds": {}, "difference": {}, "absent": {"pgmpy": str(error)}}
        task = tasks["alarm"]
        peers = {"ours": ours, "pyagrum": pyagrum, "pgmpy": pgmpy, "nbn": nbn}
        asked = {name: milliseconds(name, peer, task, options.rounds, absent) for name, peer in peers.items()}
        fitted = em_seconds(task.path, pv.BayesianNetwork.from_bif(task.path), 50 if options.small else ROWS, absent)
        found = {} if "pyagrum" in absent else {name: difference(each) for name, each in tasks.items()}
    return {"ms_per_evidence": asked, "em_seconds": fitted, "difference": found, "absent": absent}


def task_of(name: str, folder: Path, count: int) -> Task:
    """So many questions to a network that pgmpy ships.

    Raises:
        ImportError: pgmpy is not installed.
    """
    try:
        home = importlib.metadata.distribution("pgmpy")
    except importlib.metadata.PackageNotFoundError:
        raise ImportError(f"pgmpy, which ships {name}, is absent: pip install 'ppl_vae[bench]'") from None
    path = folder / f"{name}.bif"
    path.write_bytes(gzip.decompress(Path(str(home.locate_file(f"pgmpy/utils/example_models/{name}.bif.gz"))).read_bytes()))
    network = pv.BayesianNetwork.from_bif(path)
    above = {parent for node in network.nodes.values() for parent in node.parents}
    columns = network.sample(count)
    leaves = [node for node in network.nodes if node not in above][:LEAVES]
    return Task(path, {node: columns[node].tolist() for node in leaves})


def difference(task: Task) -> float:
    """The largest between any two posterior probabilities, ours and pyAgrum's, node by node and question by question."""
    import pyagrum as gum

    model = gum.loadBN(str(task.path))
    engine = gum.LazyPropagation(model)
    program = pv.BayesianNetwork.from_bif(task.path).declared()
    found, largest = program.marginals(task.given, {}), 0.0
    for place in range(task.questions):
        engine.setEvidence(task.row(place))
        engine.makeInference()
        for name in set(model.names()) - set(task.given):
            order = [program.states_of[name].names.index(state) for state in model.variable(name).labels()]
            gap = np.abs(found[name][place].numpy()[order] - engine.posterior(name).toarray()).max()
            largest = max(largest, float(gap))
    return largest


def milliseconds(
    name: str, peer: Callable[[Task, int], float], task: Task, rounds: int, absent: dict[str, str]
) -> float | None:
    """For one question; none if the peer is absent."""
    try:
        return 1e3 * peer(task, rounds)
    except ImportError as error:
        absent[name] = absence(error)
        return None


def ours(task: Task, rounds: int) -> float:
    """All questions in one batch."""
    program = pv.BayesianNetwork.from_bif(task.path).declared()
    return timed(lambda: program.marginals(task.given, {}), rounds) / task.questions


def pyagrum(task: Task, rounds: int) -> float:
    """Lazy propagation, question by question."""
    import pyagrum as gum

    model = gum.loadBN(str(task.path))
    engine = gum.LazyPropagation(model)
    left = [name for name in model.names() if name not in task.given]

    def work() -> None:
        for place in range(task.questions):
            engine.setEvidence(task.row(place))
            engine.makeInference()
            for name in left:
                engine.posterior(name)

    return timed(work, rounds) / task.questions


def pgmpy(task: Task, rounds: int) -> float:
    """Variable elimination, node by node, of some of the questions, once."""
    from pgmpy.inference import VariableElimination
    from pgmpy.readwrite import BIFReader

    model = BIFReader(str(task.path)).get_model()
    engine = VariableElimination(model)
    left = [name for name in model.nodes() if name not in task.given]
    engine.query(left[:1], evidence=task.row(0), show_progress=False)
    questions = min(task.questions, AFTER_EACH_OTHER)
    began = time.process_time()
    for place in range(questions):
        for name in left:
            engine.query([name], evidence=task.row(place), show_progress=False)
    return (time.process_time() - began) / questions


def nbn(task: Task, rounds: int) -> float:
    """Variable elimination of all questions in one batch, node by node."""
    from nbn import NeuralBayesianNetwork, TensorVariableElimination

    model, engine = NeuralBayesianNetwork.from_bif(str(task.path), device="cpu"), TensorVariableElimination()
    states = {name: node.declared_states for name, node in pv.BayesianNetwork.from_bif(task.path).nodes.items()}
    evidence = {name: torch.tensor([states[name].index(value) for value in values]) for name, values in task.given.items()}
    left = [name for name in states if name not in evidence]
    return timed(lambda: [model.query_batch([name], evidence, engine=engine) for name in left], rounds) / task.questions


def em_seconds(path: Path, network: pv.BayesianNetwork, rows: int, absent: dict[str, str]) -> dict[str, float | None]:
    """Seconds of the processor of an iteration of EM, by peer."""
    table = pd.DataFrame(network.sample(rows, seed=1)).astype(object)
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
        absent.setdefault("pyagrum", absence(error))
        return {**found, "pyagrum": None}
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
