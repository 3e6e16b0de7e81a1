"""Data with an attribute more or less: directions in the space of codes, and data of codes that were moved along them."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ppl_vae.data import Split
from ppl_vae.evaluate.directions import direction_between, halves, told_apart
from ppl_vae.evaluate.paths import unbounded
from ppl_vae.fitting.inputs import Classes, Given
from ppl_vae.fitting.interpolating import Interpolating
from ppl_vae.fitting.reconstructing import Reconstructing
from ppl_vae.program.sites import Tree, leaves, tree
from ppl_vae.types import DirectionBy

__all__ = ["Attribute", "Resynthesis", "Resynthesizing"]

Strength = float | Sequence[float]
"""How far to go along a direction, or how far in several steps."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Attribute:
    """A direction in the space of codes along which two kinds of data differ: what :meth:`~ppl_vae.Fit.attribute` gives.

    Attributes:
        direction: from the mean of the negative codes to that of the positive ones along it, so that a strength of 1 leads from
            the one to the other: ``(*latent)``, of several latent variables by their names.
        by: how it was found, ``means`` or ``probe``.
        change: what a strength of 1 adds to the mean of x, W times the direction ``(*event)`` in the units of the source, where
            that is one for all data, as of factor analysis; else ``None``.
        accuracy: on data that it was not found from, the mean of the kinds' shares on their side of the middle; of guesses 1/2.
        accuracy_se: its binomial standard error.
        separation: d' on these data, the distance of the kinds' means along the direction in pooled standard deviations.
        n: how many of these data there were of each kind.
    """

    direction: Tree
    by: DirectionBy
    change: Tensor | None
    accuracy: float
    accuracy_se: float
    separation: float
    n: tuple[int, int]

    def __str__(self) -> str:
        accuracy = f"accuracy {self.accuracy:.3f} ± {self.accuracy_se:.3f}"
        return f"{accuracy}, separation {self.separation:.2f} of {self.n[0]} and {self.n[1]} held-out data, by {self.by}"


class Resynthesis(NamedTuple):
    """What :meth:`~ppl_vae.Fit.resynthesize` gives; S and T are the numbers of strengths, where several are given.

    Attributes:
        codes: ``(S, T, B, *latent)``, of several latent variables by their names.
        decoded: the data of these ``(S, T, B, *event)``; of rows lists of such, at the innermost texts or ``Ragged``.
    """

    codes: Tree
    decoded: Any


