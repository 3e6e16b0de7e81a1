"""What keeps a fit as it goes on: its state now and then, its history row by row, and the wish to stop."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, Self, TextIO

from torch import Tensor

from ppl_vae.deprecation import RenamedAttribute
from ppl_vae.storage.declared import differences
from ppl_vae.storage.folder import RunFolder, check_free
from ppl_vae.storage.lock import FolderLock
from ppl_vae.storage.signals import Interrupted, waiting
from ppl_vae.storage.snapshot import Snapshot, restoring
from ppl_vae.types import Record

__all__ = ["NULL_CHECKPOINTER", "AnyCheckpointer", "Checkpointer", "Interrupted", "NullCheckpointer"]


class AnyCheckpointer(Protocol):
    """What a method asks and tells while it fits."""

    @property
    def restored(self) -> Snapshot | None:
        """The snapshot to go on from, if there is one."""

    @property
    def folder(self) -> Path | None:
        """Where the fit is kept, if it is."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def describe(
        self,
        files: Mapping[str, str],
        metadata: Mapping[str, Any],
        declared: Mapping[str, Any],
        defaults: Iterable[str] = (),
    ) -> None:
        """Be told what the fit is.

        Args:
            files: texts to write beside the snapshot, by name.
            metadata: what must be the same when the fit goes on: its data, its device.
            declared: the declared fields that must be, by name.
            defaults: those of them that are what they are by default, which a run of before may not have.
        """

    def listening(self) -> contextlib.AbstractContextManager[None]:
        """A context in which signals wait for the end of a step."""

    def due(self) -> bool:
        """Whether a snapshot is to be kept now; asked after every step."""

    def keep(self, snapshot: Snapshot) -> None:
        """Keep a snapshot."""

    def row(self, row: Record) -> None:
        """Take note of a row of the history."""

    def finish(self, tensors: Mapping[str, Tensor], history: list[Record]) -> None:
        """Keep what came of the fit."""


class NullCheckpointer:
    """Keeps nothing, and is never asked to stop."""

    restored: Snapshot | None = None
    folder: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def describe(
        self,
        files: Mapping[str, str],
        metadata: Mapping[str, Any],
        declared: Mapping[str, Any],
        defaults: Iterable[str] = (),
    ) -> None:
        """Be told what the fit is."""

    def listening(self) -> contextlib.AbstractContextManager[None]:
        """A context in which signals act at once."""
        return contextlib.nullcontext()

    def due(self) -> bool:
        """Never."""
        return False

    def keep(self, snapshot: Snapshot) -> None:
        """Let a snapshot go."""

    def row(self, row: Record) -> None:
        """Let a row go."""

    def finish(self, tensors: Mapping[str, Tensor], history: list[Record]) -> None:
        """Let the result go."""


NULL_CHECKPOINTER = NullCheckpointer()


