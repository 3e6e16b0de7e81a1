"""Methods one after the other as one fit: stages, each of which may train other parts of the pair."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor

from ppl_vae.data import Data
from ppl_vae.declaration import require
from ppl_vae.inference.methods.base import Method, run_method
from ppl_vae.inference.methods.svi import SVI
from ppl_vae.inference.objectives import Objective
from ppl_vae.inference.training.clock import Steps
from ppl_vae.program.pair import Pair
from ppl_vae.storage import NULL_CHECKPOINTER, AnyCheckpointer, Snapshot
from ppl_vae.storage.snapshot import restoring
from ppl_vae.types import Record, Report

__all__ = ["Stages"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stages(Method):
    """Methods one after the other: one fit, one history, one run folder.

    Each stage goes on from what the pair's modules hold after the one before. What a stage trains first takes its start then,
    and what an earlier one has trained keeps what it learned. Rows of the history count epochs from the first stage on and say
    which ``stage`` they are of; learning rates, warm-ups, patience and best epochs are each stage's own.

    Args:
        seed: of the initial parameters; added to the seed of each stage.
        methods: the stages, in their order, such as ``(SVI(only=("guide",)), SVI())``; by default a single one. When the fit
            is resumed, the last one may have more epochs.

    Raises:
        ValueError: no stages, or a method that cannot be one: :class:`~ppl_vae.SVI` can.

    Examples:
        >>> guide_first = Stages(methods=(SVI(epochs=1, only=("guide",)), SVI(epochs=2)))
        >>> fitted = fit(VAE(latent_dim=2), "digits", method=guide_first)
        >>> [(row["epoch"], row["stage"]) for row in fitted.history]
        [(1, 1), (2, 2), (3, 2)]
    """

    takes_weights: ClassVar[bool] = True
    takes_processes: ClassVar[bool] = True
    length: ClassVar[str | None] = "methods"

    methods: tuple[Method, ...] = (SVI(),)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "methods", tuple(self.methods))
        require(len(self.methods) > 0, "at least one method for methods", self.methods)
        for method in self.methods:
            if not (isinstance(method, Method) and method.follows):
                told = f"got {type(method).__name__}: write methods=(SVI(...), SVI(...))"
                raise ValueError(f"expected methods that go on from one another, such as SVI, {told}")
            require(self.seed + method.seed < 2**63, "seeds that add up to less than 2^63", method.seed)

    @property
    def last(self) -> Method:
        """The last stage."""
        return self.methods[-1]

    @property
    def iterations(self) -> int:
        """The epochs of all stages together."""
        return sum(method.iterations for method in self.methods)

    @property
    def objective(self) -> Objective | None:
        """What the last stage climbs."""
        return self.last.objective

    @property
    def ramp(self) -> float:
        """Epochs until what the last stage climbs no longer changes."""
        return sum(method.iterations for method in self.methods[:-1]) + self.last.ramp

    @property
    def first_batch(self) -> int | None:
        """Rows of the first stage's first step."""
        return self.methods[0].first_batch

    @property
    def taken(self) -> int | None:
        """How long the last stage goes on."""
        return self.last.taken

    @property
    def fixed(self) -> dict[str, Any]:
        """The declaration as plain values, the stages by their numbers, without how long the last one goes on."""
        plain = super().fixed
        stages = [*(method.to_dict() for method in self.methods[:-1]), self.last.fixed]
        return {**plain, "init_args": {**plain["init_args"], "methods": {str(n): each for n, each in enumerate(stages, 1)}}}

    def steps_per_epoch(self, rows: int) -> int:
        """Steps in which an epoch of the last stage goes through so many training data."""
        return self.last.steps_per_epoch(rows)

    def check(self, pair: Pair, data: Data) -> None:
        """Raise ``ValueError`` if a stage cannot fit this pair to these data."""
        for number, method in enumerate(self.methods, start=1):
            try:
                method.check(pair, data)
            except ValueError as error:
                raise ValueError(f"stage {number}: {error}") from None

    def trains(self, pair: Pair) -> set[str]:
        """What any stage changes."""
        return {name for method in self.methods for name in method.trains(pair)}

    def run(self, pair: Pair, data: Data, report: Report, checkpointer: AnyCheckpointer = NULL_CHECKPOINTER) -> list[Record]:
        """Fit the pair by each stage; the rows of all of them, see their methods.

        Raises:
            ValueError: a stage cannot fit this pair to these data; none has begun then.
        """
        self.check(pair, data)
        history, first = self._restored(checkpointer)
        learned = set(pair.learned)
        try:
            for number, method in enumerate(self.methods, start=1):
                if number >= first:
                    kept = StageCheckpointer(checkpointer, number, history)
                    seeded = dataclasses.replace(method, seed=self.seed + method.seed)
                    history = [*history, *run_method(seeded, pair, data, _told(report, number, history), kept)]
                pair.learned |= method.trains(pair)
        finally:
            pair.learned = learned
        return history

    def _restored(self, checkpointer: AnyCheckpointer) -> tuple[list[Record], int]:
        """Of a fit that goes on the rows of the stages that are over, and the number of the one in progress."""
        if checkpointer.restored is None:
            return [], 1
        with restoring(checkpointer.restored):
            number = checkpointer.restored.metadata["stage"]
            if not isinstance(number, int) or not 1 <= number <= len(self.methods):
                raise ValueError(f"expected a stage of 1 to {len(self.methods)}, got {number!r}")
            return [row for row in checkpointer.restored.history if row["stage"] < number], number


