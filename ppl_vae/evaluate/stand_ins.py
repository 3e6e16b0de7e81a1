"""Stand-ins for the data, with which programs run where there are none: to draw new data, and to decode codes.

They are right where a program does nothing with a field but observe it, which is found out once by running it on two kinds of
them. A program that looks at a field, as at a covariate or at a total count, is to be given rows.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ppl_vae.data import Transform
from ppl_vae.evaluate.site_values import at_mean, latent_sites, ran
from ppl_vae.program.context import seeded
from ppl_vae.program.pair import Pair
from ppl_vae.program.terms import sampled
from ppl_vae.text import as_line
from ppl_vae.types import DataSpec

__all__ = ["StandIns"]


class StandIns:
    """Batches that no data are in.

    Args:
        pair: the pair.
        spec: what the data look like.
        transform: to what the model sees, on the device and of the dtype of that.
    """

    def __init__(self, pair: Pair, spec: DataSpec, transform: Transform) -> None:
        self.pair = pair
        self.spec = spec
        self.transform = transform
        self._checked = False

    @property
    def device(self) -> torch.device:
        """Of the data."""
        return self.transform.loc.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the data."""
        return self.transform.loc.dtype

    def batch(self, size: int, *, ramp: bool = True) -> tuple[Tensor, ...]:
        """So many rows of what the programs read: x, whose entries all differ, and fields of ones; zeros without ``ramp``."""
        count = math.prod(self.spec.event_shape)
        entries = (torch.arange(count, dtype=self.dtype, device=self.device) + 1) / (count + 1)
        x = (entries if ramp else torch.zeros_like(entries)).reshape(self.spec.event_shape)
        others = {field.name: field for field in self.spec.fields}
        fields = [self._field(others.get(name), size, ramp=ramp) for name in self.pair.reads[1:]]
        return (x.expand(size, *self.spec.event_shape).clone(), *fields)

    def size(self, wanted: int) -> int:
        """How many rows the programs can be run on: those that are wanted, or what they were run on before.

        Raises:
            ValueError: neither, or a program that looks at a field that it is to observe.
        """
        reasons = []
        for size in dict.fromkeys((wanted, *sorted(self.pair.sizes))):
            try:
                self.pair.plates(*self.batch(size))
            except ValueError as error:
                reasons.append(as_line(error, most=300))
                continue
            self._check(size)
            return size
        raise ValueError(f"these programs do not run on stand-ins for the data ({reasons[0]}): give them rows, x=...")

    def shared(self, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """The latent variables that all data share, at the guide's means."""
        plates = self.pair.plates(*batch)
        if not plates.shared:
            return {}
        trace = ran(self.pair.programs.guide, batch, at_mean)
        return {name: site["value"] for name, site in latent_sites(trace) if not plates.of_data(site)}

    def _field(self, field: Any, size: int, *, ramp: bool) -> Tensor:
        kind = {"boolean": torch.bool, "real": self.dtype}.get(field.kind if field else "integer", torch.int64)
        shape = (size, *(field.event_shape if field else ()))
        return torch.full(shape, int(ramp), dtype=kind, device=self.device)

    def _check(self, size: int) -> None:
        """Raise ``ValueError`` if what a program draws hangs on the data that stand in."""
        if self._checked:
            return
        try:
            one, other = (self._drawn(self.batch(size, ramp=ramp)) for ramp in (True, False))
            alike = one.keys() == other.keys() and all(_equal(one[name], other[name]) for name in one)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a user's program raises where no data are
            raise ValueError(
                f"this program does not run on stand-ins for the data ({type(error).__name__}: {as_line(error, most=300)}): "
                "give it rows, x=..."
            ) from None
        if not alike:
            raise ValueError(
                "what this program draws hangs on the data that it is called with, not only on its latent variables (a "
                "covariate, a label, a total count): give it rows, x=..., of which it reads that"
            )
        self._checked = True

    def _drawn(self, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        with seeded(0, self.device):
            shared = self.shared(batch)
            trace = ran(poutine.uncondition(self.pair.programs.model), batch, lambda site: shared.get(site["name"]))
        return {name: site["value"] for name, site in sampled(trace)}


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
