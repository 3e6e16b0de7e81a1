"""The numbers that are reported for a split of the data."""

from __future__ import annotations

import math
from typing import Any, get_args

import torch
from torch import Tensor

from ppl_vae.data import Split
from ppl_vae.data.matching import columns_matched
from ppl_vae.data.seeds import seeded_generator as noise
from ppl_vae.evaluate.annealing import AIS, annealed
from ppl_vae.evaluate.bar import progress_bar
from ppl_vae.evaluate.batches import bounds_of_batches, layout
from ppl_vae.evaluate.codes import code_numbers
from ppl_vae.evaluate.documents import document_numbers
from ppl_vae.evaluate.finite import reason
from ppl_vae.evaluate.gaps import Gaps, local_bounds
from ppl_vae.evaluate.numbers import LOG_LIKELIHOODS, numbers_of_annealing, numbers_of_bounds, numbers_of_gaps
from ppl_vae.evaluate.own_batches import OwnBatches, whole_batches
from ppl_vae.evaluate.per_token import per_token
from ppl_vae.evaluate.rows import batches, log_jacobian, log_jacobians, mean, standard_error
from ppl_vae.program.capture import Compile
from ppl_vae.program.context import evaluating, seeded
from ppl_vae.program.machine import Precision, choose_precision
from ppl_vae.program.pair import Pair
from ppl_vae.text import as_line

__all__ = ["UNIT", "batches", "evaluate", "evaluating", "log_jacobian"]

UNIT = "nats per datum"
SHIFT_ROWS, SHIFT_SHARE = 100, 0.05  # of which what a precision does to a number is measured: at least, and of all
BOUNDS = {
    "log_likelihood": "log-likelihood",
    "iwae": "iwae",
    "ais": "ais",
    "local_elbo": "local ELBO",
    "local_iwae": "local iwae",
}


