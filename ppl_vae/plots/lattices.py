"""Numbers of the sites of a lattice, such as magnetisations, side by side."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from torch import Tensor

from ppl_vae.plots.canvas import new_figure

__all__ = ["lattice"]


def lattice(maps: Mapping[str, Tensor], *, limits: tuple[float, float] | None = None, label: str = "E[s]") -> Figure:
    """Maps of sites on one scale, each under its name.

    Args:
        maps: by name ``(height, width)``, or ``(sites,)`` of a chain, which is a row.
        limits: ends of the colour scale; by default the smallest and the largest number of all maps.
        label: of the scale.

    Raises:
        ValueError: no map, or one of other than one or two axes.

    Examples:
        ``plots.lattice({how: model.magnetization(how) for how in ("exact", "mean_field", "bethe")}, limits=(-1, 1))``
    """
    shown = {name: values.detach().cpu().double() for name, values in maps.items()}
    if not shown or not all(values.dim() in (1, 2) for values in shown.values()):
        shapes = ", ".join(str(tuple(values.shape)) for values in shown.values())
        raise ValueError(
            f"expected maps (height, width) of sites, got {shapes or 'none'}: give slices of a lattice of more axes"
        )
    low, high = limits or (min(float(v.min()) for v in shown.values()), max(float(v.max()) for v in shown.values()))
    figure, axes = new_figure(2.6 * len(shown) + 1.0, 2.9, len(shown))
    for ax, (name, values) in zip(axes, shown.items(), strict=True):
        cells = values.reshape(1, -1) if values.dim() == 1 else values
        image = ax.imshow(cells.numpy(), cmap="coolwarm", vmin=low, vmax=high, interpolation="nearest")
        ax.set(title=name, xticks=[], yticks=[])
    figure.colorbar(image, ax=axes, label=label)
    return figure
