"""Draws the rows of an epoch by weights that hang on what the guide has learned."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from ppl_vae.data import Data, Split
from ppl_vae.data.seeds import seeded_generator
from ppl_vae.data.stream import Stream
from ppl_vae.data.weights import effective_number
from ppl_vae.evaluate.verbs import encoder_of
from ppl_vae.inference.training.sampling import Sampling
from ppl_vae.program.context import evaluating, seeded
from ppl_vae.program.pair import Pair
from ppl_vae.program.sites import by_name
from ppl_vae.types import FitWarning, Record

__all__ = ["RowDraws", "check_sampling", "systematic"]

FEW = 0.05  # share of the rows that those of an epoch tell as much as, below which it is said
STREAM = 4  # of the seed, beside those of the order of rows and of noise


class RowDraws:
    """The rows of each epoch: N draws of the N training rows, by weights that are found as it begins.

    Args:
        sampling: how often each row is drawn.
        pair: model and guide.
        train: the rows.
        seed: of the fit.

    Attributes:
        state: the ``weights (N,)`` of the epoch in progress, by name; empty before the first one.
    """

    def __init__(self, sampling: Sampling, pair: Pair, train: Split, seed: int) -> None:
        self.sampling, self.pair, self.train, self.seed = sampling, pair, train, seed
        self.state: Mapping[str, Tensor] = {}
        self._told = False

    def begin(self) -> None:
        """Find the weights by the codes of all rows; neither the pair nor any random state is changed."""
        with torch.no_grad(), evaluating(self.pair), seeded(self.seed, self.train.device):
            found = by_name(self.pair.model_facts.sites, encoder_of(self.pair).encode(self.train))
        codes = torch.cat([found[name].flatten(1) for name in _real_sites(self.pair)], 1)
        self.state = {"weights": self.sampling.weights(codes).cpu()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Be in the epoch of kept weights.

        Raises:
            ValueError: they are those of other rows.
        """
        if state and state["weights"].shape != (len(self.train),):
            raise ValueError(f"expected {len(self.train)} weights, got {tuple(state['weights'].shape)}")
        self.state = dict(state)

    def rows(self, epoch: int) -> Tensor:
        """Which row stands at each place of an epoch, ``(N,)`` in rising order, on the device of the rows.

        The draws are of a generator of their own, so that equal weights leave a fit as it is without them.
        """
        generator = seeded_generator(self.seed + 1_000_003 * epoch, STREAM)
        return systematic(self.state["weights"], generator).to(self.train.device)

    def row(self) -> Record:
        """What the history says of the epoch: how many rows of equal weight its draws are worth."""
        rows = effective_number(self.state["weights"])
        if rows < FEW * len(self.train) and not self._told:
            self._told = True
            warnings.warn(
                f"the draws of an epoch tell as much as {rows:.1f} of {len(self.train)} rows: rare codes are drawn over and "
                f"over; raise alpha, or combine dimensions by combined='largest', in sampling={self.sampling}",
                FitWarning,
                stacklevel=2,
            )
        return {"effective_rows": rows}


def systematic(weights: Tensor, generator: torch.Generator) -> Tensor:
    """N draws of N rows, each as often as its weight says, rounded up or down (Madow 1949); rising ``(N,)``.

    Its mean over draws of the one random number is unbiased, and equal weights draw each row once.
    """
    count = len(weights)
    ends = weights.double().cumsum(0)
    places = torch.arange(count, dtype=torch.float64) + torch.rand((), dtype=torch.float64, generator=generator)
    return torch.searchsorted(ends * (count / ends[-1]), places, right=True).clamp(max=count - 1)


def check_sampling(sampling: Sampling, pair: Pair, data: Data) -> None:
    """Raise ``ValueError`` if rows of these data cannot be drawn by their codes under this pair."""
    train = data.train
    if isinstance(train.raw, Stream):
        raise ValueError("expected rows in memory to draw by their codes, got a stream: load fewer, or leave sampling out")
    if train.weights is not None:
        raise ValueError(
            "expected rows without weights to draw by their codes, got weighted ones: load them without, or leave sampling out"
        )
    if len(train.apart(pair.reads)) > 1:
        raise ValueError(
            "expected rows of one length that all have the same fields to draw by their codes, got several kinds: pad or label "
            "them, or leave sampling out"
        )
    if pair.can.encode is None or pair.local or not _real_sites(pair):
        raise ValueError(
            f"expected a guide that encodes each row by real numbers for sampling={sampling}, got {type(pair.guide).__name__}: "
            "use an amortized guide of continuous latent variables, such as AmortizedNormal, or leave sampling out"
        )


def _real_sites(pair: Pair) -> list[str]:
    """The latent variables of each row that are real numbers, of which histograms are made."""
    return [name for name, site in pair.model_facts.sites.items() if not (site.shared or site.support.is_discrete)]
