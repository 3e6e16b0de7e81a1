"""Cells with what is known of them: AnnData, from its files (h5ad) and from memory, and codes put back beside the cells."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ppl_vae.data.arrays import unreadable
from ppl_vae.data.counts import holding, of_sparse
from ppl_vae.data.frames import cells_of_frame
from ppl_vae.data.missing import spellings
from ppl_vae.data.raw import Raw
from ppl_vae.data.source import DataSource
from ppl_vae.data.tables import as_field, chosen_columns, label_column
from ppl_vae.memory import require_memory
from ppl_vae.types import FitWarning

__all__ = [
    "beside_cells",
    "chosen_genes",
    "is_anndata",
    "layer_named",
    "of_anndata",
    "put_codes",
    "read_h5ad",
    "remark_unless_counts",
    "without_anndata",
]


def is_anndata(values: Any) -> bool:
    """Whether this is an AnnData, found without importing it."""
    return any(cls.__name__ == "AnnData" and cls.__module__.startswith("anndata") for cls in type(values).__mro__)


def read_h5ad(path: Path, source: DataSource) -> Raw:
    """The matrix and the observations that are asked for, of a file of AnnData; nothing of it is unpickled.

    Raises:
        ValueError: anndata is not installed, a damaged file, or a layer or an observation that it does not have.
    """
    try:
        import anndata
    except ImportError:
        raise without_anndata(path) from None
    try:
        found = anndata.read_h5ad(path, backed="r")
    except Exception as error:  # of h5py, zarr and anndata, which have no common base
        raise unreadable(path, error) from None
    try:
        return of_anndata(found, source, name=str(path))
    finally:
        found.file.close()


def without_anndata(path: Path) -> ValueError:
    """The error for a file that nothing here can read."""
    return ValueError(f"{path}: reading h5ad needs anndata: pip install 'ppl_vae[anndata]'")


def of_anndata(cells: Any, source: DataSource, *, name: str = "AnnData") -> Raw:
    """``X`` or a layer ``(N, D)``, its columns called as the variables; observations as labels and as fields beside x.

    Remarks on values that are no counts, unless the source says that they are none.

    Raises:
        ValueError: no such matrix or observation, or variables of one name.
    """
    from scipy.sparse import issparse

    genes = [str(each) for each in cells.var_names]
    columns, matrix = chosen_genes(genes, cells.obs, source, name), _matrix(cells, source, name)
    if columns != genes:
        places = {gene: place for place, gene in enumerate(genes)}
        matrix = (matrix.tocsc() if issparse(matrix) else matrix)[:, [places[each] for each in columns]]
    values = matrix.data if issparse(matrix) else matrix
    if values.dtype.kind == "f" and _are_counts(source):
        fractions, negative = bool((values != np.floor(values)).any()), bool((values < 0).any())
        remark_unless_counts(source, name, list(cells.layers), fractions=fractions, negative=negative)
    if issparse(matrix):
        raw = of_sparse(matrix, source, names=tuple(columns))
    else:
        raw = Raw(matrix.astype(holding(matrix), copy=False), columns=tuple(columns))
    return beside_cells(raw, cells.obs, source)


def chosen_genes(genes: list[str], observed: Any, source: DataSource, name: str) -> list[str]:
    """The names of the variables that are data.

    Args:
        genes: the names of all variables.
        observed: a frame of the observations.
        source: what is asked for.
        name: of the file, for messages.

    Raises:
        ValueError: variables of one name, no such variable or observation.
    """
    known = [str(each) for each in observed.columns]
    if len(set(genes)) < len(genes):
        twice = next(each for each in genes if genes.count(each) > 1)
        raise ValueError(f"{name}: expected variables of different names, got {twice!r} twice: call var_names_make_unique()")
    for wanted in (*([] if source.label is None else [source.label]), *source.fields):
        if wanted not in known:
            raise ValueError(f"{name}: expected observations among {', '.join(known) or 'none'}, got {wanted!r}: name one")
    return chosen_columns(name, genes, source)


def put_codes(cells: Any, codes: Tensor | Mapping[str, Tensor], *, key: str = "X_ppl_vae") -> tuple[str, ...]:
    """Put codes of cells beside them, into ``cells.obsm``, where scanpy looks for them.

    A ``/`` in a key becomes ``_``: AnnData 0.12 writes a key with one into a file that it cannot read back.

    Args:
        cells: an AnnData of N observations.
        codes: ``(N, *latent)`` as ``fit.encode`` gave them, by name if there are several latent variables.
        key: where; of several latent variables their names are added, after ``_``.

    Returns:
        The keys.

    Raises:
        ValueError: another number of codes than cells, or two that would go by one key.

    Examples:
        ``put_codes(cells, fit.encode(data))``, then ``scanpy.pp.neighbors(cells, use_rep="X_ppl_vae")``
    """
    named = {f"{key}_{name}": code for name, code in codes.items()} if isinstance(codes, Mapping) else {key: codes}
    found = {name.replace("/", "_"): code for name, code in named.items()}
    if len(found) < len(named):
        raise ValueError(f"expected codes under different keys, got {', '.join(named)}, where / becomes _: rename one")
    for name, code in found.items():
        if len(code) != cells.n_obs:
            raise ValueError(f"expected a code for each of {cells.n_obs} cells, got {len(code)} as {name}: encode these cells")
        cells.obsm[name] = code.detach().cpu().reshape(len(code), -1).numpy()
    return tuple(found)


def _matrix(cells: Any, source: DataSource, name: str) -> Any:
    """The matrix that is asked for, in memory."""
    from scipy.sparse import issparse

    layers = list(cells.layers)
    layer = layer_named(source, layers, name, there=cells.X is not None)
    matrix = cells.X if layer is None else cells.layers[layer]
    if issparse(matrix):
        return matrix
    if isinstance(matrix, np.ndarray):
        return np.asarray(matrix)
    if type(matrix).__module__.startswith("h5py"):
        require_memory(matrix.dtype.itemsize * int(np.prod(matrix.shape)), name)
        return matrix[...]
    return matrix.to_memory()


def layer_named(source: DataSource, layers: Sequence[str], name: str, *, there: bool) -> str | None:
    """The layer that is asked for, ``None`` of X.

    Raises:
        ValueError: there is no such layer, or no X.
    """
    if source.layer is not None and source.layer not in layers:
        known = ", ".join(layers) or "none"
        raise ValueError(f"{name}: expected a layer among {known}, got {source.layer!r}: name one, or none for X")
    if source.layer is None and not there:
        raise ValueError(f"{name}: expected X, got none: name a layer ({', '.join(layers) or 'there is none'})")
    return source.layer


def _are_counts(source: DataSource) -> bool:
    """Whether the numbers are to be counts, as far as the source says."""
    return source.kind in (None, "count") and source.scale in ("auto", "none")


def remark_unless_counts(source: DataSource, name: str, layers: Sequence[str], *, fractions: bool, negative: bool) -> None:
    """Warn of fractions or negative numbers where counts are expected."""
    if _are_counts(source) and (fractions or negative):
        like = "negative numbers, as scaled values do" if negative else "fractions, as log-normalized values do"
        others = [each for each in layers if each != source.layer]
        where = "X" if source.layer is None else f"the layer {source.layer}"
        told = f"name the layer that has them (layer=, of {', '.join(others)})" if others else "give the raw counts"
        warnings.warn(
            f"{name}: {where} holds {like}, and likelihoods of counts are of raw ones: {told}, or say kind='real'",
            FitWarning,
            stacklevel=2,
        )


def beside_cells(raw: Raw, observed: Any, source: DataSource) -> Raw:
    """The rows with their labels, and with the observations that are asked for, columns of a frame, as fields."""
    wanted = list(dict.fromkeys([*([] if source.label is None else [source.label]), *source.fields]))
    if not wanted:
        return raw
    spelled = spellings(source.missing_text)
    found = {each.name: each for each in cells_of_frame(observed[wanted].reset_index(drop=True))}
    fields = {name: as_field(found[name], spelled) for name in source.fields}
    y = None if source.label is None else label_column(found[source.label], spelled)
    return raw._replace(y=y, fields={**(raw.fields or {}), **fields} if fields or raw.fields else None)
