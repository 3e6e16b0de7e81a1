"""What text is cut into, as declarations: characters, bytes, words."""

from __future__ import annotations

import abc
import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal, get_args

import numpy as np

from ppl_vae.declaration import Declaration, require

__all__ = ["Bytes", "Characters", "Cut", "Tokenizer", "Tokens", "TokensName", "Words", "tokenizer_of"]

Cut = tuple[list[np.ndarray], tuple[str, ...]]
"""The numbers of the tokens of each text, and what the numbers stand for."""

WORDS = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokenizer(Declaration, abc.ABC):
    """How text is cut into tokens, and how text is made of tokens again.

    Class attributes:
        exact: whether text comes back as it was.
        complete: whether it says itself which tokens there are, whatever the rows have; no vocabulary is chosen then.
    """

    exact: ClassVar[bool] = True
    complete: ClassVar[bool] = False

    @property
    def minimum_count(self) -> int:
        """How often a token stands in the training rows at least to be in the vocabulary."""
        return 1

    @abc.abstractmethod
    def cut(self, texts: Iterable[str]) -> Cut:
        """The numbers of the tokens of each text, and what the numbers stand for."""

    def joined(self, tokens: Sequence[str]) -> str:
        """The text of tokens."""
        return "".join(tokens)

    def cuts_as(self, other: Tokenizer) -> bool:
        """Whether another cuts every text into the same tokens, however many of them are kept."""
        return self == other

    def trained(self, texts: Sequence[str]) -> Tokenizer:
        """This tokenizer with what it learns from training rows declared: itself where it learns nothing."""
        return self


@dataclasses.dataclass(frozen=True, kw_only=True)
class Characters(Tokenizer):
    """Every character is a token.

    Examples:
        >>> Characters().cut(["aba"])
        ([array([0, 1, 0])], ('a', 'b'))
    """

    def cut(self, texts: Iterable[str]) -> Cut:
        """Characters in the order of their code points."""
        rows = [np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4") for text in texts]
        found, codes = np.unique(np.concatenate([np.zeros(0, "<u4"), *rows]), return_inverse=True)
        return np.split(codes, np.cumsum([len(row) for row in rows])[:-1]) if rows else [], tuple(map(chr, found))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bytes(Tokenizer):
    """Every byte of UTF-8 is a token, by its two hex digits: 256 of them, whatever the language.

    Examples:
        >>> Bytes().joined(["c3", "a9"])
        'é'
    """

    complete: ClassVar[bool] = True

    def cut(self, texts: Iterable[str]) -> Cut:
        """Bytes, all of which are in the vocabulary."""
        return [np.frombuffer(text.encode(), np.uint8) for text in texts], tuple(f"{byte:02x}" for byte in range(256))

    def joined(self, tokens: Sequence[str]) -> str:
        """The text; bytes that are none become U+FFFD."""
        return bytes(int(token, 16) for token in tokens).decode(errors="replace")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Words(Tokenizer):
    """Runs of letters and digits, with apostrophes inside, and marks one by one. Spaces are lost: text comes back nearly.

    Args:
        lower: whether words are written in lower case.
        minimum: how often a word stands in the training rows at least; rarer ones are the unknown token.

    Raises:
        ValueError: a minimum below 1.

    Examples:
        >>> Words().cut(["Don't go, go"])[1]
        ("don't", 'go', ',')
    """

    exact: ClassVar[bool] = False

    lower: bool = True
    minimum: int = 1

    def __post_init__(self) -> None:
        require(self.minimum >= 1, "a minimum of at least 1", self.minimum)

    @property
    def minimum_count(self) -> int:
        """How often a word stands in the training rows at least."""
        return self.minimum

    def cut(self, texts: Iterable[str]) -> Cut:
        """Words in the order in which they first come."""
        numbers: dict[str, int] = {}
        pieces = (WORDS.findall(text.lower() if self.lower else text) for text in texts)
        rows = [np.array([numbers.setdefault(word, len(numbers)) for word in words], np.int32) for words in pieces]
        return rows, tuple(numbers)

    def cuts_as(self, other: Tokenizer) -> bool:
        """Whether another writes words as this one does."""
        return isinstance(other, Words) and self.lower == other.lower

    def joined(self, tokens: Sequence[str]) -> str:
        """The words with a space between them."""
        return " ".join(tokens)


TokensName = Literal["characters", "words", "bytes"]
Tokens = TokensName | Tokenizer
"""A tokenizer, or the name of one that leaves nothing to be said."""
NAMED: dict[str, Tokenizer] = {"characters": Characters(), "words": Words(), "bytes": Bytes()}


def tokenizer_of(tokens: Tokens) -> Tokenizer:
    """The tokenizer itself, or that of a name.

    Raises:
        ValueError: no such name.
    """
    if isinstance(tokens, Tokenizer):
        return tokens
    require(tokens in NAMED, f"tokens: a tokenizer, or one of {', '.join(get_args(TokensName))}", tokens)
    return NAMED[tokens]
