"""The start of a training: both programs meet the data, and what knows a good start takes it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Set

import torch
from torch import Tensor, nn

from ppl_vae.data import Data, Split
from ppl_vae.data.matrices import Matrices
from ppl_vae.data.stream import Stream
from ppl_vae.evaluate.rows import batches
from ppl_vae.program.context import evaluating
from ppl_vae.program.hooks import Start, start
from ppl_vae.program.pair import Pair
from ppl_vae.program.parts import Parts
from ppl_vae.types import FitWarning

__all__ = ["check_rows", "meet", "sample", "start_pair"]

LOOKED_AT, ELEMENTS = 10_000, 2**23  # rows that modules may look at as they start, fewer where they are large
VALIDATED = 1000  # rows of the validation data that plain programs are tried on before the first step


def start_pair(pair: Pair, split: Split, seed: int, *, warm: Iterable[str] = (), parts: Parts | None = None) -> None:
    """Call the start hooks of a pair's modules, see :mod:`ppl_vae.program.hooks`.

    Args:
        pair: model and guide.
        split: the training data.
        seed: of the fit.
        warm: the halves, ``model`` or ``guide``, that are left alone.
        parts: what is to be trained; all else stays as it is, and so does what an earlier stage of the fit has trained.

    Examples:
        >>> from ppl_vae import build, load_data
        >>> data = load_data("digits", kind="real")
        >>> pair = build(FactorAnalysis(latent_dim=2), AmortizedLinear(), data.spec)
        >>> start_pair(pair, data.train, seed=0)
        >>> bool((pair.guide.center != 0).any())
        True
    """
    context = Start(
        model=pair.model,
        guide=pair.guide,
        split=split,
        rows=Matrices(split, relative=True),
        sample=sample(split, seed),
        seed=seed,
    )
    state = pair.state_dict(keep_vars=True)
    new = (parts.tensors if parts is not None else state.keys()) - pair.learned
    # A module that holds what starts may write more than that.
    kept = [(tensor, tensor.detach().clone()) for name, tensor in state.items() if name not in new]
    start(context, warm, [*(parts.still if parts is not None else ()), *_over(pair, state, new)])
    with torch.no_grad():
        for tensor, value in kept:
            tensor.copy_(value)


def _over(pair: Pair, state: Mapping[str, Tensor], new: Set[str]) -> list[nn.Module]:
    """The modules all of whose tensors an earlier stage has trained."""
    starting = {id(state[name]) for name in new}
    found = ((module, module.state_dict(keep_vars=True).values()) for module in (pair.modules() if pair.learned else ()))
    return [module for module, tensors in found if tensors and not any(id(tensor) in starting for tensor in tensors)]


def meet(pair: Pair, data: Data, batch_size: int) -> None:
    """Let both programs run once for each kind of batch: plain ones then have all their parameters."""
    # A user's program may make parameters and plates of the size of its batch.
    size = min(batch_size if pair.plain else 2, len(data.train))
    for part, _ in data.train.apart(pair.reads):
        some = min(size, len(part))
        pair.plates(*next(part[:some].read(pair.reads, some)))


def check_rows(pair: Pair, data: Data) -> None:
    """Raise ``ValueError`` if plain programs cannot be run on the data to come; remark on what is not evaluated."""
    if pair.local and isinstance(data.train.raw, Stream):
        raise ValueError("these programs have parameters of their own for rows of the data: fit data in memory, not a stream")
    if not len(data.valid):
        return
    if pair.local:
        warnings.warn(
            "these programs have parameters of their own for rows of the training data, which other data have none of: there "
            "are no validation numbers; load the data with load_data(..., valid=0.0, test=0.0) to fit them all",
            FitWarning,
            stacklevel=3,
        )
        return
    size = min(len(data.valid), VALIDATED)
    try:
        with evaluating(pair):
            pair.plates(*next(batches(pair, data.valid[:size], size)))
    except ValueError as error:
        raise ValueError(f"{error}; so it is for the {size} validation data: or load_data(..., valid=0.0)") from None


def sample(split: Split, seed: int) -> Tensor:
    """Rows from all over a split, of ragged ones the elements, as the model sees them; their noise is no fit's other noise."""
    most = min(LOOKED_AT, max(1, ELEMENTS // split.elements))
    places = torch.linspace(0, len(split) - 1, min(most, len(split), split.at_once)).long()
    generator = torch.Generator(split.device).manual_seed(seed)
    if split.sizes is None:
        return split[places].transformed(generator)
    return torch.cat([split.transform(elements, generator) for elements in split[places].chunks()])
