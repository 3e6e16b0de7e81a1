"""Scores of rows that are no numbers: whether the fit or the rows are the reason, and what to do."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ppl_vae.data import Split
from ppl_vae.data.ragged import Ragged
from ppl_vae.program.pair import Pair

__all__ = ["check_numbers", "reason", "which_rows"]

DIVERGED = "if the fit diverged, lower the learning rate, clip the gradients (clip_norm), or standardize the data"


def check_numbers(pair: Pair, split: Split, found: Tensor, what: str) -> None:
    """Raise ``ValueError`` if some of what was found of the rows ``(N, ...)``, in their order, is NaN."""
    bad = found.flatten(1).isnan().any(1) if found.dim() > 1 else found.isnan()
    if bool(bad.any()):
        raise ValueError(f"expected {what} that is a number, got NaN for {which_rows(bad)}: {reason(pair, split, bad)}")


def which_rows(bad: Tensor) -> str:
    """How many of the rows ``(N,)`` they are, and the first of them."""
    return f"{int(bad.sum())} of {len(bad)} rows, the first of them row {int(bad.nonzero()[0])}"


def reason(pair: Pair, split: Split, bad: Tensor) -> str:
    """What to do about rows ``(N,)`` whose scores are not finite: the fit has diverged, or they hold what it never saw."""
    if not all(bool(parameter.isfinite().all()) for parameter in pair.parameters()):
        return DIVERGED
    row = int(bad.nonzero()[0])
    values = _farthest(split[row])
    holds = f"row {row} holds {values}: " if values else ""
    remedy = "correct values that are far outside of what was fitted, or leave those rows out"
    return f"{holds}{remedy}; {DIVERGED}" if bool(bad.all()) else f"{holds}{remedy}"


def _farthest(one: Split) -> str:
    """The value of a row that is farthest from zero as the model sees it, with its column or field."""
    found: list[tuple[float, str]] = []
    if not isinstance(one.raw, Ragged):
        seen = _distances(one.transform.affine(one.x))
        place = int(seen.argmax())
        names = one.columns if len(one.columns) == len(seen) else [str(each) for each in range(len(seen))]
        where = f" in column {names[place]!r}" if len(one.event_shape) == 1 else ""
        found.append((seen[place], f"{float(one.x.flatten()[place]):g}{where}"))
    for name, column in one.fields.columns.items():
        if isinstance(column, Tensor) and column.numel() and name not in one.fields.levels:
            transform = one.fields.transforms.get(name)
            seen = _distances(column if transform is None else transform.affine(column))
            place = int(seen.argmax())
            found.append((seen[place], f"{float(column.flatten()[place]):g} in {name!r}"))
    return max(found, default=(0.0, ""))[1]


def _distances(seen: Tensor) -> np.ndarray:
    """From zero, of what is missing zero."""
    found: np.ndarray = np.nan_to_num(seen.double().flatten().abs().cpu().numpy(), nan=0.0, posinf=np.inf)
    return found
