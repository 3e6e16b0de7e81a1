"""What the model sees of a raw datum: noise, shift and scale, a Bernoulli draw."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

__all__ = ["CHUNK", "Transform"]

CHUNK = 4096
"""Rows handled at once where a whole split is converted: bounds the memory, and fixes the order in which noise is drawn."""


class Transform(nn.Module):
    r"""From raw values to what the model sees, on the device of the data.

    .. math:: x = \frac{x_\text{raw} + u - \text{loc}}{\text{scale}}, \quad u \sim \mathrm{Uniform}[0, 1)
        \text{ if dequantized, else } 0

    and then :math:`x \sim \mathrm{Bernoulli}(x)` if binarized. A density of what the model sees becomes one of the raw data by
    adding :attr:`log_jacobian`. If integers were dequantized it bounds their log-probability,
    :math:`\log p(x_\text{raw}) \ge E_u \log p(x) + \text{log\_jacobian}`: Theis, van den Oord, Bethge 2016, "A note on the
    evaluation of generative models".

    Args:
        event_shape: shape of one datum.
        loc: in the units of the source, scalar or ``(*event)``.
        scale: positive, in the units of the source, scalar or ``(*event)``.
        dequantize: whether uniform noise is added.
        binarize: whether the scaled value is the probability of a one.
        exact: whether shift and scale are kept and done in float64, as for values whose differences float32 would lose. What
            the model sees is float32 all the same.
        indices: whether values are tokens, which the model gets as they are, in int64.

    Raises:
        ValueError: a scale that is not positive, or a loc or scale of another shape.

    Examples:
        >>> transform = Transform((2,), scale=255.0)
        >>> transform(torch.tensor([[0, 255]], dtype=torch.uint8))
        tensor([[0., 1.]])
        >>> round(transform.log_jacobian, 4)
        -11.0825
    """

    loc: Tensor
    scale: Tensor
    exact: Tensor | None
    seen = False
    """Whether the data that it is for went through it already."""

    def __init__(
        self,
        event_shape: tuple[int, ...],
        loc: Tensor | float = 0.0,
        scale: Tensor | float = 1.0,
        *,
        dequantize: bool = False,
        binarize: bool = False,
        exact: bool = False,
        indices: bool = False,
    ) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)
        self.indices = indices
        self.dequantize = dequantize
        self.binarize = binarize
        self.register_buffer("loc", self._buffer("loc", loc))
        self.register_buffer("scale", self._buffer("scale", scale))
        both = [torch.as_tensor(value, dtype=torch.float64).detach().expand(self.event_shape) for value in (loc, scale)]
        self.register_buffer("exact", torch.stack(both) if exact else None)
        if not bool((self.scale > 0).all() and self.scale.isfinite().all()):
            raise ValueError(f"expected finite scale > 0, got {float(self.scale.min())}: give a constant feature the scale 1")
        if not bool(self.loc.isfinite().all()):
            raise ValueError("expected a finite loc, got NaN or infinity: leave out what is missing when it is found")

    @property
    def noisy(self) -> bool:
        """Whether two calls on the same datum differ."""
        return self.dequantize or self.binarize

    @property
    def log_jacobian(self) -> float:
        """``log |dx / dx_raw|`` of one datum in nats, ``-sum(log scale)`` over its elements; 0 for binarized data."""
        if self.binarize:
            return 0.0
        return -float(self.constants[1].double().log().expand(self.event_shape).sum())

    @property
    def constants(self) -> tuple[Tensor, Tensor]:
        """Shift and scale as they are used: ``loc`` and ``scale``, or more digits of them in float64."""
        return (self.loc, self.scale) if self.exact is None else (self.exact[0], self.exact[1])

    def forward(self, raw: Tensor, generator: Generator | None = None) -> Tensor:
        """What the model sees of raw data ``(..., *event)``: float32, or the dtype of ``loc`` if this module was cast.

        Args:
            raw: data in the units of the source, ``(..., *event)``.
            generator: source of the noise, on the device of ``raw``; by default torch's global one.

        Raises:
            ValueError: no tensor, as where codes of a frame were wanted.
        """
        if not isinstance(raw, Tensor):
            raise ValueError(
                f"expected raw data as a tensor, got {type(raw).__name__}: this brings data to the model's view, whereas codes "
                "of rows in any form are fit.encode(rows), and fit.seen(rows) is what the model sees"
            )
        x = self.affine(_dequantized(self._typed(raw), generator) if self.dequantize else raw)
        return (_uniform(x, generator) < x).to(x.dtype) if self.binarize else x

    def affine(self, raw: Tensor) -> Tensor:
        """The shift and scale alone, without noise."""
        if self.indices:
            return raw.to(torch.int64)
        loc, scale = self.constants
        return (self._typed(raw) - loc).div_(scale).to(self.loc.dtype)

    def inverse(self, x: Tensor) -> Tensor:
        """Back in the units of the source, ``x * scale + loc``; binarized data have no way back and stay {0, 1}.

        Float64 if this transform is exact, else of the dtype of x.
        """
        loc, scale = self.constants
        return x if self.binarize or self.indices else x.to(loc.dtype if self.exact is not None else x.dtype) * scale + loc

    def freeze(self, raw: Tensor, generator: Generator) -> tuple[Tensor, Transform]:
        """Draw the noise of these data once: the data with the noise in them, and the transform that is left to do.

        Binarized data are kept as uint8. Both transforms show the model data of one distribution, with one log_jacobian.
        """
        if not self.noisy:
            return raw, self
        if self.binarize:
            draws = [self(rows, generator).to(torch.uint8) for rows in raw.split(CHUNK)]
            return torch.cat(draws), Transform(self.event_shape).to(self.loc)
        noisy = [_dequantized(self._typed(rows), generator) for rows in raw.split(CHUNK)]
        return torch.cat(noisy), self.rescaling()

    def rescaling(self, *, dequantize: bool = False) -> Transform:
        """The same shift and scale, without binarization, and with or without dequantization."""
        return self._like(Transform, dequantize=dequantize)

    def chosen(self, columns: list[int]) -> Transform:
        """The transform of these columns ``(len(columns),)`` of data ``(D,)``."""
        return self._moved((len(columns),), lambda value: value[columns] if value.ndim else value)

    def applied(self) -> Transform:
        """What is left to do to data that went through this transform: nothing, but their log_jacobian is its own."""
        if self.binarize:
            return Transform(self.event_shape).to(self.loc)
        return self._like(_Applied)

    def of_numbers(self) -> Transform:
        """The same of data whose events of shape ``(1,)`` are numbers."""
        return self._moved((), lambda value: value.reshape(()))

    def extra_repr(self) -> str:
        """The flags, for ``repr``."""
        return f"event_shape={self.event_shape}, dequantize={self.dequantize}, binarize={self.binarize}"

    def _like(self, cls: type[Transform], *, dequantize: bool = False) -> Transform:
        loc, scale = self.constants
        kept = {"exact": self.exact is not None, "indices": self.indices}
        return cls(self.event_shape, loc, scale, dequantize=dequantize, **kept).to(self.loc)

    def _moved(self, event_shape: tuple[int, ...], move: Callable[[Tensor], Tensor]) -> Transform:
        """The same of data of another shape, shift and scale arranged by ``move``."""
        loc, scale = map(move, self.constants)
        flags = {"dequantize": self.dequantize, "binarize": self.binarize, "indices": self.indices}
        return type(self)(event_shape, loc, scale, **flags, exact=self.exact is not None).to(self.loc)

    def _typed(self, raw: Tensor) -> Tensor:
        return raw if raw.dtype == torch.float64 else raw.to(self.constants[0].dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Transform:
        """Move or cast the buffers; what is exact stays in float64, whatever the model computes in."""
        exact, self.exact = self.exact, None
        super()._apply(fn, recurse)
        if exact is not None:
            if self.loc.device.type == "mps":
                raise ValueError("expected a device with float64, which centres these data, got mps: use device='cpu'")
            self.exact = exact.to(self.loc.device)
        return self

    def _buffer(self, name: str, value: Tensor | float) -> Tensor:
        tensor = torch.as_tensor(value, dtype=torch.float32).detach().clone()
        if tensor.shape not in (torch.Size(), torch.Size(self.event_shape)):
            raise ValueError(f"expected {name} of shape () or {self.event_shape}, got {tuple(tensor.shape)}")
        return tensor


class _Applied(Transform):
    """A transform that was applied already; ``inverse`` still leads back to the units of the source."""

    seen = True

    def affine(self, raw: Tensor) -> Tensor:
        """The data as they are."""
        return raw.to(torch.int64 if self.indices else self.loc.dtype)


def _uniform(like: Tensor, generator: Generator | None) -> Tensor:
    return torch.rand(like.shape, generator=generator, device=like.device, dtype=like.dtype)


def _dequantized(x: Tensor, generator: Generator | None) -> Tensor:
    # 255 + u rounds up to 256 for the largest u of float32, which would put a value on the open end of [0, 1).
    return torch.minimum(x + _uniform(x, generator), torch.nextafter(x + 1, x))
