"""The likelihood of a pen's points: a mixture of bivariate normals for where it goes, and what the pen does then."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import pyro.distributions as dist
from torch import Tensor, nn
from torch.nn.functional import softplus

from ppl_vae.declaration import require
from ppl_vae.likelihoods.base import Likelihood
from ppl_vae.likelihoods.stroke_distribution import PEN_STATES, StrokeDistribution
from ppl_vae.types import STROKES, DataSpec, Kind

__all__ = ["Strokes"]

MARGIN = 1e-3  # of a correlation to -1 and 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Strokes(Likelihood):
    r"""p(dx, dy, pen | h) = sum_m pi_m Normal((dx, dy); mu_m, Sigma_m) softmax(l)_pen, of a point of a drawing.

    .. math:: \Sigma_m = \begin{pmatrix} s_x^2 & r s_x s_y \\ r s_x s_y & s_y^2 \end{pmatrix}, \quad
        s = \text{floor} + \mathrm{softplus}(\cdot), \quad |r| < 0.999

    A density by the area of (dx, dy) times the number of pen states: 0 the pen stays on the paper, 1 it is lifted after the
    point, 2 the drawing is at its end, so that how long it is, is part of what is modelled. Ha and Eck 2018, "A neural
    representation of sketch drawings"; the mixture is that of Graves 2013, "Generating sequences with recurrent neural
    networks". Their end is a point of its own, here the last point carries it, and no offset is made up for it.

    Args:
        components: M, normals in the mixture.
        value: where the standard deviations start, in the units of the data the model sees.
        floor: they stay above it: offsets that are whole numbers, such as a first point (0, 0) of all drawings, have a density
            without an upper bound otherwise.

    Raises:
        ValueError: no component, a value or floor that is not positive, a value below the floor; on checking, data that are no
            drawings.

    Examples:
        >>> p = Strokes(components=2).build((3,))(torch.zeros(5, 3))
        >>> round(float(p.log_prob(torch.tensor([0.0, 0.0, 1.0]))), 4)  # -log(2 pi 0.5^2) - log 3
        -1.5502
    """

    accepts: ClassVar[frozenset[Kind]] = frozenset({STROKES})
    factorizes: ClassVar[bool] = False

    components: int = 20
    value: float = 0.5
    floor: float = 1e-3

    def __post_init__(self) -> None:
        require(isinstance(self.components, int) and self.components >= 1, "at least 1 component", self.components)
        require(0 < self.value < math.inf, "a positive, finite value", self.value)
        require(0 < self.floor < self.value, f"a floor between 0 and value = {self.value}", self.floor)

    @property
    def features(self) -> int:
        """2 M + 1 for each of dx, dy and pen: six numbers a component and three logits of the pen."""
        return 2 * self.components + 1

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` with the remedy if the data are no drawings."""
        super().check(spec)
        _check_point(spec.event_shape)

    def build(self, event_shape: tuple[int, ...]) -> nn.Module:
        """A module from features ``(..., 2 M + 1, 3)`` to the distribution of a point ``(3,)``.

        Raises:
            ValueError: an event that is no point.
        """
        _check_point(event_shape)
        return StrokesModule(self.components, self.value, self.floor)

    def story(self, features: str) -> str:
        """The density as text."""
        return f"sum_m pi_m Normal(mu_m, Sigma_m) x Categorical(pen), (pi, mu, Sigma, pen) = {features}, M = {self.components}"


class StrokesModule(nn.Module):
    """Features to the distribution of a point; features of zero give normals of the starting scale about 0."""

    starts_at_data = True

    def __init__(self, components: int, value: float, floor: float) -> None:
        super().__init__()
        self.components = components
        self.floor = floor
        self.shift = value - floor + math.log(-math.expm1(floor - value))

    def forward(self, features: Tensor) -> dist.Distribution:
        """p(x | h) for features h ``(..., 2 M + 1, 3)``."""
        M = self.components
        logits, loc, raw, corr, pen = features.flatten(-2).split([M, 2 * M, 2 * M, M, PEN_STATES], dim=-1)
        scale = softplus(raw + self.shift) + self.floor
        return StrokeDistribution(
            logits, loc.unflatten(-1, (2, M)), scale.unflatten(-1, (2, M)), (1 - MARGIN) * corr.tanh(), pen
        )

    def ends(self, x: Tensor) -> Tensor:
        """Which of points x ``(..., 3)`` are the last of their drawing, ``(...)``."""
        return x[..., 2] == PEN_STATES - 1


def _check_point(event_shape: tuple[int, ...]) -> None:
    if tuple(event_shape) != (3,):
        raise ValueError(
            f"Strokes is a likelihood of points (dx, dy, pen), got elements of shape {tuple(event_shape)}: load drawings "
            "(.ndjson, points and offsets), or rows of them with kind='strokes'"
        )
