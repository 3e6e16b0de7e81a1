"""What a fitted pair is asked besides its numbers: codes of data, data of codes, new data.

Two small interfaces, :class:`Encoder` for the guide and :class:`Decoder` for the model, each implemented by the
program's abilities, where it says q(z | x) or p(x | z) as distributions, and by its runs, which every Pyro program has
(:mod:`ppl_vae.evaluate.traced`). Which one is chosen once, by ``pair.can``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from pyro.distributions.util import broadcast_shape
from torch import Tensor
from torch.utils._pytree import tree_map

from ppl_vae.data import Split, Transform
from ppl_vae.evaluate.observed import ROWS_AT_ONCE, Given, Observed, as_in, at_once, joined
from ppl_vae.evaluate.rows import batches, in_row_order
from ppl_vae.evaluate.temperature import check_temperature, cooled
from ppl_vae.evaluate.traced import TracedDecoder, TracedEncoder
from ppl_vae.likelihoods.base import point_prediction
from ppl_vae.program.base import ModelProgram
from ppl_vae.program.capabilities import Amortized, Ancestral
from ppl_vae.program.joint import Joint, central_value
from ppl_vae.program.pair import Pair
from ppl_vae.program.sites import Tree, top_values, tree
from ppl_vae.types import DataSpec

__all__ = ["Decoder", "Encoder", "decoder_of", "encoder_of", "reconstructed"]


class Encoder(Protocol):
    """Codes of data."""

    @property
    def shared(self) -> tuple[str, ...]:
        """The latent variables of which all data share one value; known after codes were asked for."""
        ...

    def posterior(self, batch: tuple[Tensor, ...]) -> Any:
        """q(z | x) of a batch, a distribution or a joint.

        Raises:
            ValueError: the guide does not say it.
        """
        ...

    def encode(self, split: Split, samples: int | None = None) -> Tree:
        """Means fed forward, ``(N, *event)`` a leaf, or draws ``(S, N, *event)``; without N of what all data share."""
        ...

    def means(self, batch: tuple[Tensor, ...]) -> Tree:
        """Of one batch."""
        ...


class Decoder(Protocol):
    """Data of codes, and new data."""

    def check_given(self, *, x: bool, y: bool) -> None:
        """Raise ``ValueError`` if rows or classes are given that the model is not conditioned on, or none where it is."""
        ...

    def given(self, rows: Split | None, classes: Tensor | None) -> Given:
        """The condition as it is taken here, of rows or of the places of classes."""
        ...

    def decode(self, z: Tree, given: Given) -> Observed:
        """Means of p(x | z) for a tree z ``(..., *event)``, or its upper sites, ``(..., *event)``."""
        ...

    def reconstruct(self, batch: tuple[Tensor, ...], z: Tree) -> Observed:
        """Means of p(x | z) for codes z of a batch, ``(B, *event)``, or its upper sites."""
        ...

    def sample(self, n: int, given: Given, *, means: bool, temperature: float | Mapping[str, float] = 1.0) -> Observed:
        """N new data ``(n, *event)``, draws or with ``means`` the means of p(x | z) at draws of z, of scales times temperature.

        Raises:
            ValueError: a temperature other than 1 of latent variables that are not normal.
        """
        ...


def encoder_of(pair: Pair) -> Encoder:
    """By what the guide can do."""
    return TracedEncoder(pair) if pair.can.encode is None else AbleEncoder(pair, pair.can.encode)


def decoder_of(pair: Pair, spec: DataSpec, transform: Transform) -> Decoder:
    """By what the model can do.

    Args:
        pair: the pair.
        spec: what the data look like.
        transform: to what the model sees, on the device and of the dtype of that.
    """
    if pair.can.draw_data is not None:
        return AncestralDecoder(pair.can.draw_data, pair.model_facts)
    if pair.can.continue_rows is not None:
        return RowsDecoder()
    if pair.can.generate is None:
        return TracedDecoder(pair, spec, transform)
    return AbleDecoder(pair.can.generate, spec)


def broadcast_leading(leading: torch.Size, given: Given) -> torch.Size:
    """The leading shape of codes and of what is known beside them, whose last axis is its own.

    Raises:
        ValueError: shapes that do not go together.
    """
    try:
        return torch.Size(broadcast_shape(leading, *(part.shape[:-1] for part in given)))
    except ValueError:
        told = ", ".join(dict.fromkeys(str(tuple(part.shape[:-1])) for part in given))
        raise ValueError(
            f"expected conditions whose shape broadcasts with that of the codes, {tuple(leading)}, got {told}: give one for "
            "all codes, or one for each"
        ) from None


class AbleEncoder:
    """Of a guide that says q(z | x)."""

    shared: tuple[str, ...] = ()

    def __init__(self, pair: Pair, guide: Amortized) -> None:
        self.pair = pair
        self.guide = guide

    def posterior(self, batch: tuple[Tensor, ...]) -> Any:
        """q(z | x) of a batch."""
        return self.guide.posterior(*batch)

    def encode(self, split: Split, samples: int | None = None) -> Tree:
        """Posterior means, or draws."""
        parts = [self.guide.posterior(*batch) for batch in batches(self.pair, split, ROWS_AT_ONCE)]
        dim = 0 if samples is None else 1
        codes = [part.mean if samples is None else part.sample((samples,)) for part in parts]
        found = _joined(_of_one_length(codes, dim), dim=dim)
        return tree_map(lambda values: in_row_order(self.pair, split, values, dim=dim), found)

    def means(self, batch: tuple[Tensor, ...]) -> Tree:
        """Of one batch."""
        return self.guide.posterior(*batch).mean


class AbleDecoder:
    """Of a model that says p(z) and p(x | z)."""

    def __init__(self, model: ModelProgram, spec: DataSpec) -> None:
        self.model = model
        self.spec = spec

    def check_given(self, *, x: bool, y: bool) -> None:
        """Raise ``ValueError`` if the model is conditioned on something else."""
        labelled = self.model.labelled
        completes = self.model.known_entries is not None and not labelled
        if y != labelled or x != completes:
            needs = "labels: give y and no x" if labelled else "a part of the data: give x and no y" if completes else "nothing"
            raise ValueError(f"this model is conditioned on {needs}{'' if labelled or completes else ': leave x and y out'}")

    def given(self, rows: Split | None, classes: Tensor | None) -> Given:
        """What the model knows of rows of which a part is given, or of labels."""
        if classes is not None:
            return self.model.known(classes)
        return self.model.known(rows.transformed()) if rows is not None else ()

    def decode(self, z: Tree, given: Given) -> Observed:
        """Means of p(x | z), what is below the given sites fed forward by the means of the prior."""
        shapes = {name: site.event_shape for name, site in self.model.sites.items()}
        values = top_values(shapes, z)
        before = {name: tuple(value.shape[: value.dim() - len(shapes[name])]) for name, value in values.items()}
        try:
            leading = torch.Size(broadcast_shape(*before.values()))
        except ValueError:
            told = ", ".join(f"{name} of {shape}" for name, shape in before.items())
            raise ValueError(f"expected as many codes of each latent variable, or one, got {told}") from None
        broadcast_leading(leading, given)
        if len(values) < len(shapes):
            values = self._completed(values, shapes, leading, given)
        return self._means(tree(values), leading, given)

    def reconstruct(self, batch: tuple[Tensor, ...], z: Tree) -> Observed:
        """Means of p(x | z), given what the model knows of the batch."""
        leading, known = torch.Size([len(batch[0])]), self.model.known(*batch)
        if isinstance(z, Mapping) and len(z) < len(self.model.sites):
            shapes = {name: site.event_shape for name, site in self.model.sites.items()}
            z = self._completed(top_values(shapes, z), shapes, leading, known)
        return self._means(z, leading, known)

    def sample(self, n: int, given: Given, *, means: bool, temperature: float | Mapping[str, float] = 1.0) -> Observed:
        """Z from the prior, then x."""
        if given and len(given[0]) not in (1, n):
            raise ValueError(f"expected one condition or {n}, got {len(given[0])}")
        z = cooled((self.model.prior_given(*given) if given else self.model.prior()).expand((n,)), temperature)
        likelihood = self.model.decode(z, *given)
        x = point_prediction(likelihood) if means else likelihood.sample()
        return Observed({"x": x.reshape(n, *self.spec.event_shape)}, "x")

    def _completed(
        self, values: dict[str, Tensor], shapes: dict[str, tuple[int, ...]], leading: torch.Size, given: Given
    ) -> dict[str, Tensor]:
        """With values of the lower sites, each at the prior's mean given those above it."""
        prior: Joint = self.model.prior_given(*given)
        values = {name: value.expand(*leading, *shapes[name]) for name, value in values.items()}

        def take(name: str, factor: Any) -> Tensor:
            return values[name] if name in values else central_value(factor).expand(*leading, *shapes[name])

        return prior.walk(take)[0]

    def _means(self, z: Tree, leading: torch.Size, given: Given) -> Observed:
        mean = point_prediction(self.model.decode(z, *given))
        leading = torch.Size(broadcast_shape(leading, *(part.shape[:-1] for part in given)))
        return Observed({"x": mean.reshape(*leading, *self.spec.event_shape)}, "x")


