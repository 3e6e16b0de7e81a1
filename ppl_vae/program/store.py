"""Pyro's parameter store of one plain program: private, and a module owns what is in it.

A program says ``pyro.param`` and ``pyro.module``, or runs a ``PyroModule`` or an automatic guide; Pyro answers as ever, from a
store that is there for this program alone while it runs. What was asked for becomes part of the owner: a module that was given
to ``pyro.module`` as a submodule, the very object, with its buffers; everything else as a parameter.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import pyro
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import transform_to

__all__ = ["Store"]

# Functions of Pyro in whose frames stands the module whose parameters are asked for.
HOLDERS = {
    pyro.module.__code__: "nn_module",
    PyroModule.__call__.__code__: "self",
    PyroModule.__getattr__.__code__: "self",
    PyroModule.__setattr__.__code__: "self",
}


class Store(Messenger):
    """The store of one program.

    As in Pyro, the model's ``pyro.param`` of a name is the guide's parameter of that name. Modules are told apart by what they
    are: two that go by one name are both trained.

    Args:
        owner: whose parameters and submodules they become.
        twin: the store of the program's other half.
    """

    def __init__(self, owner: nn.Module, twin: Store | None = None) -> None:
        super().__init__()
        self.owner = owner
        self.twin = twin
        self.made: dict[str, tuple[nn.Parameter, Any]] = {}  # by the program itself, not by a module: with their constraints
        self._state: Any = {"params": {}, "constraints": {}}
        self._known: dict[str, Tensor] = {}
        self._met: dict[str, tuple[Tensor, list[nn.Module]]] = {}

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """In place of Pyro's global store, which is neither read nor written."""
        with pyro.settings.context(module_local_params=False), pyro.get_param_store().scope(self._state), self:
            yield
        for name in list(self._met):
            self._own(name, *self._met.pop(name))

    def _pyro_param(self, msg: Any) -> None:
        """Let the store hold a parameter before Pyro looks for it there."""
        name, *initial = msg["args"]
        store = pyro.get_param_store()
        held = store._params.get(name)
        if held is None:
            parameter, constraint = self._new(name, initial[0] if initial else None, msg["kwargs"]["constraint"])
        elif isinstance(held, nn.Parameter):
            _refuse_another(name, held, initial[0] if initial else None, store._constraints[name])
            return
        else:  # made where nobody looked, as while an automatic guide ran its model for the first time
            parameter, constraint = nn.Parameter(held.detach()), store._constraints[name]
        store._params[name], store._constraints[name], store._param_to_name[parameter] = parameter, constraint, name

    def _new(self, name: str, initial: Any, constraint: Any) -> tuple[nn.Parameter, Any]:
        if _is_unconstrained(initial, constraint):
            return initial, constraint
        if name not in self.made:
            self.made[name] = self._of_the_twin(name) or (self._made(name, initial, constraint), constraint)
        return self.made[name]

    def _of_the_twin(self, name: str) -> tuple[nn.Parameter, Any] | None:
        return self.twin.made.get(name) if self.twin is not None else None

    def _made(self, name: str, initial: Any, constraint: Any) -> nn.Parameter:
        earlier = self.owner._parameters.get(_key(name))
        if earlier is not None:
            return earlier
        if initial is None:
            raise ValueError(f"pyro.param({name!r}) is read before it has an initial value")
        value = initial() if callable(initial) else initial
        return nn.Parameter(transform_to(constraint).inv(value.detach()).clone().contiguous())

    def _pyro_post_param(self, msg: Any) -> None:
        tensor = msg["value"].unconstrained()
        if self._known.get(msg["name"]) is not tensor:
            self._met[msg["name"]] = tensor, _holders()

    def _own(self, name: str, tensor: Any, holders: list[nn.Module]) -> None:
        """Let the owner have a parameter, with the outermost of the modules that hold it if there is one."""
        self._known[name] = tensor
        if any(tensor is parameter for parameter in self.owner.parameters()):
            return
        whole = next((holder for holder in reversed(holders) if any(tensor is p for p in holder.parameters())), None)
        if whole is None:
            nn.Module.register_parameter(self.owner, self._free(_key(name)), tensor)
        else:  # a PyroModule would give its submodules other names
            nn.Module.add_module(self.owner, self._free(_key(_module_name(name, whole))), whole)

    def _free(self, key: str) -> str:
        return self._free(f"{key}_") if key in dir(self.owner) else key


def _is_unconstrained(value: Any, constraint: Any) -> bool:
    """Whether a value is itself what is to be trained."""
    return isinstance(value, nn.Parameter) and transform_to(constraint).inv(value) is value


def _key(name: str) -> str:
    return name.replace(".", "__")


def _module_name(name: str, module: nn.Module) -> str:
    """What ``pyro.module`` called a module, or what it calls itself."""
    called, divider, _ = name.partition("$$$")
    return called if divider and not isinstance(module, PyroModule) else type(module).__name__


def _holders() -> list[nn.Module]:
    """The modules, the innermost first, whose parameters Pyro is asked for just now."""
    found, frame = [], sys._getframe(1)
    while frame is not None:
        if frame.f_code in HOLDERS:
            found.append(frame.f_locals[HOLDERS[frame.f_code]])
        frame = frame.f_back  # type: ignore[assignment]
    return found


def _refuse_another(name: str, held: nn.Parameter, given: Any, constraint: Any) -> None:
    """Raise ``ValueError`` for a module that is not the one under its name: Pyro would leave it as it is, in silence."""
    if given is held or not _is_unconstrained(given, constraint):
        return
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code is not pyro.module.__code__:
        frame = frame.f_back
    if frame is None or not frame.f_locals["update_module_params"]:
        called = name.partition("$$$")[0]
        raise ValueError(
            f"pyro.module({called!r}, ...) is given another module than before, whose parameters would never be trained: make "
            "the module once, outside of the program, give each a name of its own, or use update_module_params=True"
        )
