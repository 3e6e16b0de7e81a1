"""Why a training step is not finite: the site, the parameter, the rows, and what is the likely cause."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pyro
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Distribution

from ppl_vae.data.fields import taken
from ppl_vae.program.context import local_params
from ppl_vae.program.machine import layers
from ppl_vae.program.pair import numbered
from ppl_vae.storage import RunFolder
from ppl_vae.storage.atomic import write_json, write_tensors, write_text

if TYPE_CHECKING:
    from ppl_vae.inference.training.loop import Training
    from ppl_vae.inference.training.step import Step

__all__ = ["NonFiniteError", "Postmortem", "examine"]

Stage = Literal["objective", "gradient", "update"]

LARGE = 1e4  # values of data, as the model sees them, that no network is made for
TINY = 1e-5  # scales next to zero
SHOWN = 10  # rows in a text


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
        ]
        return "\n".join(lines) + "\n"

    def save(self, folder: Path | None) -> None:
        """Write text, JSON and the values (safetensors) into ``postmortem/`` of a run folder."""
        if folder is None:
            return
        run = RunFolder(folder)
        (folder / run.POSTMORTEM).mkdir(parents=True, exist_ok=True)
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "values"}
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


class Site(NamedTuple):
    """A ``pyro.sample`` statement as it ran.

    Attributes:
        name, program: its name, in the guide or the model.
        arguments: what its distribution was made of, by name, and its ``value``.
        problem: what is wrong with it, if anything is; and the tensor that shows it.
        log_prob: of its value, by datum and plate; ``None`` where it has none.
    """

    name: str
    program: Literal["guide", "model"]
    arguments: dict[str, Tensor]
    problem: tuple[str, Tensor] | None
    log_prob: Tensor | None

    @property
    def ranges(self) -> dict[str, list[float]]:
        """The smallest and largest value of each argument."""
        return {name: [float(v.detach().min()), float(v.detach().max())] for name, v in self.arguments.items()}

    @property
    def values(self) -> dict[str, Tensor]:
        """The arguments, by the name of the site and theirs."""
        return {f"{self.name}.{name}": value for name, value in self.arguments.items()}


class _Sites(Messenger):
    """Looks at the sites as they run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Site] = []

    def _pyro_post_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            return
        in_model = msg["is_observed"] or any(site.name == msg["name"] for site in self.found)
        arguments = dict(_arguments(msg["fn"]))
        log_prob = _log_prob(msg["fn"], msg["value"])
        problem = _problem(arguments, msg["value"], log_prob, observed=msg["is_observed"])
        arguments["value"] = msg["value"].detach()
        self.found.append(Site(msg["name"], "model" if in_model else "guide", arguments, problem, log_prob))


def examine(
    training: Training,
    step: Step,
    block: list[Tensor],
    rows: Tensor,
    *,
    objectives: list[float],
    parameters: list[list[Tensor]],
) -> Postmortem:
    """Take a guilty step again, eagerly, looking at every site; changes what the step changes but the parameters.

    Args:
        training: as it was before the step.
        step: which takes it.
        block: where its batch lies.
        rows: which of the block's rows it is.
        objectives: of the steps up to this one.
        parameters: their values one step earlier (if known), before the step, and after it.
    """
    random = torch.get_rng_state()
    batch = taken(block, rows)
    names = {id(value): name.removeprefix("pair.") for name, value in training.objective.named_parameters()}
    numbers = numbered(rows if step.local else None)
    with local_params(), layers(step.precision), pyro.validation_enabled(False), numbers, _Sites() as sites:
        x = step.transform(batch[0])
        loss = step.objective(x, *batch[1:]).loss
    guilty = next((site for site in sites.found if site.problem), None)
    site = guilty or _extreme(sites.found)
    stage, suspects = _suspects(training, loss, guilty, parameters[-1])
    parameter = _most_moved(training.parameters, names, parameters, suspects)
    here = _rows(site, training, batch) if stage == "objective" else torch.ones(len(rows), dtype=torch.bool)
    torch.set_rng_state(random)
    lr = step.optimizer.settings["lr"]
    return Postmortem(
        epoch=training.epoch + 1,
        step=training.taken + 1,
        learning_rate=lr,
        stage=stage,
        site=site.name if site else None,
        program=site.program if site else None,
        what=_what(stage, guilty, parameter["name"]),
        ranges=site.ranges if site else {},
        parameter=parameter,
        rows=rows.cpu()[here.cpu()].tolist(),
        objectives=objectives[-5:],
        causes=_causes(site, x, lr, parameter, objectives),
        pyro=_validated(step, batch, rows),
        values={"x": x, "rows": rows, **(site.values if site else {})},
    )


