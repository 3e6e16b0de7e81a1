"""Files of data along ways through the space of codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ppl_vae import plots
from ppl_vae.cli.output import as_arrays
from ppl_vae.types import STROKES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np

    from ppl_vae.data import Split
    from ppl_vae.fitting import Fit

__all__ = ["SUFFIXES", "as_pictured", "row_at", "walks_writers"]

SUFFIXES = (".png", ".npz", ".npy")


def row_at(rows: Split, place: int) -> Split:
    """One row by its number.

    Raises:
        ValueError: there is none.
    """
    if not 0 <= place < len(rows):
        raise ValueError(f"expected the number of a row from 0 to {len(rows) - 1}, got {place}")
    return rows[place]


def as_pictured(fitted: Fit, out: str | None) -> bool:
    """Whether data are wanted as the model sees them, since they go into a picture."""
    return out is not None and out.endswith(".png") and not fitted.spec.ragged


def walks_writers(
    fitted: Fit,
    decoded: Any,
    codes: Any,
    names: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    extra: dict[str, np.ndarray],
) -> dict[str, Callable[[Path], None]]:
    """What a writer of :data:`SUFFIXES` writes of data ``(R, C, *event)``, or lists of R rows of data, and their codes.

    Raises:
        ValueError: texts, which are printed, or data that a picture or one array does not hold.
    """
    from torch import Tensor

    from ppl_vae.program.sites import leaves

    found = {name: code.cpu().numpy() for name, code in leaves(codes).items()}
    if isinstance(decoded, Tensor):
        x = decoded.detach().cpu()
        options: dict[str, Any] = {"kind": fitted.spec.kind, "title": title, "names": fitted.spec.columns}
        picture = {".png": lambda path: plots.save(plots.walks(x, names, columns, **options), path)}
        return picture | as_arrays({"x": x.numpy()} | found | extra)
    if fitted.spec.kind == STROKES and isinstance(decoded, list):
        cells = [_each(row) for row in decoded]
        drawn = {".png": lambda path: plots.save(plots.drawings_table(cells, names, title=title, heads=columns), path)}
        return drawn | as_arrays(found | extra)
    arrays = as_arrays(found | extra)

    def refuse(path: Path) -> None:
        raise ValueError("expected images, drawings or columns for a picture, got other rows: write the codes to .npz")

    return {".png": refuse} | arrays


def _each(row: Any) -> list[Any]:
    """The drawings of a way, one by one."""
    from ppl_vae.data import Ragged

    return [row[place] for place in range(len(row))] if isinstance(row, Ragged) else list(row)
