"""Codes of data and data of codes, in the units of the source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ppl_vae.arguments import whole
from ppl_vae.data import DataSource, Split, Transform
from ppl_vae.data.frames import Frame, cells_of_frame
from ppl_vae.data.native import MEANS
from ppl_vae.evaluate.observed import ROWS_AT_ONCE, Observed
from ppl_vae.evaluate.rows import batches, in_row_order
from ppl_vae.evaluate.verbs import Decoder, Encoder, broadcast_leading, decoder_of, encoder_of
from ppl_vae.fitting.covariates import conditions
from ppl_vae.fitting.inputs import Classes, Entrance, Given, as_codes, as_real, in_source_units
from ppl_vae.fitting.outputs import as_codes_given, as_rows_given, codes_of_form, form_of
from ppl_vae.fitting.sequences import Rows, ragged_codes, refuse_conditions, rows_in_source_units
from ppl_vae.models import Model
from ppl_vae.program.context import evaluating, seeded
from ppl_vae.program.pair import Pair
from ppl_vae.program.sites import Tree, leaves, tree
from ppl_vae.types import DataSpec

__all__ = ["Coding"]


class Coding:
    """The part of a :class:`~ppl_vae.fitting.fitted.Fit` that encodes and decodes; its attributes are the fit's."""

    pair: Pair
    data: DataSource
    spec: DataSpec
    transform: Transform
    model: Model | Callable[..., Any]

    @property
    def device(self) -> torch.device:
        """Where the pair lives."""
        return next((parameter.device for parameter in self.pair.parameters()), self.transform.loc.device)

    def posterior(self, x: Given, *, y: Classes | None = None) -> Any:
        """q(z | x) of all data at once, a distribution, or of several latent variables a ``Joint``, of batch shape ``(B,)``.

        Of plain programs it is p(k | x) of what the model sums out, a categorical of each, given the means of what is drawn.

        Args:
            x: rows ``(B, *event)`` in the units of the source: a tensor, a split, or the fields that the programs read.
            y: a class for all rows or one for each, by name or number, where the model is conditioned on labels.

        Raises:
            ValueError: rows that the fit was not built for, or a guide that does not say q(z | x) where nothing is summed out.

        Examples:
            ``fit.posterior(data.test).stddev``
        """
        split = self._split(x, y).of_one_length()
        with evaluating(self.pair):
            batch, *others = batches(self.pair, split, max(1, len(split)))
            if others:
                raise ValueError("expected rows that all have a label or have none, got both: ask for q(z | x) of each apart")
            return self._encoder.posterior(batch)

    def encode(
        self, x: Given, *, y: Classes | None = None, samples: int | None = None, path: bool = False, seed: int = 0
    ) -> Any:
        """Codes of data: posterior means ``(B, *latent)``, or draws ``(samples, B, *latent)``, by name if there are several.

        Means are fed forward from site to site. Of a variable that all data share there is one value, without B; a frame of
        codes, as of a frame, has none of these, and where all variables are shared they come as they are. Of rows whose
        elements have a hidden state each, the means are what is known of each state given the whole row, ``(B, T, K)``; of rows
        that may differ in length they are ``Ragged``, and draws a list of such.

        Args:
            x: rows ``(B, *event)`` in the units of the source: a tensor, a split, or the fields that the programs read.
            y: a class for all rows or one for each, by name or number, where the model is conditioned on labels.
            samples: how many draws of each datum, instead of the mean.
            path: instead of means the most probable states of each row together, their numbers from 0 (Viterbi 1967).
            seed: of the draws.

        Raises:
            ValueError: no rows, or some that the fit was not built for, fewer than one sample, a variable without a mean, or
                the path of a model without hidden states.

        Examples:
            ``fit.encode(data.test)["z2"]`` of a model with several latent variables, ``fit.encode(data.test)`` of one.
        """
        if samples is not None and (samples := whole("samples", samples)) < 1:
            raise ValueError(f"expected at least 1 sample, got {samples}")
        split = self._split(x, y)
        if not len(split):
            raise ValueError("expected at least 1 row to encode, got none")
        with evaluating(self.pair), seeded(seed, self.device):
            codes = self._paths(split) if path else self._encoder.encode(split, samples)
        if split.sizes is not None and self.elementwise:
            return ragged_codes(codes, split.sizes, draws=samples is not None and not path)
        return as_codes_given(form_of(x), codes, self.shared, draws=samples is not None)

    def decode(
        self, z: Any, *, x: Given | None = None, y: Classes | Mapping[str, Any] | None = None, seen: bool = False
    ) -> Any:
        """Means of p(x | z), ``(..., *event)`` in the units of the source, or of each observed site by name if several are.

        Of dequantized data they are means of the levels; of categories in no order the most probable one. Models of rows take
        the most probable element one after the other: texts, or :class:`~ppl_vae.Ragged`, one row for each code.

        Args:
            z: codes ``(..., *latent)``, a tensor, an array or lists; of several latent variables a mapping by their names, or
                of the upper ones alone: those below them are at the means that the prior has at these.
            x: rows of which a part or covariates are known, or that the programs look at beside observing them, one or as many
                as codes.
            y: classes, by name or number, of a model that is conditioned on labels; their shapes broadcast with those of z. Of
                one that is conditioned on covariates, these by name, one for all codes or one for each, in place of those of
                x: ``{"batch": "b2"}``. Without either numbers are at their means and sizes at the typical one.
            seen: as the model sees them, instead of in the units of the source.

        Raises:
            ValueError: codes of another shape or not finite, or not the condition that the model needs.

        Examples:
            ``fit.decode({"z2": torch.zeros(5, 2)})``; as if of another batch: ``fit.decode(z, x=rows, y={"batch": "b2"})``
        """
        kind: Any = {"device": self.device, "dtype": self.transform.loc.dtype}
        form = form_of(z)
        if form.kind == "frame" and not isinstance(z, Mapping):
            z = self._codes_of_frame(z)
        codes = {name: as_codes(value, **kind) for name, value in z.items()} if isinstance(z, Mapping) else as_codes(z, **kind)
        if (model := self.pair.can.decode_rows) is not None:
            told = self._given_rows(x=x, y=y, means=False, frame=None)
            (code,) = leaves(codes).values()
            (site,) = self.pair.model_facts.sites.values()
            if code.shape[-len(site.event_shape) :] != site.event_shape:
                expected = ", ".join(map(str, ("...", *site.event_shape)))
                raise ValueError(f"expected latent codes of shape ({expected}), got {tuple(code.shape)}")
            leading = broadcast_leading(code.shape[:-1], tuple(told.values()))
            flat, *known = (part.expand(*leading, -1).reshape(-1, part.shape[-1]) for part in (code, *told.values()))
            with evaluating(self.pair):
                found = Rows(*model.decoded_rows(flat, **dict(zip(told, known, strict=True))))
                return self._rows_leaving(found, seen=seen)
        with evaluating(self.pair):
            found = self._leaving(self._decoder.decode(codes, self._given(x, y)), means=True, seen=seen)
        return as_rows_given(form, found, self.spec, between=MEANS)

    @property
    def shared(self) -> tuple[str, ...]:
        """The latent variables of which all data share one value, as parameters with priors; told once codes were."""
        return self._encoder.shared

    @cached_property
    def _encoder(self) -> Encoder:
        return encoder_of(self.pair)

    @cached_property
    def _decoder(self) -> Decoder:
        return decoder_of(self.pair, self.spec, self.transform)

    def _paths(self, split: Split) -> Tensor:
        """The most probable states ``(N, T)``."""
        model = self.pair.can.find_path
        if model is None:
            raise ValueError("expected a model of rows with hidden states for the path of these, got another: leave path out")
        parts = [model.path(*batch) for batch in batches(self.pair, split, ROWS_AT_ONCE)]
        longest = max(part.shape[1] for part in parts)
        padded = torch.cat([torch.nn.functional.pad(part, (0, longest - part.shape[1])) for part in parts])
        return in_row_order(self.pair, split, padded)

    @property
    def elementwise(self) -> bool:
        """Whether codes are of the elements of rows, as hidden states are."""
        return any(site.per_element for site in self.pair.model_facts.sites.values())

    @property
    def _labelled(self) -> bool:
        return self.pair.model_facts.labelled

    @property
    def _predicts_classes(self) -> bool:
        """Whether what it predicts are the classes of the data, given or observed."""
        return self._labelled or self.pair.model_facts.classifies

    @property
    def dequantized(self) -> bool:
        """Whether the model sees whole numbers with noise."""
        return self.transform.dequantize or self.data.dequantize not in (False, "none")

    @property
    def _entrance(self) -> Entrance:
        transform = self.transform
        if self.dequantized and not transform.dequantize:  # training data whose noise was drawn once
            transform = transform.rescaling(dequantize=True)
        checked = isinstance(self.model, Model) and not self.spec.ragged
        return Entrance(
            spec=self.spec,
            transform=transform,
            labelled=self._predicts_classes,
            classified=self.pair.model_facts.classifies,
            source=self.data,
            device=self.device,
            support=self.model.value_check(self.spec) if checked else None,  # type: ignore[union-attr]
        )

    def _split(self, data: Given, y: Classes | None = None) -> Split:
        """The data as a split on the pair's device, matched to and checked against what the pair was built for."""
        return self._entrance.rows(data, y)

    def _codes_of_frame(self, frame: Frame) -> Tree:
        """Codes of a frame as :meth:`encode` gives them."""
        columns = {cells.name: as_real(cells.values, f"codes in column {cells.name!r}") for cells in cells_of_frame(frame)}
        shapes = {name: tuple(site.event_shape) for name, site in self.pair.model_facts.sites.items()}
        return codes_of_form(columns, shapes or {"z": (len(columns),)})

    def _given(self, x: Given | None, y: Classes | Mapping[str, Any] | None, n: int | None = None) -> tuple[Tensor, ...]:
        """What p(z) and p(x | z) are conditioned on, of codes or of ``n`` new data."""
        if (model := self.pair.can.covary) is not None:
            rows = iter(()) if x is None else batches(self.pair, self._split(x), ROWS_AT_ONCE)
            return conditions(model, self.spec, rows, y, n=n, like=self.transform.loc)
        if isinstance(y, Mapping):
            raise ValueError(f"expected no covariates for a model that has none, got {', '.join(y)}: leave y out")
        self._decoder.check_given(x=x is not None, y=y is not None)
        entrance = self._entrance
        classes = None if y is None else entrance.classes(y, lacking=entrance.classified)
        return self._decoder.given(None if x is None else self._split(x), classes)

    def _given_rows(self, n: int | None = None, *, x: Any, y: Any, means: bool, frame: Any) -> dict[str, Any]:
        """What new rows, or those of codes, are conditioned on: their classes, in turn if they are not told."""
        refuse_conditions(x=x, y=None if self._labelled else y, means=means, frame=frame)
        if not self._labelled:
            return {}
        if y is None and n is None:
            raise ValueError("this model is conditioned on labels: give the class of the rows, y=... (--y)")
        places = self._classes_in_turn(n or 0) if y is None else self._entrance.classes(y)
        if n is not None and len(places) not in (1, n):
            raise ValueError(f"expected one class or {n}, got {len(places)}")
        (c,) = self.pair.model_facts.known(places)
        return {"c": c if n is None else c.expand(n, -1)}

    def _classes_in_turn(self, n: int) -> Tensor:
        """The places ``(n,)`` of the classes, one after the other and over again."""
        return torch.arange(n, device=self.device) % len(self.spec.classes)

    def _rows_leaving(self, rows: Rows, *, seen: bool) -> Any:
        """Rows as texts, or in the units of the source or as the model sees them."""
        options: dict[str, Any] = {"means": False, "dequantized": self.dequantized}
        return rows_in_source_units(
            rows,
            self.spec,
            lambda values: values if seen else in_source_units(values, self.transform, self.spec, **options),
            tokens=None if seen else self.data.tokens,
        )

    def _leaving(self, found: Observed, *, means: bool, seen: bool) -> Tree:
        """What the model gives, x in the units of the source unless it is wanted as the model sees it."""
        if found.x and not seen:
            options: dict[str, Any] = {"means": means, "dequantized": self.dequantized}
            found.values[found.x] = in_source_units(found.values[found.x], self.transform, self.spec, **options)
        return tree(found.values)
