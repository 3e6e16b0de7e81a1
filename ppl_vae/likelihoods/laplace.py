"""The Laplace likelihood."""

from __future__ import annotations

import dataclasses

import pyro.distributions as dist

from ppl_vae.likelihoods.scales import Family, LocationScale

__all__ = ["Laplace"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Laplace(LocationScale):
    """p(x | h) = prod_d exp(-|x_d - h_d| / scale_d) / (2 scale_d): absolute errors, edges less blurred than by squares.

    Laplace 1774, "Mémoire sur la probabilité des causes par les événements".

    Args:
        scale: ``fixed``, ``shared``, ``per_feature`` or ``amortized``, as for ``Gaussian``; the mean absolute deviation.
        value: the fixed scale, or where a learned one starts, in the units of the data the model sees.
        floor: a learned scale stays above it.

    Raises:
        ValueError: an unknown kind of scale, a value or floor that is not positive, a learned value below the floor.

    Examples:
        >>> print(VAE(latent_dim=2, likelihood=Laplace()))
        z ~ Normal(0, I_2); x | z ~ Laplace(MLP(z), s)
    """

    def family(self) -> Family:
        """The Laplace distribution."""
        return dist.Laplace
