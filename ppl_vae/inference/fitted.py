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
from ppl_vae.data.arrays import as_array
from ppl_vae.data.fingerprint import fingerprint
from ppl_vae.data.split import seeded as noise
from ppl_vae.evaluate import AIS, Gaps, batches, evaluate, evaluating
from ppl_vae.evaluate.disentanglement import disentanglement
from ppl_vae.evaluate.importance import UNTRUSTED
from ppl_vae.evaluate.latents import latents
from ppl_vae.evaluate.probes import assigned, cluster_scores, probe
from ppl_vae.evaluate.rows import mean, observed_sum
from ppl_vae.evaluate.samples import Features, sample_quality
from ppl_vae.guides import (
    Guide,
)
from ppl_vae.inference.method import Method, Remark, Row
from ppl_vae.likelihoods.base import central
from ppl_vae.memory import require_memory
from ppl_vae.models import Model
from ppl_vae.pair import Pair, seeded
from ppl_vae.storage import RunFolder
from ppl_vae.types import SCORES, DataSpec, score_of

__all__ = ["NOISE", "ROWS_AT_ONCE", "Fit", "describe", "weights"]

Classes = int | str | Sequence[int] | Sequence[str] | np.ndarray | Tensor
"""A class, or several: numbers or names."""

ROWS_AT_ONCE = 1000
MANY_SAMPLES = 1000  # so many are meant to find log p(x), and not only a bound
MANY_BAD = 0.1  # the share of data with untrustworthy weights above which that is remarked on
NOISE = ("dequantize", "binarize")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
    """A fitted pair. Tensors that go in and come out are what the model sees, after the data's transform.

    Numbers are about the source's own data all the same: its log-determinant is part of every bound, of tensors too.

    Attributes:
        pair: the fitted model and guide.
        model, guide, method, data: the declarations (or plain programs) that it came from.
        spec: what the data look like.
        transform: from the source's data to what the model sees.
        history: a row per iteration.
    """

    pair: Pair
    model: Model | Callable
    guide: Guide | Callable
    method: Method
    data: DataSource
    spec: DataSpec
    transform: Transform
    history: list[Row]

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
        """
        names: tuple[Any, ...] = (split,)
        if split == "all":
            source, names = dataclasses.replace(source, valid=0.0, test=0.0), ("train", "test")
        data = load_data(source)
        parts = [data.part(name, self.transform).fixed(noise(source.seed, 1)) for name in names]
        parts = [part for part in parts if len(part)] or parts[:1]
        if len(parts) == 1:
            return parts[0]
        labels = [part.y for part in parts if part.y is not None]
        return Split(torch.cat([part.x for part in parts]), torch.cat(labels) if labels else None, parts[0].transform)

    def seen(self, x: Tensor | Split) -> Tensor:
        """What the model sees of a split, ``(B, *event)`` on the pair's device; a tensor is that already."""
        return self._split(x).transformed()

    def posterior(self, x: Tensor | Split, *, y: Classes | None = None) -> Distribution:
        """q(z | x) of all data at once, x ``(B, *event)``; ``y`` as for :meth:`evaluate`."""
        split = self._split(x, y)
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
            parts = [posterior(*batch) for batch in batches(self.pair, self._split(x, y), ROWS_AT_ONCE)]
            if samples is None:
                return torch.cat([part.mean for part in parts])
            return torch.cat([part.sample((samples,)) for part in parts], dim=1)

    def decode(self, z: Tensor, *, x: Tensor | Split | None = None, y: Classes | None = None) -> Tensor:
        """Means of p(x | z), ``(..., *event)``, for z ``(..., *latent)``, a tensor, an array or lists.

        Of a conditional model p(x | z, y), for labels ``y`` or rows ``x`` of which a part is known, whose shapes broadcast with
        those of z.
        """
        latent_shape = self._declared(self.pair.model, "latent_shape")
        z = _real(z, "latent codes")
        if tuple(z.shape[-len(latent_shape) :]) != latent_shape:
            raise ValueError(f"expected latent codes of shape (..., {', '.join(map(str, latent_shape))}), got {tuple(z.shape)}")
        z = z.to(self.device, self.transform.loc.dtype)
        if not bool(z.isfinite().all()):
            raise ValueError("expected finite latent codes, got NaN or infinity")
        with evaluating(self.pair):
            return self._means(z, *self._known(x, y))

    def reconstruct(self, x: Tensor | Split, *, y: Classes | None = None) -> Tensor:
        """Means of p(x | z) at the posterior mean of z, ``(B, *event)``; ``y`` as for :meth:`evaluate`.

        Of categories in no order, as in a column of a ``MixedTable``, the most probable one; so for :meth:`decode` too.
        """
        posterior, model = self._declared(self.pair.guide, "posterior"), self.pair.model
        with evaluating(self.pair):
            seen = batches(self.pair, self._split(x, y), ROWS_AT_ONCE)
            known = getattr(model, "known", lambda *batch: ())
            return torch.cat([self._means(posterior(*batch).mean, *known(*batch)) for batch in seen])

    def sample(
        self,
        n: int,
        *,
        x: Tensor | Split | None = None,
        y: Classes | None = None,
        draws: bool = False,
        seed: int = 0,
    ) -> Tensor:
        """N new data ``(n, *event)``: z from the declared prior, then means of p(x | z), or draws from it.

        Where there is no prior, as in ``AutoEncoder``, z comes from a normal fitted to the training data's codes.

        Args:
            n: how many.
            x: data of which a part is known, one or ``n``, if the model is conditioned on it: the rest is sampled.
            y: classes, if the model is conditioned on labels: a number or name for all, or one for each; by default the
                classes in turn. With the same seed, the same noise of z meets other classes.
            draws: draws from p(x | z) instead of its means.
            seed: of all of them.

        Raises:
            ValueError: fewer than one datum, or not the condition that the model needs.
        """
        decode, prior = (self._declared(self.pair.model, name) for name in ("decode", "prior"))
        if (n := whole("n", n)) < 1:
            raise ValueError(f"expected to draw at least 1 datum, got n = {n}")
        require_memory(8 * n * math.prod(self.spec.event_shape), f"{n} draws")
        if y is None and x is None and getattr(self.pair.model, "labelled", False):
            y = torch.arange(n) % len(self.spec.classes)
        with evaluating(self.pair), seeded(seed, self.device):
            known = self._known(x, y)
            if known and len(known[0]) not in (1, n):
                raise ValueError(f"expected one condition or {n}, got {len(known[0])}")
            z = self.pair.model.prior_given(*known).expand((n,)).sample() if known else prior().sample((n,))
            likelihood = decode(z, *known)
            return (likelihood.sample() if draws else central(likelihood)).reshape(n, *self.spec.event_shape)

    def by_class(self, n: int, *, seed: int = 0) -> Tensor:
        """Means of p(x | z, y) for each class and n draws of z, ``(n, classes, *event)``, of a model conditioned on labels.

        A row has one draw of the noise of z; where p(z | y) depends on y, it is shifted and scaled to each class.
        """
        if not getattr(self.pair.model, "labelled", False):
            raise ValueError("expected a model that is conditioned on labels, such as CVAE, got one that is not: use sample")
        return torch.stack([self.sample(n, y=place, seed=seed) for place in range(len(self.spec.classes))], dim=1)

    def evaluate(
        self,
        data: Data | Split | Tensor,
        *,
        y: Classes | None = None,
        samples: int = 1,
        gaps: bool | Gaps = False,
        ais: bool | AIS = False,
        limit: int | None = None,
        seed: int = 0,
    ) -> dict[str, Any]:
        """How good the fit is on a split (or on the test split of a ``Data``); see :func:`ppl_vae.evaluate`.

        A model that is conditioned on labels takes those of the split, or ``y``: class numbers or names ``(B,)``. Of data of
        which a part is its condition, the rest is scored.

        Dequantized data, data of discrete levels and images of bits or counts also get ``bits_per_dim``, of the tightest bound
        there is and by the mean number of entries that a datum has. With 1000 samples or more a remark warns if the weights of
        more than a tenth of the data are not to be trusted.
        """
        samples, limit = whole("samples", samples), None if limit is None else whole("limit", limit)
        split = self._split(data, y)
        with pyro.validation_enabled(False):  # the data are checked, and what is not finite shows in the numbers
            numbers = evaluate(self.pair, split, samples=samples, gaps=gaps, ais=ais, limit=limit, seed=seed, progress=True)
        if samples >= MANY_SAMPLES and numbers.get("k_hat_bad", 0.0) > MANY_BAD:
            warnings.warn(
                f"the importance weights of {100 * numbers['k_hat_bad']:.0f} % of the data are not to be trusted (Pareto k-hat "
                f"above {UNTRUSTED}): iwae is a lower bound still, but may be loose, and its standard error does not show it; "
                "use more samples, a richer guide, or ais",
                Remark,
                stacklevel=2,
            )
        if bound := self._tightest(numbers):
            dimensions = mean(observed_sum(self.pair, split, torch.ones(())))
            numbers["bits_per_dim"] = -numbers[bound] / (math.log(2) * dimensions)
            numbers["bits_per_dim_se"] = numbers[f"{bound}_se"] / (math.log(2) * dimensions)
        return numbers

    def _tightest(self, numbers: dict[str, Any]) -> str:
        """The name of the tightest bound on the log-probability of discrete data; empty for densities and for points."""
        image = self.spec.kind in ("binary", "count") and len(self.spec.event_shape) == 3
        if not (self.transform.dequantize or self.spec.kind == "categorical" or image):
            return ""
        if "log_likelihood" in numbers:
            return "log_likelihood"
        return max((name for name in ("elbo", "iwae", "ais") if name in numbers), key=lambda name: numbers[name], default="")

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
        generated = self.sample(len(split), y=classes, draws=draws, seed=seed)
        return sample_quality(split.transformed(), generated, network=network, seed=seed)

    def probe(
        self, train: Split, test: Split, *, labels_per_class: Sequence[int] = (), draws: int = 5, seed: int = 0
    ) -> dict[str, Any]:
        """Accuracy on test data of a linear classifier of the training data's codes, also with few labels.

        See :func:`ppl_vae.evaluate.probes.probe`.
        """
        for part in (train, test):
            if not isinstance(part, Split):
                raise ValueError(f"expected two splits with labels, got {type(part).__name__}: load them with load_data")
        draws, seed = whole("draws", draws), whole("seed", seed)
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
            raise ValueError(
                f"this fit is of a plain Pyro program, which has no `{name}`: use evaluate, or fit.pair with "
                "pyro.infer.Predictive, or declare the model"
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
        """Class numbers ``(...)`` on the pair's device; one class becomes ``(1,)``.

        Args:
            y: numbers or names of classes.

        Raises:
            ValueError: an unknown class.
        """
        names = self.spec.classes
        given = [y] if isinstance(y, (str, int)) else y
        if not isinstance(given, (Tensor, np.ndarray)):
            given = [names.index(one) if isinstance(one, str) and one in names else one for one in given]
        try:
            numbers = torch.as_tensor(given)
        except (TypeError, ValueError):
            numbers = torch.tensor([-1])
        whole = not numbers.is_floating_point() and numbers.dtype != torch.bool
        if not whole or bool(((numbers < 0) | (numbers >= len(names))).any()):
            raise ValueError(f"expected classes of {', '.join(names)}, or their numbers from 0, got {y}")
        return numbers.to(self.device, torch.int64)

    def _split(self, data: Data | Split | Tensor, y: Classes | None = None) -> Split:
        """The data as a split on the pair's device, checked against what the pair was built for."""
        if not isinstance(data, (Tensor, Split, Data)):
            raise ValueError(
                f"expected a tensor of what the model sees, a split or data, got {type(data).__name__}: load it with "
                "load_data, or give fit.rows(source, split)"
            )
        if isinstance(data, Tensor):
            data = Split(_real(data, "data"), None, self.transform.applied())
        else:
            data = self._binarized(data.test if isinstance(data, Data) else data)
        expected, found = self.spec.event_shape, tuple(data.raw.shape)
        if not found or found[1:] != expected:
            raise ValueError(f"expected data of shape (n, {', '.join(map(str, expected))}), got {found}")
        data = data.to(self.device)
        if y is not None:
            data = Split(data.raw, self.classes(y), data.transform)
            if data.labels.shape != (len(data),):
                raise ValueError(f"expected one class for each of {len(data)} rows, got {tuple(data.labels.shape)}")
        for raw in data.chunks():
            _check_values(data.transform, raw, self.spec)
        return data

    def _binarized(self, split: Split) -> Split:
        """A split whose binarization was left to the model (``binarize="auto"``), drawn once as the fit's own were."""
        ours, theirs = self.transform, split.transform
        same = torch.equal(ours.loc.cpu(), theirs.loc.cpu()) and torch.equal(ours.scale.cpu(), theirs.scale.cpu())
        if not same or not ours.binarize or theirs.binarize:
            return split
        return split.under(ours).fixed(noise(self.data.seed, 3))


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


def _real(values: Any, what: str) -> Tensor:
    """Real numbers in memory as a tensor.

    Raises:
        ValueError: complex numbers, or nothing that is one dense array of numbers.
    """
    if not isinstance(values, Tensor):
        array = as_array(values, what)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"expected {what} as real numbers, got {type(values).__name__} of dtype {array.dtype}")
        values = torch.from_numpy(array.astype(np.float64))
    if values.layout != torch.strided or values.is_meta or values.is_complex():
        told = f"{values.dtype}, {values.layout}, on {values.device}"
        raise ValueError(f"expected {what} as one dense tensor of real numbers, got {told}: convert it first")
    return values


def _check_values(transform: Transform, raw: Tensor, spec: DataSpec) -> None:
    """Raise ``ValueError`` if what the model would see is not of the kind it was built for."""
    x = transform.affine(raw)
    if not spec.missing and not bool(x.isfinite().all()):
        raise ValueError("expected finite values, got NaN or infinity: drop or fill those entries")
    ranges = {"binary": (0, 1), "unit_interval": (0, 1), "count": (0, math.inf), "categorical": (0, (spec.levels or 1) - 1)}
    low, high = ranges.get(spec.kind, (-math.inf, math.inf))
    whole = spec.kind in ("binary", "count", "categorical") and not transform.binarize
    if bool((x < low).any()) or bool((x > high).any()) or (whole and not bool((x == x.floor()).all())):
        raise ValueError(
            f"expected {spec.kind} values as the model sees them, in [{low}, {high}], got {x.min():g} to {x.max():g}: "
            "give data like those it was fitted to, or a tensor that went through fit.transform"
        )
