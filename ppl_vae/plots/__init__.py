"""Every picture of the library: plain tensors and history rows in, a matplotlib ``Figure`` out.

No function touches ``pyplot``: no backend is switched, no setting changed, and a figure that nobody
holds is freed. Show one by returning it in a notebook, keep one with `save`.
"""

from ppl_vae.plots.canvas import save
from ppl_vae.plots.codes import codes
from ppl_vae.plots.data import by_class, comparison, completions, grid, walks
from ppl_vae.plots.drawings import drawings, drawings_table, svg
from ppl_vae.plots.graphs import graph
from ppl_vae.plots.history import learning_curve, tracked
from ppl_vae.plots.latent import aggregate, latent_scatter, manifold, quantile_grid
from ppl_vae.plots.lattices import lattice
from ppl_vae.plots.methods import compare
from ppl_vae.plots.rows import chart, series, texts
from ppl_vae.plots.saved import runs
from ppl_vae.plots.selection import selection
from ppl_vae.plots.topics import topics

__all__ = [
    "aggregate",
    "by_class",
    "chart",
    "codes",
    "compare",
    "comparison",
    "completions",
    "drawings",
    "drawings_table",
    "graph",
    "grid",
    "latent_scatter",
    "lattice",
    "learning_curve",
    "manifold",
    "quantile_grid",
    "runs",
    "save",
    "selection",
    "series",
    "svg",
    "texts",
    "topics",
    "tracked",
    "walks",
]
