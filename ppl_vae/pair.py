"""The pair: a built ``model`` and ``guide``, Pyro programs of one signature, one data plate and the same latent sites."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.nn import PyroModule
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from ppl_vae.arguments import whole
from ppl_vae.reads import Call, Reads
from ppl_vae.rows import Counting, Looked, data_plate, grown, last_rows, numbered
from ppl_vae.shapes import traced
from ppl_vae.store import Store
from ppl_vae.terms import kind_of_sum, sampled, summed_out
from ppl_vae.types import SCORES

__all__ = ["Pair", "Plates", "Programs", "data_plate", "local_params", "numbered", "seeded"]


class Plates(NamedTuple):
    """Where the data stand among a program's plates.

    ``nesting`` is the number of plate dimensions, ``data_dim`` (negative) the one that indexes the data, and ``size`` the
    number of data that the programs' log-probabilities are scaled to. ``enumerated`` tells whether the guide has a discrete
    latent variable that Pyro is to sum over. ``shared`` names the latent variables that are not of a datum, but of all data,
    ``summed`` the discrete ones that the model sums out, and ``subsampled`` the plates beside the data's of which a run sees a
    part. ``score`` is what the terms of a datum sum to, one of :data:`ppl_vae.types.SCORES`, and ``name`` is what the plate
    over the data is called.
    """

    nesting: int
    data_dim: int
    size: int
    enumerated: bool
    shared: tuple[str, ...] = ()
    summed: tuple[str, ...] = ()
    subsampled: tuple[str, ...] = ()
    score: str = "elbo"
    name: str = "data"

    @property
    def undivided(self) -> tuple[str, ...]:
        """The variables that the model sums out over all data, whose log p(x) is no mean over them."""
        return tuple(name for name in self.summed if name in self.shared)


class Programs(NamedTuple):
    """What is run, in place of the modules that own the parameters: both take a batch."""

    model: Callable
    guide: Callable


class Pair(nn.Module):
    """A model and a guide, fitted together.

    Args:
        model: p(x, z), a callable on a batch that samples ``z`` and observes the data inside a plate over the data.
        guide: q(z | x), with the same signature, plates and latent sites.
        mean_field: whether the analytic KL of each latent site may be used (see ``pyro.infer.TraceMeanField_ELBO``).
        size: N, the number of data that are fitted to. A plate as large as any batch counts as the plate over these N.
        plain: whether the programs are a user's own, which may ask for ``pyro.param`` and ``pyro.module``.
        reads: how plain programs are called that take more than x; see :func:`~ppl_vae.build`.

    Plain Pyro functions are welcome: what they ask Pyro's parameter store for becomes part of this module, and no global store
    is read or written. A module's attribute ``size``, where it has one and none is given here, is N: batches may be larger
    than the data set that it was fitted to.
    """

    model: Any
    guide: Any

    def __init__(
        self,
        model: Callable,
        guide: Callable,
        *,
        mean_field: bool = True,
        size: int | None = None,
        plain: bool = True,
        reads: Reads | None = None,
    ) -> None:
        super().__init__()
        self.model = _as_module(model)
        self.guide = _as_module(guide)
        self.reads: tuple[str, ...] = ("x", "y") if getattr(self.model, "labelled", False) else ("x",)
        self._calls: tuple[Call | None, Call | None] = (None, None)
        if reads is not None:
            self.reads, self._calls = reads.names, (reads.model, reads.guide)
        self.mean_field = mean_field
        self.size = size
        self.plain = plain
        self.local = False  # whether parameters belong to rows of the training data; known after the first run
        self.warm: set[str] = set()  # the halves, "model" or "guide", that hold an earlier fit's parameters
        # By the size of a batch, as a plate may be as large as it, and by the fields in it, some of which rows may lack.
        self._plates: dict[tuple[int, int], Plates] = {}
        self.baselines: tuple[str, ...] = ()  # the guide's sites that ask for one
        self._stores = [half.store if isinstance(half, _PlainProgram) else Store(half) for half in (self.model, self.guide)]
        for store, twin in zip(self._stores, reversed(self._stores), strict=True):
            store.twin = twin

    @property
    def programs(self) -> Programs:
        """Model and guide as they are run."""
        if not self.plain:
            return Programs(self.model, self.guide)
        return Programs(*(_Running(self, store, call) for store, call in zip(self._stores, self._calls, strict=True)))

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
            model, guide, score, local = self._first_run(batch)
            _check_sites(model, guide)
            asking = (name for name in guide.stochastic_nodes if guide.nodes[name]["infer"].get("baseline"))
            self.baselines = tuple(dict.fromkeys((*self.baselines, *asking)))
            declared = self.size or getattr(self.model, "size", None)
            self._plates[key] = _find_plates(model, guide, size, declared, self._name)._replace(score=score)
            self.local |= local
        return self._plates[key]

    def _first_run(self, batch: tuple[Tensor, ...]) -> tuple[poutine.Trace, poutine.Trace, str, bool]:
        """Traces of model and guide, what their terms sum to, and whether they asked for the rows of the training data."""
        # Pyro checks the first run; later ones, of other sizes, may come from parameters that are no longer finite.
        if self._plates:
            return self._run(batch, validated=False)
        try:
            return self._run(batch, validated=True)
        except ValueError as error:
            # What leaves its domain at some rows is for the training step to tell of, which knows the rows.
            if not str(error.__cause__).startswith("Expected parameter"):
                raise
            return self._run(batch, validated=False)

    def _run(self, batch: tuple[Tensor, ...], *, validated: bool) -> tuple[poutine.Trace, poutine.Trace, str, bool]:
        numbers = last_rows(self.size, batch[0])
        quiet = local_params(), torch.no_grad(), pyro.validation_enabled(validated), seeded(0, batch[0].device)
        with contextlib.ExitStack() as stack:
            for context in (*quiet, numbered(numbers if self.plain else None)):
                stack.enter_context(context)
            look = stack.enter_context(Looked(numbers))
            guide = traced(self.programs.guide, "guide", batch, size=self.size)
            model = traced(poutine.replay(self.programs.model, trace=guide), "model", batch, size=self.size)
            score = self._declared_score or kind_of_sum(model, guide, partial(self._again, batch))
        return model, guide, score, look.used

    def _again(self, batch: tuple[Tensor, ...]) -> poutine.Trace:
        """The guide at other random numbers."""
        with seeded(1, batch[0].device):
            return traced(self.programs.guide, "guide", batch, size=self.size)

    @property
    def _name(self) -> str:
        """What the plate over the data is called, as far as is known."""
        return next((plates.name for plates in self._plates.values()), "data")

    def _counting(self, batch: tuple[Tensor, ...]) -> Counting:
        size = len(batch[0])
        plates = self._plates.get((size, len(batch)))
        return Counting(self._name, size, *((plates.data_dim, plates.size) if plates else (0, size)))


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


class _PlainProgram(nn.Module):
    """A user's Pyro function as a module that owns the parameters that it asks Pyro for."""

    def __init__(self, program: Callable) -> None:
        super().__init__()
        self.program = program
        self.store = Store(self)
        self.score = getattr(program, "score", None)

    def forward(self, *arguments: Any, **named: Any) -> Any:
        with self.store.opened():
            return self.program(*arguments, **named)


