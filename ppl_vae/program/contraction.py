"""Models that sum discrete latent variables out, marked ``infer={"enumerate": "parallel"}`` and left out of the guide.

    log p(x, z) = log sum_k p(x, z, k),   log p(z) = log sum_k p(z, k)

As Pyro's ``TraceEnum_ELBO`` contracts them, variable by variable, but not summed over the data.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, cast

from pyro.infer.traceenum_elbo import _compute_model_factors
from pyro.ops import packed
from pyro.ops.contract import contract_tensor_tree
from pyro.ops.rings import LogRing
from pyro.poutine import Trace
from torch import Tensor

__all__ = ["contracted", "latent_part"]

Site = dict[str, Any]
Factors = OrderedDict[Any, list[Any]]


def contracted(model: Trace, guide: Trace) -> list[Site]:
    """The model's terms with its summed variables summed out, as sites: ``log_prob``, ``scale``, ``cond_indep_stack``.

    Args:
        model: with every value of its summed variables in dimensions left of all plates, and with its log-probabilities.
        guide: of the same run, with its own.
    """
    _packed(model, guide)
    costs, factors, _, summed, scale = _compute_model_factors(model, guide)
    terms = [(ordinal, term) for ordinal, of_ordinal in costs.items() for term in of_ordinal]
    for ordinal, of_ordinal in _contract(factors, summed).items():
        terms += [(ordinal, packed.scale_and_mask(term, scale=scale)) for term in of_ordinal]
    frames = {frame.name: frame for site in model.nodes.values() for frame in site.get("cond_indep_stack", ())}
    by_symbol = {symbol: frames[name] for name, symbol in model.plate_to_symbol.items() if name in frames}
    return [_site(model, term, [by_symbol[symbol] for symbol in ordinal]) for ordinal, term in terms]


def latent_part(model: Trace) -> Trace:
    """A trace without what is observed."""
    part = model.copy()
    for name in model.observation_nodes:
        part.nodes.pop(name)
    for name in ("plate_to_symbol", "symbol_to_dim"):
        if name in vars(model):
            setattr(part, name, vars(model)[name])
    return part


def _packed(model: Trace, guide: Trace) -> None:
    if not all("packed" in site for site in model.nodes.values() if site["type"] == "sample"):
        guide.pack_tensors()
        model.pack_tensors(guide.plate_to_symbol)


def _contract(factors: Factors, summed: set[str]) -> Factors:
    if not factors:
        return OrderedDict()
    every = [term for terms in factors.values() for term in terms]
    sizes = {dim: size for term in every for dim, size in zip(term._pyro_dims, term.shape, strict=True)}
    return cast(Factors, contract_tensor_tree(factors, summed, ring=LogRing(dim_to_size=sizes)))


def _site(model: Trace, term: Tensor, stack: list[Any]) -> Site:
    values = packed.unpack(term, model.symbol_to_dim)
    shape = [1] * max([values.dim(), *(-frame.dim for frame in stack)])
    shape[len(shape) - values.dim() :] = values.shape
    for frame in stack:  # a term may be the same along a plate
        shape[frame.dim] = frame.size
    return {"log_prob": values.expand(shape), "cond_indep_stack": stack}
