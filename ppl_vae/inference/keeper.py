"""A run folder while a fit goes on: the lock, the state that is kept, the history as it grows, and the wish to stop."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Self, TextIO

from torch import Tensor

from ppl_vae.inference.method import Row
from ppl_vae.inference.same import differences
from ppl_vae.inference.signals import ending_at_second
from ppl_vae.inference.state import State, read_state, replaced, taking_over, write_state, write_tensors

__all__ = ["NOWHERE", "STATE", "Interrupted", "Keeper", "Nowhere", "check_free", "held"]

STATE = "training.safetensors"
FINISHED = ("model.safetensors", "metrics.json")
SIGNATURES = {  # the files that tell a folder of ours from another
    "run": ("config.yaml", "data.json", "history.jsonl"),
    "comparison": ("comparison.json", "comparison.md", "comparison.png"),
}


class Interrupted(KeyboardInterrupt):
    """A signal ended the fit after a whole step, and its state was kept.

    Args:
        folder: where.
        number: of the signal.

    Attributes:
        code: the exit status that shells expect.
    """

    def __init__(self, folder: Path, number: int) -> None:
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name}; the state is kept, go on with: ppl-vae fit --resume {shlex.quote(str(folder))}")
        self.code = 128 + number


class Nowhere:
    """Keeps nothing, and is never asked to stop."""

    kept: State | None = None
    folder: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def describe(self, files: Mapping[str, str], facts: Mapping[str, Any], declared: Mapping[str, Any]) -> None:
        """Be told what the fit is."""

    def listening(self) -> contextlib.AbstractContextManager:
        """A context in which signals wait for the end of a step."""
        return contextlib.nullcontext()

    def wants(self) -> bool:
        """Whether a state is to be kept now."""
        return False

    def keep(self, state: State) -> None:
        """Keep a state."""

    def row(self, row: Row) -> None:
        """Take note of a row of the history."""

    def finish(self, tensors: Mapping[str, Tensor], history: list[Row]) -> None:
        """Keep what came of the fit."""


NOWHERE = Nowhere()


class Keeper(Nowhere):
    """Keeps a fit in a run folder as it goes on. Used as a context, it is the only one to write there.

    Nothing is written before the first step was taken. The lock dies with the process.

    Args:
        folder: the run folder.
        every: seconds between two states; 0 keeps one after every step.
        overwrite: replace a run that is there, once the first step was taken.
        resume: go on from the state that is there.

    Raises:
        ValueError: the folder is taken or in use, a damaged state, or an interval that is negative.
    """

    def __init__(self, folder: str | Path, *, every: float = 60.0, overwrite: bool = False, resume: bool = False) -> None:
        if not every >= 0:
            raise ValueError(f"expected a state to be kept every so many seconds, at least 0, got {every}")
        self.folder: Path = Path(folder) if resume else check_free(folder, overwrite=overwrite)
        self.every = every
        self.overwrite = overwrite
        self.resume = resume
        self.asked: int | None = None
        self._files: dict[str, str] = {}
        self._facts: dict[str, Any] = {}
        self._begun = False
        self._last = time.monotonic()
        self._lock = -1
        self._history: TextIO | None = None

    def __enter__(self) -> Self:
        self._lock = _made(self.folder)
        try:
            self._look()
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if self._history is not None:
            with contextlib.suppress(OSError):  # what a full disk did not take is tried again, after it was told
                self._history.close()
        with contextlib.suppress(OSError):
            self._check_there()
            self.folder.rmdir()  # only if nothing was written
        os.close(self._lock)

    def _look(self) -> None:
        """Read the state to go on from; or see that the folder is still free, now that nobody else can begin there."""
        if not self.resume:
            check_free(self.folder, overwrite=self.overwrite)
        elif (self.folder / STATE).exists():
            self.kept = read_state(self.folder / STATE)
        elif (self.folder / FINISHED[0]).exists():
            raise ValueError(
                f"{self.folder} is finished, and keeps no state to go on from: fit again (--overwrite) or to another folder"
            )

    def describe(self, files: Mapping[str, str], facts: Mapping[str, Any], declared: Mapping[str, Any]) -> None:
        """Be told what the fit is.

        Args:
            files: texts to write beside the state, by name.
            facts: what must be the same when the fit goes on: its data, its device.
            declared: the declared fields that must be, by name; the folder's own text may have been changed meanwhile.

        Raises:
            ValueError: the kept state is of other data, of another kind of device, or of another declaration.
        """
        self._files, self._facts = dict(files), {**facts, "declared": dict(declared)}
        kept = self.kept.facts if self.kept else self._facts
        with taking_over(self.kept):
            differ = differences(kept.get("declared", declared), declared)
        if differ:
            raise ValueError(
                f"{self.folder} goes on only as it was begun ({differ}): declare that again, or fit to another folder"
            )
        for name, value in facts.items():
            before = kept.get(name)
            if before != value:
                raise ValueError(
                    f"{self.folder} was begun with another {name} ({before}, now {value}), so it cannot go on to the same "
                    f"numbers: resume it with the same {name}, or fit to another folder"
                )

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """SIGTERM and SIGINT wait for the end of a step; a second one acts at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def ask(number: int, frame: FrameType | None) -> None:
            self.asked = number
            restore()

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        for number in before:
            signal.signal(number, ask)
        try:
            with ending_at_second(list(before)):
                yield
            if self.asked:
                raise Interrupted(self.folder, self.asked)
        finally:
            restore()

    def wants(self) -> bool:
        """Whether a state is to be kept now; asked after every step."""
        if not self._begun:
            self._begin()
        return self.asked is not None or time.monotonic() - self._last >= self.every

    def keep(self, state: State) -> None:
        """Put a state in the place of the last.

        Raises:
            OSError: it cannot be written; the last one is untouched. Or the folder is no longer the one that was begun.
            Interrupted: a signal asked to stop.
        """
        self._check_there()
        write_state(state._replace(facts=state.facts | self._facts), self.folder / STATE)
        for name in FINISHED:  # of a fit that was shorter
            (self.folder / name).unlink(missing_ok=True)
        self._last = time.monotonic()
        if self.asked:
            raise Interrupted(self.folder, self.asked)

    def row(self, row: Row) -> None:
        """Add a row to ``history.jsonl``."""
        if not self._begun:
            self._begin()
        assert self._history is not None
        try:
            self._history.write(json.dumps(row) + "\n")
            self._history.flush()
        except OSError as error:
            raise OSError(
                f"{self.folder / 'history.jsonl'} could not be written ({error.strerror}); the last state that was kept is "
                "untouched: make room, and go on with ppl-vae fit --resume"
            ) from error

    def finish(self, tensors: Mapping[str, Tensor], history: list[Row]) -> None:
        """Write ``model.safetensors``, and the history that belongs to it."""
        self._check_there()
        self._write("history.jsonl", _lines(history))
        write_tensors(tensors, self.folder / "model.safetensors")

    def _check_there(self) -> None:
        """Raise ``OSError`` if another folder, or none, lies where the locked one did: nobody would find what is written."""
        if not _is_locked(self.folder, self._lock):
            raise OSError(f"{self.folder} was replaced or removed while a fit wrote it: fit again, to another folder")

    def _begin(self) -> None:
        """Write what is known before the end; a run that may be replaced goes now.

        Whenever the process dies the folder is still known as a run, or as one that was hardly begun; one that goes on is not
        finished from now on, because its weights would be taken for those of the longer fit.
        """
        self._begun = True
        self._check_there()
        for path in self.folder.iterdir():
            if _partial(path) or (path.name in FINISHED if self.resume else path.name not in SIGNATURES["run"]):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        self._write("history.jsonl", _lines(self.kept.history if self.kept else []))
        for name, text in reversed(self._files.items()):
            self._write(name, text)
        self._history = (self.folder / "history.jsonl").open("a", encoding="utf-8")

    def _write(self, name: str, text: str) -> None:
        with replaced(self.folder / name) as partial:
            partial.write_text(text, encoding="utf-8")


