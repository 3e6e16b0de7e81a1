"""What leaves a fit, in the form in which rows came in: tensors, arrays, or frames with names and the same index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ppl_vae.data.frames import Form
from ppl_vae.data.native import decoded, with_fractions
from ppl_vae.program.sites import Tree, leaves
from ppl_vae.types import DataSpec

__all__ = ["as_codes_given", "as_columns_given", "as_given", "as_rows_given", "codes_of_form", "data_columns", "form_of"]


def form_of(given: Any) -> Form:
    """The form of rows that came in; of codes by the names of sites that of the first."""
    return Form.of(next(iter(given.values()), None) if isinstance(given, Mapping) else given)


def as_given(form: Form, found: Any) -> Any:
    """A tree of tensors as it is, or as arrays."""
    if form.kind == "tensor":
        return found
    return tree_map(lambda value: value.cpu().numpy() if isinstance(value, Tensor) else value, found)


def as_rows_given(form: Form, x: Tree, spec: DataSpec, *, between: Sequence[str], draws: bool = False) -> Any:
    """Data ``(n, *event)`` as frames with the columns and dtypes of the source, or arrays; of draws a list of frames.

    Columns of dtypes ``between`` whose values x may lie are of numbers where it does.
    """
    whole = isinstance(x, Tensor) and x.shape[1 + draws :] == spec.event_shape and len(spec.event_shape) == 1
    if not whole or form.kind not in ("frame", "objects"):
        return as_given(form, x)
    names = spec.columns or [f"x{place}" for place in range(1, spec.event_shape[0] + 1)]
    numbers = dict(zip(names, x.flatten(0, -2).T.cpu().numpy(), strict=True))
    table = with_fractions(spec.table, numbers, between)
    return [form.rows(rows, names, table) for rows in x] if draws else form.rows(x, names, table)


def data_columns(x: Tensor, spec: DataSpec, *, between: Sequence[str]) -> dict[str, Any]:
    """Columns of data ``(n, D)`` by name as the source had them, for files; ``between`` as in :func:`as_rows_given`."""
    names = spec.columns or tuple(f"x{place}" for place in range(1, x.shape[1] + 1))
    numbers = dict(zip(names, x.cpu().numpy().T, strict=True))
    table = with_fractions(spec.table, numbers, between)
    return numbers | {column.name: decoded(numbers[column.name], column) for column in table}


def as_columns_given(form: Form, columns: Mapping[str, Tensor], otherwise: Any) -> Any:
    """Columns by name as a frame; else what stands for them, as tensors or arrays."""
    return form.columns(columns) if form.kind == "frame" else as_given(form, otherwise)


def as_codes_given(form: Form, codes: Tree, shared: tuple[str, ...], *, draws: bool = False) -> Any:
    """Codes ``(n, *latent)`` as a frame, its columns called as ``ppl-vae encode`` calls them; of draws a list of frames.

    What all data share has no rows: it is left out, or, where there is nothing else, given as it is.
    """
    if form.kind != "frame":
        return as_given(form, codes)
    if shared and (not isinstance(codes, Mapping) or set(codes) <= set(shared)):
        return codes
    if draws:
        names, values = leaves(codes), zip(*leaves(codes).values(), strict=True)
        return [as_codes_given(form, dict(zip(names, each, strict=True)), shared) for each in values]
    return form.columns(code_columns(codes, shared))


def code_columns(codes: Tree, shared: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """A column for each dimension of each variable that a datum has of its own: ``z1`` of a lone one, else ``z1_1``."""
    own = {name: code.reshape(len(code), -1) for name, code in leaves(codes).items() if name not in shared}
    between = "_" if len(leaves(codes)) > 1 else ""
    return {f"{name}{between}{place}": column for name, code in own.items() for place, column in enumerate(code.T, start=1)}


def codes_of_form(columns: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> Tree:
    """Codes of columns as :func:`code_columns` names them; of a lone variable columns of any names, in their order.

    Raises:
        ValueError: a column is missing.
    """
    if len(shapes) == 1:
        (shape,) = shapes.values()
        size = max(1, torch.Size(shape).numel())
        names = [f"z{place}" for place in range(1, size + 1)]
        names = names if set(names) <= set(columns) else list(columns)
        return torch.stack([columns[name] for name in names], dim=1).reshape(-1, *shape)
    found = {}
    for name, shape in shapes.items():
        wanted = [f"{name}_{place}" for place in range(1, torch.Size(shape).numel() + 1)]
        if missing := [each for each in wanted if each not in columns]:
            raise ValueError(f"expected columns of codes {', '.join(wanted)}, got none called {', '.join(missing)}")
        found[name] = torch.stack([columns[each] for each in wanted], dim=1).reshape(-1, *shape)
    return found
