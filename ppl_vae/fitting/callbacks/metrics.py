"""Numbers that a history gets on request, an epoch at a time: of the validation split, after the epoch, off the clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ppl_vae.data import Data, Split
from ppl_vae.evaluate import evaluate
from ppl_vae.evaluate.latents import latents
from ppl_vae.evaluate.probes import probe
from ppl_vae.evaluate.rows import batches, in_row_order
from ppl_vae.fitting.callbacks.base import Callback, FitContext
from ppl_vae.program.context import evaluating, seeded
from ppl_vae.program.pair import Pair, Plates
from ppl_vae.types import Record

__all__ = ["TRACKED", "Metrics"]

Measure = Callable[[Pair, Data, int], Any] | None
"""What gives a column; ``None`` for those of the latent variables, which are found together."""

LATENTS = ("active_units", "mutual_information", "marginal_kl", "total_correlation", "dimension_wise_kl", "kl_per_dimension")
LATENT_ROWS = 1000
PROBE_ROWS = 5000
ROWS_AT_ONCE = 1000


class Metrics(Callback):
    """Adds the named columns, ``valid_*``, to each row.

    Args:
        names: such as ``active_units``, ``mutual_information`` or ``iwae:50``, the importance-weighted bound of 50 samples.

    Raises:
        ValueError: an unknown name; when a fit begins, no validation data, a method whose modules hold the result at its end
            only, a bound of a point, or a probe of a guide without codes or of data without classes.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._parts = [_part(name) for name in names]
        self._latents = [name for name in LATENTS if name in names]

    def begin(self, context: FitContext) -> None:
        """Refuse before the first step what could only fail after an epoch."""
        self._pair, self._data = context.pair, context.data
        if not self._parts:
            return
        method = context.method
        if not method.live:
            raise ValueError(
                f"{type(method).__name__} writes into the modules when it is done, so there is nothing to track before: use "
                "SVI, or evaluate the fit"
            )
        if len(self._data.valid) < 2:
            raise ValueError("track needs validation data: give load_data a `valid` fraction above 0")
        size = method.first_batch or 2
        _check_measurable([measure for _, measure, _ in self._parts], self._data, self._pair, size)

    def record(self, row: Record) -> None:
        """Add what the pair as it is gives."""
        if self._latents:
            row |= _latent_columns(self._pair, self._data.valid, self._latents)
        for column, measure, argument in self._parts:
            if measure is not None:
                row[f"valid_{column}"] = measure(self._pair, self._data, argument)


def _part(name: str) -> tuple[str, Measure, int]:
    """A column's name, what measures it (``None`` for those of the latent variables), and its argument."""
    kind, colon, argument = name.partition(":")
    known = kind in TRACKED and bool(colon) == (kind in WITH_NUMBER)
    if not known or (colon and not (argument.isdecimal() and int(argument) >= 1)):
        valid = [f"{one}:NUMBER" if one in WITH_NUMBER else one for one in TRACKED]
        raise ValueError(f"unknown number to track {name!r}: choose from {', '.join(valid)}")
    return name.replace(":", "_"), TRACKED[kind], int(argument or 0)


def _check_measurable(measures: Sequence[Measure], data: Data, pair: Pair, size: int) -> None:
    """Raise ``ValueError`` before the first step for what could only fail after an epoch."""
    if _iwae in measures:
        _check_weighted(_alike(pair, data.train, size))
    if _probe not in measures:
        return
    if pair.can.encode is None:
        raise ValueError("a guide without `posterior` has no codes to track a probe of: declare the model and the guide")
    if len(torch.unique(data.train.labels[:PROBE_ROWS])) < 2:
        raise ValueError("a probe tells classes apart, but the training data are of only one: track others")
    data.valid.labels  # noqa: B018


def _check_weighted(plates: Plates) -> None:
    """Raise ``ValueError`` if a datum has no importance weights of its own."""
    if plates.score.points:
        raise ValueError(
            f"a point has no bound to track as iwae: its {plates.score.name} is in every row already; leave iwae out, or use a "
            "guide with a density"
        )
    if plates.score.bound != "lower":
        bounds = "is no bound to make tighter" if plates.score.bound else "bounds nothing"
        raise ValueError(f"a {plates.score.title} {bounds}, so there is no iwae to track: leave it out")
    if plates.shared:
        raise ValueError(
            f"{', '.join(plates.shared)} is shared by all data, so none has an importance-weighted bound of its own to track "
            "as iwae: valid_elbo is in every row already"
        )
    if plates.subsampled:
        raise ValueError(
            f"the plates {', '.join(plates.subsampled)} show a sample of themselves, which leaves weights that bound nothing: "
            "leave iwae out, or take plates without subsampling"
        )


def _alike(pair: Pair, split: Split, size: int) -> Plates:
    """What there is to know of the sites, by a batch of the size to come.

    A pair of its own looks, so that the fit's still meets its batches anew.
    """
    with evaluating(pair), seeded(0, split.device):
        first = next(batches(pair, split[:size], size))
        return Pair(pair.model, pair.guide, size=pair.size, plain=pair.plain).plates(*first)


def _latent_columns(pair: Pair, valid: Split, wanted: Sequence[str]) -> Record:
    found = latents(pair, valid, rows=LATENT_ROWS)
    for name in wanted:
        if name not in found:
            notes = found.get("notes", {})
            raise ValueError(f"{name} cannot be tracked: {notes.get(name, '; '.join(notes.values()))}")
    return {f"valid_{name}": found[name] for name in wanted}


def _iwae(pair: Pair, data: Data, samples: int) -> float:
    numbers = evaluate(pair, data.valid, samples=samples)
    return float(numbers["iwae"] if samples > 1 else numbers["elbo"])


def _probe(pair: Pair, data: Data, argument: int) -> float:
    return float(probe(_codes(pair, data.train[:PROBE_ROWS]), _codes(pair, data.valid))["accuracy"])


def _codes(pair: Pair, split: Split) -> tuple[Tensor, Tensor]:
    with evaluating(pair), seeded(0, split.device):
        means = [pair.guide.posterior(*batch).mean.flatten(1) for batch in batches(pair, split, ROWS_AT_ONCE)]
    return in_row_order(pair, split, torch.cat(means)), split.labels


TRACKED: Mapping[str, Measure] = {**dict.fromkeys(LATENTS), "iwae": _iwae, "probe": _probe}
WITH_NUMBER = ("iwae",)
