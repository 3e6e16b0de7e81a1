"""A declared network as a denoiser: told the time, and what noise makes of the distance of two levels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ppl_vae.nn import Network
from ppl_vae.nn.conditioned import conditioned

__all__ = ["Denoiser"]

OCTAVES = 7


class Denoiser(nn.Module):
    """From z_t ``(..., *event)`` and t ``(...)``, and perhaps y, to outputs of each element, ``(..., outputs, *event)``.

    Args:
        network: its declaration, of images or not.
        event_shape: of a datum.
        outputs: of each element.
        period: the distance of two levels, of which the network is told sine and cosine (Kingma et al. 2021); 0 for none.
        columns: C of what else it is told beside the time, 0 for nothing.

    Raises:
        ValueError: a network whose output has another shape.
    """

    rates: Tensor

    def __init__(
        self, network: Network, event_shape: tuple[int, ...], outputs: int, period: float = 0.0, columns: int = 0
    ) -> None:
        super().__init__()
        self.event_shape = event_shape
        self.period = period
        self.columns = columns
        # Maps of one channel have none in their shape; a network of images wants an axis for it.
        self.in_shape = (1, *event_shape) if len(event_shape) == 2 else event_shape
        first, *others = self.in_shape
        self.in_shape = (first * (3 if period else 1), *others)
        self.out_shape = (outputs, *event_shape)
        self.register_buffer("rates", math.pi * 2.0 ** torch.arange(OCTAVES), persistent=False)
        self.network = conditioned(network, self.in_shape, 1 + 2 * OCTAVES + columns, self.out_shape)
        self._check(network)

    def forward(self, z: Tensor, t: Tensor, *known: Tensor) -> Tensor:
        """Of noisy data, their times and columns of y ``(..., C)``, leading dimensions broadcast."""
        beside = [self._time(t), *known]
        leading = torch.broadcast_shapes(*(part.shape[:-1] for part in beside))
        found: Tensor = self.network(self._told(z), torch.cat([part.expand(*leading, -1) for part in beside], -1))
        return found

    def _told(self, z: Tensor) -> Tensor:
        """Noisy data as the network reads them."""
        z = z.unsqueeze(-3) if len(self.event_shape) == 2 else z
        if not self.period:
            return z
        angles = z * (2 * math.pi / self.period)
        return torch.cat([z, angles.sin(), angles.cos()], dim=-len(self.in_shape))

    def _time(self, t: Tensor) -> Tensor:
        """Times ``(...)`` as numbers ``(..., columns)``."""
        angles = t[..., None] * self.rates
        return torch.cat([2 * t[..., None] - 1, angles.sin(), angles.cos()], dim=-1)

    @torch.no_grad()
    def _check(self, network: Network) -> None:
        was = self.training
        self.eval()
        try:
            known = [torch.zeros(2, self.columns)] if self.columns else []
            found = tuple(self(torch.zeros(2, *self.event_shape), torch.zeros(2), *known).shape)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"expected a denoiser of data of shape {self.event_shape}, got {network!r}: {reason}") from None
        self.train(was)
        if found != (2, *self.out_shape):
            raise ValueError(
                f"expected a denoiser whose output has the shape {self.out_shape} for data of shape {self.event_shape}, got "
                f"{found[1:]} of {network!r}"
            )
