"""The fits of all candidates: made, or found where they were kept, and made again from a smaller one where that helps."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

from ppl_vae.evaluate.bar import progress_bar
from ppl_vae.fitting.fit import place
from ppl_vae.fitting.fitted import Fit
from ppl_vae.runs import load_run
from ppl_vae.selection.kept import Kept
from ppl_vae.selection.processes import performed
from ppl_vae.selection.work import Outcome, Plan, Task, perform
from ppl_vae.types import FitWarning

__all__ = ["Fits"]

LESS = 1e-9  # nats per datum: what rounding makes of a likelihood


class Fits:
    """What each task came to.

    Args:
        plan: what all share.
        kept: the folder that they are kept in, if they are.
        sizes: the number of free parameters of each candidate.
    """

    def __init__(self, plan: Plan, kept: Kept | None, sizes: Sequence[int]) -> None:
        self.plan, self.kept, self.sizes = plan, kept, sizes
        self._found: dict[Task, Outcome] = {}

    def make(self, *, jobs: int, progress: bool) -> None:
        """Fit every candidate, to all training rows or fold by fold; remarks are told in the order of the candidates."""
        places = range(len(self.plan.candidates))
        if self.plan.by == "cv":
            tasks = [Task(place=place, fold=fold) for place in places for fold in range(self.plan.folds)]
            self._do(tasks, jobs=jobs, progress=progress)
            return
        self._do([Task(place=place) for place in places], jobs=jobs, progress=progress)
        for smallest_first in sorted(places, key=self.sizes.__getitem__):
            self._grow(smallest_first)

    def of(self, place: int) -> list[Outcome]:
        """What the fits of a candidate came to that it is judged by: the better of two to all rows, or one for each fold."""
        if self.plan.by == "cv":
            return [self._found[Task(place=place, fold=fold)] for fold in range(self.plan.folds)]
        return [self._found[self._best(place)]]

    def final(self, place: int) -> Fit:
        """The fit of a candidate to all training rows.

        Raises:
            ValueError: after folds, to which it could be fitted, it cannot be to all rows.
        """
        if Task(place=place) not in self._found:
            self._do([Task(place=place)], jobs=1, progress=False)
        task = self._best(place)
        if error := self._found[task].error:
            raise ValueError(f"{self.plan.candidates[place].name} could not be fitted to all rows: {error}")
        return self._fit(task)

    def _best(self, place: int) -> Task:
        """The fit of a candidate to all rows that is likeliest on them."""
        tasks = [task for task in self._found if task.place == place and task.fold is None]
        return max(tasks, key=lambda task: self._found[task].numbers.get("train", float("-inf")))

    def _do(self, tasks: Sequence[Task], *, jobs: int, progress: bool) -> None:
        """Find what was kept of tasks, and do the others."""
        self._found |= {task: before for task in tasks if (before := self._kept(task)) is not None}
        left = {self._with_folder(task): task for task in tasks if task not in self._found}
        with progress_bar("fits", len(left), shown=progress) as advance:
            for task, outcome in performed(list(left), self.plan, jobs):
                self._keep(left[task], outcome)
                advance(1)
        for task in tasks:
            self._tell(task)

    def _grow(self, place: int) -> None:
        """Fit a candidate once more, from the likeliest model that it holds, if it ended below that."""
        reached = self._train(place)
        if reached is None:
            return
        smaller = [other for other, size in enumerate(self.sizes) if size <= self.sizes[place] and other != place]
        above = [other for other in smaller if (self._train(other) or reached) > reached + LESS]
        for other in sorted(above, key=lambda other: -self._found[self._best(other)].numbers["train"]):
            task = Task(place=place, smaller=other)
            if (before := self._kept(task)) is not None:
                self._found[task] = before
            elif (start := self._start(place, other)) is not None:
                self._keep(task, perform(self._with_folder(task), self.plan, start))
            else:
                continue
            self._tell(task)
            return

    def _train(self, place: int) -> float | None:
        """The log-likelihood of the training rows; of a candidate that could not be fitted none."""
        return self._found[self._best(place)].numbers.get("train")

    def _start(self, place: int, other: int) -> Fit | None:
        """A candidate at the parameters of another that it holds; none if it holds it not."""
        candidate, smaller = self.plan.candidates[place], self._fit(self._best(other))
        pair = candidate.built(smaller.spec).to(smaller.device)
        if pair.can.grow is None or not pair.can.grow.grow(smaller.pair.model):
            return None
        return dataclasses.replace(smaller, pair=pair, model=candidate.model, guide=candidate.guide, method=candidate.method)

    def _fit(self, task: Task) -> Fit:
        """The fit that a task made."""
        candidate, outcome = self.plan.candidates[task.place], self._found[task]
        if self.kept is not None:
            return load_run(self.kept.run_of(task, candidate.name), device=self.plan.device)
        assert outcome.state is not None
        data = place(candidate.model, self.plan.data, self.plan.device)
        pair = candidate.built(data.spec)
        pair.load_state_dict({name[5:]: value for name, value in outcome.state.items() if name.startswith("pair.")})
        return Fit(
            pair=pair.to(data.train.device),
            model=candidate.model,
            guide=candidate.guide,
            method=candidate.method,
            data=data.source,
            spec=data.spec,
            transform=data.train.transform,
            history=list(outcome.history),
            without_latents=outcome.without_latents,
        )

    def _with_folder(self, task: Task) -> Task:
        """The task with the folder of its run, if it has one."""
        if self.kept is None or task.fold is not None:
            return task
        return dataclasses.replace(task, folder=self.kept.run_of(task, self.plan.candidates[task.place].name))

    def _kept(self, task: Task) -> Outcome | None:
        return self.kept.outcome(task, self.plan.candidates[task.place].name) if self.kept else None

    def _keep(self, task: Task, outcome: Outcome) -> None:
        self._found[task] = outcome
        if self.kept is not None:
            self.kept.keep(task, self.plan.candidates[task.place].name, outcome)

    def _tell(self, task: Task) -> None:
        """Warn of what there is to tell of a fit, by the candidate's name."""
        name, outcome = self.plan.candidates[task.place].name, self._found[task]
        for remark in outcome.remarks:
            warnings.warn(f"{name}: {remark}", FitWarning, stacklevel=5)
        if outcome.error and task.smaller is None:
            warnings.warn(f"{name} could not be fitted and is left out: {outcome.error}", FitWarning, stacklevel=5)