def _suspects(training: Training, loss: Tensor, guilty: Site | None, after: list[Tensor]) -> tuple[Stage, list[int]]:
    """What is not finite first, and the places of the parameters that may be the cause."""
    learned = training.parameters
    gradients = torch.autograd.grad(loss, learned, allow_unused=True) if loss.requires_grad else [None] * len(learned)
    behind = _behind(guilty.problem[1] if guilty and guilty.problem else loss, training)
    if guilty is not None or not bool(loss.isfinite()):
        return "objective", behind
    if wild := [place for place, g in enumerate(gradients) if g is not None and not bool(g.isfinite().all())]:
        return "gradient", wild
    return "update", [place for place, value in enumerate(after) if not bool(value.isfinite().all())] or behind


def _arguments(fn: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The floating-point tensors that a distribution was made of, the innermost distributions included."""
    for name, value in vars(fn).items():
        if isinstance(value, Tensor) and value.is_floating_point() and value.numel():
            yield f"{prefix}{name}", value
        elif isinstance(value, Distribution):
            yield from _arguments(value, prefix)


def _log_prob(fn: Any, value: Any) -> Tensor | None:
    try:
        return fn.log_prob(value)
    except (NotImplementedError, RuntimeError, ValueError):
        return None


def _problem(arguments: dict[str, Tensor], value: Any, log_prob: Tensor | None, *, observed: bool) -> tuple[str, Tensor] | None:
    """What is not finite about a site, or a scale of zero, and the tensor that shows it."""
    for name, argument in arguments.items():
        if not bool(argument.isfinite().all()):
            return f"its {name} is {_odd(argument)}", argument
        entries = argument.diagonal(0, -2, -1) if "tril" in name else argument
        if "scale" in name and "log" not in name and not bool(entries.all()):
            return f"its {name} has run to zero", argument
    if isinstance(value, Tensor) and not observed and not bool(value.isfinite().all()):
        return f"its draw is {_odd(value)}", value
    if log_prob is not None and not bool(log_prob.isfinite().all()):
        return f"its log-probability is {_odd(log_prob)}", log_prob
    return None


def _is_scale(name: str) -> bool:
    """Whether an argument of that name must not be zero."""
    return "scale" in name and not any(other in name for other in ("log", "tril"))


def _odd(tensor: Tensor) -> str:
    """The sort of number that is not finite, and how many."""
    bad = tensor.detach()[~tensor.detach().isfinite()]
    return f"{'NaN' if bool(bad.isnan().any()) else 'infinite'} in {bad.numel()} of {tensor.numel()} entries"


def _extreme(sites: list[Site]) -> Site | None:
    """The site of the largest log-probability, in absolute value."""
    known = [site for site in sites if site.log_prob is not None]
    return max(known, key=lambda site: float(site.log_prob.detach().abs().max()), default=None)  # type: ignore[union-attr]


def _behind(tensor: Tensor, training: Training) -> list[int]:
    """The places of the parameters that a tensor was computed from; all if that is not known."""
    places = {id(parameter): place for place, parameter in enumerate(training.parameters)}
    found, seen, queue = set(), set(), [tensor.grad_fn]
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        found.add(places.get(id(getattr(node, "variable", None))))
        queue += [following for following, _ in node.next_functions]
    return sorted(place for place in found if place is not None) or list(places.values())


def _most_moved(
    parameters: list[Any], names: dict[int, str], values: list[list[Tensor]], suspects: list[int]
) -> dict[str, Any]:
    """Of the suspects the one that moved most beside its size, or is largest if that is not known; its way step by step."""
    earlier = values[0] if len(values) == 3 else None
    before, after = values[-2:]

    def moved(place: int) -> float:
        if earlier is None:
            return _largest(before[place])
        return float((before[place] - earlier[place]).abs().max()) / (_largest(earlier[place]) + 1e-3)

    place = max(suspects, key=moved)
    return {
        "name": names[id(parameters[place])],
        "earlier": None if earlier is None else _largest(earlier[place]),
        "before": _largest(before[place]),
        "after": _largest(after[place]),
        "moved": None if earlier is None else moved(place),
    }


def _largest(tensor: Tensor) -> float:
    """Its largest entry in absolute value; NaN if one is."""
    return float(tensor.detach().abs().max())


def _rows(site: Site | None, training: Training, batch: list[Tensor]) -> Tensor:
    """Which rows of the batch are not finite at a site, ``(B,)``; all if that cannot be told."""
    everything = torch.ones(len(batch[0]), dtype=torch.bool, device=batch[0].device)
    dim = training.pair.plates(*batch).data_dim
    if site is None or site.log_prob is None or site.log_prob.dim() < -dim or site.log_prob.shape[dim] != len(batch[0]):
        return everything
    bad = (~site.log_prob.detach().isfinite()).movedim(dim, 0).reshape(len(batch[0]), -1).any(1)
    return bad if bool(bad.any()) else everything


def _what(stage: str, guilty: Site | None, parameter: str) -> str:
    if guilty and guilty.problem:
        return guilty.problem[0]
    if stage == "gradient":
        return f"the objective is finite, but the gradient of {parameter} is not"
    if stage == "update":
        return f"objective and gradients are finite, but the step throws {parameter} out of float32's range"
    return "the objective is not finite, though every site is"


def _causes(
    site: Site | None,
    x: Tensor,
    lr: float,
    parameter: dict[str, Any],
    objectives: list[float],
) -> list[str]:
    """Likely causes in words, the likeliest first."""
    causes = []
    size = _largest(x[x.isfinite()]) if bool(x.isfinite().any()) else math.inf
    if not bool(x.isfinite().all()) or size > LARGE:
        causes.append(
            f"the data reach {size:.3g} where networks expect values around 1: standardize the data (scale='standardize'), and "
            "look for outliers in the rows named"
        )
    fallen = [value for value in objectives[:-1] if math.isfinite(value)]
    crash = len(fallen) >= 1 and min(fallen) < 10 * min(fallen[0], -1.0)
    moved = parameter["moved"]
    if lr >= 0.1 or (moved or 0) > 1 or crash:
        told = f"{parameter['name']} moved by {moved:.3g} times its size in one step; " if moved else ""
        causes.append(
            f"the learning rate is too large: {told}lower the learning rate (it is {lr:g}), clip the gradients (clip_norm), or "
            "standardize the data"
        )
    for name, argument in site.arguments.items() if site else ():
        if _is_scale(name) and float(argument.detach().abs().min()) < TINY:
            causes.append(
                f"the {name} of this site runs to zero, where a density has no bound: "
                "raise its floor (Gaussian(floor=1e-3)), or fix it (scale='fixed')"
            )
            break
    if not causes:
        causes.append(
            "the model or guide takes a logarithm, a root or a quotient at the edge of its domain: keep its argument away from "
            "it (clamp_min), lower the learning rate, clip the gradients (clip_norm), or standardize the data"
        )
    return causes


def _validated(step: Step, batch: list[Tensor], rows: Tensor) -> str | None:
    """The first line of what Pyro's validation objects to, if it does."""
    try:
        with local_params(), pyro.validation_enabled(True), torch.no_grad(), numbered(rows if step.local else None):
            step.objective(step.transform(batch[0]), *batch[1:])
    except (ValueError, RuntimeError) as error:
        return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return None
