"""The pair: a built ``model`` and ``guide``, Pyro programs of one signature, one data plate and the same latent sites."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from functools import partial
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
from ppl_vae.shapes import traced
from ppl_vae.terms import kind_of_sum, sampled, summed_out
from ppl_vae.types import SCORES

__all__ = ["Pair", "Plates", "data_plate", "local_params", "seeded"]


class Plates(NamedTuple):
    """Where the data stand among a program's plates.

    ``nesting`` is the number of plate dimensions, ``data_dim`` (negative) the one that indexes the data, and ``size`` the
    number of data that the programs' log-probabilities are scaled to. ``enumerated`` tells whether the guide has a discrete
    latent variable that Pyro is to sum over. ``shared`` names the latent variables that are not of a datum, but of all data,
    ``summed`` the discrete ones that the model sums out, and ``subsampled`` the plates beside the data's of which a run sees a
    part. ``score`` is what the terms of a datum sum to, one of :data:`ppl_vae.types.SCORES`.
    """

    nesting: int
    data_dim: int
    size: int
    enumerated: bool
    shared: tuple[str, ...] = ()
    summed: tuple[str, ...] = ()
    subsampled: tuple[str, ...] = ()
    score: str = "elbo"

    @property
    def undivided(self) -> tuple[str, ...]:
        """The variables that the model sums out over all data, whose log p(x) is no mean over them."""
        return tuple(name for name in self.summed if name in self.shared)


class Pair(nn.Module):
    """A model and a guide, fitted together.

    Args:
        model: p(x, z), a callable on a batch that samples ``z`` and observes the data inside a plate over the data.
        guide: q(z | x), with the same signature, plates and latent sites.
        mean_field: whether the analytic KL of each latent site may be used (see ``pyro.infer.TraceMeanField_ELBO``).

    Plain Pyro functions are welcome: their ``pyro.param`` become parameters of this module, in no global store. A module's
    attribute ``size``, where it has one, is N: batches may be larger than the data set that it was fitted to.
    """

    model: Any
    guide: Any

    def __init__(self, model: Callable, guide: Callable, *, mean_field: bool = True) -> None:
        super().__init__()
        self.model = _as_module(model)
        self.guide = _as_module(guide)
        self.mean_field = mean_field
        self.warm: set[str] = set()  # the halves, "model" or "guide", that hold an earlier fit's parameters
        self._plates: dict[int, Plates] = {}  # by the size of a batch: a plate may be as large as its batch

    @property
    def score(self) -> str:
        """What the mean of log p(x, z) - log q(z) is, of :data:`ppl_vae.types.SCORES`: the ``elbo``, if both are densities.

        Of a point it is the ``log_joint``, and of codes without p(z) the ``reconstruction``; neither bounds log p(x), nor do
        sums of weighed terms or of factors. An attribute ``score`` of a program says it, else its sites, once it met a batch.
        """
        return self._declared_score or next(
            (plates.score for plates in self._plates.values() if plates.score != "elbo"), "elbo"
        )

    @property
    def _declared_score(self) -> str | None:
        said = getattr(self.model, "score", None) or getattr(self.guide, "score", None)
        if said is not None and said not in SCORES:
            raise ValueError(f"expected a score of {', '.join(SCORES)}, got {said!r}: give the program's attribute one of them")
        return said

    @property
    def undivided(self) -> tuple[str, ...]:
        """The variables that the model sums out over all data, as far as it met batches."""
        return next((plates.undivided for plates in self._plates.values()), ())

    @property
    def sizes(self) -> list[int]:
        """The sizes of the batches that :meth:`plates` has met."""
        return list(self._plates)

    def plates(self, *batch: Tensor) -> Plates:
        """Run both programs once for a batch of this size and find their plates.

        The first run creates the parameters that the programs make when they are first called.

        Raises:
            ValueError: no plate over the data around the observed site, sites of model and guide that do not match, a program
                that fails, or a site whose shapes do not fit; the message names the site.
        """
        size = len(batch[0])
        if size not in self._plates:
            # Pyro checks the first run; later ones, of other sizes, may come from parameters that are no longer finite.
            first = not self._plates
            with local_params(), torch.no_grad(), pyro.validation_enabled(first), seeded(0, batch[0].device):
                guide = traced(self.guide, "guide", batch)
                model = traced(poutine.replay(self.model, trace=guide), "model", batch)
                score = self._declared_score or kind_of_sum(model, guide, partial(self._again, batch))
            _check_sites(model, guide)
            self._plates[size] = _find_plates(model, guide, size, getattr(self.model, "size", None))._replace(score=score)
        return self._plates[size]

    def _again(self, batch: tuple[Tensor, ...]) -> poutine.Trace:
        """The guide at other random numbers."""
        with seeded(1, batch[0].device):
            return traced(self.guide, "guide", batch)


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
        self.score = getattr(program, "score", None)

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
    latent, proposed = ({name for name, site in sampled(half) if not site["is_observed"]} for half in (model, guide))
    latent -= set(summed_out(model, guide))
    # Pyro's automatic guides draw in unconstrained coordinates under names of their own.
    proposed -= {name for name in proposed if guide.nodes[name]["infer"].get("is_auxiliary")}
    unmatched = sorted(latent ^ proposed)
    if unmatched:
        discrete = [name for name in unmatched if name in latent and model.nodes[name]["fn"].has_enumerate_support]
        summed = f"; or let Pyro sum {discrete[0]} out, by infer={{'enumerate': 'parallel'}} in the model" if discrete else ""
        raise ValueError(
            f"the latent sites of model and guide differ: {', '.join(unmatched)} stands in only one of them; "
            f"every pyro.sample of the model that is not observed needs one of the same name in the guide{summed}"
        )


def _find_plates(model: poutine.Trace, guide: poutine.Trace, batch: int, declared: Any) -> Plates:
    stacks = [site["cond_indep_stack"] for site in model.nodes.values() if "cond_indep_stack" in site]
    nesting = max((-frame.dim for stack in stacks for frame in stack if frame.vectorized), default=0)
    frames = {
        frame for name in model.observation_nodes for frame in model.nodes[name]["cond_indep_stack"] if frame.size == batch
    }
    found = [frame for frame in frames if frame.name == "data"] or list(frames)
    if len(found) == 1:
        enumerated = any(guide.nodes[name]["infer"].get("enumerate") == "parallel" for name in guide.stochastic_nodes)
        size, dim = _size(found[0].full_size, batch, declared), found[0].dim
        shared = _shared(model, dim) or _shared(guide, dim)
        return Plates(nesting, dim, size, enumerated, shared, summed_out(model, guide), _subsampled(model, guide, dim))
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


def _subsampled(model: poutine.Trace, guide: poutine.Trace, data_dim: int) -> tuple[str, ...]:
    """The plates beside that over the data of which a run sees a part."""
    frames = {frame for trace in (model, guide) for _, site in sampled(trace) for frame in site["cond_indep_stack"]}
    return tuple(sorted({frame.name for frame in frames if frame.dim != data_dim and (frame.full_size or 0) > frame.size}))