class StageCheckpointer:
    """What keeps a fit, as one of its stages sees it.

    Args:
        whole: what keeps the fit.
        number: of the stage, from 1.
        earlier: the rows of the stages before.

    Attributes:
        restored: the snapshot to go on from, if it was taken in this stage.
    """

    def __init__(self, whole: AnyCheckpointer, number: int, earlier: list[Record]) -> None:
        self.whole, self.number, self.earlier = whole, number, earlier
        self.restored: Snapshot | None = None
        kept = whole.restored
        if kept is not None and kept.metadata["stage"] == number:
            own = kept.metadata | {"seconds": kept.seconds - _seconds(earlier)}
            self.restored = kept._replace(metadata=own, history=kept.history[len(earlier) :])

    @property
    def folder(self) -> Path | None:
        """Where the fit is kept, if it is."""
        return self.whole.folder

    def due(self) -> bool:
        """Whether a snapshot is to be kept now."""
        return self.whole.due()

    def keep(self, snapshot: Snapshot) -> None:
        """Keep a snapshot of the stage as one of the fit."""
        own = snapshot.metadata | {"stage": self.number, "seconds": snapshot.seconds + _seconds(self.earlier)}
        self.whole.keep(snapshot._replace(metadata=own, history=[*self.earlier, *snapshot.history]))

    def row(self, row: Record) -> None:
        """Take note of a row."""
        self.whole.row(row)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the fit's checkpointer open."""

    def describe(
        self, files: Mapping[str, str], metadata: Mapping[str, Any], declared: Mapping[str, Any], defaults: Iterable[str] = ()
    ) -> None:
        """The fit has told what it is."""

    def listening(self) -> contextlib.AbstractContextManager[None]:
        """The fit listens."""
        return contextlib.nullcontext()

    def finish(self, tensors: Mapping[str, Tensor], history: list[Record]) -> None:
        """The fit has its end later."""


class _Rows:
    """Reports rows of a stage as rows of the fit: their epochs and seconds go on from those of the stages before."""

    def __init__(self, report: Report, number: int, earlier: list[Record]) -> None:
        self.report, self.number = report, number
        self.epochs: int = earlier[-1]["epoch"] if earlier else 0
        self.seconds = _seconds(earlier)

    def __call__(self, row: Record) -> None:
        own = dict(row)
        row.clear()  # the stage's history keeps this very row
        row |= {"epoch": own.pop("epoch") + self.epochs, "stage": self.number, **own, "seconds": own["seconds"] + self.seconds}
        self.report(row)


class _RowsAndSteps(_Rows):
    """The same to a report that listens to steps as well."""

    steps: Steps

    def step(self, taken: int, of: int, seconds: float) -> None:
        """Pass it on."""
        self.steps.step(taken, of, seconds + self.seconds)


def _told(report: Report, number: int, earlier: list[Record]) -> Report:
    """What a stage reports to."""
    if not isinstance(report, Steps):
        return _Rows(report, number, earlier)
    rows = _RowsAndSteps(report, number, earlier)
    rows.steps = report
    return rows


def _seconds(earlier: list[Record]) -> float:
    return float(earlier[-1]["seconds"]) if earlier else 0.0
