"""Numbers of a prior that are given once for all dimensions, or one each, and priors whose dimensions are independent."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ppl_vae.declaration import require
from ppl_vae.priors.base import Prior

__all__ = ["Elementwise", "LocationScale", "as_text", "as_tuple", "each", "expanded"]


def as_tuple(value: Any) -> Any:
    """Lists as tuples, nested ones too, so that a declaration can be hashed."""
    return tuple(map(as_tuple, value)) if isinstance(value, (tuple, list)) else value


def each(value: float | tuple[float, ...]) -> tuple[float, ...]:
    """The numbers themselves."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def expanded(name: str, value: float | tuple[float, ...], shape: tuple[int, ...]) -> Tensor:
    """The numbers as a tensor of that shape: one for all, one each, or of a matrix one for each column.

    Raises:
        ValueError: another number of them.
    """
    size = math.prod(shape)
    if isinstance(value, tuple) and len(shape) > 1 and len(value) == shape[-1]:
        return torch.as_tensor(value, dtype=torch.get_default_dtype()).expand(shape).clone()
    if isinstance(value, tuple) and len(value) != size:
        raise ValueError(f"expected one {name} or {size}, one for each latent dimension, got {len(value)}")
    return torch.as_tensor(value, dtype=torch.get_default_dtype()).expand(size).reshape(shape).clone()


def as_text(value: float | tuple[float, ...]) -> str:
    """The numbers as they stand in a model's story."""
    return f"({', '.join(f'{v:g}' for v in value)})" if isinstance(value, tuple) else f"{value:g}"


class Elementwise(nn.Module):
    """Independent elements of one family; its arguments are buffers of one shape, so they follow ``.to(device)``."""

    def __init__(self, family: Callable[..., Any], **arguments: Tensor) -> None:
        super().__init__()
        self.family = family
        for name, value in arguments.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self) -> Any:
        """The distribution of all elements together."""
        elements = self.family(**dict(self.named_buffers()))
        return elements.to_event(len(elements.batch_shape))


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocationScale(Prior, abc.ABC):
    """A prior with independent dimensions of one location-scale family.

    Args:
        loc: location, one for all dimensions or one each.
        scale: scale, likewise.
    """

    loc: float | tuple[float, ...] = 0.0
    scale: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        for name in ("loc", "scale"):
            object.__setattr__(self, name, as_tuple(getattr(self, name)))
        require(all(map(math.isfinite, each(self.loc))), "a finite loc", self.loc)
        require(all(0 < scale < math.inf for scale in each(self.scale)), "positive scales", self.scale)

    @abc.abstractmethod
    def family(self, loc: Tensor, scale: Tensor) -> Any:
        """The distribution of elements with these locations and scales."""

    def build(self, shape: tuple[int, ...]) -> nn.Module:
        """A module whose call returns the distribution on ``shape``.

        Raises:
            ValueError: a number of values that is not the number of dimensions.
        """
        return Elementwise(self.family, loc=expanded("loc", self.loc, shape), scale=expanded("scale", self.scale, shape))
