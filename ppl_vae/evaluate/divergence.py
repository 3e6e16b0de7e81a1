"""How far two distributions are apart: Kullback-Leibler divergences both ways, and the Jensen-Shannon divergence.

    KL(p || q) = E_p[log p(x) - log q(x)]                               0 to infinity
    JS(p, q)   = (KL(p || m) + KL(q || m)) / 2,   m = (p + q) / 2       0 to log 2

Kullback and Leibler (1951); Lin (1991). Fitting q by KL(p || q) covers p, fitting it by KL(q || p), as variational inference
does, finds one mode of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch import distributions as td

from ppl_vae.evaluate.importance import FEWEST, UNTRUSTED, pareto_k
from ppl_vae.program.context import seeded

__all__ = ["Divergence", "Estimate", "Law", "LawOfDistribution", "divergence_of"]

MOST_POINTS = 2**18  # of a finite support that is summed over
ENDLESS = "the first has mass where the second has none"
HEAVY = "a few draws make up the mean (k-hat {k:.2f}): it may be infinite, and its standard error too small"


class Estimate(NamedTuple):
    """A divergence, and how it was found.

    Args:
        value: in nats; infinite where the first distribution has mass that the second has not; ``None`` if unknown.
        se: standard error of the value over the draws; zero of what is exact.
        how: ``closed form``, ``enumeration`` or ``sampling``.
        bound: what the value is where a log-density is known by a bound only: ``exact``, an ``upper`` or a ``lower`` bound.
        remark: what there is to tell of it.
    """

    value: float | None
    se: float = 0.0
    how: Literal["closed form", "enumeration", "sampling", "none"] = "closed form"
    bound: Literal["exact", "upper", "lower"] = "exact"
    remark: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return "unknown"
        mark = {"exact": "", "upper": "<= ", "lower": ">= "}[self.bound]
        spread = f" ± {self.se:.4f}" if self.how == "sampling" and math.isfinite(self.value) else ""
        return f"{mark}{self.value:.4f}{spread}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON has: what is infinite is the text ``inf``."""
        value = self.value if self.value is None or math.isfinite(self.value) else "inf"
        told = {"remark": self.remark} if self.remark else {}
        return {"value": value, "se": self.se, "how": self.how, "bound": self.bound} | told


@dataclasses.dataclass(frozen=True, kw_only=True)
class Divergence:
    """What :func:`ppl_vae.divergence` found, in nats; ``print`` shows the table.

    Attributes:
        p, q: what was compared, as text.
        forward: KL(p || q).
        reverse: KL(q || p).
        js: the Jensen-Shannon divergence, at most log 2.
    """

    p: str
    q: str
    forward: Estimate
    reverse: Estimate
    js: Estimate
    unit: str = "nats"

    def to_dict(self) -> dict[str, Any]:
        """The unit, what was compared, and the three numbers, as plain values that JSON has."""
        numbers = {name: getattr(self, name).to_dict() for name in ("forward", "reverse", "js")}
        return {"unit": self.unit, "p": self.p, "q": self.q, **numbers}

    def __str__(self) -> str:
        return self.to_markdown()

    def to_markdown(self) -> str:
        """The numbers as a Markdown table that is aligned as text too."""
        lines = [("divergence", self.unit, "how", "")]
        for name, each in (("KL(p || q)", self.forward), ("KL(q || p)", self.reverse), ("JS(p, q)", self.js)):
            lines.append((name, str(each), each.how, each.remark))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rows = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        rule = " | ".join("-" * max(1, width) for width in widths)
        return "\n".join(f"| {row} |" for row in (rows[0], rule, *rows[1:]))


class Law(Protocol):
    """One side of a divergence: what can be drawn from and has a density.

    Attributes:
        name: what it is, as text.
        exact: whether ``log_prob`` is the log-density; a lower bound on it if not.
        distribution: it as a distribution, of which torch may know a divergence.
    """

    name: str
    exact: bool
    distribution: Any

    def sample(self, n: int, seed: int) -> Any:
        """So many draws ``(n, *event)``."""
        ...

    def log_prob(self, x: Any) -> Tensor:
        """Log-density at ``(n, *event)`` in nats, ``(n,)``; minus infinity where there is no mass."""
        ...

    def points(self) -> Tensor | None:
        """All values that it can take, ``(n, *event)``, if they are finite and few."""
        ...

    def measures(self) -> Tensor:
        """Of each element ``(*event)``: 1 where it has probabilities of whole numbers, -1 a density, 0 where nothing tells."""
        ...


