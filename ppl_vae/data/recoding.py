"""New rows whose categories are numbered otherwise, or came as other dtypes, under the numbers of those that are known."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ppl_vae.data.cells import codes_of
from ppl_vae.data.split import Split
from ppl_vae.data.stream import Stream
from ppl_vae.types import Column

__all__ = ["recoded"]


def recoded(split: Split, table: tuple[Column, ...]) -> Split:
    """The rows ``(N, D)`` with the codes that the table has for their texts; what they hold is then what the table says.

    Rows without a table of their own hold codes already.

    Raises:
        ValueError: a category that the table does not have, text where it has numbers, or dates where it has none.
    """
    if split.table == table:
        return split
    raw = split.raw if isinstance(split.raw, Stream) else split.x
    if not split.table:
        for x in split.chunks():
            _check_codes(x, table)
        return split.recoded(raw, table)
    changed = {place: new for place, (old, new) in enumerate(zip(split.table, table, strict=True)) if _differ(old, new)}

    def renumbered(x: Tensor) -> Tensor:
        x = x.clone()
        for place, column in changed.items():
            x[:, place] = _recoded(x[:, place], split.table[place], column).to(x)
        return x

    if not changed:
        return split.recoded(raw, table)
    return split.recoded(raw.mapped(renumbered) if isinstance(raw, Stream) else renumbered(raw), table)


def _differ(old: Column, new: Column) -> bool:
    numbers = ("float", "integer", "boolean")
    return old.categories != new.categories or not (
        old.dtype == new.dtype or {old.dtype, new.dtype} <= set(numbers) or old.coded
    )


def _recoded(values: Tensor, old: Column, new: Column) -> Tensor:
    """The numbers of a column under other codes."""
    there = ~values.isnan() if values.is_floating_point() else torch.ones_like(values, dtype=torch.bool)
    if not bool(there.any()):
        return values
    used, inverse = values[there].unique(return_inverse=True)
    times = ("date", "datetime")
    if not new.coded:
        if old.dtype in times and new.dtype in times:
            return values
        got = f"text such as {old.categories[int(used[0])]!r}" if old.coded else f"{old.dtype} values"
        expected = "dates" if new.dtype in times else "numbers"
        raise ValueError(f"expected {expected} in column {new.name!r}, as they were when it was fitted, got {got}: convert it")
    codes = torch.from_numpy(codes_of(new.name, _texts(used.cpu().double().numpy(), old, new), new.categories))
    found = values.clone() if values.is_floating_point() else values.long()
    found[there] = codes.to(found)[inverse]
    return found


def _texts(values: np.ndarray, old: Column, new: Column) -> list[str]:
    """The texts that numbers of a column stand for: categories, or how numbers and booleans would be written as such."""
    if old.coded:
        return [old.categories[int(value)] for value in values]
    if old.dtype == "boolean":
        spelled = {text.lower(): text for text in new.categories}
        return [spelled.get(text.lower(), text) for text in ("True" if value else "False" for value in values)]
    return [str(int(value)) if float(value).is_integer() else str(value) for value in values.tolist()]


def _check_codes(x: Tensor, table: tuple[Column, ...]) -> None:
    """Raise ``ValueError`` if numbers that came without a table are no codes of its categories."""
    for place, column in enumerate(table):
        values = x[:, place].double()
        there = values[~values.isnan()]
        if (
            column.coded
            and len(there)
            and bool(((there < 0) | (there >= len(column.categories)) | (there != there.floor())).any())
        ):
            known, got = ", ".join(column.categories[:20]), f"{float(there.min()):g} to {float(there.max()):g}"
            raise ValueError(
                f"expected in column {column.name!r} codes from 0 to {len(column.categories) - 1}, which stand for {known}, "
                f"got {got}: give a frame, whose texts are matched"
            )
