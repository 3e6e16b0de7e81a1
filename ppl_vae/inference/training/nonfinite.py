"""Sees to it that training stays finite, and goes back to where it last was when it does not."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ppl_vae.inference.training.diagnosis import NonFiniteError, Postmortem, examine
from ppl_vae.inference.training.schedules import OnNonFinite
from ppl_vae.program.randomness import random_state
from ppl_vae.storage import Snapshot
from ppl_vae.types import FitWarning

if TYPE_CHECKING:
    from ppl_vae.inference.training.loop import Training

__all__ = ["Guard"]


LOOK = 100  # steps between two looks, so that the host seldom waits for the device and copies seldom
MOST = {"stop": 0, "skip": 20, "rewind": 5}  # tries in an epoch
DAMPING = 0.1

Batch = tuple[list[Tensor], Tensor]


class Guard:
    """Looks at what steps leave, every so many steps; finds the guilty one by taking them again from where all was finite.

    Steps are the same when they are taken again, to the last bit, so nothing has to be kept of each but its rows.

    Args:
        training: whose steps they are.
        policy: what to do about a step that is not finite.
        folder: the run folder, if there is one: post-mortems are written there.

    Attributes:
        tries: how often going on was tried in the epoch in progress.
    """

    def __init__(self, training: Training, policy: OnNonFinite, folder: Path | None) -> None:
        self.training = training
        self.policy = policy
        self.folder = folder
        self._since: list[Batch] = []
        self.tries = 0
        self._safe: Snapshot | None = None

    def begin(self) -> None:
        """A pass begins, or goes on."""
        if not self.training.taken:
            self.tries = 0
        self._remember()

    def step(self, block: list[Tensor], rows: Tensor) -> None:
        """Take a step on some rows of a block."""
        try:
            self.training.step(block, rows)
        except ValueError as error:  # Pyro's validation, which looks at the first step of a fit
            found = self._first(block, rows)
            if found.stage == "update":
                raise  # nothing was found
            raise NonFiniteError(found, self._saved(found), tries=0) from error
        self._since.append((block, rows))
        if len(self._since) >= LOOK:
            self.look()
            self._remember()

    def look(self) -> None:
        """See whether all is finite; if not, do what the policy says.

        Raises:
            NonFiniteError: the policy is to stop, or it has not helped.
        """
        while not self._finite():
            batches, self._since = self._since, []
            place, found = self._guilty(batches)
            folder = self._saved(found)
            self.tries += 1
            if self.tries > MOST[self.policy]:
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
        """Copy what steps change: all of it was finite just now."""
        live = self.training.tensors()
        kept = self._safe.tensors if self._safe else {}
        copies = {name: kept.get(name, torch.empty_like(tensor)) for name, tensor in live.items()}
        with torch.no_grad():
            for name, tensor in live.items():
                copies[name].copy_(tensor)
        self._safe = Snapshot({**copies, **random_state(self._device)}, self.training.facts(), [])
        self._since.clear()

    @torch.no_grad()
    def _finite(self) -> bool:
        """Whether the objective of all steps of the epoch is finite, and every parameter."""
        totals = [step.totals[0] for step in self.training.steps]
        parameters = self.training.parameters
        if bool(torch.stack([*totals, *(parameter.sum() for parameter in parameters)]).isfinite().all()):
            return True  # a sum is not finite if a term is not; it may also overflow
        return bool(torch.stack([*(total.isfinite() for total in totals), *(p.isfinite().all() for p in parameters)]).all())

    def _guilty(self, batches: list[Batch]) -> tuple[int, Postmortem]:
        """The first step of these that leaves something not finite, and why; training is as it was before that step."""
        training = self.training
        self._return()
        parameters: list[list[Tensor]] = []
        objectives: list[float] = []
        for place, (block, rows) in enumerate(batches):
            before = self._copy()
            parameters = [*parameters[-1:], [parameter.detach().clone() for parameter in training.parameters]]
            turn = training.steps[training.turn % len(training.steps)]
            total = turn.totals[0].item()
            training.step(block, rows)
            objectives.append((turn.totals[0].item() - total) / len(rows))
            if self._finite() and place + 1 < len(batches):
                continue
            after = [parameter.detach().clone() for parameter in training.parameters]
            training.load(before)
            found = examine(training, turn, block, rows, objectives=objectives, parameters=[*parameters, after])
            training.load(before)
            return place, found
        raise AssertionError("a pass without steps cannot have become anything")

    def _first(self, block: list[Tensor], rows: Tensor) -> Postmortem:
        """What can be found about a step that could not be taken."""
        training = self.training
        self._return()
        parameters = [parameter.detach().clone() for parameter in training.parameters]
        turn = training.steps[training.turn % len(training.steps)]
        return examine(training, turn, block, rows, objectives=[math.nan], parameters=[parameters, parameters])

    def _back(self, batches: list[Batch], place: int) -> list[Batch]:
        """Go back as the policy says; the batches that are to be stepped on from there."""
        if self.policy == "rewind":
            self._return()
            self.training.damping *= DAMPING
            self.training.set_rate()
            return batches
        self.training.skip(batches[place][1])
        self._remember()
        return batches[place + 1 :]

    def _told(self) -> str:
        training = self.training
        if self.policy == "skip":
            return f"step {training.taken + 1} of epoch {training.epoch + 1} is left out"
        return f"back to step {self._safe_facts['taken']} of epoch {training.epoch + 1} with a tenth of the learning rate"

    @property
    def _device(self) -> torch.device:
        return self.training.data.train.device

    @property
    def _safe_facts(self) -> dict[str, Any]:
        return self._safe.metadata if self._safe else {}

    def _return(self) -> None:
        assert self._safe is not None
        self.training.load(self._safe)

    def _copy(self) -> Snapshot:
        tensors = {name: tensor.detach().clone() for name, tensor in self.training.tensors().items()}
        return Snapshot({**tensors, **random_state(self._device)}, self.training.facts(), [])
