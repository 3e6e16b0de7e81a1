"""Groups of latent variables, the levels of a hierarchy."""

from __future__ import annotations

import dataclasses

from ppl_vae.declaration import Declaration, require
from ppl_vae.nn import MLP, Conv, Network

__all__ = ["Group", "check_sizes"]

MAPS = Conv(channels=(32,), blocks=1, spatial=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group(Declaration):
    """A group of latent variables: a vector, or small images.

    Args:
        latent_dim: K, numbers of a vector, or with a ``size`` at each place of K maps.
        size: height and width of the maps, one number for both; a vector has none.
        features: channels that networks hand on beside the latent variables, down in the model and up in the guide.
        network: leads to this group from the one above, and in the guide from what is below; by default ``MLP()`` to vectors
            and ``Conv(channels=(32,), blocks=1, spatial=True)`` to maps, which halves and doubles.

    Raises:
        ValueError: a number below one.

    Examples:
        >>> Group(latent_dim=4, size=7).shape
        (4, 7, 7)
    """

    latent_dim: int = 8
    size: int | tuple[int, int] | None = None
    features: int = 64
    network: Network | None = None

    def __post_init__(self) -> None:
        if isinstance(self.size, (tuple, list)):
            object.__setattr__(self, "size", tuple(self.size))
        require(self.latent_dim >= 1, "a latent_dim of at least 1", self.latent_dim)
        require(self.features >= 1, "features of at least 1", self.features)
        require(all(side >= 1 for side in self.sides), "a size of at least 1", self.size)

    @property
    def sides(self) -> tuple[int, ...]:
        """Height and width; none of a vector."""
        if self.size is None:
            return ()
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one datum's value."""
        return (self.latent_dim, *self.sides)

    @property
    def path(self) -> Network:
        """The network that leads here."""
        return self.network or (MAPS if self.sides else MLP())

    def path_from(self, above: Group) -> Network:
        """The network from a group above; a vector of any length is spread over the places of maps."""
        spread = self.network is None and bool(self.sides) and not above.sides
        return dataclasses.replace(MAPS, spatial=False) if spread else self.path


def check_sizes(groups: tuple[Group, ...], event_shape: tuple[int, ...]) -> None:
    """Raise ``ValueError`` unless maps are each half as large as what is below, rounded up, the data at the bottom."""
    below, found = tuple(event_shape[-2:]) if len(event_shape) >= 2 else (), []
    for group in reversed(groups):
        if not group.sides:
            break
        found.append(_told(group.sides))
        half = tuple(-(-side // 2) for side in below)
        if group.sides != half:
            sizes = "no maps, since these are no images" if not below else f"{_told(half)} above {_told(below)}"
            raise ValueError(
                f"expected groups of vectors, then of maps whose sizes double, rounded up, to that of the data "
                f"{_told(event_shape)}: {sizes}, got {_told(group.sides)}"
            )
        below = group.sides
    if any(group.sides for group in groups[: len(groups) - len(found)]):
        raise ValueError("expected groups of vectors above those of maps, got a vector below maps: give it a size")


def _told(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
