"""Every picture of the library: plain tensors and history rows in, a matplotlib ``Figure`` out.

No function touches ``pyplot``: no backend is switched, no setting changed, and a figure that nobody
holds is freed. Show one by returning it in a notebook, keep one with `save`.
"""

from ppl_vae.plots.canvas import save
from ppl_vae.plots.data import by_class, comparison, completions, grid
from ppl_vae.plots.history import learning_curve
from ppl_vae.plots.latent import latent_scatter, manifold, quantile_grid
from ppl_vae.plots.methods import compare

__all__ = [
    "by_class",
    "compare",
    "comparison",
    "completions",
    "grid",
    "latent_scatter",
    "learning_curve",
    "manifold",
    "quantile_grid",
    "save",
]