def check_free(path: str | Path, *, overwrite: bool, kind: Literal["run", "comparison"] = "run") -> Path:
    """The path, if a folder of that kind may be written there.

    Raises:
        ValueError: something is there that may not be replaced.
    """
    path = Path(path)
    in_the_way = next((parent for parent in path.absolute().parents if parent.is_file()), None)
    if in_the_way is not None:
        raise ValueError(f"{path} cannot be a folder, because {in_the_way} is a file: choose another folder")
    if not path.exists() or (path.is_dir() and _hardly_begun(path)):
        return path
    if not all((path / name).is_file() for name in SIGNATURES[kind]):
        raise ValueError(f"{path} exists and is not a {kind}: choose another folder")
    if not overwrite:
        on = ", go on with it (--resume)" if (path / STATE).exists() else ""
        raise ValueError(f"{path} already holds a {kind}: choose another folder, or overwrite it (--overwrite){on}")
    return path


def _hardly_begun(folder: Path) -> bool:
    """Whether a folder is empty, or a fit died while it wrote its first files or because of its first step."""
    names = {path.name for path in folder.iterdir() if not (_partial(path) or _postmortem(path))}
    history = folder / "history.jsonl"
    return not names or (names <= {"data.json", "history.jsonl"} and history.is_file() and history.stat().st_size == 0)


def _partial(path: Path) -> bool:
    """Whether a file was being written when its process died."""
    return path.name.startswith(".") and ".partial-" in path.name


def _postmortem(path: Path) -> bool:
    """Whether this is what a fit left that did not stay finite."""
    ours = path.name == "postmortem" and path.is_dir() and not path.is_symlink()
    return ours and all(file.match("epoch-*-step-*.*") or _partial(file) for file in path.iterdir())


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """A context in which nobody else fits to a folder, if it is there.

    Raises:
        ValueError: somebody does.
    """
    if not folder.is_dir():
        yield
        return
    descriptor = _locked(folder)
    try:
        yield
    finally:
        os.close(descriptor)


def _made(folder: Path) -> int:
    """The lock of a folder that is made if it is not there; one that another fit removes meanwhile is made again."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = _locked(folder)
        except OSError as error:
            raise OSError(f"{folder} cannot be made: {error.strerror}; choose another folder") from None
        if _is_locked(folder, descriptor):
            return descriptor
        os.close(descriptor)


def _is_locked(folder: Path, descriptor: int) -> bool:
    """Whether a lock is that of the folder which lies there now; where there are no locks, whether any does."""
    try:
        return os.name == "nt" or os.path.samestat(folder.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _locked(folder: Path) -> int:
    """An open descriptor of the folder that holds its lock until it is closed, by its process's death at the latest."""
    if os.name == "nt":
        return os.open(os.devnull, os.O_RDONLY)
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ValueError(f"another process fits to {folder}: wait for its end, or choose another folder") from None
    return descriptor


def _lines(history: list[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in history)
