"""The folder of a selection: what is chosen among, and of each fit that is done its outcome and its run.

=========================  ================================================================
``selection.json``         the experiment, and at the end the table
``selection.md``           the table for people
``selection.png``          the picture
``candidates/NAME.json``   the outcome of a fit, written when it is done
``candidates/NAME/``       its run, as ``ppl-vae fit --out`` writes it; none of a fold
``...-from02``             of a fit that started from the second candidate's
=========================  ================================================================
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppl_vae.arguments import as_path
from ppl_vae.selection.work import Outcome, Task
from ppl_vae.storage.atomic import write_json, write_text
from ppl_vae.storage.declared import differences, flat
from ppl_vae.text import as_line, from_json, is_number, read_text

__all__ = ["Kept"]

FORMAT = 1
MOST_TEXT = 2**23
LONGEST = 80  # letters of a candidate's name that go into a file name


class Kept:
    """A selection on disk.

    Args:
        path: the folder, which need not be there.

    Raises:
        ValueError: something else is there.
    """

    SELECTION, TABLE, PICTURE, CANDIDATES = "selection.json", "selection.md", "selection.png", "candidates"

    def __init__(self, path: str | Path) -> None:
        self.path = as_path(path)
        begun = (self.path / self.SELECTION).is_file()
        if self.path.exists() and not begun and not (self.path.is_dir() and not any(self.path.iterdir())):
            raise ValueError(f"{self.path} exists and is not a selection: choose another folder")

    @property
    def fingerprint(self) -> Any:
        """Of the data of the selection that is there, if one is."""
        if not (self.path / self.SELECTION).is_file():
            return None
        return dict(self._read(self.path / self.SELECTION).get("experiment") or {}).get("fingerprint")

    def begin(self, experiment: Mapping[str, Any]) -> None:
        """Begin, or go on with, the selection of an experiment, as plain values.

        Raises:
            ValueError: the folder holds that of another experiment: in what they differ.
        """
        (self.path / self.CANDIDATES).mkdir(parents=True, exist_ok=True)
        if not (self.path / self.SELECTION).is_file():
            write_json(self.path / self.SELECTION, {"format": FORMAT, "experiment": experiment})
            return
        before = self._read(self.path / self.SELECTION).get("experiment")
        differ = differences(flat(before), flat(dict(experiment)))
        if differ.startswith("fingerprint was"):
            raise ValueError(f"{self.path} holds a selection by other rows: the data have changed since; choose another folder")
        if differ:
            raise ValueError(
                f"{self.path} holds the selection of another experiment ({as_line(differ, most=600)}): choose another folder"
            )

    def run_of(self, task: Task, name: str) -> Path:
        """The folder of a fit's run."""
        what = "" if task.fold is None else f"-fold{task.fold + 1}"
        what += "" if task.smaller is None else f"-from{task.smaller + 1:02d}"
        return self.path / self.CANDIDATES / f"{task.place + 1:02d}-{re.sub(r'[^A-Za-z0-9.=-]+', '_', name)[:LONGEST]}{what}"

    def outcome(self, task: Task, name: str) -> Outcome | None:
        """What a fit came to that is done.

        Raises:
            ValueError: a file that is damaged.
        """
        path = self._file(task, name)
        if not path.is_file():
            return None
        found = self._read(path)
        numbers, remarks, error = found.get("numbers"), found.get("remarks"), found.get("error")
        plain = isinstance(numbers, dict) and all(map(is_number, numbers.values()))
        if not (isinstance(numbers, dict) and plain and isinstance(remarks, list) and isinstance(error, str)):
            raise ValueError(f"{path} is damaged: remove it, and its fit is made again")
        return Outcome(numbers=numbers, remarks=tuple(map(str, remarks)), error=error)

    def keep(self, task: Task, name: str, outcome: Outcome) -> None:
        """Write what a fit came to."""
        plain = {
            field: value for field, value in dataclasses.asdict(outcome).items() if field in ("numbers", "remarks", "error")
        }
        write_json(self._file(task, name), plain)

    def finish(self, experiment: Mapping[str, Any], found: Mapping[str, Any], table: str) -> None:
        """Write the table."""
        write_json(self.path / self.SELECTION, {"format": FORMAT, "experiment": experiment, **found})
        write_text(self.path / self.TABLE, table)

    def _file(self, task: Task, name: str) -> Path:
        run = self.run_of(task, name)
        return run.with_name(f"{run.name}.json")

    def _read(self, path: Path) -> dict[str, Any]:
        found = from_json(read_text(path, at_most=MOST_TEXT))
        if not isinstance(found, dict) or found.get("format", FORMAT) != FORMAT:
            raise ValueError(f"{path} is no file of a selection of format {FORMAT}: update ppl_vae, or choose another folder")
        return found
