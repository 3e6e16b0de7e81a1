"""Convolutional networks, from images to codes and from codes to images."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import ClassVar, NamedTuple

from torch import nn

from ppl_vae.declaration import require
from ppl_vae.nn.base import Batched, Network
from ppl_vae.nn.layers import Activation, Norm, Residual, activated, channels_last, check_layers

__all__ = ["Conv"]

Size = tuple[int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conv(Network):
    """Strided convolutions from images of any size to codes, or transposed ones from codes to images.

    The shapes tell which: as an encoder it halves the image (for stride 2, sizes rounded up) in each stage and maps what is
    left to the code; as a decoder it is the mirror image. LeCun et al. (1989); Radford, Metz and Chintala (2016).

    Args:
        channels: of the stages, from the image to the code.
        kernel: width of the convolutions, not less than the stride; a multiple of it draws no checkerboards (Odena et al.
            2016).
        stride: factor by which a stage shrinks or enlarges height and width, at least 2.
        blocks: residual blocks x + conv_1x1(f(norm(conv_3x3(x)))) at each stage's smaller size (He et al. 2016; van den Oord et
            al. 2017).
        activation: f, as for :class:`~ppl_vae.MLP`.
        norm: ``none``, ``layer`` (over all of an image) or ``batch``, before each activation.
        spatial: whether the code is itself a stack of small images that 1 x 1 convolutions reach, not an affine map of the
            whole: each entry then sees one part of the image. The latent dimension is channels x height x width, in that order.

    Raises:
        ValueError: numbers out of range, an unknown activation or norm; on building, neither side an image, or a spatial code
            of a size that is no multiple of its maps'.

    Examples:
        >>> Conv().build((1, 28, 28), (2, 20))(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 2, 20])
        >>> Conv().build((20,), (1, 3, 31, 17))(torch.zeros(5, 20)).shape
        torch.Size([5, 1, 3, 31, 17])
    """

    images: ClassVar[bool] = True

    channels: tuple[int, ...] = (32, 64)
    kernel: int = 4
    stride: int = 2
    blocks: int = 0
    activation: Activation = "relu"
    norm: Norm = "none"
    spatial: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        numbers = all(isinstance(count, int) and count >= 1 for count in self.channels)
        require(len(self.channels) > 0 and numbers, "channels of at least 1 for at least one stage", self.channels)
        require(self.stride >= 2, "a stride of at least 2", self.stride)
        require(self.kernel >= self.stride, f"a kernel of at least the stride {self.stride}", self.kernel)
        require(self.blocks >= 0, "a number of blocks", self.blocks)
        check_layers(self.activation, self.norm)

    def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> nn.Module:
        """A module that maps ``(..., *in_shape)`` to ``(..., *out_shape)``, one of which is of an image."""
        # A decoder's output has the axis of the likelihood's parameters in front.
        read = math.prod(in_shape[-2:]) if len(in_shape) >= 2 else 0
        written = math.prod(out_shape[-2:]) if len(out_shape) >= 3 else 0
        if not read and not written:
            raise ValueError(
                f"Conv reads or writes images (channels, height, width), got a map from {in_shape} to {out_shape}: use MLP for "
                "flat data, or give the data with the shape of their images"
            )
        code = out_shape if read >= written else in_shape
        if self.spatial and len(code) == 3:
            self._check_maps(code, in_shape if read >= written else out_shape)
        layers = self._encoder(in_shape, out_shape) if read >= written else self._decoder(in_shape, out_shape)
        return Batched(channels_last(nn.Sequential(*layers)), in_shape, out_shape)

    def _encoder(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> list[nn.Module]:
        channels = (math.prod(in_shape[:-2]), *self.channels)
        stages = self._stages(in_shape[-2:])
        layers: list[nn.Module] = [nn.Unflatten(1, (1, in_shape[0]))] if len(in_shape) == 2 else []
        for (before, after), stage in zip(itertools.pairwise(channels), stages, strict=True):
            conv = partial(nn.Conv2d, before, kernel_size=self.kernel, stride=self.stride, padding=stage.padding)
            layers += activated(conv, after, self.activation, self.norm, images=True)
            layers += self._blocks(after)
        return [*layers, *self._to_code(channels[-1], stages[-1].small, math.prod(out_shape))]

    def _decoder(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> list[nn.Module]:
        channels = (*reversed(self.channels), math.prod(out_shape[:-2]))
        stages = self._stages(out_shape[-2:])[::-1]
        layers = self._from_code(math.prod(in_shape), channels[0], stages[0].small)
        for place, stage in enumerate(stages, 1):
            before, after = channels[place - 1], channels[place]
            layers += self._blocks(before)
            conv = partial(
                nn.ConvTranspose2d,
                before,
                kernel_size=self.kernel,
                stride=self.stride,
                padding=stage.padding,
                output_padding=stage.extra,
            )
            hidden = place < len(stages)
            layers += activated(conv, after, self.activation, self.norm, images=True) if hidden else [conv(after)]
        return layers

    def _to_code(self, channels: int, size: Size, outputs: int) -> list[nn.Module]:
        if self.spatial:
            return [nn.Conv2d(channels, self._maps(outputs, size), 1)]
        return [nn.Flatten(), nn.Linear(channels * math.prod(size), outputs)]

    def _from_code(self, inputs: int, channels: int, size: Size) -> list[nn.Module]:
        if self.spatial:
            maps = self._maps(inputs, size)
            code: nn.Module = nn.Unflatten(1, (maps, *size))
            layer: Callable[..., nn.Module] = partial(nn.Conv2d, maps, kernel_size=1)
        else:
            code = nn.Identity()
            layer = partial(_affine, inputs, size=size)
        return [nn.Flatten(), code, *activated(layer, channels, self.activation, self.norm, images=True)]

    def _maps(self, elements: int, size: Size) -> int:
        """Channels of a spatial code."""
        area = math.prod(size)
        if elements % area:
            raise ValueError(
                f"a spatial code of these images has maps of {size[0]} x {size[1]}: expected a multiple of {area} numbers, got "
                f"{elements}; choose a latent_dim that is a multiple of {area}, other channels, or spatial=False"
            )
        return elements // area

    def _check_maps(self, code: tuple[int, ...], images: tuple[int, ...]) -> None:
        """Raise ``ValueError`` if a spatial code is of other maps than these stages have of such images."""
        large, small = tuple(images[-2:]), self._stages(images[-2:])[-1].small
        if tuple(code[-2:]) != small:
            stages = f"{len(self.channels)} stage{'s' * (len(self.channels) > 1)} of stride {self.stride}"
            raise ValueError(
                f"expected maps of {small[0]} x {small[1]} for a spatial code of images of {large[0]} x {large[1]}, which "
                f"{stages} give, got {code[-2]} x {code[-1]}: declare that size, "
                f"of a VQVAE by codebook=Codebook(grid={small}), other channels, or spatial=False"
            )

    def _blocks(self, channels: int) -> list[nn.Module]:
        conv = partial(nn.Conv2d, channels, kernel_size=3, padding=1)
        return [
            Residual(
                *activated(conv, channels, self.activation, self.norm, images=True),
                nn.Conv2d(channels, channels, 1),
            )
            for _ in range(self.blocks)
        ]

    def _stages(self, size: tuple[int, ...]) -> list[_Stage]:
        stages = []
        for _ in self.channels:
            stages.append(_stage((size[0], size[1]), self.kernel, self.stride))
            size = stages[-1].small
        return stages


def _affine(inputs: int, channels: int, *, size: Size, bias: bool) -> nn.Module:
    """An affine map from vectors to images."""
    return nn.Sequential(nn.Linear(inputs, channels * math.prod(size), bias=bias), nn.Unflatten(1, (channels, *size)))


class _Stage(NamedTuple):
    """The smaller size, the padding, and what transposition adds at the far end to give the larger size back."""

    small: Size
    padding: Size
    extra: Size


def _stage(large: Size, kernel: int, stride: int) -> _Stage:
    small = tuple(-(-length // stride) for length in large)
    missing = [(n - 1) * stride + kernel - length for n, length in zip(small, large, strict=True)]
    padding = tuple((total + 1) // 2 for total in missing)
    extra = tuple(total % 2 for total in missing)
    return _Stage(small, padding, extra)  # type: ignore[arg-type]
