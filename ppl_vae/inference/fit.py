"""`fit`: a declared model, data and a method in; a fitted object out."""

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

from ppl_vae.data import Data, DataSource, Split, Transform, load_data
from ppl_vae.data.split import seeded as noise
from ppl_vae.evaluate import batches, evaluate, evaluating
from ppl_vae.guides import AmortizedDelta, AmortizedLinear, AmortizedNormal, BayesianGuide, ExactPosterior, Guide
from ppl_vae.inference.machine import choose_device
from ppl_vae.inference.method import Method, Row
from ppl_vae.inference.progress import Progress, progress_bar
from ppl_vae.inference.svi import SVI
from ppl_vae.models import Model
from ppl_vae.pair import Pair, seeded
from ppl_vae.types import DataSpec

__all__ = ["Fit", "build", "default_guide", "fit", "watched"]

Classes = int | str | Sequence[int] | Sequence[str] | np.ndarray | Tensor
"""A class, or several: numbers or names."""

ROWS_AT_ONCE = 1000


def fit(
    model: Model | Callable,
    data: Data | DataSource | str | np.ndarray | Tensor = "digits",
    *,
    guide: Guide | Callable | None = None,
    method: Method | None = None,
    warm_start: Fit | None = None,
    device: str | torch.device = "auto",
    progress: Progress | None = None,
) -> Fit:
    """Fit a model to data.

    Args:
        model: a declared model, or a plain Pyro program called with a batch ``x (B, *event)``.
        data: what :func:`~ppl_vae.load_data` takes or gave.
        guide: a declared guide (by default :func:`default_guide`), or a plain Pyro program if the model is one.
        method: how; ``SVI()`` by default.
        warm_start: an earlier fit of the same model, by any method, whose parameters are the start; the guide's too if it is
            declared alike.
        device: where; ``auto`` takes CUDA or MPS where it works, else the CPU.
        progress: called with each row of the history; by default a progress bar if standard error is a terminal.

    Returns:
        The fitted pair with everything that is known about it.

    Raises:
        ValueError: data outside the model's support or without the labels it is conditioned on, a guide that does not go with
            the model, a warm start from another model, an unknown device.

    Example:
        >>> fitted = fit(VAE(latent_dim=2), "digits", method=SVI(epochs=1))
        >>> fitted.decode(torch.zeros(5, 2)).shape
        torch.Size([5, 1, 8, 8])
    """
    method = method or SVI()
    return watched(model, data, guide=guide, method=method, warm_start=warm_start, device=device, progress=progress)


def watched(
    model: Model | Callable,
    data: Data | DataSource | str | np.ndarray | Tensor,
    *,
    guide: Guide | Callable | None,
    method: Method,
    device: str | torch.device,
    progress: Progress | None,
    warm_start: Fit | None = None,
    watch: Callable[[Pair, Row], Any] = lambda pair, row: None,
) -> Fit:
    """:func:`fit` with ``watch`` looking at the pair as it is after each row of the history; it must draw no random numbers."""
    data = load_data(data)
    if isinstance(model, Model):
        data = data.resolve(model.accepts)
    data = data.to(choose_device(device))
    if len(data.train) == 0:
        raise ValueError("expected at least one training datum, got none")
    guide = guide or default_guide(model, method)
    with seeded(method.seed, data.train.device):
        pair = build(model, guide, data.spec).to(data.train.device)
        _check_data(model, pair, data)
        if warm_start is not None:
            _take_over(pair, warm_start, guide)
        if hasattr(pair.model, "prepare") and "model" not in pair.warm:
            pair.model.prepare(data.train, torch.Generator(data.train.device).manual_seed(method.seed))
        history = _run(method, pair, data, progress, watch)
        if hasattr(pair.model, "fit_codes"):
            with evaluating(pair):
                pair.model.fit_codes(pair.guide.posterior(x).mean for x in data.train.batches(ROWS_AT_ONCE))
    return Fit(
        pair=pair,
        model=model,
        guide=guide,
        method=method,
        data=data.source,
        spec=data.spec,
        transform=data.train.transform,
        history=history,
    )


