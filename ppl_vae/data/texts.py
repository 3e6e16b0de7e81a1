"""Files of text: a row a line, or a column of a table, cut into tokens."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppl_vae.data.counts import is_counts
from ppl_vae.data.delimited import cells_of
from ppl_vae.data.parts import rows_of_parts
from ppl_vae.data.ragged import Ragged
from ppl_vae.data.raw import Raw
from ppl_vae.data.source import DataSource
from ppl_vae.data.tokenizers import Tokenizer, TokensName
from ppl_vae.data.vocabulary import Tokens, tokenized
from ppl_vae.text import at_home
from ppl_vae.types import FitWarning

__all__ = ["are_texts", "as_running", "of_texts", "read_texts", "rows_of_texts", "running"]

SURROGATE = re.compile("[\ud800-\udfff]")
CHUNK = 256  # characters of a row of a running text of which nothing is declared


def read_texts(path: Path, source: DataSource) -> Raw:
    """Rows of text in UTF-8 as tokens, and their labels where a column is named for them.

    Raises:
        ValueError: no tokens declared, another encoding, no such column, or no rows.
    """
    if source.tokens is None:
        raise ValueError(f"{path}: expected what the text is cut into, got none: tokens='characters', 'words' or 'bytes'")
    if path.suffix.lower() == ".txt":
        return of_texts(_lines(path), source) if source.chunk is None else running(_text(path), source, source.chunk)
    rows = cells_of(path)
    wanted = [name for name in (source.column, source.label) if name is not None]
    headed = source.header if source.header is not None else any(name in rows[0] and not name.isdigit() for name in wanted)
    names = rows[0] if headed else [str(place) for place in range(len(rows[0]))]
    column = _place(path, names, source.column, "column")
    label = None if source.label is None else _place(path, names, source.label, "label")
    y = None if label is None else np.array([row[label] for row in rows[headed:]])
    return of_texts([row[column] for row in rows[headed:]], source)._replace(y=y)


def as_running(source: DataSource) -> DataSource:
    """The declaration of a ``.txt`` file that does not say how it is cut as that of a running text, which is told."""
    path = Path(source.source)
    if source.tokens is not None or path.suffix.lower() != ".txt" or is_counts(path) or not at_home(source.source).exists():
        return source
    warnings.warn(
        f"{source.source} is taken for a running text, in rows of {CHUNK} characters: declare tokens (--data.tokens) for a row "
        "a line, or chunk (--data.chunk) as well for rows of another length",
        FitWarning,
        stacklevel=3,
    )
    return dataclasses.replace(source, tokens="characters", chunk=CHUNK)


def running(text: str, source: DataSource, chunk: int) -> Raw:
    """A running text in rows of so many tokens, the last one what is left, without ends.

    A tokenizer that learns does so from the first lines, as large a share of them as of rows is for training.

    Raises:
        ValueError: a text without tokens.
    """
    tokens = _trained(text.splitlines(keepends=True), source)
    values, _, vocabulary = tokenized([text], tokens, end=False)
    if not len(values):
        raise ValueError(f"{source.source}: expected text, got none")
    offsets = np.append(np.arange(0, len(values), chunk), len(values))
    return Raw(Ragged(values, offsets, vocabulary=vocabulary), tokens=tokens)


def _trained(texts: Sequence[str] | np.ndarray, source: DataSource) -> Tokenizer | TokensName:
    """What cuts the texts, once it has learned from those for training what it learns."""
    tokens = source.tokens or "characters"
    if not isinstance(tokens, Tokenizer) or not len(texts):
        return tokens
    training = rows_of_parts(source, len(texts), has_test=False, has_valid=False)[0]
    return tokens.trained([texts[place] for place in training.tolist()])


def of_texts(texts: Sequence[str] | np.ndarray, source: DataSource) -> Raw:
    """Texts as tokens, numbered as their tokenizer does, and this with what it learned from the training rows.

    Raises:
        ValueError: no texts, or none that has a token.
    """
    if isinstance(texts, np.ndarray) and texts.dtype.kind not in "UO":
        raise ValueError(f"expected texts for tokens={source.tokens!r}, got an array of dtype {texts.dtype}: leave tokens out")
    if odd := next(((row, text) for row, text in enumerate(texts) if not isinstance(text, str)), None):
        row, got = odd[0], repr(odd[1]) if np.ndim(odd[1]) == 0 else type(odd[1]).__name__
        raise ValueError(
            f"expected texts for tokens={source.tokens!r}, got {got[:80]} in row {row} (from 0): give strings, and leave out "
            "rows that have none"
        )
    try:
        tokens = _trained(texts, source)
        values, offsets, vocabulary = tokenized(texts, tokens, end=source.end)
    except UnicodeEncodeError:
        row = next(row for row, text in enumerate(texts) if SURROGATE.search(text))
        raise ValueError(
            f"expected texts that can be written as bytes, got half of a surrogate pair in row {row} (from 0): correct it, "
            "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
        ) from None
    if not len(values):
        raise ValueError(f"{source.source}: expected rows of text, got none")
    return Raw(Ragged(values, offsets, vocabulary=vocabulary), tokens=tokens)


def _lines(path: Path) -> list[str]:
    """The lines that are not blank; others are told."""
    lines = _text(path).splitlines()
    found = [line for line in lines if line.strip()]
    if len(found) < len(lines):
        warnings.warn(
            f"{path}: {len(lines) - len(found)} blank lines are left out: a row is a line of text", FitWarning, stacklevel=2
        )
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected UTF-8 text, got the byte {error.object[error.start]:#x}: save it as UTF-8"
        ) from None


def _place(path: Path, names: Sequence[str], wanted: str | None, what: str) -> int:
    """The place of a column by its name, or by its number where it has none."""
    if wanted is None and len(names) == 1:
        return 0
    if wanted in names:
        return names.index(wanted)
    if wanted is not None and wanted.isdigit() and int(wanted) < len(names):
        return int(wanted)
    got = "no name of one" if wanted is None else repr(wanted)
    told = f"expected a {what} of text among {', '.join(map(repr, names))}, got {got}"
    raise ValueError(f"{path}: {told}: name it by {what}= (--data.{what}), by its number from 0 where columns have no names")


def are_texts(values: Any) -> bool:
    """Whether these are several texts, of which the first tells."""
    several = isinstance(values, (list, tuple)) or (isinstance(values, np.ndarray) and values.ndim == 1)
    return several and len(values) > 0 and isinstance(values[0], str)


def rows_of_texts(texts: Any, tokens: Tokens | None, *, end: bool) -> Ragged:
    """Texts as rows of tokens.

    Args:
        texts: strings.
        tokens: what they are cut into; none where the data were no texts.
        end: whether each has its end token.

    Raises:
        ValueError: texts for data that were none, or something that is no text.
    """
    if tokens is None:
        raise ValueError("expected elements as numbers, got text, which the data of this fit were not: give an array or Ragged")
    if odd := next((text for text in texts if not isinstance(text, str)), None):
        raise ValueError(f"expected texts alone, got {type(odd).__name__} among them")
    values, offsets, vocabulary = tokenized(texts, tokens, end=end)
    return Ragged(values, offsets, vocabulary=vocabulary)
