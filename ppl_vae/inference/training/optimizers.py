"""Gradient methods: torch's functions for eager steps, the same formulas written out for steps that are compiled as a whole.

The functions that the classes of ``torch.optim`` call, and not these, whose first instance imports torch's compiler: of a
process that fits a small model that was 40 % of the time.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from ppl_vae.inference.training.division import Division

__all__ = ["OPTIMIZERS", "Optimizer", "OptimizerState", "norm_of", "put_back"]

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
    """A gradient method with torch's function for a step, and its formula in the open.

    Class attributes:
        defaults: the settings, by the names that ``torch.optim`` has for them, with its defaults.
        kept: what is kept for each parameter, by its names, beside the number of steps.

    Args:
        parameters: what is updated, in place.
        lr: the learning rate.

    Attributes:
        settings: by name; a schedule may change the learning rate ``lr``.
        kept_of: for each parameter that had a gradient ``step`` ``()`` and what is ``kept``, of its shape.
    """

    defaults: ClassVar[Mapping[str, Any]] = {}
    kept: ClassVar[tuple[str, ...]] = ()

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        self.parameters = list(parameters)
        self.device = self.parameters[0].device
        self.settings: dict[str, Any] = {"lr": lr, **self.defaults}
        self.kept_of: dict[nn.Parameter, dict[str, Tensor]] = {}
        # Torch's fused kernels walk memory, whatever strides there are.
        self._fused = self.device.type in ("cpu", "cuda") and all(map(_is_dense, self.parameters))
        self.division: Division | None = None  # of the update between processes
        self._taken = 0
        self.turn: Rates | None = None  # what the last steps were taken by, if not by `step`
        self.uncounted = 0  # of these, those that `kept_of` does not count yet

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @property
    def updated(self) -> list[nn.Parameter]:
        """The parameters that have a gradient."""
        return [parameter for parameter in self.parameters if parameter.grad is not None]

    def gradient_norm(self) -> Tensor:
        """The norm ``()`` of all gradients as one vector."""
        norm = norm_of([self._own(parameter, cast(Tensor, parameter.grad)) for parameter in self.updated]).to(self.device)
        return norm if self.division is None else self.division.total(norm.square()).sqrt()

    @torch.no_grad()
    def step(self, skip: Tensor | None = None, scale: Tensor | None = None) -> None:
        """Update the parameters by the gradients that they hold, and leave these as they are.

        Args:
            skip: if it is true, ``()``, the step is counted alone.
            scale: what gradients are multiplied by, ``()``.
        """
        self.sync_step_count()
        self.turn = None
        found = self.updated
        gradients = [cast(Tensor, parameter.grad) for parameter in found]
        if any(gradient.is_sparse for gradient in gradients):
            raise ValueError("expected dense gradients, got sparse ones: build the network without, nn.Embedding(sparse=False)")
        self._make(found)
        parts = [
            [self._own(parameter, tensor) for tensor in (parameter, gradient, *self.moments(parameter))]
            for parameter, gradient in zip(found, gradients, strict=True)
        ]
        changed = [tensor for value, _, *moments in parts for tensor in (value, *moments)]
        before = [] if skip is None else [tensor.detach().clone() for tensor in changed]
        counts = [self.kept_of[parameter]["step"] for parameter in found] if self.kept else []
        if parts:
            values, gradients, *moments = (list(each) for each in zip(*parts, strict=True))
            self.call(values, gradients if scale is None else [scale * gradient for gradient in gradients], moments, counts)
        if skip is not None:
            put_back(changed, before, skip)
        if self.division is not None:
            self.division.share(found)
        self._taken += 1

    def _own(self, parameter: nn.Parameter, tensor: Tensor) -> Tensor:
        """What this process updates of a tensor of a parameter's shape."""
        return tensor if self.division is None else self.division.own(parameter, tensor)

    def _make(self, parameters: Sequence[nn.Parameter]) -> None:
        """Begin to keep what is kept of parameters."""
        for parameter in parameters if self.kept else ():
            if parameter not in self.kept_of:
                count = torch.zeros((), dtype=torch.float32, device=self.device if self._fused else "cpu")
                self.kept_of[parameter] = {"step": count, **{name: self._zeros(parameter, name) for name in self.kept}}

    def _zeros(self, parameter: nn.Parameter, name: str) -> Tensor:
        """Where something is kept of a parameter, for the first time."""
        if self.division is not None:
            return self.division.kept(parameter, self.kept.index(name))
        return torch.zeros_like(parameter).detach()

    def sync_step_count(self) -> None:
        """Let what is kept of a parameter count the steps that :meth:`update` took of it."""
        for parameter in self.turn.parameters if self.turn and self.uncounted else ():
            if parameter in self.kept_of:
                self.kept_of[parameter]["step"] += self.uncounted
        self.uncounted = 0

    def state(self) -> OptimizerState:
        """What is kept, the steps counted; the tensors themselves, not copies."""
        self.sync_step_count()
        kept = ((place, self.kept_of.get(parameter)) for place, parameter in enumerate(self.parameters))
        return OptimizerState(self._taken, {place: dict(state) for place, state in kept if state})

    def restore(self, state: OptimizerState) -> None:
        """Take over what :meth:`state` gave, in place; what has been made since is set to zero."""
        self._taken, self.uncounted, self.turn = state.steps, 0, None
        for place, parameter in enumerate(self.parameters):
            kept = state.moments.get(place, {})
            own = self.kept_of.setdefault(parameter, {}) if "step" in kept else self.kept_of.get(parameter, {})
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
            return value.to(self.device if self._fused else "cpu", copy=True)
        return self._zeros(parameter, name).copy_(value)

    def moments(self, parameter: nn.Parameter) -> list[Tensor]:
        """What is kept for a parameter that had a gradient at an eager step, by the order of its names."""
        return [self.kept_of[parameter][name] for name in self.kept]

    def rates_of(self, parameters: Sequence[nn.Parameter]) -> Rates:
        """What :meth:`update` needs for these parameters, step by step."""
        return Rates(self, parameters)

    def count(self, steps: int) -> None:
        """Note that :meth:`update` takes so many steps of the parameters whose ``turn`` it is."""
        self._taken += steps
        self.uncounted += steps

    def steps_of(self, parameter: nn.Parameter) -> int:
        """In how many steps a parameter was updated, as far as they are counted; of methods that keep nothing of it, all."""
        if not self.kept:
            return self._taken
        return int(self.kept_of[parameter]["step"]) if parameter in self.kept_of else 0

    @abc.abstractmethod
    def rates(self, steps: Tensor) -> Tensor:
        """The numbers ``(S, R)`` that :meth:`update` needs for steps ``(S,)``, the first of which is 1."""

    @abc.abstractmethod
    def call(
        self, parameters: list[Tensor], gradients: list[Tensor], moments: list[list[Tensor]], counts: list[Tensor]
    ) -> None:
        """Let torch update parameters, and what is kept of them, in place.

        Args:
            parameters: P of them, or parts of them.
            gradients: of each.
            moments: by the names of what is kept, of each.
            counts: the steps of each, if anything is kept.
        """

    @property
    @abc.abstractmethod
    def share(self) -> float:
        """By what share of its gradient the first of what torch keeps of a parameter moves, or else the parameter."""

    @abc.abstractmethod
    def update(self, parameter: Tensor, gradient: Tensor, moments: list[Tensor], rates: Tensor) -> None:
        """Change a parameter and its moments in place, as torch does."""


