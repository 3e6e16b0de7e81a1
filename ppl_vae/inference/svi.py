"""Stochastic variational inference: an objective climbed by minibatch gradients."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import pyro
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR, LRScheduler

from ppl_vae.data import Data
from ppl_vae.declaration import require
from ppl_vae.evaluate import evaluate
from ppl_vae.inference.em import Rows
from ppl_vae.inference.machine import cpu_threads
from ppl_vae.inference.method import Method, Report, Row, Stopwatch
from ppl_vae.inference.objectives import ELBO, Objective
from ppl_vae.pair import Pair, local_params

__all__ = ["SVI"]

LEARNING_RATE = 2e-3
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


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
        patience: stop after so many epochs without a better validation ELBO.
        restore_best: end with the parameters of the epoch with the best validation ELBO.

    Raises:
        ValueError: a number out of range, or an unknown optimizer or schedule.
    """

    objective: Objective = ELBO()
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    epochs: int = 100
    batch_size: int = 64
    learning_rate: float | None = None
    schedule: Literal["constant", "cosine", "exponential"] = "cosine"
    clip_norm: float | None = None
    patience: int | None = None
    restore_best: bool = False

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
        require(self.patience is None or self.patience >= 1, "a patience of at least 1 epoch", self.patience)

    @property
    def iterations(self) -> int:
        """The number of epochs."""
        return self.epochs

    def run(self, pair: Pair, data: Data, report: Report) -> list[Row]:
        """Fit the pair; a row of history per epoch.

        The columns, in nats per datum: ``objective``, ``elbo``, ``reconstruction`` and ``kl`` are means over the epoch's
        training steps, ``valid_elbo``, ``valid_reconstruction`` and ``valid_kl`` those of the validation split after it.

        Raises:
            ValueError: early stopping or the best epoch asked for without validation data.
            FloatingPointError: the objective is no longer finite.
        """
        if len(data.valid) == 0 and (self.patience or self.restore_best):
            raise ValueError("patience and restore_best need validation data: give load_data a `valid` fraction above 0")
        if data.spec.missing:
            raise ValueError(
                "SVI needs complete data: fill missing entries or drop those rows, or fit by EM, which sums them out"
            )
        clock = Stopwatch(report)
        pair.plates(next(data.train.batches(min(2, len(data.train)))))
        if hasattr(pair.model, "initialize") and "model" not in pair.warm:
            pair.model.initialize(Rows(data.train), torch.Generator(data.train.x.device).manual_seed(self.seed))
        if hasattr(pair.guide, "initialize") and "guide" not in pair.warm:
            pair.guide.initialize(Rows(data.train), pair.model)
        training = _Training(self, pair, data)
        history: list[Row] = []
        best = _Best()
        with cpu_threads(self.batch_size * sum(parameter.numel() for parameter in training.parameters)):
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
    """The optimizer and what goes with it, between the epochs of one fit."""

    def __init__(self, method: SVI, pair: Pair, data: Data) -> None:
        self.method = method
        self.pair = pair
        self.data = data
        device = data.train.x.device
        self.parameters = [parameter for parameter in pair.parameters() if parameter.requires_grad]
        self.objective = method.objective.build(pair)
        self.optimizer = OPTIMIZERS[method.optimizer](
            self.parameters,
            lr=method.learning_rate or getattr(pair.model, "learning_rate", LEARNING_RATE),
            fused=device.type in ("cpu", "cuda"),
        )
        self.scheduler = _scheduler(method, self.optimizer)
        self.generator = torch.Generator(device).manual_seed(method.seed)
        self.validate = True

    def epoch(self) -> Row:
        """One pass over the training data, then the validation ELBO."""
        self.pair.train()
        totals = torch.zeros(2, device=self.data.train.x.device)
        learning_rate = self.scheduler.get_last_lr()[0]
        for x in self.data.train.batches(self.method.batch_size, generator=self.generator):
            totals += len(x) * self._step(x)
        self.scheduler.step()
        constant = self.data.train.transform.log_jacobian
        objective, reconstruction = (totals / len(self.data.train)).tolist()
        if not math.isfinite(objective):
            raise FloatingPointError(
                f"the objective became {objective}: lower the learning rate (it is {learning_rate:g}), clip the gradients "
                "(clip_norm), or standardize the data"
            )
        row = {
            "objective": objective + constant,
            "elbo": objective + constant,
        }
        if math.isfinite(reconstruction):
            row |= {"reconstruction": reconstruction + constant, "kl": reconstruction - objective}
        if len(self.data.valid):
            valid = evaluate(self.pair, self.data.valid)
            row |= {f"valid_{name}": valid[name] for name in ("elbo", "reconstruction", "kl")}
        return {**row, "learning_rate": learning_rate}

    def _step(self, x: Tensor) -> Tensor:
        """One gradient step; the objective and the reconstruction of the batch, ``(2,)``, still on the device."""
        self.optimizer.zero_grad(set_to_none=True)
        # Pyro's checks cost as much as a small step: the first step of a fit makes them, the others have its shapes.
        with local_params(), pyro.validation_enabled(self.validate):
            loss, reconstruction = self.objective(x)
            loss.backward()
        self.validate = False
        if self.method.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.method.clip_norm)
        self.optimizer.step()
        return torch.stack([-loss.detach(), reconstruction])


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
