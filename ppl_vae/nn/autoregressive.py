r"""Distributions of rows, element by element, each given those before it.

.. math:: \log p(x \mid z) = \sum_{t=1}^{L} \log p(x_t \mid h_t), \qquad h = \mathrm{network}(x_{<t}, z)
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Independent, constraints

from ppl_vae.nn.causal import CausalModule

__all__ = ["Autoregressive", "Ending", "Paced", "Sharpened", "continued", "sharpened_logits"]


@runtime_checkable
class Ending(Protocol):
    """A built likelihood of elements of which some are the last of their row."""

    def ends(self, x: Tensor) -> Tensor | None:
        """Which of the elements x ``(..., *shape)`` are, ``(...)`` booleans; ``None`` where none tells it."""
        ...


@runtime_checkable
class Sharpened(Protocol):
    """A distribution of elements that can be drawn from more or less boldly."""

    def sharpened(self, temperature: float, top_p: float) -> dist.Distribution:
        """The same with its log-probabilities divided by the temperature, of which the likeliest ``top_p`` are kept."""
        ...


def sharpened_logits(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    """Logits ``(..., L)`` divided by the temperature, those out of reach but of the likeliest that together have ``top_p``.

    Examples:
        >>> sharpened_logits(torch.tensor([0.6, 0.3, 0.1]).log(), 1.0, 0.8).softmax(-1)
        tensor([0.6667, 0.3333, 0.0000])
    """
    logits = logits / temperature
    if top_p == 1:
        return logits
    order = logits.argsort(-1, descending=True)
    ranked = logits.gather(-1, order).softmax(-1)
    before = ranked.cumsum(-1) - ranked  # of those that are likelier: the first is always kept
    out = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= top_p)
    return logits.masked_fill(out, -torch.inf)


@runtime_checkable
class Paced(Protocol):
    """A distribution of elements of which what stands for one depends on how long something was waited for."""

    def paced(self, waited: Tensor | None) -> tuple[Tensor, Tensor]:
        """The element ``(..., *shape)`` that stands for it, and what is told to the next one, as this was told it."""
        ...


class Autoregressive(dist.TorchDistribution):
    """p(x | z) = prod_t p(x_t | features of z and x_1, ..., x_(t-1)), of rows x ``(T, *shape)``.

    ``log_prob`` sees all elements at once (teacher forcing, Williams and Zipser 1989), ``sample`` draws one after the other
    with the network's state kept.

    Args:
        network: a built causal network.
        likelihood: a module from the features of one element to its distribution.
        longest: T, elements that a row has at most.
        context: z ``(*batch, K)``, if the network has one.
        inside: which places of padded rows hold elements, ``(*batch, T)`` booleans; the others count 0 nats. Without it a row
            ends after the first element that the likelihood says to be the last, else with T.
        batch_shape: of the rows, where neither context nor ``inside`` tells it.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_rsample = False

    def __init__(
        self,
        network: CausalModule,
        likelihood: Any,
        *,
        longest: int,
        context: Tensor | None = None,
        inside: Tensor | None = None,
        batch_shape: tuple[int, ...] = (),
    ) -> None:
        self.network = network
        self.likelihood = likelihood
        self.context = context
        self.inside = inside
        shapes = [part.shape[:-1] for part in (context, inside) if part is not None]
        batch = torch.broadcast_shapes(torch.Size(batch_shape), *shapes)
        longest = longest if inside is None else inside.shape[-1]
        super().__init__(batch, torch.Size((longest, *network.elements.shape)), validate_args=False)

    @property
    def support(self) -> Any:
        """That of an element, for each."""
        element = self.likelihood(self.network.output.weight.new_zeros(1, *self.network.feature_shape))
        return constraints.independent(element.support, 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Autoregressive:
        """As many independent copies."""
        return Autoregressive(
            self.network,
            self.likelihood,
            longest=self.event_shape[0],
            context=None if self.context is None else self.context.expand(*batch_shape, self.context.shape[-1]),
            inside=None if self.inside is None else self.inside.expand(*batch_shape, self.inside.shape[-1]),
            batch_shape=tuple(batch_shape),
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """Of rows ``(..., T, *shape)`` in nats, ``(...)``."""
        return self.log_probs(value).sum(-1)

    def log_probs(self, value: Tensor) -> Tensor:
        """Of each element given those before it, ``(..., T)``; 0 in the padding."""
        found = self.likelihood(self.network(value, self.context)).log_prob(value)
        inside = self.inside if self.inside is not None else self._unended(value)
        return found if inside is None else torch.where(inside, found, 0.0)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Rows ``(*sample, *batch, T, *shape)``, zeros after the end of each."""
        return self.draw(sample_shape)[0]

    @cached_property
    def point_prediction(self) -> Tensor:
        """The row of the most probable element, or the mean of it, one after the other."""
        return self.draw(temperature=0.0)[0]

    def draw(self, sample_shape: Any = (), *, temperature: float = 1.0, top_p: float = 1.0) -> tuple[Tensor, Tensor]:
        """Rows ``(*sample, *batch, T, *shape)`` and their lengths ``(*sample, *batch)``; see :func:`continued`.

        Without elements that are the last of a row, its length is that of ``inside``, else T.
        """
        shape = self._extended_shape(torch.Size(sample_shape))
        batch, (longest, *element) = shape[: len(shape) - len(self.event_shape)], self.event_shape
        rows = batch.numel()
        context = None if self.context is None else self.context.expand(*batch, -1).reshape(rows, -1)
        start = self.network.output.weight.new_zeros(rows, 0, *element)
        none = torch.zeros(rows, dtype=torch.int64, device=start.device)
        options: dict[str, Any] = {"temperature": temperature, "top_p": top_p}
        found = continued(self.network, self.likelihood, start, none, longest, context=context, **options)
        found = torch.cat([found, found.new_zeros(rows, longest - found.shape[1], *element)], dim=1)
        inside = self._unended(found)
        if inside is None and self.inside is not None:
            inside = self.inside.expand(*batch, longest).reshape(rows, longest)
            found = found * inside.reshape(rows, longest, *(1 for _ in element))
        length = none + longest if inside is None else inside.sum(-1)
        return found.reshape(shape), length.reshape(batch)

    def _ends(self, x: Tensor) -> Tensor | None:
        return self.likelihood.ends(x) if isinstance(self.likelihood, Ending) else None

    def _unended(self, x: Tensor) -> Tensor | None:
        """The places before which no element was the last, ``(..., T)``."""
        last = self._ends(x)
        return None if last is None else last.cumsum(-1) - last.long() == 0


@torch.no_grad()
def continued(
    network: CausalModule,
    likelihood: Any,
    given: Tensor,
    length: Tensor,
    steps: int,
    *,
    context: Tensor | None = None,
    end: int | None = None,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> Tensor:
    """What may follow the given elements of rows, drawn one after the other: ``(n, S, *shape)``, zeros after the end of a row.

    Args:
        network: a built causal network.
        likelihood: of an element.
        given: ``(n, T, *shape)``, padded; T may be 0.
        length: how many elements of each row are given, ``(n,)``.
        steps: S, how many to draw after these; fewer come back once every row has ended.
        context: of each row, ``(n, K)``.
        end: the token that ends a row, where the likelihood does not say it.
        temperature: that log-probabilities of an element are divided by; at 0 the most probable one is taken, of drawings
            what :meth:`~ppl_vae.likelihoods.stroke_distribution.StrokeDistribution.paced` says.
        top_p: of each element the likeliest that together have this probability are kept (Holtzman et al. 2020).

    Raises:
        ValueError: a temperature below 0, a ``top_p`` outside (0, 1], or a likelihood that is drawn from as it is.
    """
    _check(temperature, top_p)
    features, state = network.start(context, len(length))
    open_ = torch.ones_like(length, dtype=torch.bool)
    first, last = int(length.min()), int(length.max())
    found: list[Tensor] = []
    waited: Tensor | None = None
    for place in range(last + steps):
        if place < first:
            drawn = given[:, place]
        else:
            drawn, waited = _element(likelihood(features), temperature, top_p, waited)
        known = (place < length).reshape(-1, *(1 for _ in drawn.shape[1:]))
        if first <= place < given.shape[1]:
            drawn = torch.where(known, given[:, place].to(drawn.dtype), drawn)
        going = open_.reshape(known.shape)
        found.append(drawn.where(going | known, drawn.new_zeros(())))
        if (ended := _ended(likelihood, drawn, end)) is not None:
            open_ = open_ & ~(ended & (place >= length))
        if place + 1 == last + steps or (place + 1 >= last and not bool(open_.any())):
            break
        features, state = network.step(drawn, state)
    kind = found[-1].dtype if len(found) > first else given.dtype
    x = torch.stack([part.to(kind) for part in found], dim=1)
    steps = min(steps, x.shape[1] - first)
    x = torch.cat([x, x.new_zeros(len(x), max(0, last + steps - x.shape[1]), *x.shape[2:])], dim=1)
    places = length[:, None] + torch.arange(steps, device=x.device)
    index = places.reshape(*places.shape, *(1 for _ in x.shape[2:])).expand(*places.shape, *x.shape[2:])
    return x.gather(1, index)


def _ended(likelihood: Any, x: Tensor, end: int | None) -> Tensor | None:
    if end is not None:
        return x == end
    return likelihood.ends(x) if isinstance(likelihood, Ending) else None


@runtime_checkable
class _Predicted(Protocol):
    point_prediction: Tensor


def _element(p: dist.Distribution, temperature: float, top_p: float, waited: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """A draw of one element, or at temperature 0 what stands for its distribution, and what this tells the next one."""
    if temperature == 0:
        inner = p.base_dist if isinstance(p, Independent) else p
        if isinstance(inner, Paced):
            return inner.paced(waited)
        return (inner.point_prediction if isinstance(inner, _Predicted) else cast(Tensor, p.mean)), None
    if temperature == 1 and top_p == 1:
        return p.sample(), None
    if not isinstance(p, Sharpened):
        raise ValueError(
            "expected a temperature and top_p of 1 of a likelihood that is drawn from as it is, got "
            f"{temperature:g} and {top_p:g}: leave them out"
        )
    return p.sharpened(temperature, top_p).sample(), None


def _check(temperature: float, top_p: float) -> None:
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"expected a temperature of at least 0, got {temperature:g}")
    if not 0 < top_p <= 1:
        raise ValueError(f"expected top_p in (0, 1], got {top_p:g}: 1 keeps all")
