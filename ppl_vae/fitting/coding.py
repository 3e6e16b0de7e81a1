"""Codes of data, data of codes, and new data: what a fit is asked for, in the units of the source."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ppl_vae.arguments import whole
from ppl_vae.data import DataSource, Split, Transform
from ppl_vae.data.frames import Form, Frame, cells_of_frame
from ppl_vae.evaluate.observed import ROWS_AT_ONCE, Observed
from ppl_vae.evaluate.rows import batches, in_row_order
from ppl_vae.evaluate.verbs import Decoder, Encoder, decoder_of, encoder_of, reconstructed
from ppl_vae.fitting.covariates import conditions
from ppl_vae.fitting.inputs import Classes, Entrance, Given, as_codes, as_real, in_source_units
from ppl_vae.fitting.outputs import as_codes_given, as_rows_given, codes_of_form, form_of
from ppl_vae.fitting.sequences import (
    Beginning,
    Rows,
    beginning,
    drawn_rows,
    ragged_codes,
    refuse_conditions,
    rows_in_source_units,
)
from ppl_vae.memory import require_memory
from ppl_vae.models import Model
from ppl_vae.program.context import evaluating, seeded
from ppl_vae.program.pair import Pair
from ppl_vae.program.sites import Tree, leaves, tree
from ppl_vae.text import as_line
from ppl_vae.types import DataSpec

__all__ = ["Coding"]


class Coding:
    """The part of a :class:`~ppl_vae.fitting.fitted.Fit` that encodes, decodes and samples; its attributes are the fit's."""

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

        Example:
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

        Means are fed forward from site to site. Of a variable that all data share there is one value, without B. Of rows whose
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

        Example:
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

        Example:
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
            with evaluating(self.pair):
                return self._rows_leaving(Rows(*model.decoded_rows(code.reshape(-1, code.shape[-1]), **told)), seen=seen)
        with evaluating(self.pair):
            found = self._leaving(self._decoder.decode(codes, self._given(x, y)), means=True, seen=seen)
        return as_rows_given(form, found, self.spec)

    def reconstruct(self, x: Given, *, y: Classes | None = None, seen: bool = False) -> Any:
        """Means of p(x | z) at the posterior means of z, ``(B, *event)``, or of each observed site by name if several are.

        Of dequantized data they are means of the levels; of categories in no order the most probable one. Models of rows take
        the most probable element one after the other: texts, or :class:`~ppl_vae.Ragged`.

        Args:
            x: rows ``(B, *event)`` in the units of the source: a tensor, a split, or the fields that the programs read.
            y: a class for all rows or one for each, by name or number, where the model is conditioned on labels.
            seen: as the model sees them, instead of in the units of the source.

        Raises:
            ValueError: rows that the fit was not built for, or a variable without a mean.

        Example:
            ``(fit.reconstruct(data.test) - data.test.x).abs().mean()``
        """
        split = self._split(x, y)
        if (model := self.pair.can.decode_rows) is not None:
            (codes,) = leaves(self.encode(split)).values()
            lengths = None if split.sizes is None else split.sizes.to(self.device)
            given: dict[str, Any] = {"c": self.pair.model_facts.known(split.labels)[0]} if self._labelled else {}
            with evaluating(self.pair):
                return self._rows_leaving(Rows(*model.decoded_rows(codes, lengths, **given)), seen=seen)
        with evaluating(self.pair):
            found = self._leaving(reconstructed(self.pair, split, self._encoder, self._decoder), means=True, seen=seen)
        return as_rows_given(form_of(x), found, self.spec)

    def sample(
        self,
        n: int,
        *,
        x: Given | None = None,
        y: Classes | Mapping[str, Any] | None = None,
        given: Beginning | None = None,
        length: int | Sequence[int] | None = None,
        temperature: float | Mapping[str, float] = 1.0,
        top_p: float = 1.0,
        steps: int | None = None,
        means: bool = False,
        seed: int = 0,
        seen: bool = False,
        frame: Literal["pandas", "polars", "pyarrow"] | Frame | None = None,
        draws: bool | None = None,
    ) -> Any:
        """N new data ``(n, *event)`` in the units of the source: z from the declared prior, then draws from p(x | z).

        Draws of dequantized data are whole numbers. Where there is no prior, as in ``AutoEncoder``, z comes from a normal
        fitted to the training data's codes. What all data share is at the guide's mean.

        Models of rows draw element after element. Rows that may differ in length end by their token where texts have one, else
        at a length drawn from those of the training rows. They come as texts where the data were texts, else as
        :class:`~ppl_vae.Ragged`; rows of one length as ever.

        Args:
            n: how many.
            x: data of which a part is known, one or ``n``, if the model is conditioned on it: the rest is sampled; or rows
                whose covariates are taken, or that plain programs look at beside observing them.
            y: classes, if the model is conditioned on labels: a name or number for all, or one for each, as for
                :meth:`classes`; by default the classes in turn. Or covariates by name, as for :meth:`decode`; categories that
                are not told go through their levels in turn. With the same seed, the same noise of z meets other classes.
            given: of a model of rows the elements that rows begin with, one beginning for all or one for each: texts, arrays
                ``(t, *element)`` or ``Ragged``. What follows is drawn given these, and rows come back whole. Of a model of
                images that are drawn line by line their first lines, ``(*channels, h, W)`` for all or one for each.
            length: of a model of rows how many elements they have at most, those that are given among them; of all, or of each.
            temperature: of a model of rows by a causal network, what log-probabilities of an element are divided by: below 1
                draws are more timid, at 0 the most probable element is taken. Of normal latent variables, by which the scales
                of p(z) are multiplied: below 1 new data are more typical and more alike, at 0 all are those of the means; of
                several latent variables also by name, ``{"z2": 0.5}``, those without one at 1.
            top_p: of each element only the likeliest that together have this probability are drawn (Holtzman et al. 2020).
            steps: of a diffusion, fewer steps than it has, without noise of their own (DDIM, Song et al. 2021): sooner, and of
                a neighbouring model. By default all of them, each drawn.
            means: means of p(x | z) instead of draws, which lie closer to each other than data do.
            seed: of all of them.
            seen: as the model sees them, instead of in the units of the source.
            frame: as a frame of this library, with the columns of the source as a run keeps them (times in UTC without a zone,
                categories as texts), and classes in a column called as that of the labels, where the model is conditioned on
                such. Or a frame like which it is to be, with the dtypes, zones and categories of its columns.
            draws: the opposite of ``means``, which took its place; still taken, with a warning.

        Raises:
            ValueError: fewer than one datum, not the condition that the model needs, a frame of data that are no rows of
                columns, a beginning or a length of rows of a model that draws none, or a temperature below zero or of latent
                variables that are not normal.

        Example:
            ``fit.sample(64, frame="pandas")``; of a model of texts ``fit.sample(3, given="To be")``
        """
        if draws is not None:
            told = "fit.sample gives draws unless it is told means=True: leave draws=True out, write means=True for draws=False"
            warnings.warn(told, FutureWarning, stacklevel=2)
            means = not draws
        if (n := whole("n", n)) < 1:
            raise ValueError(f"expected to draw at least 1 datum, got n = {n}")
        temperatures = list(temperature.values()) if isinstance(temperature, Mapping) else [temperature]
        for name, value in (*(("temperature", each) for each in temperatures), ("top_p", top_p)):
            if isinstance(value, bool) or not isinstance(value, Real):
                raise ValueError(f"expected a number for {name}, got {as_line(repr(value))}")
        if not all(0 <= (low := each) < math.inf for each in temperatures):
            raise ValueError(f"expected a temperature of at least 0, got {low:g}")
        require_memory(8 * n * math.prod(self.spec.event_shape), f"{n} draws")
        bold: dict[str, Any] = {name: value for name, value in (("temperature", temperature), ("top_p", top_p)) if value != 1}
        of_rows = self.pair.can.continue_rows is not None
        if (bold if of_rows else "top_p" in bold) and not self.pair.model_facts.tempered:
            raise ValueError(f"expected a causal network and a likelihood of tokens for {', '.join(bold)}, got another model")
        if of_rows:
            if isinstance(temperature, Mapping):
                raise ValueError("expected a number for the temperature of a model of rows, got one for each latent variable")
            known = self._given_rows(n, x=x, y=y, means=means, frame=frame)
            return self._rows_drawn(n, given, length, seed=seed, seen=seen, options=bold | known)
        if given is not None and length is None and (model := self.pair.can.complete_lines) is not None:
            refuse_conditions(x=x, y=y, means=means, frame=frame)
            begun = self._upper_lines(given, n)
            with evaluating(self.pair), seeded(seed, self.device):
                return self._leaving(Observed({"x": model.completed_lines(begun)}, "x"), means=False, seen=seen)
        if given is not None or length is not None:
            raise ValueError("expected a model of rows for a beginning or a length of them, got another: leave both out")
        if steps is not None:
            self._decoder.check_given(x=x is not None, y=y is not None)
            return self._leaving(self._drawn_in(n, whole("steps", steps), seed, means=means), means=False, seen=seen)
        places: Tensor | None = None
        if y is None and x is None and self._labelled:
            places = torch.arange(n, device=self.device) % len(self.spec.classes)
        drawn = self._sampled(n, x, y, places, means=means, seed=seed, temperature=temperature)
        found = self._leaving(drawn, means=means, seen=seen)
        return found if frame is None else self._framed(found, frame, places, None if isinstance(y, Mapping) else y)

    def by_class(self, n: int, *, means: bool = False, seed: int = 0, seen: bool = False) -> Any:
        """Draws from p(x | z, y) for each class and n draws of z, ``(n, classes, *event)``, of a model conditioned on labels.

        A row has one draw of the noise of z; where p(z | y) depends on y, it is shifted and scaled to each class.

        Args:
            n: how many of each class.
            means: means of p(x | z, y) instead of draws.
            seed: of all of them.
            seen: as the model sees them, instead of in the units of the source.

        Raises:
            ValueError: a model that is not conditioned on labels, or fewer than one datum.

        Example:
            ``fit.by_class(8, means=True)[:, 3]``, eight of the fourth class.
        """
        if not self._labelled:
            raise ValueError("expected a model that is conditioned on labels, such as CVAE, got one that is not: use sample")
        first, *others = (self.sample(n, y=name, means=means, seed=seed, seen=seen) for name in self.spec.classes)
        return tree_map(lambda *drawn: torch.stack(drawn, dim=1), first, *others)

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
    def _dequantized(self) -> bool:
        """Whether the model sees whole numbers with noise."""
        return self.transform.dequantize or self.data.dequantize not in (False, "none")

    @property
    def _entrance(self) -> Entrance:
        transform = self.transform
        if self._dequantized and not transform.dequantize:  # training data whose noise was drawn once
            transform = transform.rescaling(dequantize=True)
        checks = isinstance(self.model, Model) and type(self.model).check_values is not Model.check_values
        return Entrance(
            spec=self.spec,
            transform=transform,
            labelled=self._predicts_classes,
            classified=self.pair.model_facts.classifies,
            source=self.data,
            device=self.device,
            support=self.model.check_values if checks and not self.spec.ragged else None,  # type: ignore[union-attr]
        )

    def _split(self, data: Given, y: Classes | None = None) -> Split:
        """The data as a split on the pair's device, matched to and checked against what the pair was built for."""
        return self._entrance.rows(data, y)

    def _framed(self, x: Tree, library: Any, places: Tensor | None, y: Classes | None) -> Any:
        """Rows as a frame of a library, or like a frame, beside them their classes, where they have such."""
        if not isinstance(x, Tensor) or x.shape[1:] != self.spec.event_shape or x.dim() != 2:
            raise ValueError("expected data of rows of columns for a frame of them, got others: leave frame out")
        names = self.spec.columns or tuple(f"x{place}" for place in range(1, x.shape[1] + 1))
        columns: dict[str, Any] = dict(zip(names, x.T, strict=True))
        if self._labelled:
            places = self._entrance.classes(y).expand(len(x)) if places is None and y is not None else places
            columns[self.data.label or "y"] = [self.spec.classes[place] for place in places]  # type: ignore[union-attr]
        form = Form.of(library) if not isinstance(library, str) else Form(kind="frame", backend=library)  # type: ignore[arg-type]
        return dataclasses.replace(form, index=None).columns(columns, self.spec.table)

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
        return self._decoder.given(None if x is None else self._split(x), None if y is None else self._entrance.classes(y))

    def _sampled(
        self,
        n: int,
        x: Given | None,
        y: Classes | Mapping[str, Any] | None,
        places: Tensor | None,
        *,
        means: bool,
        seed: int,
        temperature: float | Mapping[str, float] = 1.0,
    ) -> Observed:
        """N new data as the model sees them; of these places of classes, or as is given by ``x`` or ``y``."""
        with evaluating(self.pair), seeded(seed, self.device):
            given = self._given(x, y, n) if places is None else self._decoder.given(None, places)
            return self._decoder.sample(n, given, means=means, temperature=temperature)

    def _drawn_in(self, n: int, steps: int, seed: int, *, means: bool) -> Observed:
        """N new data of a model that draws them in steps, in so many."""
        model = self.pair.can.draw_in_steps
        if model is None or means:
            raise ValueError("expected draws from a model that makes them in steps, such as Diffusion, for steps: leave it out")
        with evaluating(self.pair), seeded(seed, self.device):
            return Observed({"x": model.drawn_in(n, steps)}, "x")

    def _given_rows(self, n: int | None = None, *, x: Any, y: Any, means: bool, frame: Any) -> dict[str, Any]:
        """What new rows, or those of codes, are conditioned on: their classes, in turn if they are not told."""
        if not self._labelled:
            refuse_conditions(x=x, y=y, means=means, frame=frame)
            return {}
        refuse_conditions(x=x, y=None, means=means, frame=frame)
        if y is None and n is None:
            raise ValueError("this model is conditioned on labels: give the class of the rows, y=...")
        places = torch.arange(n or 0, device=self.device) % len(self.spec.classes) if y is None else self._entrance.classes(y)
        if n is not None and len(places) not in (1, n):
            raise ValueError(f"expected one class or {n}, got {len(places)}")
        (c,) = self.pair.model_facts.known(places)
        return {"c": c if n is None else c.expand(n, -1)}

    def _rows_drawn(
        self,
        n: int,
        given: Beginning | None,
        length: int | Sequence[int] | None,
        *,
        seed: int,
        seen: bool,
        options: Mapping[str, Any],
    ) -> Any:
        """New rows, element after element, in the units of the source or as the model sees them."""
        begun = None if given is None else beginning(given, self._entrance, self.data.tokens)
        with evaluating(self.pair), seeded(seed, self.device):
            model: Any = self.pair.can.continue_rows
            rows = drawn_rows(model, n, self.spec, begun, length, like=self.transform.loc, options=options)
        return self._rows_leaving(rows, seen=seen)

    def _upper_lines(self, given: Any, n: int) -> Tensor:
        """First lines of grids as the model sees them, ``(n, *channels, h, W)``."""
        values, event = as_real(given, "the first lines of grids"), self.spec.event_shape
        values = values[None] if values.dim() == len(event) else values
        height = values.shape[-2] if values.dim() == 1 + len(event) > 2 else 0
        if values.shape[1:] != (*event[:-2], height, *event[-1:]) or not 0 < height < event[-2] or len(values) not in (1, n):
            raise ValueError(
                f"expected the first lines, fewer than {event[-2:-1]}, of one grid of shape {event} or of {n}, got an array "
                f"{tuple(values.shape)}"
            )
        whole_grids = values.new_zeros(len(values), *event)
        whole_grids[..., :height, :] = values
        lines: Tensor = self._split(whole_grids).transformed()[..., :height, :].to(self.device)
        return lines.expand(n, *lines.shape[1:])

    def _rows_leaving(self, rows: Rows, *, seen: bool) -> Any:
        """Rows as texts, or in the units of the source or as the model sees them."""
        options: dict[str, Any] = {"means": False, "dequantized": self._dequantized}
        return rows_in_source_units(
            rows,
            self.spec,
            lambda values: values if seen else in_source_units(values, self.transform, self.spec, **options),
            tokens=None if seen else self.data.tokens,
        )

    def _leaving(self, found: Observed, *, means: bool, seen: bool) -> Tree:
        """What the model gives, x in the units of the source unless it is wanted as the model sees it."""
        if found.x and not seen:
            options: dict[str, Any] = {"means": means, "dequantized": self._dequantized}
            found.values[found.x] = in_source_units(found.values[found.x], self.transform, self.spec, **options)
        return tree(found.values)
