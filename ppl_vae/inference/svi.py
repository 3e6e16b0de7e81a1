"""Stochastic variational inference: an objective climbed by minibatch gradients."""

from __future__ import annotations

import dataclasses
import itertools
import math
import warnings
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR, LRScheduler

from ppl_vae.capture import Compile
from ppl_vae.data import Data
from ppl_vae.declaration import require
from ppl_vae.evaluate import batches, evaluate, log_jacobian
from ppl_vae.inference.em import Rows
from ppl_vae.inference.machine import Precision, arithmetic, cpu_threads
from ppl_vae.inference.method import Method, Remark, Report, Row, Stopwatch
from ppl_vae.inference.objectives import ELBO, Objective
from ppl_vae.inference.optimizers import OPTIMIZERS, Optimizer
from ppl_vae.inference.step import Step
from ppl_vae.pair import Pair

__all__ = ["SVI"]

LEARNING_RATE = 2e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class SVI(Method):
    """Stochastic variational inference (Hoffman et al. 2013) with a fused torch optimizer.

    Args:
        seed: of the initial parameters, the order of the data and every sample.
        objective: what is maximized.
        optimizer: the gradient method.
        epochs: passes over the training data.
        batch_size: B, data per step; the last batch of an epoch may be smaller, none is dropped.
        learning_rate: of the first epoch; by default the model's own, 2e-3 for networks.
        schedule: how the learning rate falls with the epochs: not at all; along a half ``cosine`` towards zero; or
            ``exponential`` to a hundredth.
        clip_norm: gradients of a larger norm (in nats per datum) are scaled down to it.
        alternate: the schedule of the EM view: an E-step on the guide's parameters phi, then an M-step on the model's theta, by
            turns from step to step (``steps``) or from epoch to epoch (``epochs``), each with its own optimizer; by default
            both at once.
        patience: stop after so many epochs without a better validation ELBO.
        restore_best: end with the parameters of the epoch with the best validation ELBO.
        compile: whether steps are recorded and compiled: never (``False``), always (``True``, an error where it cannot be
            done), or where it pays (``auto``: recorded for fits of 300 steps or more, compiled for 5000 or more). Compiled
            steps are kept on disk for the next fit, in ``$PPL_VAE_CACHE`` or ``~/.cache/ppl_vae/compiled``.
        precision: of the networks' layers: float32 as the data are, ``bf16`` operands, or ``tf32`` products. Log-probabilities
            and KL are computed and summed in float32.

    Raises:
        ValueError: a number out of range, or an unknown optimizer, schedule or precision.
    """

    objective: Objective = ELBO()
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    epochs: int = 100
    batch_size: int = 64
    learning_rate: float | None = None
    schedule: Literal["constant", "cosine", "exponential"] = "cosine"
    clip_norm: float | None = None
    alternate: Literal["steps", "epochs"] | None = None
    patience: int | None = None
    restore_best: bool = False
    compile: Compile = "auto"
    precision: Precision = "32"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.epochs >= 1, "at least 1 epoch", self.epochs)
        require(self.batch_size >= 1, "a batch_size of at least 1", self.batch_size)
        rate = self.learning_rate
        require(rate is None or 0 < rate < math.inf, "a positive learning_rate", rate)
        require(self.optimizer in OPTIMIZERS, f"an optimizer of {', '.join(OPTIMIZERS)}", self.optimizer)
        schedules = ("constant", "cosine", "exponential")
        require(self.schedule in schedules, f"a schedule of {', '.join(schedules)}", self.schedule)
        require(self.clip_norm is None or self.clip_norm > 0, "a positive clip_norm", self.clip_norm)
        require(self.alternate in (None, "steps", "epochs"), "to alternate steps or epochs", self.alternate)
        require(self.alternate != "epochs" or self.epochs >= 2, "at least 2 epochs to alternate", self.epochs)
        require(self.compile in ("auto", True, False), "a compile that is auto, true or false", self.compile)
        require(self.precision in ("32", "bf16", "tf32"), "a precision of 32, bf16 or tf32", self.precision)
        require(self.patience is None or self.patience >= 1, "a patience of at least 1 epoch", self.patience)

    @property
    def iterations(self) -> int:
        """The number of epochs."""
        return self.epochs

    def run(self, pair: Pair, data: Data, report: Report) -> list[Row]:
        """Fit the pair; a row of history per epoch.

        The columns, in nats per datum: ``objective``, ``elbo``, ``reconstruction`` and ``kl`` are means over the epoch's
        training steps, the first what was climbed, the others the true ELBO and its halves whatever was climbed;
        ``valid_elbo``, ``valid_reconstruction`` and ``valid_kl`` are those of the validation split after it.

        Raises:
            ValueError: early stopping or the best epoch asked for without validation data, an objective that is not defined for
                the pair, or nothing to alternate.
            FloatingPointError: the objective is no longer finite.
        """
        if len(data.valid) == 0 and (self.patience or self.restore_best):
            raise ValueError("patience and restore_best need validation data: give load_data a `valid` fraction above 0")
        if data.spec.missing and not getattr(getattr(pair.model, "likelihood", None), "missing", False):
            raise ValueError(
                "SVI needs complete data: fill missing entries or drop those rows, or fit by EM, which sums them out"
            )
        if self.objective.ramp > self.epochs:
            warnings.warn(
                f"the warm-up of {self.objective.ramp:g} epochs does not end within the {self.epochs} epochs of the fit: "
                "shorten it, or raise epochs",
                Remark,
                stacklevel=2,
            )
        clock = Stopwatch(report)
        pair.plates(*next(batches(pair, data.train[:2], 2)))
        if hasattr(pair.model, "initialize") and "model" not in pair.warm:
            pair.model.initialize(Rows(data.train), torch.Generator(data.train.device).manual_seed(self.seed))
        if hasattr(getattr(pair.model, "prior", None), "initialize") and "model" not in pair.warm:
            pair.model.prior.initialize(data.train)
        if hasattr(pair.guide, "initialize") and "guide" not in pair.warm:
            pair.guide.initialize(Rows(data.train), pair.model)
        training = _Training(self, pair, data)
        history: list[Row] = []
        best = _Best()
        weights = sum(parameter.numel() for parameter in training.parameters)
        # Layers choose bfloat16 as they are recorded; how products are rounded is asked of the device at every step.
        with cpu_threads(self.batch_size * weights), arithmetic("tf32" if self.precision == "tf32" else "32"):
            for epoch in range(1, self.epochs + 1):
                history.append({"epoch": epoch, **training.epoch(), "seconds": clock.seconds})
                _settle(pair)
                clock.report(history[-1])
                if "valid_elbo" in history[-1]:
                    best.see(history[-1], pair if self.restore_best else None)
                    if self.patience is not None and epoch - best.epoch >= self.patience:
                        break
        if best.state is not None:
            pair.load_state_dict(best.state)
            _settle(pair)
        return history


