"""What a diagnosis looks at: a table of checks, each with those that have to be good before it means anything."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppl_vae.inference.training.inspection import RanSite
from ppl_vae.inference.training.postmortem import Stage, Verdict

__all__ = ["CAUSES", "FAULTS", "Check", "Evidence", "Fault", "guilty", "largest", "look_at"]

LARGE = 1e4  # values of data, as the model sees them, that no network is made for
TINY = 1e-5  # scales next to zero
HIGH_RATE = 0.1


class Fault(NamedTuple):
    """What is wrong at a site, in words, and the tensor that shows it."""

    told: str
    tensor: Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of a step that is not finite.

    Attributes:
        site: the first at which something is wrong, else the one of the most extreme log-probability, if any has one.
        x: the batch as the model sees it.
        loss: of the batch.
        gradients: of the parameters; ``None`` where there is none.
        after: the parameters after the step.
        objectives: of the steps up to this one.
        learning_rate: of the step.
        parameter: the suspect, see :class:`Postmortem`; unknown before the faults are looked at.
    """

    site: RanSite | None
    x: Tensor
    loss: Tensor
    gradients: Sequence[Tensor | None]
    after: Sequence[Tensor]
    objectives: Sequence[float]
    learning_rate: float
    parameter: dict[str, Any] = dataclasses.field(default_factory=dict)


class Check(NamedTuple):
    """A row of the table.

    Attributes:
        name: of the check.
        needs: names of the checks that have to be good, else it is not looked at.
        look: what is wrong, in words; ``None`` if all is good.
        stage: at which a step fails that fails by it; ``None`` of causes.
    """

    name: str
    needs: tuple[str, ...]
    look: Callable[[Evidence], str | None]
    stage: Stage | None = None


def look_at(table: Iterable[Check], evidence: Evidence) -> tuple[list[Verdict], dict[str, str]]:
    """Go through a table from top to bottom: a verdict of each check, and the words of those that are bad, by name."""
    verdicts: dict[str, Verdict] = {}
    bad: dict[str, str] = {}
    for check in table:
        if any(verdicts[need].found != "good" for need in check.needs):
            verdicts[check.name] = Verdict(check.name, "not looked at")
        elif (told := check.look(evidence)) is None:
            verdicts[check.name] = Verdict(check.name, "good")
        else:
            verdicts[check.name], bad[check.name] = Verdict(check.name, "bad"), told
    return list(verdicts.values()), bad


# --- faults: what is not finite first


def finite_arguments(site: RanSite) -> Fault | None:
    """An argument of its distribution is not finite."""
    for name, argument in site.parameters.items():
        if not bool(argument.isfinite().all()):
            return Fault(f"its {name} is {_odd(argument)}", argument)
    return None


def positive_scales(site: RanSite) -> Fault | None:
    """A scale is zero."""
    for name, argument in site.parameters.items():
        entries = argument.diagonal(0, -2, -1) if "tril" in name else argument
        if "scale" in name and "log" not in name and not bool(entries.all()):
            return Fault(f"its {name} has run to zero", argument)
    return None


def finite_draw(site: RanSite) -> Fault | None:
    """What was drawn is not finite."""
    if site.observed or bool(site.value.isfinite().all()):
        return None
    return Fault(f"its draw is {_odd(site.value)}", site.value)


def finite_log_prob(site: RanSite) -> Fault | None:
    """The log-probability of its value is not finite."""
    if site.log_prob is None or bool(site.log_prob.isfinite().all()):
        return None
    return Fault(f"its log-probability is {_odd(site.log_prob)}", site.log_prob)


OF_SITES: dict[str, Callable[[RanSite], Fault | None]] = {
    "arguments": finite_arguments,
    "scales": positive_scales,
    "draws": finite_draw,
    "log-probabilities": finite_log_prob,
}
"""What can be wrong at a site, what is likelier the cause first."""


def guilty(sites: Iterable[RanSite]) -> tuple[RanSite, Fault] | None:
    """The first site at which something is wrong, and what: later ones may only have suffered from it."""
    return next(((site, fault) for site in sites for look in OF_SITES.values() if (fault := look(site))), None)