class Resynthesizing(Reconstructing, Interpolating):
    """The part of a :class:`~ppl_vae.fitting.fitted.Fit` that changes data by their codes."""

    def attribute(
        self,
        positive: Given,
        negative: Given,
        *,
        test: tuple[Given, Given] | None = None,
        by: DirectionBy = "means",
        held_out: float = 0.25,
        seed: int = 0,
    ) -> Attribute:
        r"""The direction in the space of codes from one kind of data to another, and how well it tells them apart.

        .. math:: d = \bar z_+ - \bar z_-, \qquad d = w \, \frac{w \cdot (\bar z_+ - \bar z_-)}{w \cdot w}

        by the means of the codes (Larsen et al. 2016), or along the normal w of the boundary of a logistic regression, which
        leaves out what differs only because it goes with the attribute (Denton et al. 2019). The codes are posterior means.

        Args:
            positive: rows that have the attribute: a split, an array, a frame, texts.
            negative: rows that lack it.
            test: other rows of both kinds, by which the direction is measured; by default some of the given ones are held out.
            by: ``means`` or ``probe``.
            held_out: the share of the rows of each kind that is held out where no ``test`` is given.
            seed: of the rows held out.

        Raises:
            ValueError: too few rows, rows that the fit was not built for, codes that are no free real numbers, or kinds whose
                codes have one mean.

        Examples:
            ``smile = fit.attribute(smiling, others)``; ``three = fit.attribute(train[train.y == 3], train[train.y != 3])``
        """
        splits = [self._split(rows) for rows in (positive, negative)]
        others = [self._split(rows) for rows in test] if test is not None else []
        for split in (*splits, *others):
            self._check_moving(split)
        found = [self._coded(split) for split in splits]
        if test is None:
            places = [halves(len(codes), held_out, seed) for codes in found]
            held = [codes[place[1].to(codes.device)] for codes, place in zip(found, places, strict=True)]
            found = [codes[place[0].to(codes.device)] for codes, place in zip(found, places, strict=True)]
        else:
            held = [self._coded(split) for split in others]
        direction = direction_between(*found, by=by)
        middle = (found[0].mean(0) + found[1].mean(0)) / 2
        as_tree = self._as_tree(direction, splits[0])
        return Attribute(
            direction=as_tree, by=by, change=self._change(as_tree), **told_apart(direction, middle, *held)._asdict()
        )

    def resynthesize(
        self,
        x: Given,
        attribute: Attribute | Sequence[Attribute],
        strength: Strength | Sequence[Strength],
        *,
        y: Classes | None = None,
        seen: bool = False,
    ) -> Resynthesis:
        r"""Data as their codes give them back, with attributes more or less: means of p(x | z) at z + s d.

        A strength of 0 gives :meth:`reconstruct`, and 1 leads as far as from the mean of the negative to that of the positive
        codes. Strengths in a list are all tried, so that two attributes with a list each make a grid.

        Args:
            x: rows ``(B, *event)`` in the units of the source, as for :meth:`reconstruct`.
            attribute: from :meth:`attribute`, or several.
            strength: of it, a number or several; of several attributes one such for each.
            y: a class for all rows or one for each, by name or number, where the model is conditioned on labels.
            seen: as the model sees them, instead of in the units of the source.

        Raises:
            ValueError: strengths that are not finite or not one for each attribute, an attribute of another fit, or rows that
                the fit was not built for.

        Examples:
            ``fit.resynthesize(data.test[:4], (three, thick), ([-1, 0, 1], [-1, 0, 1])).decoded.shape``
        """
        attributes, strengths = _paired(attribute, strength)
        split = self._split(x, y)
        self._check_moving(split)
        base = leaves(self.encode(split))
        for each in attributes:
            self._check_direction(each, base)
        cells = [
            self._moved(split, base, list(zip(attributes, at, strict=True)), seen=seen)
            for at in itertools.product(*(steps for steps, _ in strengths))
        ]
        shape = [len(steps) for steps, several in strengths if several]
        codes = tree_map(lambda *parts: torch.stack(parts).reshape(*shape, *parts[0].shape), *(codes for codes, _ in cells))
        return Resynthesis(codes, _arranged([decoded for _, decoded in cells], shape))

    def _moved(
        self, split: Split, base: dict[str, Tensor], by: list[tuple[Attribute, float]], *, seen: bool
    ) -> tuple[Tree, Any]:
        """Codes moved along attributes, and their data."""

        def move(z: Tree) -> Tree:
            codes = leaves(z)
            for attribute, strength in by:
                directions = leaves(attribute.direction)
                codes = {n: z + strength * directions[n].to(z) if n in directions else z for n, z in codes.items()}
            return tree(codes)

        return move(tree(base)), self._reconstructed(split, None, move, seen=seen)

    def _coded(self, split: Split) -> Tensor:
        """Codes of data, those of all their latent variables side by side ``(B, K)``."""
        codes = leaves(self.encode(split))
        return torch.cat([code.reshape(len(code), -1) for name, code in codes.items() if name not in self.shared], dim=1)

    def _as_tree(self, direction: Tensor, split: Split) -> Tree:
        """A direction ``(K,)`` by the latent variables of data."""
        codes = {name: code[0] for name, code in leaves(self.encode(split[:1])).items() if name not in self.shared}
        parts = direction.split([code.numel() for code in codes.values()])
        return tree({name: part.reshape(code.shape) for (name, code), part in zip(codes.items(), parts, strict=True)})

    def _change(self, direction: Tree) -> Tensor | None:
        """What a direction adds to the mean of x in the units of the source, of a model of whose codes that is a linear map."""
        model = self.pair.can.decode_linearly
        if model is None or self.dequantized:
            return None
        _, scale = self.transform.constants
        change = model.decoded_change(direction).detach().reshape(self.spec.event_shape)
        return change * scale.to(change)

    def _check_moving(self, split: Split) -> None:
        """Raise ``ValueError`` if codes may not be moved, or there are none."""
        if not len(split):
            raise ValueError("expected at least 1 row, got none")
        supports = self._check_codes([split[:1]], "linear")
        if bounded := [name for name, support in supports.items() if not unbounded(support)]:
            raise ValueError(
                f"expected codes that are any real numbers, got {', '.join(bounded)}, whose values a direction leaves"
            )

    def _check_direction(self, attribute: Attribute, base: dict[str, Tensor]) -> None:
        shapes = {name: tuple(code.shape[1:]) for name, code in base.items() if name not in self.shared}
        found = {name: tuple(part.shape) for name, part in leaves(attribute.direction).items()}
        if found != shapes:
            raise ValueError(f"expected an attribute of this fit, whose codes are {shapes}, got one of {found}")


def _paired(attribute: Any, strength: Any) -> tuple[list[Attribute], list[tuple[list[float], bool]]]:
    """Attributes, and for each its strengths and whether there are several."""
    lone = isinstance(attribute, Attribute)
    attributes = [attribute] if lone else list(attribute)
    strengths = [strength] if lone else list(strength) if isinstance(strength, Sequence) else [strength]
    if not attributes or not all(isinstance(each, Attribute) for each in attributes):
        raise ValueError("expected an attribute, or several, as fit.attribute gives them")
    if len(strengths) != len(attributes):
        raise ValueError(f"expected a strength, or several, for each of {len(attributes)} attributes, got {len(strengths)}")
    return attributes, [_numbers(each) for each in strengths]


def _numbers(strength: Any) -> tuple[list[float], bool]:
    try:
        values = torch.as_tensor(strength, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"expected strengths as numbers, got {strength!r}") from None
    if values.dim() > 1 or not values.numel() or not bool(values.isfinite().all()):
        raise ValueError(f"expected finite strengths, at least one, got {strength!r}")
    return values.reshape(-1).tolist(), values.dim() == 1


def _arranged(cells: list[Any], shape: list[int]) -> Any:
    """What the cells of a grid hold, under axes or in lists of this shape."""
    if not shape:
        return cells[0]
    if isinstance(cells[0], Tensor):
        return torch.stack(cells).reshape(*shape, *cells[0].shape)
    inner = math.prod(shape[1:])
    return [_arranged(cells[start : start + inner], shape[1:]) for start in range(0, len(cells), inner)]