class _Training:
    """The optimizers and what goes with them, between the epochs of one fit."""

    def __init__(self, method: SVI, pair: Pair, data: Data) -> None:
        self.method = method
        self.pair = pair
        self.data = data
        device = data.train.device
        steps = math.ceil(len(data.train) / method.batch_size)
        objective = method.objective.build(pair, steps).to(device)
        self.parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
        rate = method.learning_rate or float(getattr(pair.model, "learning_rate", LEARNING_RATE))
        groups = _halves(pair) if method.alternate else [self.parameters]
        self.optimizers: list[Optimizer] = [OPTIMIZERS[method.optimizer](group, rate) for group in groups]
        self.steps = [
            Step(
                objective,
                data.train.transform,
                optimizer,
                clip_norm=method.clip_norm,
                precision=method.precision,
                compile=method.compile,
                ahead=method.epochs * (len(data.train) // method.batch_size) // len(groups),
            )
            for optimizer in self.optimizers
        ]
        self.turns: Iterator[Step] = itertools.cycle(self.steps)
        self.scheduler = _scheduler(method, self.optimizers[0].torch)
        self.generator = torch.Generator(device).manual_seed(method.seed)

    def epoch(self) -> Row:
        """One pass over the training data, then the validation ELBO."""
        self.pair.train()
        learning_rate = self.scheduler.get_last_lr()[0]
        objective, elbo, reconstruction = (self._pass() / len(self.data.train)).tolist()
        self.scheduler.step()
        for optimizer in self.optimizers[1:]:
            optimizer.settings["lr"] = self.optimizers[0].settings["lr"]
        if not math.isfinite(objective):
            raise FloatingPointError(
                f"the objective became {objective}: lower the learning rate (it is {learning_rate:g}), clip the gradients "
                "(clip_norm), or standardize the data"
            )
        constant = log_jacobian(self.pair, self.data.train.transform)
        row = {"objective": objective + constant, "elbo": elbo + constant}
        if math.isfinite(reconstruction):
            row |= {"reconstruction": reconstruction + constant, "kl": reconstruction - elbo}
        if len(self.data.valid):
            valid = evaluate(self.pair, self.data.valid)
            row |= {f"valid_{name}": valid[name] for name in ("elbo", "reconstruction", "kl")}
        return {**row, "learning_rate": learning_rate}

    def _pass(self) -> Tensor:
        """Step through the training data; sums of objective, ELBO and reconstruction, ``(3,)``."""
        for step in self.steps:
            step.totals.zero_()
        turns = self.turns if self.method.alternate == "steps" else itertools.repeat(next(self.turns))
        labels = getattr(self.pair.model, "labelled", False)
        for *block, order in self.data.train.blocks(self.method.batch_size, generator=self.generator, labels=labels):
            for rows in order.split(self.method.batch_size):
                next(turns)(*(part[rows] for part in block))
        return torch.stack([step.totals for step in self.steps]).sum(0)


class _Best:
    """The best validation ELBO so far, its epoch and, where asked for, its parameters."""

    def __init__(self) -> None:
        self.elbo = -math.inf
        self.epoch = 0
        self.state: dict[str, Tensor] | None = None

    def see(self, row: Row, pair: Pair | None) -> None:
        """Take note of an epoch; keep the parameters of ``pair`` if it is the best."""
        if row["valid_elbo"] > self.elbo:
            self.elbo, self.epoch = row["valid_elbo"], row["epoch"]
            self.state = {name: value.clone() for name, value in pair.state_dict().items()} if pair else None


def _halves(pair: Pair) -> list[list[nn.Parameter]]:
    """The parameters of the guide, and those of the model."""
    halves = [[p for p in half.parameters() if p.requires_grad] for half in (pair.guide, pair.model)]
    for name, half in zip(("guide", "model"), halves, strict=True):
        if not half:
            raise ValueError(f"the {name} has no parameters to alternate with the other's: use alternate=None")
    return halves


def _settle(pair: Pair) -> None:
    """Let a guide over parameters write its point estimates into the model."""
    if hasattr(pair.guide, "settle"):
        pair.guide.settle()


def _scheduler(method: SVI, optimizer: torch.optim.Optimizer) -> LRScheduler:
    if method.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=method.epochs)
    if method.schedule == "exponential":
        return ExponentialLR(optimizer, gamma=0.01 ** (1 / method.epochs))
    return LambdaLR(optimizer, lambda epoch: 1.0)
