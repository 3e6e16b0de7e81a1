"""Gradient methods: torch's own for eager steps, the same formulas written out for steps that are compiled as a whole."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["OPTIMIZERS", "Optimizer", "OptimizerState", "put_back"]

RATES_AT_ONCE = 512


class OptimizerState(NamedTuple):
    """What an optimizer needs to go on.

    Attributes:
        steps: taken so far.
        moments: what torch keeps of each parameter that had a gradient, by its place and torch's names.
    """

    steps: int
    moments: Mapping[int, Mapping[str, Tensor]]


class Optimizer(abc.ABC):
    """One of ``torch.optim``, which keeps the state and counts the steps, with its formula in the open.

    Class attributes:
        kind: torch's class.
        kept: what torch keeps for each parameter, by its names.

    Args:
        parameters: what is updated, in place.
        lr: the learning rate.

    Attributes:
        torch: the one of ``torch.optim``, whose learning rate a schedule may change.
    """

    kind: ClassVar[Any]
    kept: ClassVar[tuple[str, ...]] = ()

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        self.parameters = list(parameters)
        self.device = self.parameters[0].device
        self.torch: Any = self.kind(self.parameters, lr=lr, fused=self.device.type in ("cpu", "cuda"))
        self._taken = 0  # by `step` and `next_rates`
        self._uncounted = 0  # by `next_rates` alone, of which torch does not know yet
        self._rates: list[Tensor] = []
        self._rates_of = math.nan

    @property
    def settings(self) -> dict[str, Any]:
        """The learning rate and torch's other settings."""
        found: dict[str, Any] = self.torch.param_groups[0]
        return found

    def step(self, skip: Tensor | None = None) -> None:
        """Update the parameters by the gradients that they hold; where ``skip ()`` is true the step is counted alone."""
        self.sync_step_count()
        before = {} if skip is None else {id(tensor): tensor.detach().clone() for tensor in self._updated()}
        self.torch.step()
        if skip is not None:
            updated = self._updated()
            put_back(updated, [before.get(id(tensor), torch.zeros_like(tensor)) for tensor in updated], skip)
        self._taken += 1

    def _updated(self) -> list[Tensor]:
        """What a step changes: parameters that have gradients, and what torch keeps of them already."""
        found = [parameter for parameter in self.parameters if parameter.grad is not None]
        met = [parameter for parameter in found if parameter in self.torch.state]
        return [*found, *(moment for parameter in met for moment in self.moments(parameter))]

    def sync_step_count(self) -> None:
        """Let torch's state count the steps that :meth:`update` took."""
        for state in self.torch.state.values() if self._uncounted else ():
            if "step" in state:
                state["step"] += self._uncounted
        self._uncounted = 0

    def state(self) -> OptimizerState:
        """What torch keeps, the steps counted; its own tensors, not copies."""
        self.sync_step_count()
        kept = ((place, self.torch.state.get(parameter)) for place, parameter in enumerate(self.parameters))
        return OptimizerState(self._taken, {place: dict(state) for place, state in kept if state})

    def restore(self, state: OptimizerState) -> None:
        """Take over what :meth:`state` gave, in place; what torch has made since is set to zero."""
        self._taken, self._uncounted, self._rates = state.steps, 0, []
        for place, parameter in enumerate(self.parameters):
            kept = state.moments.get(place, {})
            own = self.torch.state[parameter] if "step" in kept else self.torch.state.get(parameter, {})
            for name in ("step", *self.kept):
                value = kept.get(name)
                if name in own:
                    own[name].zero_() if value is None else own[name].copy_(value)
                elif value is not None:
                    own[name] = self._placed(name, value, parameter)

    @property
    def taken(self) -> int:
        """Steps taken so far."""
        return self._taken

    def _placed(self, name: str, value: Tensor, parameter: nn.Parameter) -> Tensor:
        """A copy where and as torch would have it."""
        if name == "step":
            return value.to(self.device if self.settings["fused"] else "cpu", copy=True)
        return torch.empty_like(parameter).copy_(value).detach()

    def moments(self, parameter: nn.Parameter) -> list[Tensor]:
        """What torch keeps for a parameter; it makes them at the first step that has a gradient for it."""
        return [self.torch.state[parameter][name] for name in self.kept]

    def next_rates(self) -> Tensor:
        """The numbers that the next :meth:`update` needs, on the parameters' device; asking for them counts as the step."""
        lr = self.torch.param_groups[0]["lr"]
        if not self._rates or lr != self._rates_of:
            steps = torch.arange(self._taken + RATES_AT_ONCE, self._taken, -1, dtype=torch.float64)
            self._rates = list(self.rates(steps).to(self.device, torch.float32).unbind())
            self._rates_of = lr
        self._taken += 1
        self._uncounted += 1
        return self._rates.pop()

    @abc.abstractmethod
    def rates(self, steps: Tensor) -> Tensor:
        """The numbers ``(S, R)`` that :meth:`update` needs for steps ``(S,)``, the first of which is 1."""

    @property
    @abc.abstractmethod
    def share(self) -> float:
        """By what share of its gradient the first of what torch keeps of a parameter moves, or else the parameter."""

    @abc.abstractmethod
    def update(self, parameter: Tensor, gradient: Tensor, moments: list[Tensor], rates: Tensor) -> None:
        """Change a parameter and its moments in place, as torch does."""


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015)."""

    kind: ClassVar[Any] = torch.optim.Adam
    kept = ("exp_avg", "exp_avg_sq")

    def rates(self, steps: Tensor) -> Tensor:
        """The step size and epsilon with the corrections of both moments in them, and the factor of weight decay."""
        lr, (beta1, beta2), eps = (self.settings[name] for name in ("lr", "betas", "eps"))
        correction = (1 - beta2**steps).sqrt()
        decay = torch.full_like(steps, 1 - lr * self.settings["weight_decay"])
        return torch.stack([lr * correction / (1 - beta1**steps), eps * correction, decay], -1)

    @property
    def share(self) -> float:
        """Of the running mean."""
        return 1 - float(self.settings["betas"][0])

    def update(self, parameter: Tensor, gradient: Tensor, moments: list[Tensor], rates: Tensor) -> None:
        """Algorithm 1 of the paper in the more efficient order of its section 2."""
        mean, square = moments
        beta1, beta2 = self.settings["betas"]
        mean.lerp_(gradient, 1 - beta1)
        square.mul_(beta2).add_(gradient.square(), alpha=1 - beta2)
        parameter.mul_(rates[2]).sub_(rates[0] * mean / (square.sqrt() + rates[1]))


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    kind: ClassVar[Any] = torch.optim.AdamW


class SGD(Optimizer):
    """Plain stochastic gradient descent."""

    kind = torch.optim.SGD

    def rates(self, steps: Tensor) -> Tensor:
        """The learning rate."""
        return torch.full_like(steps, self.settings["lr"])[:, None]

    @property
    def share(self) -> float:
        """Of the parameter."""
        return float(self.settings["lr"])

    def update(self, parameter: Tensor, gradient: Tensor, moments: list[Tensor], rates: Tensor) -> None:
        """Down the gradient."""
        parameter.sub_(rates[0] * gradient)


@torch.no_grad()
def put_back(tensors: Sequence[Tensor], before: Sequence[Tensor], skip: Tensor) -> None:
    """Give tensors the values that they had before, if ``skip ()`` is true, without asking the device whether it is."""
    for tensor, value in zip(tensors, before, strict=True):
        tensor.copy_(torch.where(skip, value, tensor))


OPTIMIZERS: dict[str, type[Optimizer]] = {"adam": Adam, "adamw": AdamW, "sgd": SGD}
