"""Priors of grids of codes: which of K vectors stands at each place (van den Oord, Vinyals and Kavukcuoglu 2017)."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.declaration import Declaration
from ppl_vae.nn.autoregressive import Autoregressive, sharpened_logits
from ppl_vae.nn.causal import CausalNetwork, Elements
from ppl_vae.nn.raster import Raster

__all__ = ["CodesPrior", "UniformCodes", "build_codes_prior", "codes_story"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodesPrior(Declaration, abc.ABC):
    """p(k) of a grid of codes k ``(H, W)``, whole numbers from 0 to K - 1."""

    @abc.abstractmethod
    def build(self, levels: int, grid: tuple[int, int], context: tuple[int, ...]) -> nn.Module:
        """A module whose call with a context ``(..., *context)``, or none, returns the distribution."""

    @abc.abstractmethod
    def story(self) -> str:
        """The distribution as it stands in a model's story."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class UniformCodes(CodesPrior):
    """p(k) = K^(-H W): every code is as likely as any other at each place, whatever the others are.

    It is what the codes of a VQ-VAE have while its networks are trained (van den Oord, Vinyals and Kavukcuoglu 2017).

    Examples:
        >>> from ppl_vae.priors import build_codes_prior
        >>> codes = build_codes_prior(UniformCodes(), levels=8, grid=(2, 3))()
        >>> codes.event_shape, codes.log_prob(torch.zeros(2, 3, dtype=torch.int64))
        (torch.Size([2, 3]), tensor(-12.4766))
    """

    def build(self, levels: int, grid: tuple[int, int], context: tuple[int, ...]) -> nn.Module:
        """A module whose call with a context, or none, returns the distribution."""
        return UniformGrid(levels, grid, len(context))

    def story(self) -> str:
        """The distribution as text."""
        return "Uniform{1..K}"


class UniformGrid(nn.Module):
    """The same at each place; of a context only the batch shape counts."""

    logits: Tensor

    def __init__(self, levels: int, grid: tuple[int, int], context_dim: int) -> None:
        super().__init__()
        self.context_dim = context_dim
        self.register_buffer("logits", torch.zeros(*grid, levels), persistent=False)

    def forward(self, context: Tensor | None = None) -> dist.Distribution:
        """p(k)."""
        batch = () if context is None else context.shape[: context.dim() - self.context_dim]
        return dist.Categorical(logits=self.logits.expand(*batch, *self.logits.shape)).to_event(2)


class CodeNumber(dist.Categorical):
    """The number of a code, of which no mean makes sense."""

    @property
    def point_prediction(self) -> Tensor:
        """The most probable one."""
        return self.logits.argmax(-1)

    def sharpened(self, temperature: float, top_p: float) -> CodeNumber:
        """With logits divided by the temperature, of which the likeliest that together have ``top_p`` are kept."""
        return CodeNumber(logits=sharpened_logits(self.logits, temperature, top_p))


class CodeNumbers(nn.Module):
    """Logits ``(..., K)`` to the distribution of a code."""

    def forward(self, features: Tensor) -> dist.Distribution:
        """p(k | h)."""
        return CodeNumber(logits=features)


class CausalCodes(nn.Module):
    """p(k) = prod_ij p(k_ij | those before it in the order of reading, context), uniform before it is trained.

    Until then the network is not asked: codes are trained first at no cost of their prior.

    Args:
        declared: the network.
        levels: K.
        grid: ``(H, W)``.
        context: the shape of a context, ``()`` without one.
    """

    def __init__(self, declared: CausalNetwork, levels: int, grid: tuple[int, int], context: tuple[int, ...]) -> None:
        super().__init__()
        declared.refuse_unused("a prior of codes", *(["pool"] if context else ["pool", "enters"]))
        self.grid = grid
        self.context_shape = context
        self.network = declared.build_on_grid(Elements(levels=levels, grid=grid), (levels,), context)
        self.network.start_flat()
        self.code = CodeNumbers()
        self.flat = UniformGrid(levels, grid, len(context))
        self.as_built = True

    def forward(self, context: Tensor | None = None) -> dist.Distribution:
        """p(k | context), for contexts ``(..., *context_shape)``; as built its network need not be asked."""
        self.as_built &= not self.training
        if self.as_built:
            return self.flat(context)
        if context is not None:
            context = self._flat_context(context)
        return Raster(Autoregressive(self.network, self.code, longest=math.prod(self.grid), context=context), self.grid)

    def costs(self, codes: Tensor, context: Tensor | None = None) -> Tensor | None:
        """``-log p`` of every code at each place ``(..., H, W, K)``, given those before it in ``codes`` ``(..., H, W)``.

        ``None`` while all cost the same.
        """
        self.as_built &= not self.training
        if self.as_built:
            return None
        if context is not None:
            context = self._flat_context(context)
        logits: Tensor = self.network(codes.flatten(-2), context)
        return -logits.log_softmax(-1).unflatten(-2, self.grid)

    @property
    def phase(self) -> int:
        """Whether its network is asked, 0 or 1."""
        return int(not self.as_built)

    def train(self, mode: bool = True) -> CausalCodes:
        """As of any module, but that parameters which somebody else has written are seen here."""
        self.as_built &= self._is_flat()
        return super().train(mode)

    def _flat_context(self, context: Tensor) -> Tensor:
        return context.reshape(*context.shape[: context.dim() - len(self.context_shape)], -1)

    def _is_flat(self) -> bool:
        return not any(bool(parameter.any()) for parameter in self.network.output.parameters())

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self.as_built = False


def build_codes_prior(
    declared: CodesPrior | CausalNetwork,
    *,
    levels: int,
    grid: tuple[int, int],
    context: int | tuple[int, int, int] = 0,
) -> nn.Module:
    """A module whose call ``(context=None)`` returns a distribution of grids of codes ``(H, W)``, int64 from 0 to K - 1.

    A causal network starts with an output layer of zeros, so that the prior is uniform until it is trained.

    Args:
        declared: the prior.
        levels: K, how many codes there are.
        grid: ``(H, W)``.
        context: C of vectors ``(..., C)``, or ``(C, H, W)`` of maps ``(..., C, H, W)``, on which the prior hangs; 0 without.

    Raises:
        ValueError: options of the network that have no effect here.

    Examples:
        >>> from ppl_vae.nn import LSTM
        >>> prior = build_codes_prior(LSTM(hidden=8), levels=8, grid=(2, 3), context=4)
        >>> prior(torch.ones(1, 4)).log_prob(torch.ones(1, 2, 3, dtype=torch.int64)).detach()
        tensor([-12.4766])
    """
    shape = ((context,) if context else ()) if isinstance(context, int) else tuple(context)
    if isinstance(declared, CausalNetwork):
        return CausalCodes(declared, levels, grid, shape)
    return declared.build(levels, grid, shape)


def codes_story(declared: CodesPrior | CausalNetwork, context: str = "") -> str:
    """The prior as it stands in a model's story."""
    if isinstance(declared, CausalNetwork):
        return f"Categorical(softmax {declared.causal_story(context).replace('x_<t', 'k_<t')})"
    return declared.story()
