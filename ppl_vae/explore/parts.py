"""What some models have beside free numbers: components with weights, and loadings of factors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributions as td

from ppl_vae.explore.blocks import Layout
from ppl_vae.explore.decoding import decoded
from ppl_vae.explore.dimensions import Dimensions
from ppl_vae.fitting import Fit
from ppl_vae.program.context import evaluating
from ppl_vae.program.quantities import COLUMN, LATENT
from ppl_vae.program.sites import leaves

__all__ = ["components_of", "loadings_of"]

MOST = 100  # components
MOST_LOADINGS = 24


def components_of(fit: Fit, layout: Layout, centre: Tensor) -> tuple[list[float], Tensor]:
    """The weights of the components of a mixture, and the code that stands for each ``(C, size)``; none of other models.

    Of a mixture as prior they are the means of its components; of a latent variable with several values these values.

    Args:
        fit: the fit.
        layout: of its codes.
        centre: what the other elements are ``(size,)``.
    """
    nothing: tuple[list[float], Tensor] = ([], centre[None][:0])
    if fit.pair.can.generate is None or any(not block.latent for block in layout.blocks):
        return nothing
    with evaluating(fit.pair):
        prior = fit.pair.can.generate.prior()
        found = leaves(prior.mean) if isinstance(prior, td.OneHotCategorical) else {}
        if isinstance(prior, td.MixtureSameFamily) and len(layout.blocks) == 1:
            means = prior.component_distribution.mean
            weights = prior.mixture_distribution.probs
            return _heaviest(weights, means.reshape(len(weights), -1)) if weights.dim() == 1 else nothing
    if len(layout.blocks) != 1 or layout.blocks[0].kind != "choice" or not found:
        return nothing
    (weights,) = found.values()
    return _heaviest(weights, torch.eye(len(weights)))


def _heaviest(weights: Tensor, codes: Tensor) -> tuple[list[float], Tensor]:
    """At most so many, those of the largest weights, in their own order."""
    chosen = weights.argsort(descending=True)[:MOST].sort().values
    return [round(value, 6) for value in weights[chosen].tolist()], codes[chosen].detach().float().cpu()


def loadings_of(fit: Fit, layout: Layout, dimensions: Dimensions, centre: Tensor) -> Tensor | None:
    """What a linear decoder adds for one unit of each of the first dimensions ``(K, D)``, in the units of the source.

    ``None`` of models that do not tell loadings or axes as parameters.
    """
    if fit.pair.can.describe is None:
        return None
    with evaluating(fit.pair):
        linear = any(each.axes == (COLUMN, LATENT) for each in fit.pair.can.describe.quantities().values())
    if not linear:
        return None
    places = dimensions.places[:MOST_LOADINGS]
    codes = centre.expand(len(places) + 1, -1).clone()
    codes[range(len(places)), places] += 1
    x = decoded(fit, layout, codes, torch.ones(len(codes), 1)).flatten(1).double()
    return x[:-1] - x[-1]
