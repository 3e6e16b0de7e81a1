"""`divergence`: how far two fits of the same data, or two distributions, are apart."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ppl_vae.arguments import whole
from ppl_vae.data import Split
from ppl_vae.data.recoding import recoded
from ppl_vae.evaluate.divergence import Divergence, Law, LawOfDistribution, divergence_of
from ppl_vae.evaluate.scores import row_scores
from ppl_vae.fitting.fitted import Fit
from ppl_vae.fitting.table import short
from ppl_vae.kinds import BINARY, CATEGORICAL
from ppl_vae.models import Model
from ppl_vae.priors import Prior
from ppl_vae.program.joint import Joint
from ppl_vae.text import as_line
from ppl_vae.types import Column, DataSpec

__all__ = ["divergence"]

MOST_ROWS = 2**12  # that all data there are, of a few discrete columns, may be
BOUND_SAMPLES = 100  # per datum, where log p(x) is known by a bound only
WHOLE = 1e-4  # by which the probabilities of all data there are may miss one
LOOKED_AT = 100  # draws of each side, by which probabilities are told from densities
EXACT = 2.0**16  # up to which float32 has fractions that draws of a density show


def divergence(
    p: Fit | Distribution | Prior | nn.Module,
    q: Fit | Distribution | Prior | nn.Module,
    *,
    samples: int = 10_000,
    shape: tuple[int, ...] | None = None,
    seed: int = 0,
) -> Divergence:
    r"""KL(p || q), KL(q || p) and the Jensen-Shannon divergence of two fits or two distributions, in nats.

    .. math:: \mathrm{KL}(p \| q) = E_p[\log p(x) - \log q(x)], \qquad
              \mathrm{JS}(p, q) = \tfrac12 \mathrm{KL}(p \| m) + \tfrac12 \mathrm{KL}(q \| m), \quad m = \tfrac12 (p + q)

    Kullback and Leibler (1951); Lin (1991). A finite support of at most 2^18 values is summed over; else torch's or Pyro's
    formula is taken where there is one; else the mean over draws, with its standard error. Of two fits it is that of their
    p(x), in nats per datum, at point estimates of parameters; a divergence does not depend on the units of the data, nor on the
    order in which their categories are numbered.

    Args:
        p: a fit; or a distribution of torch or Pyro without batch dimensions, a declared prior, or a module whose call returns
            a distribution.
        q: another, of the same data or event shape.
        samples: drawn of each, where they are needed.
        shape: of a draw of declared priors; by default that of the other side, or none.
        seed: of the draws.

    Returns:
        ``forward``, ``reverse`` and ``js``, each with ``value``, ``se``, ``how`` and ``bound``. A KL is infinite where the
        second distribution has no mass and the first has. Of a fit that knows log p(x) by a lower bound only, beside one that
        knows it, the KL from the latter is an upper bound, that to it a lower one, and JS unknown.

    Raises:
        ValueError: things that have no density, events of different shapes, probabilities on one side and a density on the
            other, fits of other data, of models that are conditioned on something, or two fits of which neither knows log p(x).

    Examples:
        >>> import pyro.distributions as dist
        >>> found = divergence(dist.Normal(0.0, 1.0), dist.Normal(1.0, 1.0))
        >>> found.forward.value, found.forward.how, found.js.how
        (0.5, 'closed form', 'sampling')
    """
    samples, seed = whole("samples", samples), whole("seed", seed)
    first, second = _law(p, q, shape), _law(q, p, shape)
    if isinstance(first, LawOfFit) and isinstance(second, LawOfFit):
        first.check_same_data(second)
        second.table = first.table
    else:
        _check_shapes(first, second)
    _check_measures(first, second)
    return divergence_of(first, second, samples=samples, seed=seed)


class LawOfFit:
    """p(x) of a fit, in the units of the source.

    Args:
        fit: of a model that is conditioned on nothing.

    Attributes:
        table: what the columns of draws and of x hold, which may number the categories of the fit's otherwise.

    Raises:
        ValueError: another model, ragged data or several fields.
    """

    distribution = None

    def __init__(self, fit: Fit) -> None:
        facts = fit.pair.model_facts
        conditioned = facts.labelled or facts.known_entries is not None or bool(facts.covariates)
        if conditioned or fit.spec.fields or fit.pair.reads != ("x",):
            raise ValueError(
                f"expected a fit of p(x) of data of one shape and nothing else, got {as_line(str(fit.model))}: divergences of "
                "conditional models, of rows of different lengths and of several fields are not known"
            )
        self.fit = fit
        self.table = fit.spec.table
        self.name = f"{as_line(short(fit.model))} by {as_line(short(fit.method))}"
        self.exact = fit.pair.can.marginal is not None

    def check_same_data(self, other: LawOfFit) -> None:
        """Raise ``ValueError`` unless both are densities of the same kind of data."""
        mine, theirs = self.fit.spec, other.fit.spec
        for what, a, b in (
            ("shape", mine.event_shape, theirs.event_shape),
            ("columns", mine.columns, theirs.columns),
            ("levels", mine.levels or theirs.levels, theirs.levels or mine.levels),
            ("binarization", self.fit.transform.binarize, other.fit.transform.binarize),
        ):
            if a != b:
                raise ValueError(
                    f"expected two fits of the same data, got data of {what} {as_line(str(a))} and {as_line(str(b))}: fit both "
                    "to one data set"
                )
        for column, same in zip(_table(mine), _table(theirs), strict=True):
            _check_columns(column, same)

    def sample(self, n: int, seed: int) -> Tensor:
        """New data, without the rounding that undoes dequantization."""
        found = self.fit.sample(n, seed=seed, seen=True)
        if not isinstance(found, Tensor):
            raise ValueError(f"expected a model of x alone, got one that observes {', '.join(found)}")
        return self._numbered(self.fit.transform.inverse(found), self.fit.spec.table, self.table)

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log p(x), or the importance-weighted bound on it."""
        applied = self.fit.transform.applied()
        x = self._numbered(x, self.table, self.fit.spec.table)
        seen = x if self.fit.transform.binarize else self.fit.transform.affine(x)
        with pyro.validation_enabled(False):
            scores = row_scores(self.fit.pair, Split(seen, None, applied), samples=BOUND_SAMPLES)
        return scores.log_prob.double().cpu()

    def measures(self) -> Tensor:
        """Of each element: 1 where draws are whole numbers alone, -1 where they are not, 0 where they do not tell."""
        x = self.sample(LOOKED_AT, seed=0).double()
        told = (x != x[0]).any(0) & (x.abs() < EXACT).all(0)
        return torch.where((x == x.floor()).all(0), 1, -1) * told

    def _numbered(self, x: Tensor, old: tuple[Column, ...], new: tuple[Column, ...]) -> Tensor:
        """Rows with the numbers that another table has for the categories of theirs."""
        return recoded(Split(x, None, self.fit.transform, table=old), new).x if old != new and new else x

    def points(self) -> Tensor | None:
        """All data there are, of a few columns of a few levels each, if the model's probabilities of them sum to one."""
        return self._points

    @cached_property
    def _points(self) -> Tensor | None:
        rows = self._all_rows()
        if rows is None or not self.exact:
            return None
        total = float(self.log_prob(rows).logsumexp(0).exp())
        return rows if abs(total - 1) < WHOLE else None

    def _all_rows(self) -> Tensor | None:
        spec = self.fit.spec
        elements = math.prod(spec.event_shape)
        if spec.table:
            levels = [column.levels for column in spec.table]
        elif spec.kind == BINARY or (spec.kind == CATEGORICAL and spec.levels):
            levels = [2 if spec.kind == BINARY else spec.levels or 0] * elements
        else:
            return None
        if not all(levels) or sum(map(math.log, levels)) > math.log(MOST_ROWS):
            return None
        like = self.fit.transform.loc
        rows = torch.cartesian_prod(*(torch.arange(level) for level in levels)).reshape(-1, *spec.event_shape)
        return rows.to(like.device, torch.int64 if self.fit.transform.indices else like.dtype)


