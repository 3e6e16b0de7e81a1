"""The method that is taken where none is declared: by what the model offers, and by the number of rows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from ppl_vae.data import Data
from ppl_vae.guides import ExactPosterior, MeanField
from ppl_vae.inference.methods.base import Method
from ppl_vae.inference.methods.cavi import CAVI
from ppl_vae.inference.methods.closed_form import ClosedForm
from ppl_vae.inference.methods.em import EM
from ppl_vae.inference.methods.svi import SVI
from ppl_vae.memory import within_memory
from ppl_vae.models import Model
from ppl_vae.program.capabilities import Conjugate, CoordinateAscent, Solvable
from ppl_vae.program.context import seeded
from ppl_vae.text import as_line
from ppl_vae.types import DataSpec

__all__ = ["default_method", "svi_for"]

STEPS = 2000  # that a fit has at least
MOST_EPOCHS, FEWEST_EPOCHS = 1000, 20
SMALLEST_BATCH, LARGEST_BATCH = 64, 1024
BATCHES = 500  # of an epoch, that batches grow to keep to
ELEMENTS = 4096  # of rows that differ in length, in a batch, that batches shrink to keep to
SMALLEST_OF_LONG, FEWEST_OF_LONG = 8, 10  # rows in such a batch, and epochs: a row of running text is many observations


def default_method(model: Model | Callable[..., Any], guide: Any, data: Data, *, seed: int | None = None) -> Method:
    """How a model is fitted where nothing is declared.

    By coordinate ascent (:class:`~ppl_vae.CAVI`) where the guide is :class:`~ppl_vae.MeanField`, or not declared and the model
    made for it. By formula (:class:`~ppl_vae.ClosedForm`) or by :class:`~ppl_vae.EM` where the model offers it and the guide is
    the exact posterior or not declared; by CAVI where it offers updates of factors alone; else by :class:`~ppl_vae.SVI`, as
    :func:`svi_for` says.

    Args:
        model: a declared model, or a plain program.
        guide: the declared guide, a plain program, or none.
        data: as the model takes them.
        seed: of the method, 0 by default.

    Examples:
        >>> default_method(GMM(components=3), None, load_data("digits"))
        EM(seed=0, max_iterations=1000, tolerance=1e-08, n_init=1, acceleration='squarem')
    """
    if isinstance(guide, MeanField) or (guide is None and isinstance(model, Model) and model.posterior_family == "factors"):
        return CAVI(seed=seed or 0)
    found = _offered(model, guide, data.spec) if isinstance(model, Model) and not model.parameter_priors else None
    sizes = data.train.sizes
    method = found or svi_for(len(data.train), 1.0 if sizes is None else float(sizes.double().mean()))
    return method if seed is None else dataclasses.replace(method, seed=seed)


def svi_for(rows: int, elements: float = 1.0) -> SVI:
    """SVI for so many training rows.

    Batches are of 64 rows, doubled until an epoch has no more than 500 of them, and of at most 1024. The epochs, 20 to 1000,
    give 2,000 steps or more. Of rows that differ in length and are long, as those of running text are, batches are halved until
    they have no more than 4,096 elements, down to 8 rows, and 10 epochs are enough. The learning rate stays the model's own.

    Args:
        rows: how many there are to train on.
        elements: how many a row has on average, where rows differ in length.

    Examples:
        >>> [(svi_for(rows).batch_size, svi_for(rows).epochs) for rows in (100, 1257, 60_000, 10**6)]
        [(64, 1000), (64, 100), (128, 20), (1024, 20)]
        >>> svi_for(3050, 256).batch_size, svi_for(3050, 256).epochs
        (16, 11)
    """
    batch_size, fewest = SMALLEST_BATCH, FEWEST_EPOCHS
    while batch_size < LARGEST_BATCH and rows > BATCHES * batch_size:
        batch_size *= 2
    while batch_size > SMALLEST_OF_LONG and batch_size * elements > ELEMENTS:
        batch_size, fewest = batch_size // 2, FEWEST_OF_LONG
    epochs = math.ceil(STEPS / math.ceil(rows / batch_size))
    return SVI(batch_size=batch_size, epochs=min(MOST_EPOCHS, max(fewest, epochs)))


def _offered(model: Model, guide: Any, spec: DataSpec) -> Method | None:
    """The method without gradients that the model's program offers for such data and such a guide, if it does."""
    if (spec.ragged and not model.takes_ragged) or not isinstance(guide, ExactPosterior | MeanField | None):
        return None  # of rows that differ it is told where it is built
    model.check(spec)
    with within_memory(f"{as_line(model)} for data of shape {spec.event_shape}"), seeded(0):
        program = model.build(spec)
    if not isinstance(guide, MeanField):
        if isinstance(program, Solvable) and (not isinstance(program, Conjugate) or (model.isotropic and not spec.missing)):
            return ClosedForm()
        if isinstance(program, Conjugate):
            return EM()
    return CAVI() if isinstance(program, CoordinateAscent) and not isinstance(guide, ExactPosterior) else None
