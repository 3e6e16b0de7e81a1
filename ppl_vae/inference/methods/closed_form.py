"""Closed forms as a method: the model says the formula, its modules get the result."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from ppl_vae.data import Data
from ppl_vae.data.matrices import Matrices
from ppl_vae.evaluate import evaluate
from ppl_vae.inference.methods.base import Method
from ppl_vae.inference.methods.conjugate import conjugate, exact_row
from ppl_vae.inference.training.clock import Stopwatch
from ppl_vae.program.pair import Pair
from ppl_vae.storage import NULL_CHECKPOINTER, AnyCheckpointer
from ppl_vae.types import Record, Report

__all__ = ["ClosedForm"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClosedForm(Method):
    """The maximum-likelihood solution by formula, for models that have one: PPCA (Tipping and Bishop 1999), PCA.

    Args:
        seed: unused; nothing is random.
    """

    posterior_guide: ClassVar[Literal["exact", "factors", "any"]] = "exact"
    takes_weights: ClassVar[bool] = True
    takes_processes: ClassVar[bool] = True

    @property
    def iterations(self) -> int:
        """One evaluation of the formula."""
        return 1

    def run(self, pair: Pair, data: Data, report: Report, checkpointer: AnyCheckpointer = NULL_CHECKPOINTER) -> list[Record]:
        """Fit the pair's model; one row of history.

        Raises:
            ValueError: a model without a closed form, or a guide with parameters of its own.
        """
        clock = Stopwatch(report)
        model = conjugate(self, pair, pair.can.solve, "closed_form", weighted=data.train.weights is not None)
        model.assign(model.closed_form(Matrices(data.train, relative=True)))
        seconds = clock.seconds
        numbers = evaluate(pair, data.train)
        row = {**exact_row(1, numbers.get("log_likelihood", numbers[pair.score.name]), clock), "seconds": seconds}
        if "log_likelihood" not in numbers:  # PCA has no density
            row = {name: row[name] for name in ("epoch", "objective", "seconds")} | {pair.score.name: numbers[pair.score.name]}
        clock.report(row)
        return [row]