class LawOfDistribution:
    """Of a distribution of torch or Pyro, without batch dimensions.

    Args:
        distribution: it.
        name: what it is, as text.

    Raises:
        ValueError: a batch of distributions, or a point without a density.
    """

    exact = True

    def __init__(self, distribution: Any, name: str = "") -> None:
        if tuple(distribution.batch_shape):
            raise ValueError(
                f"expected one distribution, got a batch of shape {tuple(distribution.batch_shape)}: fold it into the event by "
                f".to_event({len(distribution.batch_shape)}), or ask for one after the other"
            )
        if type(_unfolded(distribution)).__name__ == "Delta":
            raise ValueError(
                "expected a distribution with a density, got a point (Delta): all divergences from it are infinite"
            )
        self.distribution = distribution
        self.name = name or type(_unfolded(distribution)).__name__

    def sample(self, n: int, seed: int) -> Any:
        """Draws of a seed."""
        with torch.no_grad(), seeded(seed):
            return self.distribution.sample((n,))

    @torch.no_grad()
    def log_prob(self, x: Any) -> Tensor:
        """Log-density in nats ``(n,)``; where x is not in the support minus infinity, and no error."""
        support = _support(self.distribution)
        if support is None:
            return self.distribution.log_prob(x).double()
        inside = support.check(x) & ~_event_any(x, x.isnan(), self.distribution)
        with seeded(0):
            own = self.distribution.sample((len(x),))
        mask = inside.reshape(*inside.shape, *(1,) * (x.dim() - inside.dim()))
        found = self.distribution.log_prob(torch.where(mask, x.to(own.dtype), own)).double()
        return torch.where(inside & ~_impossible(self.distribution, x), found, -math.inf)

    def points(self) -> Tensor | None:
        """The product of the supports of all elements."""
        return _grid(self.distribution)

    def measures(self) -> Tensor:
        """What the support says of all elements."""
        support = _support(self.distribution)
        return torch.full(self.distribution.event_shape, 0 if support is None else 1 if support.is_discrete else -1)


def divergence_of(p: Law, q: Law, *, samples: int, seed: int) -> Divergence:
    """KL(p || q), KL(q || p) and JS: exact where a finite support is summed over or torch has a formula, else sampled.

    Args:
        p: of the event shape of q.
        q: the other.
        samples: drawn of each, where they are needed.
        seed: of the draws.

    Raises:
        ValueError: fewer than two samples, densities at draws that are not finite, or no number that is known.
    """
    if samples < 2:
        raise ValueError(f"expected at least 2 samples, got {samples}")
    draws: dict[int, Tensor] = {}

    def ratios(a: Law, b: Law, number: int) -> Tensor:
        """Log a(x) - log b(x) at draws from a, ``(samples,)``, drawn once."""
        if number not in draws:
            x = a.sample(samples, seed + number)
            draws[number] = _log_ratio(a, b, x)
        return draws[number]

    forward = _kl(p, q, lambda: ratios(p, q, 0))
    reverse = _kl(q, p, lambda: ratios(q, p, 1))
    js = _js(p, q, lambda: (ratios(p, q, 0), ratios(q, p, 1)))
    if all(each.value is None for each in (forward, reverse, js)):
        raise ValueError(
            f"of neither {p.name} nor {q.name} log p(x) is known, and the difference of two lower bounds bounds nothing: "
            "compare with a model that knows log p(x), such as FactorAnalysis or GMM, or compare the two by evaluate"
        )
    return Divergence(p=p.name, q=q.name, forward=forward, reverse=reverse, js=js)


def _kl(p: Law, q: Law, ratios: Callable[[], Tensor]) -> Estimate:
    """KL(p || q)."""
    if not (p.exact or q.exact):
        return Estimate(None, how="none", remark=f"log-densities of {p.name} and {q.name} are known by bounds only")
    exact = p.exact and q.exact
    points = p.points() if exact else None
    if points is not None:
        log_p = p.log_prob(points)
        terms = log_p.exp() * (log_p - q.log_prob(points))
        return _told(Estimate(float(terms[log_p > -math.inf].sum()), how="enumeration"))
    closed = _closed(p.distribution, q.distribution) if exact else None
    if closed is not None:
        return _told(Estimate(closed, how="closed form"))
    found = ratios()
    estimate = Estimate(*_mean(found), how="sampling", bound="exact" if exact else "upper" if p.exact else "lower")
    return _told(estimate._replace(remark=_heavy(found)))


def _js(p: Law, q: Law, ratios: Callable[[], tuple[Tensor, Tensor]]) -> Estimate:
    """JS(p, q), of draws by E_m[log 2 - H(w)] with w = p / (p + q), whose terms lie between 0 and log 2."""
    if not (p.exact and q.exact):
        return Estimate(None, how="none", remark="a log-density is known by a bound only")
    grids = p.points(), q.points()
    if grids[0] is not None and grids[1] is not None:
        halves = [_summed_js(a, b, points) for a, b, points in ((p, q, grids[0]), (q, p, grids[1]))]
        return Estimate(min(sum(halves) / 2, math.log(2)), how="enumeration")
    terms = [math.log(2) - _entropy(found) for found in ratios()]
    (one, one_se), (two, two_se) = map(_mean, terms)
    return Estimate((one + two) / 2, math.hypot(one_se, two_se) / 2, how="sampling")


def _summed_js(a: Law, b: Law, points: Tensor) -> float:
    """KL(a || (a + b) / 2) over all values of a."""
    log_a, log_b = a.log_prob(points), b.log_prob(points)
    there = log_a > -math.inf
    terms = log_a.exp() * (math.log(2) - torch.nn.functional.softplus(log_b - log_a))
    return max(0.0, float(terms[there].sum()))


