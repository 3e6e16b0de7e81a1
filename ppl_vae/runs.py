"""Run folders: what a fit leaves on disk, and the way back. Text, safetensors and pictures; nothing that executes.

========================  ============================================================
``config.yaml``           the whole declaration; ``ppl-vae fit --config`` runs it again
``data.json``             what the data look like, so the pair is rebuilt without them
``model.safetensors``     parameters of model and guide, constants of the transform
``history.jsonl``         a line per iteration, added as it is known
``training.safetensors``  the state of training, from which :func:`resume_run` goes on
``metrics.json``          ELBO, reconstruction and KL of each split
``evaluation.json``       what ``ppl-vae evaluate --save`` found last
``environment.json``      versions, device, threads
``postmortem/``           why training did not stay finite, if it did not
``*.png``                 the pictures
========================  ============================================================
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import platform
import shlex
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file
from torch import Tensor, nn

from ppl_vae import plots
from ppl_vae.arguments import as_path, names
from ppl_vae.data import Data, DataSource, Split, Transform, load_data
from ppl_vae.declaration import Declaration
from ppl_vae.evaluate import evaluating
from ppl_vae.evaluate.metrics import UNIT
from ppl_vae.guides import Guide
from ppl_vae.inference import Comparison, Fit, Method, build
from ppl_vae.inference.boards import Board
from ppl_vae.inference.fit import watched
from ppl_vae.inference.fitted import NOISE, describe, weights
from ppl_vae.inference.keeper import STATE, Keeper, check_free, held
from ppl_vae.inference.machine import choose_device
from ppl_vae.inference.method import Remark, Row
from ppl_vae.inference.progress import Progress
from ppl_vae.inference.same import differences, fixed
from ppl_vae.inference.state import beside, read_state, replaced, sync, write_tensors
from ppl_vae.memory import allocating, free, require_memory
from ppl_vae.models import Model
from ppl_vae.pair import seeded
from ppl_vae.text import MOST_TEXT, as_line, from_json, from_yaml, inside, read_text
from ppl_vae.types import DataSpec

__all__ = [
    "EVALUATION",
    "check_declared",
    "check_free",
    "check_unchanged",
    "load_run",
    "measure",
    "resume_run",
    "save_comparison",
    "save_evaluation",
    "save_run",
]

PARTS: dict[str, type[Declaration]] = {"model": Model, "guide": Guide, "method": Method, "data": DataSource}
EVALUATION = "evaluation.json"
AFFINE = ("loc", "scale")
MOST_HISTORY = 2**28  # bytes
SLACK = 2**28  # bytes that building may take beside some times those of the weights
MOST_CLASSES = 20  # in one picture
PICTURED = 2000  # data in the scatter of codes; more only cover each other


def save_run(
    fit: Fit, data: Data, path: str | Path, *, metrics: Mapping[str, Any] | None = None, overwrite: bool = False
) -> Path:
    """Write a fit into a new run folder; it appears whole or not at all.

    A folder that ``fit(..., out=path)`` wrote gets what it has not: pictures and metrics.

    Args:
        fit: what :func:`ppl_vae.fit` returned, of a declared model.
        data: the data it was fitted to, for the pictures and the metrics.
        path: the folder.
        metrics: what :func:`measure` gave, if it was called already.
        overwrite: replace a run that is there.

    Raises:
        ValueError: the folder is taken, or the fit is of plain Pyro programs, which no YAML can name.
    """
    path = as_path(path)
    begun = _holds(path, fit)
    if not begun:
        check_free(path, overwrite=overwrite)
    if not isinstance(fit.model, Model):
        raise ValueError("a fit of plain Pyro programs has no declaration to save: keep fit.pair.state_dict() yourself")
    data = fit.model.resolve(data).to(fit.device)
    replace = partial(_add, fit=fit) if begun else partial(_replace, overwrite=overwrite)
    with _whole(path, replace) as folder:
        if not begun:
            for name, text in describe(fit, data).items():
                (folder / name).write_text(text, encoding="utf-8")
            write_tensors(weights(fit), folder / "model.safetensors")
            with (folder / "history.jsonl").open("w", encoding="utf-8") as history:
                history.writelines(json.dumps(row) + "\n" for row in fit.history)
        _write_json(folder / "metrics.json", metrics or measure(fit, data))
        _write_json(folder / "environment.json", _environment(fit.device))
        for name, figure in _pictures(fit, data):
            plots.save(figure, folder / f"{name}.png")
    return path


def save_comparison(comparison: Comparison, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write ``comparison.json``, ``comparison.md`` and ``comparison.png`` into a new folder; it appears whole or not at all.

    The JSON file holds besides the table the declared model and data and every way up (``climbs``).

    Args:
        comparison: what :func:`ppl_vae.compare` returned.
        path: the folder.
        overwrite: replace a comparison that is there.

    Raises:
        ValueError: the folder is taken.
    """
    check_free(path, overwrite=overwrite, kind="comparison")
    model, source = comparison.model, comparison.data.source
    told = model.to_dict() if isinstance(model, Model) else str(model)
    content = {**comparison.to_dict(), "model": told, "data": source.to_dict(), "climbs": comparison.climbs}
    title = f"{model}\n\n{len(comparison.data.train)} data of `{source.source}`; {UNIT}; times in seconds."
    return write_comparison(path, content, f"{title}\n\n{comparison}\n", plots.compare(comparison), overwrite=overwrite)


