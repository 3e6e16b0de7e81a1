"""A small residual U-Net: images to images of their size, through several resolutions, with or without a vector beside them."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from ppl_vae.declaration import require
from ppl_vae.nn.base import Batched, TimedNetwork
from ppl_vae.nn.layers import channels_last

__all__ = ["UNet"]

GROUPS, NARROWEST = 8, 4  # of a normalization: at most so many groups, of at least so many channels


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNet(TimedNetwork):
    """Residual blocks on ever smaller images and back, each size on the way back shown what it was on the way down.

    h' = h + conv(f(norm(conv(f(norm(h)))))) with f(x) = x sigmoid(x); sizes are halved, rounded up, from stage to stage, and
    doubled and cropped on the way back, so that images may have any size. Ronneberger et al. (2015), "U-Net"; Ho et al. (2020),
    "Denoising diffusion probabilistic models".

    :meth:`build_timed` makes it a denoiser: what it is told, such as sinusoids of the time, scales and shifts the features of
    every block (Perez et al. 2018, "FiLM"), and it starts at zero: its last layer, and the last one of every block, do.

    Args:
        channels: of the stages, from the size of the images to the smallest.
        blocks: residual blocks at each stage, on either way.
        attention: whether the places of the smallest size attend to each other (Vaswani et al. 2017).

    Raises:
        ValueError: no stage, or numbers below one; on building, neither side an image.

    Examples:
        >>> UNet(channels=(4, 8)).build((3, 7, 9), (2, 1, 7, 9))(torch.zeros(5, 3, 7, 9)).shape
        torch.Size([5, 2, 1, 7, 9])
        >>> denoiser = UNet(channels=(4, 8)).build_timed((1, 8, 8), (1, 8, 8), columns=6)
        >>> denoiser(torch.zeros(5, 1, 8, 8), torch.zeros(5, 6)).shape
        torch.Size([5, 1, 8, 8])
    """

    images: ClassVar[bool] = True

    channels: tuple[int, ...] = (16, 32, 32)
    blocks: int = 1
    attention: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        numbers = all(isinstance(count, int) and count >= 1 for count in self.channels)
        require(len(self.channels) > 0 and numbers, "channels of at least 1 for at least one stage", self.channels)
        require(self.blocks >= 1, "blocks of at least 1", self.blocks)

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> nn.Module:
        """A module that maps ``(..., *in_shape)`` to ``(..., *out_shape)``, the larger of which is of images.

        Smaller images that it reads are stretched first; what else has not that size passes an affine map.
        """
        return Batched(Untold(self._body(in_shape, out_shape, 0)), in_shape, out_shape)

    def build_timed(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...], columns: int) -> nn.Module:
        """A module from x ``(..., *in_shape)`` and c ``(..., columns)`` to ``(..., *out_shape)``, which is zero at first."""
        body = self._body(in_shape, out_shape, columns)
        body.start_at_zero()
        return Told(body, in_shape, out_shape)

    def _body(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...], columns: int) -> Body:
        # A decoder's output has the axis of the likelihood's parameters in front.
        read = in_shape[-2:] if len(in_shape) >= 2 else ()
        written = out_shape[-2:] if len(out_shape) >= 3 or in_shape[-2:] == out_shape else ()
        if not read and not written:
            raise ValueError(
                f"UNet reads or writes images (channels, height, width), got a map from {in_shape} to {out_shape}: use MLP for "
                "flat data, or give the data with the shape of their images"
            )
        size = max(read, written, key=math.prod)
        inner = UShape(self.channels, self.blocks, self.attention, columns and 4 * self.channels[0])
        first = self.channels[0]
        return channels_last(Body(entering(in_shape, size, first), inner, leaving(first, size, out_shape), columns))


class Told(nn.Module):
    """The network of x and c, for any batch shape."""

    def __init__(self, body: Body, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.body = body
        self.in_shape = in_shape
        self.out_shape = out_shape

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Of x ``(..., *in_shape)`` and c ``(..., columns)``, whose leading dimensions are broadcast."""
        leading = torch.broadcast_shapes(x.shape[: x.dim() - len(self.in_shape)], c.shape[:-1])
        images = x.expand(*leading, *self.in_shape).reshape(-1, *self.in_shape)
        found: Tensor = self.body(images, c.expand(*leading, c.shape[-1]).reshape(-1, c.shape[-1]))
        return found.reshape(*leading, *self.out_shape)


class Untold(nn.Module):
    """The network of x alone."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Of x ``(B, *in_shape)``."""
        found: Tensor = self.body(x, None)
        return found


class Body(nn.Module):
    """What it reads made a stack of maps, these through the stages, and made what it writes; c ``(B, columns)`` or nothing."""

    def __init__(self, entrance: nn.Module, inner: UShape, leave: nn.Sequential, columns: int) -> None:
        super().__init__()
        self.told = nn.Sequential(nn.Linear(columns, inner.width), nn.SiLU()) if columns else None
        self.entrance = entrance
        self.inner = inner
        self.leave = leave

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        """Of x ``(B, *in_shape)``."""
        told = None if self.told is None else self.told(c)
        found: Tensor = self.leave(self.inner(self.entrance(x), told))
        return found

    @torch.no_grad()
    def start_at_zero(self) -> None:
        """Let every block pass on what it is given, and the whole give zero."""
        for block in self.modules():
            if isinstance(block, Block | Attention):
                _to_zero(block.last)
        _to_zero(self.leave[-1])


