"""Rows with missing entries, and what fills these."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from ppl_vae.arguments import whole
from ppl_vae.data import Split
from ppl_vae.data.frames import with_others_of, with_times_of
from ppl_vae.data.matching import drawn_already
from ppl_vae.data.native import FILLED
from ppl_vae.evaluate.importance import UNTRUSTED
from ppl_vae.evaluate.imputation import imputed
from ppl_vae.evaluate.remarks import MANY_BAD
from ppl_vae.fitting.coding import Coding
from ppl_vae.fitting.inputs import Classes, Given, in_source_units, is_named
from ppl_vae.fitting.outputs import as_rows_given, form_of
from ppl_vae.memory import require_memory
from ppl_vae.program.context import evaluating, seeded
from ppl_vae.types import FitWarning

__all__ = ["Filling"]

SAMPLES = 200


class Filling(Coding):
    """The part of a :class:`~ppl_vae.fitting.fitted.Fit` that fills missing entries."""

    def impute(
        self, x: Given, *, y: Classes | None = None, draws: int | None = None, samples: int = SAMPLES, seed: int = 0
    ) -> Any:
        """Rows with their missing entries (NaN) filled from the observed ones, in the units of the source.

        Observed entries stay as they are, to the bit. Whether or not the rows that were fitted had missing entries, these are
        taken to be missing at random.

        FactorAnalysis, PPCA and GMM, also with priors on their parameters (then at the point estimates), fill by the exact
        conditional distribution p(missing | observed). Others do by the guide: draws of z from q(z | x), weighed by
        p(observed | z) p(z) / q(z | x). An encoder that takes missing entries sees the observed ones alone; another is
        shown rows that short chains completed. Both are exact as ``samples`` grows, and a warning tells where the weights are
        not to be trusted.

        Args:
            x: rows ``(B, *event)``, NaN where an entry is missing.
            y: a class for all rows or one for each, by name or number, where the model is conditioned on labels.
            draws: so many draws of each row, whose spread is that of what is not known, instead of the one value that stands
                for an entry: its conditional mean, of a count the whole number nearest to that, of a category the most
                probable one.
            samples: draws of z of each row by which the guide's weights are formed; the exact conditionals need none.
            seed: of all draws.

        Returns:
            ``(B, *event)``, or ``(draws, B, *event)``; of a frame a frame with its columns in its order and their dtypes, those
            that the fit does not know as they came, or a list of such.

        Raises:
            ValueError: rows that the fit was not built for, a model without p(z), or one whose entries depend on each other
                given z.

        Examples:
            ``fit.impute(x, draws=20).std(0)``
        """
        samples = whole("samples", samples)
        if samples < 1 or (draws is not None and (draws := whole("draws", draws)) < 1):
            raise ValueError(f"expected at least 1 of draws and of samples, got {draws} and {samples}")
        self.check_fills()
        found, form = self._filled(x, y, draws, samples, seed), form_of(x)
        rows = as_rows_given(form, found, self.spec, between=FILLED, draws=draws is not None)
        if form.kind != "frame":
            return rows
        frames = [with_others_of(x, with_times_of(x, each)) for each in (rows if draws is not None else [rows])]
        return frames[0] if draws is None else frames

    def missing(self, x: Given, *, y: Classes | None = None) -> Tensor:
        """Which entries of rows are missing, those that :meth:`impute` fills.

        Args:
            x: rows ``(B, *event)``, NaN where an entry is missing.
            y: a class for all rows or one for each, by name or number, where the model is conditioned on labels.

        Returns:
            ``(B, *event)``, true where an entry is missing.

        Raises:
            ValueError: rows that the fit was not built for.

        Examples:
            ``fit.missing(x).sum(0)``
        """
        return self._as_read(self.rows_to_fill(x, y=y)).isnan()

    def rows_to_fill(self, x: Given, *, y: Classes | None = None) -> Split:
        """Rows as :meth:`impute` and :meth:`missing` take them, read once, in the units of the source and with its columns.

        Args:
            x: rows ``(B, *event)``, NaN where an entry is missing, such as a declaration of data or a path.
            y: a class for all rows or one for each, by name or number, where the model is conditioned on labels.

        Raises:
            ValueError: rows that the fit was not built for.

        Examples:
            ``fit.rows_to_fill("holes.csv")``
        """
        self.check_fills()
        return self._entrance.incomplete().matched(x, y)

    def check_fills(self) -> None:
        """Raise ``ValueError`` if rows of such data have no entries to fill."""
        if self.spec.ragged or self.spec.fields or self.pair.can.covary:
            lengths = "rows of different lengths"
            told = lengths if self.spec.ragged else "several fields, or of sizes that are totals of x"
            raise ValueError(f"expected a fit of rows of one length, x alone, to fill entries of, got one of {told}")

    def _filled(self, x: Given, y: Classes | None, draws: int | None, samples: int, seed: int) -> Tensor:
        entrance = self._entrance.incomplete()
        given = entrance.matched(x, y)
        raw, split = self._as_read(given), entrance.shown(given, named=is_named(x))
        if draws is not None:
            require_memory(8 * draws * raw.numel(), f"{draws} draws of {len(raw)} rows")
        missing = raw.isnan()
        rows = missing.flatten(1).any(1).nonzero().flatten()
        found = raw if draws is None else raw.expand(draws, *raw.shape).clone()
        if not len(rows):
            return found
        filled = self._conditional(split[rows], missing[rows], draws, samples, seed)
        if self.transform.binarize and not drawn_already(given):  # ones are the largest value that the source has
            filled = self.transform.rescaling().inverse(filled)
        filled = in_source_units(filled, self.transform, self.spec, means=False, dequantized=self.dequantized)
        filled = torch.where(missing[rows], filled.to(raw), raw[rows])
        return found.index_copy(0 if draws is None else 1, rows, filled)

    def _as_read(self, split: Split) -> Tensor:
        """Values of rows in the units of the source."""
        if split.transform.seen:
            return split.transform.inverse(split.x)
        return split.as_read(whole=split.drawn is not None and split.drawn.dequantize).x

    def _conditional(self, split: Split, missing: Tensor, draws: int | None, samples: int, seed: int) -> Tensor:
        """Rows filled as the model sees them, in float64 where that is exact."""
        if self.pair.can.impute is None:
            found = imputed(self.pair, split, missing, draws=draws, samples=samples, seed=seed)
            _warn(found.bad, learned=self.spec.missing)
            return found.x
        x = split.to(dtype=torch.float64).transformed().masked_fill(missing, torch.nan)
        with evaluating(self.pair), seeded(seed, self.device):
            return self.pair.can.impute.impute(x, draws)


def _warn(bad: float, *, learned: bool) -> None:
    """Say so if many weights are not to be trusted; ``learned``: whether the encoder saw missing entries when it was fitted."""
    if bad > MANY_BAD:
        remedy = (
            "" if learned else ", or fit with missing='ignore' and a Masked likelihood, whose encoder learns of missing entries"
        )
        warnings.warn(
            f"the weights of {100 * bad:.0f} % of the rows with missing entries are not to be trusted (Pareto k-hat above "
            f"{UNTRUSTED}): few draws of z agree with what is observed: give more samples{remedy}",
            FitWarning,
            stacklevel=4,
        )