def _of_site(name: str) -> Callable[[Evidence], str | None]:
    def look(evidence: Evidence) -> str | None:
        fault = OF_SITES[name](evidence.site) if evidence.site else None
        return fault.told if fault else None

    return look


def _objective(evidence: Evidence) -> str | None:
    return None if bool(evidence.loss.isfinite()) else "the objective is not finite, though every site is"


def _gradients(evidence: Evidence) -> str | None:
    found = [each.coalesce().values() if each.is_sparse else each for each in evidence.gradients if each is not None]
    good = all(bool(gradient.isfinite().all()) for gradient in found)
    return None if good else "the objective is finite, but a gradient is not"


def _update(evidence: Evidence) -> str | None:
    good = all(bool(value.isfinite().all()) for value in evidence.after)
    return None if good else "objective and gradients are finite, but a parameter is not after the step"


SITES_GOOD = tuple(OF_SITES)
FAULTS: tuple[Check, ...] = (
    Check("arguments", (), _of_site("arguments"), "objective"),
    Check("scales", ("arguments",), _of_site("scales"), "objective"),
    Check("draws", ("arguments", "scales"), _of_site("draws"), "objective"),
    Check("log-probabilities", ("arguments", "scales", "draws"), _of_site("log-probabilities"), "objective"),
    Check("objective", SITES_GOOD, _objective, "objective"),
    Check("gradients", ("objective",), _gradients, "gradient"),
    Check("update", ("gradients",), _update, "update"),
)
"""In the order in which numbers are computed: the first that is bad is where it began."""


# --- causes, the likeliest first


def _data(evidence: Evidence) -> str | None:
    x = evidence.x
    size = largest(x[x.isfinite()]) if bool(x.isfinite().any()) else math.inf
    if bool(x.isfinite().all()) and size <= LARGE:
        return None
    return (
        f"the data reach {size:.3g} where networks expect values around 1: standardize the data (scale='standardize'), and "
        "look for outliers in the rows named"
    )


def _learning_rate(evidence: Evidence) -> str | None:
    rate, moved, name = evidence.learning_rate, evidence.parameter["moved"], evidence.parameter["name"]
    earlier = [value for value in evidence.objectives[:-1] if math.isfinite(value)]
    crashed = len(earlier) >= 1 and min(earlier) < 10 * min(earlier[0], -1.0)
    if rate < HIGH_RATE and (moved or 0) <= 1 and not crashed:
        return None
    told = f"{name} moved by {moved:.3g} times its size in one step; " if moved else ""
    return (
        f"the learning rate is too large: {told}lower the learning rate (it is {rate:g}), clip the gradients (clip_norm), or "
        "standardize the data"
    )


def _small_scales(evidence: Evidence) -> str | None:
    for name, argument in evidence.site.arguments.items() if evidence.site else ():
        if _is_scale(name) and float(argument.detach().abs().min()) < TINY:
            return (
                f"the {name} of this site runs to zero, where a density has no bound: "
                "raise its floor (Gaussian(floor=1e-3)), or fix it (scale='fixed')"
            )
    return None


def _domain(evidence: Evidence) -> str | None:
    return (
        "the model or guide takes a logarithm, a root or a quotient at the edge of its domain: keep its argument away from "
        "it (clamp_min), lower the learning rate, clip the gradients (clip_norm), or standardize the data"
    )


CAUSES: tuple[Check, ...] = (
    Check("data", (), _data),
    Check("learning rate", (), _learning_rate),
    Check("small scales", (), _small_scales),
    Check("domain", ("data", "learning rate", "small scales"), _domain),
)
"""The last one is what remains where nothing else is odd."""


def largest(tensor: Tensor) -> float:
    """Its largest entry in absolute value; NaN if one is."""
    return float(tensor.detach().abs().max())


def _is_scale(name: str) -> bool:
    """Whether an argument of that name must not be zero."""
    return "scale" in name and not any(other in name for other in ("log", "tril"))


def _odd(tensor: Tensor) -> str:
    """The sort of number that is not finite, and how many."""
    bad = tensor.detach()[~tensor.detach().isfinite()]
    return f"{'NaN' if bool(torch.isnan(bad).any()) else 'infinite'} in {bad.numel()} of {tensor.numel()} entries"