class _Running:
    """One of a pair's plain programs, called with all that it needs around it."""

    def __init__(self, pair: Pair, store: Store, call: Call | None) -> None:
        self.pair = pair
        self.store = store
        self.call = call

    def __call__(self, *batch: Tensor) -> Any:
        half = self.store.owner
        arguments, named = (batch, {}) if self.call is None else self.call.arguments(self.pair.reads, batch)
        opened = contextlib.nullcontext() if isinstance(half, _PlainProgram) else self.store.opened()
        with opened, self.pair._counting(batch):
            return half(*arguments, **named)


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


def _find_plates(model: poutine.Trace, guide: poutine.Trace, batch: int, declared: Any, name: str) -> Plates:
    stacks = [site["cond_indep_stack"] for site in model.nodes.values() if site["type"] == "sample"]
    nesting = max((-frame.dim for stack in stacks for frame in stack if frame.vectorized), default=0)
    frame = _over_the_data(model, batch, name)
    enumerated = any(guide.nodes[name]["infer"].get("enumerate") == "parallel" for name in guide.stochastic_nodes)
    known = isinstance(declared, int) and declared > 0
    size = (declared if known else batch) if grown(frame, batch) else frame.full_size
    return Plates(
        nesting=nesting,
        data_dim=frame.dim,
        size=size,
        enumerated=enumerated,
        shared=_shared(model, frame.dim) or _shared(guide, frame.dim),
        summed=summed_out(model, guide),
        subsampled=_subsampled(model, guide, frame.dim),
        name=frame.name,
    )


