"""The latent space."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from ppl_vae.plots.canvas import images_of, limits_of, new_figure, points_on, tiled, values_of
from ppl_vae.types import Kind

__all__ = ["aggregate", "latent_scatter", "manifold", "quantile_grid"]


def manifold(decoded: Tensor, *, kind: Kind | str) -> Figure:
    """Images decoded from a two-dimensional latent, each where its code lies under the prior.

    Args:
        decoded: ``(n, n, *event)`` images at the codes of `quantile_grid`; row 0 is the top, with the largest z2.
        kind: set of the values, as for `grid`.

    Raises:
        ValueError: if decoded is not a square of images, or for the reasons of `grid`.
    """
    images = images_of(values_of(decoded.flatten(0, 1), kind)) if decoded.ndim > 2 else None
    if images is None or decoded.shape[0] != decoded.shape[1]:
        raise ValueError(f"decoded: expected (n, n, *event) of images, got shape {tuple(decoded.shape)}")
    n = len(decoded)
    figure, ax = tiled(images, n, limits_of(images, kind), kind)
    shown = sorted({0, n // 4, n - 1 - n // 4, n - 1})
    z1 = quantile_grid(n)[0, :, 0]
    height, width = images.shape[-2] + 1, images.shape[-1] + 1
    ax.set_xticks([i * width + (width - 2) / 2 for i in shown], [f"{z1[i]:.2f}" for i in shown])
    ax.set_yticks([i * height + (height - 2) / 2 for i in shown], [f"{-z1[i]:.2f}" for i in shown])
    ax.set_xlabel("$z_1$, at equal steps of prior probability")
    ax.set_ylabel("$z_2$, at equal steps of prior probability")
    ax.set_title("decoded latent plane")
    return figure


def quantile_grid(n: int) -> Tensor:
    """Codes of `manifold`: a linear grid of the open unit square through the inverse normal CDF.

    ``z = Phi^-1((i + 1/2) / n)``, the medians of n cells of equal probability (Kingma and Welling, 2014, appendix A).

    Args:
        n: codes along each axis.

    Returns:
        ``(n, n, 2)``: z1 grows from left to right and z2 from the bottom row to the top row, row 0.

    Raises:
        ValueError: if n is not positive.

    >>> quantile_grid(3)[0]  # the top row: z1 grows, z2 is largest
    tensor([[-0.9674,  0.9674],
            [ 0.0000,  0.9674],
            [ 0.9674,  0.9674]])
    """
    if n < 1:
        raise ValueError(f"n: expected a positive number of codes, got {n}")
    z = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)
    z = (z - z.flip(0)) / 2  # exactly symmetric
    z2, z1 = torch.meshgrid(z.flip(0), z, indexing="ij")
    return torch.stack((z1, z2), dim=-1).to(torch.get_default_dtype())


def aggregate(codes: Tensor, prior: Tensor, *, most: int = 12) -> Figure:
    """The aggregate posterior against the prior, a panel for each dimension, those farthest from their mean first.

    Where the two differ, samples from the prior decode to what the decoder has not seen.

    Args:
        codes: ``(N, K)``, a draw from the posterior of each datum.
        prior: ``(M, K)``, draws from the prior.
        most: dimensions shown, those whose codes vary most.

    Raises:
        ValueError: if the shapes do not fit, or entries are not finite.
    """
    if codes.ndim != 2 or prior.ndim != 2 or codes.shape[1] != prior.shape[1] or not min(len(codes), len(prior)):
        raise ValueError(f"expected codes (N, K) and prior (M, K), got {tuple(codes.shape)} and {tuple(prior.shape)}")
    q, p = (part.detach().to("cpu", torch.float64) for part in (codes, prior))
    if not (q.isfinite().all() and p.isfinite().all()):
        raise ValueError("codes: expected finite codes, got NaN or infinity; look at the learning curve for divergence")
    shown = q.var(0, correction=0).argsort(descending=True)[:most].tolist()
    columns = min(4, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure, _ = new_figure(3.2 * columns + 0.6, 2.4 * rows + 0.9, columns=0)
    for place, k in enumerate(shown):
        ax = figure.add_subplot(rows, columns, place + 1)
        edges = torch.histogram(torch.cat([q[:, k], p[:, k]]), bins=40).bin_edges.tolist()
        ax.hist(p[:, k].numpy(), bins=edges, density=True, color="tab:gray", alpha=0.45, label="prior")
        ax.hist(
            q[:, k].numpy(), bins=edges, density=True, histtype="step", color="tab:blue", lw=1.6, label="aggregate posterior"
        )
        ax.set(xlabel=f"$z_{{{k + 1}}}$", yticks=[])
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def latent_scatter(z: Tensor, y: Tensor | None = None, classes: Sequence[str] = ()) -> Figure:
    """Codes in the plane, coloured by class; more than two dimensions are projected by PCA.

    Args:
        z: ``(N, K)`` codes with K >= 2.
        y: ``(N,)`` class numbers, -1 for codes without a class, which are gray; or None for one colour.
        classes: name of each class; the numbers where empty.

    Raises:
        ValueError: if z has another shape or non-finite entries, or y does not fit z and classes.
    """
    if z.ndim != 2 or not len(z) or z.shape[1] < 2:
        raise ValueError(f"z: expected (N, K) with N >= 1 and K >= 2, got {tuple(z.shape)}")
    z = z.detach().to("cpu", torch.float64)
    if not z.isfinite().all():
        raise ValueError("z: expected finite codes, got NaN or infinity; look at the learning curve for divergence")
    figure, (ax,) = new_figure(6 if y is None else 7, 5.5)
    codes, axis_names = (z, ("$z_1$", "$z_2$")) if z.shape[1] == 2 else _pca(z)
    ax.set_title("latent codes" + (f", {z.shape[1]} dimensions projected by PCA" if z.shape[1] > 2 else ""))
    if y is None:
        points_on(ax, codes, "tab:blue", axis_names)
        return figure
    labels, names = _classes(y, len(z), classes)
    colours = mpl.colormaps["tab10" if len(names) <= 10 else "turbo"]
    palette = [colours(i if len(names) <= 10 else i / (len(names) - 1)) for i in range(len(names))]
    palette += [mpl.colors.to_rgba("lightgray")] if -1 in labels else []
    points_on(ax, codes, [palette[label] for label in labels], axis_names)  # one scatter, so no class covers another
    handles = [Line2D([], [], linestyle="", marker="o", color=colour) for colour in palette]
    names = [*names, "no label"][: len(palette)]
    ax.legend(handles, names, title="class", loc="center left", bbox_to_anchor=(1, 0.5), ncols=math.ceil(len(names) / 20))
    return figure


def _pca(z: Tensor) -> tuple[Tensor, tuple[str, str]]:
    """Project ``(N, K)`` codes on the two leading axes of their scatter matrix; name the axes by explained variance."""
    z = z - z.mean(0)
    axes, variances, _ = torch.linalg.svd(z.T @ z)
    share = variances / variances.sum().clamp_min(torch.finfo(z.dtype).tiny)
    first, second = (f"principal component {i + 1} ({share[i]:.0%} of the variance)" for i in range(2))
    return z @ axes[:, :2], (first, second)


def _classes(y: Tensor, size: int, classes: Sequence[str]) -> tuple[list[int], Sequence[str]]:
    """Class number of each datum and name of each class."""
    if y.shape != (size,):
        raise ValueError(f"y: expected ({size},), a class number per code, got {tuple(y.shape)}")
    if y.is_floating_point() or y.is_complex():
        raise ValueError(f"y: expected integer class numbers, got {y.dtype}")
    names = classes or [str(i) for i in range(int(y.max()) + 1)]
    if y.min() < -1 or y.max() >= len(names):
        raise ValueError(f"y: expected class numbers 0 to {len(names) - 1}, got {int(y.min())} to {int(y.max())}")
    return y.tolist(), names
