"""The experiments that are candidates: one with each value of a field, or each combination of several fields' values."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from ppl_vae.data import Data
from ppl_vae.declaration import Declaration, require
from ppl_vae.fitting.build import build, default_guide
from ppl_vae.fitting.checks import check_declared
from ppl_vae.fitting.defaults import default_method
from ppl_vae.fitting.fit import settled
from ppl_vae.fitting.table import short
from ppl_vae.guides import Guide
from ppl_vae.inference.methods.base import Method
from ppl_vae.inference.methods.svi import SVI
from ppl_vae.models import Model
from ppl_vae.nested import with_fields
from ppl_vae.program.context import seeded
from ppl_vae.program.pair import Pair
from ppl_vae.text import as_line
from ppl_vae.types import DataSpec

__all__ = ["Candidate", "candidates", "grid_of", "told"]

PARTS = ("guide", "method")  # whose fields are named with them before, as guide__covariance
Grid = dict[str, tuple[Any, ...]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """An experiment with values of its own.

    Attributes:
        values: of the fields that are chosen, by joined names.
        model, guide, method: its declarations.
    """

    values: Mapping[str, Any]
    model: Model
    guide: Guide
    method: Method

    @property
    def name(self) -> str:
        """The values in words, such as ``components=3``."""
        return ", ".join(f"{name}={told(value)}" for name, value in self.values.items())

    def built(self, spec: DataSpec) -> Pair:
        """The pair for such data, with its name on what is wrong.

        Raises:
            ValueError: data that it is no density of.
        """
        try:
            with seeded(0):
                return build(self.model, self.guide, spec)
        except ValueError as error:
            raise ValueError(f"{self.name}: {as_line(error, most=600)}") from None


def told(value: Any) -> str:
    """A value in words, which go into a table and a file name."""
    return short(value) if isinstance(value, Declaration) else str(value)


def grid_of(field: str | None, values: Iterable[Any] | None, fields: Mapping[str, Iterable[Any]]) -> Grid:
    """The fields that are chosen, with their values.

    Raises:
        ValueError: no field, no values or the same twice, or a field without values.
    """
    require((field is None) == (values is None), "field and values together", {"field": field, "values": values})
    given = {**fields, **({} if field is None or values is None else {field.replace(".", "__"): values})}
    require(bool(given), "a field and its values, such as components=range(1, 11)", "none")
    grid: Grid = {}
    for name, several in given.items():
        listed = isinstance(several, Iterable) and not isinstance(several, (str, Mapping))
        require(listed, f"the values of {name} as a list, such as {name}=[1, 2, 3]", several)
        grid[name] = tuple(several)
        words = [told(value) for value in grid[name]]
        require(len(words) > 0, f"at least one value of {name}", words)
        require(len(set(words)) == len(words), f"values of {name} that differ", words)
    return grid


def candidates(model: Model, guide: Guide | None, method: Method | None, grid: Grid, data: Data) -> list[Candidate]:
    """Every combination of the values, the last field's going fastest, each by the method that suits it if none is declared.

    Raises:
        ValueError: a field that the declarations do not have, or a value that they do not take: of which candidate.
    """
    check_declared(model, guide, SVI() if method is None else method)
    require(isinstance(model, Model), "a declared model, whose fields have values", model)
    rows = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    return [_candidate(model, guide, method, values, data) for values in rows]


def _candidate(model: Model, guide: Guide | None, method: Method | None, values: dict[str, Any], data: Data) -> Candidate:
    of_parts: dict[str, dict[str, Any]] = {part: {} for part in ("model", *PARTS)}
    for name, value in values.items():
        part, _, rest = name.partition("__")
        of_parts[part if part in PARTS and rest else "model"][rest if part in PARTS and rest else name] = value
    try:
        model = settled(with_fields(model, of_parts["model"]), data)
        method = with_fields(method or default_method(model, guide, model.resolve(data)), of_parts["method"])
        guide = with_fields(guide or default_guide(model, method), of_parts["guide"])
        return Candidate(values=values, model=model, guide=guide, method=method)
    except ValueError as error:
        words = ", ".join(f"{name}={told(value)}" for name, value in values.items())
        raise ValueError(f"{words}: {as_line(error, most=600)}") from None
