"""Where rows of a history are shown as a fit goes on, besides ``history.jsonl``: TensorBoard, MLflow."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from ppl_vae.deprecation import RenamedAttribute
from ppl_vae.fitting.callbacks.base import Callback, FitContext
from ppl_vae.types import Record

__all__ = ["LOGGERS", "Board", "BoardLogger", "Logger", "MLflow", "TensorBoard", "open_logger"]


class Logger(Callback):
    """Shows the rows of a history somewhere: a callback that adds nothing to them."""

    __call__ = RenamedAttribute("record")


class TensorBoard(Logger):
    """Event files, a curve a column: ``tensorboard --logdir RUN`` (extra ``track``).

    Args:
        folder: of the event files; made with the first row.

    Raises:
        ValueError: tensorboard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._writer: Any = None
        _import("tensorboard", "pip install ppl_vae[track]")

    def record(self, row: Record) -> None:
        """Add a point to each curve."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self.folder.mkdir(parents=True, exist_ok=True)
            # Of a fit that goes on, points of epochs that are fitted anew are hidden.
            self._writer = SummaryWriter(str(self.folder), purge_step=row["epoch"])
        for name, value in _scalars(row):
            self._writer.add_scalar(name, value, global_step=row["epoch"])
        self._writer.flush()

    def end(self, error: BaseException | None = None) -> None:
        """Close the file; another fit gets one of its own."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class MLflow(Logger):
    """A run of MLflow, with the declaration as its parameters and a metric a column.

    It goes where MLflow is told to: ``$MLFLOW_TRACKING_URI``, by default a store in the working directory.

    Args:
        name: of the run.
        parameters: what was declared, by name.

    Raises:
        ValueError: mlflow is not installed.
    """

    def __init__(self, name: str, parameters: Mapping[str, Any]) -> None:
        self._mlflow = _import("mlflow", "pip install mlflow")
        self._name = name
        self._parameters = dict(_flat(parameters))

    def begin(self, context: FitContext) -> None:
        """Start the run."""
        self._mlflow.start_run(run_name=self._name)
        self._mlflow.log_params(self._parameters)

    def record(self, row: Record) -> None:
        """Log the row as metrics of its epoch."""
        self._mlflow.log_metrics(dict(_scalars(row)), step=row["epoch"])

    def end(self, error: BaseException | None = None) -> None:
        """End the run, as one that failed if the fit did."""
        self._mlflow.end_run(status="FINISHED" if error is None else "FAILED")


@runtime_checkable
class Board(Protocol):
    """What loggers were until now, which is taken for one more release: a context that is called with each row."""

    def __enter__(self) -> Any: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> Any: ...

    def __call__(self, row: Record) -> Any:
        """Show a row."""


class BoardLogger(Logger):
    """A board of before as a logger.

    Args:
        board: what is entered, called and left.
    """

    def __init__(self, board: Board) -> None:
        self._board = board

    def begin(self, context: FitContext) -> None:
        """Enter it."""
        self._board.__enter__()

    def record(self, row: Record) -> None:
        """Call it."""
        self._board(row)

    def end(self, error: BaseException | None = None) -> None:
        """Leave it."""
        self._board.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)


def open_logger(name: str, folder: Path, parameters: Mapping[str, Any]) -> Logger:
    """A logger by its name.

    Args:
        name: ``tensorboard`` or ``mlflow``.
        folder: the run's.
        parameters: what was declared.

    Raises:
        ValueError: an unknown name, or what it needs is not installed.
    """
    if name not in LOGGERS:
        raise ValueError(f"unknown logger {name!r}: choose from {', '.join(LOGGERS)}")
    return LOGGERS[name](folder, parameters)


def _import(package: str, remedy: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ValueError(f"{package} is not installed: {remedy}") from None


def _scalars(row: Record) -> Iterator[tuple[str, float]]:
    """The numbers of a row; those of a list each under its place."""
    for name, value in row.items():
        if name == "epoch" or isinstance(value, str) or value is None:
            continue
        if isinstance(value, list):
            yield from ((f"{name}/{place}", float(one)) for place, one in enumerate(value))
        else:
            yield name, float(value)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested names joined by dots, as on the command line."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            inner = {**value.get("init_args", {})} if "class_path" in value else value
            if "class_path" in value:
                yield f"{prefix}{name}", str(value["class_path"]).rpartition(".")[2]
            yield from _flat(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


LOGGERS: dict[str, Callable[[Path, Mapping[str, Any]], Logger]] = {
    "tensorboard": lambda folder, parameters: TensorBoard(folder / "tensorboard"),
    "mlflow": lambda folder, parameters: MLflow(folder.name, parameters),
}
