"""Text as tokens: how it is cut, and which numbers the pieces have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ppl_vae.data.tokenizers import Tokens, tokenizer_of

__all__ = ["END", "UNKNOWN", "Tokens", "chosen_vocabulary", "codes_between", "tokenized", "untokenized"]

END = "<end>"
"""The token after the last of a row: at place 0, as padding is, so that it also stands for what is before the first."""
UNKNOWN = "<unknown>"
"""The token in the place of all that a vocabulary lacks."""


def tokenized(texts: Iterable[str], tokens: Tokens, *, end: bool) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Texts as numbers one after the other, the offsets of each text ``(N + 1,)``, and the tokens that the numbers stand for.

    Args:
        texts: rows.
        tokens: what they are cut into.
        end: whether :data:`END` is added to each, as the number 0.
    """
    rows, names = tokenizer_of(tokens).cut(texts)
    lengths = np.array([len(row) for row in rows], np.int64)
    values = np.concatenate([np.zeros(0, np.int32), *rows]).astype(np.int32)
    if end:
        values, names = np.insert(values + 1, lengths.cumsum(), 0), (END, *names)
    return values, np.concatenate([[0], (lengths + end).cumsum()]), names


def chosen_vocabulary(
    tokens: Sequence[str], counts: np.ndarray, elsewhere: np.ndarray, most: int | None, *, least: int = 1
) -> tuple[str, ...]:
    """The tokens that a model is to know: the end, the unknown one where it is needed, the others by how often they are.

    Args:
        tokens: of the source.
        counts: of each in the training rows.
        elsewhere: of each in the others.
        most: how many to keep, :data:`END` and :data:`UNKNOWN` included; by default all of the training rows.
        least: how often a token stands in the training rows at least to be kept.
    """
    first = [END] if END in tokens else []
    found = [token for token, count in zip(tokens, counts, strict=True) if count and token != END and token != UNKNOWN]
    frequency = dict(zip(tokens, counts, strict=True))
    kept = sorted(sorted(token for token in found if frequency[token] >= least), key=lambda token: -frequency[token])
    known = {*first, *kept}
    strange = len(kept) < len(found) or any(
        number and token not in known for token, number in zip(tokens, elsewhere, strict=True)
    )
    if most is not None and len(first) + len(kept) + strange > most:
        kept, strange = kept[: max(0, most - len(first) - 1)], True
    return (*first, *([UNKNOWN] if strange else []), *kept)


def codes_between(tokens: Sequence[str], vocabulary: Sequence[str], used: np.ndarray) -> np.ndarray:
    """The place in a vocabulary of each of these tokens, that of its unknown token for those that it lacks.

    Args:
        tokens: of the rows.
        vocabulary: of the model.
        used: which of the tokens the rows have.

    Raises:
        ValueError: it lacks one that the rows have, and has no unknown token.
    """
    places = {token: place for place, token in enumerate(vocabulary)}
    lacking = [token for token, there in zip(tokens, used, strict=True) if there and token not in places]
    if lacking and UNKNOWN not in places:
        told = ", ".join(map(repr, lacking[:5])) + (f", ... ({len(lacking)})" if len(lacking) > 5 else "")
        raise ValueError(
            f"expected tokens among the {len(vocabulary)} of the vocabulary, got {told}: leave these rows out, or fit data "
            "that were loaded with a `vocabulary` limit, which makes room for an unknown token"
        )
    codes = np.array([places.get(token, places.get(UNKNOWN, 0)) for token in tokens], np.int64)
    dtype = next(kind for kind in (np.uint8, np.int16, np.int32) if len(vocabulary) <= np.iinfo(kind).max + 1)
    return codes.astype(dtype)


def untokenized(codes: Iterable[int], vocabulary: Sequence[str], tokens: Tokens) -> str:
    """The text of a row of tokens, up to its end, as their tokenizer makes it.

    Examples:
        >>> untokenized([1, 2, 0, 0], ("<end>", "h", "i"), "characters")
        'hi'
    """
    found: list[str] = []
    for code in codes:
        if vocabulary[int(code)] == END:
            break
        found.append(vocabulary[int(code)])
    return tokenizer_of(tokens).joined(found)
