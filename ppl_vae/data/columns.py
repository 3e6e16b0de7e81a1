"""Columns of a table brought to one scale, each by itself, where a model is free to choose their units."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ppl_vae.data.precision import constants
from ppl_vae.data.summary import summarized
from ppl_vae.data.transform import Transform
from ppl_vae.types import REAL

if TYPE_CHECKING:
    from ppl_vae.data.split import Data

__all__ = ["natural_columns", "scaled_columns"]


def scaled_columns(data: Data, free: Tensor) -> Data:
    """Data whose columns where ``free (*event)`` is true have mean 0 and standard deviation 1 over the training rows.

    Where the source says itself how it is scaled, and where it was scaled already, it stays as it is.
    """
    if data.source.scale != "auto" or data.spec.kind == "binary" or not _plain(data.train.transform) or not bool(free.any()):
        return data
    found = summarized([data.train.raw], top=1, moments=True)
    # A constant's spread is rounding error, which must not be blown up to 1.
    varying = free & ~constants(found, torch.float32)
    loc, scale = torch.where(free, found.moments.mean, 0.0), torch.where(varying, found.moments.variance.sqrt(), 1.0)
    before = data.train.transform
    spec = dataclasses.replace(data.spec, kind=REAL, levels=None)
    return _under(dataclasses.replace(data, spec=spec), Transform(before.event_shape, loc, scale).to(before.loc))


def natural_columns(data: Data, chosen: Tensor) -> Data:
    """Standardized data whose columns where ``chosen (*event)`` is true are as the source has them."""
    before = data.train.transform
    if data.source.scale != "standardize" or before.noisy or not bool(chosen.any()):
        return data
    loc, scale = before.constants
    loc, scale = torch.where(chosen, 0.0, loc), torch.where(chosen, 1.0, scale)
    return _under(data, Transform(before.event_shape, loc, scale, exact=before.exact is not None).to(before.loc))


def _under(data: Data, transform: Transform) -> Data:
    train, valid, test = (split.under(transform) for split in (data.train, data.valid, data.test))
    return dataclasses.replace(data, train=train, valid=valid, test=test)


def _plain(transform: Transform) -> bool:
    """Whether a model sees the source's own values."""
    return not transform.noisy and bool((transform.loc == 0).all() and (transform.scale == 1).all())