def _check_data(model: Model | Callable, pair: Pair, data: Data) -> None:
    """Raise ``ValueError`` if rows to fit to or to stop by lack labels that are needed, or lie outside the model's support."""
    for split in (data.train, data.valid):
        if getattr(pair.model, "labelled", False) and len(split):
            split.labels  # noqa: B018
        if isinstance(model, Model) and not split.transform.binarize:  # whose draws are zeros and ones
            for raw in split.chunks():
                model.check_values(split.transform(raw, torch.Generator(split.device).manual_seed(0)))


def _run(method: Method, pair: Pair, data: Data, progress: Progress | None, watch: Callable[[Pair, Row], Any]) -> list[Row]:
    """The method's history, each row watched and then reported; Pyro checks no more than the method itself asks for."""
    with pyro.validation_enabled(False), warnings.catch_warnings(), progress_bar(method, progress) as report:
        warnings.filterwarnings("ignore", "Encountered NaN", UserWarning)  # what is not finite shows in the numbers

        def tell(row: Row) -> None:
            watch(pair, row)
            report(row)

        return method.run(pair, data, tell)


def build(model: Model | Callable, guide: Guide | Callable, spec: DataSpec) -> Pair:
    """A declared model and guide, or two plain Pyro programs, as a pair.

    Raises:
        ValueError: data outside the model's support, a declared half with a plain one, or a guide that leaves out parameters.
    """
    if isinstance(model, Model) and isinstance(guide, Guide):
        model.check(spec)
        if model.parameter_priors and not isinstance(guide, BayesianGuide):
            raise ValueError(
                f"the parameters {', '.join(model.parameter_priors)} of this model carry priors, which {guide!r} leaves out: "
                f"use BayesianGuide(latents={guide!r}) and fit by SVI or NUTS; EM and closed forms fit the model without priors"
            )
        program = model.build(spec)
        proposal = guide.build(program, spec)
        prior: Any = getattr(program, "prior", None)
        if hasattr(prior, "attach"):  # a prior made of posteriors
            prior.attach(proposal.posterior, spec)
        # A sampled KL makes the ELBO of the exact posterior log p(x) for every sample; an analytic one does not.
        return Pair(program, proposal, mean_field=getattr(proposal, "mean_field", not getattr(proposal, "exact", False)))
    if isinstance(model, Model) or isinstance(guide, Guide):
        raise ValueError("a declared model goes with a declared guide, and a plain Pyro model with a plain guide function")
    return Pair(model, guide, mean_field=False)


def _take_over(pair: Pair, start: Fit, guide: Guide | Callable) -> None:
    """Copy the parameters of an earlier fit, the guide's only if it is declared alike."""
    try:
        pair.model.load_state_dict(start.pair.model.state_dict())
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"a warm start needs an earlier fit of the same model to data of the same shape: {reason}") from None
    pair.warm.add("model")
    if guide == start.guide:
        pair.guide.load_state_dict(start.pair.guide.state_dict())
        pair.warm.add("guide")


