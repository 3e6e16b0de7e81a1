"""What is told of a training that did not stay finite."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor

from ppl_vae.storage import RunFolder
from ppl_vae.storage.atomic import write_json, write_tensors, write_text

__all__ = ["NonFiniteError", "Postmortem", "Stage", "Verdict"]

Stage = Literal["objective", "gradient", "update"]
Found = Literal["good", "bad", "not looked at"]

SHOWN = 10  # rows in a text


class Verdict(NamedTuple):
    """What came of one check of a diagnosis.

    Attributes:
        check: its name.
        found: ``good``; ``bad``; or ``not looked at``, because another check has to be good for it to mean anything.
    """

    check: str
    found: Found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Postmortem:
    """What was found about the first step that was not finite. All values are of the moment before it.

    Attributes:
        epoch, step: which, from 1.
        learning_rate: of the step.
        stage: what is not finite first: the ``objective``, a ``gradient``, or a parameter after the ``update``.
        site, program: the first guilty ``pyro.sample`` statement, and whether it stands in the guide or the model.
        what: what is wrong there.
        ranges: the smallest and largest value of each of the site's arguments, and of its value.
        parameter: the suspect's name, its largest entry one step earlier, before the step and after it.
        rows: rows of the training data (of the block, if streamed) that are not finite there, or all of the batch.
        objectives: of the steps up to this one, in nats per datum; at most five.
        causes: likely ones, the likeliest first.
        pyro: what Pyro's own validation says, if it objects.
        values: the batch as the model sees it, ``x``, its ``rows``, and the site's arguments.
        checks: what was looked at, one thing after another, and what came of it.
    """

    epoch: int
    step: int
    learning_rate: float
    stage: Stage
    site: str | None
    program: str | None
    what: str
    ranges: dict[str, list[float]]
    parameter: dict[str, Any]
    rows: list[int]
    objectives: list[float]
    causes: list[str]
    pyro: str | None
    values: dict[str, Tensor]
    checks: tuple[Verdict, ...] = ()

    def __str__(self) -> str:
        return f"{self.where} (epoch {self.epoch}, step {self.step}); {self._suspect}; {self.causes[0]}"

    @property
    def where(self) -> str:
        """The site and what is wrong there."""
        return f"site {self.site!r} of the {self.program}: {self.what}" if self.site else self.what

    def text(self) -> str:
        """All of it, for people."""
        rows = ", ".join(map(str, self.rows[:SHOWN])) + (", ..." if len(self.rows) > SHOWN else "")
        ranges = "; ".join(f"{name} from {low:.4g} to {high:.4g}" for name, (low, high) in self.ranges.items())
        lines = [
            f"Training stopped being finite in epoch {self.epoch}, step {self.step} (learning rate {self.learning_rate:g}).",
            "",
            f"Where         {self.where}",
            *([f"Values        {ranges}"] if ranges else []),
            f"Parameter     {self._suspect}",
            f"Rows          {len(self.rows)} of {len(self.values['rows'])} in the batch: {rows}",
            f"Objective     {', '.join(f'{value:.5g}' for value in self.objectives)} nats per datum, step by step",
            *([f"Pyro says     {self.pyro}"] if self.pyro else []),
            "",
            "Likely causes, the likeliest first:",
            *(f"  {place}. {cause}" for place, cause in enumerate(self.causes, 1)),
            *(["", "Looked at:"] if self.checks else []),
            *(f"  {verdict.check:<18} {verdict.found}" for verdict in self.checks),
        ]
        return "\n".join(lines) + "\n"

    def save(self, folder: Path | None) -> None:
        """Write text, JSON and the values (safetensors) into ``postmortem/`` of a run folder."""
        if folder is None:
            return
        run = RunFolder(folder)
        (folder / run.POSTMORTEM).mkdir(parents=True, exist_ok=True)
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "values"}
        fields["checks"] = {verdict.check: verdict.found for verdict in self.checks}
        text, plain, values = (run.postmortem(self.epoch, self.step, suffix) for suffix in (".txt", ".json", ".safetensors"))
        write_text(text, self.text())
        write_json(plain, fields)
        write_tensors(self.values, values)

    @property
    def _suspect(self) -> str:
        told = self.parameter
        way = [value for value in (told["earlier"], told["before"], told["after"]) if value is not None]
        return f"the largest entry of {told['name']} was, step by step, {', then '.join(f'{value:.4g}' for value in way)}"


class NonFiniteError(FloatingPointError):
    """A step was not finite.

    Args:
        found: why.
        folder: the run folder, if there is one.
        tries: how often going on was tried.

    Attributes:
        postmortem: what was found.
    """

    def __init__(self, found: Postmortem, folder: Path | None, *, tries: int) -> None:
        tried = f" after {tries} tries to go on" if tries else ""
        where = f"; see {folder / RunFolder.POSTMORTEM}" if folder else ""
        super().__init__(f"training is no longer finite{tried}: {found}{where}")
        self.postmortem = found
