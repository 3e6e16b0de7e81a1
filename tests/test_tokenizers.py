"""Tokenizers as declarations, and rows that are longer than declared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ppl_vae as pv
from ppl_vae.data.byte_pairs import BYTES
from ppl_vae.data.parts import rows_of_parts
from ppl_vae.data.tokenizers import tokenizer_of
from ppl_vae.data.vocabulary import END, UNKNOWN, untokenized

TEXTS = ["to be", "or not to be", "That is the question:", "Größe, naïve 日本 🙂", "  two  spaces ", "to", "to be"]


def whole(source: Any, **options: Any) -> pv.Data:
    return pv.load_data(source, **{"valid": 0.0, "test": 0.0, **options})


def texts_of(split: pv.Split, tokens: Any) -> list[str]:
    return [untokenized(split.raw[place].tolist(), split.raw.vocabulary, tokens) for place in range(len(split))]


def pieces(**options: Any) -> pv.BPE:
    pytest.importorskip("tokenizers")
    return pv.BPE(**options)


@pytest.mark.parametrize("name", ["Characters", "Bytes", "BPE"])
def test_text_comes_back_exactly(name: str) -> None:
    tokens = pieces(size=300) if name == "BPE" else getattr(pv, name)()
    assert tokens.exact
    data = whole(np.array(TEXTS), tokens=tokens)
    assert texts_of(data.train, data.source.tokens) == TEXTS
    assert pv.DataSource.from_yaml(data.source.to_yaml()) == data.source


def test_names_stand_for_tokenizers() -> None:
    for name, tokens in (("characters", pv.Characters()), ("words", pv.Words()), ("bytes", pv.Bytes())):
        assert tokenizer_of(name) == pv.DataSource(tokens=name).tokenizer == tokens  # type: ignore[arg-type]
        by_name, declared = (whole(np.array(TEXTS), tokens=each) for each in (name, tokens))
        assert by_name.spec == declared.spec
        assert by_name.train.raw.values.equal(declared.train.raw.values)
    assert pv.DataSource.from_yaml("tokens: Words").tokens == pv.Words()
    told = "tokens: {class_path: Words, init_args: {minimum: 2, lower: false}}"
    assert pv.DataSource.from_yaml(told).tokens == pv.Words(minimum=2, lower=False)


def test_rare_words_are_unknown() -> None:
    data = whole(np.array(TEXTS), tokens=pv.Words(minimum=2))
    assert data.spec.fields[0].vocabulary == (END, UNKNOWN, "to", "be")
    assert texts_of(data.train, data.source.tokens)[1] == f"{UNKNOWN} {UNKNOWN} to be"
    cased = whole(np.array(TEXTS), tokens=pv.Words(lower=False))
    assert "That" in cased.spec.fields[0].vocabulary
    assert not pv.Words.exact
    assert pv.Words().joined(["to", "be", "."]) == "to be ."


def test_pieces_are_learned_from_the_training_rows_and_kept_in_the_declaration() -> None:
    texts = np.array(["abab abab"] * 10)
    texts[rows_of_parts(pv.DataSource(), 10, has_test=False, has_valid=False)[2]] = "xyxy xyxy"
    data = pv.load_data(texts, tokens=pieces(size=260))
    assert not any("x" in merge for merge in data.source.tokens.merges)
    assert data.source.tokens.merges[0] == "a b"
    names = data.spec.fields[0].vocabulary
    assert (len(names), names[0], len(set(names))) == (257 + len(data.source.tokens.merges), END, len(names))
    assert texts_of(data.test, data.source.tokens) == ["xyxy xyxy"] * 2
    again = pv.load_data(texts, tokens=data.source.tokens)
    assert again.source == data.source
    assert again.train.raw.values.equal(data.train.raw.values)
    new = whole(np.array(["xaby"]), tokens=data.source.tokens)  # cut as the training rows were
    assert [names[code] for code in new.train.raw[0].tolist()] == ["x", "ab", "y", END]


def test_bytes_have_the_letters_that_the_library_has() -> None:
    library = pytest.importorskip("tokenizers")
    assert set(BYTES) == set(library.pre_tokenizers.ByteLevel.alphabet())
    assert sorted(BYTES.values()) == list(range(256))


def test_a_token_that_the_vocabulary_lacks_is_refused_by_name() -> None:
    known = whole(np.array(["ab", "ba"]), tokens="characters").spec.fields[0].vocabulary
    with pytest.raises(ValueError, match="got 'z': leave these rows out"):
        whole(np.array(["az"]), tokens="characters").train.raw.under(known)


# --- long rows ------------------------------------------------------------------------------------------------------------


def test_longer_rows_are_refused_or_split_and_never_cut(tmp_path: Path) -> None:
    texts = np.array(["abcdefg", "ab", "abcd"])
    with pytest.raises(ValueError, match=r"at most 4 elements, .* got 2 longer ones, the first of them row 0 \(from 0\) of 8"):
        whole(texts, tokens="characters", longest=4)
    data = whole(texts, tokens="characters", longest=4, longer="split", y=["u", "v", "w"])
    assert texts_of(data.train, "characters") == ["abcd", "efg", "ab", "abcd", ""]
    assert data.train.raw.lengths.tolist() == [4, 4, 3, 4, 1]
    assert data.train.labels.tolist() == [0, 0, 1, 2, 2]
    assert (data.spec.size, data.spec.fields[0].longest) == (5, 4)
    assert whole(texts, tokens="characters", longest=8).train.raw.lengths.tolist() == [8, 3, 5]
    assert data.source.of("b.txt").longest == 4
    assert data.source.of("b.png").longest is None
    held = pv.load_data(np.array(["abcdefgh"] * 10), tokens="characters", longest=3, longer="split", test=0.2, valid=0.1)
    assert [len(part) for part in (held.train, held.valid, held.test)] == [21, 3, 6]  # pieces of a row stay together


def test_long_drawings_are_not_to_be_split() -> None:
    drawing = pv.Ragged([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 1.0]] * 3, [0, 3, 6, 9])
    with pytest.raises(ValueError, match=r"declare longest larger or drop these rows$"):
        whole(drawing, kind="strokes", longest=2)


@pytest.mark.parametrize(
    ("source", "options", "told"),
    [
        (np.ones((3, 2)), {"longest": 4}, "rows of different lengths for longest=4"),
        (pv.Ragged([[0, 0, 1]], [0, 1]), {"longest": 4, "longer": "split", "kind": "strokes"}, "can be split, got drawings"),
        (np.array(["a"]), {"tokens": "characters", "longer": "split"}, "longest, which longer rows are split at"),
        (np.array(["a"]), {"tokens": "characters", "longest": 0}, ">= 1"),
        (np.array(["a"]), {"tokens": pv.Bytes(), "vocabulary": 9}, "all tokens of Bytes"),
        (np.array(["a"]), {"tokens": 3}, "tokens"),
    ],
)
def test_declarations_that_cannot_be_followed_are_refused(source: Any, options: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        whole(source, **options)


def test_tokenizers_say_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="a minimum of at least 1"):
        pv.Words(minimum=0)
    for options, told in (({"size": 256}, "at least 257"), ({"merges": ("ab",)}, "merges of two pieces")):
        with pytest.raises(ValueError, match=told):
            pv.BPE(**options)
