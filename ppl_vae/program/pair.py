"""The pair: a built ``model`` and ``guide``, Pyro programs of one signature, one data plate and the same latent sites."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Self

import pyro
import torch
from pyro import poutine
from pyro.nn import PyroModule
from pyro.poutine.guide import GuideMessenger
from torch import Tensor, nn

from ppl_vae.program.base import GuideProgram, ModelProgram
from ppl_vae.program.context import local_params, seeded
from ppl_vae.program.facts import Abilities, guide_facts, model_facts
from ppl_vae.program.plates import Plates, check_pairing, find_plates, follows_story
from ppl_vae.program.reads import Call, Reads
from ppl_vae.program.rows import Counting, Looked, data_plate, last_rows, numbered
from ppl_vae.program.shapes import traced
from ppl_vae.program.store import Store
from ppl_vae.program.terms import points, sampled, score_of_terms
from ppl_vae.program.weighing import Weighing, batch_weights
from ppl_vae.scores import ELBO, Score
from ppl_vae.types import Column

__all__ = ["Pair", "Plates", "Programs", "data_plate", "numbered", "weighed"]


class Programs(NamedTuple):
    """What is run, in place of the modules that own the parameters: both take a batch."""

    model: Callable[..., Any]
    guide: Callable[..., Any]


class Pair(nn.Module):
    """A model and a guide, fitted together; ``can`` says what they can do beyond running.

    Args:
        model: p(x, z), a callable on a batch that samples ``z`` and observes the data inside a plate over the data.
        guide: q(z | x), with the same signature, plates and latent sites.
        mean_field: whether the analytic KL of each latent site may be used (see ``pyro.infer.TraceMeanField_ELBO``), as it may
            where the guide draws its variables in the order of the model.
        size: N, the number of data that are fitted to. A plate as large as any batch counts as the plate over these N.
        plain: whether the programs are a user's own, which may ask for ``pyro.param`` and ``pyro.module``.
        reads: how plain programs are called that take more than x; see :func:`~ppl_vae.build`.
        weight: W, the sum of the weights of these N data, where they have some.
        table: what the columns of these data hold, where they are a table, by which :func:`ppl_vae.evaluate` reads others.

    Plain Pyro functions are welcome: what they ask Pyro's parameter store for becomes part of this module, and no global store
    is read or written. A module's attribute ``size``, where it has one and none is given here, is N: batches may be larger
    than the data set that it was fitted to.
    """

    model: Any
    guide: Any

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *,
        mean_field: bool = True,
        size: int | None = None,
        plain: bool = True,
        reads: Reads | None = None,
        weight: float | None = None,
        table: tuple[Column, ...] = (),
    ) -> None:
        super().__init__()
        self.model = _as_module(model)
        self.guide = _as_module(guide)
        self.can = Abilities.of(self.model, self.guide)
        self.reads: tuple[str, ...] = self.model_facts.reads
        self._calls: tuple[Call | None, Call | None] = (None, None)
        if reads is not None:
            self.reads, self._calls = reads.names, (reads.model, reads.guide)
        self.mean_field = mean_field
        self.size = size
        self.table = table
        self.mean_weight = 1.0 if weight is None or not size else weight / size
        self.plain = plain
        self.follows = True  # whether the guide draws its variables in the order of the model's story, as far as it met batches
        self.asks_gradients = False  # whether a program does, as semi-amortized guides do; known after the first run
        self.local = False  # whether parameters belong to rows of the training data; known after the first run
        self.warm: set[str] = set()  # the halves, "model" or "guide", that hold an earlier fit's parameters
        self.still: tuple[nn.Module, ...] = ()  # which stay in evaluation mode; in a tuple, so that none is listed twice
        self.learned: set[str] = set()  # the tensors that an earlier stage of the fit has trained
        # By the size of a batch, as a plate may be as large as it, and by the shapes of the fields in it: rows may lack some,
        # and those of different lengths are padded to several.
        self._plates: dict[tuple[int, tuple[torch.Size, ...]], Plates] = {}
        self.baselines: tuple[str, ...] = ()  # the guide's sites that ask for one
        self._stores = [half.store if isinstance(half, _PlainProgram) else Store(half) for half in (self.model, self.guide)]
        for store, twin in zip(self._stores, reversed(self._stores), strict=True):
            store.twin = twin

    def train(self, mode: bool = True) -> Self:
        """Training mode for all but the modules that are to stand still."""
        super().train(mode)
        for module in self.still:
            module.training = False
        return self

    @property
    def model_facts(self) -> ModelProgram:
        """The model with the facts of a :class:`~ppl_vae.program.capabilities.ModelProgram`, defaults where it says none."""
        return model_facts(self.model)

    @property
    def guide_facts(self) -> GuideProgram:
        """The guide with the facts of a :class:`~ppl_vae.program.capabilities.GuideProgram`, defaults where it says none."""
        return guide_facts(self.guide)

    @property
    def programs(self) -> Programs:
        """Model and guide as they are run."""
        if not self.plain:
            return Programs(self.model, self.guide)
        return Programs(*(_Running(self, store, call) for store, call in zip(self._stores, self._calls, strict=True)))

    @property
    def score(self) -> Score:
        """What the mean of log p(x, z) - log q(z) is: the ``elbo``, if both are densities.

        Of a point it is the ``log_joint``, and of codes without p(z) the ``reconstruction``; neither bounds log p(x), nor do
        sums of weighed terms or of factors. An attribute ``score`` of a program says it, by the name of one of
        :data:`ppl_vae.types.SCORES` or by a :class:`~ppl_vae.Score` of its own; else its sites, once it met a batch.
        """
        return self._declared_score or next((plates.score for plates in self._plates.values() if plates.score != ELBO), ELBO)

    @property
    def _declared_score(self) -> Score | None:
        exact = self.model_facts.exact_score if self.guide_facts.exact else None
        said = exact or self.model_facts.score or self.guide_facts.score
        return None if said is None else Score.of(said)

    @property
    def drawn(self) -> bool:
        """Whether the guide draws any latent variable, so that many samples tell more than one."""
        return any(plates.drawn for plates in self._plates.values())

    @property
    def undivided(self) -> tuple[str, ...]:
        """The variables that the model sums out over all data, as far as it met batches."""
        return next((plates.undivided for plates in self._plates.values()), ())

    @property
    def sizes(self) -> list[int]:
        """The sizes of the batches that :meth:`plates` has met."""
        return list(dict.fromkeys(size for size, _ in self._plates))

    @property
    def padded_sizes(self) -> list[list[int]]:
        """The sizes and the lengths of x of the batches that :meth:`plates` has met, where rows differ in length."""
        return [list(found) for found in dict.fromkeys((size, shapes[0][0]) for size, shapes in self._plates)]

    def plates(self, *batch: Tensor) -> Plates:
        """Run both programs once for a batch of this size and find their plates.

        The first run creates the parameters that the programs make when they are first called.

        Raises:
            ValueError: no plate over the data around the observed site, sites of model and guide that do not match, a program
                that fails, or a site whose shapes do not fit; the message names the site.
        """
        size = len(batch[0])
        key = _kind(batch)
        if key not in self._plates:
            model, guide, (score, drawn), local = self._first_run(batch)
            check_pairing(model, guide)
            self.follows &= follows_story(model, guide)
            self.mean_field &= self.follows
            asking = (name for name in guide.stochastic_nodes if guide.nodes[name]["infer"].get("baseline"))
            self.baselines = tuple(dict.fromkeys((*self.baselines, *asking)))
            declared = self.size or self.model_facts.size
            found = find_plates(model, guide, size, declared, self._names)
            self._plates[key] = found._replace(score=score, drawn=drawn, mean_weight=self.mean_weight)
            self.local |= local
        return self._plates[key]

    def _first_run(self, batch: tuple[Tensor, ...]) -> tuple[poutine.Trace, poutine.Trace, tuple[Score, bool], bool]:
        """Traces of model and guide, what is :meth:`_told` of them, and whether they asked for rows of the training data."""
        # Pyro checks the first run; later ones, of other sizes, may come from parameters that are no longer finite.
        if self._plates:
            return self._run(batch, validated=False)
        try:
            return self._run(batch, validated=True)
        except ValueError as error:
            if "does not require grad" in str(error.__cause__) and not self.asks_gradients:
                self.asks_gradients = True
                return self._first_run(batch)
            # What leaves its domain at some rows is for the training step to tell of, which knows the rows.
            if not str(error.__cause__).startswith("Expected parameter"):
                raise
            return self._run(batch, validated=False)

    def _run(
        self, batch: tuple[Tensor, ...], *, validated: bool
    ) -> tuple[poutine.Trace, poutine.Trace, tuple[Score, bool], bool]:
        numbers = last_rows(self.size, batch[0])
        asked = torch.set_grad_enabled(self.asks_gradients)
        quiet = local_params(), asked, pyro.validation_enabled(validated), seeded(0, batch[0].device)
        with contextlib.ExitStack() as stack:
            for context in (*quiet, numbered(numbers if self.plain else None)):
                stack.enter_context(context)
            look = stack.enter_context(Looked(numbers))
            guide = traced(self.programs.guide, "guide", batch, size=self.size)
            model = traced(poutine.replay(self.programs.model, trace=guide), "model", batch, size=self.size)
            told = self._told(model, guide, batch)
        return model, guide, told, look.used

    def _told(self, model: poutine.Trace, guide: poutine.Trace, batch: tuple[Tensor, ...]) -> tuple[Score, bool]:
        """What the sum of the terms is, and whether the guide draws any latent variable."""
        if self._declared_score:
            return self._declared_score, not self._declared_score.points
        still = points(model, guide, partial(self._again, batch))
        latent = {name for name, site in sampled(guide) if not site["is_observed"] and not site["infer"].get("is_auxiliary")}
        return score_of_terms(model, guide, still), bool(latent - set(still))

    def _again(self, batch: tuple[Tensor, ...]) -> poutine.Trace:
        """The guide at other random numbers."""
        with seeded(1, batch[0].device):
            return traced(self.programs.guide, "guide", batch, size=self.size)

    @property
    def _names(self) -> tuple[str, ...]:
        """What the plates over the data are called, as far as is known."""
        return next((plates.names for plates in reversed(self._plates.values())), ())

    def _counting(self, batch: tuple[Tensor, ...]) -> Counting:
        size = len(batch[0])
        plates = self._plates.get(_kind(batch))
        dim, counted = (plates.data_dim, plates.size) if plates else (0, size)
        return Counting(self._names, size, dim, counted, total=self.size)


def weighed(pair: Pair, plates: Plates) -> Programs:
    """The programs of a pair, their terms by the weights of the rows of the batch in progress, if these have any.

    Raises:
        ValueError: rows that have weights, and a model that sums variables out.
    """
    weights = batch_weights()
    if weights is None:
        return pair.programs
    if plates.summed:
        raise ValueError(
            f"the model sums out {', '.join(plates.summed)}, and Pyro's sum over a plate takes no weights of its rows: use "
            "objective=IWAE(samples=1), the same bound datum by datum, or load the data without weights"
        )

    def of(program: Callable[..., Any]) -> Callable[..., Any]:
        def run(*batch: Tensor) -> Any:
            kind = batch[0].dtype if batch[0].is_floating_point() else torch.get_default_dtype()  # tokens are integers
            with Weighing(weights.to(kind), plates.of_data, plates.data_dim, plates.mean_weight):
                return program(*batch)

        return run

    return Programs(*(of(program) for program in pair.programs))


def _kind(batch: tuple[Tensor, ...]) -> tuple[int, tuple[torch.Size, ...]]:
    """The size of a batch, and the shape of a datum in each of its fields."""
    return len(batch[0]), tuple(part.shape[1:] for part in batch)


class _PlainProgram(nn.Module):
    """A user's Pyro function as a module that owns the parameters that it asks Pyro for."""

    def __init__(self, program: Callable[..., Any]) -> None:
        super().__init__()
        self.program = program
        self.store = Store(self)
        self.score = model_facts(program).score

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
        with opened, self.pair._counting(batch), self._own_sites():
            return half(*arguments, **named)

    def _own_sites(self) -> contextlib.AbstractContextManager[Any]:
        """Pyro's guides by effects run the model under themselves, whose observations are none of theirs."""
        half = self.store.owner
        program = half.program if isinstance(half, _PlainProgram) else half
        if not isinstance(program, GuideMessenger):
            return contextlib.nullcontext()
        hidden: contextlib.AbstractContextManager[Any] = poutine.block(hide_fn=_is_observation)
        return hidden


def _is_observation(site: Any) -> bool:
    return site["type"] == "sample" and bool(site["is_observed"])


def _as_module(program: Callable[..., Any]) -> nn.Module:
    if not isinstance(program, nn.Module):
        return _PlainProgram(program)
    if isinstance(program, PyroModule) and "param_state" not in vars(program._pyro_context):
        # Pyro creates it only for modules that are born with local parameters; ours are used both ways.
        program._pyro_context.param_state = {"params": {}, "constraints": {}}
    return program
