"""Data as their codes give them back, whole or from the upper levels alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ppl_vae.arguments import whole
from ppl_vae.data.native import MEANS
from ppl_vae.evaluate.verbs import reconstructed
from ppl_vae.fitting.coding import Coding
from ppl_vae.fitting.inputs import Classes, Given
from ppl_vae.fitting.outputs import as_rows_given, form_of
from ppl_vae.fitting.sequences import Rows
from ppl_vae.program.context import evaluating
from ppl_vae.program.sites import Tree, leaves

__all__ = ["Reconstructing"]


class Reconstructing(Coding):
    """The part of a :class:`~ppl_vae.fitting.fitted.Fit` that reconstructs; its attributes are the fit's."""

    def reconstruct(self, x: Given, *, y: Classes | None = None, from_levels: int | None = None, seen: bool = False) -> Any:
        """Means of p(x | z) at the posterior means of z, ``(B, *event)``, or of each observed site by name if several are.

        Of dequantized data they are means of the levels; of categories in no order the most probable one. Models of rows take
        the most probable element one after the other: texts, or :class:`~ppl_vae.Ragged`.

        Args:
            x: rows ``(B, *event)`` in the units of the source: a tensor, a split, or the fields that the programs read.
            y: a class for all rows or one for each, by name or number, where the model is conditioned on labels.
            from_levels: of several latent variables only the codes of so many, from the top; those below are at the means that
                the prior has at these. All of them, which is the default, give what there is without it.
            seen: as the model sees them, instead of in the units of the source.

        Raises:
            ValueError: no rows, or some that the fit was not built for, a variable without a mean, or more levels than there
                are.

        Examples:
            ``(fit.reconstruct(data.test) - data.test.x).abs().mean()``; ``fit.reconstruct(data.test, from_levels=1)``
        """
        if from_levels is None:
            return self._reconstructed(x, y, None, seen=seen)
        levels = self._levels()
        from_levels = whole("from_levels", from_levels)
        if not 1 <= from_levels <= len(levels):
            raise ValueError(f"expected 1 to {len(levels)} levels ({', '.join(levels)}), got {from_levels}")
        if from_levels == len(levels):
            return self._reconstructed(x, y, None, seen=seen)
        if self.pair.model_facts.latent == "quantized":
            raise ValueError(
                f"expected levels with a mean given those above them, got codes of codebooks ({', '.join(levels)}), which have "
                "none: draw those below by fit.sample, or leave from_levels out"
            )
        kept = levels[:from_levels]
        return self._reconstructed(x, y, lambda z: {name: z[name] for name in kept}, seen=seen)

    def _reconstructed(self, x: Given, y: Classes | None, change: Callable[[Tree], Tree] | None, *, seen: bool) -> Any:
        """Means of p(x | z) at the posterior means of z, changed if they are to be."""
        split = self._split(x, y)
        if not len(split):
            raise ValueError("expected at least 1 row to reconstruct, got none")
        if (model := self.pair.can.decode_rows) is not None:
            found = self.encode(split)
            (codes,) = leaves(found if change is None else change(found)).values()
            lengths = None if split.sizes is None else split.sizes.to(self.device)
            given: dict[str, Any] = {"c": self.pair.model_facts.known(split.labels)[0]} if self._labelled else {}
            with evaluating(self.pair):
                return self._rows_leaving(Rows(*model.decoded_rows(codes, lengths, **given)), seen=seen)
        with evaluating(self.pair):
            found = reconstructed(self.pair, split, self._encoder, self._decoder, change)
            leaving = self._leaving(found, means=True, seen=seen)
        return as_rows_given(form_of(x), leaving, self.spec, between=MEANS)

    def _levels(self) -> list[str]:
        """The latent variables from the top to the bottom.

        Raises:
            ValueError: programs do not say p(z).
        """
        sites = [name for name, site in self.pair.model_facts.sites.items() if not site.summed]
        if self.pair.can.generate is None or not sites:
            raise ValueError("expected a model that says p(z) level by level, such as HierarchicalVAE: leave from_levels out")
        return sites