class UShape(nn.Module):
    """The stages: maps ``(B, C, H, W)`` of the first number of channels to as many, c ``(B, width)`` told to every block."""

    def __init__(self, channels: tuple[int, ...], blocks: int, attention: bool, width: int) -> None:
        super().__init__()
        self.width = width
        steps = list(itertools.pairwise(channels))
        self.down = nn.ModuleList(Blocks(count, count, blocks, width) for count in channels)
        self.smaller = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in steps)
        self.attention = Attention(channels[-1]) if attention else nn.Identity()
        self.up = nn.ModuleList(Blocks(a + b, a, blocks, width) for a, b in reversed(steps))

    def forward(self, h: Tensor, c: Tensor | None) -> Tensor:
        """Down, and up again beside what was there."""
        seen = [self.down[0](h, c)]
        for smaller, blocks in zip(self.smaller, self.down[1:], strict=True):
            seen.append(blocks(smaller(seen[-1]), c))
        h = self.attention(seen.pop())
        for blocks in self.up:
            before = seen.pop()
            h = blocks(torch.cat([before, doubled(h, before.shape[-2:])], dim=1), c)
        return h


class Blocks(nn.Module):
    """Residual blocks at one size, the first of which changes the channels."""

    def __init__(self, before: int, after: int, count: int, width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(after if place else before, after, width) for place in range(count))

    def forward(self, h: Tensor, c: Tensor | None) -> Tensor:
        """One after another."""
        for block in self.blocks:
            h = block(h, c)
        return h


class Block(nn.Module):
    """h + conv(f(film(norm(conv(f(norm(h)))), c))), with a 1 x 1 convolution of h where channels change."""

    def __init__(self, before: int, after: int, width: int) -> None:
        super().__init__()
        self.first_norm, self.first = group_norm(before), nn.Conv2d(before, after, 3, padding=1)
        self.film = nn.Linear(width, 2 * after) if width else None
        self.last_norm, self.last = group_norm(after), nn.Conv2d(after, after, 3, padding=1)
        self.shortcut = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, h: Tensor, c: Tensor | None) -> Tensor:
        """Of h ``(B, C, H, W)`` and c ``(B, width)``."""
        change = self.last_norm(self.first(silu(self.first_norm(h))))
        if self.film is not None:
            scale, shift = self.film(c)[..., None, None].chunk(2, dim=1)
            change = change + change * scale + shift
        found: Tensor = self.shortcut(h) + self.last(silu(change))
        return found


class Attention(nn.Module):
    """h + the mean of the values of all places, by how alike their keys are to a place's query."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.to_three, self.last = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, h: Tensor) -> Tensor:
        """Of h ``(B, C, H, W)``."""
        # (B, 3 C, H, W) to three of one head, (B, 1, H W, C)
        three = self.to_three(self.norm(h)).flatten(2).transpose(1, 2)[:, None].chunk(3, dim=-1)
        found = scaled_dot_product_attention(*three)[:, 0].transpose(1, 2).reshape(h.shape)
        return h + self.last(found)


def entering(in_shape: tuple[int, ...], size: tuple[int, ...], channels: int) -> nn.Sequential:
    """From what the network reads, ``(B, *in_shape)``, to maps of the size on which it works."""
    if len(in_shape) < 2:
        flat = math.prod(in_shape)
        return nn.Sequential(nn.Flatten(), nn.Linear(flat, channels * math.prod(size)), nn.Unflatten(1, (channels, *size)))
    # Whatever stands before height and width is channels, also nothing.
    images = [nn.Flatten(), nn.Unflatten(1, (math.prod(in_shape[:-2]), *in_shape[-2:]))]
    stretched = [nn.Upsample(size)] if in_shape[-2:] != size else []
    return nn.Sequential(*images, *stretched, nn.Conv2d(math.prod(in_shape[:-2]), channels, 3, padding=1))


def leaving(channels: int, size: tuple[int, ...], out_shape: tuple[int, ...]) -> nn.Sequential:
    """From maps of the network's size to what it writes."""
    layers = (group_norm(channels), nn.SiLU())
    if out_shape[-2:] == size:
        return nn.Sequential(*layers, nn.Conv2d(channels, math.prod(out_shape[:-2]), 3, padding=1))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * math.prod(size), math.prod(out_shape)))


def group_norm(channels: int) -> nn.GroupNorm:
    """In up to 8 groups, none of fewer than 4 channels: of a single value nothing would be left."""
    groups = max(n for n in range(1, GROUPS + 1) if n == 1 or (channels % n == 0 and channels >= n * NARROWEST))
    return nn.GroupNorm(groups, channels)


def doubled(h: Tensor, size: tuple[int, ...]) -> Tensor:
    """Maps ``(B, C, h, w)`` of twice the height and width, cropped to a size."""
    batch, channels, height, width = h.shape
    wide = h[..., :, None, :, None].expand(-1, -1, -1, 2, -1, 2).reshape(batch, channels, 2 * height, 2 * width)
    return wide[..., : size[0], : size[1]]


def _to_zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        parameter.zero_()
