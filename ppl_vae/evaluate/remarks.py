"""What is to be said of numbers beside the numbers: which of them are not what they seem."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ppl_vae.evaluate.importance import UNTRUSTED

__all__ = ["MANY_BAD", "remarks"]

MANY_SAMPLES = 1000  # so many are meant to find log p(x), and not only a bound
MANY_BAD = 0.1  # the share of data with untrustworthy weights above which a bound is not to be trusted
NOISE = 0.1  # nats per datum by which a bound may be below another that is as tight


def remarks(numbers: dict[str, Any], *, samples: int) -> Iterator[str]:
    """Sentences about what :func:`ppl_vae.evaluate` found with so many samples: the symptom, what it means, what helps."""
    if samples >= MANY_SAMPLES and numbers.get("k_hat_bad", 0.0) > MANY_BAD:
        yield (
            f"the importance weights of {100 * numbers['k_hat_bad']:.0f} % of the data are not to be trusted (Pareto k-hat "
            f"above {UNTRUSTED}): iwae is a lower bound still, but may be loose, and its standard error does not show it; "
            "use more samples, a richer guide, or ais"
        )
    if numbers.get("ais", math.inf) < numbers.get("elbo", -math.inf) - NOISE:
        yield (
            f"annealed importance sampling ends at {numbers['ais']:.2f}, below the ELBO of {numbers['elbo']:.2f}, though both "
            "bound log p(x) from below: its chains did not mix; give it more temperatures, leapfrog steps or chains"
        )
    if "gap_reference" in numbers and numbers["approximation_gap"] is None:
        yield (
            f"the approximation gap is not told: {_why(numbers)}, so it is at least "
            f"{numbers['approximation_gap_at_least']:.2f}; use more samples, a richer guide, or ais with more temperatures"
        )


def _why(numbers: dict[str, Any]) -> str:
    """Why the tightest bound that there is cannot stand for log p(x)."""
    reference = numbers["gap_reference"]
    bad = numbers.get({"iwae": "k_hat_bad", "local_iwae": "local_k_hat_bad"}.get(reference, ""))
    if bad is not None:
        return f"{reference} is the tightest bound, but the weights of {100 * bad:.0f} % of the data are not to be trusted"
    loose = "the ends of its sandwich are further apart than the gap" if reference == "ais" else "it has too few samples"
    return f"{reference} is the tightest bound, but {loose}"