def _over_the_data(model: poutine.Trace, batch: int, name: str) -> Any:
    """The plate of the data, one of the size of the batch or of none."""
    observed = {site: model.nodes[site]["cond_indep_stack"] for site in model.observation_nodes}
    frames = {frame for stack in observed.values() for frame in stack if frame.vectorized}
    fitting = [frame for frame in frames if frame.size == batch] or [frame for frame in frames if frame.size == -1]
    found = [frame for frame in fitting if frame.name == name] or fitting
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(sorted(repr(frame.name) for frame in found))
        raise ValueError(f"the plates {names} all have the batch's size {batch}: call the one over the data 'data'")
    raise ValueError(_without_plate(observed, frames, batch))


def _without_plate(observed: dict[str, Any], frames: Any, batch: int) -> str:
    if not observed:
        return "the model observes nothing: give its data to one of its sites, pyro.sample(..., obs=x)"
    for frame in frames:
        if frame.size < frame.full_size:
            return (
                f"the plate {frame.name!r} takes {frame.size} of {frame.full_size} data, but the batch, which is a subsample "
                f"already, holds {batch}: write pv.data_plate(N, x) and leave subsample_size to the method's batch_size; an "
                "automatic guide takes create_plates=lambda x: pv.data_plate(N, x)"
            )
    stands = ", ".join(f"{name!r} in {_told(stack)}" for name, stack in observed.items())
    return (
        f"no observed site stands in a pyro.plate over the {batch} data of the batch, but {stands}: write the observation "
        "inside `with pv.data_plate(N, x):`, N the number of training data, so that the ELBO can be given per datum, or give "
        "the method batch_size = N"
    )


def _told(stack: Any) -> str:
    plates = [f"{frame.name!r} of {frame.size} (dim {frame.dim})" for frame in stack if frame.vectorized]
    return f"the plates {', '.join(plates)}" if len(plates) > 1 else f"the plate {plates[0]}" if plates else "no plate"


def _shared(program: poutine.Trace, data_dim: int) -> tuple[str, ...]:
    """The latent sites that stand outside of the plate over the data."""
    latent = {name: program.nodes[name] for name in program.stochastic_nodes if not site_is_subsample(program.nodes[name])}
    return tuple(name for name, site in latent.items() if all(frame.dim != data_dim for frame in site["cond_indep_stack"]))


def _subsampled(model: poutine.Trace, guide: poutine.Trace, data_dim: int) -> tuple[str, ...]:
    """The plates beside that over the data of which a run sees a part."""
    frames = {frame for trace in (model, guide) for _, site in sampled(trace) for frame in site["cond_indep_stack"]}
    return tuple(sorted({frame.name for frame in frames if frame.dim != data_dim and (frame.full_size or 0) > frame.size}))
