"""A saved run, opened once: its folder, and the experiment that it declares."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from ppl_vae.arguments import as_path, names
from ppl_vae.fitting.experiment import Experiment
from ppl_vae.storage import RunFolder
from ppl_vae.text import as_line

__all__ = ["SavedRun"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SavedRun:
    """A run folder of a format that this version reads, and its experiment. Nothing in the folder is executed.

    Attributes:
        folder: where it lies.
        experiment: what was fitted, as the folder declares it.
    """

    folder: RunFolder
    experiment: Experiment

    @classmethod
    def open(cls, path: str | Path, *, trust: Iterable[str] = ()) -> SavedRun:
        """Read and parse the configuration of a run.

        Args:
            path: the folder.
            trust: modules, besides ppl_vae, whose classes the declaration may name.

        Raises:
            ValueError: no run there, one of a newer format, a damaged file, or a class from a module that is not trusted.
        """
        path, trust = as_path(path), names("trust", trust)
        folder = RunFolder.open(path)
        config = folder.config()
        try:
            return cls(folder=folder, experiment=Experiment.from_dict(config, trust=trust))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{folder.path}: {as_line(error, most=600)}") from None
