"""Draws of a guide, cut off from what they were drawn by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ppl_vae.evaluate.bounds import per_datum, sample_sites, traces
from ppl_vae.inference.objectives.pyro_elbo import in_data_plate
from ppl_vae.pair import Pair, Plates
from ppl_vae.simplex import of_logarithms, remembered

__all__ = ["Draws", "draw", "every", "not_reparameterized"]


class Draws(NamedTuple):
    """Both programs at S draws of the latent variables, and what was cut.

    Attributes:
        plates: of the programs.
        model, guide: their traces.
        values: the draws that were cut off, as they were drawn, by site; of points that remember them, the logarithms.
        leaves: the same numbers without a history, which what the programs saw is made of.
    """

    plates: Plates
    model: Trace
    guide: Trace
    values: dict[str, Tensor]
    leaves: dict[str, Tensor]

    @property
    def reconstruction(self) -> Tensor:
        """Log p(x | z), ``(S, B)``."""
        return self.total(self.model, self.model.observation_nodes)

    @property
    def log_joint(self) -> Tensor:
        """Log p(x, z), ``(S, B)``."""
        return self.total(self.model, [site["name"] for site in sample_sites(self.model)])

    @property
    def log_q(self) -> Tensor:
        """Log q(z | x), ``(S, B)``."""
        return self.total(self.guide, [site["name"] for site in sample_sites(self.guide)])

    @property
    def log_q_cut(self) -> Tensor:
        """Log q of the draws that were cut off, ``(S, B)``: its gradient is their score function."""
        return self.total(self.guide, list(self.leaves))

    def total(self, trace: Trace, names: list[str]) -> Tensor:
        """The log-probabilities of some sites of each sample and datum."""
        return sum(per_datum(trace.nodes[name], "log_prob", self.plates) for name in names)  # type: ignore[return-value]


def draw(pair: Pair, batch: tuple[Tensor, ...], samples: int, cut: Callable[[Any], bool], *, purpose: str) -> Draws:
    """Run both programs at S draws of the latent variables of each datum.

    Args:
        pair: model and guide.
        batch: what the programs are called with.
        samples: S.
        cut: whether draws of a distribution are cut off.
        purpose: who asks, for the error.

    Raises:
        ValueError: a latent variable that belongs to the whole data set.
    """
    pair.plates(*batch)  # runs the programs too if the batch is the first of its size
    with _Cut(cut) as cuts:
        plates, model, guide, _ = traces(pair, batch, samples)
    shared = [site["name"] for site in sample_sites(guide) if not in_data_plate(site, plates)]
    if shared:
        raise ValueError(
            f"{purpose} is defined for latent variables of a datum, but {', '.join(shared)} belongs to the whole data set: "
            "use objective=ELBO() or BetaELBO(), or a model whose parameters have no priors"
        )
    return Draws(plates, model, guide, cuts.values, cuts.leaves)


def every(fn: Any) -> bool:
    """Cut every draw."""
    return True


def not_reparameterized(fn: Any) -> bool:
    """Cut draws that no gradient flows through anyway."""
    return not fn.has_rsample


class _Cut(Messenger):
    """Hands a copy of each draw on that has no history; the model, which is given the draw again, sees the same copy."""

    def __init__(self, cut: Callable[[Any], bool]) -> None:
        super().__init__()
        self.cut = cut
        self.values: dict[str, Tensor] = {}
        self.leaves: dict[str, Tensor] = {}

    def _pyro_post_sample(self, msg: Any) -> None:
        name = msg["name"]
        if msg["is_observed"] or name in self.leaves or site_is_subsample(msg) or not self.cut(msg["fn"]):
            return
        log = remembered(msg["value"])
        self.values[name] = msg["value"] if log is None else log
        leaf = self.values[name].detach()
        self.leaves[name] = leaf.requires_grad_() if leaf.is_floating_point() else leaf
        msg["value"] = leaf if log is None else of_logarithms(leaf)