class Rates:
    """The numbers that :meth:`Optimizer.update` needs for some parameters, by the steps that each of them was updated in.

    They are made for many steps ahead, which serve as long as these parameters alone are updated, at one learning rate.

    Args:
        optimizer: of the parameters.
        parameters: P, that are updated together.
    """

    def __init__(self, optimizer: Optimizer, parameters: Sequence[nn.Parameter]) -> None:
        self.optimizer, self.parameters = optimizer, list(parameters)
        self._ahead: list[Tensor] = []
        self._block = torch.empty(0)
        self._at, self._lr = 0, math.nan

    @property
    def first(self) -> Tensor:
        """Such numbers ``(P, R)``."""
        return self._made([0] * len(self.parameters), 1)[0]

    def next(self) -> Tensor:
        """Those of the next step ``(P, R)``, on the parameters' device; asking for them counts as the step."""
        self._count(1)
        return self._ahead[self._at - 1]

    def several(self, steps: int) -> Tensor:
        """Those of so many steps that follow one another, ``(S, P, R)``."""
        self._count(steps)
        return self._block[self._at - steps : self._at]

    def _count(self, steps: int) -> None:
        optimizer = self.optimizer
        if optimizer.turn is not self or self._lr != optimizer.settings["lr"] or self._at + steps > len(self._ahead):
            optimizer.sync_step_count()
            # Where batches of several kinds take turns, few serve.
            size = max(steps, min(RATES_AT_ONCE, 2 * len(self._ahead)) if optimizer.turn is self else 1)
            self._block = self._made([optimizer.steps_of(parameter) for parameter in self.parameters], size)
            self._ahead, self._at, self._lr = list(self._block.unbind()), 0, optimizer.settings["lr"]
            optimizer.turn = self
        self._at += steps
        optimizer.count(steps)

    def _made(self, counts: list[int], size: int) -> Tensor:
        """Of parameters that were updated in so many steps, for so many more: ``(S, P, R)``."""
        different = sorted(set(counts))
        steps = torch.tensor(different, dtype=torch.float64)[:, None] + torch.arange(1, size + 1, dtype=torch.float64)
        found = self.optimizer.rates(steps.flatten()).unflatten(0, steps.shape)
        each = found[[different.index(count) for count in counts]].transpose(0, 1)
        made: Tensor = each.to(self.optimizer.device, torch.float32).contiguous()
        return made


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015)."""

    defaults = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}  # noqa: RUF012
    kept = ("exp_avg", "exp_avg_sq")
    function: ClassVar[Callable[..., None]] = staticmethod(adam)

    def rates(self, steps: Tensor) -> Tensor:
        """The step size and epsilon with the corrections of both moments in them, and the factor of weight decay."""
        lr, (beta1, beta2), eps = (self.settings[name] for name in ("lr", "betas", "eps"))
        correction = (1 - beta2**steps).sqrt()
        decay = torch.full_like(steps, 1 - lr * self.settings["weight_decay"])
        return torch.stack([lr * correction / (1 - beta1**steps), eps * correction, decay], -1)

    def call(
        self, parameters: list[Tensor], gradients: list[Tensor], moments: list[list[Tensor]], counts: list[Tensor]
    ) -> None:
        """By torch's function."""
        means, squares = moments
        lr, (beta1, beta2), eps, weight_decay = (self.settings[name] for name in ("lr", "betas", "eps", "weight_decay"))
        of_paper: dict[str, Any] = {"beta1": beta1, "beta2": beta2, "lr": lr, "eps": eps, "weight_decay": weight_decay}
        others: dict[str, Any] = {"amsgrad": False, "maximize": False, "fused": self._fused}
        self.function(parameters, gradients, means, squares, [], counts, **of_paper, **others)

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

    defaults = {**Adam.defaults, "weight_decay": 1e-2}  # noqa: RUF012
    function = staticmethod(adamw)


