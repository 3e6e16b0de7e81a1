"""A loss that Pyro has and this library has not, or one's own: climbed as it is, and guarded by less."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

import pyro
import torch
from pyro import infer
from torch import Tensor, nn

from ppl_vae.declaration import require
from ppl_vae.inference.objectives.base import Estimate, Objective
from ppl_vae.program.pair import Pair, Programs, weighed

__all__ = ["PyroLoss", "objective_of"]

# Whose loss is a tensor that the same operations give at every call, of these very classes: theirs may do otherwise.
DIFFERENTIABLE = (infer.Trace_ELBO, infer.TraceMeanField_ELBO, infer.TraceEnum_ELBO, infer.TraceTMC_ELBO)
ELBOS = (infer.Trace_ELBO, infer.TraceMeanField_ELBO, infer.TraceEnum_ELBO, infer.TraceGraph_ELBO)
# They look for parameters in Pyro's global store.
JIT = (infer.JitTrace_ELBO, infer.JitTraceMeanField_ELBO, infer.JitTraceEnum_ELBO, infer.JitTraceGraph_ELBO)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PyroLoss(Objective):
    """Minus a loss in Pyro's form, a sum over the N data: ``SVI(objective=TraceGraph_ELBO())`` is short for it.

    An object of ``pyro.infer``, such as ``TraceGraph_ELBO()``, ``RenyiELBO()`` or ``ReweightedWakeSleep()``, climbs by the
    gradients that its ``loss_and_grads`` gives; a function ``loss(model, guide, *batch)`` returns a scalar tensor, as
    ``pyro.infer.SVI`` takes it. The fields of a batch are positional. The history's ``objective`` is minus the loss divided by
    N, the size of the plate over the data (of several losses, the first).

    What is then not guarded is told in a remark: that it bounds log p(x), and what it keeps from step to step. There is no YAML
    of it, so no run folder either.

    Args:
        loss: the object or the function.

    Raises:
        ValueError: neither of them.

    Examples:
        >>> PyroLoss(loss=infer.TraceGraph_ELBO()).name
        'TraceGraph_ELBO'
    """

    declarable: ClassVar[bool] = False

    loss: Any

    def __post_init__(self) -> None:
        of_class = f"; write {self.loss.__name__}()" if isinstance(self.loss, type) else ""
        require(_is_loss(self.loss), f"an object of pyro.infer or a function of model, guide and batch{of_class}", self.loss)
        eager = type(self.loss).__name__.removeprefix("Jit")
        require(
            not isinstance(self.loss, JIT), f"a loss that is not compiled, such as {eager}(): the fit records it", self.loss
        )

    @property
    def name(self) -> str:
        """What the loss is called."""
        return self.loss.__name__ if isinstance(self.loss, _Named) else type(self.loss).__name__

    @property
    def tells_elbo(self) -> bool:
        """Whether it is minus the ELBO: of Pyro's own classes that are."""
        return type(self.loss) in ELBOS

    @property
    def bounds(self) -> bool:
        """Whether it is about log p(x)."""
        return isinstance(self.loss, infer.ELBO)

    @property
    def recordable(self) -> bool:
        """Whether its steps can be recorded: not those of an object that takes its gradients itself."""
        return type(self.loss) in DIFFERENTIABLE or not self.bounds

    @property
    def takes_weights(self) -> bool:
        """Whether it is a sum of terms, each of which can be scaled: of Pyro's own classes the ELBOs."""
        return self.tells_elbo

    @property
    def adds_up(self) -> bool:
        """Of Pyro's own classes the ELBOs."""
        return self.tells_elbo

    @property
    def honours_baselines(self) -> bool:
        """Whether it reads ``infer={"baseline": ...}``."""
        return isinstance(self.loss, infer.TraceGraph_ELBO)

    @property
    def remark(self) -> str:
        """What is not guarded."""
        parts = [
            f"{self.name} is taken as it is: the history's objective is minus its loss, divided by the N of the data's plate"
        ]
        if not self.tells_elbo:
            parts.append("it is no ELBO of the training data, and whether it bounds log p(x) is not checked")
        if isinstance(self.loss, infer.TraceMeanField_ELBO):
            parts.append(
                "of a variable that the guide draws as Delta(value, log_density), as automatic guides do positive and bounded "
                "ones, it leaves the log_density out: ELBO() does not"
            )
        if isinstance(self.loss, infer.RenyiELBO):
            ours = f"Renyi(alpha={self.loss.alpha:g}, samples={self.loss.num_particles})"
            parts.append(
                "in batches of fewer than all data it raises each particle's weight to the power N / batch, so that the best "
                f"particle alone is climbed and the number passes log p(x): {ours} does not"
            )
        if not self.recordable:
            parts.append("steps are eager, and what it keeps between them is not put back where a fit rewinds")
        return "; ".join(
            [*parts, "evaluate and valid_* are this library's own numbers; there is no run folder and no resuming"]
        )

    def build(self, pair: Pair, steps_per_epoch: int = 1) -> nn.Module:
        """The loss of a pair as a module."""
        return _Differentiable(pair, self) if self.recordable else _WithGradients(pair, self)


