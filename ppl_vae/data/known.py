"""A frame as rows of columns that are known: what a column holds is not found out anew from a few of its rows."""

from __future__ import annotations

import numpy as np

from ppl_vae.data.arrays import arranged, refuse_infinite
from ppl_vae.data.cells import Cells, encoded
from ppl_vae.data.frames import Frame, cells_of_frame
from ppl_vae.data.labels import as_labels
from ppl_vae.data.missing import spellings
from ppl_vae.data.split import Split
from ppl_vae.data.transform import Transform
from ppl_vae.types import Column, DataSpec

__all__ = ["rows_of_frame"]


def rows_of_frame(
    frame: Frame, spec: DataSpec, *, label: str | None = None, missing_text: tuple[str, ...] | None = None
) -> tuple[Split, tuple[str, ...]]:
    """The columns of a frame that a spec knows, in the units of the source, and the names of the others.

    Args:
        frame: the rows.
        spec: of the data that were fitted, with the ``table`` by which text is numbered.
        label: column of the labels, if rows have them.
        missing_text: texts that stand for a missing entry; see :class:`~ppl_vae.DataSource`.

    Raises:
        ValueError: none of the columns, no rows, a category that the table does not have, or cells that no numbers stand for.
    """
    spelled, known = spellings(missing_text), {column.name: column for column in spec.table}
    cells = {each.name: each for each in cells_of_frame(frame)}
    names = [name for name in cells if name in spec.columns]
    if not names:
        raise ValueError(f"frame: expected the columns {', '.join(spec.columns[:20])}, got {', '.join(list(cells)[:20])}")
    found = [encoded(_under(cells[name], known.get(name)), spelled) for name in names]
    x = np.stack([each.values for each in found], axis=1)
    if not len(x):
        raise ValueError("frame: expected rows of data, got none")
    refuse_infinite(x, "frame") if x.dtype.kind == "f" else None
    table = tuple(_as_known(each.column, known.get(each.column.name)) for each in found)
    y, classes = (None, ()) if label not in cells else as_labels(cells[label].values, len(x), "frame", spelled=spelled)
    split = Split(arranged(x), y, Transform((len(names),)), classes=classes, columns=tuple(names), table=table)
    left = tuple(name for name in cells if name not in spec.columns and name != label)
    return split, left


def _under(cells: Cells, column: Column | None) -> Cells:
    """Cells whose texts are those of a known column, if it has such."""
    texts = column is not None and column.coded and cells.values.dtype.kind in "OU"
    return cells._replace(categories=column.categories) if texts and column is not None else cells


def _as_known(found: Column, known: Column | None) -> Column:
    return known if known is not None and found.categories == known.categories and known.coded else found
