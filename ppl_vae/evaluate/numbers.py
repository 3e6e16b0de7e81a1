"""Numbers of columns: means over the data of what is known of each datum, and what follows from several of them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ppl_vae.evaluate.annealing import Annealed
from ppl_vae.evaluate.importance import UNTRUSTED
from ppl_vae.evaluate.remarks import MANY_BAD
from ppl_vae.evaluate.rows import mean, standard_error
from ppl_vae.types import Score

__all__ = ["LOG_LIKELIHOODS", "numbers_of_annealing", "numbers_of_bounds", "numbers_of_gaps"]

LOG_LIKELIHOODS = ("log_likelihood", "iwae", "local_iwae", "ais")  # what gaps are counted from
K_HATS = {"iwae": "k_hat", "local_iwae": "local_k_hat"}  # whether these are to be trusted
BEYOND = 3.0  # standard errors by which a bound is above another beyond what chance makes of it
WITHOUT_CONSTANT = ("kl", "k_hat", "ais_acceptance")  # in whose units the data do not matter


def numbers_of_bounds(
    columns: dict[str, Tensor],
    score: Score,
    constant: float | Tensor,
    samples: int,
    weights: Tensor | None = None,
    *,
    parts: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Of the bounds of each datum: the score that they are, its parts, log p(x), the bound of many samples.

    And the ``parts`` of the KL by name, in whose units the data do not matter.
    """
    n = len(columns["elbo"])
    likelihood = _means({name: columns[name] for name in ("log_likelihood",) if name in columns}, constant, weights)
    named = {score.name: columns["elbo"]} | {part: columns[part] for part in score.parts if part != score.name}
    numbers = {**_means(named, constant, weights, errors=(score.name,)), "n": n, **likelihood}
    numbers |= _means({part: columns[part] for part in parts if part in columns}, 0.0, weights, errors=())
    if likelihood and score.bound == "lower":
        numbers["gap"] = numbers["log_likelihood"] - numbers[score.name]
    if "iwae" in columns:
        numbers |= {**_means({"iwae": columns["iwae"]}, constant, weights), "samples": samples}
    if "k_hat" in columns:
        numbers["k_hat_bad"] = _share_bad(columns["k_hat"], weights)
    return numbers


def numbers_of_annealing(found: Annealed, constant: float | Tensor, weights: Tensor | None = None) -> dict[str, Any]:
    """The bound, and both ends of its sandwich, about the data themselves or about others in their places."""
    return _means(found.columns, constant, weights) | _sandwich(found, constant, None if found.simulated else weights)


def _sandwich(found: Annealed, constant: float | Tensor, weights: Tensor | None) -> dict[str, Any]:
    of_these = mean(constant[: found.sandwiched] if isinstance(constant, Tensor) else constant, weights)
    ends = {name: value + of_these for name, value in found.sandwich.items()}
    return {"simulated": {**ends, "n": found.sandwiched}} if ends and found.simulated else ends


def numbers_of_gaps(
    columns: dict[str, Tensor], constant: float | Tensor, numbers: dict[str, Any], weights: Tensor | None = None
) -> dict[str, Any]:
    """What is lost by the family of q, and what by the encoder."""
    local = columns["local_elbo"]
    reference, trusted = _reference(columns, numbers, weights)
    found = _means({name: columns[name] for name in ("local_elbo", "local_iwae") if name in columns}, constant, weights)
    if "local_k_hat" in columns:
        found["local_k_hat_bad"] = _share_bad(columns["local_k_hat"], weights)
    gap = {"approximation_gap" if trusted else "approximation_gap_at_least": columns[reference] - local}
    if not trusted:
        found["approximation_gap"] = None
    return {**found, **_means({**gap, "amortization_gap": local - columns["elbo"]}, 0.0, weights), "gap_reference": reference}


def _reference(columns: dict[str, Tensor], numbers: dict[str, Any], weights: Tensor | None) -> tuple[str, bool]:
    """The bound that stands for log p(x), and whether it can: the tightest of those to be trusted, if none is above it."""
    candidates = [name for name in LOG_LIKELIHOODS if name in columns]
    if candidates[0] == "log_likelihood":
        return candidates[0], True
    candidates.sort(key=lambda name: -mean(columns[name], weights))
    for name in (name for name in candidates if _trusted(name, columns, numbers, weights)):
        above = columns[candidates[0]] - columns[name]
        if mean(above, weights) <= BEYOND * standard_error(above, weights):
            return name, True
    return candidates[0], False


def _trusted(name: str, columns: dict[str, Tensor], numbers: dict[str, Any], weights: Tensor | None) -> bool:
    """Whether a bound is near enough to log p(x) to count a gap from it."""
    if name in K_HATS:
        k_hat = columns.get(K_HATS[name])
        return k_hat is not None and _share_bad(k_hat, weights) <= MANY_BAD
    sandwich, gap = numbers.get("simulated", numbers), mean(columns[name] - columns["local_elbo"], weights)
    return gap >= sandwich.get("bdmc_upper", 0.0) - sandwich.get("bdmc_lower", 0.0)


def _share_bad(k_hat: Tensor, weights: Tensor | None) -> float:
    """The share of the data whose importance weights are not to be trusted."""
    return mean((k_hat > UNTRUSTED).double(), weights)


def _means(
    columns: dict[str, Tensor],
    constant: float | Tensor,
    weights: Tensor | None,
    *,
    errors: tuple[str, ...] | None = None,
) -> dict[str, Any]:
    """Means and, of those named or of all, their standard errors; the constant is one of all data or ``(N,)``, each datum's."""
    numbers: dict[str, Any] = {}
    for name, column in columns.items():
        added = 0.0 if name in WITHOUT_CONSTANT else constant
        values, added = (column + added, 0.0) if isinstance(added, Tensor) else (column, added)
        numbers[name] = mean(values, weights) + added
        if errors is None or name in errors:
            numbers[f"{name}_se"] = standard_error(values, weights)
    return numbers
