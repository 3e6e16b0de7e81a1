"""The Gaussian likelihood."""

from __future__ import annotations

import dataclasses

import pyro.distributions as dist

from ppl_vae.likelihoods.base import argument_of
from ppl_vae.likelihoods.scales import Family, LocationScale

__all__ = ["Gaussian"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gaussian(LocationScale):
    """p(x | h) = prod_d Normal(x_d; h_d, scale_d^2).

    A learned scale is what keeps the balance of reconstruction and KL honest (Rybkin et al. 2021); ``fixed`` at a large
    value switches latent dimensions off (Lucas et al. 2019).

    Args:
        scale: ``fixed`` at ``value``; one learned scale ``shared`` by all elements; one learned ``per_feature``; or
            ``amortized``, given by the decoder for each datum and element.
        value: the fixed scale, or where a learned one starts, in the units of the data the model sees.
        floor: a learned scale stays above it: the density of a constant pixel has no upper bound otherwise.

    Raises:
        ValueError: an unknown kind of scale, a value or floor that is not positive, a learned value below the floor.

    Examples:
        >>> Gaussian(scale="amortized").features
        2
    """

    def family(self) -> Family:
        """The normal distribution."""
        return dist.Normal

    def story(self, features: str) -> str:
        """The density as text."""
        z = argument_of(features)
        spread = {
            "fixed": f"{self.value:g}^2 I",
            "shared": "sigma^2 I",
            "per_feature": "diag(sigma^2)",
            "amortized": f"diag(sigma({z})^2)",
        }[self.scale]
        mean = f"mu({z}), {spread}), (mu, sigma)({z}) = {features}" if self.scale == "amortized" else f"{features}, {spread})"
        return f"Normal({mean}"