def evaluate(
    pair: Pair,
    split: Split,
    *,
    samples: int = 1,
    gaps: bool | Gaps = False,
    ais: bool | AIS = False,
    limit: int | None = None,
    seed: int = 0,
    compile: Compile = "auto",
    precision: Precision = "32",
    summed: bool = True,
    progress: bool = False,
) -> dict[str, Any]:
    """ELBO, reconstruction and KL of a split, in nats per datum of the source's own data, and tighter bounds where asked for.

    The log-determinant of the data's transform (scaling, dequantization) is part of every bound and of ``reconstruction``; of a
    datum with missing entries it is that of the others.
    Neither parameters, buffers nor the state of any random number generator are changed.

    Of several processes each works on its part of the rows, and all get the numbers that one process would: all of them have
    to call it.

    Args:
        pair: model and guide.
        split: the data, on the pair's device; columns and categories of a table are found by their names.
        samples: S, samples of the latent variables per datum; above one also for the importance-weighted bound.
        gaps: log p(x) - ELBO as approximation and amortization gap; ``True`` for ``Gaps()``.
        ais: annealed importance sampling; ``True`` for ``AIS()``.
        limit: only the first so many data.
        seed: of the samples.
        compile: whether the work on a batch is recorded and compiled: where that pays (``auto``), always, or never.
        precision: what the networks' layers multiply, as of :class:`~ppl_vae.SVI`: ``bf16`` numbers, or ``tf32`` products;
            log-probabilities stay float32. ``precision_shift`` tells what it did to the tightest number.
        summed: whether plates of which a run sees a sample are summed where the guide can, as the steps of a diffusion; else
            their part is an estimate.
        progress: whether a bar on standard error may tell how far it is.

    Returns:
        Means over the data, ``*_se`` their standard errors over the data, and how many data there were. Of weighted rows they
        are sum_n w_n l_n / sum_n w_n, with the standard error sqrt(sum_n w_n^2 (l_n - mean)^2) / sum_n w_n of rows drawn one by
        one with their weights, and ``n_effective`` is (sum_n w_n)^2 / sum_n w_n^2:

        - ``elbo``, ``elbo_se``, ``reconstruction``, ``kl``, ``n``.
        - ``log_likelihood``, ``log_likelihood_se`` and ``gap = log_likelihood - elbo`` where the model knows log p(x).
        - ``iwae``, ``iwae_se``, ``samples`` with more than one sample: the bound of Burda et al. (2016). With 25 or more also
          ``k_hat_bad``, the share of the data whose weights are not to be trusted (see
          :func:`~ppl_vae.evaluate.importance.pareto_k`). Neither where a latent variable is shared by all data: a datum has no
          weights of its own then.
        - ``ais``, ``ais_se``, ``bdmc_lower``, ``bdmc_upper``, ...: see :func:`~ppl_vae.evaluate.annealing.annealed`. A sandwich
          of simulated data stands apart, with their number ``n``, under ``simulated``.
        - ``approximation_gap``, ``amortization_gap``, ``local_elbo``, ``local_iwae``, each with ``*_se``,
          ``local_k_hat_bad``, and ``gap_reference``, the name of the log p(x) that the first is counted from: the exact one,
          else the highest of ``iwae``, ``local_iwae`` and ``ais`` that is to be trusted. Where none is, ``approximation_gap``
          is ``None``, and ``approximation_gap_at_least`` what the gap is not below.

        With a ``precision`` other than ``32`` also ``precision_shift`` and its ``*_se``: what the tightest of the numbers above
        gains by it, measured by the same draws in float32 on the first rows, a twentieth of all and 100 at least.

        Of rows of different lengths also ``elbo_per_token``, ``log_likelihood_per_token`` and ``iwae_per_token``, in nats per
        element of a row, sums over the data divided by each other, with their ``*_se``; ``tokens``, the mean length of a row;
        and where they are tokens ``perplexity``, exp(-b) of the tightest of these b: not below the model's, if b is a bound.

        Of a diffusion also ``kl_prior`` and ``kl_steps``, which sum to ``kl``.

        Of documents, counts of words given their total, also :func:`~ppl_vae.evaluate.documents.document_numbers`: bounds per
        word and ``perplexity``, ``completion``, and of topics ``npmi`` and ``umass``.

        Of grids of codes also :func:`~ppl_vae.evaluate.codes.code_numbers`: how many of the codes these data use, and the
        perplexity of their use over all of them.

        Of points in place of posteriors there is no ELBO: instead of ``elbo`` and ``kl`` it is ``log_joint``, log p(x, z), and
        without p(z) the ``reconstruction`` alone; samples are then of no use and ignored. Of programs whose ``score`` is
        another it is that, with its parts.

    Raises:
        ValueError: columns or categories that the pair was not built for, an empty split, fewer than one sample, rows without
            labels for a model of labelled data, gaps without any log p(x) to count from or of a guide that has none, AIS of a
            latent variable that is not continuous, gaps or AIS of more streamed data with noise than fit at once or with
            another precision than ``32``, no such precision.
        FloatingPointError: a bound is not finite.
    """
    split = _checked(_matched(pair, split), samples, limit)
    read = split.arranged(pair.reads)  # the rows in the order in which their numbers come
    split = split if pair.local else read  # whose numbers among the training rows are asked for
    gaps, ais = Gaps() if gaps is True else gaps, AIS() if ais is True else ais
    if (gaps or ais) and pair.can.sum_bound is not None:
        raise ValueError(
            "gaps and AIS need the density of all latent variables at once, of which a run of these programs sees a part, as "
            "one step of a diffusion: leave gaps and ais out"
        )
    precision = _precision(precision, split, exact=bool(gaps or ais))
    if gaps:
        _check_gaps(pair, samples=samples, annealed=bool(ais))
    if gaps or ais:  # which look at the data again, and have to see the same
        split = split.fixed(noise(seed, 3))
    constant = log_jacobians(pair, read)
    options: dict[str, Any] = {"seed": seed, "compile": compile, "progress": progress}
    columns = _bounds(pair, split, samples, summed=summed, precision=precision, **options)
    parts = () if pair.can.sum_bound is None else pair.can.sum_bound.bound_parts
    numbers = numbers_of_bounds(columns, pair.score, constant, samples, read.weights, parts=parts)
    if read.weights is not None:
        numbers["n_effective"] = read.effective_number
    if precision != "32":
        numbers |= _shift(pair, split, columns, samples, summed=summed, **options)
    if ais:
        found = annealed(pair, split, ais, **options)
        _check_finite(found.columns, pair, read)
        columns |= found.columns
        numbers |= numbers_of_annealing(found, constant, read.weights)
    if gaps:
        _check_counted(columns)
        columns |= local_bounds(pair, split, gaps, samples=samples, known=columns["elbo"], **options)
        _check_finite(columns, pair, read)
        numbers |= numbers_of_gaps(columns, constant, numbers, read.weights)
    numbers |= document_numbers(pair, read, columns, pair.score, noise(seed, 4))
    numbers |= code_numbers(pair, read)
    return numbers | per_token(columns, read, constant, pair.score)


