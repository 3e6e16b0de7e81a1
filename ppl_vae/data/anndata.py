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

__all__ = ["is_anndata", "of_anndata", "put_codes", "read_h5ad"]


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
        raise ValueError(f"{path}: reading h5ad needs anndata: pip install 'ppl_vae[anndata]'") from None
    try:
        found = anndata.read_h5ad(path, backed="r")
    except Exception as error:  # of h5py, zarr and anndata, which have no common base
        raise unreadable(path, error) from None
    try:
        return of_anndata(found, source, name=str(path))
    finally:
        found.file.close()


def of_anndata(cells: Any, source: DataSource, *, name: str = "AnnData") -> Raw:
    """``X`` or a layer ``(N, D)``, its columns called as the variables; observations as labels and as fields beside x.

    Remarks on values that are no counts, unless the source says that they are none.

    Raises:
        ValueError: no such matrix or observation, or variables of one name.
    """
    from scipy.sparse import issparse

    genes, observed = [str(each) for each in cells.var_names], [str(each) for each in cells.obs.columns]
    if len(set(genes)) < len(genes):
        twice = next(each for each in genes if genes.count(each) > 1)
        raise ValueError(f"{name}: expected variables of different names, got {twice!r} twice: call var_names_make_unique()")
    for wanted in (*([] if source.label is None else [source.label]), *source.fields):
        if wanted not in observed:
            raise ValueError(f"{name}: expected observations among {', '.join(observed) or 'none'}, got {wanted!r}: name one")
    columns, matrix = chosen_columns(name, genes, source), _matrix(cells, source, name)
    if columns != genes:
        places = {gene: place for place, gene in enumerate(genes)}
        matrix = (matrix.tocsc() if issparse(matrix) else matrix)[:, [places[each] for each in columns]]
    values = matrix.data if issparse(matrix) else matrix
    _remark_unless_counts(values, source, name, list(cells.layers))
    if issparse(matrix):
        raw = of_sparse(matrix, source, names=tuple(columns))
    else:
        raw = Raw(matrix.astype(holding(matrix), copy=False), columns=tuple(columns))
    return _beside(raw, cells, source)


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
    if source.layer is not None and source.layer not in layers:
        known = ", ".join(layers) or "none"
        raise ValueError(f"{name}: expected a layer among {known}, got {source.layer!r}: name one, or none for X")
    matrix = cells.X if source.layer is None else cells.layers[source.layer]
    if matrix is None:
        raise ValueError(f"{name}: expected X, got none: name a layer ({', '.join(layers) or 'there is none'})")
    if issparse(matrix):
        return matrix
    if isinstance(matrix, np.ndarray):
        return np.asarray(matrix)
    if type(matrix).__module__.startswith("h5py"):
        require_memory(matrix.dtype.itemsize * int(np.prod(matrix.shape)), name)
        return matrix[...]
    return matrix.to_memory()


def _remark_unless_counts(values: np.ndarray, source: DataSource, name: str, layers: Sequence[str]) -> None:
    """Warn of fractions or negative numbers where counts are expected."""
    if source.kind not in (None, "count") or source.scale not in ("auto", "none") or values.dtype.kind != "f":
        return
    fractions, negative = bool((values != np.floor(values)).any()), bool((values < 0).any())
    if fractions or negative:
        like = "negative numbers, as scaled values do" if negative else "fractions, as log-normalized values do"
        others = [each for each in layers if each != source.layer]
        where = "X" if source.layer is None else f"the layer {source.layer}"
        told = f"name the layer that has them (layer=, of {', '.join(others)})" if others else "give the raw counts"
        warnings.warn(
            f"{name}: {where} holds {like}, and likelihoods of counts are of raw ones: {told}, or say kind='real'",
            FitWarning,
            stacklevel=2,
        )


def _beside(raw: Raw, cells: Any, source: DataSource) -> Raw:
    """The rows with their labels, and with the observations that are asked for as fields."""
    wanted = list(dict.fromkeys([*([] if source.label is None else [source.label]), *source.fields]))
    if not wanted:
        return raw
    spelled = spellings(source.missing_text)
    found = {each.name: each for each in cells_of_frame(cells.obs[wanted].reset_index(drop=True))}
    fields = {name: as_field(found[name], spelled) for name in source.fields}
    y = None if source.label is None else label_column(found[source.label], spelled)
    return raw._replace(y=y, fields={**(raw.fields or {}), **fields} if fields or raw.fields else None)
