"""The format of a run folder: which files there are, what they hold, and which version of the format they have.

========================  ============================================================
``run.json``              the version of this format, and the run's id
``config.yaml``           the whole declaration; ``ppl-vae fit --config`` runs it again
``data.json``             what the data look like, so the pair is rebuilt without them
``model.safetensors``     parameters of model and guide, constants of the transform
``history.jsonl``         a line per iteration, added as it is known
``training.safetensors``  the state of training, from which a fit goes on
``metrics.json``          ELBO, reconstruction and KL of each split
``evaluation.json``       what ``ppl-vae evaluate --save`` found last
``environment.json``      versions, device, threads
``postmortem/``           why training did not stay finite, if it did not
``*.png``                 the pictures
========================  ============================================================

Text, safetensors and pictures; nothing that executes.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO, TypeVar

import yaml

from ppl_vae.storage.atomic import write_json, write_tensors, write_text
from ppl_vae.text import MIB, MOST_TEXT, as_line, from_json, from_yaml, inside, read_text
from ppl_vae.types import Record, Score

if TYPE_CHECKING:
    from torch import Tensor

    from ppl_vae.storage.snapshot import Snapshot

__all__ = ["COMPARISON_FILES", "FORMAT", "RunFolder", "RunIdentity", "check_free"]

FORMAT = 1
"""The version of the format that is written; runs of no version, which are older, and of this one are read."""

COMPARISON_FILES = ("comparison.json", "comparison.md", "comparison.png")
MOST_HISTORY = 256 * MIB
MOST_NUMBERS = 8 * MIB  # of text
LONGEST_ID = 64

Kind = Literal["run", "comparison"]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """What ``run.json`` holds.

    Attributes:
        format: version of the folder's format, 0 of runs that were written before there was one.
        id: the same when the run goes on, another when it is run again; empty in runs of format 0.
    """

    format: int = 0
    id: str = ""


class RunFolder:
    """A run on disk: the one place that knows which files it has, and how they are written and read.

    Reading looks at this folder only, takes memory in proportion to what is there, and raises ``ValueError`` for what is
    damaged. Writing is atomic, file by file.

    Args:
        path: the folder, which need not be there.
    """

    IDENTITY = "run.json"
    CONFIG = "config.yaml"
    DESCRIPTION = "data.json"
    WEIGHTS = "model.safetensors"
    SNAPSHOT = "training.safetensors"
    HISTORY = "history.jsonl"
    METRICS = "metrics.json"
    EVALUATION = "evaluation.json"
    ENVIRONMENT = "environment.json"
    POSTMORTEM = "postmortem"

    SIGNATURE = (CONFIG, DESCRIPTION, HISTORY)  # the files that tell a run of any format from another folder
    FINISHED = (WEIGHTS, METRICS)

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """The run that lies in a folder.

        Raises:
            ValueError: no run there, or one that a newer ppl_vae wrote.
        """
        folder = cls(path)
        if not (folder.path / cls.CONFIG).is_file():
            expected = f"expected a folder with {cls.CONFIG}, as `ppl-vae fit --out` writes it"
            raise ValueError(f"there is no run in {folder.path}: {expected}")
        folder.identity()
        return folder

    # --- reading

    @property
    def finished(self) -> bool:
        """Whether the fit came to its end."""
        return self.has(self.WEIGHTS)

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.path / name).is_file()

    def identity(self) -> RunIdentity:
        """The version of the format, and the run's id.

        Raises:
            ValueError: a format of a newer version, or a file that is damaged.
        """
        path = self.path / self.IDENTITY
        return self.read(self.IDENTITY, _identity) if path.exists() or path.is_symlink() else RunIdentity()

    def config(self) -> dict[str, Any]:
        """The declarations by the names of their parts, as plain values."""
        return self.read(self.CONFIG, _mapping(from_yaml))

    def description(self) -> dict[str, Any]:
        """What the data look like, as plain values: ``spec``, ``transform`` and, where known, ``fingerprint`` and ``score``."""
        return self.read(self.DESCRIPTION, _mapping(from_json))

    def score(self) -> Score | None:
        """The program's own score, if it has one; else the rows of the history tell by their keys which one they are about."""
        told = self.description().get("score") if self.has(self.DESCRIPTION) else None
        try:
            return None if told is None else Score.from_dict(told)
        except ValueError as error:
            raise ValueError(f"{self.path / self.DESCRIPTION} cannot be read: {as_line(error)}") from None

    def history(self) -> list[Record]:
        """The rows of the history; at least one."""
        return self.read(self.HISTORY, _rows, at_most=MOST_HISTORY)

    def metrics(self) -> dict[str, Any]:
        """The numbers of each split."""
        return self.read(self.METRICS, _mapping(from_json), at_most=MOST_NUMBERS)

    def weights(self) -> dict[str, Tensor]:
        """The fitted tensors by name."""
        from safetensors.torch import load_file

        found: dict[str, Tensor] = load_file(inside(self.path, self.WEIGHTS))
        return found

    def snapshot(self) -> Snapshot | None:
        """The last state of training, if one was kept."""
        from ppl_vae.storage.snapshot import read_snapshot

        path = self.path / self.SNAPSHOT
        return read_snapshot(path) if path.exists() else None

    def pictures(self) -> Iterator[Path]:
        """The pictures that are files of this folder themselves, by name."""
        return (path for path in sorted(self.path.glob("*.png")) if path.is_file() and not path.is_symlink())

    def read(self, name: str, parse: Callable[[str], T], *, at_most: int = MOST_TEXT) -> T:
        """What ``parse`` makes of the text of a file.

        Raises:
            ValueError: no such file, a link out of the folder, more bytes than ``at_most``, or text that cannot be parsed.
        """
        path = inside(self.path, name)
        text = read_text(path, at_most=at_most)
        try:
            return parse(text)
        except ValueError as error:
            raise ValueError(f"{path} cannot be read: {as_line(error)}") from None

    # --- writing

    @classmethod
    def texts(cls, config: Mapping[str, Any], description: Mapping[str, Any]) -> dict[str, str]:
        """The texts that tell what is fitted, by file."""
        return {
            cls.CONFIG: yaml.safe_dump(dict(config), sort_keys=False),
            cls.DESCRIPTION: json.dumps(description, indent=2) + "\n",
        }

    def begin(self, texts: Mapping[str, str], history: Sequence[Record] = (), *, resume: bool = False) -> None:
        """Write what is known before the end of a fit; a run that may be replaced goes now.

        Whenever the process dies the folder is still known as a run, or as one that was hardly begun; one that goes on is not
        finished from now on, because its weights would be taken for those of the longer fit.

        Args:
            texts: as :meth:`texts` gives them.
            history: the rows so far.
            resume: the run that is there goes on, under its own id.
        """
        identity = RunIdentity(format=FORMAT, id=(self.identity().id if resume else "") or secrets.token_hex(8))
        for path in self.path.iterdir():
            if _partial(path) or (path.name in self.FINISHED if resume else path.name not in self.SIGNATURE):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        write_text(self.path / self.HISTORY, _lines(history))
        write_json(self.path / self.IDENTITY, dataclasses.asdict(identity))
        for name in reversed(list(texts)):
            write_text(self.path / name, texts[name])

    def open_history(self) -> TextIO:
        """The file that rows are added to."""
        return (self.path / self.HISTORY).open("a", encoding="utf-8")

    def write_snapshot(self, snapshot: Snapshot) -> None:
        """Put a state of training in the place of the last; a run that goes on is no longer finished."""
        from ppl_vae.storage.snapshot import write_snapshot

        write_snapshot(snapshot, self.path / self.SNAPSHOT)
        for name in self.FINISHED:
            (self.path / name).unlink(missing_ok=True)

    def finish(self, weights: Mapping[str, Tensor], history: Sequence[Record]) -> None:
        """Write what came of the fit: its weights, and the history that belongs to them."""
        write_text(self.path / self.HISTORY, _lines(history))
        write_tensors(weights, self.path / self.WEIGHTS)

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write plain values, such as the metrics, in place of what was there."""
        write_json(self.path / name, content)

    def picture(self, name: str) -> Path:
        """Where the picture of that name goes."""
        return self.path / f"{name}.png"

    def postmortem(self, epoch: int, step: int, suffix: str) -> Path:
        """Where what is found about a step goes."""
        return self.path / self.POSTMORTEM / f"epoch-{epoch}-step-{step}{suffix}"


SIGNATURES: dict[Kind, tuple[str, ...]] = {"run": RunFolder.SIGNATURE, "comparison": COMPARISON_FILES}


def check_free(path: str | Path, *, overwrite: bool, kind: Kind = "run") -> Path:
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
        on = ", go on with it (--resume)" if (path / RunFolder.SNAPSHOT).exists() else ""
        raise ValueError(f"{path} already holds a {kind}: choose another folder, or overwrite it (--overwrite){on}")
    return path


def _hardly_begun(folder: Path) -> bool:
    """Whether a folder is empty, or a fit died while it wrote its first files or because of its first step."""
    names = {path.name for path in folder.iterdir() if not (_partial(path) or _postmortem(path))}
    history = folder / RunFolder.HISTORY
    first = {RunFolder.DESCRIPTION, RunFolder.IDENTITY, RunFolder.HISTORY}
    return not names or (names <= first and history.is_file() and history.stat().st_size == 0)


def _partial(path: Path) -> bool:
    """Whether a file was being written when its process died."""
    return path.name.startswith(".") and ".partial-" in path.name


def _postmortem(path: Path) -> bool:
    """Whether this is what a fit left that did not stay finite."""
    ours = path.name == RunFolder.POSTMORTEM and path.is_dir() and not path.is_symlink()
    return ours and all(file.match("epoch-*-step-*.*") or _partial(file) for file in path.iterdir())


def _identity(text: str) -> RunIdentity:
    """The identity of a run; what else a newer version of the format may hold is not looked at."""
    found = _mapping(from_json)(text)
    version, run_id = found.get("format"), found.get("id")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(f"expected a format of 1 or more, got {as_line(repr(version))}")
    if version > FORMAT:
        expected = f"expected a run of format {FORMAT} or less, got {as_line(version, most=40)}"
        raise ValueError(f"{expected}, which a newer ppl_vae wrote: update ppl_vae")
    if not isinstance(run_id, str) or not run_id.isalnum() or len(run_id) > LONGEST_ID:
        raise ValueError(f"expected an id of 1 to {LONGEST_ID} letters and digits, got {as_line(repr(run_id))}")
    return RunIdentity(format=version, id=run_id)


def _mapping(parse: Callable[[str], Any]) -> Callable[[str], dict[str, Any]]:
    """The values of a text, which have names."""

    def parsed(text: str) -> dict[str, Any]:
        found = parse(text)
        if not isinstance(found, dict):
            raise ValueError("expected values by name")
        return found

    return parsed


def _rows(text: str) -> list[Record]:
    rows = [_mapping(from_json)(line) for line in text.splitlines()]
    if not rows:
        raise ValueError("expected a line for each iteration, got none")
    return rows


def _lines(history: Iterable[Record]) -> str:
    return "".join(json.dumps(row) + "\n" for row in history)