def write_comparison(
    path: str | Path, content: Mapping[str, Any], text: str, figure: Figure, *, overwrite: bool = False
) -> Path:
    """Write what any comparison comes to into a new folder: plain values, Markdown and a picture.

    Raises:
        ValueError: the folder is taken.
    """
    path = check_free(path, overwrite=overwrite, kind="comparison")
    with _whole(path, partial(_replace, overwrite=overwrite, kind="comparison")) as folder:
        _write_json(folder / "comparison.json", content)
        (folder / "comparison.md").write_text(text, encoding="utf-8")
        plots.save(figure, folder / "comparison.png")
    return path


def save_evaluation(path: str | Path, content: Mapping[str, Any]) -> None:
    """Keep what was found about a run in its ``evaluation.json``, in place of what was found before."""
    with replaced(Path(path) / EVALUATION) as new:
        _write_json(new, content)


def load_run(path: str | Path, *, trust: Iterable[str] = (), device: str | torch.device = "auto") -> Fit:
    """The fit that a run folder holds. Nothing in the folder is executed, nothing outside of it is read.

    What is built is bounded by the size of the weights that are there, whatever sizes the declaration names.

    Args:
        path: the folder.
        trust: modules, besides ppl_vae, whose classes the declaration may name.
        device: where the pair goes.

    Raises:
        ValueError: no run there, a damaged file, a link that leads out of the folder, a declaration larger than the weights, or
            a class from a module that is not trusted.
    """
    path, trust = as_path(path), names("trust", trust)
    declared = check_declared(path, trust=trust)
    described = _read(path, "data.json", from_json)
    finished = (path / "model.safetensors").is_file()
    begun = (path / STATE).is_file() and not finished
    if not (finished or begun):
        raise ValueError(f"{path} was broken off before a state was kept: fit it again (ppl-vae fit --resume)")
    history = [] if begun else _read(path, "history.jsonl", _history, at_most=MOST_HISTORY)
    at_most = _room(path)
    try:
        spec = _spec(described["spec"])
        with allocating(at_most, str(path)):
            state, history = _last(path) if begun else (load_file(inside(path, "model.safetensors")), history)
        _refuse_complex(state)
        affine: dict[str, Any] = {name: state.pop(f"transform.{name}") for name in AFFINE}
        exact = state.pop("transform.exact", None)
        affine |= {} if exact is None else {**dict(zip(AFFINE, exact, strict=True)), "exact": True}
        transform = Transform(spec.event_shape, **affine, **{name: _flag(described["transform"], name) for name in NOISE})
        with allocating(at_most, f"what config.yaml declares beside {len(state)} tensors", tensors=1000 + 50 * len(state)):
            pair = build(declared["model"], declared["guide"], spec)
            pair.load_state_dict({name.removeprefix("pair."): value for name, value in state.items()})
        _refuse_missing(pair)
    except ValueError as error:
        told = str(error).removeprefix(f"{path}: ")
        raise ValueError(f"{path}: {as_line(told, most=600)}") from None
    except Warning:
        raise
    except Exception as error:  # a stranger's declaration may fail to be built in any way
        raise ValueError(f"{path} is not a whole run: {type(error).__name__} {as_line(error)}") from None
    fit = Fit(pair=pair, spec=spec, transform=transform, history=history, **declared)
    device = choose_device(device)
    fit.pair.to(device)
    fit.transform.to(device)
    return fit


