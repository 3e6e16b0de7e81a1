"""`fit`: a declared model, data and a method in; a fitted object out."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import torch
from pyro.distributions import Distribution
from torch import Tensor

from ppl_vae.data import Data, DataSource, Split, Transform, load_data
from ppl_vae.data.split import seeded as noise
from ppl_vae.evaluate import evaluate, evaluating
from ppl_vae.guides import AmortizedLinear, AmortizedNormal, BayesianGuide, ExactPosterior, Guide
from ppl_vae.inference.machine import choose_device
from ppl_vae.inference.method import Method, Row
from ppl_vae.inference.progress import Progress, progress_bar
from ppl_vae.inference.svi import SVI
from ppl_vae.models import Model
from ppl_vae.pair import Pair, seeded
from ppl_vae.types import DataSpec

__all__ = ["Fit", "build", "default_guide", "fit", "watched"]

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
        ValueError: data outside the model's support, a guide that does not go with the model, a warm start from another model,
            an unknown device.

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
        if warm_start is not None:
            _take_over(pair, warm_start, guide)
        history = _run(method, pair, data, progress, watch)
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
    if method.posterior_guide == "exact" or family == "discrete":
        return ExactPosterior()
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

    def posterior(self, x: Tensor | Split) -> Distribution:
        """q(z | x) of all data at once, x ``(B, *event)``."""
        with evaluating(self.pair):
            return self._declared(self.pair.guide, "posterior")(self.seen(x))

    def encode(self, x: Tensor | Split, *, samples: int | None = None, seed: int = 0) -> Tensor:
        """Posterior means ``(B, *latent)``, or with ``samples`` draws ``(samples, B, *latent)``."""
        posterior = self._declared(self.pair.guide, "posterior")
        if samples is not None and samples < 1:
            raise ValueError(f"expected at least 1 sample, got {samples}")
        with evaluating(self.pair), seeded(seed, self.device):
            parts = [posterior(part) for part in self._split(x).batches(ROWS_AT_ONCE)]
            if samples is None:
                return torch.cat([part.mean for part in parts])
            return torch.cat([part.sample((samples,)) for part in parts], dim=1)

    def decode(self, z: Tensor) -> Tensor:
        """Means of p(x | z), ``(..., *event)``, for z ``(..., *latent)``."""
        decode = self._declared(self.pair.model, "decode")
        latent_shape = self._declared(self.pair.model, "latent_shape")
        if tuple(z.shape[-len(latent_shape) :]) != latent_shape:
            raise ValueError(f"expected latent codes of shape (..., {', '.join(map(str, latent_shape))}), got {tuple(z.shape)}")
        with evaluating(self.pair):
            return decode(z.to(self.device)).mean.reshape(*z.shape[: -len(latent_shape)], *self.spec.event_shape)

    def reconstruct(self, x: Tensor | Split) -> Tensor:
        """Means of p(x | z) at the posterior mean of z, ``(B, *event)``."""
        return torch.cat([self.decode(self.encode(part)) for part in self.seen(x).split(ROWS_AT_ONCE)])

    def sample(self, n: int, *, draws: bool = False, seed: int = 0) -> Tensor:
        """N new data ``(n, *event)``: z from the declared prior, then means of p(x | z), or draws from it."""
        decode = self._declared(self.pair.model, "decode")
        if n < 1:
            raise ValueError(f"expected to draw at least 1 datum, got n = {n}")
        prior = self._declared(self.pair.model, "prior")
        with evaluating(self.pair), seeded(seed, self.device):
            likelihood = decode(prior().sample((n,)))
            return (likelihood.sample() if draws else likelihood.mean).reshape(n, *self.spec.event_shape)

    def evaluate(self, data: Data | Split | Tensor, *, samples: int = 1, seed: int = 0) -> dict[str, Any]:
        """How good the fit is on a split (or on the test split of a ``Data``); see :func:`ppl_vae.evaluate`.

        Dequantized data also get ``bits_per_dim``.
        """
        split = self._split(data)
        with pyro.validation_enabled(False):  # the data are checked, and what is not finite shows in the numbers
            numbers = evaluate(self.pair, split, samples=samples, seed=seed)
        if self.transform.dequantize:
            bound = numbers.get("log_likelihood", numbers["elbo"])
            numbers["bits_per_dim"] = -bound / (math.log(2) * math.prod(self.spec.event_shape))
        return numbers

    def _declared(self, program: torch.nn.Module, name: str) -> Any:
        part = getattr(program, name, None)
        if part is None:
            raise ValueError(
                f"this fit is of a plain Pyro program, which has no `{name}`: use evaluate, or fit.pair with "
                "pyro.infer.Predictive, or declare the model"
            )
        return part

    def _split(self, data: Data | Split | Tensor) -> Split:
        """The data as a split on the pair's device, checked against what the pair was built for."""
        if isinstance(data, Tensor):
            data = Split(data, None, Transform(self.spec.event_shape))
        else:
            data = self._binarized(data.test if isinstance(data, Data) else data)
        expected, found = self.spec.event_shape, (len(data), *data.event_shape)
        if found[1:] != expected:
            raise ValueError(f"expected data of shape (n, {', '.join(map(str, expected))}), got {found}")
        data = data.to(self.device)
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
