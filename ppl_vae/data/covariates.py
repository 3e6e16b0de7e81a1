"""Fields beside x as covariates: categories by their levels, numbers on one scale, sizes around 1."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from typing import cast

import torch
from torch import Tensor

from ppl_vae.data.fields import Fields, standardized
from ppl_vae.data.levels import as_levels
from ppl_vae.data.transform import Transform
from ppl_vae.types import FitWarning

__all__ = ["as_covariates"]

MOST_LEVELS = 1000  # beyond which a category is none


def as_covariates(
    parts: Sequence[Fields], *, categories: Collection[str], numbers: Collection[str], sizes: Collection[str]
) -> list[Fields]:
    """The fields of train, valid and test, as a model takes those that it is conditioned on; the others stay as they are.

    Args:
        parts: of train, valid and test.
        categories: names of fields of texts, whole numbers or booleans, which become places among all of their levels.
        numbers: names of fields of numbers, which programs get with mean 0 and standard deviation 1 over the training rows.
        sizes: names of fields of positive numbers, which programs get over their geometric mean over the training rows.

    Raises:
        ValueError: a field that is not there, or not such; a size that is not positive.
    """
    found = [part.copied() for part in parts]
    for name in (*categories, *numbers, *sizes):
        _check(found[0], name)
    for name in categories:
        _code(found, name)
    for name in (*numbers, *sizes):
        for part in found:
            part.columns[name] = _column(part, name).float()
    found = standardized(found, tuple(numbers))
    for name in sizes:
        scale = _geometric_mean(found, name)
        for part in found:
            part.transforms[name] = Transform((), 0.0, scale)
    return found


def _check(fields: Fields, name: str) -> None:
    """Raise ``ValueError`` if there is no such field, or not one number a row."""
    known = [each for each, column in fields.columns.items() if isinstance(column, Tensor) and column.dim() == 1]
    if name not in known or name == fields.partial:
        raise ValueError(
            f"expected the covariate {name} as a field beside x, one entry a row, got the fields {', '.join(known) or 'none'}: "
            f"load the data with fields=({name!r}, ...) where it is a column, or give a mapping {{'x': x, {name!r}: values}}"
        )


def _column(fields: Fields, name: str) -> Tensor:
    """A field that was checked."""
    return cast(Tensor, fields.columns[name])


def _code(parts: list[Fields], name: str) -> None:
    """Let a category hold places among its levels in all parts."""
    columns = [_column(part, name) for part in parts]
    if not parts[0].levels.get(name):
        if columns[0].dtype.is_floating_point:
            raise ValueError(f"expected the category {name} as texts or whole numbers, got real ones: name it among numbers")
        places, levels = as_levels(torch.cat(columns).cpu().numpy(), name)
        columns = [part.to(columns[0].device) for part in places.split([len(column) for column in columns])]
        for part, column in zip(parts, columns, strict=True):
            part.columns[name], part.levels[name] = column, levels
    levels = parts[0].levels[name]
    if len(levels) > MOST_LEVELS:
        raise ValueError(f"expected a category of at most {MOST_LEVELS} levels, got {name} with {len(levels)}: leave it out")
    taught = set(columns[0].unique().tolist())
    if alone := [level for place, level in enumerate(levels) if place not in taught]:
        warnings.warn(
            f"the model learns nothing of levels of {name} without a row of training data: {', '.join(alone[:10])}",
            FitWarning,
            stacklevel=2,
        )


def _geometric_mean(parts: list[Fields], name: str) -> float:
    """Of a size over the training rows."""
    columns = [_column(part, name) for part in parts]
    for column in columns:
        if not bool((column > 0).all()):
            raise ValueError(f"expected positive sizes in {name}, got {float(column.min()):g}: drop those rows")
    return float(columns[0].double().log().mean().exp())
