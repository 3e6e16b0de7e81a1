"""Draws of latent variables at a temperature: below 1 nearer to the means or modes, and more alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch import distributions as td

from ppl_vae.nn.raster import Raster
from ppl_vae.program.joint import Joint
from ppl_vae.program.sites import Tree

__all__ = ["check_temperature", "cooled"]


def cooled(p: Any, temperature: float | Mapping[str, float]) -> Tree:
    """Draws of p(z), or of each factor of a joint given the draws before it, as a tree.

    Args:
        p: a distribution or a joint.
        temperature: T; a factor Normal(m, s^2) is drawn from as Normal(m, (T s)^2), and a grid of codes by a causal network
            code after code, the log-probabilities of each divided by T; at 0 the most probable one is taken. By the names of
            latent variables each has its own, and those without one keep 1.

    Raises:
        ValueError: a factor that is neither, where T is not 1, or the name of none.

    Examples:
        >>> from ppl_vae.evaluate.temperature import cooled
        >>> cooled(td.Normal(torch.tensor([1.0, 2.0]), 1.0), 0.0)
        tensor([1., 2.])
    """
    if temperature == 1:
        return p.sample()
    with torch.no_grad():
        if isinstance(temperature, Mapping):
            return _of_each(p, temperature)
        return p.walk(lambda name, factor: _drawn(factor, temperature))[0] if isinstance(p, Joint) else _drawn(p, temperature)


def _of_each(p: Any, temperature: Mapping[str, float]) -> Tree:
    """Draws of a joint, each factor at its own temperature."""
    names = p.names if isinstance(p, Joint) else ()
    if unknown := [name for name in temperature if name not in names]:
        told = f"of {', '.join(names)}" if names else "for all, since there is one latent variable"
        raise ValueError(f"expected temperatures {told}, got one of {', '.join(map(str, unknown))}")
    return p.walk(lambda name, factor: _drawn(factor, temperature.get(name, 1.0)))[0]


def check_temperature(temperature: float | Mapping[str, float]) -> None:
    """Raise ``ValueError`` for a temperature where there is no p(z) to draw at one."""
    if temperature != 1:
        raise ValueError("expected a model that says p(z) as a distribution for a temperature, got another: leave it out")


def _drawn(p: Any, temperature: float) -> Tensor:
    if temperature == 1:
        return p.sample()
    if isinstance(p, Raster):
        return p.draw(temperature=temperature)
    base = p.base_dist if isinstance(p, td.Independent) else p
    if not isinstance(base, td.Normal | td.MultivariateNormal | td.LowRankMultivariateNormal):
        raise ValueError(
            "expected normal latent variables, or grids of codes by a causal network that was fitted, for a temperature, got "
            f"{type(base).__name__}: leave it out"
        )
    mean: Tensor = p.mean
    return mean + temperature * (p.sample() - mean)
