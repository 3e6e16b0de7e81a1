"""Draws of a guide, cut off from what they were drawn by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ppl_vae.program.pair import Pair
from ppl_vae.program.stacking import why_not_stacked
from ppl_vae.program.terms import auxiliary
from ppl_vae.program.traces import Traces, log_joint, log_q, per_datum, reconstruction, sample_sites, traces
from ppl_vae.simplex import of_logarithms, remembered

__all__ = ["Draws", "draw", "every", "not_reparameterized"]


class Draws(NamedTuple):
    """Both programs at S draws of the latent variables, and what was cut.

    Attributes:
        ran: plates and traces of the programs.
        values: the draws that were cut off, as they were drawn, by site; of points that remember them, the logarithms.
        leaves: the same numbers without a history, which what the programs saw is made of.
    """

    ran: Traces
    values: dict[str, Tensor]
    leaves: dict[str, Tensor]

    @property
    def model(self) -> Trace:
        """That of the model."""
        return self.ran.model

    @property
    def guide(self) -> Trace:
        """That of the guide."""
        return self.ran.guide

    @property
    def reconstruction(self) -> Tensor:
        """Log p(x | z), ``(S, B)``."""
        return reconstruction(self.ran)

    @property
    def log_joint(self) -> Tensor:
        """Log p(x, z), ``(S, B)``."""
        return log_joint(self.ran)

    @property
    def log_q(self) -> Tensor:
        """Log q(z | x), ``(S, B)``."""
        return log_q(self.ran)

    @property
    def log_q_cut(self) -> Tensor:
        """Log q of the draws that were cut off, ``(S, B)``: its gradient is their score function."""
        scores = (per_datum(self.guide.nodes[name], "log_prob", self.ran.plates) for name in self.leaves)
        return cast(Tensor, sum(scores))


def draw(pair: Pair, batch: tuple[Tensor, ...], samples: int, cut: Callable[[Any], bool], *, purpose: str) -> Draws:
    """Run both programs at S draws of the latent variables of each datum.

    Args:
        pair: model and guide.
        batch: what the programs are called with.
        samples: S.
        cut: whether draws of a distribution are cut off.
        purpose: who asks, for the error.

    Raises:
        ValueError: a latent variable that belongs to the whole data set, a term of the guide that is none of log q, weights, or
            programs that do not take several samples at once.
    """
    pair.plates(*batch)  # runs the programs too if the batch is the first of its size
    reason = why_not_stacked(pair, batch) if samples > 1 else None
    if reason:
        raise ValueError(
            f"{purpose} takes {samples} samples at once, in a dimension on the left, which the programs do not ({reason}): "
            "count dimensions from the right, or use objective=ELBO()"
        )
    with _Cut(cut) as cuts:
        ran = traces(pair, batch, samples)
    shared = [site["name"] for site in sample_sites(ran.guide) if not ran.plates.of_data(site)]
    if shared:
        raise ValueError(
            f"{purpose} is defined for latent variables of a datum, but {', '.join(shared)} belongs to the whole data set: "
            "use objective=ELBO() or BetaELBO(), or a model whose parameters have no priors"
        )
    if pair.score == "weighted_objective":
        raise ValueError(
            f"{purpose} is made of densities, but poutine.scale or a mask of one program alone weighs some: use "
            "objective=ELBO(), or BetaELBO() without the weights"
        )
    beside = auxiliary(ran.guide)
    if beside:
        raise ValueError(
            f"{purpose} is made of densities, but {', '.join(beside)} of the guide is a loss beside them (a pyro.factor, or an "
            "observed site): use objective=ELBO() or BetaELBO()"
        )
    return Draws(ran, cuts.values, cuts.leaves)


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
        summed = msg["infer"].get("_enumerate_dim") is not None
        if msg["is_observed"] or summed or name in self.leaves or site_is_subsample(msg) or not self.cut(msg["fn"]):
            return
        log = remembered(msg["value"])
        self.values[name] = msg["value"] if log is None else log
        leaf = self.values[name].detach()
        self.leaves[name] = leaf.requires_grad_() if leaf.is_floating_point() else leaf
        msg["value"] = leaf if log is None else of_logarithms(leaf)
