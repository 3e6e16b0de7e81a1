"""Numbers about a fit: how good it is, and what its latent variables hold."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyro
import torch
from torch import Tensor

from ppl_vae.arguments import whole
from ppl_vae.data import Split
from ppl_vae.data.fields import kind_of
from ppl_vae.data.matching import classes_matched
from ppl_vae.evaluate import AIS, Gaps, evaluate
from ppl_vae.evaluate.disentanglement import disentanglement
from ppl_vae.evaluate.latents import latents
from ppl_vae.evaluate.probes import assigned, cluster_scores, probe
from ppl_vae.evaluate.remarks import remarks
from ppl_vae.evaluate.samples import Features, sample_quality
from ppl_vae.fitting.bits import bits_per_dim
from ppl_vae.fitting.inputs import Classes, Given, check_probed
from ppl_vae.fitting.sampling import Sampling
from ppl_vae.inference.training.loop import ESTIMATED
from ppl_vae.program.context import evaluating
from ppl_vae.program.machine import Precision
from ppl_vae.program.sites import leaves
from ppl_vae.types import FOUND_LABELS, FitWarning

__all__ = ["Assessment"]

SUMMED = 2**26  # elements of all rows up to which `auto` sums a plate of which a run sees a sample: about two minutes of a core


class Assessment(Sampling):
    """The part of a :class:`~ppl_vae.fitting.fitted.Fit` that measures it."""

    def evaluate(
        self,
        data: Given,
        *,
        y: Classes | None = None,
        samples: int = 1,
        gaps: bool | Gaps = False,
        ais: bool | AIS = False,
        limit: int | None = None,
        precision: Precision = "32",
        summed: bool | Literal["auto"] = True,
        seed: int = 0,
    ) -> dict[str, Any]:
        """How good the fit is, in nats per datum: ELBO, reconstruction and KL, and tighter bounds where asked for.

        Dequantized data, data of discrete levels and images of bits or counts also get ``bits_per_dim``, of the tightest bound
        there is and by the mean number of entries that a datum has. Remarks tell of bounds that are not to be trusted: with
        1000 samples or more if the weights of more than a tenth of the data are not, if annealing ends below the ELBO, and if
        no bound is near enough to log p(x) to count a gap from it.

        Args:
            data: rows ``(B, *event)`` in the units of the source: a tensor, a split, the test split of a ``Data``, or the
                fields that the programs read, as a tuple or a mapping, as they were fitted to. Of data of which a part is the
                model's condition, the rest is scored.
            y: a class for all rows or one for each, by name or number, in place of their own labels, where the model is
                conditioned on labels.
            samples: S of the latent variables per datum; above one also for the importance-weighted bound ``iwae``.
            gaps: log p(x) - ELBO as approximation and amortization gap; ``True`` for ``Gaps()``.
            ais: annealed importance sampling; ``True`` for ``AIS()``.
            limit: only the first so many data.
            precision: what the networks' layers multiply: float32 numbers, ``bf16`` operands, or ``tf32`` products; densities
                stay float32, and ``precision_shift`` says what it did to the tightest number. A CPU without instructions for
                bfloat16 keeps to float32, with a remark.
            summed: whether all steps of a diffusion are summed; if not, the bound is an estimate without bias from ``samples``
                steps of each row; ``auto``, where the sum would take minutes, from 16, with a remark.
            seed: of the samples.

        Returns:
            Means over the data by name, ``*_se`` their standard errors; :func:`ppl_vae.evaluate` says which there are.

        Raises:
            ValueError: no rows, rows that the fit was not built for, gaps or annealing that these programs do not have or with
                another precision than ``32``, or no such precision.
            FloatingPointError: a bound is not finite.

        Examples:
            ``fit.evaluate(data, samples=100)["iwae"]``
        """
        samples, limit = whole("samples", samples), None if limit is None else whole("limit", limit)
        split = self._split(data, y)
        if summed == "auto":
            summed, samples = self._summed(split if limit is None else split[:limit], samples)
        with pyro.validation_enabled(False):  # the data are checked, and what is not finite shows in the numbers
            numbers = evaluate(
                self.pair,
                split,
                samples=samples,
                gaps=gaps,
                ais=ais,
                limit=limit,
                precision=precision,
                summed=summed,
                seed=seed,
                progress=True,
            )
        for remark in remarks(numbers, samples=samples):
            warnings.warn(remark, FitWarning, stacklevel=2)
        return numbers | bits_per_dim(self.pair, split, self.spec, numbers, dequantized=bool(self.data.dequantize))

    def _summed(self, split: Split, samples: int) -> tuple[bool, int]:
        """Whether it pays to sum what a run sees a sample of, and so many draws of each row; with a remark if it does not."""
        of_sum = self.pair.can.sum_bound
        if of_sum is None or len(split) * of_sum.summed_elements <= SUMMED:
            return True, samples
        warnings.warn(
            f"the {self.pair.score.label} of {len(split)} rows is an estimate without bias, from {ESTIMATED} steps of each: "
            "evaluate (ppl-vae evaluate RUN, with --limit for fewer rows) sums all steps",
            FitWarning,
            stacklevel=3,
        )
        return False, max(samples, ESTIMATED)

    def latents(
        self, data: Given, *, y: Classes | None = None, rows: int = 2000, samples: int = 1, seed: int = 0
    ) -> dict[str, Any]:
        """What the latent variables hold: active units, KL by dimension, mutual information, total correlation, in nats.

        Of several variables the KL, the active units and the variances also site by site; the KL of the sites sum to the whole.

        Args:
            data: rows ``(B, *event)`` in the units of the source: a tensor, a split, the test split of a ``Data``, or the
                fields that the programs read.
            y: a class for all rows or one for each, by name or number, where the model is conditioned on labels.
            rows: of how many data the aggregate posterior is estimated.
            samples: draws from each of these.
            seed: of the data chosen and the draws.

        Returns:
            Numbers by name; :func:`ppl_vae.evaluate.latents.latents` says which there are, and ``notes`` why others are not.

        Raises:
            ValueError: fewer than two data, or rows that the fit was not built for.

        Examples:
            ``fit.latents(data)["active_units"]``
        """
        rows, samples = whole("rows", rows), whole("samples", samples)
        return latents(self.pair, self._split(data, y), rows=rows, samples=samples, seed=seed)

    def sample_quality(
        self,
        data: Given,
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
            y: a class for all rows or one for each, by name or number, where the model is conditioned on labels.
            network: from data ``(B, *event)`` as the model sees them to features ``(B, F)``; by default the values.
            draws: samples are draws from p(x | z), as data are, not its means.
            seed: of the samples and the tests.

        Raises:
            ValueError: rows that the fit was not built for, fewer than ten of them, or programs that do not observe x itself.
        """
        split = self._split(data, y)
        rows = split if self.pair.can.covary else None
        name = FOUND_LABELS if self._entrance.classified else "y"
        classes: Any = split.column(name) if self._labelled else None
        generated = self._sampled(len(split), rows, None, classes, means=not draws, seed=seed)
        if not generated.x:
            raise ValueError(f"expected a model of x itself, got one that observes {', '.join(generated.values)}")
        return sample_quality(split.transformed(), generated.values[generated.x], network=network, seed=seed)

    def probe(
        self, train: Given, test: Given, *, labels_per_class: Sequence[int] = (), draws: int = 5, seed: int = 0
    ) -> dict[str, Any]:
        """Accuracy on test data of a linear classifier of the training data's codes, also with few labels.

        Classes of the two are matched by name; the codes of several latent variables stand side by side. See
        :func:`ppl_vae.evaluate.probes.probe`.

        Args:
            train: labelled rows that the classifier is fitted to: a split, a frame or a path with a column of labels.
            test: labelled rows that it is scored on.
            labels_per_class: also with so many labelled training rows of each class only.
            draws: random choices of those.
            seed: of the choices.

        Raises:
            ValueError: test data of one class, or of a class that the training data do not name.
        """
        for part in (train, test):
            if isinstance(part, (Tensor, np.ndarray)):
                told = f"expected two splits, frames or paths of rows with labels, got {type(part).__name__}"
                raise ValueError(f"{told}: load them with load_data(x, y=...)")
        draws, seed = whole("draws", draws), whole("seed", seed)
        train, test = self._split(train), self._split(test)
        test = classes_matched(test, train.classes)
        check_probed(train, test)
        fitted, scored = ((self._columns(part), part.labels) for part in (train, test))
        return probe(fitted, scored, labels_per_class=labels_per_class, draws=draws, seed=seed)

    def clusters(self, data: Given) -> dict[str, Any]:
        """How well a mixture's components agree with the classes; see :func:`ppl_vae.evaluate.probes.cluster_scores`.

        Of the model's components, or of a mixture prior's at the posterior mean.

        Args:
            data: labelled rows, or the test split of a ``Data``.

        Raises:
            ValueError: a prior without components, or one that is given the condition of its model.
        """
        if self.pair.model_facts.given_prior:
            raise ValueError(
                "the prior p(z | y) of this model is another for each condition, without components to compare with classes: "
                "declare a prior of z alone, such as GaussianMixture()"
            )
        if self.pair.can.generate is None:
            raise ValueError("this model does not say p(z), whose components were to be compared with classes: give it `prior`")
        split = self._split(data)
        with evaluating(self.pair):
            found = assigned(self.pair.can.generate.prior(), self.encode(split))
        return cluster_scores(found, split.labels.to(found.device))

    def disentanglement(self, data: Given, factors: Tensor | np.ndarray | None = None, *, seed: int = 0) -> dict[str, float]:
        """How far dimensions of the codes stand for known factors; see :mod:`ppl_vae.evaluate.disentanglement`.

        Args:
            data: a split, or the test split of a ``Data``; the codes of several latent variables stand side by side.
            factors: class numbers ``(N, F)``, those of the same data; by default the fields of whole numbers beside x, as
                those of the sprites, ``load_data("sprites", fields=("shape", "scale"))``.
            seed: of the halves and the trees.

        Raises:
            ValueError: other shapes, fewer than two dimensions or factors, or a factor that does not vary.
        """
        split = self._split(data)
        if factors is None:
            found = [column for column in split.fields.columns.values() if isinstance(column, Tensor)]
            found = [column.long() for column in found if kind_of(column) == "integer"]
            if len(found) < 2:
                told = f"expected at least 2 factors, as fields of whole numbers beside x, got {len(found)}"
                raise ValueError(f"{told}: give factors, or load the data with fields=(...)")
            factors = torch.stack(found, 1)
        return disentanglement(self._columns(split), factors, seed=whole("seed", seed))

    def _columns(self, data: Given) -> Tensor:
        """Codes of data, those of all their latent variables side by side, ``(B, K)``."""
        codes = leaves(self.encode(self._split(data)))
        return torch.cat([code.reshape(len(code), -1) for name, code in codes.items() if name not in self.shared], dim=1)
