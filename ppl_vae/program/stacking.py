"""Whether two programs may be run at several samples at once, in a dimension left of their plates."""

from __future__ import annotations

import warnings
import weakref
from functools import partial
from typing import Any

import torch
from pyro.distributions import TransformedDistribution
from pyro.poutine import Trace
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from ppl_vae.program.context import evaluating, seeded
from ppl_vae.program.pair import Pair
from ppl_vae.program.traces import Substitute, Traces, log_joint, traces
from ppl_vae.simplex import moved
from ppl_vae.text import as_line
from ppl_vae.types import FitWarning

__all__ = ["stacks", "why_not_stacked"]

TOLERANCE = 1e-3  # between log-probabilities of one draw, in nats and relative

_found: weakref.WeakKeyDictionary[Pair, dict[tuple[Any, ...], str | None]] = weakref.WeakKeyDictionary()


def stacks(pair: Pair, batch: tuple[Tensor, ...]) -> bool:
    """Whether both programs give several samples at once what they give each alone; it is told once if they do not.

    Reshapes, batch normalization, packed sequences and other programs that count dimensions from the left do not.
    """
    met = pair in _found
    reason = why_not_stacked(pair, batch)
    if reason and not met:
        warnings.warn(
            f"samples are drawn one after the other, since the programs do not take several at once in a dimension on the left "
            f"({reason}): count dimensions from the right to have them faster",
            FitWarning,
            stacklevel=2,
        )
    return reason is None


def why_not_stacked(pair: Pair, batch: tuple[Tensor, ...]) -> str | None:
    """Why the programs do not take several samples at once, if so; found once for each size and kind of batch.

    Parameters, buffers and the state of random number generators stay as they are.
    """
    known = _found.setdefault(pair, {})
    key = len(batch[0]), *(part.shape[1:] for part in batch)  # a batch that lacks a field has other sites
    if key not in known:
        # Nobody counts or records what is done here.
        with _disable_current_modes(), evaluating(pair), seeded(0, batch[0].device):
            known[key] = _reason(pair, batch)
    return known[key]


def _reason(pair: Pair, batch: tuple[Tensor, ...]) -> str | None:
    alone = traces(pair, batch, 1)
    try:
        both = traces(pair, batch, 2)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever the user's program raises
        return as_line(str(error).partition("Trace Shapes:")[0]) or type(error).__name__
    return None if pair.plates(*batch).subsampled or _agree(pair, batch, alone, both) else "log-probabilities differ"


def _agree(pair: Pair, batch: tuple[Tensor, ...], alone: Traces, both: Traces) -> bool:
    """Whether each of two samples has the log-probabilities that it has alone."""
    for sample in range(2):
        values = {name: _of_sample(site, both.guide, sample) for name, site in _drawn(alone.guide).items()}
        if any(value is None for value in values.values()):
            return False
        try:
            with Substitute({name: partial(_this, value) for name, value in values.items()}):
                again = traces(pair, batch, 1)
        except NotImplementedError:  # a density of its own draws only
            return True
        pairs = [(log_joint(both)[sample], log_joint(again)[0]), *_of_guide(both.guide, again.guide, sample)]
        if not all(torch.allclose(a, b, TOLERANCE, TOLERANCE, equal_nan=True) for a, b in pairs):
            return False
    return True


def _this(value: Tensor | None, fn: Any) -> Any:
    return value


def _drawn(guide: Trace) -> dict[str, dict[str, Any]]:
    return {name: guide.nodes[name] for name in guide.stochastic_nodes}


def _of_sample(site: dict[str, Any], both: Trace, sample: int) -> Tensor | None:
    """The value of one of two samples in the shape that it has alone, if it has one."""
    shape, values = site["value"].shape, both.nodes[site["name"]]["value"]
    if values.numel() != 2 * shape.numel() or len(values) != 2:
        return None
    return moved(values, lambda part: part[sample].reshape(shape))


def _of_guide(both: Trace, alone: Trace, sample: int) -> list[tuple[Tensor, Tensor]]:
    """Log-probabilities of the guide's sites, but of those that only know them of their own draws."""
    names = [name for name, site in _drawn(alone).items() if not isinstance(site["fn"], TransformedDistribution)]
    sums = ((both.nodes[name]["log_prob"], alone.nodes[name]["log_prob"]) for name in names)
    return [(a[sample].sum() if len(a.shape) and len(a) == 2 else a.sum(), b.sum()) for a, b in sums]
