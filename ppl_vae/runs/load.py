"""The way back from a run folder to the fit that it holds."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ppl_vae.data import Transform
from ppl_vae.data.fingerprint import HELD_OUT, PARTS
from ppl_vae.declaration import require
from ppl_vae.fitting import Experiment, Fit, build
from ppl_vae.fitting.described import NOISE
from ppl_vae.memory import allocating, free, require_memory
from ppl_vae.program.machine import choose_device
from ppl_vae.program.pair import Pair
from ppl_vae.runs.saved import SavedRun
from ppl_vae.storage import RunFolder
from ppl_vae.text import as_line, inside
from ppl_vae.types import Column, DataSpec, Field, FitWarning, Record

__all__ = ["load_fit", "load_run"]

AFFINE = ("loc", "scale")
SLACK = 2**28  # bytes that building may take beside some times those of the weights


def load_run(path: str | Path, *, trust: Iterable[str] = (), device: str | torch.device = "auto") -> Fit:
    """The fit that a run folder holds. Nothing in the folder is executed, nothing outside of it is read.

    What is built is bounded by the size of the weights that are there, whatever sizes the declaration names.

    Args:
        path: the folder.
        trust: modules, besides ppl_vae, whose classes the declaration may name.
        device: where the pair goes.

    Raises:
        ValueError: no run there, one that a newer ppl_vae wrote, a damaged file, a link that leads out of the folder, a
            declaration larger than the weights, or a class from a module that is not trusted.
    """
    return load_fit(SavedRun.open(path, trust=trust), device=device)


def load_fit(saved: SavedRun, *, device: str | torch.device = "auto") -> Fit:
    """The fit that an opened run holds; see :func:`load_run`."""
    folder, experiment, path = saved.folder, saved.experiment, saved.folder.path
    if not (folder.finished or folder.has(RunFolder.SNAPSHOT)):
        raise ValueError(f"{path} was broken off before a state was kept: fit it again (ppl-vae fit --resume)")
    described = folder.description()
    history = folder.history() if folder.finished else []
    at_most = _most_bytes(folder)
    try:
        spec, kept = _spec(described["spec"]), _fingerprints(described)
        with allocating(at_most, str(path)):
            state, history = (folder.weights(), history) if folder.finished else _last_state(folder)
        _check_real(state)
        transform = _transform(state, described["transform"], spec)
        pair = _pair(state, experiment, spec, at_most)
    except ValueError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise ValueError(f"{path}: {as_line(reason, most=600)}") from None
    except Warning:
        raise
    except Exception as error:  # a stranger's declaration may fail to be built in any way
        raise ValueError(f"{path} is not a whole run: {type(error).__name__} {as_line(error)}") from None
    device = choose_device(device)
    return Fit(
        pair=pair.to(device),
        model=experiment.model,
        guide=experiment.guide,
        method=experiment.method,
        data=experiment.data,
        spec=spec,
        transform=transform.to(device),
        history=history,
        fingerprints=kept,
    )


def _fingerprints(described: Mapping[str, Any]) -> dict[str, str]:
    """What tells the rows of each split from others; runs of old have that of the test rows, or without such of the others."""
    found = described.get("fingerprints")
    if found is None:
        found = {} if (lone := described.get("fingerprint")) is None else {HELD_OUT: lone}
    known = (*PARTS, HELD_OUT)
    whole = isinstance(found, dict) and all(name in known and isinstance(each, str) for name, each in found.items())
    require(whole, "fingerprints of train, valid and test rows as text", found)
    return dict(found)


def _transform(state: dict[str, Tensor], described: dict[str, Any], spec: DataSpec) -> Transform:
    """The transform of the data, whose constants are taken out of the state."""
    affine: dict[str, Any] = {name: state.pop(f"transform.{name}") for name in AFFINE}
    exact = state.pop("transform.exact", None)
    affine |= {} if exact is None else {**dict(zip(AFFINE, exact, strict=True)), "exact": True}
    flags = {name: _flag(described, name) for name in NOISE}
    return Transform(spec.event_shape, **affine, **flags, indices=spec.ragged and spec.kind.levelled)


def _pair(state: dict[str, Tensor], experiment: Experiment, spec: DataSpec, at_most: int) -> Pair:
    """The pair that the experiment declares, with the parameters of the state."""
    what = f"what {RunFolder.CONFIG} declares beside {len(state)} tensors"
    with allocating(at_most, what, tensors=1000 + 50 * len(state)):
        pair = build(experiment.model, experiment.guide, spec)
        pair.load_state_dict({name.removeprefix("pair."): value for name, value in state.items()})
    _check_numbers(pair)
    return pair


def _most_bytes(folder: RunFolder) -> int:
    """Bytes that reading and building a run may take: some times those of its weights, and no more than there are."""
    files = [inside(folder.path, name) for name in (RunFolder.WEIGHTS, RunFolder.SNAPSHOT)]
    sizes = [file.stat().st_size for file in files if file.is_file()]
    require_memory(max(sizes, default=0), str(folder.path))
    return min(free(), SLACK + 4 * sum(sizes))


def _last_state(folder: RunFolder) -> tuple[dict[str, Tensor], list[Record]]:
    """The weights of a run that is not finished as of its last state, and the history up to it, with a remark."""
    snapshot = folder.snapshot()
    assert snapshot is not None
    weights = {name: value for name, value in snapshot.tensors.items() if name.startswith(("pair.", "transform."))}
    if not weights:
        raise ValueError("this run is not finished, and its state has no weights yet: go on with ppl-vae fit --resume")
    warnings.warn(
        f"{folder.path} is not finished: this is its state after {len(snapshot.history)} iterations; "
        f"ppl-vae fit --resume {shlex.quote(str(folder.path))} goes on",
        FitWarning,
        stacklevel=4,
    )
    return weights, snapshot.history


def _spec(fields: dict[str, Any]) -> DataSpec:
    plain = _tuples(fields)
    parts = tuple(Field(**_tuples(field)) for field in plain.get("fields", ()))
    return DataSpec(**{**plain, "fields": parts, "table": tuple(Column(**_tuples(each)) for each in plain.get("table", ()))})


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def _flag(fields: dict[str, Any], name: str) -> bool:
    if not isinstance(fields[name], bool):
        raise ValueError(f"expected {name} of the transform: true or false, got {as_line(fields[name])}")
    return fields[name]


def _check_real(state: Mapping[str, Tensor]) -> None:
    if odd := [name for name, value in state.items() if value.is_complex()]:
        raise ValueError(f"expected weights that are real numbers, got complex ones in {odd[0]}: fit it again")


def _check_numbers(pair: nn.Module) -> None:
    for name, value in pair.state_dict().items():
        if value.is_floating_point() and bool(value.isnan().any()):
            raise ValueError(f"expected weights that are numbers, got NaN in {name}: fit it again")
