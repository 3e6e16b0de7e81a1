"""Scores of rows: how probable each is, and what is discrete about it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from torch import Tensor

from ppl_vae.arguments import whole
from ppl_vae.data import Split
from ppl_vae.data.matching import is_whole_number
from ppl_vae.evaluate.components import component_probabilities
from ppl_vae.evaluate.finite import check_numbers, which_rows
from ppl_vae.evaluate.gaps import Gaps
from ppl_vae.evaluate.outliers import REGRET, ScoredRows, strangeness
from ppl_vae.evaluate.scores import Scores, row_scores
from ppl_vae.fitting.coding import Coding
from ppl_vae.fitting.inputs import Classes, Given
from ppl_vae.fitting.outputs import as_columns_given, form_of
from ppl_vae.program.context import evaluating, seeded
from ppl_vae.types import BINARY, FitWarning, OutlierScore

__all__ = ["Outliers", "Scoring"]

SAMPLES = 100


class Outliers(NamedTuple):
    """Of each row: its score, its rank among these rows, and how extreme its score is among those of held-out rows.

    Args:
        log_prob: as of ``score_samples``, ``(N,)``.
        rank: 1 of the strangest row, 2 of the next, ``(N,)``.
        p_value: (1 + number of held-out rows that are at least as strange) / (1 + number of held-out rows), ``(N,)``: uniform,
            up to ties, of a row that comes from where the held-out rows come from (Vovk, Gammerman and Shafer 2005). A
            held-out row of weight w counts as w rows.
        score: in nats, higher of a stranger row, ``(N,)``.
    """

    log_prob: Any
    rank: Any
    p_value: Any
    score: Any


class Scoring(Coding):
    """The part of a :class:`~ppl_vae.fitting.fitted.Fit` that scores rows and predicts what is discrete about them."""

    held_out: Split | None

    def score_samples(self, x: Given, *, y: Classes | None = None, samples: int = SAMPLES, seed: int = 0) -> Any:
        """Log p(x) of each row in nats, in the units of the source, or the tightest lower bound on it.

        Where the model does not know it, it is the importance-weighted bound, whose mean over draws is below log p(x) and
        rises with ``samples`` (Burda, Grosse and Salakhutdinov 2016). The log-determinant of the data's transform is part of
        either; the mean over rows is what :meth:`evaluate` calls ``log_likelihood`` or ``iwae``.

        Args:
            x: rows ``(B, *event)`` in the units of the source.
            y: a class for all rows or one for each, by name or number, where the model is conditioned on labels.
            samples: draws of the latent variables per row, where they are needed.
            seed: of the draws.

        Returns:
            ``log_prob`` and ``se``, the standard error of the estimate, ``(B,)`` each: zero where log p(x) is known, which
            ``exact`` tells. Of a frame a frame of these two. Minus infinity, with a remark, of what has the probability zero,
            or one that underflows.

        Raises:
            ValueError: rows that the fit was not built for, or so far outside of what was fitted that their score is NaN; or
                programs whose terms do not bound log p(x).

        Examples:
            ``fit.score_samples(data.test).log_prob.mean()``
        """
        split = self._split(x, y)
        found = self._scored(split, samples, seed)
        _tell_impossible(found.log_prob)
        return as_columns_given(form_of(x), {"log_prob": found.log_prob, "se": found.se}, found)

    def predict_proba(self, x: Given, *, samples: int = SAMPLES, seed: int = 0, priors: Sequence[float] | None = None) -> Any:
        """The probabilities of components, discrete latent values or classes of each row, ``(B, C)``.

        Of GMM and whatever knows p(k | x) they are exact; of a discrete latent variable they are the guide's; of a mixture as
        prior the mean of p(k | z) over draws of z from q(z | x). Of a model that is conditioned on labels they are p(y | x),
        proportional to p(y) times the bound on p(x | y) that :meth:`score_samples` has for each class.

        Args:
            x: rows ``(B, *event)`` in the units of the source.
            samples: draws of the latent variables per row, where they are needed.
            seed: of the draws, the same for each class.
            priors: p(y) of the classes in the order of ``spec.classes``, of a model that is conditioned on labels; by default
                all alike.

        Raises:
            ValueError: rows that the fit was not built for, a model with nothing discrete, or priors of no such classes.

        Examples:
            ``fit.predict_proba(data.test).argmax(1)``
        """
        found = self._probabilities(x, whole("samples", samples), seed, priors)
        names = self.predicts[1] or map(str, range(found.shape[-1]))
        return as_columns_given(form_of(x), dict(zip(names, found.T, strict=True)), found)

    def predict(self, x: Given, *, samples: int = SAMPLES, seed: int = 0, priors: Sequence[float] | None = None) -> Any:
        """The most probable component, discrete value or class of each row ``(B,)``; see :meth:`predict_proba`.

        Components are numbers from 0; states of the hidden node of a network have its names where x came as an array or a
        frame. Classes are their places among ``spec.classes`` where x came as tensors, and where it
        came as an array or a frame their names: numbers, if all of them are whole numbers.

        Args:
            x: rows ``(B, *event)`` in the units of the source.
            samples: draws of the latent variables per row, where they are needed.
            seed: of the draws.
            priors: p(y) of the classes, as of :meth:`predict_proba`.

        Raises:
            ValueError: rows that the fit was not built for, a model with nothing discrete, or priors of no such classes.

        Examples:
            ``fit.predict(data.test)``
        """
        found = self._probabilities(x, whole("samples", samples), seed, priors).argmax(-1)
        form, (called, names) = form_of(x), self.predicts
        if not names or form.kind == "tensor":
            return form.column(called, found)
        return form.column(called, (self.class_names if self._predicts_classes else np.array(names))[found.cpu().numpy()])

    def accuracy(self, x: Given, *, y: Classes | None = None, samples: int = SAMPLES, seed: int = 0) -> dict[str, float]:
        """The share of rows whose class :meth:`predict` gives, of a model of classes.

        Args:
            x: rows ``(B, *event)`` with labels: a split, a frame or a path with a column of them.
            y: a class for all rows or one for each, by name or number, in place of their own labels.
            samples: draws of the latent variables per row, where they are needed.
            seed: of the draws.

        Returns:
            ``accuracy``, its standard error ``accuracy_se``, and ``n``, the number of rows.

        Raises:
            ValueError: rows that the fit was not built for, rows without labels, or a model that knows no classes.

        Examples:
            ``fit.accuracy(data.test)["accuracy"]``
        """
        if not self._predicts_classes:
            raise ValueError("expected a model of classes, such as SemiSupervisedVAE or CVAE, got one that knows none")
        split = self._split(x, y)
        right = (self._probabilities(split, whole("samples", samples), seed, None).argmax(-1) == split.labels).double()
        mean = right.mean().item()
        return {"accuracy": mean, "accuracy_se": (mean * (1 - mean) / len(right)) ** 0.5, "n": len(right)}

    @property
    def predicts(self) -> tuple[str, tuple[str, ...]]:
        """What :meth:`predict` tells, ``class``, ``component`` or a hidden node, and its values' names if they have some."""
        if self._predicts_classes:
            return "class", self.spec.classes
        network = self.pair.can.answer
        hidden = [] if network is None else [name for name in network.hidden if name in network.states_of]
        if network is None or len(hidden) != 1:
            return "component", ()
        return hidden[0], network.states_of[hidden[0]].names

    @property
    def class_names(self) -> np.ndarray:
        """The names of the classes in their order ``(C,)``, numbers if all of them are whole numbers."""
        names = self.spec.classes
        return np.array([int(name) for name in names] if all(map(is_whole_number, names)) else names)

    def outliers(
        self,
        x: Given,
        *,
        y: Classes | None = None,
        score: OutlierScore = "log_prob",
        held_out: Given | None = None,
        samples: int = SAMPLES,
        gaps: Gaps = REGRET,
        seed: int = 0,
    ) -> Any:
        """Which rows are strange, by a score that is higher of a stranger row: their rank, and p-value among held-out rows.

        ==================  ====================================================================================================
        ``log_prob``        -log p(x), or where the model does not know it minus the importance-weighted bound
        ``elbo``            -ELBO
        ``iwae``            minus the importance-weighted bound of ``samples`` draws, also where log p(x) is known
        ``reconstruction``  -E_q[log p(x | z)] (An and Cho 2015)
        ``kl``              KL(q(z | x) || p(z))
        ``regret``          what the ELBO gains by the best q of the guide's family for the row (Xiao, Yan and Amit 2020)
        ``typicality``      distance of log p(x) from its mean over the held-out rows (Nalisnick et al. 2019)
        ``complexity``      -log p(x) - the length of the row as it is compressed, of whole numbers (Serra et al. 2020)
        ==================  ====================================================================================================

        Args:
            x: rows ``(B, *event)`` in the units of the source.
            y: a class for all rows or one for each, by name or number, where the model is conditioned on labels.
            score: by what they are strange.
            held_out: rows that were not fitted to, and have their own labels where the model needs such; by default the fit's
                test rows, or its validation rows if it has no others.
            samples: draws of the latent variables per row, where they are needed.
            gaps: how the best q of a row is looked for, of ``regret``.
            seed: of the draws.

        Returns:
            ``log_prob``, ``rank``, ``p_value`` and ``score``, ``(B,)`` each.

        Raises:
            ValueError: rows that the fit was not built for, none that were held out, an unknown score, or one that these
                programs or data do not have.

        Examples:
            ``fit.outliers(new).p_value < 0.01``
        """
        options: dict[str, Any] = {"samples": whole("samples", samples), "seed": seed, "gaps": gaps}
        rows = self._to_score(self._split(x, y), **options)
        kept = self._to_score(self.held_out_rows() if held_out is None else self._split(held_out), **options)
        if not kept.split.total:
            got = f"{len(kept.split)} rows of weight 0" if len(kept.split) else "none"
            raise ValueError(f"expected held-out rows to compare with, got {got}: give some as held_out=...")
        for scored in (rows, kept):
            check_numbers(self.pair, scored.split, scored.log_prob, "log p(x)")
        found, others = strangeness(rows, kept, score), strangeness(kept, kept, score)
        check_numbers(self.pair, rows.split, found, "a score")
        check_numbers(self.pair, kept.split, others, "a score of held-out rows")
        _tell_impossible(rows.log_prob)
        rank = torch.empty(len(found), dtype=torch.int64, device=found.device)
        rank[(-found).argsort(stable=True)] = torch.arange(1, len(found) + 1, device=rank.device)
        outliers = Outliers(rows.log_prob, rank, _p_values(found, others, kept.split.weights), found)
        return as_columns_given(form_of(x), outliers._asdict(), outliers)

    def _to_score(self, split: Split, **options: Any) -> ScoredRows:
        levels = partial(_levels, split, dequantized=self.dequantized)
        return ScoredRows(self.pair, split, levels=levels, binary=self.spec.kind is BINARY, **options)

    def held_out_rows(self) -> Split:
        """The rows :meth:`outliers` compares with where none are given: test rows, else validation rows.

        Raises:
            ValueError: the data were given in memory and cannot be loaded again.
        """
        if self.held_out is not None:
            return self._split(self.held_out)
        if self.data.name == "array":
            raise ValueError(
                "the rows of this fit were given in memory, so those that were held out cannot be loaded again: give some as "
                "held_out=..., such as data.test"
            )
        test = self.rows(self.data, "test")
        return test if len(test) else self.rows(self.data, "valid")

    def rows(self, source: Any, split: str) -> Split:
        """One split of a declaration of data."""
        raise NotImplementedError

    def _scored(self, split: Split, samples: int, seed: int) -> Scores:
        with pyro.validation_enabled(False):  # the data are checked
            found = row_scores(self.pair, split, samples=whole("samples", samples), seed=seed)
        check_numbers(self.pair, split, found.log_prob, "a log p(x)")
        return found

    def _probabilities(self, x: Given, samples: int, seed: int, priors: Sequence[float] | None) -> Tensor:
        if self._labelled:
            return self._of_classes(x, samples, seed, priors)
        if priors is not None:
            raise ValueError("expected no priors of classes, got some for a model that is not conditioned on labels")
        split = self._split(x)
        if not len(split):
            raise ValueError("expected at least one row to predict, got none")
        if self.pair.model_facts.classifies:
            split = split.labelled(None, ())  # which are predicted
        with evaluating(self.pair), seeded(seed, self.device), pyro.validation_enabled(False):
            found = component_probabilities(self.pair, split, self._encoder, samples=samples)
        check_numbers(self.pair, split, found, "a probability")
        return found

    def _of_classes(self, x: Given, samples: int, seed: int, priors: Sequence[float] | None) -> Tensor:
        names = self.spec.classes
        weights = torch.ones(len(names), dtype=torch.float64) if priors is None else torch.tensor(priors, dtype=torch.float64)
        if weights.shape != (len(names),) or not bool((weights > 0).all() and weights.isfinite().all()):
            raise ValueError(f"expected a positive prior for each of {', '.join(names)}, got {priors}")
        split = self._split(x, names[0])
        scores = [self._scored(self._entrance.relabelled(split, name), samples, seed).log_prob for name in names]
        found = (torch.stack(scores, 1) + weights.log().to(scores[0].device)).softmax(1)
        _tell_impossible(torch.stack(scores, 1).amax(1))
        check_numbers(self.pair, split, found, "a probability")
        return found


def _tell_impossible(log_prob: Tensor) -> None:
    """Remark on rows whose log p(x) is minus infinity."""
    if bool((impossible := log_prob == -math.inf).any()):
        warnings.warn(
            f"log p(x), or the bound on it, is minus infinity for {which_rows(impossible)}: the fitted model gives them the "
            "probability zero, or one that underflows: correct values far outside of what was fitted, leave those rows out, or "
            "give counts to what was never seen (pseudo_counts, where the model has them)",
            FitWarning,
            stacklevel=3,
        )


def _p_values(found: Tensor, others: Tensor, weights: Tensor | None) -> Tensor:
    """(1 + number of others that are at least as high) / (1 + number of others), each counted as often as it weighs."""
    ordered, order = others.sort()
    counts = torch.ones_like(ordered) if weights is None else weights.to(ordered)[order]
    above = torch.cat([counts.flip(0).cumsum(0).flip(0), counts.new_zeros(1)])
    return (1.0 + above[torch.searchsorted(ordered, found)]) / (1.0 + above[0])


def _levels(split: Split, *, dequantized: bool) -> Tensor:
    """The values of the source ``(N, *event)``, without the noise between whole numbers."""
    return split.as_read(whole=dequantized).x
