from .canvas import save
from .codes import codes
from .data import by_class, comparison, completions, grid, walks
from .drawings import drawings, drawings_table, svg
from .graphs import graph
from .history import learning_curve, tracked
from .latent import aggregate, latent_scatter, manifold, quantile_grid
from .lattices import lattice
from .methods import compare
from .rows import chart, series, texts
from .saved import runs
from .selection import selection
from .topics import topics

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