class SGD(Optimizer):
    """Plain stochastic gradient descent."""

    def rates(self, steps: Tensor) -> Tensor:
        """The learning rate."""
        return torch.full_like(steps, self.settings["lr"])[:, None]

    def call(
        self, parameters: list[Tensor], gradients: list[Tensor], moments: list[list[Tensor]], counts: list[Tensor]
    ) -> None:
        """By torch's function."""
        plain: dict[str, Any] = {"weight_decay": 0.0, "momentum": 0.0, "dampening": 0.0, "nesterov": False, "maximize": False}
        momenta: list[Tensor | None] = [None] * len(parameters)
        sgd(parameters, gradients, momenta, lr=self.settings["lr"], fused=self._fused, **plain)

    @property
    def share(self) -> float:
        """Of the parameter."""
        return float(self.settings["lr"])

    def update(self, parameter: Tensor, gradient: Tensor, moments: list[Tensor], rates: Tensor) -> None:
        """Down the gradient."""
        parameter.sub_(rates[0] * gradient)


def _is_dense(tensor: Tensor) -> bool:
    """Whether no number of another tensor lies between its own."""
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) == tensor.numel()


@torch.no_grad()
def put_back(tensors: Sequence[Tensor], before: Sequence[Tensor], skip: Tensor) -> None:
    """Give tensors the values that they had before, if ``skip ()`` is true, without asking the device whether it is."""
    for tensor, value in zip(tensors, before, strict=True):
        tensor.copy_(torch.where(skip, value, tensor))


def norm_of(tensors: Sequence[Tensor]) -> Tensor:
    """The norm ``()`` of all tensors as one vector."""
    norm: Tensor = torch.stack([tensor.norm() for tensor in tensors]).norm() if tensors else torch.zeros(())
    return norm


OPTIMIZERS: dict[str, type[Optimizer]] = {"adam": Adam, "adamw": AdamW, "sgd": SGD}
