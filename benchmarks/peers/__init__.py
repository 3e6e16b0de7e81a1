"""The sides of ``benchmarks.svi``, one library a module.

Each module has ``parameters(size)``, the number of numbers that it trains, and ``train(task, report, **options)``, which
trains for ``task.epochs`` passes over the data and calls ``report(seconds, nats)`` after each. It imports its library at its
top, so that a library that is not installed is an ``ImportError``, and is imported in the process that measures it only.
"""

from __future__ import annotations

import dataclasses
from typing import Any

__all__ = ["PEERS", "Peer"]


@dataclasses.dataclass(frozen=True)
class Peer:
    """One line of the table.

    Args:
        module: where it lives in this package.
        label: its name in the table.
        options: keyword arguments of its ``train``.
        extra: what installs the library.
        cached: whether it keeps what it compiled for the next process.
        exact: whether its network has the size that ours has, and its loss is ours.
        any_size: whether it has convolutions and the importance-weighted bound, too.
    """

    module: str
    label: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    extra: str = "ppl_vae"
    cached: bool = False
    exact: bool = True
    any_size: bool = True


PEERS = {
    "ours": Peer("ours", "ours", {"compile": True}, cached=True),
    "ours_bf16": Peer("ours", "ours, bf16", {"compile": True, "precision": "bf16"}, cached=True),
    "ours_eager": Peer("ours", "ours, not compiled", {"compile": False}),
    "ours_plain": Peer("plain_pair", "ours, plain programs", {"compile": True}, cached=True, any_size=False),
    "torch": Peer("torch_loop", "PyTorch + DataLoader"),
    "torch_compiled": Peer("torch_loop", "PyTorch compiled + DataLoader", {"compiled": True}, cached=True),
    "torch_in_memory": Peer(
        "torch_loop", "PyTorch compiled, rows in memory", {"compiled": True, "in_memory": True}, cached=True
    ),
    "pyro": Peer("pyro_svi", "Pyro SVI + DataLoader"),
    "pythae": Peer("pythae_trainer", "pythae", extra="ppl_vae[bench]", any_size=False),
    "numpyro": Peer("numpyro_scan", "NumPyro, lax.scan", extra="ppl_vae[bench]", any_size=False),
    "floor": Peer("floor", "matrix products + fused Adam", exact=False, any_size=False),
}
