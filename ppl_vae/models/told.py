"""What models tell of their parameters: Gaussian mixtures, factors, and what is learned beside networks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributions as td

from ppl_vae.exact import linear_gaussian, mixture
from ppl_vae.exact.covariances import Covariance
from ppl_vae.likelihoods.scales import GlobalScale
from ppl_vae.program.quantities import COLUMN, COMPONENT, LATENT, Quantity

__all__ = ["of_factors", "of_mixture", "of_noise", "of_prior"]

Quantities = dict[str, Quantity]


def of_factors(parameters: linear_gaussian.Parameters, loadings: Tensor, note: str) -> Quantities:
    """Of x = W z + mu + eps with z standard normal; ``loadings`` is W in the rotation that ``note`` names."""
    loc, _, noise = parameters
    explained = loadings.double().square().sum(1)
    return {
        "mean": Quantity(values=loc, axes=(COLUMN,), power=1, located=True),
        "loading": Quantity(values=loadings, axes=(COLUMN, LATENT), power=1, note=f"z ~ Normal(0, I); {note}"),
        "noise_variance": Quantity(values=noise, axes=(COLUMN,), power=2),
        "communality": Quantity(
            values=explained / (explained + noise), axes=(COLUMN,), note="the share of the variance that the factors explain"
        ),
    }


def of_mixture(parameters: mixture.Parameters, structure: Covariance) -> Quantities:
    """Of a Gaussian mixture; covariances where they are matrices, else variances of each column."""
    weights, locs, spread = parameters
    found = {
        "weight": Quantity(values=weights, axes=(COMPONENT,)),
        "mean": Quantity(values=locs, axes=(COMPONENT, COLUMN), power=1, located=True),
    }
    if spread.dim() > 1 and spread.shape[-1] == spread.shape[-2] and spread.shape != locs.shape:
        axes = (COMPONENT, COLUMN, COLUMN)[-spread.dim() :]
        return {**found, "covariance": Quantity(values=spread, axes=axes, power=1)}
    return {**found, "variance": Quantity(values=structure.variances(spread, locs), axes=(COMPONENT, COLUMN), power=2)}


def of_noise(likelihood: Any, columns: int) -> Quantities:
    """The scale of a likelihood that has one for all data."""
    if not isinstance(likelihood, GlobalScale):
        return {}
    values = likelihood.scale.detach().flatten().expand(columns)
    return {"noise_scale": Quantity(values=values, axes=(COLUMN,), power=1)}


def of_prior(p: Any) -> Quantities:
    """Moments of p(z) where it is normal, or a mixture of normals, dimension by dimension."""
    if isinstance(p, td.MixtureSameFamily) and len(p.event_shape) == 1 and not p.batch_shape:
        axes = (COMPONENT, LATENT)
        moments = _moments("prior_", p.component_distribution, axes)
        return {"prior_weight": Quantity(values=p.mixture_distribution.probs, axes=(COMPONENT,)), **moments} if moments else {}
    return _moments("prior_", p, (LATENT,)) if isinstance(p, td.Independent) and len(p.event_shape) == 1 else {}


def _moments(prefix: str, p: Any, axes: tuple[str, ...]) -> Quantities:
    normal = isinstance(p, td.MultivariateNormal) or (isinstance(p, td.Independent) and isinstance(p.base_dist, td.Normal))
    if not normal or p.mean.dim() != len(axes):
        return {}
    scale = torch.broadcast_to(p.stddev, p.mean.shape)
    return {f"{prefix}mean": Quantity(values=p.mean, axes=axes), f"{prefix}scale": Quantity(values=scale, axes=axes)}
