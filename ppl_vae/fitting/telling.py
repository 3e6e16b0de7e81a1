"""What a fit tells of itself: its parameters by name, and a summary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ppl_vae.fitting.coding import Coding
from ppl_vae.fitting.parameters import Parameter, Parameters
from ppl_vae.fitting.table import plain, short
from ppl_vae.guides import Guide
from ppl_vae.inference.methods.base import Method
from ppl_vae.inference.methods.nuts import NUTS
from ppl_vae.models import Model
from ppl_vae.program.context import evaluating, seeded
from ppl_vae.program.quantities import COLUMN, COMPONENT, LATENT, TOKEN, Quantity
from ppl_vae.types import Record, Score, pass_name, score_of

__all__ = ["Telling"]

DRAWS = 500  # of the parameters, from which their standard errors are taken
CHAINED = 2000  # of those that NUTS has kept
RULE = 78


class Telling(Coding):
    """The part of a :class:`~ppl_vae.fitting.fitted.Fit` that tells what was found."""

    model: Model | Callable[..., Any]
    guide: Guide | Callable[..., Any]
    method: Method
    history: list[Record]
    without_latents: float | None

    @property
    def score(self) -> Score:
        """What the number is that the history tells of the pair's terms: its name there, its label, what it bounds."""
        return score_of(self.history[-1] if self.history else {}, self.pair.score)

    def parameters(self, *, seed: int = 0) -> Parameters:
        """What the model's parameters are, by name, in the units of the source and by the names of its columns.

        Of GMM ``weight``, ``mean`` and ``covariance`` or ``variance``; of FactorAnalysis and PPCA ``mean``, ``loading``,
        ``noise_variance`` and ``communality``, for standard normal factors and in a rotation that the note tells; of PCA
        ``mean``, ``axis`` and ``noise_variance``; of BayesianNetwork by node its table or its coefficients in each joint state
        of its parents; of HMM first states, transitions, and what each state emits; of MarkovChain its tables; of others what
        is the same for all data beside networks, as the moments of a prior and the scale of the noise.
        Where a posterior over parameters was fitted (a BayesianGuide, by SVI or NUTS) there are standard errors, the standard
        deviations of its draws.

        Args:
            seed: of these draws.

        Returns:
            By name :class:`~ppl_vae.fitting.parameters.Parameter`; ``rows()``, ``columns()`` and ``to_dict()`` for files and
            frames; printed it is tables.

        Raises:
            ValueError: a model all of whose parameters are weights of networks.

        Examples:
            ``pandas.DataFrame(fit.parameters().columns())``
        """
        describe = self.pair.can.describe
        with evaluating(self.pair):
            found = {} if describe is None else dict(describe.quantities())
        if not found:
            raise ValueError(
                "this model has no parameters beside those of its networks that it tells by names in the data: see "
                "dict(fit.pair.named_parameters())"
            )
        errors = self._errors(seed)
        return Parameters({name: self._parameter(each, errors.get(name)) for name, each in found.items()})

    def summary(self) -> str:
        """What was fitted to which data and how, what came of it, and the parameters, as text.

        Examples:
            ``print(fit.summary())``
        """
        last, score = self.history[-1] if self.history else {}, self.score
        told: dict[str, Any] = {
            "model": self.model,
            "guide": self.guide,
            "method": short(self.method),
            "data": f"{self.data.source}, {self.spec.size} training rows of {' x '.join(map(str, self.spec.event_shape))} "
            f"{self.spec.kind} values" + (", some missing" if self.spec.missing else ""),
        }
        if self.history:
            passes = pass_name(self.history)
            told[f"{passes}s"] = len(self.history)
        for name, label in ((score.name, score.label), ("log_likelihood", "log-likelihood"), ("kl", "KL")):
            for prefix, of in (("", "training"), ("valid_", "validation")):
                if isinstance(value := last.get(f"{prefix}{name}"), float):
                    told[f"{label}, {of}"] = f"{value:.4f} nats per datum"
        if self.without_latents is not None:
            told["without latent variables"] = f"{self.without_latents:.4f} nats per datum, training"
        lines = plain([[name, " ".join(str(value).split())] for name, value in told.items()], words=2)
        return "\n".join(["=" * RULE, lines, "=" * RULE, self._told_parameters(), "=" * RULE])

    def _told_parameters(self) -> str:
        """The tables, or in place of what only networks have their number."""
        numbers = sum(parameter.numel() for parameter in self.pair.parameters())
        try:
            return f"{self.parameters()}\n\n{numbers} numbers in model and guide"
        except ValueError:
            return f"{numbers} numbers in model and guide, none of them told by name"

    def _errors(self, seed: int) -> dict[str, Tensor]:
        """Standard deviations over draws of the parameters, in the units of the source; none of points."""
        guide, describe = self.pair.can.draw_parameters, self.pair.can.describe
        if guide is None or describe is None:
            return {}
        drawn: list[dict[str, Tensor]] = []
        with evaluating(self.pair), seeded(seed, self.device):
            for context in self._chains() or guide.parameter_draws(DRAWS):
                with context:
                    drawn.append({name: self._in_units(each) for name, each in describe.quantities().items()})
        if not drawn:
            return {}
        found = {name: torch.stack([draw[name] for draw in drawn]).std(0) for name in drawn[0]}
        return {name: se for name, se in found.items() if bool((se > 0).any())}

    def _chains(self) -> list[Any]:
        """Contexts at the draws of a fit by NUTS, or at some from all over them; of other fits, and runs of old, none."""
        guide, model = self.pair.guide, self.pair.model
        if not isinstance(self.method, NUTS) or not guide.chains.numel():
            return []
        values = {name: value.flatten(0, 1) for name, value in model.coordinates().unpack(guide.chains).items()}
        count = len(next(iter(values.values())))
        places = torch.linspace(0, count - 1, min(count, CHAINED)).long().tolist()
        return [model.given({name: value[place] for name, value in values.items()}) for place in places]

    def _parameter(self, each: Quantity, se: Tensor | None) -> Parameter:
        values = self._in_units(each)
        return Parameter(
            values=values.cpu().numpy(),
            axes=each.axes,
            labels=each.labels or tuple(self._labels(axis, size) for axis, size in zip(each.axes, values.shape, strict=True)),
            se=None if se is None else se.cpu().numpy(),
            note=each.note,
        )

    def _in_units(self, each: Quantity) -> Tensor:
        loc, scale = (value.expand(self.spec.event_shape).flatten() for value in self.transform.constants)
        return each.in_source_units(loc, scale)

    def _labels(self, axis: str, size: int) -> tuple[str, ...]:
        """Names of columns, numbers of components from 0 as they are predicted, latent dimensions as files call them."""
        if axis == COLUMN and len(self.spec.columns) == size:
            return self.spec.columns
        if axis == TOKEN and self.spec.ragged and len(vocabulary := self.spec.fields[0].vocabulary) == size:
            return tuple(token if token.strip() else repr(token) for token in vocabulary)
        start, prefix = {COLUMN: (1, "x"), COMPONENT: (0, ""), LATENT: (1, "z"), TOKEN: (0, "")}[axis]
        return tuple(f"{prefix}{place}" for place in range(start, start + size))
