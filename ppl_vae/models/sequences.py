"""The programs of models whose rows go on element by element (Bowman et al. 2016; Ha and Eck 2018).

for n in 1..N:
z_n ~ p(z)                                               prior, if there is one
x_nt ~ p(x | network(z_n, x_n1, ..., x_n(t-1))), t = 1, 2, ...   likelihood of an element
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from ppl_vae.data import sequence_mask
from ppl_vae.likelihoods import Likelihood
from ppl_vae.models.starts import likeliest_features
from ppl_vae.nn.autoregressive import Autoregressive, continued
from ppl_vae.nn.causal import CausalNetwork, Elements
from ppl_vae.program.base import ModelProgram
from ppl_vae.program.capabilities import attribute
from ppl_vae.program.facts import prior_support
from ppl_vae.program.hooks import Start
from ppl_vae.program.lengths import RowLengths
from ppl_vae.program.rows import data_plate
from ppl_vae.program.sites import Site
from ppl_vae.types import DataSpec

__all__ = ["LatentSequenceProgram", "Rows", "SequenceProgram", "check_rows", "chosen_codes"]

CANDIDATES = 64  # draws of z among which one is chosen that goes with a given beginning


def check_rows(spec: DataSpec, network: CausalNetwork) -> None:
    """Raise ``ValueError`` if the data have no axis along which a causal network could run, or no grid where it needs one."""
    name = type(network).__name__
    if network.grids and (spec.ragged or len(spec.event_shape) not in network.grids):
        got = "rows of different lengths" if spec.ragged else f"data of shape {spec.event_shape}"
        axes = " or ".join(map(str, network.grids))
        raise ValueError(f"expected data of {axes} axes for {name}, got {got}: use CausalConv or LSTM")
    if not spec.ragged and not spec.event_shape:
        raise ValueError(f"expected rows (T, *element) for {name}, got single values: give Ragged rows")


class Rows(nn.Module):
    """p(x | z) of rows: a causal network, the likelihood of an element, and how long rows are.

    Args:
        network: its declaration.
        likelihood: of an element.
        spec: what the data look like.
        context: K, the length of z; 0 without one.
    """

    def __init__(self, network: CausalNetwork, likelihood: Likelihood, spec: DataSpec, context: int = 0) -> None:
        super().__init__()
        check_rows(spec, network)
        elements = Elements.of(spec)
        self.longest = int(spec.fields[0].longest or 1) if spec.ragged else spec.event_shape[0]
        self.event_dim = 1 + len(elements.shape)
        self.ragged = spec.ragged
        network.refuse_unused("a decoder" if context else "a network without z", *(["pool"] if context else ["pool", "enters"]))
        self.network = network.build_causal(elements, likelihood.feature_shape(elements.shape), context)
        self.likelihood = likelihood.build(elements.shape)
        self.lengths = RowLengths(self.longest)

    def forward(self, context: Tensor | None, inside: Tensor | None, batch_shape: tuple[int, ...] = ()) -> Autoregressive:
        """The distribution of rows, given z ``(..., K)`` and which places are no padding ``(..., T)``."""
        return Autoregressive(
            self.network, self.likelihood, longest=self.longest, context=context, inside=inside, batch_shape=batch_shape
        )

    def inside(self, *batch: Tensor) -> Tensor | None:
        """Which places of a batch hold elements; of rows of one length nothing, for all do."""
        return sequence_mask(batch[1], batch[0].shape[1]) if self.ragged else None

    def start_fit(self, context: Start) -> None:
        """Start at the features under which the elements of the training data are likeliest, where the likelihood can."""
        if attribute(self.likelihood, "starts_at_data", False):
            x = context.sample if self.ragged else context.sample.flatten(0, 1)
            self.network.start_at(likeliest_features(self.likelihood, x, self.network.feature_shape))


class SequenceProgram(ModelProgram):
    """Without latent variables: log p(x) is known, and a guide has nothing to draw."""

    learning_rate = 2e-3
    tempered = True

    def __init__(self, network: CausalNetwork, likelihood: Likelihood, spec: DataSpec) -> None:
        super().__init__()
        self.size = spec.size
        self.reads = ("x", "length") if spec.ragged else ("x",)
        self.rows = Rows(network, likelihood, spec)

    @property
    def element_features(self) -> int:
        """As many as the network gives."""
        return int(self.rows.network.feature_shape[0])

    def forward(self, x: Tensor, length: Tensor | None = None) -> Any:
        """The story, with the batch x ``(B, T, *element)`` observed."""
        batch = (x,) if length is None else (x, length)
        with data_plate(self.size, x):
            return pyro.sample("x", self.rows(None, self.rows.inside(*batch), (len(x),)), obs=x)

    def log_prob(self, *batch: Tensor) -> Tensor:
        """Of each row in nats, ``(B,)``."""
        return self.rows(None, self.rows.inside(*batch), (len(batch[0]),)).log_prob(batch[0])

    def posterior(self, *batch: Tensor) -> Any:
        """There is no latent variable.

        Raises:
            ValueError: always.
        """
        raise ValueError("a model without latent variables has no posterior and no codes of data: declare VAE(decoder=...)")

    def drawn_lengths(self, least: Tensor) -> Tensor:
        """Lengths like those of the training rows."""
        return self.rows.lengths.drawn(least)

    def continued(self, given: Tensor, length: Tensor, steps: int, *, end: int | None = None, **options: Any) -> Tensor:
        """What may follow given elements, see :func:`~ppl_vae.nn.autoregressive.continued`."""
        return continued(self.rows.network, self.rows.likelihood, given, length, steps, end=end, **options)


class LatentSequenceProgram(ModelProgram):
    """With a latent variable of each row, a vector.

    Args:
        latent_shape: ``(K,)``.
        prior: module whose call returns p(z).
        network: the declaration of the decoder.
        likelihood: of an element.
        spec: what the data look like.
    """

    learning_rate = 2e-3
    tempered = True

    def __init__(
        self,
        *,
        latent_shape: tuple[int, ...],
        prior: nn.Module,
        network: CausalNetwork,
        likelihood: Likelihood,
        spec: DataSpec,
    ) -> None:
        super().__init__()
        self.size = spec.size
        self.reads = ("x", "length") if spec.ragged else ("x",)
        self.latent_shape = latent_shape
        self.prior = prior
        self.rows = Rows(network, likelihood, spec, latent_shape[0])

    @property
    def element_features(self) -> int:
        """As many as the network gives."""
        return int(self.rows.network.feature_shape[0])

    @property
    def sites(self) -> dict[str, Site]:
        """Z, on the support of its prior."""
        return {"z": Site("z", self.latent_shape, prior_support(self.prior))}

    def known(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """Which places of the rows hold elements."""
        inside = self.rows.inside(*batch)
        return () if inside is None else (inside,)

    def decode(self, z: Tensor, inside: Tensor | None = None) -> Autoregressive:
        """p(x | z) for z ``(..., K)``."""
        return self.rows(z, inside)

    def decoded_rows(
        self, z: Tensor, length: Tensor | None = None, *, temperature: float = 0.0, top_p: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Rows of codes z ``(n, K)``, and their lengths."""
        inside = None if length is None else sequence_mask(length, max(self.rows.longest, int(length.max())))
        return self.decode(z, inside).draw(temperature=temperature, top_p=top_p)

    def drawn_lengths(self, least: Tensor) -> Tensor:
        """Lengths like those of the training rows."""
        return self.rows.lengths.drawn(least)

    @torch.no_grad()
    def continued(self, given: Tensor, length: Tensor, steps: int, *, end: int | None = None, **options: Any) -> Tensor:
        """What may follow given elements, z drawn from p(z | these), approximately.

        See :func:`chosen_codes`.
        """
        context = chosen_codes(self.rows, self.prior().expand((len(given),)), given, length)
        return continued(self.rows.network, self.rows.likelihood, given, length, steps, context=context, end=end, **options)


def chosen_codes(
    rows: Rows,
    prior: Any,
    given: Tensor,
    length: Tensor,
    context: Callable[[Tensor], Tensor] = lambda z: z,
) -> Tensor:
    """What networks see of codes that go with how rows begin, ``(n, *)``; of rows of which nothing is given, of draws of p(z).

    Each is chosen among draws of the prior with probabilities proportional to p(given | z) (Rubin 1988).

    Args:
        rows: the built model of rows.
        prior: p(z) of batch shape ``(n,)``.
        given: elements ``(n, T, *element)``.
        length: how many of them each row has ``(n,)``.
        context: from codes ``(..., n, K)`` to what the network sees.
    """
    if not given.shape[1]:
        return context(prior.sample())
    seen = context(prior.sample((CANDIDATES,)))
    inside = sequence_mask(length, given.shape[1])
    weights = torch.stack([rows(each, inside).log_prob(given) for each in seen]).softmax(0)
    places = torch.multinomial(weights.T, 1)[:, 0]
    return seen[places, torch.arange(len(given), device=seen.device)]
