"""What lies between two data, by their codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppl_vae.arguments import whole
from ppl_vae.data import Split
from ppl_vae.data.frames import is_frame
from ppl_vae.data.ragged import Ragged
from ppl_vae.evaluate.paths import Path, check_path, code_supports, path_between, path_through, unbounded
from ppl_vae.evaluate.rows import batches
from ppl_vae.fitting.coding import Coding
from ppl_vae.fitting.inputs import Classes, Given, as_codes
from ppl_vae.fitting.sequences import Rows
from ppl_vae.program.base import ModelProgram
from ppl_vae.program.context import evaluating
from ppl_vae.program.sites import Tree, by_name, leaves, tree

__all__ = ["Interpolating", "Interpolation"]


class Interpolation(NamedTuple):
    """What :meth:`~ppl_vae.Fit.interpolate` gives.

    Attributes:
        codes: ``(steps, *latent)``, of several latent variables by their names.
        decoded: the data of these: ``(steps, *event)``, texts, or :class:`~ppl_vae.Ragged`.
    """

    codes: Tree
    decoded: Any


class Interpolating(Coding):
    """The part of a :class:`~ppl_vae.fitting.fitted.Fit` that goes from one datum to another."""

    def interpolate(
        self,
        a: Given,
        b: Given,
        *,
        steps: int = 8,
        path: Path = "linear",
        y: Classes | Mapping[str, Any] | None = None,
        codes: bool = False,
        seen: bool = False,
    ) -> Interpolation:
        r"""Codes on the way from those of one datum to those of another, and the data of these codes.

        .. math:: z_t = (1 - t)\, z_a + t\, z_b, \quad t = 0, \dots, 1

        The codes of the data are their posterior means, so the ends are what :meth:`reconstruct` gives of a and b. What is
        given to a conditional model is that of a all the way. Rows without an end token go from the length of a to that of b.

        Args:
            a: one datum in the units of the source: an array ``(*event)`` or ``(1, *event)``, a split of one row, a text, a
                drawing ``(T, 3)``. Or with ``codes`` a code ``(*latent)``, of several latent variables codes by their names.
            b: the other one, likewise.
            steps: how many codes, both ends among them.
            path: ``linear``, on the line; ``spherical``, whose length goes steadily from that of a to that of b, where that of
                the line falls short of both (White 2016, "Sampling generative networks"); or ``prior``, through the quantiles
                of p(z): between two independent draws of p(z) every code is a draw of it (Agustsson et al. 2019).
            y: the class of both, where the model is conditioned on labels, by default that of the rows; or covariates by name,
                as :meth:`decode` takes them.
            codes: whether a and b are codes.
            seen: data as the model sees them, instead of in the units of the source.

        Returns:
            ``codes`` and ``decoded``, which can be unpacked.

        Raises:
            ValueError: fewer than two steps, not one datum, data of different classes without ``y``, a model whose data have no
                codes, or codes that are no real numbers, between which nothing lies; or that are not free, on an arc; a prior
                without quantiles, such as a mixture, along it.

        Examples:
            ``codes, data = fit.interpolate(data.test[0], data.test[1], path="spherical")``; of a model of texts
            ``fit.interpolate("to be", "that is the question").decoded``
        """
        steps = whole("steps", steps)
        check_path(steps, path)
        labels = None if isinstance(y, Mapping) else y
        rows = None if codes else [self._one(each, labels) for each in (a, b)]
        self._check_codes(rows, path)
        ends = [self._as_code(each) for each in (a, b)] if rows is None else [self._code(each) for each in rows]
        if path == "prior":
            with evaluating(self.pair):
                found = path_through(self._prior(rows, y), ends[0], ends[1], steps)
        else:
            found = {
                name: first if name in self.shared else path_between(first, ends[1][name], steps, path)
                for name, first in ends[0].items()
            }
        return Interpolation(tree(found), self._decoded(found, rows, y, lengths=self._lengths(rows, steps), seen=seen))

    def _prior(self, rows: list[Split] | None, y: Any) -> Any:
        """P(z) under the condition of the first of these rows, of batch shape ``()`` or ``(1,)``; inside ``evaluating``."""
        model = self._generative()
        told = self._condition(rows, y)
        known = self._given(told.get("x"), told.get("y"))
        return model.prior_given(*known) if known else model.prior()

    def _generative(self) -> ModelProgram:
        """The model, which says p(z).

        Raises:
            ValueError: it does not.
        """
        if self.pair.can.generate is None:
            raise ValueError("expected a model that says p(z), got programs that only run: give the model `prior` and `decode`")
        return self.pair.can.generate

    def _lengths(self, rows: list[Split] | None, steps: int) -> Tensor | None:
        """Of rows without an end token, as many from the length of the first to that of the last."""
        if rows is None or rows[0].sizes is None:
            return None
        first, last = float(rows[0].sizes[0]), float(rows[-1].sizes[0])  # type: ignore[index]
        return torch.linspace(first, last, steps, device=self.device).round().long()

    def _decoded(
        self, codes: dict[str, Tensor], rows: list[Split] | None, y: Any, *, lengths: Tensor | None, seen: bool
    ) -> Any:
        """The data of codes ``(n, *event)``, under the condition of the first of these rows."""
        if (model := self.pair.can.decode_rows) is None:
            return self.decode(tree(codes), seen=seen, **self._condition(rows, y))
        (code,) = codes.values()
        given = self._given_rows(x=None, y=self._condition(rows, y).get("y"), means=False, frame=None)
        with evaluating(self.pair):
            return self._rows_leaving(Rows(*model.decoded_rows(code, lengths, **given)), seen=seen)

    def _condition(self, rows: list[Split] | None, y: Classes | Mapping[str, Any] | None) -> dict[str, Any]:
        """What :meth:`decode` is told besides codes."""
        facts = self.pair.model_facts
        if y is not None:
            return {"y": y} if rows is None or self._labelled else {"y": y, "x": rows[0]}
        if rows is None:
            return {}
        if self._labelled:
            first, second = (int(row.labels[0]) for row in (rows[0], rows[-1]))
            if first != second:
                told = f"{self.spec.classes[first]} and {self.spec.classes[second]}"
                raise ValueError(f"expected data of one class, which is given, got {told}: say which by y=... (--y)")
            return {"y": self.spec.classes[first]}
        needed = facts.known_entries is not None or self.pair.can.covary is not None
        return {"x": rows[0]} if needed or (self.pair.plain and len(self.pair.reads) > 1) else {}

    def _check_codes(self, rows: list[Split] | None, path: Path) -> dict[str, Any]:
        """Where codes lie, by name; raise ``ValueError`` if nothing lies between them."""
        if rows is None and self.pair.plain:
            return {}
        with evaluating(self.pair):
            batch = () if rows is None else next(iter(batches(self.pair, rows[0], 1)))
            supports = code_supports(self.pair, batch)
        if not supports:
            raise ValueError(
                "expected a model whose data have codes, such as VAE, got one without: there is nothing between data"
            )
        if steps := [name for name, support in supports.items() if support.is_discrete]:
            raise ValueError(f"expected codes that are real numbers, got {', '.join(steps)}, between whose values nothing lies")
        if path == "spherical" and (bounded := [name for name, support in supports.items() if not unbounded(support)]):
            raise ValueError(f"expected path='linear' for {', '.join(bounded)}, whose values an arc leaves, got 'spherical'")
        return supports

    def _code(self, row: Split) -> dict[str, Tensor]:
        """Posterior means of one datum, by name."""
        found = leaves(self.encode(row))
        return {name: value if name in self.shared else value[0] for name, value in found.items()}

    def _as_code(self, given: Any) -> dict[str, Tensor]:
        """A code that is given, by the names of sites."""
        sites = self.pair.model_facts.sites
        values = by_name(sites, given) if sites else leaves(given)
        codes = {name: as_codes(value, device=self.device, dtype=self.transform.loc.dtype) for name, value in values.items()}
        for name, code in codes.items():
            if sites and code.shape != sites[name].event_shape:
                raise ValueError(f"expected a code of shape {tuple(sites[name].event_shape)}, got {tuple(code.shape)}")
        return codes

    def _one(self, given: Any, y: Classes | None) -> Split:
        """One datum as a split of a row, as the fit takes it."""
        spec = self.spec
        if isinstance(given, str) and spec.ragged and self.data.tokens is not None:
            given = [given]
        elif not isinstance(given, (Split, Ragged, str, tuple, Mapping)) and not is_frame(given):
            given = _with_axis(given, spec.event_shape, ragged=spec.ragged)
        if self._labelled and y is None and isinstance(given, (Tensor, np.ndarray, Ragged, list)):
            raise ValueError("this model is conditioned on labels: give the class of both data, y=... (--y)")
        split = self._split(given, y)
        if len(split) != 1:
            raise ValueError(
                f"expected one datum at each end, got {len(split)}: give data.test[0], one row of an array, or a text"
            )
        return split


def _with_axis(given: Any, event_shape: tuple[int, ...], *, ragged: bool) -> Any:
    """A datum as rows, of which it is the only one; anything else as it is."""
    shape = tuple(given.shape) if isinstance(given, Tensor) else torch.Size(()) if given is None else _shape(given)
    if ragged and len(shape) == 1 + len(event_shape):
        return Ragged.from_list([given])
    if not ragged and shape == event_shape:
        return given[None] if isinstance(given, Tensor) else torch.as_tensor(given)[None]
    return given


def _shape(given: Any) -> tuple[int, ...]:
    try:
        return tuple(torch.as_tensor(given).shape)
    except (TypeError, ValueError, RuntimeError):
        return ()
