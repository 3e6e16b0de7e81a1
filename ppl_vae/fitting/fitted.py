"""What a fit gives: a fitted pair with everything that is known about it, and what can be asked of it."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ppl_vae.data import Data, DataSource, Split, Transform
from ppl_vae.data.fingerprint import changed
from ppl_vae.data.rows import loaded
from ppl_vae.data.seeds import seeded_generator as noise
from ppl_vae.evaluate.metrics import UNIT
from ppl_vae.fitting.asking import Asking
from ppl_vae.fitting.assessment import Assessment
from ppl_vae.fitting.denoising import Denoising
from ppl_vae.fitting.draws import Drawn
from ppl_vae.fitting.export import Exporting
from ppl_vae.fitting.imputing import Filling
from ppl_vae.fitting.inputs import Classes, Given
from ppl_vae.fitting.resynthesis import Resynthesizing
from ppl_vae.fitting.scoring import Scoring
from ppl_vae.fitting.shown import Shown
from ppl_vae.fitting.telling import Telling
from ppl_vae.fitting.traversing import Traversing
from ppl_vae.guides import Guide
from ppl_vae.inference.methods.base import Method
from ppl_vae.models import Model
from ppl_vae.program.pair import Pair
from ppl_vae.types import DataSpec, FitWarning, Record

__all__ = ["Fit"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit(Assessment, Scoring, Filling, Denoising, Traversing, Resynthesizing, Telling, Drawn, Exporting, Asking, Shown):
    """A fitted pair. Rows that go in and data that come out are in the units of the source, tensors too.

    Rows of any :class:`Split` or :class:`Data` meet the fit by the names of their columns and classes, and are shown to the
    model through the fit's own ``transform``. :meth:`seen` gives what the model sees of rows; rows that went through the
    transform already go in as ``Split(x, None, fit.transform.applied())``, and ``seen=True`` leaves what comes out as the model
    gives it. Numbers are about the source's own data: the transform's log-determinant is part of every bound.

    Codes are a tensor of a lone latent variable, and of several a dictionary of tensors by their names. Where the programs do
    not say q(z | x), p(z) or p(x | z) as distributions, as plain Pyro functions do not, they are run instead: means are fed
    forward from site to site, of discrete variables the most probable value; what all data share has one value for all of
    them; what the model sums out is no part of a code, and data of codes are averages over it.

    Attributes:
        pair: the fitted model and guide.
        model, guide, method, data: the declarations (or plain programs) that it came from.
        spec: what the data look like.
        transform: from the source's data to what the model sees.
        history: a row per iteration.
        without_latents: the most that the likelihood reaches on the training rows without z, in nats per datum, which a fit has
            to beat; ``None`` where that is no measure, and of a fit that was loaded.
        held_out: the test rows, or without such the validation rows; ``None`` of a fit that was loaded.
        fingerprints: of a fit that was loaded what tells the rows that it had from others, by split.
    """

    pair: Pair
    model: Model | Callable[..., Any]
    guide: Guide | Callable[..., Any]
    method: Method
    data: DataSource
    spec: DataSpec
    transform: Transform
    history: list[Record]
    without_latents: float | None = None
    held_out: Split | None = dataclasses.field(default=None, repr=False, compare=False)
    fingerprints: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    @property
    def unit(self) -> str:
        """What the numbers are in: nats per datum, of a model without data of the whole of it."""
        return self.model.unit if isinstance(self.model, Model) else UNIT

    def __str__(self) -> str:
        last, score = self.history[-1] if self.history else {}, self.score
        value = last.get(f"valid_{score.name}", last.get(score.name))
        reached = "" if value is None else f"; {score.label} {value:.2f} {self.unit} after {len(self.history)} iterations"
        return f"{self.model}; {self.guide}{reached}"

    def rows(self, source: DataSource, split: str) -> Split:
        """One split, or ``all`` rows in their order, of the fit's own data or of others, under the fitted transform.

        The noise of the transform (binarization, dequantization) is drawn once, by the source's seed.

        Args:
            source: a declaration of data, such as ``fit.data``.
            split: ``train``, ``valid``, ``test`` or ``all``.

        Raises:
            ValueError: no declaration of data, or rows that the fit was not built for.
        """
        if not isinstance(source, DataSource):
            raise ValueError(
                f"expected a declaration such as DataSource(source='new.csv'), got {type(source).__name__}: give one, or load "
                "the rows with load_data and give its splits"
            )
        names: tuple[Any, ...] = (split,)
        if split == "all":
            source, names = dataclasses.replace(source, valid=0.0, test=0.0), ("train", "test")
        with warnings.catch_warnings():
            if self.pair.model_facts.classifies:  # which uses those rows
                warnings.filterwarnings("ignore", ".* rows have no label", FitWarning)
            data = loaded(source, None if self._labelled else self.data.label)
        self._remark_on_change(source, data)
        found = [data.part(name) for name in names]
        found = [part for part in found if len(part)] or found[:1]
        first, *others = (self._entrance.rows(part, generator=noise(source.seed, 1)) for part in found)
        return first.followed_by(others)

    def _remark_on_change(self, source: DataSource, data: Data) -> None:
        """Warn if the fit's own data are not those that it had."""
        if dataclasses.replace(source, root=self.data.root) != self.data:
            return
        if others := changed(self.fingerprints, data.parts):
            warnings.warn(
                f"{source.source} has changed since this was fitted to it: its {' and '.join(others)} rows are others now, so "
                "that test rows may be some that were fitted to; give rows that were not seen as data of their own",
                FitWarning,
                stacklevel=3,
            )

    def as_split(self, x: Given, y: Classes | None = None) -> Split:
        """Rows as the fit takes them: a split on its device, columns and classes matched by name, under its transform.

        Args:
            x: rows ``(B, *event)`` in the units of the source: a tensor, a split, or the fields that the programs read.
            y: a class for all rows or one for each, by name or number, where the model is conditioned on labels.

        Raises:
            ValueError: rows that the fit was not built for.
        """
        return self._split(x, y)

    def seen(self, x: Tensor | Split) -> Tensor:
        """What the model sees of a split or of a tensor in the units of the source, ``(B, *event)`` on the pair's device."""
        return self._split(x).transformed()

    def classes(self, y: Classes) -> Tensor:
        """The places of classes ``(...)`` among ``spec.classes``, on the pair's device; one class becomes ``(1,)``.

        A number is the class of that name where the classes are named by numbers, as those of labels 1, 2 and 3 are, and a
        place from 0 where none is.

        Args:
            y: names of classes, or numbers.

        Raises:
            ValueError: an unknown class, or a number where only some of the classes are named by numbers.
        """
        return self._entrance.classes(y)
