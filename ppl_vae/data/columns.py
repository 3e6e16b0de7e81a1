"""Columns of a table brought to one scale, each by itself, where a model is free to choose their units."""

from __future__ import annotations

import torch
from torch import Tensor

from ppl_vae.data.precision import constants
from ppl_vae.data.source import DataSource
from ppl_vae.data.split import Split
from ppl_vae.data.summary import summarized
from ppl_vae.data.transform import Transform
from ppl_vae.types import Kind

__all__ = ["natural_columns", "scaled_columns"]


def scaled_columns(source: DataSource, kind: Kind, train: Split, free: Tensor) -> Transform | None:
    """The transform by which columns where ``free (*event)`` is true have mean 0 and standard deviation 1 over training rows.

    None where the source says itself how it is scaled, and where it was scaled already.
    """
    if source.scale != "auto" or kind == "binary" or not _plain(train.transform) or not bool(free.any()):
        return None
    found = summarized([train.raw], top=1, moments=True)
    # A constant's spread is rounding error, which must not be blown up to 1.
    varying = free & ~constants(found, torch.float32)
    loc, scale = torch.where(free, found.moments.mean, 0.0), torch.where(varying, found.moments.variance.sqrt(), 1.0)
    exact = train.transform.exact is not None
    return Transform(train.transform.event_shape, loc, scale, exact=exact).to(train.transform.loc)


def natural_columns(source: DataSource, train: Split, chosen: Tensor) -> Transform | None:
    """The transform of standardized data by which columns where ``chosen (*event)`` is true are as the source has them."""
    before = train.transform
    if source.scale != "standardize" or before.noisy or not bool(chosen.any()):
        return None
    loc, scale = before.constants
    loc, scale = torch.where(chosen, 0.0, loc), torch.where(chosen, 1.0, scale)
    return Transform(before.event_shape, loc, scale, exact=before.exact is not None).to(before.loc)


def _plain(transform: Transform) -> bool:
    """Whether a model sees the source's own values."""
    return not transform.noisy and bool((transform.loc == 0).all() and (transform.scale == 1).all())