def _law(value: Any, other: Any, shape: tuple[int, ...] | None) -> Law:
    if isinstance(value, Fit):
        return _law_without_data(value) if isinstance(value.model, Model) and value.model.data_free else LawOfFit(value)
    if isinstance(value, Prior):
        of = _shape(other) if shape is None else tuple(shape)
        if not of and value.support in ("simplex", "one_hot", "sphere", "covariance"):
            raise ValueError(f"expected the shape of a draw of {type(value).__name__}, got none: give one by shape=")
        return LawOfDistribution(value.build(of)(), str(value))
    if isinstance(value, nn.Module) and not isinstance(value, Distribution):
        value = value()
    if isinstance(value, Joint):
        raise ValueError("expected a distribution of one variable, got a joint of several: compare them one by one")
    if not isinstance(value, Distribution):
        raise ValueError(
            f"expected a fit, a distribution, a declared prior or a module whose call returns a distribution, got "
            f"{type(value).__name__}: give fit(...), pyro.distributions.Normal(0.0, 1.0) or Normal()"
        )
    return LawOfDistribution(value)


def _law_without_data(fit: Fit) -> LawOfDistribution:
    """p(s) of a lattice alone, whatever it was fitted by."""
    known = fit.pair.can.know_posterior
    if known is None:
        raise ValueError(
            f"expected a lattice that can be summed over its states, got {as_line(short(fit.model))}: compare its log Z by "
            "log_partition"
        )
    return LawOfDistribution(known.posterior(torch.zeros(1, *fit.spec.event_shape)).expand(()), as_line(short(fit.model)))


