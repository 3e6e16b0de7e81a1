"""What a fit gives: a fitted pair with everything that is known about it, and what can be asked of it."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyro
import torch
from pyro.distributions import Distribution
from torch import Tensor

from ppl_vae.arguments import whole
from ppl_vae.data import Data, DataSource, Split, Transform, load_data
from ppl_vae.data.fingerprint import fingerprint
from ppl_vae.data.matching import classes_matched
from ppl_vae.data.seeds import seeded as noise
from ppl_vae.evaluate import AIS, Gaps, batches, evaluate
from ppl_vae.evaluate.disentanglement import disentanglement
from ppl_vae.evaluate.latents import latents
from ppl_vae.evaluate.probes import assigned, cluster_scores, probe
from ppl_vae.evaluate.remarks import remarks
from ppl_vae.evaluate.rows import in_row_order, mean, observed_sum
from ppl_vae.evaluate.samples import Features, sample_quality
from ppl_vae.fitting.inputs import Classes, Entrance, Given, as_real, check_probed, in_source_units
from ppl_vae.guides import (
    Guide,
)
from ppl_vae.inference.methods.base import Method
from ppl_vae.likelihoods.base import central
from ppl_vae.memory import require_memory
from ppl_vae.models import Model
from ppl_vae.program.context import evaluating, seeded
from ppl_vae.program.pair import Pair
from ppl_vae.storage import RunFolder
from ppl_vae.types import SCORES, DataSpec, Remark, Row, score_of

__all__ = ["NOISE", "ROWS_AT_ONCE", "Fit", "describe", "weights"]

ROWS_AT_ONCE = 1000
NOISE = ("dequantize", "binarize")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
    """A fitted pair. Rows that go in and data that come out are in the units of the source, tensors too.

    Rows of any :class:`Split` or :class:`Data` meet the fit by the names of their columns and classes, and are shown to the
    model through the fit's own ``transform``. :meth:`seen` gives what the model sees of rows; rows that went through the
    transform already go in as ``Split(x, None, fit.transform.applied())``, and ``seen=True`` leaves what comes out as the model
    gives it. Numbers are about the source's own data: the transform's log-determinant is part of every bound.

    Attributes:
        pair: the fitted model and guide.
        model, guide, method, data: the declarations (or plain programs) that it came from.
        spec: what the data look like.
        transform: from the source's data to what the model sees.
        history: a row per iteration.
        without_latents: the most that the likelihood reaches on the training rows without z, in nats per datum, which a fit has
            to beat; ``None`` where that is no measure, and of a fit that was loaded.
    """

    pair: Pair
    model: Model | Callable
    guide: Guide | Callable
    method: Method
    data: DataSource
    spec: DataSpec
    transform: Transform
    history: list[Row]
    without_latents: float | None = None

    def __str__(self) -> str:
        last = self.history[-1] if self.history else {}
        score = score_of(last)
        value = last.get(f"valid_{score}", last.get(score))
        name = SCORES[score].partition(":")[0]
        reached = "" if value is None else f"; {name} {value:.2f} nats per datum after {len(self.history)} iterations"
        return f"{self.model}; {self.guide}{reached}"

    @property
    def device(self) -> torch.device:
        """Where the pair lives."""
        return next(self.pair.parameters()).device

    def rows(self, source: DataSource, split: str) -> Split:
        """One split, or ``all`` rows in their order, of the fit's own data or of others, under the fitted transform.

        The noise of the transform (binarization, dequantization) is drawn once, by the source's seed.

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
        data = load_data(source)
        found = [data.part(name) for name in names]
        found = [part for part in found if len(part)] or found[:1]
        first, *others = (self._entrance.rows(part, generator=noise(source.seed, 1)) for part in found)
        return first.followed_by(others)

    def seen(self, x: Tensor | Split) -> Tensor:
        """What the model sees of a split or of a tensor in the units of the source, ``(B, *event)`` on the pair's device."""
        return self._split(x).transformed()

    def posterior(self, x: Tensor | Split, *, y: Classes | None = None) -> Distribution:
        """q(z | x) of all data at once, x ``(B, *event)``; ``y`` as for :meth:`evaluate`."""
        split = self._split(x, y).of_one_length()
        with evaluating(self.pair):
            (batch,) = batches(self.pair, split, max(1, len(split)))
            return self._declared(self.pair.guide, "posterior")(*batch)

    def encode(self, x: Tensor | Split, *, y: Classes | None = None, samples: int | None = None, seed: int = 0) -> Tensor:
        """Posterior means ``(B, *latent)``, or with ``samples`` draws ``(samples, B, *latent)``.

        ``y`` as for :meth:`evaluate`.
        """
        posterior = self._declared(self.pair.guide, "posterior")
        if samples is not None and (samples := whole("samples", samples)) < 1:
            raise ValueError(f"expected at least 1 sample, got {samples}")
        with evaluating(self.pair), seeded(seed, self.device):
            split = self._split(x, y)
            parts = [posterior(*batch) for batch in batches(self.pair, split, ROWS_AT_ONCE)]
            if samples is None:
                return in_row_order(self.pair, split, torch.cat([part.mean for part in parts]))
            return in_row_order(self.pair, split, torch.cat([part.sample((samples,)) for part in parts], dim=1), dim=1)

    def decode(self, z: Tensor, *, x: Tensor | Split | None = None, y: Classes | None = None, seen: bool = False) -> Tensor:
        """Means of p(x | z), ``(..., *event)``, for z ``(..., *latent)``, a tensor, an array or lists.

        In the units of the source; with ``seen`` as the model sees them. Of dequantized data they are means of the levels.

        Of a conditional model p(x | z, y), for labels ``y`` or rows ``x`` of which a part is known, whose shapes broadcast with
        those of z.
        """
        latent_shape = self._declared(self.pair.model, "latent_shape")
        z = as_real(z, "latent codes")
        if tuple(z.shape[-len(latent_shape) :]) != latent_shape:
            raise ValueError(f"expected latent codes of shape (..., {', '.join(map(str, latent_shape))}), got {tuple(z.shape)}")
        z = z.to(self.device, self.transform.loc.dtype)
        if not bool(z.isfinite().all()):
            raise ValueError("expected finite latent codes, got NaN or infinity")
        with evaluating(self.pair):
            return self._leaving(self._means(z, *self._known(x, y)), means=True, seen=seen)

    def reconstruct(self, x: Tensor | Split, *, y: Classes | None = None, seen: bool = False) -> Tensor:
        """Means of p(x | z) at the posterior mean of z, ``(B, *event)``; ``y`` as for :meth:`evaluate`.

        In the units of the source, as for :meth:`decode`; with ``seen`` as the model sees them.

        Of categories in no order, as in a column of a ``MixedTable``, the most probable one; so for :meth:`decode` too.
        """
        posterior, model = self._declared(self.pair.guide, "posterior"), self.pair.model
        with evaluating(self.pair):
            rows = batches(self.pair, self._split(x, y).of_one_length(), ROWS_AT_ONCE)
            known = getattr(model, "known", lambda *batch: ())
            means = torch.cat([self._means(posterior(*batch).mean, *known(*batch)) for batch in rows])
        return self._leaving(means, means=True, seen=seen)

    def sample(
        self,
        n: int,
        *,
        x: Tensor | Split | None = None,
        y: Classes | None = None,
        means: bool = False,
        seed: int = 0,
        seen: bool = False,
        draws: bool | None = None,
    ) -> Tensor:
        """N new data ``(n, *event)`` in the units of the source: z from the declared prior, then draws from p(x | z).

        Draws of dequantized data are whole numbers. Where there is no prior, as in ``AutoEncoder``, z comes from a normal
        fitted to the training data's codes.

        Args:
            n: how many.
            x: data of which a part is known, one or ``n``, if the model is conditioned on it: the rest is sampled.
            y: classes, if the model is conditioned on labels: a name or number for all, or one for each, as for
                :meth:`classes`; by default the classes in turn. With the same seed, the same noise of z meets other classes.
            means: means of p(x | z) instead of draws, which lie closer to each other than data do.
            seed: of all of them.
            seen: as the model sees them, instead of in the units of the source.
            draws: the opposite of ``means``, which took its place; still taken, with a warning.

        Raises:
            ValueError: fewer than one datum, or not the condition that the model needs.
        """
        if draws is not None:
            told = "fit.sample gives draws unless it is told means=True: leave draws=True out, write means=True for draws=False"
            warnings.warn(told, FutureWarning, stacklevel=2)
            means = not draws
        if (n := whole("n", n)) < 1:
            raise ValueError(f"expected to draw at least 1 datum, got n = {n}")
        require_memory(8 * n * math.prod(self.spec.event_shape), f"{n} draws")
        places: Tensor | None = None
        if y is None and x is None and getattr(self.pair.model, "labelled", False):
            places = torch.arange(n, device=self.device) % len(self.spec.classes)
        return self._leaving(self._sampled(n, x, y, places, means=means, seed=seed), means=means, seen=seen)

    def by_class(self, n: int, *, means: bool = False, seed: int = 0, seen: bool = False) -> Tensor:
        """Draws from p(x | z, y) for each class and n draws of z, ``(n, classes, *event)``, of a model conditioned on labels.

        A row has one draw of the noise of z; where p(z | y) depends on y, it is shifted and scaled to each class. ``means`` and
        ``seen`` as for :meth:`sample`.
        """
        if not getattr(self.pair.model, "labelled", False):
            raise ValueError("expected a model that is conditioned on labels, such as CVAE, got one that is not: use sample")
        options: dict[str, Any] = {"means": means, "seed": seed, "seen": seen}
        return torch.stack([self.sample(n, y=name, **options) for name in self.spec.classes], dim=1)

    def _sampled(
        self, n: int, x: Tensor | Split | None, y: Classes | None, places: Tensor | None, *, means: bool, seed: int
    ) -> Tensor:
        """N new data as the model sees them; of these places of classes, or as is given by ``x`` or ``y``."""
        decode, prior = (self._declared(self.pair.model, name) for name in ("decode", "prior"))
        with evaluating(self.pair), seeded(seed, self.device):
            known = self._known(x, y) if places is None else self.pair.model.known(places)
            if known and len(known[0]) not in (1, n):
                raise ValueError(f"expected one condition or {n}, got {len(known[0])}")
            z = self.pair.model.prior_given(*known).expand((n,)).sample() if known else prior().sample((n,))
            likelihood = decode(z, *known)
            return (central(likelihood) if means else likelihood.sample()).reshape(n, *self.spec.event_shape)

    def evaluate(
        self,
        data: Given,
        *,
        y: Classes | None = None,
        samples: int = 1,
        gaps: bool | Gaps = False,
        ais: bool | AIS = False,
        limit: int | None = None,
        seed: int = 0,
    ) -> dict[str, Any]:
        """How good the fit is on a split (or on the test split of a ``Data``); see :func:`ppl_vae.evaluate`.

        A model that is conditioned on labels takes those of the split, matched by the names of the classes, or ``y``: one class
        for all rows or ``(B,)``, as for :meth:`classes`. Of data of which a part is its condition, the rest is scored. Of
        programs of several arguments also on a tuple of arrays, or a mapping by name, as they were fitted to.

        Dequantized data, data of discrete levels and images of bits or counts also get ``bits_per_dim``, of the tightest bound
        there is and by the mean number of entries that a datum has. Remarks tell of bounds that are not to be trusted: with
        1000 samples or more if the weights of more than a tenth of the data are not, if annealing ends below the ELBO, and if
        no bound is near enough to log p(x) to count a gap from it.
        """
        samples, limit = whole("samples", samples), None if limit is None else whole("limit", limit)
        split = self._split(data, y)
        with pyro.validation_enabled(False):  # the data are checked, and what is not finite shows in the numbers
            numbers = evaluate(self.pair, split, samples=samples, gaps=gaps, ais=ais, limit=limit, seed=seed, progress=True)
        for remark in remarks(numbers, samples=samples):
            warnings.warn(remark, Remark, stacklevel=2)
        if bound := self._tightest(numbers):
            dimensions = mean(observed_sum(self.pair, split, torch.ones(())))
            numbers["bits_per_dim"] = -numbers[bound] / (math.log(2) * dimensions)
            numbers["bits_per_dim_se"] = numbers[f"{bound}_se"] / (math.log(2) * dimensions)
        return numbers

    def _tightest(self, numbers: dict[str, Any]) -> str:
        """The name of the tightest bound on the log-probability of discrete data; empty for densities and for points."""
        if self.spec.ragged:
            return ""  # which is told per token
        image = self.spec.kind in ("binary", "count") and len(self.spec.event_shape) == 3
        if not (self.data.dequantize or self.spec.kind == "categorical" or image):
            return ""
        if "log_likelihood" in numbers:
            return "log_likelihood"
        bounds = ("elbo", "iwae", "ais", "local_elbo", "local_iwae")
        return max((name for name in bounds if name in numbers), key=lambda name: numbers[name], default="")

    def latents(
        self, data: Data | Split | Tensor, *, y: Classes | None = None, rows: int = 2000, samples: int = 1, seed: int = 0
    ) -> dict[str, Any]:
        """What the latent variables hold: active units, KL by dimension, mutual information, total correlation, in nats.

        Of a split, or of the test split of a ``Data``; see :func:`ppl_vae.evaluate.latents.latents`.
        """
        rows, samples = whole("rows", rows), whole("samples", samples)
        return latents(self.pair, self._split(data, y), rows=rows, samples=samples, seed=seed)

    def sample_quality(
        self,
        data: Data | Split | Tensor,
        *,
        y: Classes | None = None,
        network: Features | None = None,
        draws: bool = True,
        seed: int = 0,
    ) -> dict[str, float]:
        """Whether samples of the model can be told from held-out data; see :func:`ppl_vae.evaluate.samples.sample_quality`.

        Args:
            data: a split, or the test split of a ``Data``; as many samples are drawn, and of a model that is conditioned on
                labels as many of each class.
            y: as for :meth:`evaluate`.
            network: from data ``(B, *event)`` as the model sees them to features ``(B, F)``; by default the values.
            draws: samples are draws from p(x | z), as data are, not its means.
            seed: of the samples and the tests.
        """
        split = self._split(data, y)
        classes = split.labels if getattr(self.pair.model, "labelled", False) else None
        generated = self._sampled(len(split), None, None, classes, means=not draws, seed=seed)
        return sample_quality(split.transformed(), generated, network=network, seed=seed)

    def probe(
        self, train: Split, test: Split, *, labels_per_class: Sequence[int] = (), draws: int = 5, seed: int = 0
    ) -> dict[str, Any]:
        """Accuracy on test data of a linear classifier of the training data's codes, also with few labels.

        Classes of the two are matched by name. See :func:`ppl_vae.evaluate.probes.probe`.

        Raises:
            ValueError: test data of one class, or of a class that the training data do not name.
        """
        for part in (train, test):
            if not isinstance(part, Split):
                raise ValueError(f"expected two splits with labels, got {type(part).__name__}: load them with load_data")
        draws, seed = whole("draws", draws), whole("seed", seed)
        train, test = self._split(train), self._split(test)
        test = classes_matched(test, train.classes)
        check_probed(train, test)
        fitted, scored = ((self.encode(part).flatten(1), part.labels) for part in (train, test))
        return probe(fitted, scored, labels_per_class=labels_per_class, draws=draws, seed=seed)

    def clusters(self, data: Data | Split) -> dict[str, Any]:
        """How well a mixture's components agree with the classes; see :func:`ppl_vae.evaluate.probes.cluster_scores`.

        Of the model's components, or of a mixture prior's at the posterior mean.

        Raises:
            ValueError: a prior without components, or one that is given the condition of its model.
        """
        if getattr(self.pair.model, "given_prior", False):
            raise ValueError(
                "the prior p(z | y) of this model is another for each condition, without components to compare with classes: "
                "declare a prior of z alone, such as GaussianMixture()"
            )
        split = data.test if isinstance(data, Data) else data
        with evaluating(self.pair):
            found = assigned(self._declared(self.pair.model, "prior")(), self.encode(split))
        return cluster_scores(found, split.labels.to(found.device))

    def disentanglement(self, data: Data | Split | Tensor, factors: Tensor | np.ndarray, *, seed: int = 0) -> dict[str, float]:
        """How far dimensions of the codes stand for known factors; see :mod:`ppl_vae.evaluate.disentanglement`.

        Args:
            data: a split, or the test split of a ``Data``.
            factors: class numbers ``(N, F)``, those of the same data.
            seed: of the halves and the trees.
        """
        seed = whole("seed", seed)
        return disentanglement(self.encode(data.test if isinstance(data, Data) else data).flatten(1), factors, seed=seed)

    def _declared(self, program: torch.nn.Module, name: str) -> Any:
        part = getattr(program, name, None)
        if part is None:
            kind, remedy = "a plain Pyro program", "declare the model"
            if isinstance(self.model, Model):
                kind, remedy = type(program).__name__, f"give the program `{name}`"
            raise ValueError(
                f"this fit is of {kind}, which has no `{name}`: use evaluate, or fit.pair with pyro.infer.Predictive, "
                f"or {remedy}"
            )
        return part

    def _means(self, z: Tensor, *known: Tensor) -> Tensor:
        """Means of p(x | z), ``(..., *event)``, given what is known."""
        mean = central(self._declared(self.pair.model, "decode")(z, *known))
        leading = torch.broadcast_shapes(z.shape[: -len(self.pair.model.latent_shape)], *(part.shape[:-1] for part in known))
        return mean.reshape(*leading, *self.spec.event_shape)

    def _known(self, x: Tensor | Split | None, y: Classes | None) -> tuple[Tensor, ...]:
        """What p(z) and p(x | z) are conditioned on; nothing of most models.

        Raises:
            ValueError: labels or data that the model is not conditioned on, or none where it is.
        """
        labelled = getattr(self.pair.model, "labelled", False)
        completes = hasattr(self.pair.model, "condition") and not labelled
        if (y is not None) != labelled or (x is not None) != completes:
            needs = "labels: give y and no x" if labelled else "a part of the data: give x and no y" if completes else "nothing"
            raise ValueError(f"this model is conditioned on {needs}{'' if labelled or completes else ': leave x and y out'}")
        if y is not None:
            return self.pair.model.known(self.classes(y))
        return self.pair.model.known(self.seen(x)) if x is not None else ()

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

    @property
    def _dequantized(self) -> bool:
        """Whether the model sees whole numbers with noise."""
        return self.transform.dequantize or self.data.dequantize not in (False, "none")

    @property
    def _entrance(self) -> Entrance:
        transform = self.transform
        if self._dequantized and not transform.dequantize:  # training data whose noise was drawn once
            transform = transform.rescaling(dequantize=True)
        return Entrance(
            spec=self.spec,
            transform=transform,
            labelled=getattr(self.pair.model, "labelled", False),
            seed=self.data.seed,
            device=self.device,
        )

    def _split(self, data: Given, y: Classes | None = None) -> Split:
        """The data as a split on the pair's device, matched to and checked against what the pair was built for."""
        return self._entrance.rows(data, y)

    def _leaving(self, x: Tensor, *, means: bool, seen: bool) -> Tensor:
        """What the model gives, in the units of the source unless it is wanted as the model sees it."""
        return x if seen else in_source_units(x, self.transform, self.spec, means=means, dequantized=self._dequantized)


def describe(fit: Fit, data: Data | None = None) -> dict[str, str]:
    """The texts of a run folder that tell what is fitted, by file; with ``data`` also what tells them from others."""
    declared = {name: getattr(fit, name).to_dict() for name in ("model", "guide", "method", "data")}
    transform = {name: getattr(fit.transform, name) for name in NOISE}
    seen: dict[str, Any] = {"spec": dataclasses.asdict(fit.spec), "transform": transform}
    if data is not None:
        seen["fingerprint"] = fingerprint(data.test if len(data.test) else data.train)
    return RunFolder.texts(declared, seen)


def weights(fit: Fit) -> dict[str, Tensor]:
    """What ``model.safetensors`` holds: parameters of the pair, constants of the transform."""
    modules = torch.nn.ModuleDict({"pair": fit.pair, "transform": fit.transform})
    return {name: value.contiguous() for name, value in modules.state_dict().items()}
