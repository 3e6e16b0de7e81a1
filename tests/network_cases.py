"""Networks that the tests ask, and what their answers are by definition."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ppl_vae as pv
from ppl_vae.models.network.nodes import Node

ASIA = """
network asia { }
variable asia { type discrete [ 2 ] { yes, no }; }
variable tub { type discrete [ 2 ] { yes, no }; }
variable smoke { type discrete [ 2 ] { yes, no }; }
variable lung { type discrete [ 2 ] { yes, no }; }
variable bronc { type discrete [ 2 ] { yes, no }; }
variable either { type discrete [ 2 ] { yes, no }; }
variable xray { type discrete [ 2 ] { yes, no }; }
variable dysp { type discrete [ 2 ] { yes, no }; }
probability ( asia ) { table 0.01, 0.99; }
probability ( tub | asia ) { (yes) 0.05, 0.95; (no) 0.01, 0.99; }
probability ( smoke ) { table 0.5, 0.5; }
probability ( lung | smoke ) { (yes) 0.1, 0.9; (no) 0.01, 0.99; }
probability ( bronc | smoke ) { (yes) 0.6, 0.4; (no) 0.3, 0.7; }
probability ( either | lung, tub ) { default 1.0, 0.0; (no, no) 0.0, 1.0; }
probability ( xray | either ) { table 0.98, 0.05, 0.02, 0.95; }  // the node's own state slowest, as the format has it
probability ( dysp | bronc, either ) { (yes, yes) 0.9, 0.1; (no, yes) 0.7, 0.3; (yes, no) 0.8, 0.2; (no, no) 0.1, 0.9; }
"""  # Lauritzen and Spiegelhalter 1988


def rows_of(size: int, count: int, generator: torch.Generator) -> tuple[tuple[float, ...], ...]:
    table = torch.rand(count, size, generator=generator, dtype=torch.float64) + 0.1
    return tuple(map(tuple, (table / table.sum(-1, keepdim=True)).tolist()))


def random_network(seed: int, size: int = 5) -> pv.BayesianNetwork:
    """States in a random graph."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(2, 4, (size,), generator=generator).tolist()
    nodes: dict[str, Node] = {}
    for place in range(size):
        above = [other for other in range(place) if torch.rand((), generator=generator) < 0.6][:3]
        count = math.prod(levels[other] for other in above)
        states = tuple(f"s{state}" for state in range(levels[place]))
        probs = rows_of(levels[place], count, generator)
        nodes[f"n{place}"] = pv.Table(parents=tuple(f"n{other}" for other in above), states=states, probs=probs)
    return pv.BayesianNetwork(nodes=nodes)


def joint_of(network: pv.BayesianNetwork) -> tuple[list[str], Tensor]:
    """All joint states and their probabilities, by the definition."""
    names = list(network.nodes)
    states = {name: network.nodes[name].declared_states for name in names}
    table = torch.zeros([len(states[name]) for name in names], dtype=torch.float64)
    for place in itertools.product(*map(range, table.shape)):
        at = dict(zip(names, place, strict=True))
        probability = 1.0
        for name, node in network.nodes.items():
            row = 0
            for parent in node.parents:
                row = row * len(states[parent]) + at[parent]
            probability *= node.probs[row][at[name]]
        table[place] = probability
    return names, table


def mixed(hidden: tuple[str, ...] = ()) -> pv.BayesianNetwork:
    """States and numbers."""
    return pv.BayesianNetwork(
        nodes={
            "cloudy": pv.Table(states=("no", "yes"), probs=(0.4, 0.6)),
            "rain": pv.Table(parents=("cloudy",), states=("no", "yes"), probs=((0.9, 0.1), (0.3, 0.7))),
            "temp": pv.LinearGaussian(parents=("cloudy",), intercepts=(20.0, 12.0), scales=(3.0, 2.0)),
            "ice": pv.LinearGaussian(
                parents=("temp", "rain"), intercepts=(1.0, 0.0), slopes=((0.5,), (0.2,)), scales=(1.0, 0.7)
            ),
        },
        hidden=hidden,
    )


def frame(network: pv.BayesianNetwork, n: int, *, missing: float = 0.0, seed: int = 0) -> Any:
    pd = pytest.importorskip("pandas")
    columns = network.sample(n, seed=seed)
    table = pd.DataFrame(
        {name: column.astype(object if column.dtype.kind == "U" else float) for name, column in columns.items()}
    )
    return table.mask(np.random.default_rng(seed).random(table.shape) < missing)


def data_of(network: pv.BayesianNetwork, n: int, **options: Any) -> pv.Data:
    return pv.load_data(frame(network, n, **options), valid=0.1, test=0.1, missing="ignore")


def bare(network: pv.BayesianNetwork, **fields: Any) -> pv.BayesianNetwork:
    """The same graph without its numbers."""
    nodes: dict[str, Node] = {}
    for name, node in network.nodes.items():
        states = {"states": node.declared_states} if node.discrete else {}
        nodes[name] = type(node)(parents=node.parents, **states)
    return pv.BayesianNetwork(nodes=nodes, **fields)


def causes(**fields: Any) -> pv.BayesianNetwork:
    """Two causes that turn a third on, each by itself, and a state that hangs on a number."""
    return pv.BayesianNetwork(
        nodes={
            "cold": pv.Table(states=("no", "yes"), probs=(0.6, 0.4)),
            "flu": pv.Table(states=("no", "yes"), probs=(0.7, 0.3)),
            "cough": pv.NoisyOr(parents=("cold", "flu"), states=("no", "yes"), probs=(0.4, 0.8), leak=0.05),
            "age": pv.LinearGaussian(intercepts=(50.0,), scales=(15.0,)),
            "ward": pv.LogisticRegression(
                parents=("flu", "age"),
                states=("home", "day", "night"),
                coefficients=(((-3.0, 0.02), (-5.0, 0.03)), ((-2.0, 0.02), (-4.0, 0.06))),
            ),
        },
        **fields,
    )
