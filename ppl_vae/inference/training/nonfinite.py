"""Sees to it that training stays finite, and goes back to where it last was when it does not."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

from torch import Tensor

from ppl_vae.inference.training.diagnosis import examine
from ppl_vae.inference.training.postmortem import NonFiniteError, Postmortem
from ppl_vae.inference.training.rewindable import Rewindable
from ppl_vae.inference.training.schedules import OnNonFinite
from ppl_vae.inference.training.state import StepState
from ppl_vae.types import FitWarning

__all__ = ["Batch", "NonFinitePolicy"]


LOOK = 250  # steps between two looks, so that the host seldom waits for the device and copies seldom
MOST = {"stop": 0, "skip": 20, "rewind": 5}  # tries in an epoch
DAMPING = 0.1

Batch = tuple[list[Tensor], Tensor]


class NonFinitePolicy:
    """Looks at what steps leave, every so many steps; finds the guilty one by taking them again from where all was finite.

    Steps are the same when they are taken again, to the last bit, so nothing has to be kept of each but its rows.

    Args:
        training: whose steps they are.
        action: what to do about a step that is not finite.
        folder: the run folder, if there is one: post-mortems are written there.

    Attributes:
        tries: how often going on was tried in the epoch in progress.
    """

    def __init__(self, training: Rewindable, action: OnNonFinite, folder: Path | None) -> None:
        self.training = training
        self.action = action
        self.folder = folder
        self.tries = 0
        self._since: list[Batch] = []
        self._safe: StepState | None = None

    def start_pass(self) -> None:
        """A pass begins, or goes on."""
        if not self.training.batch_index:
            self.tries = 0
        self._remember()

    def step(self, block: list[Tensor], rows: Tensor) -> None:
        """Take a step on some rows of a block."""
        try:
            self.training.step(block, rows)
        except ValueError as error:  # Pyro's validation, which looks at the first step of a fit
            found = self._untaken(block, rows)
            if found.stage == "update":
                raise  # nothing was found
            raise NonFiniteError(found, self._saved(found), tries=0) from error
        self._since.append((block, rows))
        if len(self._since) >= LOOK:
            self.check()
            self._remember()

    def several(self, block: list[Tensor], batches: list[Tensor]) -> None:
        """Take the steps on some rows of a block after others."""
        if len(batches) == 1:
            self.step(block, *batches)
            return
        now, later = batches[: LOOK - len(self._since)], batches[LOOK - len(self._since) :]
        self.training.several(block, now)
        self._since += [(block, rows) for rows in now]
        if len(self._since) >= LOOK:
            self.check()
            self._remember()
        if later:
            self.several(block, later)

    def check(self) -> None:
        """See whether all is finite; if not, do what the policy says.

        Raises:
            NonFiniteError: the policy is to stop, or it has not helped.
        """
        while not self.training.finite():
            batches, self._since = self._since, []
            place, found = self._guilty(batches)
            folder = self._saved(found)
            self.tries += 1
            if self.tries > MOST[self.action]:
                raise NonFiniteError(found, folder, tries=self.tries - 1)
            warnings.warn(f"{self._told()}: {found.where}", FitWarning, stacklevel=2)
            for block, rows in self._back(batches, place):
                self.training.step(block, rows)
                self._since.append((block, rows))

    def _saved(self, found: Postmortem) -> Path | None:
        """The run folder if the post-mortem could be written there; a full disk must not hide what was found."""
        try:
            found.save(self.folder)
        except OSError as error:
            warnings.warn(f"no post-mortem is written: {error}", FitWarning, stacklevel=3)
            return None
        return self.folder

    def _remember(self) -> None:
        """Keep where training is: all of it was finite just now."""
        self._safe = None  # its memory is free for the next one
        self._safe = self.training.snapshot()
        self._since.clear()

    @property
    def safe(self) -> StepState:
        """Where all was finite last."""
        assert self._safe is not None, "a pass has begun before its steps are looked at"
        return self._safe

    def _guilty(self, batches: list[Batch]) -> tuple[int, Postmortem]:
        """The first step of these that leaves something not finite, and why; training is as it was before that step."""
        training = self.training
        training.restore(self.safe)
        parameters: list[list[Tensor]] = []
        objectives: list[float] = []
        for place, (block, rows) in enumerate(batches):
            before, total = training.snapshot(), training.objective_sum
            parameters = [*parameters[-1:], self._parameters()]
            training.step(block, rows)
            objectives.append((training.objective_sum - total) / len(rows))
            if training.finite() and place + 1 < len(batches):
                continue
            after = self._parameters()
            training.restore(before)
            found = examine(training, block, rows, objectives=objectives, parameters=[*parameters, after])
            training.restore(before)
            return place, found
        raise AssertionError("a pass without steps cannot have become anything")

    def _untaken(self, block: list[Tensor], rows: Tensor) -> Postmortem:
        """What can be found about a step that could not be taken."""
        self.training.restore(self.safe)
        parameters = self._parameters()
        return examine(self.training, block, rows, objectives=[math.nan], parameters=[parameters, parameters])

    def _parameters(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self.training.parameters]

    def _back(self, batches: list[Batch], place: int) -> list[Batch]:
        """Go back as the policy says; the batches that are to be stepped on from there."""
        if self.action == "rewind":
            self.training.restore(self.safe)
            self.training.damp(DAMPING)
            return batches
        self.training.skip(batches[place][1])
        self._remember()
        return batches[place + 1 :]

    def _told(self) -> str:
        training = self.training
        if self.action == "skip":
            return f"step {training.batch_index + 1} of epoch {training.epoch + 1} is left out"
        return f"back to step {self.safe.batch_index} of epoch {training.epoch + 1} with a tenth of the learning rate"
