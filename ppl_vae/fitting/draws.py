"""Draws of a fit's parameters in the container of ArviZ, whichever of its two forms is installed."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppl_vae.arguments import whole
from ppl_vae.data import Split
from ppl_vae.evaluate.rows import batches, log_jacobians
from ppl_vae.fitting.coding import Coding
from ppl_vae.fitting.inputs import Given
from ppl_vae.inference.methods.base import Method
from ppl_vae.inference.methods.nuts import NUTS
from ppl_vae.program.context import evaluating, seeded
from ppl_vae.types import Record

__all__ = ["Drawn", "container"]

Groups = Mapping[str, Mapping[str, np.ndarray]]

NESTED_SINCE = 1  # the first version of ArviZ whose from_dict takes the groups as one mapping


class Drawn(Coding):
    """The part of a :class:`~ppl_vae.fitting.fitted.Fit` that hands out draws of parameters."""

    method: Method
    history: list[Record]

    def to_arviz(self, data: Given | None = None, *, draws: int = 1000, seed: int = 0) -> Any:
        """Draws of the parameters from their posterior, for ArviZ: ``InferenceData`` of its 0.x, ``DataTree`` of its 1.x.

        Of a fit by NUTS the group ``posterior`` has its own draws ``(chain, draw, ...)``, and ``sample_stats`` log p(x, theta)
        of each as ``lp``, in nats, summed over the training data; of a :class:`~ppl_vae.BayesianGuide` one chain of draws from
        q(theta). Axes are named (``column``, ``factor``, ``component``), columns of a table by their names. Parameters are in
        the units of what the model sees, and loadings are rotated towards each other.

        Args:
            data: rows for the group ``log_likelihood``: the exact log p(x_n | theta) of each draw and row in nats, of the
                source's data, with latent variables integrated out; as leave-one-out cross-validation needs it of the training
                rows.
            draws: how many, from a guide.
            seed: of these.

        Raises:
            ValueError: parameters without a posterior, fewer than one draw, rows that the fit was not built for, or an ArviZ
                (extra ``arviz``) that is not installed or would not hold the draws in their shapes.

        Examples:
            ``arviz.summary(fit.to_arviz(data.train))``
        """
        values = self._values(whole("draws", draws), seed)
        model = self.pair.model
        groups: dict[str, dict[str, np.ndarray]] = {
            "posterior": {name: value.detach().cpu().numpy() for name, value in values.items()}
        }
        if isinstance(self.method, NUTS):
            rows = self.spec.size if self.spec.weight is None else self.spec.weight
            counted = [row["log_joint"] * rows for row in self.history if row["stage"] == "sample"]
            groups["sample_stats"] = {"lp": np.array(counted).reshape(next(iter(values.values())).shape[:2])}
        if data is not None:
            groups["log_likelihood"] = {"x": self._log_likelihood(self._split(data), values)}
        sizes = {axis: size for name in values for axis, size in zip(model.axes[name], values[name].shape[2:], strict=True)}
        labels = {axis: list(range(size)) for axis, size in sizes.items() if axis}
        named = {axis: list(self.spec.columns) for axis in labels if axis.endswith("column") and self.spec.columns}
        dims = {name: [axis or f"{name}_{place}" for place, axis in enumerate(model.axes[name])] for name in values}
        return container(groups, coords=labels | named, dims=dims | {"x": ["row"]})

    def _values(self, draws: int, seed: int) -> Mapping[str, Tensor]:
        """Draws of the parameters by name, ``(chains, draws, ...)``."""
        guide = self.pair.guide
        if not self.pair.model_facts.parameter_sites or self.pair.plain or self.pair.guide_facts.score == "log_joint":
            raise ValueError(
                "expected a fit whose parameters have a posterior, got point estimates: declare priors, such as "
                "FactorAnalysis(weights=Normal()), and fit by NUTS() or with guide=BayesianGuide()"
            )
        if isinstance(self.method, NUTS):
            if not guide.chains.numel():
                raise ValueError("this run of NUTS is from before draws were kept: fit it again")
            chains: dict[str, Tensor] = self.pair.model.coordinates().unpack(guide.chains)
            return chains
        if draws < 1:
            raise ValueError(f"expected at least 1 draw, got {draws}")
        with evaluating(self.pair), seeded(seed, self.device):
            return {name: value[None] for name, value in guide.drawn_parameters(draws).items()}

    def _log_likelihood(self, split: Split, values: Mapping[str, Tensor]) -> np.ndarray:
        """Log p(x_n | theta) of each draw, ``(chains, draws, N)``."""
        model, at = self.pair.model, {name: value.flatten(0, 1) for name, value in values.items()}
        leading = next(iter(values.values())).shape[:2]
        found = []
        with evaluating(self.pair):
            ((x, *_),) = batches(self.pair, split, max(1, len(split)))
            for place in range(leading.numel()):
                with model.given({name: value[place] for name, value in at.items()}):
                    found.append(model.log_prob(x))
        exact: np.ndarray = (torch.stack(found) + log_jacobians(self.pair, split)).unflatten(0, leading).cpu().numpy()
        return exact


def _imported() -> Any:
    """ArviZ; its 0.23 moves a file as it is first imported on a day, which another process that does so may have moved."""
    try:
        return importlib.import_module("arviz")
    except FileNotFoundError:
        return importlib.import_module("arviz")


def container(groups: Groups, *, coords: Mapping[str, list[Any]], dims: Mapping[str, list[str]]) -> Any:
    """Groups of arrays ``(chain, draw, ...)`` as the installed ArviZ holds them.

    Its 0.x takes each group as an argument, its 1.x all as one mapping, which 0.x takes without an error for one variable of
    objects; so the shapes are checked.

    Raises:
        ValueError: ArviZ is not installed, or holds arrays of other shapes.
    """
    try:
        arviz = _imported()
    except ImportError:
        raise ValueError("to_arviz needs ArviZ: pip install 'ppl_vae[arviz]'") from None
    plain = {group: dict(arrays) for group, arrays in groups.items()}
    if int(arviz.__version__.split(".")[0]) >= NESTED_SINCE:
        found = arviz.from_dict(plain, coords=coords, dims=dims)
    else:
        found = arviz.from_dict(**plain, coords=coords, dims=dims)
    for group, arrays in plain.items():
        for name, array in arrays.items():
            held = found[group][name] if group in found and name in found[group] else None
            if held is None or tuple(held.shape) != array.shape:
                shape = "nothing" if held is None else tuple(held.shape)
                raise ValueError(
                    f"ArviZ {arviz.__version__} holds {shape} of {group}/{name} where {array.shape} was given: install another "
                    "version of it (extra `arviz`)"
                )
    return found
