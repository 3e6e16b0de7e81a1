"""New data, in the units of the source: of rows, of grids, in steps, or of codes, as the model draws them."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ppl_vae.arguments import whole
from ppl_vae.data.frames import Form, Frame
from ppl_vae.data.native import MEANS, with_fractions
from ppl_vae.evaluate.observed import Observed
from ppl_vae.fitting.coding import Coding
from ppl_vae.fitting.inputs import Classes, Given, as_real
from ppl_vae.fitting.sample_options import SampleOptions
from ppl_vae.fitting.sequences import Beginning, beginning, drawn_rows, refuse_conditions
from ppl_vae.memory import require_memory
from ppl_vae.program.context import evaluating, seeded
from ppl_vae.program.sites import Tree

__all__ = ["Sampling"]


class Sampling(Coding):
    """The part of a :class:`~ppl_vae.fitting.fitted.Fit` that draws new data; its attributes are the fit's."""

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
        guidance: float = 0.0,
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
                :meth:`classes`; by default the classes in turn; -1 for data of none, where the model knows such. Or covariates
                by name, as for :meth:`decode`; categories that are not told go through their levels in turn. With the same
                seed, the same noise of z meets other classes.
            given: of a model of rows the elements that rows begin with, one beginning for all or one for each: texts, arrays
                ``(t, *element)`` or ``Ragged``. What follows is drawn given these, and rows come back whole. Of a model of
                images that are drawn line by line their first lines, ``(*channels, h, W)`` for all or one for each.
            length: of a model of rows how many elements they have at most, those that are given among them; of all, or of each.
            temperature: of a model of rows by a causal network, what log-probabilities of an element are divided by: below 1
                draws are more timid, at 0 the most probable element is taken. Of normal latent variables, by which the scales
                of p(z) are multiplied: below 1 new data are more typical and more alike, at 0 all are those of the means. Of
                grids of codes by a causal network, what log-probabilities of a code are divided by. Of several latent variables
                also by name, ``{"z2": 0.5}``, those without one at 1.
            top_p: of each element only the likeliest that together have this probability are drawn (Holtzman et al. 2020).
            steps: of a diffusion, fewer steps than it has, without noise of their own (DDIM, Song et al. 2021): sooner, and of
                a neighbouring model. By default all of them, each drawn; of one in continuous time 1000.
            guidance: of a diffusion given classes, w of (1 + w) x'(z_t, y) - w x'(z_t), by which what the class changes in the
                denoised data is exaggerated (Ho and Salimans 2022): data that are more of their class, more alike, and no
                longer draws of the model. At 0 they are its own.
            means: means of p(x | z) instead of draws, which lie closer to each other than data do.
            seed: of all of them.
            seen: as the model sees them, instead of in the units of the source.
            frame: as a frame of this library, with the columns of the source as a run keeps them (times in UTC without a zone,
                categories as texts), and classes in a column called as that of the labels, where the model is conditioned on
                such. Or a frame like which it is to be, with the dtypes, zones and categories of its columns.
            draws: the opposite of ``means``, which took its place; still taken, with a warning.

        Raises:
            ValueError: fewer than one datum, not the condition that the model needs, a frame of data that are no rows of
                columns, a beginning or a length of rows of a model that draws none, a temperature below zero or of latent
                variables that have none, or an option that this kind of drawing has no use for.

        Examples:
            ``fit.sample(64, frame="pandas")``; of a model of texts ``fit.sample(3, given="To be")``
        """
        if draws is not None:
            told = "fit.sample gives draws unless it is told means=True: leave draws=True out, write means=True for draws=False"
            warnings.warn(told, FutureWarning, stacklevel=2)
            means = not draws
        options = SampleOptions(
            n=whole("n", n),
            x=x,
            y=y,
            given=given,
            length=length,
            temperature=temperature,
            top_p=top_p,
            steps=steps,
            guidance=guidance,
            means=means,
            seed=seed,
            seen=seen,
            frame=frame,
        )
        require_memory(8 * options.n * math.prod(self.spec.event_shape), f"{options.n} draws")
        return self._drawing(options)(options)

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

        Examples:
            ``fit.by_class(8, means=True)[:, 3]``, eight of the fourth class.
        """
        if not self._labelled:
            raise ValueError("expected a model that is conditioned on labels, such as CVAE, got one that is not: use sample")
        first, *others = (self.sample(n, y=name, means=means, seed=seed, seen=seen) for name in self.spec.classes)
        return tree_map(lambda *drawn: torch.stack(drawn, dim=1), first, *others)

    def _drawing(self, options: SampleOptions) -> Callable[[SampleOptions], Any]:
        """How the model draws what is asked for, by what it can do."""
        of_rows = self.pair.can.continue_rows is not None
        options.check_bold(of_rows=of_rows, tempered=self.pair.model_facts.tempered)
        if of_rows:
            how, draw = "element after element", self._draw_rows
        elif options.begun:
            how, draw = "below their first lines", self._draw_below
        elif options.steps is not None or options.guidance:
            how, draw = "in steps", self._draw_in_steps
        else:
            how, draw = "from codes", self._draw_from_codes
        options.check_taken(how)
        return draw

    def _draw_rows(self, options: SampleOptions) -> Any:
        """Rows, element after element."""
        model: Any = self.pair.can.continue_rows
        n, given = options.n, options.given
        known = self._given_rows(n, x=options.x, y=options.y, means=options.means, frame=options.frame)
        begun = None if given is None else beginning(given, self._entrance, self.data.tokens)
        with evaluating(self.pair), seeded(options.seed, self.device):
            told = options.bold | known
            rows = drawn_rows(model, n, self.spec, begun, options.length, like=self.transform.loc, options=told)
        return self._rows_leaving(rows, seen=options.seen)

    def _draw_below(self, options: SampleOptions) -> Tree:
        """Grids, line after line, below their first ones."""
        model = self.pair.can.complete_lines
        if model is None or options.length is not None:
            raise ValueError("expected a model of rows for a beginning or a length of them, got another: leave both out")
        refuse_conditions(x=options.x, y=options.y, means=options.means, frame=options.frame)
        lines = self._upper_lines(options.given, options.n)
        with evaluating(self.pair), seeded(options.seed, self.device):
            found = Observed({"x": model.completed_lines(lines)}, "x")
        return self._leaving(found, means=False, seen=options.seen)

    def _draw_in_steps(self, options: SampleOptions) -> Tree:
        """Data of a model that makes them in steps, in so many."""
        steps, model = None if options.steps is None else whole("steps", options.steps), self.pair.can.draw_in_steps
        if model is None or options.means:
            what = "guidance" if steps is None else "steps"
            raise ValueError(
                f"expected draws from a model that makes them in steps, such as Diffusion, for {what}: leave it out"
            )
        with evaluating(self.pair), seeded(options.seed, self.device):
            known = self._given_or_in_turn(options.n, options.x, options.y)
            found = Observed({"x": model.drawn_in(options.n, steps, *known, guidance=options.guidance)}, "x")
        return self._leaving(found, means=False, seen=options.seen)

    def _draw_from_codes(self, options: SampleOptions) -> Any:
        """Data of codes that are drawn first; the classes in turn, if these are a condition that is not told."""
        n, x, y, means = options.n, options.x, options.y, options.means
        drawn = self._sampled(n, x, y, means=means, seed=options.seed, temperature=options.temperature)
        found = self._leaving(drawn, means=means, seen=options.seen)
        if options.frame is None:
            return found
        return self._framed(found, options.frame, None if isinstance(y, Mapping) else y, means=options.means)

    def _sampled(
        self,
        n: int,
        x: Given | None = None,
        y: Classes | Mapping[str, Any] | None = None,
        places: Tensor | None = None,
        *,
        means: bool,
        seed: int,
        temperature: float | Mapping[str, float] = 1.0,
    ) -> Observed:
        """N new data as the model sees them; of these places of classes, or as is given by ``x`` or ``y``."""
        with evaluating(self.pair), seeded(seed, self.device):
            given = self._given_or_in_turn(n, x, y) if places is None else self._decoder.given(None, places)
            return self._decoder.sample(n, given, means=means, temperature=temperature)

    def _given_or_in_turn(self, n: int, x: Given | None, y: Classes | Mapping[str, Any] | None) -> tuple[Tensor, ...]:
        """What ``n`` new data are conditioned on; classes in turn, if these are a condition that is not told."""
        if x is None and y is None and self._labelled:
            return self._decoder.given(None, self._classes_in_turn(n))
        return self._given(x, y, n)

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

    def _framed(self, x: Tree, library: Any, y: Classes | None, *, means: bool) -> Any:
        """Rows as a frame of a library, or like a frame, beside them their classes, where they have such."""
        if not isinstance(x, Tensor) or x.shape[1:] != self.spec.event_shape or x.dim() != 2:
            raise ValueError("expected data of rows of columns for a frame of them, got others: leave frame out")
        names = self.spec.columns or tuple(f"x{place}" for place in range(1, x.shape[1] + 1))
        columns: dict[str, Any] = dict(zip(names, x.T, strict=True))
        if self._labelled:
            entrance, classes = self._entrance, [*self.spec.classes, None]  # -1, the last, of no class
            places = self._classes_in_turn(len(x)) if y is None else entrance.classes(y, lacking=entrance.classified)
            columns[self.data.label or "y"] = [classes[place] for place in places.expand(len(x))]
        form = Form.of(library) if not isinstance(library, str) else Form(kind="frame", backend=library)  # type: ignore[arg-type]
        table = with_fractions(self.spec.table, columns, MEANS if means else ())
        return dataclasses.replace(form, index=None).columns(columns, table)
