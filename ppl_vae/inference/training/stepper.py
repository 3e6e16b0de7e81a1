"""Takes the steps of a training, and goes back to where it was."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ppl_vae.data import Data
from ppl_vae.data.fields import taken
from ppl_vae.inference.training.division import Division
from ppl_vae.inference.training.optimizers import OPTIMIZERS, Optimizer
from ppl_vae.inference.training.plan import TrainingPlan
from ppl_vae.inference.training.schedules import SCHEDULES
from ppl_vae.inference.training.shares import Shares
from ppl_vae.inference.training.state import StepState
from ppl_vae.inference.training.step import Step
from ppl_vae.program.context import local_params
from ppl_vae.program.facts import fitting_methods
from ppl_vae.program.machine import choose_precision, layers
from ppl_vae.program.pair import Pair, numbered
from ppl_vae.program.processes import current
from ppl_vae.program.randomness import put_random, random_state
from ppl_vae.program.weighing import weighing
from ppl_vae.storage.records import map_tensors

__all__ = ["Stepper"]

SHORT = 2**22  # multiplications of a step, forwards, up to which Python takes a noticeable part of its time
AT_ONCE = 16  # such steps by one call: a millisecond, after which it can be stopped


class Stepper:
    """The optimizers of a pair, their steps, and all that these change: :class:`Rewindable`.

    Args:
        plan: how.
        pair: model and guide, their start found.
        data: the splits.
        steps_per_epoch: how many batches an epoch has.

    Attributes:
        processes: that take each step together.
        objective: the module that is climbed.
        parameters: what is trained.
        epoch: epochs done.
        batch_index: steps of the epoch in progress, those skipped included.
        skipped: rows of that epoch whose steps were not taken.
        active_optimizer: turns taken by the optimizers, whose remainder says whose turn it is.
        rate_factor: what the learning rate is multiplied by after it was found too large.

    Raises:
        ValueError: there is nothing to train, or nothing to alternate.
    """

    def __init__(self, plan: TrainingPlan, pair: Pair, data: Data, steps_per_epoch: int) -> None:
        self.plan, self.pair, self.data = plan, pair, data
        self.device = data.train.device
        self.objective: nn.Module = plan.objective.build(pair, steps_per_epoch).to(self.device)
        self.modules = {"pair": pair, "transform": data.train.transform, "objective": self.objective}
        self.parameters = [parameter for parameter in self.objective.parameters() if parameter.requires_grad]
        if not self.parameters:
            others = fitting_methods(pair.model)
            told = f"this model has no parameters that SVI could train: fit it by {others}"
            plain = (
                "model and guide have no parameters to train: declare them with pyro.param, register networks with "
                "pyro.module, or make the programs modules"
            )
            raise ValueError(told if others and not pair.plain else plain)
        groups = _halves(pair) if plan.alternate else [self.parameters]
        self.optimizers: list[Optimizer] = [OPTIMIZERS[plan.optimizer](group, plan.learning_rate) for group in groups]
        self.processes = current()
        for optimizer in self.optimizers:
            optimizer.division = Division.of(self.processes, optimizer.parameters, len(optimizer.kept))
        self.shares = Shares(self.processes, pair)
        self.steps: list[Step] = []
        self.epoch = self.batch_index = self.skipped = self.active_optimizer = 0
        self.rate_factor = 1.0

    def make_steps(self, epochs: int, before: list[int] | None = None) -> None:
        """Decide how steps are to go: eagerly, recorded or compiled.

        Args:
            epochs: that were planned as the training began.
            before: of a training that goes on, the steps that each optimizer has taken.
        """
        plan, train = self.plan, self.data.train
        rows, kinds = len(train), len(train.apart(self.pair.reads))
        repeated = plan.compile is True or not self.pair.model_facts.data_dependent
        # Of rows that lack a field there may be too few for one batch: a row is to count as any other.
        full_batch = plan.batch_size if kinds > 1 else None
        self.steps = [
            Step(
                self.objective,
                self.data.train.transform,
                optimizer,
                clip_norm=plan.clip_norm,
                skip_norm=plan.skip_norm,
                precision=plan.precision,
                compile=plan.compile if plan.objective.recordable and repeated else False,
                local=self.pair.local,
                weighted=train.weights is not None,
                ahead=epochs * (rows // plan.batch_size) // len(self.optimizers),
                go_on_at=min(plan.batch_size, rows) if steps > 0 else None,
                full_batch=full_batch,
                kinds=kinds if train.lead is not None else 1,
                shares=self.shares,
            )
            for optimizer, steps in zip(self.optimizers, before or [0] * len(self.optimizers), strict=True)
        ]

    def set_precision(self, multiplications: int) -> None:
        """Before the first step: multiply what the plan asks for, if steps of so many multiplications gain by it."""
        precision = choose_precision(self.plan.precision, self.device, multiplications)
        for step in self.steps:
            step.precision = precision
            step.short = multiplications <= SHORT and len(self.steps) == 1

    @property
    def at_once(self) -> int:
        """Steps that are best taken together."""
        return AT_ONCE if self.steps[0].short and self.steps[0].way == "compiled" else 1

    # --- steps

    @property
    def active_step(self) -> Step:
        """That of the optimizer whose turn it is: by steps, the guide's so many times before the model's."""
        if len(self.steps) == 1:
            return self.steps[0]
        guide_turns = self.plan.encoder_steps if self.plan.alternate == "steps" else 1
        turn = self.active_optimizer % (guide_turns + 1)
        return self.steps[int(turn == guide_turns)]

    def step(self, block: list[Tensor], rows: Tensor) -> None:
        """Take the step on some rows of a block."""
        numbers = (rows,) if self.pair.local else ()
        self.active_step(*taken(block, rows), *numbers)
        self._count()

    def several(self, block: list[Tensor], batches: list[Tensor]) -> None:
        """Take the steps on some rows of a block after others."""
        if len(batches) > 1 and self.active_step.several(block, batches):
            self.batch_index += len(batches)
        else:
            for rows in batches:
                self.step(block, rows)

    def skip(self, rows: Tensor) -> None:
        """Leave the step on some rows out."""
        self.skipped += len(rows)
        self._count()

    def _count(self) -> None:
        self.batch_index += 1
        self.active_optimizer += self.plan.alternate == "steps"

    def start_epoch(self) -> None:
        """Sum anew."""
        for step in self.steps:
            step.totals.zero_()

    def end_epoch(self) -> None:
        """Count the epoch in progress."""
        self.epoch, self.batch_index, self.skipped = self.epoch + 1, 0, 0
        self.active_optimizer += self.plan.alternate == "epochs"

    @property
    def totals(self) -> Tensor:
        """Sums of objective, ELBO and reconstruction over the epoch's data so far, ``(3,)``; see :class:`Step` for a fourth."""
        return torch.stack([step.totals for step in self.steps]).sum(0)

    def damp(self, factor: float) -> None:
        """Multiply the learning rate from here on."""
        self.rate_factor *= factor
        self.set_rate()

    def set_rate(self) -> float:
        """Give every optimizer the learning rate of the epoch in progress, which is returned."""
        part = self.epoch / self.plan.epochs
        rate = self.rate_factor * self.plan.learning_rate * SCHEDULES[self.plan.schedule](part)
        for optimizer in self.optimizers:
            optimizer.settings["lr"] = rate
        return rate

    # --- what a diagnosis looks at

    @torch.no_grad()
    def finite(self) -> bool:
        """Whether the objective of the epoch's steps is finite, and every parameter."""
        totals = [step.totals[0] for step in self.steps]
        if bool(torch.stack([*totals, *(parameter.sum() for parameter in self.parameters)]).isfinite().all()):
            return True  # a sum is not finite if a term is not; it may also overflow
        terms = [*(total.isfinite() for total in totals), *(value.isfinite().all() for value in self.parameters)]
        return bool(torch.stack(terms).all())

    def loss(self, block: list[Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
        """What the next step would compute, eagerly: x as the model sees it, and the loss with its graph."""
        step = self.active_step
        raw, *behind = taken(block, rows)
        others, weights, numbers = step.apart([*behind, *((rows,) if step.local else ())])
        with local_params(), layers(step.precision), numbered(numbers), weighing(weights):
            x: Tensor = step.transform(raw)
            loss: Tensor = step.objective(x, *others).loss
        return x, loss

    def data_dim(self, block: list[Tensor], rows: Tensor) -> int:
        """The dimension of the plate over the data in log-probabilities of such a batch, counted from the right."""
        raw, *behind = taken(block, rows)
        others = behind[:-1] if self.active_step.weighted else behind
        return self.pair.plates(raw, *others).data_dim

    @property
    def objective_sum(self) -> float:
        """The sum of the objective over the epoch's data so far."""
        return sum(step.totals[0].item() for step in self.steps)

    @property
    def current_rate(self) -> float:
        """The learning rate of the next step."""
        return float(self.active_step.optimizer.settings["lr"])

    @property
    def parameter_names(self) -> list[str]:
        """What the parameters are called in the pair."""
        names = {id(value): name.removeprefix("pair.") for name, value in self.objective.named_parameters()}
        return [names[id(parameter)] for parameter in self.parameters]

    # --- where it is, and back

    @torch.no_grad()
    def snapshot(self) -> StepState:
        """A copy of all that steps change."""
        return map_tensors(torch.clone, self.state())

    def state(self) -> StepState:
        """All that steps change, the tensors themselves."""
        return StepState(
            **self._tensors(),
            totals=tuple(step.totals for step in self.steps),
            optimizers=tuple(optimizer.state() for optimizer in self.optimizers),
            random=random_state(self.device),
            epoch=self.epoch,
            batch_index=self.batch_index,
            skipped=self.skipped,
            active_optimizer=self.active_optimizer,
        )

    @torch.no_grad()
    def restore(self, state: StepState) -> None:
        """Be where a snapshot was taken, in the same epoch."""
        kept = {"pair": state.pair, "transform": state.transform, "objective": state.objective}
        for part, named in self._tensors().items():
            for name, tensor in named.items():
                if name in kept[part]:  # a plain program may have asked for a parameter since
                    tensor.copy_(kept[part][name])
        for step, totals in zip(self.steps, state.totals, strict=True):
            step.totals.copy_(totals)
        for optimizer, of_it in zip(self.optimizers, state.optimizers, strict=True):
            optimizer.restore(of_it)
        put_random(state.random, self.device)
        self.epoch, self.batch_index, self.skipped = state.epoch, state.batch_index, state.skipped
        self.active_optimizer = state.active_optimizer

    def tensors(self) -> dict[str, Tensor]:
        """All tensors that are the same in every process between two steps, by name."""
        named = {f"{part}.{name}": value for part, held in self._tensors().items() for name, value in held.items()}
        return {**named, "the random numbers": torch.get_rng_state()}

    def _tensors(self) -> dict[str, dict[str, Tensor]]:
        """The tensors of pair, transform and objective; one that several hold is the first one's, under its first name."""
        seen: set[int] = set()
        found: dict[str, dict[str, Tensor]] = {}
        for part, module in self.modules.items():
            found[part] = {}
            for name, tensor in module.state_dict(keep_vars=True).items():
                if id(tensor) not in seen:
                    seen.add(id(tensor))
                    found[part][name] = tensor
        return found


def _halves(pair: Pair) -> list[list[nn.Parameter]]:
    """The parameters of the guide, and those of the model."""
    halves = [[p for p in half.parameters() if p.requires_grad] for half in (pair.guide, pair.model)]
    for name, half in zip(("guide", "model"), halves, strict=True):
        if not half:
            raise ValueError(f"the {name} has no parameters to alternate with the other's: use alternate=None")
    return halves
