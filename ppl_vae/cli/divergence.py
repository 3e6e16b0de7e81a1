"""``ppl-vae divergence``: how far two fits of the same data are apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ppl_vae import fitting, runs
from ppl_vae.cli.output import print_json

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["options", "run"]


def run(*, p: str, q: str, samples: int, seed: int, device: str, trust: list[str], json: bool) -> None:
    """Tell the Kullback-Leibler divergences of two runs' p(x), both ways, and their Jensen-Shannon divergence, in nats."""
    first, second = (runs.load_run(run, trust=trust, device=device) for run in (p, q))
    found = fitting.divergence(first, second, samples=samples, seed=seed)
    if json:
        return print_json(found.to_dict())
    print(f"p: {found.p}\nq: {found.q}\n{found}")
    return None


def options(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("p", type=str, help="a run folder")
    parser.add_argument("q", type=str, help="another, of the same data")
    parser.add_argument("--samples", type=int, default=10_000, help="drawn of each, where the divergence is not exact")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda, cuda:1, mps, or auto")
    parser.add_argument("--trust", type=str, nargs="+", default=[], help="modules of yours whose classes the runs may name")
