"""The code of a datum as one vector: which of its elements are free numbers, which say one of several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import constraints

from ppl_vae.data import Split
from ppl_vae.evaluate.paths import code_supports, unbounded
from ppl_vae.evaluate.rows import batches
from ppl_vae.fitting import Fit
from ppl_vae.program.context import evaluating
from ppl_vae.program.sites import leaves, tree

__all__ = ["Block", "Layout", "as_tree", "codes_of", "conditions_of", "layout_of"]

CLASS = "class"
GIVEN = "given"


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some neighbouring elements of the vector.

    Args:
        name: of the latent variable, ``class`` of a condition on labels, ``given`` of another one.
        shape: of the value that they are, flattened.
        kind: ``real`` numbers, a ``choice``, one-hot in the last axis of the shape, or what is ``given`` with a datum.
        names: of a choice what its values are called; numbers where empty.
        latent: whether it is a latent variable and no condition.
    """

    name: str
    shape: tuple[int, ...]
    kind: Literal["real", "choice", "given"]
    names: tuple[str, ...] = ()
    latent: bool = True

    @property
    def size(self) -> int:
        """How many elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """All blocks, latent variables in the order of the story, then what a datum is conditioned on."""

    blocks: tuple[Block, ...]

    @property
    def size(self) -> int:
        """How many elements the vector has."""
        return sum(block.size for block in self.blocks)

    @property
    def levels(self) -> tuple[str, ...]:
        """The names of several latent variables of real numbers, from the top to the bottom; none of a lone one."""
        found = tuple(block.name for block in self.blocks if block.kind == "real")
        return found if len(found) > 1 else ()

    @property
    def starts(self) -> tuple[int, ...]:
        """Where each block begins."""
        return tuple(sum(block.size for block in self.blocks[:place]) for place in range(len(self.blocks)))

    @property
    def choices(self) -> tuple[tuple[str, int, int, tuple[str, ...]], ...]:
        """The name, place, number and names of the values of each choice."""
        found = zip(self.blocks, self.starts, strict=True)
        return tuple((block.name, start, block.size, block.names) for block, start in found if block.kind == "choice")

    def split(self, codes: Tensor) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
        """Codes ``(B, size)`` as values of the latent variables by name ``(B, *shape)``, and what is known beside them."""
        parts = codes.split([block.size for block in self.blocks], dim=1)
        values = [part.reshape(-1, *block.shape) for part, block in zip(parts, self.blocks, strict=True)]
        latent = {block.name: value for value, block in zip(values, self.blocks, strict=True) if block.latent}
        return latent, tuple(value for value, block in zip(values, self.blocks, strict=True) if not block.latent)

    def joined(self, values: Mapping[str, Tensor], known: Sequence[Tensor], rows: int) -> Tensor:
        """The inverse of :meth:`split`, float32 on the CPU."""
        latent = [values[block.name] for block in self.blocks if block.latent]
        parts = [part.expand(rows, *part.shape[1:]).reshape(rows, -1) for part in (*latent, *known)]
        return torch.cat([part.detach().float().cpu() for part in parts], dim=1)


def layout_of(fit: Fit, rows: Split) -> Layout:
    """What the codes of a fit consist of.

    Args:
        fit: the fit.
        rows: some of its data, under its transform.

    Raises:
        ValueError: a model whose data have no codes, or whose codes are neither free numbers nor one of several values.
    """
    facts = fit.pair.model_facts
    if fit.elementwise or facts.latent == "lattice":
        raise ValueError("expected a model whose data have codes, got one with a state for each element of a datum")
    with evaluating(fit.pair):
        supports = code_supports(fit.pair, next(iter(batches(fit.pair, rows[:2], 2))))
    if not supports:
        raise ValueError("expected a model whose data have codes, such as VAE or GMM, got one without: see ppl-vae report")
    values = _values(fit, rows[:2], next(iter(supports)))
    classes = fit.spec.classes if facts.classifies else ()
    blocks = [_latent(name, tuple(value.shape[1:]), supports.get(name), classes) for name, value in values.items()]
    if facts.labelled:
        names = fit.spec.classes
        blocks.append(Block(name=CLASS, shape=(len(names),), kind="choice", names=names, latent=False))
    else:
        given = _known(fit, rows[:2])
        blocks += [Block(name=GIVEN, shape=tuple(part.shape[1:]), kind="given", latent=False) for part in given]
    return Layout(blocks=tuple(blocks))


def codes_of(fit: Fit, rows: Split, layout: Layout) -> Tensor:
    """The codes of rows ``(N, size)``: posterior means, and what each datum is conditioned on, float32 on the CPU."""
    return layout.joined(_values(fit, rows, layout.blocks[0].name), _known(fit, rows), len(rows))


def _values(fit: Fit, rows: Split, lone: str) -> dict[str, Tensor]:
    """Codes of rows by the names of the latent variables that each datum has its own value of."""
    return {name: value for name, value in leaves(fit.encode(rows), lone).items() if name not in fit.shared}


def _known(fit: Fit, rows: Split) -> tuple[Tensor, ...]:
    """What the data of rows are conditioned on, ``(N, *)`` each: their classes, one-hot, or what the model says it knows."""
    facts = fit.pair.model_facts
    if facts.labelled:
        return (torch.eye(len(fit.spec.classes))[rows.labels.cpu()],)
    if facts.known_entries is None and not facts.covariates:
        return ()
    with evaluating(fit.pair):
        return facts.known(*next(iter(batches(fit.pair, rows, max(1, len(rows))))))


def conditions_of(fit: Fit, layout: Layout, codes: Tensor) -> dict[str, Any]:
    """What :meth:`Fit.decode` is told besides codes of a model conditioned on labels: the class of each."""
    _, known = layout.split(codes)
    return {"y": [fit.spec.classes[place] for place in known[0].argmax(-1).tolist()]} if known else {}


def as_tree(layout: Layout, codes: Tensor) -> Any:
    """The latent variables of codes as :meth:`Fit.decode` takes them."""
    return tree(layout.split(codes)[0])


def _latent(name: str, shape: tuple[int, ...], support: Any, classes: tuple[str, ...]) -> Block:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if support is not None and support.is_discrete:
        if not isinstance(support, type(constraints.one_hot)):
            raise ValueError(
                f"expected codes that are numbers or one of several values, got others ({name}): see ppl-vae report"
            )
        return Block(name=name, shape=shape, kind="choice", names=classes if (len(classes),) == shape else ())
    if support is not None and support.event_dim > 0 and not unbounded(support):
        raise ValueError(f"expected codes whose elements are free, got some that are not ({name}): see ppl-vae report")
    return Block(name=name, shape=shape, kind="real")
