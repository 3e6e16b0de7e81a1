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
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.distributions import constraints, transform_to

from ppl_vae.arguments import whole
from ppl_vae.reads import Reads, called
from ppl_vae.shapes import traced

__all__ = ["Pair", "Plates", "data_plate", "local_params", "seeded"]


class Plates(NamedTuple):
    """Where the data stand among a program's plates.

    ``nesting`` is the number of plate dimensions, ``data_dim`` (negative) the one that indexes the data, and ``size`` the
    number of data that the programs' log-probabilities are scaled to. ``enumerated`` tells whether the guide has a discrete
    latent variable that Pyro is to sum over. ``shared`` names the latent variables that are not of a datum, but of all data.
    """

    nesting: int
    data_dim: int
    size: int
    enumerated: bool
    shared: tuple[str, ...] = ()


class Pair(nn.Module):
    """A model and a guide, fitted together.

    Args:
        model: p(x, z), a callable on a batch that samples ``z`` and observes the data inside a plate over the data.
        guide: q(z | x), with the same signature, plates and latent sites.
        mean_field: whether the analytic KL of each latent site may be used (see ``pyro.infer.TraceMeanField_ELBO``).
        reads: how plain programs are called that take more than x; see :func:`~ppl_vae.build`.

    Plain Pyro functions are welcome: their ``pyro.param`` become parameters of this module, in no global store. A module's
    attribute ``size``, where it has one, is N: batches may be larger than the data set that it was fitted to.
    """

    model: Any
    guide: Any

    def __init__(self, model: Callable, guide: Callable, *, mean_field: bool = True, reads: Reads | None = None) -> None:
        super().__init__()
        self.model = _as_module(model)
        self.guide = _as_module(guide)
        self.reads: tuple[str, ...] = ("x", "y") if getattr(self.model, "labelled", False) else ("x",)
        if reads is not None:
            self.model = called(self.model, reads.model, reads.names)
            self.guide = called(self.guide, reads.guide, reads.names)
            self.reads = reads.names
        self.mean_field = mean_field
        self.warm: set[str] = set()  # the halves, "model" or "guide", that hold an earlier fit's parameters
        # By the size of a batch, as a plate may be as large as it, and by the fields in it, some of which rows may lack.
        self._plates: dict[tuple[int, int], Plates] = {}
        self.baselines: tuple[str, ...] = ()  # the guide's sites that ask for one

    @property
    def score(self) -> str:
        """What the mean of log p(x, z) - log q(z) is: the ``elbo``, if q is a density.

        Of a point it is the ``log_joint``, and of codes without p(z) the ``reconstruction``; neither bounds log p(x). Programs
        say so by an attribute ``score``.
        """
        return str(getattr(self.model, "score", None) or getattr(self.guide, "score", "elbo"))

    @property
    def sizes(self) -> list[int]:
        """The sizes of the batches that :meth:`plates` has met."""
        return list(dict.fromkeys(size for size, _ in self._plates))

    def plates(self, *batch: Tensor) -> Plates:
        """Run both programs once for a batch of this size and find their plates.

        The first run creates the parameters that the programs make when they are first called.

        Raises:
            ValueError: no plate over the data around the observed site, sites of model and guide that do not match, a program
                that fails, or a site whose shapes do not fit; the message names the site.
        """
        size = len(batch[0])
        key = size, len(batch)
        if key not in self._plates:
            # Pyro checks the first run; later ones, of other sizes, may come from parameters that are no longer finite.
            first = not self._plates
            with local_params(), torch.no_grad(), pyro.validation_enabled(first), seeded(0, batch[0].device):
                guide = traced(self.guide, "guide", batch)
                model = traced(poutine.replay(self.model, trace=guide), "model", batch)
            _check_sites(model, guide)
            asking = (name for name in guide.stochastic_nodes if guide.nodes[name]["infer"].get("baseline"))
            self.baselines = tuple(dict.fromkeys((*self.baselines, *asking)))
            self._plates[key] = _find_plates(model, guide, size, getattr(self.model, "size", None))
        return self._plates[key]


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
    """Torch's random numbers from ``seed`` inside, and as if nothing had been drawn afterwards.

    Raises:
        ValueError: a seed that is no whole number, negative or too large for torch.
    """
    seed = whole("seed", seed)
    if not 0 <= seed < 2**63:
        raise ValueError(f"expected a seed of 0 to 2^63 - 1, got {seed}")
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

    def forward(self, *arguments: Any, **named: Any) -> Any:
        with _OwnParams(self):
            return self.program(*arguments, **named)


def _as_module(program: Callable) -> nn.Module:
    if not isinstance(program, nn.Module):
        return _PlainProgram(program)
    if isinstance(program, PyroModule) and not hasattr(program._pyro_context, "param_state"):
        # Pyro creates it only for modules that are born with local parameters; ours are used both ways.
        program._pyro_context.param_state = {"params": {}, "constraints": {}}
    return program


def _check_sites(model: poutine.Trace, guide: poutine.Trace) -> None:
    latent, proposed = set(model.stochastic_nodes), set(guide.stochastic_nodes)
    # Pyro's automatic guides draw in unconstrained coordinates under names of their own.
    proposed -= {name for name in proposed if guide.nodes[name]["infer"].get("is_auxiliary")}
    plates = {frame.name for site in model.nodes.values() for frame in site.get("cond_indep_stack", ())}
    unmatched = sorted((latent - plates) ^ (proposed - plates))
    if unmatched:
        raise ValueError(
            f"the latent sites of model and guide differ: {', '.join(unmatched)} stands in only one of them; "
            "every pyro.sample of the model that is not observed needs one of the same name in the guide"
        )


def _find_plates(model: poutine.Trace, guide: poutine.Trace, batch: int, declared: Any) -> Plates:
    nesting = max((-frame.dim for site in model.nodes.values() for frame in site.get("cond_indep_stack", ())), default=0)
    frames = {
        frame for name in model.observation_nodes for frame in model.nodes[name]["cond_indep_stack"] if frame.size == batch
    }
    found = [frame for frame in frames if frame.name == "data"] or list(frames)
    if len(found) == 1:
        enumerated = any(guide.nodes[name]["infer"].get("enumerate") == "parallel" for name in guide.stochastic_nodes)
        size, dim = _size(found[0].full_size, batch, declared), found[0].dim
        return Plates(nesting, dim, size, enumerated, _shared(model, dim) or _shared(guide, dim))
    if found:
        names = ", ".join(sorted(repr(frame.name) for frame in found))
        raise ValueError(f"the plates {names} all have the batch's size {batch}: call the one over the data 'data'")
    raise ValueError(
        f"no observed site stands in a pyro.plate over the {batch} data of the batch: write the observation inside "
        "`with pyro.plate('data', N, subsample=x)` so that the ELBO can be given per datum"
    )


def _size(full: int, batch: int, declared: Any) -> int:
    """N: what the plate says, except of a plate that grew with a batch larger than the N that the model declares."""
    grown = full == batch and isinstance(declared, int) and 0 < declared < batch
    return declared if grown else full


def _shared(program: poutine.Trace, data_dim: int) -> tuple[str, ...]:
    """The latent sites that stand outside of the plate over the data."""
    latent = {name: program.nodes[name] for name in program.stochastic_nodes if not site_is_subsample(program.nodes[name])}
    return tuple(name for name, site in latent.items() if all(frame.dim != data_dim for frame in site["cond_indep_stack"]))
