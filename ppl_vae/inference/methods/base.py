"""What every method declaration offers."""

from __future__ import annotations

import abc
import dataclasses
import inspect
import warnings
from typing import Any, ClassVar, Literal

from ppl_vae.data import Data
from ppl_vae.declaration import Declaration, require
from ppl_vae.inference.objectives import Objective
from ppl_vae.program.pair import Pair
from ppl_vae.program.processes import current
from ppl_vae.storage import NULL_CHECKPOINTER, AnyCheckpointer
from ppl_vae.types import Record, Report

__all__ = ["Method", "run_method"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method(Declaration, abc.ABC):
    """How a pair is fitted. Every method has a ``seed`` and writes what it finds into the pair's modules.

    Class attributes:
        posterior_guide: ``exact`` if the method works with the exact posterior only, ``factors`` if with a mean-field guide
            only, ``any`` if it fits guides of any kind.
        takes_weights: whether rows that have weights count by them.
        takes_processes: whether several processes fit together by it, see :mod:`ppl_vae.program.processes`.
        live: whether the pair's modules hold what a row of the history tells as soon as it is reported.
        length: the field that says how long a fit goes on, which may be raised when it is resumed; ``None`` if it cannot be
            resumed.
        follows: whether it can be a stage of :class:`~ppl_vae.Stages`: it goes on from what the pair's modules hold, asks
            :func:`~ppl_vae.inference.training.start.start_pair` for the start of others, counts epochs from 1, and reports the
            very rows that its history keeps.
    """

    posterior_guide: ClassVar[Literal["exact", "factors", "any"]] = "any"
    takes_weights: ClassVar[bool] = False
    takes_processes: ClassVar[bool] = False
    live: ClassVar[bool] = True
    length: ClassVar[str | None] = None
    follows: ClassVar[bool] = False

    seed: int = 0

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**63, "a seed of 0 to 2^63 - 1", self.seed)

    @property
    @abc.abstractmethod
    def iterations(self) -> int:
        """The most rows that the history can get; what a progress bar counts to."""

    @property
    def objective(self) -> Objective | None:
        """What gradient steps climb; ``None`` of a method without any."""
        return None

    @property
    def ramp(self) -> float:
        """Iterations until what is climbed no longer changes."""
        return 0.0 if self.objective is None else self.objective.ramp

    @property
    def first_batch(self) -> int | None:
        """Rows of the first step; ``None`` if it takes all."""
        return None

    @property
    def taken(self) -> int | None:
        """How long a fit goes on; ``None`` if it cannot be resumed."""
        return None if self.length is None else vars(self)[self.length]

    @property
    def fixed(self) -> dict[str, Any]:
        """The declaration as plain values, without what may be raised when the fit is resumed."""
        plain = self.to_dict()
        return {**plain, "init_args": {name: value for name, value in plain["init_args"].items() if name != self.length}}

    def steps_per_epoch(self, rows: int) -> int:
        """Steps in which an iteration goes through so many training data."""
        return 1

    def check(self, pair: Pair, data: Data) -> None:
        """Raise ``ValueError`` if it cannot fit this pair to these data, as far as that is known before the first step.

        A stage of a longer fit is asked so before the first one begins.
        """

    def trains(self, pair: Pair) -> set[str]:
        """The parameters and buffers that it changes, by their names in the pair."""
        return set(pair.state_dict())

    @abc.abstractmethod
    def run(self, pair: Pair, data: Data, report: Report, checkpointer: AnyCheckpointer = NULL_CHECKPOINTER) -> list[Record]:
        """Fit the pair to ``data.train``, both on one device, and return the history, a row an iteration.

        A row has ``epoch``, ``objective``, ``elbo`` (or what else the pair's ``score`` is) and ``seconds``: those worked since
        the fit began, so they never fall, and without what ``report`` took (see :class:`Stopwatch`); the last row's are those
        of the whole fit. Modules that know a good start take it where the method asks them to, by
        :func:`~ppl_vae.inference.training.start.start_pair`.

        Args:
            pair: model and guide; their parameters are changed in place.
            data: the splits; ``data.valid`` is used where a method needs held-out data.
            report: called with each row as soon as it is known.
            checkpointer: asked after every step whether a snapshot is due, and given one; has the one to go on from. Methods
                without a ``length`` leave it alone.
        """


def run_method(method: Method, pair: Pair, data: Data, report: Report, checkpointer: AnyCheckpointer) -> list[Record]:
    """The history of :meth:`Method.run`; a method whose ``run`` takes no checkpointer is run without one, and told of.

    Raises:
        ValueError: rows have weights, which the method does not look at, or several processes run what one alone can.
    """
    if (count := current().count) > 1 and not method.takes_processes:
        raise ValueError(f"expected one process for {type(method).__name__}, got {count}: start it without torchrun")
    if data.train.weights is not None and not method.takes_weights:
        raise ValueError(
            f"expected rows without weights for {type(method).__name__}, which does not look at them: load them without, or "
            "give the method takes_weights = True once it counts rows by data.train.weights"
        )
    # Of a method with a length the fourth argument has been it before, under any name.
    if method.length is not None or "checkpointer" in inspect.signature(method.run).parameters:
        return method.run(pair, data, report, checkpointer)
    warnings.warn(
        f"{type(method).__name__}.run takes a checkpointer besides now: run(self, pair, data, report, checkpointer). The next "
        "release no longer runs it without: add the argument, which a method that cannot be resumed leaves alone",
        DeprecationWarning,
        stacklevel=2,
    )
    return method.run(pair, data, report)
