"""What the fits of a candidate come to: its row of the table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ppl_vae.declaration import Declaration
from ppl_vae.program.pair import Pair
from ppl_vae.selection.candidates import Candidate, told
from ppl_vae.selection.criteria import information, is_information
from ppl_vae.selection.work import Outcome, Plan
from ppl_vae.types import Record

__all__ = ["row_of"]


def row_of(candidate: Candidate, outcomes: Sequence[Outcome], plan: Plan, pair: Pair) -> Record:
    """The row of a candidate, of one fit or of a fit a fold."""
    # A chain counts the contexts that its rows had: after a fit, of several folds in the mean.
    counted = [outcome.numbers["parameters"] for outcome in outcomes if "parameters" in outcome.numbers]
    parameters = round(sum(counted) / len(counted)) if counted else pair.model_facts.free_parameters
    errors = [outcome.error for outcome in outcomes if outcome.error]
    row: Record = {name: _plain(value) for name, value in candidate.values.items()}
    row |= {"train_log_likelihood": None, "free_parameters": parameters, plan.by: None}
    if not errors:
        row["train_log_likelihood"] = sum(outcome.numbers["train"] for outcome in outcomes) / len(outcomes)
        row |= _judged(outcomes, plan, parameters)
    return row | {"seconds": sum(outcome.numbers["seconds"] for outcome in outcomes), "error": errors[0] if errors else None}


def _plain(value: Any) -> Any:
    return told(value) if isinstance(value, Declaration) else value


def _judged(outcomes: Sequence[Outcome], plan: Plan, parameters: int) -> dict[str, float]:
    """The criterion: of one fit to the training rows, or of the rows that each of several held out."""
    if is_information(plan.by):
        return information(plan.by, outcomes[0].numbers["train"], parameters, outcomes[0].numbers["train_n"])
    total = sum(outcome.numbers["held_out_n"] for outcome in outcomes)
    mean = sum(outcome.numbers["held_out_n"] * outcome.numbers["held_out"] for outcome in outcomes) / total
    return {plan.by: mean, f"{plan.by}_se": math.sqrt(sum(_spread(outcome.numbers, mean) for outcome in outcomes)) / total}


def _spread(of_fold: Mapping[str, float], mean: float) -> float:
    """``sum w^2 (l - mean)^2`` of the rows of a fold, by what it tells of their spread about its own mean."""
    value, error, count = (of_fold[f"held_out{end}"] for end in ("", "_se", "_n"))
    squares, skew = of_fold.get("held_out_squares", count), of_fold.get("held_out_skew", 0.0)  # of old: of rows without weights
    apart = value - mean
    return (count * error) ** 2 + 2 * apart * skew + squares * apart**2
