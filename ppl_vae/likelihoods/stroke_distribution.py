"""The distribution of a pen's points."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

__all__ = ["PEN_STATES", "StrokeConstraint", "StrokeDistribution"]

PEN_STATES = 3
"""What the pen does after a point: 0 it stays on the paper, 1 it is lifted, 2 the drawing is at its end."""


class StrokeDistribution(dist.TorchDistribution):
    """The distribution of points (dx, dy, pen).

    Args:
        logits: of the components ``(..., M)``, up to a constant.
        loc: means ``(..., 2, M)``.
        scale: standard deviations ``(..., 2, M)``.
        corr: correlations ``(..., M)`` between -1 and 1.
        pen: logits of the pen's states ``(..., 3)``, up to a constant.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(
        self, logits: Tensor, loc: Tensor, scale: Tensor, corr: Tensor, pen: Tensor, validate_args: bool | None = None
    ) -> None:
        self.logits = logits.log_softmax(-1)
        self.loc = loc
        self.scale = scale
        self.corr = corr
        self.pen = pen.log_softmax(-1)
        super().__init__(pen.shape[:-1], torch.Size([3]), validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """Real offsets and a state of the pen."""
        return StrokeConstraint()

    @property
    def mean(self) -> Tensor:
        """The mean offsets, and the mean number of the pen's state."""
        states = torch.arange(PEN_STATES, dtype=self.pen.dtype, device=self.pen.device)
        return torch.cat([self._offset, (self.pen.exp() @ states)[..., None]], dim=-1)

    @property
    def point_prediction(self) -> Tensor:
        """The mean of the component with the largest weight, and the most probable state of the pen."""
        chosen = self.logits.argmax(-1, keepdim=True)
        offset = [self._of(values, chosen) for values in self.loc.unbind(-2)]
        return torch.cat([*offset, self.pen.argmax(-1, keepdim=True).to(self.loc)], dim=-1)

    @property
    def _offset(self) -> Tensor:
        return (self.logits.exp()[..., None, :] * self.loc).sum(-1)

    def paced(self, waited: Tensor | None) -> tuple[Tensor, Tensor]:
        """The point that stands for the next one of a drawing, strokes and drawings as long as their medians are.

        At most points the likeliest is that the pen stays on the paper, so that a drawing of likeliest points is one endless
        line. Here the pen is lifted once the probability that it would still be on the paper is below one half, and a drawing
        ends at the lift after which the probability that it would still go on is.

        Args:
            waited: what this gave at the point before, nothing before the first: log-probabilities ``(..., 2)`` that the pen
                was not lifted since the last lift, and that the drawing did not end at the lifts so far.
        """
        stays, lifts, ends = self.pen.unbind(-1)
        stroke, drawing = torch.zeros_like(self.pen[..., :2]).unbind(-1) if waited is None else waited.unbind(-1)
        stroke = stroke + stays
        lifted = stroke <= -math.log(2)
        after = drawing + torch.where(lifted, lifts - torch.logaddexp(lifts, ends), 0.0)
        state = lifted.long() + (lifted & (after <= -math.log(2))).long()
        point = torch.cat([self.point_prediction[..., :2], state[..., None].to(self.loc)], dim=-1)
        return point, torch.stack([stroke.masked_fill(lifted, 0.0), after], dim=-1)

    def sharpened(self, temperature: float, top_p: float = 1.0) -> StrokeDistribution:
        """The distribution at another temperature: logits divided by it, variances times it (Ha and Eck 2018).

        At 1 it is the distribution itself; below, draws keep to what is likeliest. The pen is no bolder below 1 than it is: at
        most points the likeliest is that it stays on the paper, and a drawing would be one line.

        Raises:
            ValueError: a temperature that is not positive, or a ``top_p`` of less than 1.
        """
        if not 0 < temperature < math.inf:
            raise ValueError(f"expected a finite temperature > 0, got {temperature}: 1 draws from the model itself")
        if top_p != 1:
            raise ValueError(f"expected top_p of 1 of points, which have no likeliest ones, got {top_p}: lower the temperature")
        scale = self.scale * math.sqrt(temperature)
        return StrokeDistribution(self.logits / temperature, self.loc, scale, self.corr, self.pen / max(1.0, temperature))

    def expand(self, batch_shape: Any, _instance: Any = None) -> StrokeDistribution:
        """The same distribution with a larger batch shape."""
        M = self.logits.shape[-1]
        shapes = ((M,), (2, M), (2, M), (M,), (PEN_STATES,))
        parts = (self.logits, self.loc, self.scale, self.corr, self.pen)
        logits, loc, scale, corr, pen = (part.expand(*batch_shape, *shape) for part, shape in zip(parts, shapes, strict=True))
        return StrokeDistribution(logits, loc, scale, corr, pen, validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of points ``(..., 3)``, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        x, y = ((value[..., :2, None] - self.loc) / self.scale).unbind(-2)
        rest = (1 - self.corr) * (1 + self.corr)
        # y given x, a sum of squares, which rounding makes no negative number of
        quadratic = x.square() + (y - self.corr * x).square() / rest
        log_det = self.scale.log().sum(-2) + rest.log() / 2
        offset = torch.logsumexp(self.logits - quadratic / 2 - log_det, dim=-1) - math.log(2 * math.pi)
        state = value[..., 2:].long().clamp(0, PEN_STATES - 1)
        pen = self.pen.expand(*offset.shape, PEN_STATES).gather(-1, state.expand(*offset.shape, 1))
        return offset + pen.squeeze(-1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Points ``(*sample_shape, *batch, 3)``."""
        shape = torch.Size(sample_shape)
        with torch.no_grad():
            chosen = dist.Categorical(logits=self.logits).sample(shape)[..., None]
            corr = self._of(self.corr, chosen)
            loc, scale = (
                torch.cat([self._of(part[..., axis, :], chosen) for axis in (0, 1)], -1) for part in (self.loc, self.scale)
            )
            noise = torch.randn(loc.shape, dtype=loc.dtype, device=loc.device)
            second = corr * noise[..., :1] + ((1 - corr) * (1 + corr)).sqrt() * noise[..., 1:]
            offset = loc + scale * torch.cat([noise[..., :1], second], dim=-1)
            pen = dist.Categorical(logits=self.pen).sample(shape)[..., None]
            return torch.cat([offset, pen.to(offset)], dim=-1)

    @staticmethod
    def _of(values: Tensor, chosen: Tensor) -> Tensor:
        """Of values ``(..., M)`` those of the chosen components ``(*sample_shape, ..., 1)``."""
        return values.expand(*chosen.shape[:-1], values.shape[-1]).gather(-1, chosen)


class StrokeConstraint(constraints.Constraint):
    """Points of finite offsets, whose pen is 0, 1 or 2."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        """Whether each point is in the support."""
        pen = value[..., 2]
        return value[..., :2].isfinite().all(-1) & ((pen == 0) | (pen == 1) | (pen == 2))

    def __repr__(self) -> str:
        return "real offsets and a pen of 0, 1 or 2"
