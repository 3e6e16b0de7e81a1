"""The words that every layer shares.

Legend of axes, used in every docstring:

====  ==========================================================
N     data in the training set
B     data in a batch
S     samples (particles) of a latent variable per datum
K     latent dimensions
P     likelihood parameters per data element (decoder features)
====  ==========================================================

``*event`` is the shape of one datum, such as ``(1, 28, 28)``. A decoder's features are
``(..., P, *event)``. Log-probabilities are in nats, and per datum wherever a number is reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from torch import Tensor

__all__ = ["KINDS", "DataSpec", "Kind", "Terms"]

Kind = Literal["binary", "unit_interval", "real", "count", "categorical"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """What a model needs to know of the data before it can be built.

    Args:
        event_shape: shape of one datum as the model sees it, ``(channels, height, width)`` for images.
        kind: the set the values lie in: ``binary`` {0, 1}, ``unit_interval`` [0, 1], ``real``,
            ``count`` {0, 1, 2, ...} or ``categorical`` {0, ..., levels - 1}.
        size: N, the number of training data; scales a batch's ELBO to the whole set.
        classes: names of the classes where the data are labelled.
        levels: number of categories of categorical data.
        missing: whether entries may be missing (NaN).
    """

    event_shape: tuple[int, ...]
    kind: Kind
    size: int
    classes: tuple[str, ...] = ()
    levels: int | None = None
    missing: bool = False


class Terms(NamedTuple):
    """The ELBO of each datum and its two halves, ``elbo = reconstruction - kl``, each ``(B,)`` in nats."""

    elbo: Tensor
    reconstruction: Tensor
    kl: Tensor
