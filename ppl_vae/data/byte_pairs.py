"""Byte pair encoding: pieces of words that are learned from the training rows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from ppl_vae.data.tokenizers import Cut, Tokenizer
from ppl_vae.declaration import require

__all__ = ["BPE", "BYTES"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BPE(Tokenizer):
    """Pieces of words by byte pair encoding: the pair that is most frequent in the training rows is merged, again and again.

    Sennrich, Haddow and Birch 2016, "Neural machine translation of rare words with subword units"; it begins at bytes, as in
    Radford et al. 2019, "Language models are unsupervised multitask learners", so that every text has tokens and comes back as
    it was. A byte that is no letter is written as another one (a space as ``Ġ``). It needs the package tokenizers
    (``pip install 'ppl_vae[text]'``).

    Args:
        size: how many tokens there are, the 256 bytes among them, the end token not.
        merges: the pairs that are merged, in order, ``"a b"`` each; learned from the training rows where none are given, which
            are then what the data and their run declare.

    Raises:
        ValueError: a size below 257, more merges than that, or one that is no pair; on cutting, no package tokenizers.
    """

    complete: ClassVar[bool] = True

    size: int = 2000
    merges: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "merges", tuple(self.merges))
        require(self.size > 256, "a size of at least 257, for bytes and a pair", self.size)
        require(len(self.merges) <= self.size - 256, f"at most {self.size - 256} merges", len(self.merges))
        odd = [merge for merge in self.merges if len(merge.split(" ")) != 2 or not all(merge.split(" "))]
        require(not odd, "merges of two pieces with a space between them", odd[:1])

    def trained(self, texts: Sequence[str]) -> BPE:
        """The same with the merges of these texts, where it has none."""
        if self.merges:
            return self
        library = _library()
        pieces = _untrained(library, {}, [])
        alphabet = library.pre_tokenizers.ByteLevel.alphabet()
        trainer = library.trainers.BpeTrainer(vocab_size=self.size, initial_alphabet=alphabet, show_progress=False)
        pieces.train_from_iterator(iter(texts), trainer)
        pairs = json.loads(pieces.to_str())["model"]["merges"]
        return dataclasses.replace(self, merges=tuple(pair if isinstance(pair, str) else " ".join(pair) for pair in pairs))

    def cut(self, texts: Iterable[str]) -> Cut:
        """Pieces; all that there are, in the vocabulary."""
        names = tuple(dict.fromkeys([*BYTES, *(merge.replace(" ", "") for merge in self.merges)]))
        pairs = [tuple(merge.split(" ")) for merge in self.merges]
        pieces = _untrained(_library(), {name: place for place, name in enumerate(names)}, pairs)
        rows = pieces.encode_batch(list(texts), add_special_tokens=False)
        return [np.array(row.ids, np.int32) for row in rows], names

    def joined(self, tokens: Sequence[str]) -> str:
        """The text; bytes that are none become U+FFFD."""
        return bytes(BYTES[letter] for token in tokens for letter in token).decode(errors="replace")


def _letters() -> dict[str, int]:
    """A printable letter for each byte, in the order of the bytes: itself where it is one."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {byte: chr(byte) for byte in plain} | {byte: chr(256 + place) for place, byte in enumerate(others)}
    return {letters[byte]: byte for byte in range(256)}


BYTES = _letters()


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise ValueError("byte pair encoding needs tokenizers: pip install 'ppl_vae[text]'") from None
    return tokenizers


def _untrained(library: Any, vocabulary: dict[str, int], merges: Sequence[tuple[str, ...]]) -> Any:
    pieces = library.Tokenizer(library.models.BPE(vocab=vocabulary, merges=list(merges)))
    pieces.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return pieces