def _entropy(log_odds: Tensor) -> Tensor:
    """Of a coin with these log odds, in nats; zero of infinite ones."""
    w = log_odds.sigmoid()
    return torch.special.entr(w) + torch.special.entr((-log_odds).sigmoid())


def _log_ratio(a: Law, b: Law, x: Any) -> Tensor:
    log_a, log_b = a.log_prob(x), b.log_prob(x)
    if not bool(log_a.isfinite().all()) or bool(log_b.isnan().any() | (log_b == math.inf).any()):
        raise ValueError(
            f"the log-density of {a.name} or {b.name} is not finite at a draw of {a.name}: a parameter is not finite, or a "
            "value lies on the edge of the support in float32; take float64"
        )
    return log_a - log_b


def _mean(terms: Tensor) -> tuple[float, float]:
    """And its standard error; of infinite terms both are infinite and zero."""
    if not bool(terms.isfinite().all()):
        return math.inf, 0.0
    return float(terms.mean()), float(terms.std() / math.sqrt(len(terms)))


def _heavy(terms: Tensor) -> str:
    """What there is to tell of a mean that few draws make up."""
    if len(terms) < FEWEST or not bool(terms.isfinite().all()):
        return ""
    k = float(pareto_k(terms.clamp_min(1e-300).log()[:, None]))
    return HEAVY.format(k=k) if UNTRUSTED < k < math.inf else ""


def _told(found: Estimate) -> Estimate:
    """With the reason why it is infinite; rounding takes no divergence that is exact below zero."""
    if found.value == math.inf:
        return found._replace(remark=ENDLESS)
    if found.how != "sampling" and found.value is not None:
        return found._replace(value=max(0.0, found.value))
    return found


def _closed(p: Any, q: Any) -> float | None:
    """Torch's or Pyro's formula, if there is one."""
    if p is None or q is None:
        return None
    p, q = _as_one_normal(p), _as_one_normal(q)
    try:
        with torch.no_grad():
            found = float(td.kl_divergence(p, q))
    except NotImplementedError:
        return None
    return None if math.isnan(found) else found


def _as_one_normal(d: Any) -> Any:
    """Independent normals and low-rank ones as what all normals have in common: torch has no formula for their pairs."""
    if isinstance(d, td.LowRankMultivariateNormal):
        return td.MultivariateNormal(d.mean, d.covariance_matrix)
    inner = _unfolded(d)
    if type(d) is not type(inner) and isinstance(inner, td.Normal) and len(d.event_shape) == 1:
        return td.MultivariateNormal(inner.loc, scale_tril=inner.scale.diag_embed())
    return d


def _unfolded(d: Any) -> Any:
    """What a batch was before its dimensions became those of the event."""
    while isinstance(d, td.Independent):
        d = d.base_dist
    return d


def _grid(d: Any) -> Tensor | None:
    """All values of a finite support ``(n, *event)``, the product over the elements, if they are few."""
    base = d
    while isinstance(base, td.Independent | td.MixtureSameFamily):
        base = base.base_dist if isinstance(base, td.Independent) else base.component_distribution
    try:
        values = base.enumerate_support(expand=False) if base.has_enumerate_support else None
    except NotImplementedError:  # as of binomials of different numbers of trials
        values = None
    if values is None:
        return None
    values = values.reshape(-1, *base.event_shape)
    elements = math.prod(d.event_shape) // max(1, math.prod(base.event_shape))
    if elements * math.log(max(2, len(values))) > math.log(MOST_POINTS):
        return None
    places = torch.cartesian_prod(*[torch.arange(len(values))] * elements).reshape(-1, elements)
    return values[places].reshape(-1, *d.event_shape)


def _impossible(d: Any, x: Tensor) -> Tensor:
    """Which values ``(n, *event)`` have probability zero, which torch's log-densities clamp to what rounding leaves."""
    base = _unfolded(d)
    if isinstance(base, td.OneHotCategorical):
        of_each = ((base.probs > 0) & (x > 0)).any(-1, keepdim=True)
    elif isinstance(base, td.Categorical):
        of_each = (
            base.probs.expand(*x.shape, -1).gather(-1, x.long().clamp(0, base.probs.shape[-1] - 1).unsqueeze(-1))[..., 0] > 0
        )
    elif isinstance(base, td.Bernoulli):
        of_each = torch.where(x > 0, base.probs > 0, base.probs < 1)
    else:
        return torch.zeros(len(x), dtype=torch.bool)
    return _event_any(x, ~of_each.expand(x.shape), d)


def _support(d: Any) -> Any:
    """Where it has mass, if it says so in a form that can be checked."""
    try:
        support = d.support
    except NotImplementedError:
        return None
    return None if support is None or td.constraints.is_dependent(support) else support


def _event_any(x: Tensor, which: Tensor, d: Any) -> Tensor:
    return which.reshape(*x.shape[: x.dim() - len(d.event_shape)], -1).any(-1)