def resume_run(
    path: str | Path,
    *,
    method: Method | None = None,
    data: Data | DataSource | str | None = None,
    every: float = 60.0,
    trust: Iterable[str] = (),
    device: str | torch.device = "auto",
    progress: Progress | None = None,
    track: Sequence[str] = (),
    boards: Sequence[Board] = (),
) -> Fit:
    """Go on with a fit from the last state that its run folder has, to the same bits as if it had never been stopped.

    A run that is finished goes on too if ``method`` says that it is to be longer; its learning rate is then that of the longer
    schedule from here on.

    Args:
        path: the folder that ``fit(..., out=path)`` or ``ppl-vae fit --out`` began.
        method: the same method, or a longer one (more ``epochs`` or ``max_iterations``).
        data: the same data; needed where they were given in memory.
        every: seconds between two states that are kept.
        trust: modules, besides ppl_vae, whose classes the declaration may name.
        device: where; of the same kind as before.
        progress: called with each new row of the history.
        track: numbers that each new row gets besides, as for :func:`~ppl_vae.fit`.
        boards: show the new rows as well.

    Raises:
        ValueError: no run there, one that another process writes, a method that cannot be resumed, a declaration that is not
            the same, other data.
    """
    path, trust = as_path(path), names("trust", trust)
    declared = check_declared(path, trust=trust)
    method = method or declared["method"]
    loaded = declared["model"].resolve(load_data(declared["data"] if data is None else data))
    check_unchanged(path, {**declared, "method": method, "data": loaded.source}, trust=trust)
    return watched(
        declared["model"],
        loaded,
        guide=declared["guide"],
        method=method,
        device=device,
        progress=progress,
        keeper=Keeper(path, every=every, resume=True),
        track=track,
        boards=boards,
    )


def check_unchanged(path: str | Path, declared: Mapping[str, Declaration], *, trust: Iterable[str] = ()) -> None:
    """Raise ``ValueError`` if a run cannot go on as these declarations say; the message shows what differs."""
    before = check_declared(path, trust=trust)
    kind, length = type(before["method"]).__name__, before["method"].length
    if length is None:
        raise ValueError(f"{path}: {kind} keeps no state to go on from: fit again with --overwrite, or to another folder")
    if shown := differences(fixed(before), fixed(declared)):
        raise ValueError(f"{path} goes on only as it was declared ({shown}): leave that away, or fit to another folder")
    taken, asked = getattr(before["method"], length), getattr(declared["method"], length)
    if asked < taken:
        raise ValueError(f"{path} was declared with {length} = {taken}, got {asked}: resume it with at least as many")