class CodelessDecoder:
    """Of a model whose data are not those of codes; it says what to ask for instead."""

    takes_nothing: str
    """Why neither rows nor classes are taken, and the remedy."""

    without_codes: str
    """Likewise, why there are no data of codes."""

    def check_given(self, *, x: bool, y: bool) -> None:
        """Raise ``ValueError`` if anything is given."""
        if x or y:
            raise ValueError(self.takes_nothing)

    def given(self, rows: Split | None, classes: Tensor | None) -> Given:
        """Nothing."""
        return ()

    def decode(self, z: Tree, given: Given) -> Observed:
        """Data of codes there are none.

        Raises:
            ValueError: always.
        """
        raise ValueError(self.without_codes)

    def reconstruct(self, batch: tuple[Tensor, ...], z: Tree) -> Observed:
        """Likewise.

        Raises:
            ValueError: always.
        """
        return self.decode(z, ())

    def sample(self, n: int, given: Given, *, means: bool, temperature: float | Mapping[str, float] = 1.0) -> Observed:
        """Not by codes.

        Raises:
            ValueError: always.
        """
        return self.decode(None, ())


class RowsDecoder(CodelessDecoder):
    """Of a model of rows, which are drawn element after element: see :class:`~ppl_vae.program.capabilities.Continuing`."""

    takes_nothing = "this model is conditioned on nothing but how rows begin: leave x and y out, give given=..."
    without_codes = "a model of rows has no decoder of codes: draw rows by fit.sample, with given=... how they begin"