def objective_of(value: Any) -> Any:
    """An objective as it is; a loss in Pyro's form as one."""
    return PyroLoss(loss=value) if _is_loss(value) else value


@runtime_checkable
class _Named(Protocol):
    """A function, in contrast to an object."""

    __name__: str


class _Given(nn.Module):
    """A loss, from its value to an estimate in nats per datum."""

    def __init__(self, pair: Pair, declared: PyroLoss) -> None:
        super().__init__()
        self.pair = pair
        self.declared = declared
        self.loss = copy.copy(declared.loss)  # it notes the number of plates of the programs that it met
        self._kept: dict[int, Any] = {}  # moving averages, which Pyro keeps in its store, in the shape of a batch

    def forward(self, *batch: Tensor) -> Estimate:
        """Of a batch."""
        size, rows = self.pair.plates(*batch).size, len(batch[0])
        with pyro.get_param_store().scope(self._kept.get(rows)) as kept:
            loss = (self.climbed(*batch) if torch.is_grad_enabled() else self.value(*batch)) / size
        if kept["params"] and self.declared.recordable:
            raise ValueError(
                f"expected the parameters of {self.declared.name} in the model or the guide, got pyro.param "
                f"{', '.join(kept['params'])} in the loss, which no optimizer would see: move it there"
            )
        self._kept[rows] = kept
        unknown = torch.full_like(loss.detach(), torch.nan)
        return Estimate(loss, -loss.detach() if self.declared.tells_elbo else unknown, unknown)

    def value(self, *batch: Tensor) -> Tensor:
        """The loss alone."""
        loss = self.loss.loss if self.declared.bounds else self.loss
        return self._scalar(loss(*self.programs(*batch), *batch))

    def programs(self, *batch: Tensor) -> Programs:
        """Model and guide, their terms by the weights of the batch's rows."""
        return weighed(self.pair, self.pair.plates(*batch))

    def climbed(self, *batch: Tensor) -> Tensor:
        """The loss, and through it its gradients."""
        raise NotImplementedError

    def _scalar(self, loss: Any) -> Tensor:
        loss = loss[0] if isinstance(loss, tuple) else loss
        value = torch.as_tensor(loss, device=self._device)
        if value.numel() != 1:
            raise ValueError(f"expected {self.declared.name} to return one number, got a tensor of shape {tuple(value.shape)}")
        return value.reshape(())

    @property
    def _device(self) -> torch.device:
        return next(self.pair.parameters()).device


class _Differentiable(_Given):
    """Of a tensor that carries its gradients."""

    def climbed(self, *batch: Tensor) -> Tensor:
        loss: Callable[..., Any] = self.loss.differentiable_loss if self.declared.bounds else self.loss
        value = self._scalar(loss(*self.programs(*batch), *batch))
        if not value.requires_grad:
            raise ValueError(
                f"expected {self.declared.name} to return a tensor with a gradient, got one that depends on no parameter: "
                "leave out .item(), .detach() and torch.no_grad()"
            )
        return value


class _WithGradients(_Given):
    """Of an object that leaves its gradients in the parameters."""

    def climbed(self, *batch: Tensor) -> Tensor:
        parameters = [parameter for parameter in self.pair.parameters() if parameter.requires_grad]
        before = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        try:
            value = self._scalar(self.loss.loss_and_grads(*self.programs(*batch), *batch)).detach()
            found = [(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]
        finally:
            for parameter, gradient in zip(parameters, before, strict=True):
                parameter.grad = gradient
        if not found:
            raise ValueError(
                f"expected {self.declared.name} to leave gradients, got none: it sees parameters of pyro.param and pyro.module "
                "only, register networks by pyro.module"
            )
        slope = cast(Tensor, sum((parameter * gradient).sum() for parameter, gradient in found))
        return slope + (value - slope.detach())


def _is_loss(value: Any) -> bool:
    return not isinstance(value, type | Objective) and (isinstance(value, infer.ELBO) or callable(value))
