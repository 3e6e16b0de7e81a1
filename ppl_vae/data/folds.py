"""Folds of the training rows, each with a transform of its own, as if the rows that are held out had never been seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from ppl_vae.data.dataset import Data
from ppl_vae.data.matching import shown
from ppl_vae.data.scaling import scaled
from ppl_vae.data.seeds import seeded_generator
from ppl_vae.data.split import Split
from ppl_vae.data.transform import Transform

__all__ = ["folds"]

ORDER = 4  # the stream of the seed that the rows are dealt out by


def folds(data: Data, number: int) -> Iterator[Data]:
    """The data with the training rows of all folds but one to fit to, and those of that one as the test rows, for each fold.

    Rows are dealt out by the seed of the data. Those that are pieces of one running text (``chunk``) stay in their order, each
    fold a block of it, for what stands beside a piece would tell of it. Patches of one image, which overlap, all go into one
    fold. Validation rows stay what they are, by which some methods stop. A scale that is measured on training rows
    (``standardize``) is measured on those that are left.

    Raises:
        ValueError: fewer than two folds, or more than there are rows, or images that the rows were cut out of.
    """
    dealt = _dealt(data, number)
    for fold in range(number):
        yield _without(data, dealt == fold)


def _dealt(data: Data, number: int) -> Tensor:
    """The fold of each training row, ``(N,)``."""
    rows = len(data.train)
    images, place = (None, None) if data.train.groups is None else data.train.groups.unique(return_inverse=True)
    parts, what = (rows, "training rows") if images is None else (len(images), "images that the training rows were cut out of")
    if not 2 <= number <= parts:
        remedy = "" if images is None else ": give more images, or hold rows out (by='heldout')"
        raise ValueError(f"expected 2 folds or more, and no more than the {parts} {what}, got {number}{remedy}")
    if data.source.chunk is not None:
        return torch.arange(rows) * number // rows
    dealt = torch.randperm(parts, generator=seeded_generator(data.source.seed, ORDER)) % number
    return dealt if place is None else dealt[place]


def _without(data: Data, held_out: Tensor) -> Data:
    """The data without some training rows ``(N,)``, which become its test rows."""
    train = data.train[(~held_out).nonzero().flatten()]
    transform = _measured(data, train)
    weight = None if train.weights is None else train.total
    spec = dataclasses.replace(data.spec, size=len(train), weight=weight)
    test = data.train[held_out.nonzero().flatten()].under(transform).fixed(seeded_generator(data.source.seed, 3))
    valid = shown(data.valid, transform, data.spec.kind) if len(data.valid) else data.valid
    return dataclasses.replace(data, spec=spec, train=train.under(transform), valid=valid, test=test)


def _measured(data: Data, train: Split) -> Transform:
    """The transform that these training rows give."""
    before = train.transform
    if data.source.scale != "standardize" or before.indices:
        return before
    source = dataclasses.replace(data.source, dequantize=before.dequantize)
    return scaled(source, [train.raw], levels=256).transform.to(before.loc)
