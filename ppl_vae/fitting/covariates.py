"""What is decoded or drawn as if it were of other covariates: values by name, those of rows, and what stands for the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ppl_vae.data.levels import coded
from ppl_vae.program.capabilities import Covaried
from ppl_vae.types import DataSpec, Field

__all__ = ["conditions"]


def conditions(
    model: Covaried, spec: DataSpec, rows: Iterator[tuple[Tensor, ...]], given: Any, *, n: int | None, like: Tensor
) -> tuple[Tensor, ...]:
    """What p(x | z, y) is conditioned on.

    Args:
        model: whose covariates they are.
        spec: of the fit's data, whose levels and scales the values are told in.
        rows: batches whose covariates stand where none is given.
        given: covariates by name, one for all or one for each.
        n: of new data: categories that are not given go through their levels in turn.
        like: a tensor of the model's dtype and device.

    Raises:
        ValueError: no covariate of the model, an unknown level, a size that is not positive, or a category that is not told.
    """
    given = {} if given is None else given
    if not isinstance(given, Mapping) or (unknown := set(given) - set(model.covariates)):
        told = f"the names {', '.join(sorted(unknown))}" if isinstance(given, Mapping) else repr(given)[:80]
        raise ValueError(f"expected covariates by name, of {', '.join(model.covariates)}, got {told}: give y={{name: value}}")
    fields = {field.name: field for field in spec.fields}
    values = _of_rows(model, rows)
    for name in model.covariates:
        if name in given:
            values[name] = _value(given[name], fields.get(name), name, like)
        elif name not in values:
            values[name] = _default(model, name, fields, n)
    sizes = {len(value) for value in values.values()} - {1}
    if len(sizes) > 1:
        raise ValueError(f"expected one value of a covariate or one for each, got {' and '.join(map(str, sorted(sizes)))}")
    found = model.given(values)
    if not all(bool(part.isfinite().all()) for part in found):
        raise ValueError("expected finite covariates and positive sizes, got others: correct them")
    return found


def _of_rows(model: Covaried, rows: Iterator[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    """The covariates of rows by name, each ``(n,)``; none without rows."""
    parts = [model.covariate_values(*batch) for batch in rows]
    return {name: torch.cat([part[name] for part in parts]) for name in model.covariates} if parts else {}


def _value(value: Any, field: Field | None, name: str, like: Tensor) -> Tensor:
    """A value or several ``(n,)`` as programs get them."""
    if field is not None and field.vocabulary:
        return coded(value, field.vocabulary, name).to(like.device)
    found = torch.as_tensor(value, dtype=like.dtype, device=like.device).reshape(-1)
    return found if field is None or not field.scale else (found - field.loc[0]) / field.scale[0]


def _default(model: Covaried, name: str, fields: Mapping[str, Field], n: int | None) -> Tensor:
    """What stands for a covariate that nobody told."""
    found = model.covariate_default(name)
    if found is not None:
        return found
    levels = fields[name].vocabulary
    if n is None:
        raise ValueError(
            f"expected {name}, one of {', '.join(levels[:20])}: give y={{{name!r}: ...}}, or rows as x, whose own it then is"
        )
    return torch.arange(n) % len(levels)
