"""Conjugate priors of the scale of the data, for methods that need priors of models that declare none."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from ppl_vae.data import Data
from ppl_vae.data.matrices import Matrices
from ppl_vae.exact.moments import moments
from ppl_vae.models import Model
from ppl_vae.types import FitWarning

__all__ = ["with_conjugate_priors"]

M = TypeVar("M", bound=Model | Callable[..., Any])


def with_conjugate_priors(model: M, data: Data) -> M:
    """The model with a weakly informative conjugate prior of each parameter that has none, where it knows such; which is told.

    The fit declares them, so that it can be saved, read and repeated with others.
    """
    if not isinstance(model, Model):
        return model
    found = model.with_conjugate_priors(lambda: _columns(data))
    added = [name for name in found.parameter_priors if name not in model.parameter_priors]
    if added:
        warnings.warn(
            f"no priors of {', '.join(added)} are declared: weakly informative conjugate ones of the scale of the data are "
            "taken, which fit.model tells; its ELBO bounds the log evidence per datum, these parameters integrated out",
            FitWarning,
            stacklevel=4,
        )
    return cast(M, found)


def _columns(data: Data) -> tuple[Tensor, Tensor]:
    """Means and standard deviations ``(D,)`` of the training data; a constant column gets the least of the others'."""
    if data.spec.missing:  # which no prior of a parameter goes with, as is told where the model is built
        return torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    seen = moments(Matrices(data.train))
    scale = seen.covariance.diagonal().clamp_min(0).sqrt()
    varying = scale > 1e-9 * (scale + seen.mean.abs())
    least = scale[varying].min() if bool(varying.any()) else scale.new_ones(())
    return seen.mean.cpu(), torch.where(varying, scale, least).cpu()
