"""The likelihood of tokens."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor, nn

from ppl_vae.data import Data
from ppl_vae.data.vocabulary import END
from ppl_vae.declaration import require
from ppl_vae.likelihoods.base import Likelihood
from ppl_vae.likelihoods.categorical import CategoricalModule
from ppl_vae.types import CATEGORICAL, DataSpec, Kind

__all__ = ["Tokens"]

ABSENT = 0.1  # added to what each token is counted, so that logits stay finite


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens(Likelihood):
    """p(x | h) = softmax(h)_x for each token x of a vocabulary: :class:`~ppl_vae.Categorical` of as many levels as that has.

    Args:
        levels: how many tokens there are; by default as many as the data have, which is then what the fit declares.
        end: the number of the token after which a row has no other; by default that of the data, if they have one.

    Raises:
        ValueError: fewer than 2 tokens, or an end that is none of them; on checking, data of more.

    Examples:
        >>> Tokens(levels=4).build(())(torch.zeros(3, 4)).log_prob(torch.tensor([0, 1, 3]))
        tensor([-1.3863, -1.3863, -1.3863])
    """

    accepts: ClassVar[frozenset[Kind]] = frozenset({CATEGORICAL})
    discrete: ClassVar[bool] = True

    levels: int | None = None
    end: int | None = None

    def __post_init__(self) -> None:
        require(self.levels is None or self.levels >= 2, "at least 2 levels", self.levels)
        most = self.levels if self.levels is not None else float("inf")
        require(self.end is None or 0 <= self.end < most, "an end among the tokens", self.end)

    @property
    def features(self) -> int:
        """One logit per token.

        Raises:
            ValueError: nothing has told how many there are.
        """
        if self.levels is None:
            raise ValueError("expected levels of Tokens, got none: declare them, or load data whose tokens are known")
        return self.levels

    def settled(self, data: Data) -> Tokens:
        """Tokens of the data's vocabulary, and its end."""
        spec = data.spec
        vocabulary = spec.fields[0].vocabulary if spec.ragged else ()
        levels = spec.levels or (spec.fields[0].levels if spec.ragged else None)
        end = vocabulary.index(END) if END in vocabulary else None
        levels = max(2, levels) if self.levels is None and levels is not None else self.levels
        if levels is None or (end is not None and end >= levels):
            return self
        return dataclasses.replace(self, levels=levels, end=end if self.end is None else self.end)

    def check(self, spec: DataSpec) -> None:
        """Raise ``ValueError`` if the data are of another kind, or have more tokens."""
        super().check(spec)
        if self.levels is not None and spec.levels is not None and spec.levels > self.levels:
            raise ValueError(f"expected at most {self.levels} tokens, got {spec.levels}: use Tokens(), which takes the data's")
        names = spec.fields[0].vocabulary if spec.ragged else ()
        if self.levels is not None and names and self.levels > max(2, len(names)):
            raise ValueError(
                f"expected as many tokens as the {len(names)} of the vocabulary, got {self.levels}: use Tokens(), which takes "
                "the data's"
            )

    def check_values(self, x: Tensor) -> None:
        """Raise ``ValueError`` if there is a number that is no token's."""
        outside = (
            (x < 0)
            | (x >= self.features)
            | (x != x.round() if x.is_floating_point() else torch.zeros_like(x, dtype=torch.bool))
        )
        if bool(outside.any()):
            raise ValueError(
                f"expected tokens from 0 to {self.features - 1}, got {x.min():g} to {x.max():g}: correct those rows"
            )

    def build(self, event_shape: tuple[int, ...]) -> nn.Module:
        """A module from logits ``(..., L, *event_shape)`` to the distribution."""
        return TokenModule(len(event_shape), self.end)

    def story(self, features: str) -> str:
        """The density as text."""
        return f"Categorical(softmax {features})"


class TokenModule(CategoricalModule):
    """Logits to the distribution of tokens, one of which may end a row."""

    starts_at_data = True

    def __init__(self, event_dim: int, end: int | None) -> None:
        super().__init__(event_dim)
        self.end = end

    def ends(self, x: Tensor) -> Tensor | None:
        """Which tokens x are the last of their row."""
        return None if self.end is None else x == self.end

    def likeliest(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The logits ``(L, *event)`` of the frequencies in x ``(N, *event)``, where a token that is not there has a tenth."""
        counts = torch.zeros(shape, dtype=torch.get_default_dtype(), device=x.device)
        x = x.long()
        return (counts.scatter_add(0, x, torch.ones_like(x, dtype=counts.dtype)) + ABSENT).log().log_softmax(0)
