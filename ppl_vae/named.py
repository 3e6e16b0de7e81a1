"""Records that go by a name: what people write is text, what the code asks is the object."""

from __future__ import annotations

__all__ = ["Named"]


class Named:
    """A record that is equal to its name, so that either may stand in a set, be compared, or be looked up.

    Two records are equal if all they say is.
    """

    name: str

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return self.name == other
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return self.name
