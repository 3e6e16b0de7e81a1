"""Small squares cut out of images, as the data of a model of what images look like close by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ppl_vae.declaration import Declaration, require

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import torch
    from torch import Tensor

__all__ = ["Cut", "Patches", "contrasts"]

DRAWN = 5  # the stream of the seed that patches are drawn by


class Cut(NamedTuple):
    """Patches ``(n, channels, size, size)``, without their means ``(n, D - channels)``, and the number of the image of each."""

    x: np.ndarray
    images: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Patches(Declaration):
    """Rows are squares that are cut out of images, at places drawn without replacement from all that there are; they overlap.

    Of images of N_i places each, patch after patch is as likely anywhere: image i gives ``count`` N_i / sum_j N_j of them.
    Validation and test rows are those of whole images of their own, so that no patch is tested whose neighbours were learned.

    Without its mean a patch lies in a space of one dimension less, where a density of it has to be: a row is then its
    coefficients in an orthonormal basis of that space, the two-dimensional cosines but the constant one (Ahmed, Natarajan and
    Rao 1974), ``size^2 - 1`` numbers a channel. Lengths, angles and nats are those of the patch.

    Args:
        size: pixels along a side.
        count: how many in all; fewer places than that give all that there are.
        remove_mean: leave out the mean of each patch, in each channel.

    Raises:
        ValueError: a size below 2, or a count below 1.

    Examples:
        >>> import numpy as np
        >>> image = np.arange(400.0).reshape(1, 20, 20)
        >>> rows = Patches(size=4, count=100, remove_mean=True).cut([image], [image.shape], seed=0)
        >>> rows.x.shape, len(rows.images)
        ((100, 15), 100)
    """

    size: int = 8
    count: int = 100_000
    remove_mean: bool = False

    def __post_init__(self) -> None:
        require(self.size >= 2, "size: a whole number >= 2 of pixels", self.size)
        require(self.count >= 1, "count: a whole number >= 1", self.count)

    def cut(self, images: Iterable[np.ndarray], shapes: list[tuple[int, int, int]], *, seed: int) -> Cut:
        """The patches of images ``(channels, height, width)`` of these shapes, each of which is held no longer than it takes.

        Raises:
            ValueError: an image that is smaller than a patch.
        """
        import numpy as np

        from ppl_vae.data.seeds import seeded_generator
        from ppl_vae.memory import require_memory

        for shape in shapes:
            self.check(shape, "patches")
        numbers = self._numbers(shapes)
        channels = shapes[0][0]
        generator = seeded_generator(seed, DRAWN)
        columns = channels * (self.size**2 - self.remove_mean)
        require_memory(4 * columns * sum(numbers), f"{sum(numbers)} patches")
        parts = [
            self._rows(self._drawn(image, number, generator)) for image, number in zip(images, numbers, strict=True) if number
        ]
        return Cut(np.concatenate(parts), np.repeat(np.arange(len(shapes)), numbers))

    def check(self, shape: tuple[int, int, int], name: str) -> None:
        """Raise ``ValueError`` if no patch fits into an image of this shape."""
        _, height, width = shape
        if min(height, width) < self.size:
            raise ValueError(
                f"{name}: expected an image of at least {self.size} x {self.size} pixels, got {height} x {width}: leave it out "
                "or declare smaller patches"
            )

    def basis(self, channels: int) -> Tensor:
        """Orthonormal rows ``(D', channels size^2)``, float64, that a patch's coefficients are taken by; of its mean none."""
        import torch

        each = contrasts(self.size) if self.remove_mean else torch.eye(self.size**2, dtype=torch.float64)
        return torch.block_diag(*[each] * channels)

    def channels(self, event_shape: tuple[int, ...]) -> int:
        """How many channels rows ``(*event_shape)`` of such patches are of."""
        return math.prod(event_shape) // (self.size**2 - self.remove_mean)

    def _numbers(self, shapes: list[tuple[int, int, int]]) -> list[int]:
        """How many patches each image gives."""
        import numpy as np

        places = np.cumsum([(height - self.size + 1) * (width - self.size + 1) for _, height, width in shapes])
        most = int(places[-1])
        ends = [int(end) * min(self.count, most) // most for end in places]
        return np.diff(ends, prepend=0).tolist()

    def _drawn(self, image: np.ndarray, number: int, generator: torch.Generator) -> np.ndarray:
        """So many patches of an image, ``(number, channels, size, size)``, in the order of their places."""
        import numpy as np
        import torch

        windows = np.lib.stride_tricks.sliding_window_view(image, (self.size, self.size), axis=(1, 2))
        _, high, wide, *_ = windows.shape
        places = torch.randperm(high * wide, generator=generator)[:number].sort().values.numpy()
        return np.moveaxis(windows[:, places // wide, places % wide], 0, 1)

    def _rows(self, patches: np.ndarray) -> np.ndarray:
        """Patches as rows of the data."""
        import numpy as np

        if not self.remove_mean:
            return np.ascontiguousarray(patches)
        n, channels = patches.shape[:2]
        flat = patches.reshape(n, channels, self.size**2).astype(np.float64)
        return (flat @ contrasts(self.size).numpy().T).reshape(n, -1).astype(np.float32)


def contrasts(size: int) -> Tensor:
    r"""Two-dimensional cosines without the constant one, ``(size^2 - 1, size^2)``, orthonormal, float64.

    .. math:: b_{uv}(i, j) = a_u a_v \cos\frac{\pi u (2 i + 1)}{2 s} \cos\frac{\pi v (2 j + 1)}{2 s}, \quad (u, v) \neq (0, 0)

    Examples:
        >>> contrasts(4).sum(1).abs().max().item() < 1e-12
        True
    """
    import torch

    steps = torch.arange(size, dtype=torch.float64)
    one = (math.pi / (2 * size) * steps[:, None] * (2 * steps + 1)).cos() * math.sqrt(2 / size)
    one[0] /= math.sqrt(2)
    return torch.kron(one, one)[1:]
