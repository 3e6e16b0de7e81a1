"""How a program of named variables is asked, from Python and from fits alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ppl_vae.program.capabilities import Queryable

__all__ = ["METHODS", "asked_of", "columns_of"]

METHODS = ("exact", "sampling")
DRAWS = 10_000  # of sampling, where nothing is said


def asked_of(
    program: Queryable,
    names: str | Sequence[str],
    given: Mapping[str, Any] | None,
    do: Mapping[str, Any] | None,
    units: tuple[Tensor, Tensor] | None = None,
    *,
    method: str,
    draws: int | None,
    seed: int,
) -> Any:
    """The answer, exactly or by weighted draws.

    Raises:
        ValueError: another method, or draws of the exact one.
    """
    if method not in METHODS:
        raise ValueError(f"expected a method of {' or '.join(METHODS)}, got {str(method)[:40]!r}")
    if method == "exact" and draws is not None:
        raise ValueError(f"expected no draws for method='exact', which sums, got {draws}: leave them out, or method='sampling'")
    if method == "exact":
        return program.query(names, columns_of(given), columns_of(do), units)
    draws = DRAWS if draws is None else draws
    if not isinstance(draws, int):
        raise ValueError(f"expected a whole number of draws, got {draws!r}")
    return program.estimated(names, columns_of(given), columns_of(do), units, draws=draws, seed=seed)


def columns_of(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Values by name, also of a frame: its columns."""
    return {} if given is None else {name: given[name] for name in given}
