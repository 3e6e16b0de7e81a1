"""What a network sees of the data: numbers of order one, and nothing missing."""

from __future__ import annotations

from torch import Tensor, nn

from ppl_vae.nn.base import Network
from ppl_vae.types import DataSpec

__all__ = ["encoder", "standardized"]


def encoder(network: Network, spec: DataSpec, out_shape: tuple[int, ...]) -> nn.Module:
    """A network of the data: from x ``(..., *event)`` as the model sees it to ``(..., *out_shape)``.

    It is shown log(1 + x) of counts, as in Lopez et al. 2018, "Deep generative modeling for single-cell transcriptomics",
    levels mapped onto [-1, 1], and zeros for missing entries, as in Nazabal et al. 2020, "Handling incomplete heterogeneous
    data using VAEs", and Mattei and Frellsen 2019, "MIWAE"; all other data as they are.

    Args:
        network: the network's declaration.
        spec: what the data look like.
        out_shape: what the network is to give for each datum.

    Example:
        >>> from ppl_vae.nn.inputs import encoder
        >>> spec = DataSpec(event_shape=(2,), kind="real", size=10, missing=True)
        >>> bool(encoder(Linear(), spec, (3,))(torch.full((2,), float("nan"))).isfinite().all())
        True
    """
    shown, built = standardized(spec), network.build(spec.event_shape, out_shape)
    return nn.Sequential(*shown, built) if len(shown) else built


def standardized(spec: DataSpec) -> nn.Sequential:
    """The module from such data to what networks are shown of them; without layers where these are the data themselves."""
    layers: list[nn.Module] = []
    if spec.kind == "count":
        layers.append(LogCounts())
    if spec.kind == "categorical" and spec.levels is not None:
        layers.append(Levels(spec.levels))
    if spec.missing:
        layers.append(ZeroForMissing())
    return nn.Sequential(*layers)


class LogCounts(nn.Module):
    """Counts on a scale on which large ones do not drown the small."""

    def forward(self, x: Tensor) -> Tensor:
        """Map counts to log(1 + x)."""
        return x.log1p()


class Levels(nn.Module):
    """Levels 0 to L - 1 on [-1, 1]."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.top = max(levels - 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map levels to 2 x / (L - 1) - 1."""
        return 2 * x / self.top - 1


class ZeroForMissing(nn.Module):
    """Zeros where entries are missing (NaN)."""

    def forward(self, x: Tensor) -> Tensor:
        """Fill x ``(..., *event)``."""
        return x.where(~x.isnan(), 0.0)
