"""The numbers that are reported for a split of the data."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from ppl_vae.data import Split
from ppl_vae.data.seeds import seeded as noise
from ppl_vae.evaluate.annealing import AIS, Annealed, annealed
from ppl_vae.evaluate.bar import progress_bar
from ppl_vae.evaluate.batches import bounds_of_batches, layout
from ppl_vae.evaluate.gaps import Gaps, local_bounds
from ppl_vae.evaluate.importance import UNTRUSTED
from ppl_vae.evaluate.per_token import per_token
from ppl_vae.evaluate.remarks import MANY_BAD
from ppl_vae.evaluate.rows import batches, log_jacobian, log_jacobians, mean
from ppl_vae.program.capture import Compile
from ppl_vae.program.context import evaluating, seeded
from ppl_vae.program.pair import Pair
from ppl_vae.types import HALVES, POINTS, SCORES

__all__ = ["UNIT", "batches", "evaluate", "evaluating", "log_jacobian"]

UNIT = "nats per datum"
BOUNDS = {
    "elbo": "ELBO",
    "log_likelihood": "log-likelihood",
    "iwae": "iwae",
    "ais": "ais",
    "local_elbo": "local ELBO",
    "local_iwae": "local iwae",
}
LOG_LIKELIHOODS = ("log_likelihood", "iwae", "local_iwae", "ais")  # what gaps are counted from
K_HATS = {"iwae": "k_hat", "local_iwae": "local_k_hat"}  # whether these are to be trusted
BEYOND = 3.0  # standard errors by which a bound is above another beyond what chance makes of it
WITHOUT_CONSTANT = ("kl", "k_hat", "ais_acceptance")  # in whose units the data do not matter


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
    progress: bool = False,
) -> dict[str, Any]:
    """ELBO, reconstruction and KL of a split, in nats per datum of the source's own data, and tighter bounds where asked for.

    The log-determinant of the data's transform (scaling, dequantization) is part of every bound and of ``reconstruction``; of a
    datum with missing entries it is that of the others.
    Neither parameters, buffers nor the state of any random number generator are changed.

    Args:
        pair: model and guide.
        split: the data, on the pair's device.
        samples: S, samples of the latent variables per datum; above one also for the importance-weighted bound.
        gaps: log p(x) - ELBO as approximation and amortization gap; ``True`` for ``Gaps()``.
        ais: annealed importance sampling; ``True`` for ``AIS()``.
        limit: only the first so many data.
        seed: of the samples.
        compile: whether the work on a batch is recorded and compiled: where that pays (``auto``), always, or never.
        progress: whether a bar on standard error may tell how far it is.

    Returns:
        Means over the data, ``*_se`` their standard errors over the data, and how many data there were:

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

        Of rows of different lengths also ``elbo_per_token``, ``log_likelihood_per_token`` and ``iwae_per_token``, in nats per
        element of a row, sums over the data divided by each other, with their ``*_se``; ``tokens``, the mean length of a row;
        and where they are tokens ``perplexity``, exp(-b) of the tightest of these b: not below the model's, if b is a bound.

        Of points in place of posteriors there is no ELBO: instead of ``elbo`` and ``kl`` it is ``log_joint``, log p(x, z), and
        without p(z) the ``reconstruction`` alone; samples are then of no use and ignored.

    Raises:
        ValueError: an empty split, fewer than one sample, rows without labels for a model of labelled data, gaps without any
            log p(x) to count from or of a guide that has none, AIS of a latent variable that is not continuous, gaps or AIS of
            more streamed data with noise than fit at once.
        FloatingPointError: a bound is not finite.
    """
    split = _checked(split, samples, limit)
    read = split.arranged(pair.reads)  # the rows in the order in which their numbers come
    split = split if pair.local else read  # whose numbers among the training rows are asked for
    gaps, ais = Gaps() if gaps is True else gaps, AIS() if ais is True else ais
    point = pair.score in POINTS and not pair.drawn
    if gaps and point:
        raise ValueError("a point in place of a posterior has no gaps: use a guide with a density")
    if gaps and pair.score != "elbo":
        raise ValueError(f"gaps are parts of an ELBO, which a {SCORES[pair.score]} is not")
    if gaps and not (hasattr(pair.model, "log_prob") or samples > 1 or ais):
        raise ValueError(
            "gaps are counted from log p(x), which this model does not know: give samples above 1, 1000 say, or ais"
        )
    if gaps or ais:  # which look at the data again, and have to see the same
        split = split.fixed(noise(seed, 3))
    cut = layout(split, 1 if point else samples)
    constant = log_jacobians(pair, read)
    with evaluating(pair), seeded(seed, split.device), progress_bar("bounds", len(split), shown=progress) as advance:
        columns = bounds_of_batches(
            pair,
            batches(pair, split, cut.rows),
            cut.draws,
            compile=compile,
            elements=samples * len(split) * split.elements,
            advance=advance,
        )
    _check_finite(columns)
    numbers = _bounds(columns, pair.score, constant, samples)
    if ais:
        found = annealed(pair, split, ais, seed=seed, compile=compile, progress=progress)
        _check_finite(found.columns)
        columns |= found.columns
        numbers |= _means(found.columns, constant) | _sandwich(found, constant)
    if gaps:
        _check_counted(columns)
        local = local_bounds(
            pair, split, gaps, samples=samples, seed=seed, compile=compile, progress=progress, known=columns["elbo"]
        )
        columns |= local
        _check_finite(columns)
        numbers |= _gaps(columns, constant, numbers)
    return numbers | per_token(columns, read, constant, pair.score)


def _checked(split: Split, samples: int, limit: int | None) -> Split:
    if len(split) == 0:
        raise ValueError("expected at least one datum to evaluate, got an empty split")
    if samples < 1:
        raise ValueError(f"expected at least 1 sample, got {samples}")
    if limit is not None and limit < 1:
        raise ValueError(f"expected a limit of at least 1 datum, got {limit}")
    return split if limit is None else split[:limit]


def _check_finite(columns: dict[str, Tensor]) -> None:
    for name, finite in ((name, columns[name].isfinite()) for name in BOUNDS if name in columns):
        if not bool(finite.all()):
            raise FloatingPointError(
                f"the {BOUNDS[name]} of {int((~finite).sum())} of {len(finite)} data is not finite: if the fit diverged, lower "
                "the learning rate, clip the gradients (clip_norm), or standardize the data"
            )


def _check_counted(columns: dict[str, Tensor]) -> None:
    if not any(name in columns for name in LOG_LIKELIHOODS):
        raise ValueError(
            "gaps are counted from log p(x) of each datum, of which there is no bound where a latent variable is shared by all "
            "data: fit a model whose parameters carry no priors"
        )


def _bounds(columns: dict[str, Tensor], score: str, constant: float | Tensor, samples: int) -> dict[str, Any]:
    n = len(columns["elbo"])
    likelihood = _means({name: columns[name] for name in ("log_likelihood",) if name in columns}, constant)
    if score != "elbo":
        named = {score: columns["elbo"]} | {half: columns[half] for half in HALVES[score]}
        return {**_means(named, constant, errors=(score,)), **likelihood, "n": n}
    halves = {name: columns[name] for name in ("elbo", "reconstruction", "kl")}
    numbers = {**_means(halves, constant, errors=("elbo",)), "n": n, **likelihood}
    if likelihood:
        numbers["gap"] = numbers["log_likelihood"] - numbers["elbo"]
    if "iwae" in columns:
        numbers |= {**_means({"iwae": columns["iwae"]}, constant), "samples": samples}
    if "k_hat" in columns:
        numbers["k_hat_bad"] = _share_bad(columns["k_hat"])
    return numbers


def _sandwich(found: Annealed, constant: float | Tensor) -> dict[str, Any]:
    """Both ends, about the data themselves or about others in their places."""
    of_these = mean(constant[: found.sandwiched] if isinstance(constant, Tensor) else constant)
    ends = {name: value + of_these for name, value in found.sandwich.items()}
    return {"simulated": {**ends, "n": found.sandwiched}} if ends and found.simulated else ends


def _gaps(columns: dict[str, Tensor], constant: float | Tensor, numbers: dict[str, Any]) -> dict[str, Any]:
    """What is lost by the family of q, and what by the encoder."""
    local = columns["local_elbo"]
    reference, trusted = _reference(columns, numbers)
    found = _means({name: columns[name] for name in ("local_elbo", "local_iwae") if name in columns}, constant)
    if "local_k_hat" in columns:
        found["local_k_hat_bad"] = _share_bad(columns["local_k_hat"])
    gap = {"approximation_gap" if trusted else "approximation_gap_at_least": columns[reference] - local}
    if not trusted:
        found["approximation_gap"] = None
    return {**found, **_means({**gap, "amortization_gap": local - columns["elbo"]}, 0.0), "gap_reference": reference}


def _reference(columns: dict[str, Tensor], numbers: dict[str, Any]) -> tuple[str, bool]:
    """The bound that stands for log p(x), and whether it can: the tightest of those to be trusted, if none is above it."""
    candidates = [name for name in LOG_LIKELIHOODS if name in columns]
    if candidates[0] == "log_likelihood":
        return candidates[0], True
    candidates.sort(key=lambda name: -columns[name].mean().item())
    for name in (name for name in candidates if _trusted(name, columns, numbers)):
        above = columns[candidates[0]] - columns[name]
        if above.mean() <= BEYOND * above.std(correction=0) / math.sqrt(len(above)):
            return name, True
    return candidates[0], False


def _trusted(name: str, columns: dict[str, Tensor], numbers: dict[str, Any]) -> bool:
    """Whether a bound is near enough to log p(x) to count a gap from it."""
    if name in K_HATS:
        k_hat = columns.get(K_HATS[name])
        return k_hat is not None and _share_bad(k_hat) <= MANY_BAD
    sandwich, gap = numbers.get("simulated", numbers), (columns[name] - columns["local_elbo"]).mean().item()
    return gap >= sandwich.get("bdmc_upper", 0.0) - sandwich.get("bdmc_lower", 0.0)


def _share_bad(k_hat: Tensor) -> float:
    """The share of the data whose weights are not to be trusted."""
    return (k_hat > UNTRUSTED).double().mean().item()


def _means(columns: dict[str, Tensor], constant: float | Tensor, *, errors: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Means and, of those named or of all, their standard errors; the constant is one of all data or ``(N,)``, each datum's."""
    numbers: dict[str, Any] = {}
    for name, column in columns.items():
        added = 0.0 if name in WITHOUT_CONSTANT else constant
        values, added = (column + added, 0.0) if isinstance(added, Tensor) else (column, added)
        numbers[name] = values.mean().item() + added
        if errors is None or name in errors:
            numbers[f"{name}_se"] = (values.std(correction=0) / math.sqrt(len(values))).item()
    return numbers
