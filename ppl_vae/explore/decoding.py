"""The decoder of a page: of any code, as a graph that its script runs, or by the fit itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from ppl_vae.explore.blocks import Layout, as_tree, conditions_of
from ppl_vae.explore.operators import steps_of
from ppl_vae.fitting import Fit
from ppl_vae.fitting.graphs import recorded
from ppl_vae.fitting.inputs import in_source_units
from ppl_vae.likelihoods.base import point_prediction
from ppl_vae.program.context import evaluating
from ppl_vae.program.joint import central_value
from ppl_vae.program.sites import tree

__all__ = ["AT_ONCE", "CodeDecoder", "Graph", "decoded", "graph_of"]

AT_ONCE = 256  # codes


class CodeDecoder(nn.Module):
    """From whole codes ``(B, size)`` to means of p(x | z) ``(B, *event)`` in the units of the source.

    Of several levels each is as the code has it where ``kept (B, levels)`` is 1, and where it is 0 at the mean that the prior
    has given those above it.

    Args:
        fit: of a model that says p(z) and p(x | z), and not of rows of different lengths.
        layout: of its codes.
    """

    def __init__(self, fit: Fit, layout: Layout) -> None:
        super().__init__()
        self.model: Any = fit.pair.model
        self.layout, self.spec, self.transform, self.dequantized = layout, fit.spec, fit.transform, fit.dequantized
        self.of_classes: tuple[Tensor, ...] = ()
        if fit.pair.model_facts.labelled:
            with evaluating(fit.pair):
                self.of_classes = self.model.known(torch.arange(len(fit.spec.classes), device=fit.device))

    def forward(self, codes: Tensor, kept: Tensor) -> tuple[Tensor]:
        """The means; of categories in no order the most probable one."""
        values, known = self.layout.split(codes)
        if self.of_classes:  # what each class tells, of which one-hot vectors take one
            known = tuple((known[0] @ each.flatten(1)).unflatten(1, each.shape[1:]) for each in self.of_classes)
        if self.layout.levels:
            values = self._completed(values, known, kept)
        x = point_prediction(self.model.decode(tree(values), *known)).reshape(-1, *self.spec.event_shape)
        return (in_source_units(x, self.transform, self.spec, means=True, dequantized=self.dequantized),)

    def _completed(self, values: dict[str, Tensor], known: tuple[Tensor, ...], kept: Tensor) -> dict[str, Tensor]:
        """With levels that are not kept at the means of the prior."""
        levels = self.layout.levels

        def take(name: str, factor: Any) -> Tensor:
            if name not in levels:
                return values[name]
            share = kept[:, levels.index(name)].reshape(-1, *(1 for _ in values[name].shape[1:]))
            return share * values[name] + (1 - share) * central_value(factor)

        found: dict[str, Tensor] = self.model.prior_given(*known).walk(take)[0]
        return found


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A decoder that the script of a page runs.

    Args:
        steps: see :func:`~ppl_vae.explore.operators.steps_of`.
        constants: in float32.
        half: whether the constants are those of float16.
    """

    steps: list[list[Any]]
    constants: list[Tensor]
    half: bool = False


def says_distributions(fit: Fit) -> bool:
    """Whether p(z) and p(x | z) of whole data are distributions."""
    return fit.pair.can.generate is not None and fit.pair.can.decode_rows is None and not fit.spec.ragged


def decoded(fit: Fit, layout: Layout, codes: Tensor, kept: Tensor) -> Any:
    """The data of whole codes as :meth:`Fit.decode` gives them: ``(B, *event)`` on the CPU, texts, or ``Ragged``."""
    if not says_distributions(fit):
        found = fit.decode(as_tree(layout, codes), **conditions_of(fit, layout, codes))
        return found.cpu() if isinstance(found, Tensor) else found
    decoder = CodeDecoder(fit, layout)
    with evaluating(decoder):
        parts = zip(codes.split(AT_ONCE), kept.split(AT_ONCE), strict=True)
        like = fit.transform.loc
        return torch.cat([decoder(*(part.to(like) for part in each))[0].cpu() for each in parts])


def graph_of(fit: Fit, layout: Layout, codes: Tensor, *, most_bytes: int, tolerance: Tensor) -> Graph:
    """The decoder as a graph whose constants take at most so many bytes.

    Args:
        fit: the fit.
        layout: of its codes.
        codes: some of them ``(B, size)``, on which it is checked.
        most_bytes: of the constants; float16 takes the place of float32 where these take more.
        tolerance: by how much no decoded number may differ from the fit's own, ``(1,)`` or ``(D,)``.

    Raises:
        ValueError: programs that do not say p(x | z), of which torch makes no graph, with an operator that the page has not,
            too many constants, or numbers that differ.
    """
    if fit.pair.can.decode_rows is not None:
        raise ValueError("its data are made element after element")
    if not says_distributions(fit):
        raise ValueError("it does not say p(x | z) as a distribution")
    kept = torch.ones(len(codes), max(1, len(layout.levels)))
    like = fit.transform.loc
    module = recorded(CodeDecoder(fit, layout), (codes.to(like), kept.to(like)))
    steps, constants = steps_of(module)
    size = 4 * sum(constant.numel() for constant in constants)
    half = size > most_bytes
    if size > (2 if half else 1) * most_bytes:
        raise ValueError(f"the decoder has {size / 4:,.0f} numbers, more than the page has room for")
    rounded = [_rounded(constant, half=half) for constant in constants]
    _check(
        module, constants, rounded, (codes.to(like).cpu(), kept.to(like).cpu()), decoded(fit, layout, codes, kept), tolerance
    )
    return Graph(steps=steps, constants=rounded, half=half)


def _rounded(constant: Tensor, *, half: bool) -> Tensor:
    return constant.half().float() if half else constant.float()


def _check(
    module: fx.GraphModule,
    constants: Sequence[Tensor],
    rounded: Sequence[Tensor],
    inputs: tuple[Tensor, ...],
    wanted: Tensor,
    tolerance: Tensor,
) -> None:
    """Raise ``ValueError`` if the graph with rounded constants gives other numbers than the fit."""
    with torch.no_grad():
        for constant, value in zip(constants, rounded, strict=True):
            constant.copy_(value)
        (found,) = module(*inputs)
    apart = (found.double() - wanted.double()).abs().flatten(1)
    if not bool((apart <= tolerance).all()):
        told = f"differs from the fit's own by {float((apart / (510 * tolerance)).max()):.3g} of a number's range"
        raise ValueError(f"the decoder in the page's precision {told}")