class Checkpointer:
    """Keeps a fit in a run folder as it goes on. Used as a context, it is the only one to write there.

    Nothing is written before the first step was taken. The lock dies with the process.

    Args:
        folder: the run folder.
        every: seconds between two states; 0 keeps one after every step.
        overwrite: replace a run that is there, once the first step was taken.
        resume: go on from the state that is there.

    Raises:
        ValueError: the folder is taken or in use, a damaged state, a run of a newer format, or an interval that is negative.
    """

    kept = RenamedAttribute("restored")
    wants = RenamedAttribute("due")

    def __init__(self, folder: str | Path, *, every: float = 60.0, overwrite: bool = False, resume: bool = False) -> None:
        if not every >= 0:
            raise ValueError(f"expected a state to be kept every so many seconds, at least 0, got {every}")
        self.folder: Path = Path(folder) if resume else check_free(folder, overwrite=overwrite)
        self.run = RunFolder(self.folder)
        self.every = every
        self.overwrite = overwrite
        self.resume = resume
        self.restored: Snapshot | None = None
        self.asked: int | None = None
        self._files: dict[str, str] = {}
        self._metadata: dict[str, Any] = {}
        self._begun = False
        self._last = time.monotonic()
        self._lock: FolderLock | None = None
        self._history: TextIO | None = None

    def __enter__(self) -> Self:
        self._lock = FolderLock(self.folder)
        try:
            self._restore()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        assert self._lock is not None
        if self._history is not None:
            with contextlib.suppress(OSError):  # what a full disk did not take is tried again, after it was told
                self._history.close()
        with contextlib.suppress(OSError):
            self._lock.check()
            self.folder.rmdir()  # only if nothing was written
        self._lock.release()

    def _restore(self) -> None:
        """Read the state to go on from; or see that the folder is still free, now that nobody else can begin there."""
        if not self.resume:
            check_free(self.folder, overwrite=self.overwrite)
            return
        self.run.identity()
        self.restored = self.run.snapshot()
        if self.restored is None and (self.folder / RunFolder.WEIGHTS).exists():
            raise ValueError(
                f"{self.folder} is finished, and keeps no state to go on from: fit again (--overwrite) or to another folder"
            )

    def describe(
        self,
        files: Mapping[str, str],
        metadata: Mapping[str, Any],
        declared: Mapping[str, Any],
        defaults: Iterable[str] = (),
    ) -> None:
        """Be told what the fit is.

        Args:
            files: texts to write beside the state, by name.
            metadata: what must be the same when the fit goes on: its data, its device.
            declared: the declared fields that must be, by name; the folder's own text may have been changed meanwhile.
            defaults: those of them that are what they are by default, which a run of before may not have.

        Raises:
            ValueError: the kept state is of other data, of another kind of device, or of another declaration.
        """
        self._files, self._metadata = dict(files), {**metadata, "declared": dict(declared)}
        before = self.restored.metadata if self.restored else self._metadata
        with restoring(self.restored):
            differ = differences(before.get("declared", declared), declared, defaults)
        if differ:
            raise ValueError(
                f"{self.folder} goes on only as it was begun ({differ}): declare that again, or fit to another folder"
            )
        if isinstance(before.get("data"), str) and before["data"] != metadata.get("data"):
            was, now = (fields.get("data.source") for fields in (before.get("declared", {}), declared))
            told = "" if was == now else f" ({was}, now {now})"
            raise ValueError(
                f"{self.folder} was begun with other data{told}: a value, the number or the order of its rows has changed, so "
                "that it cannot go on to the same numbers; resume it with the data that it had, or fit to another folder"
            )
        for name, value in metadata.items():
            if before.get(name) != value:
                raise ValueError(
                    f"{self.folder} was begun with another {name} ({before.get(name)}, now {value}), so it cannot go on to the "
                    f"same numbers: resume it with the same {name}, or fit to another folder"
                )

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """SIGTERM and SIGINT wait for the end of a step; a second one acts at once."""
        with waiting(self._ask):
            yield
            if self.asked:
                raise Interrupted(self.folder, self.asked)

    def _ask(self, number: int) -> None:
        self.asked = number

    def due(self) -> bool:
        """Whether a state is to be kept now; asked after every step."""
        if not self._begun:
            self._begin()
        return self.asked is not None or time.monotonic() - self._last >= self.every

    def keep(self, snapshot: Snapshot) -> None:
        """Put a state in the place of the last.

        Raises:
            OSError: it cannot be written; the last one is untouched. Or the folder is no longer the one that was begun.
            Interrupted: a signal asked to stop.
        """
        self._check_there()
        self.run.write_snapshot(snapshot._replace(metadata=snapshot.metadata | self._metadata))
        self._last = time.monotonic()
        if self.asked:
            raise Interrupted(self.folder, self.asked)

    def row(self, row: Record) -> None:
        """Add a row to the history that lies in the folder."""
        if not self._begun:
            self._begin()
        assert self._history is not None
        try:
            self._history.write(json.dumps(row) + "\n")
            self._history.flush()
        except OSError as error:
            raise OSError(
                f"{self.folder / RunFolder.HISTORY} could not be written ({error.strerror}); the last state that was kept is "
                "untouched: make room, and go on with ppl-vae fit --resume"
            ) from error

    def finish(self, tensors: Mapping[str, Tensor], history: list[Record]) -> None:
        """Write the weights, and the history that belongs to them."""
        if not self._begun:  # nothing was left to do, but the declaration may be spelled otherwise than it was
            self._begin()
        self._check_there()
        self.run.finish(tensors, history)

    def _check_there(self) -> None:
        """Raise ``OSError`` if another folder, or none, lies where the locked one did."""
        assert self._lock is not None
        self._lock.check()

    def _begin(self) -> None:
        self._begun = True
        self._check_there()
        self.run.begin(self._files, self.restored.history if self.restored else (), resume=self.resume)
        self._history = self.run.open_history()