def check_declared(path: str | Path, *, trust: Iterable[str] = ()) -> dict[str, Any]:
    """What a run folder says that was fitted.

    Raises:
        ValueError: no run there, or a class from a module that is not trusted.
    """
    path = Path(path)
    if not (path / "config.yaml").is_file():
        raise ValueError(f"there is no run in {path}: expected a folder with config.yaml, as `ppl-vae fit --out` writes it")
    parts = _read(path, "config.yaml", from_yaml)
    try:
        return {name: base.from_dict(parts[name], trust=trust) for name, base in PARTS.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {as_line(error, most=600)}") from None


def _room(path: Path) -> int:
    """Bytes that reading and building a run may take: some times those of its weights, and no more than there are."""
    files = [inside(path, name) for name in ("model.safetensors", STATE)]
    sizes = [file.stat().st_size for file in files if file.is_file()]
    require_memory(max(sizes, default=0), str(path))
    return min(free(), SLACK + 4 * sum(sizes))


def _spec(fields: dict[str, Any]) -> DataSpec:
    plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return DataSpec(**plain)


def _flag(fields: dict[str, Any], name: str) -> bool:
    if not isinstance(fields[name], bool):
        raise ValueError(f"expected {name} of the transform: true or false, got {as_line(fields[name])}")
    return fields[name]


def _refuse_complex(state: Mapping[str, Tensor]) -> None:
    if odd := [name for name, value in state.items() if value.is_complex()]:
        raise ValueError(f"expected weights that are real numbers, got complex ones in {odd[0]}: fit it again")


def _refuse_missing(pair: nn.Module) -> None:
    for name, value in pair.state_dict().items():
        if value.is_floating_point() and bool(value.isnan().any()):
            raise ValueError(f"expected weights that are numbers, got NaN in {name}: fit it again")


def _last(path: Path) -> tuple[dict[str, Tensor], list[Row]]:
    """The weights of a run that is not finished as of its last state, and the history up to it, with a remark."""
    state = read_state(path / STATE)
    named = {name: value for name, value in state.tensors.items() if name.startswith(("pair.", "transform."))}
    if not named:
        raise ValueError("this run is not finished, and its state has no weights yet: go on with ppl-vae fit --resume")
    warnings.warn(
        f"{path} is not finished: this is its state after {len(state.history)} iterations; "
        f"ppl-vae fit --resume {shlex.quote(str(path))} goes on",
        Remark,
        stacklevel=3,
    )
    return named, state.history


def measure(fit: Fit, data: Data, *, samples: int = 1) -> dict[str, Any]:
    """What ``metrics.json`` holds: each held-out split's numbers, their unit, and what the fit cost."""
    splits = {name: split for name, split in (("valid", data.valid), ("test", data.test)) if len(split)}
    return {
        **{name: fit.evaluate(split, samples=samples) for name, split in splits.items()},
        "unit": UNIT,
        **({} if fit.without_latents is None else {"without_latents": fit.without_latents}),
        "iterations": len(fit.history),
        "seconds": fit.history[-1]["seconds"],
    }


def _holds(path: Path, fit: Fit) -> bool:
    """Whether a folder was written by this very fit as it went on."""
    going_on = (path / STATE).is_file() or not (path / "metrics.json").is_file()  # methods that end at once keep no state
    if not (isinstance(fit.model, Model) and going_on and (path / "model.safetensors").is_file()):
        return False
    same = (path / "config.yaml").read_text(encoding="utf-8") == describe(fit)["config.yaml"]
    kept, ours = load_file(path / "model.safetensors") if same else {}, weights(fit)
    return kept.keys() == ours.keys() and all(torch.equal(value.cpu(), kept[name]) for name, value in ours.items())


@contextlib.contextmanager
def _whole(path: Path, replace: Callable[[Path, Path], None]) -> Iterator[Path]:
    """A folder to fill, which is given to ``replace`` once it lies on the disk, or vanishes if something goes wrong."""
    folder = beside(path, "partial")
    folder.mkdir(parents=True)
    try:
        yield folder
        for file in (*folder.iterdir(), folder):
            sync(file)
        with held(path):
            replace(folder, path)
    except _BothThereError:
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


class _BothThereError(OSError):
    """Neither a run nor what was to replace it lies in its place, and both must stay."""


def _replace(new: Path, path: Path, *, overwrite: bool, kind: Literal["run", "comparison"] = "run") -> None:
    """Put a folder in the place of another, which is put back if that fails; somebody may have come first meanwhile."""
    check_free(path, overwrite=overwrite, kind=kind)
    old = beside(path, "old")
    try:
        if path.exists():
            path.rename(old)
        new.rename(path)
        sync(path.parent)
    except BaseException as error:
        if old.exists():
            _put_back(old, path, new, error)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _put_back(old: Path, path: Path, new: Path, error: BaseException) -> None:
    try:
        old.rename(path)
    except OSError:
        told = f"{path} could not be replaced ({as_line(error)}): it lies in {old}, the new one in {new}"
        raise _BothThereError(told) from error


def _add(new: Path, path: Path, *, fit: Fit) -> None:
    """Put the files of a folder into another that holds the same fit, ``metrics.json`` last: a run that has it is finished."""
    if not _holds(path, fit):
        raise ValueError(f"{path} no longer holds this fit, another went on there: save it to another folder")
    for file in sorted(new.iterdir(), key=lambda file: file.name == "metrics.json"):
        file.replace(path / file.name)
    new.rmdir()


def _pictures(fit: Fit, data: Data) -> Iterator[tuple[str, Figure]]:
    kind = fit.spec.kind
    shown = next((split for split in (data.test, data.valid) if len(split)), data.train)
    rows = shown[:40].fixed(torch.Generator().manual_seed(0))
    x = fit.seen(rows)
    # Fitting asks a program for its sites only, pictures for more.
    decodes, encodes = hasattr(fit.pair.model, "decode"), hasattr(fit.pair.guide, "posterior")
    yield "data", plots.grid(x, kind=kind, title="data")
    if decodes and encodes:
        yield "reconstructions", plots.comparison(x, fit.reconstruct(rows, seen=True), kind=kind)
    if decodes and hasattr(fit.pair.model, "prior"):
        yield _sampled(fit, rows[:10])
    yield "learning_curve", plots.learning_curve(fit.history)
    if (tracked := plots.tracked(fit.history)) is not None:
        yield "tracked", tracked
    if encodes:
        yield from _encoded(fit, shown)


def _encoded(fit: Fit, shown: Split) -> Iterator[tuple[str, Figure]]:
    """The codes, their aggregate beside the prior, and what is decoded from a plane of them."""
    codes = shown[:PICTURED]
    latent = fit.encode(codes)
    latent = latent.reshape(len(latent), -1)
    if latent.shape[1] >= 2:
        yield "latent", plots.latent_scatter(latent, codes.y, fit.spec.classes)
    if getattr(fit.pair.model, "latent", None) == "continuous" and not hasattr(fit.pair.model, "condition"):
        yield "aggregate", _aggregate(fit, codes)
    plane = latent.shape[1] == 2 and len(fit.spec.event_shape) > 1
    if plane and hasattr(fit.pair.model, "decode") and not hasattr(fit.pair.model, "condition"):
        yield "manifold", plots.manifold(fit.decode(plots.quantile_grid(20), seen=True), kind=fit.spec.kind)


def _aggregate(fit: Fit, rows: Split) -> Figure:
    """A draw from the posterior of each row, against as many from the prior."""
    with evaluating(fit.pair), seeded(0, fit.device):
        prior = fit.pair.model.prior().sample((PICTURED,))
    return plots.aggregate(fit.encode(rows, samples=1)[0].flatten(1), prior.flatten(1))


def _sampled(fit: Fit, rows: Split) -> tuple[str, Figure]:
    """New data from the prior; of each class, or completed from what is known of the rows, as the model is conditioned.

    Means in place of draws where they are images: a draw of each pixel would hide them.
    """
    kind, known = fit.spec.kind, getattr(fit.pair.model, "known_entries", None)
    means = len(fit.spec.event_shape) > 1
    shown: dict[str, Any] = {"means": means, "seen": True}
    what = "means of new data" if means else "draws"
    if getattr(fit.pair.model, "labelled", False):
        classes = fit.spec.classes[:MOST_CLASSES]
        title = f"{what}; a row: one z; a column: one class"
        return "samples", plots.by_class(fit.by_class(8, **shown)[:, : len(classes)], classes, kind=kind, title=title)
    if known is not None:
        samples = torch.stack([fit.sample(len(rows), x=rows, seed=seed, **shown) for seed in range(4)])
        title = f"completions: {'means' if means else 'draws'} given z"
        return "completions", plots.completions(fit.seen(rows), known, samples, kind=kind, title=title)
    source = getattr(fit.pair.model, "drawn_from", "the prior")
    return "samples", plots.grid(fit.sample(64, **shown), kind=kind, title=f"{what} from {source}")


def _environment(device: torch.device) -> dict[str, Any]:
    packages = ("ppl_vae", "torch", "pyro-ppl", "numpy", "safetensors", "jsonargparse")
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "versions": {name: _version(name) for name in packages},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _history(text: str) -> list[Row]:
    rows = [from_json(line) for line in text.splitlines()]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected a line for each iteration, with its numbers by name")
    return rows


def _read(folder: Path, name: str, parse: Callable[[str], Any], *, at_most: int = MOST_TEXT) -> Any:
    path = inside(folder, name)
    text = read_text(path, at_most=at_most)
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {as_line(error)}") from None


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
