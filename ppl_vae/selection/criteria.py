"""What candidates are judged by.

    AIC = -2 log L + 2 p                  Akaike (1974)
    BIC = -2 log L + p log N              Schwarz (1978)
    held-out log-likelihood, or cross-validated (Stone 1974), in nats per datum

L is the likelihood of the N training rows, p the number of free parameters. The one-standard-error rule takes the simplest
candidate that is no more than one standard error of the best one behind it (Breiman, Friedman, Olshen and Stone 1984).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from ppl_vae.declaration import require

__all__ = ["By", "Rule", "check_criterion", "chosen", "information", "is_information"]

By = Literal["bic", "aic", "heldout", "cv"]
Rule = Literal["best", "one_se"]


def is_information(by: str) -> bool:
    """Whether it is a criterion of the training rows, which needs log p(x), and the lower the better."""
    return by in ("bic", "aic")


def check_criterion(by: str, rule: str) -> None:
    """Raise ``ValueError`` for another criterion or rule, or a rule that the criterion has no standard error for."""
    require(by in get_args(By), f"by: one of {', '.join(get_args(By))}", by)
    require(rule in get_args(Rule), f"rule: one of {', '.join(get_args(Rule))}", rule)
    with_error = rule == "best" or not is_information(by)
    require(with_error, f"rule 'best' of {by}, which has no standard error (heldout and cv have)", rule)


def information(by: str, log_likelihood: float, parameters: int, rows: float) -> dict[str, float]:
    """The criterion, as scikit-learn has it, and ``penalized``, the same in nats per datum: it over -2 N.

    Args:
        by: ``bic`` or ``aic``.
        log_likelihood: in nats per datum.
        parameters: how many are free.
        rows: N, of weighted rows the sum of their weights.

    Examples:
        >>> information("aic", -2.0, parameters=10, rows=100)
        {'aic': 420.0, 'penalized': -2.1}
    """
    penalty = parameters * (math.log(rows) if by == "bic" else 2.0)
    value = -2 * rows * log_likelihood + penalty
    return {by: value, "penalized": value / (-2 * rows)}


def chosen(rows: Sequence[Mapping[str, Any]], by: str, rule: str) -> int:
    """The place of the row that is the best, or the simplest within one standard error of it; of equal ones the first.

    Rows without a value are those that could not be fitted.

    Raises:
        ValueError: no row has a value.

    Examples:
        >>> rows = [{"cv": -3.0, "cv_se": 0.2, "free_parameters": 4}, {"cv": -2.9, "cv_se": 0.2, "free_parameters": 8}]
        >>> chosen(rows, "cv", "best"), chosen(rows, "cv", "one_se")
        (1, 0)
    """
    sign = -1 if is_information(by) else 1
    known = [place for place, row in enumerate(rows) if row.get(by) is not None]
    if not known:
        raise ValueError(f"no candidate could be fitted; of the first: {rows[0].get('error')}")
    best = max(known, key=lambda place: sign * rows[place][by])
    if rule == "best":
        return best
    near = [place for place in known if rows[place][by] >= rows[best][by] - rows[best][f"{by}_se"]]
    return min(near, key=lambda place: rows[place]["free_parameters"])