def _bounds(
    pair: Pair,
    split: Split,
    samples: int,
    *,
    seed: int,
    compile: Compile,
    precision: Precision,
    summed: bool,
    progress: bool,
    rows: int | None = None,
) -> dict[str, Tensor]:
    """The bounds of each datum ``(N,)`` by name, of all or the first ``rows``; of a point one sample tells all."""
    certain = pair.guide_facts.certain
    cut = layout(pair, split, 1 if certain or _is_point(pair) else samples)
    if rows is not None:
        split = split[: whole_batches(pair, split, cut.rows, at_least=rows)]
    elements = sum(cut.draws) * len(split) * split.elements
    own = OwnBatches(pair, split, cut.rows, seed=seed)
    with evaluating(pair), seeded(seed, split.device), progress_bar("bounds", len(own), shown=progress) as advance:
        columns = bounds_of_batches(
            pair,
            own,
            cut.draws,
            compile=compile,
            elements=elements,
            summed=summed,
            precision=precision,
            advance=advance,
        )
    _check_finite(columns, pair, split.arranged(pair.reads))
    if certain and samples > 1:  # equal weights, whose mean is each
        columns |= {"iwae": columns["elbo"], "iwae_error": torch.zeros_like(columns["elbo"])}
    return columns


def _precision(precision: Precision, split: Split, *, exact: bool) -> Precision:
    """The precision asked for, or what this machine takes in its place; an ``exact`` evaluation has one alone."""
    if precision not in get_args(Precision):
        raise ValueError(f"expected a precision of 32, bf16 or tf32, got {as_line(repr(precision))}")
    if exact and precision != "32":
        raise ValueError("gaps and AIS are differences of bounds in float32: leave them out, or precision at '32'")
    return choose_precision(precision, split.device)


def _shift(pair: Pair, split: Split, columns: dict[str, Tensor], samples: int, **options: Any) -> dict[str, float]:
    """What the tightest number gains by the precision, by the same draws in float32 of the first rows."""
    rows = max(SHIFT_ROWS, math.ceil(SHIFT_SHARE * len(split)))
    exact = _bounds(pair, split, samples, precision="32", rows=rows, **options)
    name = next(name for name in ("log_likelihood", "iwae", "elbo") if name in exact)
    shift = columns[name][: len(exact[name])] - exact[name]
    return {"precision_shift": mean(shift), "precision_shift_se": standard_error(shift)}


def _is_point(pair: Pair) -> bool:
    return pair.score.points and not pair.drawn


def _check_gaps(pair: Pair, *, samples: int, annealed: bool) -> None:
    """Raise ``ValueError`` if there is nothing that gaps could be counted from."""
    if _is_point(pair):
        raise ValueError("a point in place of a posterior has no gaps: use a guide with a density")
    if pair.score.bound != "lower":
        raise ValueError(f"gaps are parts of an ELBO, which a {pair.score.title} is not")
    if not (pair.can.marginal or samples > 1 or annealed):
        raise ValueError(
            "gaps are counted from log p(x), which this model does not know: give samples above 1, 1000 say, or ais"
        )


def _matched(pair: Pair, split: Split) -> Split:
    """The split with the columns and the codes of the table that the pair was built for, where both have one."""
    if not pair.table or not split.table or split.table == pair.table:
        return split
    return columns_matched(split, tuple(column.name for column in pair.table), pair.table)[0]


def _checked(split: Split, samples: int, limit: int | None) -> Split:
    if len(split) == 0:
        raise ValueError("expected at least one datum to evaluate, got an empty split")
    if samples < 1:
        raise ValueError(f"expected at least 1 sample, got {samples}")
    if limit is not None and limit < 1:
        raise ValueError(f"expected a limit of at least 1 datum, got {limit}")
    split = split if limit is None else split[:limit]
    if split.weights is not None and not bool(split.weights.any()):
        raise ValueError(f"expected a row that counts, got {len(split)} rows of weight 0: take other rows, or a larger limit")
    return split


def _check_finite(columns: dict[str, Tensor], pair: Pair, split: Split) -> None:
    """Raise ``FloatingPointError`` for numbers of the rows, in the order of the split, that are not finite."""
    labels = BOUNDS | {"elbo": pair.score.label}
    for name, finite in ((name, columns[name].isfinite()) for name in labels if name in columns):
        if not bool(finite.all()):
            if name == "log_likelihood" and bool((columns[name] == -math.inf).any()):
                raise FloatingPointError(
                    f"the log-likelihood of {int((~finite).sum())} of {len(finite)} data is minus infinity: they hold what the "
                    "fitted model gives the probability zero: give counts to what was never seen (pseudo_counts of the model), "
                    "or leave these rows out"
                )
            raise FloatingPointError(
                f"the {labels[name]} of {int((~finite).sum())} of {len(finite)} data is not finite: "
                f"{reason(pair, split, ~finite)}"
            )


def _check_counted(columns: dict[str, Tensor]) -> None:
    if not any(name in columns for name in LOG_LIKELIHOODS):
        raise ValueError(
            "gaps are counted from log p(x) of each datum, of which there is no bound where a latent variable is shared by all "
            "data: fit a model whose parameters carry no priors"
        )
