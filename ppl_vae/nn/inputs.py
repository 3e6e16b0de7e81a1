"""What a network sees of the data: numbers of order one, and nothing missing."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from ppl_vae.nn.base import Network
from ppl_vae.program.hooks import Start
from ppl_vae.types import COUNT, REAL, Column, DataSpec

__all__ = ["OneHot", "Shown", "encoder", "shown_of", "standardized"]

WIDE = 10.0  # a standard deviation beyond which numbers are not of order one


def encoder(network: Network, spec: DataSpec, out_shape: tuple[int, ...]) -> nn.Module:
    """A network of the data: from x ``(..., *event)`` as the model sees it to ``(..., *out_shape)``.

    It is shown log(1 + x) of counts, as in Lopez et al. 2018, "Deep generative modeling for single-cell transcriptomics", and
    levels mapped onto [-1, 1]; of all data their difference from the mean of the training data (LeCun et al. 1998, "Efficient
    backprop"), once :meth:`Shown.start_fit` has seen them, and of real numbers that vary by more than 10 that difference in
    standard deviations; and zeros for missing entries, as in Nazabal et al. 2020, "Handling incomplete heterogeneous data using
    VAEs", and Mattei and Frellsen 2019, "MIWAE". Of a table's categories it is shown a 0 or 1 for each.

    Args:
        network: the network's declaration.
        spec: what the data look like.
        out_shape: what the network is to give for each datum.

    Examples:
        >>> from ppl_vae.nn.inputs import encoder
        >>> spec = DataSpec(event_shape=(2,), kind="real", size=10, missing=True)
        >>> bool(encoder(Linear(), spec, (3,))(torch.full((2,), float("nan"))).isfinite().all())
        True
    """
    shown, shape = shown_of(spec)
    return nn.Sequential(OrderedDict(shown=shown, network=network.build(shape, out_shape)))


def shown_of(spec: DataSpec) -> tuple[nn.Module, tuple[int, ...]]:
    """The module from such data to what an encoder is shown of them, and the shape of that."""
    shown = standardized(spec, centred=True)
    if not any(column.kind == "category" for column in spec.table):
        return shown, spec.event_shape
    apart = OneHot(shown, spec.table)
    return apart, (apart.size,)


def standardized(spec: DataSpec, *, centred: bool = False) -> Shown:
    """The module from such data to what networks are shown of them; ``centred`` where that is to be centred."""
    layers: list[nn.Module] = []
    if spec.kind.levelled and spec.levels is not None:
        layers.append(Levels(spec.levels))
    elif spec.kind == COUNT:
        layers.append(LogCounts())
    if centred:
        layers.append(Narrowed(spec.event_shape) if spec.kind == REAL else Centred(spec.event_shape))
    if spec.missing:
        layers.append(ZeroForMissing())
    return Shown(*layers)


class Shown(nn.Sequential):
    """What networks are shown of the data, one layer after another; without layers the data themselves."""

    def start_fit(self, context: Start) -> None:
        """Put the centre, where there is one, at the mean of the training data, missing entries left out."""
        x = context.sample
        for layer in self:
            if isinstance(layer, Centred):
                layer.see(x)
                return
            x = layer(x)


class OneHot(nn.Module):
    """Columns of numbers as they are shown, and after them a 0 or 1 for each category of the others; zeros for missing ones.

    Args:
        numbers: what shows the columns of numbers.
        table: the columns.
    """

    others: Tensor
    columns: Tensor
    codes: Tensor

    def __init__(self, numbers: Shown, table: tuple[Column, ...]) -> None:
        super().__init__()
        self.numbers = numbers
        apart = {place: len(column.categories) for place, column in enumerate(table) if column.kind == "category"}
        others = [place for place in range(len(table)) if place not in apart]
        pairs = [(place, code) for place, levels in apart.items() for code in range(levels)]
        self.size = len(others) + len(pairs)
        self.register_buffer("others", torch.tensor(others, dtype=torch.int64), persistent=False)
        self.register_buffer("columns", torch.tensor([place for place, _ in pairs]), persistent=False)
        self.register_buffer("codes", torch.tensor([float(code) for _, code in pairs]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Tell the categories of x ``(..., D)`` apart."""
        hot = (x.index_select(-1, self.columns) == self.codes).to(x.dtype)
        return torch.cat([self.numbers(x).index_select(-1, self.others), hot], dim=-1)


class Centred(nn.Module):
    """Data less ``loc``, which is zero before it is told: a network learns faster from inputs around zero."""

    loc: Tensor

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(event_shape))

    def see(self, x: Tensor) -> None:
        """Put the centre at the mean of x ``(N, *event)``."""
        self.loc.copy_(x.nanmean(0).nan_to_num(0.0))

    def forward(self, x: Tensor) -> Tensor:
        """Shift x ``(..., *event)``."""
        return x - self.loc


class Narrowed(Centred):
    """Numbers of any unit: those that vary by more than 10, such as counts in a table, also by their deviation."""

    scale: Tensor

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__(event_shape)
        self.register_buffer("scale", torch.ones(event_shape))

    def see(self, x: Tensor) -> None:
        """Find centre and scale in x ``(N, *event)``."""
        super().see(x)
        deviation = (x - self.loc).square().nanmean(0).nan_to_num(0.0).sqrt()
        self.scale.copy_(torch.where(deviation > WIDE, deviation, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        """Shift x ``(..., *event)``, and narrow what is wide."""
        return (x - self.loc) / self.scale

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *where: Any) -> None:
        state_dict.setdefault(f"{prefix}scale", torch.ones_like(self.scale))  # runs of before there was one
        super()._load_from_state_dict(state_dict, prefix, *where)


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