class AncestralDecoder(CodelessDecoder):
    """Of a model that draws whole data, in which p(x | z) does not stand apart."""

    takes_nothing = "this model is conditioned on nothing: leave x and y out, or ask for nodes given others by fit.query"
    without_codes = "this model draws whole data and has no decoder; of a network ask for nodes given others by fit.query"

    def __init__(self, model: Ancestral, facts: ModelProgram) -> None:
        self.model = model
        self.facts = facts

    def check_given(self, *, x: bool, y: bool) -> None:
        """Raise ``ValueError`` if anything is given, but the classes of a model that is given such."""
        super().check_given(x=x, y=y and not self.facts.labelled)

    def given(self, rows: Split | None, classes: Tensor | None) -> Given:
        """What the model knows of classes."""
        return () if classes is None else self.facts.known(classes)

    def sample(self, n: int, given: Given, *, means: bool, temperature: float | Mapping[str, float] = 1.0) -> Observed:
        """New data, drawn.

        Raises:
            ValueError: means or a temperature are wanted.
        """
        check_temperature(temperature)
        if means:
            raise ValueError("this model draws whole data and has no means of them given a code: leave means out")
        return Observed({"x": self.model.ancestral(n, *given)}, "x")


def reconstructed(
    pair: Pair, split: Split, encoder: Encoder, decoder: Decoder, change: Callable[[Tree], Tree] | None = None
) -> Observed:
    """Means of p(x | z) at the means of q(z | x), changed if they are to be, of the rows in their order."""
    change = change or (lambda z: z)
    found = joined(
        [decoder.reconstruct(batch, change(encoder.means(batch))) for batch in batches(pair, split, at_once(pair, split))]
    )
    return found._replace(values={name: as_in(split, pair, rows) for name, rows in found.values.items()})


def _of_one_length(parts: list[Tree], dim: int) -> list[Tree]:
    """Codes of batches; those of each element, where rows differ in length ``(..., B, T, *)``, padded to the longest."""
    if not all(isinstance(part, Tensor) and part.dim() > dim + 1 for part in parts):
        return parts
    longest = max(part.shape[dim + 1] for part in parts)
    short = ((part, longest - part.shape[dim + 1]) for part in parts)
    return [
        torch.cat([part, part.new_zeros((*part.shape[: dim + 1], lack, *part.shape[dim + 2 :]))], dim + 1) if lack else part
        for part, lack in short
    ]


def _joined(parts: Sequence[Tree], *, dim: int) -> Tree:
    first, *others = parts
    return tree_map(lambda *leaves: torch.cat(leaves, dim), first, *others)
