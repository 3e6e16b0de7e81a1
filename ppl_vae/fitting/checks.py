"""What is checked before anything is fitted: objects in place of classes, data in the model's support."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ppl_vae.data import Data, Split
from ppl_vae.guides import Guide
from ppl_vae.inference.methods.base import Method
from ppl_vae.models import Model
from ppl_vae.program.pair import Pair
from ppl_vae.text import at_places
from ppl_vae.types import FitWarning

__all__ = ["check_data", "check_declared"]


EXAMPLES = {"model": "VAE(), or a Pyro program", "guide": "AmortizedNormal(), or a Pyro program", "method": "SVI()"}


def check_declared(model: Any, guide: Any, method: Any) -> None:
    """Raise ``ValueError`` for a class where its object is meant, a name where a declaration is, and the like."""
    for what, value, base, plain in (
        ("model", model, Model, callable(model)),
        ("guide", guide, Guide, callable(guide) or guide is None),
        ("method", method, Method, False),
    ):
        if isinstance(value, type):
            raise ValueError(f"expected a declared {what}, got the class {value.__name__}: write {value.__name__}()")
        if not isinstance(value, base) and not plain:
            raise ValueError(f"expected a declared {what}, got {value!r}: give an object such as {EXAMPLES[what]}")


def check_data(model: Model | Callable[..., Any], pair: Pair, data: Data) -> None:
    """Raise ``ValueError`` if rows to fit to or to stop by lack labels that are needed, or lie outside the model's support."""
    for split in (data.train, data.valid):
        for name in pair.reads[1:] if len(split) else ():
            split.column(name)
        check = model.value_check(data.spec) if isinstance(model, Model) else None
        if check is not None and not split.transform.binarize:  # whose draws are zeros and ones
            first = 0
            for raw in split.chunks():
                x = split.transform(raw, torch.Generator(split.device).manual_seed(0))
                try:
                    check(x)
                except ValueError as error:
                    rows, columns = range(first, first + len(raw)), [repr(name) for name in split.columns]
                    raise ValueError(at_places(error, rows=rows, columns=columns)) from None
                first += len(raw)
    if isinstance(model, Model) and not data.train.transform.noisy and (spare := model.spare(lambda: _highest(data.train))):
        warnings.warn(spare, FitWarning, stacklevel=4)
    if pair.model_facts.labelled and (alone := _classes_without_training(data)):
        warnings.warn(
            f"the model learns nothing of classes without a row of training data, and scores them all the same: {alone}",
            FitWarning,
            stacklevel=4,
        )


def _highest(split: Split) -> Tensor:
    """The highest value of each element ``(*event)``, as the model sees it."""
    return torch.stack([split.transform(raw).nan_to_num(nan=-math.inf).amax(0) for raw in split.chunks()]).amax(0)


def _classes_without_training(data: Data) -> str:
    """Names of the classes that stand in held-out rows alone."""
    taught: set[int] = set() if data.train.y is None else set(torch.unique(data.train.y).tolist())
    held_out = {place for split in (data.valid, data.test) if split.y is not None for place in torch.unique(split.y).tolist()}
    names = data.spec.classes
    return ", ".join(names[place] for place in sorted(held_out - taught) if 0 <= place < len(names))