def default_guide(model: Model | Callable, method: Method) -> Guide:
    """The guide that a method gives a model if none is declared: as rich as the posterior is known to be, no richer."""
    family = getattr(model, "posterior_family", "unknown")
    if getattr(model, "parameter_priors", ()) and method.posterior_guide == "any":
        return BayesianGuide()
    if method.posterior_guide == "exact" or family in ("discrete", "projection"):
        return ExactPosterior()
    if family == "point":
        return AmortizedDelta()
    return AmortizedLinear() if family == "linear" else AmortizedNormal()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
    """A fitted pair. Tensors that go in and come out are what the model sees, after the data's transform.

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
        elbo = last.get("valid_elbo", last.get("elbo"))
        score = "" if elbo is None else f"; ELBO {elbo:.2f} nats per datum after {len(self.history)} iterations"
        return f"{self.model}; {self.guide}{score}"

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
        if samples is not None and samples < 1:
            raise ValueError(f"expected at least 1 sample, got {samples}")
        with evaluating(self.pair), seeded(seed, self.device):
            parts = [posterior(*batch) for batch in batches(self.pair, self._split(x, y), ROWS_AT_ONCE)]
            if samples is None:
                return torch.cat([part.mean for part in parts])
            return torch.cat([part.sample((samples,)) for part in parts], dim=1)

    def decode(self, z: Tensor, *, x: Tensor | Split | None = None, y: Classes | None = None) -> Tensor:
        """Means of p(x | z), ``(..., *event)``, for z ``(..., *latent)``.

        Of a conditional model p(x | z, y), for labels ``y`` or rows ``x`` of which a part is known, whose shapes broadcast with
        those of z.
        """
        latent_shape = self._declared(self.pair.model, "latent_shape")
        if tuple(z.shape[-len(latent_shape) :]) != latent_shape:
            raise ValueError(f"expected latent codes of shape (..., {', '.join(map(str, latent_shape))}), got {tuple(z.shape)}")
        with evaluating(self.pair):
            return self._means(z.to(self.device), *self._known(x, y))

    def reconstruct(self, x: Tensor | Split, *, y: Classes | None = None) -> Tensor:
        """Means of p(x | z) at the posterior mean of z, ``(B, *event)``; ``y`` as for :meth:`evaluate`."""
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
        if n < 1:
            raise ValueError(f"expected to draw at least 1 datum, got n = {n}")
        if y is None and x is None and getattr(self.pair.model, "labelled", False):
            y = torch.arange(n) % len(self.spec.classes)
        with evaluating(self.pair), seeded(seed, self.device):
            known = self._known(x, y)
            if known and len(known[0]) not in (1, n):
                raise ValueError(f"expected one condition or {n}, got {len(known[0])}")
            z = self.pair.model.prior_given(*known).expand((n,)).sample() if known else prior().sample((n,))
            likelihood = decode(z, *known)
            return (likelihood.sample() if draws else likelihood.mean).reshape(n, *self.spec.event_shape)

    def by_class(self, n: int, *, seed: int = 0) -> Tensor:
        """Means of p(x | z, y) for each class and n draws of z, ``(n, classes, *event)``, of a model conditioned on labels.

        A row has one draw of the noise of z; where p(z | y) depends on y, it is shifted and scaled to each class.
        """
        return torch.stack([self.sample(n, y=place, seed=seed) for place in range(len(self.spec.classes))], dim=1)

    def evaluate(
        self, data: Data | Split | Tensor, *, y: Classes | None = None, samples: int = 1, seed: int = 0
    ) -> dict[str, Any]:
        """How good the fit is on a split (or on the test split of a ``Data``); see :func:`ppl_vae.evaluate`.

        A model that is conditioned on labels takes those of the split, or ``y``: class numbers or names ``(B,)``. Of data of
        which a part is its condition, the rest is scored.

        Dequantized data and data of discrete levels also get ``bits_per_dim``. Of a model without p(z), such as
        ``AutoEncoder``, there is no bound on log p(x) to report, only ``reconstruction``, its standard error
        ``reconstruction_se`` and ``n``.
        """
        split = self._split(data, y)
        with pyro.validation_enabled(False):  # the data are checked, and what is not finite shows in the numbers
            numbers = evaluate(self.pair, split, samples=samples, seed=seed)
        if hasattr(self.pair.model, "fit_codes"):
            kept = {"reconstruction": "reconstruction", "elbo_se": "reconstruction_se", "n": "n"}
            return {told: numbers[name] for name, told in kept.items()}
        if self.transform.dequantize or self.spec.kind == "categorical":
            bound = numbers.get("log_likelihood", numbers["elbo"])
            known = getattr(self.pair.model, "known_entries", None)
            dimensions = math.prod(self.spec.event_shape) - (0 if known is None else int(known.sum()))
            numbers["bits_per_dim"] = -bound / (math.log(2) * dimensions)
        return numbers

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
        mean = self._declared(self.pair.model, "decode")(z, *known).mean
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
        if isinstance(data, Tensor):
            data = Split(data, None, Transform(self.spec.event_shape))
        else:
            data = self._binarized(data.test if isinstance(data, Data) else data)
        expected, found = self.spec.event_shape, (len(data), *data.event_shape)
        if found[1:] != expected:
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
