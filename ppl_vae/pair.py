"""The pair: a built ``model`` and ``guide``, Pyro programs of one signature, one data plate and the same latent sites."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import constraints, transform_to

__all__ = ["Pair", "Plates", "data_plate", "local_params", "seeded"]


class Plates(NamedTuple):
    """Where the data stand among a program's plates.

    ``nesting`` is the number of plate dimensions, ``data_dim`` (negative) the one that indexes the data, and ``size`` the
    number of data that the programs' log-probabilities are scaled to.
    """

    nesting: int
    data_dim: int
    size: int


class Pair(nn.Module):
    """A model and a guide, fitted together.

    Args:
        model: p(x, z), a callable on a batch that samples ``z`` and observes the data inside a plate over the data.
        guide: q(z | x), with the same signature, plates and latent sites.
        mean_field: whether the analytic KL of each latent site may be used (see ``pyro.infer.TraceMeanField_ELBO``).

    Plain Pyro functions are welcome: their ``pyro.param`` become parameters of this module, in no global store.
    """

    def __init__(self, model: Callable, guide: Callable, *, mean_field: bool = True) -> None:
        super().__init__()
        self.model = _as_module(model)
        self.guide = _as_module(guide)
        self.mean_field = mean_field
        self._plates: Plates | None = None

    def plates(self, *batch: Tensor) -> Plates:
        """Run both programs once and find their plates; creates parameters that the programs make on their first run.

        Raises:
            ValueError: no plate over the data around the observed site, or sites of model and guide that do not match.
        """
        if self._plates is None:
            with local_params(), torch.no_grad(), pyro.validation_enabled(), seeded(0, batch[0].device):
                guide = poutine.trace(self.guide).get_trace(*batch)
                model = poutine.trace(poutine.replay(self.model, trace=guide)).get_trace(*batch)
            _check_sites(model, guide)
            self._plates = _find_plates(model, len(batch[0]))
        return self._plates


def data_plate(size: int, x: Tensor) -> pyro.plate:
    """The plate over the data: ``size`` data in all (N), of which the batch ``x`` holds ``len(x)``.

    Sites inside are scaled by N / B, so a batch's ELBO estimates that of the whole data set.
    """
    return pyro.plate("data", max(size, len(x)), subsample=torch.arange(len(x), device=x.device))


def local_params() -> Any:
    """A context in which modules own their parameters and Pyro's global store is neither read nor written."""
    return pyro.settings.context(module_local_params=True)


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Torch's random numbers from ``seed`` inside, and as if nothing had been drawn afterwards."""
    device = torch.device(device)
    devices = [] if device.type == "cpu" else [device.index or 0]
    with torch.random.fork_rng(devices=devices, device_type="cuda" if device.type == "cpu" else device.type):
        torch.manual_seed(seed)
        yield


class _OwnParams(Messenger):
    """Answers ``pyro.param`` from a module's own parameters, which it creates when first asked."""

    def __init__(self, owner: nn.Module) -> None:
        super().__init__()
        self.owner = owner

    def _pyro_param(self, msg: Any) -> None:
        key = msg["name"].replace(".", "__")
        constraint = msg["kwargs"].get("constraint", constraints.real)
        transform = transform_to(constraint)
        if key not in self.owner._parameters:
            if len(msg["args"]) < 2:
                raise ValueError(f"pyro.param({msg['name']!r}) is read before it has an initial value")
            initial = msg["args"][1]
            initial = initial() if callable(initial) else initial
            if not (isinstance(initial, nn.Parameter) and constraint is constraints.real):
                initial = nn.Parameter(transform.inv(initial.detach()).clone().contiguous())
            self.owner.register_parameter(key, initial)
        parameter = self.owner._parameters[key]
        value = transform(parameter)
        value.unconstrained = weakref.ref(parameter)
        msg["value"] = value
        msg["done"] = True


class _PlainProgram(nn.Module):
    """A user's Pyro function as a module that owns the parameters the function declares with ``pyro.param``."""

    def __init__(self, program: Callable) -> None:
        super().__init__()
        self.program = program

    def forward(self, *batch: Tensor) -> Any:
        with _OwnParams(self):
            return self.program(*batch)


def _as_module(program: Callable) -> nn.Module:
    if not isinstance(program, nn.Module):
        return _PlainProgram(program)
    if isinstance(program, PyroModule) and not hasattr(program._pyro_context, "param_state"):
        # Pyro creates it only for modules that are born with local parameters; ours are used both ways.
        program._pyro_context.param_state = {"params": {}, "constraints": {}}
    return program


def _check_sites(model: poutine.Trace, guide: poutine.Trace) -> None:
    latent, proposed = set(model.stochastic_nodes), set(guide.stochastic_nodes)
    plates = {frame.name for site in model.nodes.values() for frame in site.get("cond_indep_stack", ())}
    unmatched = sorted((latent - plates) ^ (proposed - plates))
    if unmatched:
        raise ValueError(
            f"the latent sites of model and guide differ: {', '.join(unmatched)} stands in only one of them; "
            "every pyro.sample of the model that is not observed needs one of the same name in the guide"
        )


def _find_plates(model: poutine.Trace, batch: int) -> Plates:
    nesting = max((-frame.dim for site in model.nodes.values() for frame in site.get("cond_indep_stack", ())), default=0)
    for name in model.observation_nodes:
        for frame in model.nodes[name]["cond_indep_stack"]:
            if frame.size == batch:
                return Plates(nesting, frame.dim, frame.full_size)
    raise ValueError(
        f"no observed site stands in a pyro.plate over the {batch} data of the batch: write the observation inside "
        "`with pyro.plate('data', N, subsample=x)` so that the ELBO can be given per datum"
    )