def _shape(other: Any) -> tuple[int, ...]:
    """Of a draw of what a declared prior is compared with."""
    if isinstance(other, Fit):
        return tuple(other.spec.event_shape)
    if isinstance(other, nn.Module) and not isinstance(other, Distribution):
        other = other()
    return tuple(other.event_shape) if isinstance(other, Distribution) else ()


def _table(spec: DataSpec) -> tuple[Column, ...]:
    """What the columns hold, numbers where nothing is known of them."""
    return spec.table or tuple(Column(name=name, kind="real", dtype="float") for name in spec.columns)


def _check_columns(one: Column, other: Column) -> None:
    """Raise ``ValueError`` unless two columns hold the same sort of values, categories in whatever order."""
    sorts = [_sort(column) for column in (one, other)]
    if sorts[0] != sorts[1]:
        raise ValueError(
            f"expected two fits of the same data, got {sorts[0]} and {sorts[1]} in column {one.name!r}: fit both to "
            "one data set"
        )
    if set(one.categories) != set(other.categories):
        told = [", ".join(column.categories[:20]) for column in (one, other)]
        raise ValueError(
            f"expected two fits of the same data, got in column {one.name!r} the categories {as_line(told[0])} and "
            f"{as_line(told[1])}: fit both to rows that have all of them, or declare them (a category column of the frame)"
        )


def _sort(column: Column) -> str:
    return "categories" if column.coded else "dates" if column.dtype in ("date", "datetime") else "numbers"


def _check_measures(first: Law, second: Law) -> None:
    """Raise ``ValueError`` if an element has probabilities of whole numbers on one side, and a density on the other."""
    one, other = (law.measures().flatten() for law in (first, second))
    apart = (one * other < 0).nonzero().flatten().tolist()
    if apart:
        columns = first.fit.spec.columns if isinstance(first, LawOfFit) else ()
        where = f" in column {columns[apart[0]]!r}" if columns else ""
        discrete, continuous = (first, second) if one[apart[0]] > 0 else (second, first)
        raise ValueError(
            f"expected two densities, or probabilities of whole numbers on both sides, got{where} probabilities of "
            f"{discrete.name} and a density of {continuous.name}: compare models whose likelihoods are of one sort"
        )


def _check_shapes(first: Law, second: Law) -> None:
    shapes = [_event_shape(law) for law in (first, second)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"expected two distributions of one event shape, got {shapes[0]} and {shapes[1]}")


def _event_shape(law: Law) -> tuple[int, ...]:
    return tuple(law.fit.spec.event_shape if isinstance(law, LawOfFit) else law.distribution.event_shape)
