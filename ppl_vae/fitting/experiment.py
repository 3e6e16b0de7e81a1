"""The declaration of a whole fit: what ``config.yaml`` of a run holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Self

from ppl_vae.data import DataSource
from ppl_vae.declaration import Declaration
from ppl_vae.guides import Guide
from ppl_vae.inference.methods.base import Method
from ppl_vae.models import Model
from ppl_vae.storage.declared import flat
from ppl_vae.text import as_line

__all__ = ["PARTS", "Experiment"]

PARTS: dict[str, type[Declaration]] = {"model": Model, "guide": Guide, "method": Method, "data": DataSource}
"""What the parts of an experiment are declarations of."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment(Declaration):
    """All that a fit is declared by; the same experiment is the same fit, to the last bit, on one machine.

    Args:
        model: what is fitted.
        guide: its approximate posterior.
        method: how.
        data: to what.

    Examples:
        >>> experiment = Experiment(
        ...     model=PPCA(latent_dim=1), guide=ExactPosterior(), method=ClosedForm(), data=DataSource(source="digits")
        ... )
        >>> Experiment.from_dict(experiment.to_dict()) == experiment  # what config.yaml of a run holds
        True
        >>> fitted = fit(**experiment.parts)
    """

    model: Model
    guide: Guide
    method: Method
    data: DataSource

    @classmethod
    def from_dict(cls, config: Mapping[str, Any] | str, *, trust: Iterable[str] = ()) -> Self:
        """Rebuild an experiment from what :meth:`to_dict` gave.

        Raises:
            ValueError: a part that is missing or cannot be rebuilt, or a class from a module that is not trusted.
        """
        trust = (trust,) if isinstance(trust, str) else tuple(trust)
        if not isinstance(config, Mapping) or not PARTS.keys() <= config.keys():
            got = ", ".join(map(str, config)) if isinstance(config, Mapping) else type(config).__name__
            raise ValueError(f"expected the declarations {', '.join(PARTS)}, got {as_line(got or 'none')}")
        parts: dict[str, Any] = {name: base.from_dict(config[name], trust=trust) for name, base in PARTS.items()}
        return cls(**parts)

    @property
    def parts(self) -> dict[str, Declaration]:
        """The declarations by the names of their fields."""
        return {name: getattr(self, name) for name in PARTS}

    @property
    def fixed(self) -> dict[str, Any]:
        """The fields that stay as they are when the fit goes on, by the names that the command line has for them.

        All but the field that says how long the method goes on.
        """
        return flat({name: part.to_dict() for name, part in self.parts.items()} | {"method": self.method.fixed})

    @property
    def defaults(self) -> set[str]:
        """The names among :attr:`fixed` of fields that have their default values."""
        return {name for part, declared in self.parts.items() for name in _defaults(declared, part)}


def _defaults(declared: Declaration, prefix: str) -> set[str]:
    """The names of a declaration's fields that have their default values, with those of the declarations in them."""
    found: set[str] = set()
    plain = declared.to_dict().get("init_args", {})
    for field in dataclasses.fields(declared):
        value, name = getattr(declared, field.name), f"{prefix}.{field.name}"
        if value == field.default:
            found |= flat(plain.get(field.name), name).keys()
        elif isinstance(value, Declaration):
            found |= _defaults(value, name)
        elif isinstance(value, tuple):
            inner = ((number, one) for number, one in enumerate(value, start=1) if isinstance(one, Declaration))
            found |= {key for number, one in inner for key in _defaults(one, f"{name}.{number}")}
    return found
