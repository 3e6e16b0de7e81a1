"""Why a training step is not finite: the site, the parameter, the rows, and what is the likely cause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import pyro
import torch
from torch import Tensor

from ppl_vae.inference.training.checks import CAUSES, FAULTS, Evidence, Fault, guilty, largest, look_at
from ppl_vae.inference.training.inspection import RanSite, SiteRecorder, extreme
from ppl_vae.inference.training.postmortem import Postmortem, Stage
from ppl_vae.inference.training.rewindable import Rewindable

__all__ = ["examine"]


def examine(
    training: Rewindable,
    block: list[Tensor],
    rows: Tensor,
    *,
    objectives: list[float],
    parameters: list[list[Tensor]],
) -> Postmortem:
    """Compute a guilty step again, eagerly, looking at every site; no parameter is changed.

    Args:
        training: as it was before the step.
        block: where its batch lies.
        rows: which of the block's rows it is.
        objectives: of the steps up to this one.
        parameters: their values one step earlier (if known), before the step, and after it.
    """
    random = torch.get_rng_state()
    with pyro.validation_enabled(False), SiteRecorder() as recorder:
        x, loss = training.loss(block, rows)
    sites = recorder.sites
    found = guilty(sites)
    site, fault = found or (extreme(sites), None)
    learned = training.parameters
    gradients = torch.autograd.grad(loss, learned, allow_unused=True) if loss.requires_grad else [None] * len(learned)
    evidence = Evidence(
        site=site,
        x=x,
        loss=loss,
        gradients=gradients,
        after=parameters[-1],
        objectives=objectives,
        learning_rate=training.current_rate,
    )
    faults, wrong = look_at(FAULTS, evidence)
    stage: Stage = next((check.stage for check in FAULTS if check.name in wrong and check.stage), "update")
    suspects = _suspects(stage, evidence, _behind(loss if fault is None else fault.tensor, learned))
    parameter = _most_moved(training.parameter_names, parameters, suspects)
    causes, likely = look_at(CAUSES, replace(evidence, parameter=parameter))
    here = _rows(training, block, rows, site) if stage == "objective" else torch.ones(len(rows), dtype=torch.bool)
    torch.set_rng_state(random)
    return Postmortem(
        epoch=training.epoch + 1,
        step=training.batch_index + 1,
        learning_rate=evidence.learning_rate,
        stage=stage,
        site=site.name if site else None,
        program=site.program if site else None,
        what=_what(stage, fault, parameter["name"]),
        ranges=site.ranges if site else {},
        parameter=parameter,
        rows=rows.cpu()[here.cpu()].tolist(),
        objectives=objectives[-5:],
        causes=list(likely.values()),
        pyro=_objection(training, block, rows),
        values={"x": x, "rows": rows, **(site.values if site else {})},
        checks=(*faults, *causes),
    )


def _suspects(stage: Stage, evidence: Evidence, behind: list[int]) -> list[int]:
    """The places of the parameters that may be the cause of what is not finite, given those behind it."""
    if stage == "objective":
        return behind
    if stage == "gradient":
        return [place for place, g in enumerate(evidence.gradients) if g is not None and not bool(g.isfinite().all())]
    return [place for place, value in enumerate(evidence.after) if not bool(value.isfinite().all())] or behind


@runtime_checkable
class _Leaf(Protocol):
    """A node of torch's graph in which a gradient ends."""

    variable: Tensor


def _behind(tensor: Tensor, parameters: Sequence[Tensor]) -> list[int]:
    """The places of the parameters that a tensor was computed from; all if that is not known."""
    places = {id(parameter): place for place, parameter in enumerate(parameters)}
    found, seen, queue = set(), set(), [tensor.grad_fn]
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, _Leaf):
            found.add(places.get(id(node.variable)))
        queue += [following for following, _ in node.next_functions]
    return sorted(place for place in found if place is not None) or list(places.values())


def _most_moved(names: Sequence[str], values: list[list[Tensor]], suspects: list[int]) -> dict[str, Any]:
    """Of the suspects the one that moved most beside its size, or is largest if that is not known; its way step by step."""
    earlier = values[0] if len(values) == 3 else None
    before, after = values[-2:]

    def moved(place: int) -> float:
        if earlier is None:
            return largest(before[place])
        return float((before[place] - earlier[place]).abs().max()) / (largest(earlier[place]) + 1e-3)

    place = max(suspects, key=moved)
    return {
        "name": names[place],
        "earlier": None if earlier is None else largest(earlier[place]),
        "before": largest(before[place]),
        "after": largest(after[place]),
        "moved": None if earlier is None else moved(place),
    }


def _rows(training: Rewindable, block: list[Tensor], rows: Tensor, site: RanSite | None) -> Tensor:
    """Which rows of the batch are not finite at a site, ``(B,)``; all if that cannot be told."""
    everything = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    dim = training.data_dim(block, rows)
    if site is None or site.log_prob is None or site.log_prob.dim() < -dim or site.log_prob.shape[dim] != len(rows):
        return everything
    bad = (~site.log_prob.detach().isfinite()).movedim(dim, 0).reshape(len(rows), -1).any(1)
    return bad if bool(bad.any()) else everything


def _what(stage: Stage, fault: Fault | None, parameter: str) -> str:
    if fault is not None:
        return fault.told
    if stage == "gradient":
        return f"the objective is finite, but the gradient of {parameter} is not"
    if stage == "update":
        return f"objective and gradients are finite, but the step throws {parameter} out of float32's range"
    return "the objective is not finite, though every site is"


def _objection(training: Rewindable, block: list[Tensor], rows: Tensor) -> str | None:
    """The first line of what Pyro's validation objects to, if it does."""
    try:
        with pyro.validation_enabled(True), torch.no_grad():
            training.loss(block, rows)
    except (ValueError, RuntimeError) as error:
        return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return None
