"""Sources of sequences and counts: text and its tokens, ragged arrays, drawings, bags of words, sparse matrices."""

from __future__ import annotations

import functools
import gzip
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import scipy.sparse
import torch
from torch import Tensor

import ppl_vae as pv
from ppl_vae.data.vocabulary import END, UNKNOWN, untokenized
from ppl_vae.types import FitWarning
from tests.test_ragged import bigram, nothing

SHARED = pv.DataSource().folder
TEXTS = ["to be", "or not", "to be!", "Not.", "be", "to", "or", "to"]


def text(split: pv.Split, place: int, tokens: str = "characters") -> str:
    return untokenized(split.raw[place].tolist(), split.raw.vocabulary, tokens)


def whole(source: Any, **options: Any) -> pv.Data:
    return pv.load_data(source, **{"valid": 0.0, "test": 0.0, **options})


# --- text -----------------------------------------------------------------------------------------------------------------


def test_lines_of_text_become_tokens_and_text_again(tmp_path: Path) -> None:
    file = tmp_path / "lines.txt"
    file.write_text("\n".join(TEXTS), encoding="utf-8")
    for tokens in ("characters", "bytes"):
        data = whole(file, tokens=tokens)
        assert [text(data.train, place, tokens) for place in range(8)] == TEXTS
        assert data.train.raw.lengths.tolist() == [len(each) + 1 for each in TEXTS]
    data = whole(file, tokens="words")
    assert [text(data.train, place, "words") for place in range(4)] == ["to be", "or not", "to be !", "not ."]
    field = data.spec.fields[0]
    assert data.spec.kind == "categorical"
    assert field.vocabulary == (END, "to", "be", "not", "or", "!", ".")  # by how often they are
    assert data.spec.levels == field.levels == 7
    assert (field.ragged, field.longest, field.length) == (True, 4, "length")
    x, length = next(data.train.read(("x", "length"), 8))
    assert x.dtype == torch.int64
    assert not x[length == 2][:, 2:].any()
    assert whole(file, tokens="words", end=False).spec.fields[0].vocabulary[0] == "to"


@pytest.mark.parametrize(("name", "separator"), [("a.tsv", "\t"), ("a.csv", ",")])
@pytest.mark.parametrize("header", [True, False])
def test_a_column_of_a_table_is_text(tmp_path: Path, name: str, separator: str, header: bool) -> None:
    file = tmp_path / name
    rows = [["text", "kind"]] * header + [[each, str(len(each) > 4)] for each in TEXTS]
    file.write_text("\n".join(separator.join(row) for row in rows), encoding="utf-8")
    column, label = ("text", "kind") if header else ("0", "1")
    data = whole(file, tokens="characters", column=column, label=label)
    assert [text(data.train, place) for place in range(8)] == TEXTS
    assert data.spec.classes == ("False", "True")
    assert data.train.labels.tolist() == [int(len(each) > 4) for each in TEXTS]
    with pytest.raises(ValueError, match="expected a column of text among"):
        whole(file, tokens="characters")
    with pytest.raises(ValueError, match="got 'words'"):
        whole(file, tokens="characters", column="words")


def test_quotation_marks_of_a_tsv_file_are_text(tmp_path: Path) -> None:
    file = tmp_path / "a.tsv"
    file.write_text('"Hi," he said.\t1\n"No\t2\n', encoding="utf-8")
    data = whole(file, tokens="characters", column="0")
    assert [text(data.train, place) for place in range(2)] == ['"Hi," he said.', '"No']


def test_a_vocabulary_is_that_of_the_training_rows() -> None:
    texts = np.array([*["aab", "ab", "ba"] * 20, "axb"])
    for seed in range(6):
        data = pv.load_data(texts, tokens="characters", seed=seed, test=0.2, valid=0.0)
        held_out = [text(data.test, place) for place in range(len(data.test))]
        known = data.spec.fields[0].vocabulary
        if any("x" in each or UNKNOWN in each for each in held_out):
            assert known == (END, UNKNOWN, "a", "b")
            assert f"a{UNKNOWN}b" in held_out
        else:
            assert known == (END, "a", "b", "x")


def test_a_limit_keeps_the_most_frequent_tokens() -> None:
    data = whole(np.array(TEXTS), tokens="words", vocabulary=4)
    assert data.spec.fields[0].vocabulary == (END, UNKNOWN, "to", "be")
    assert data.spec.levels == 4
    assert text(data.train, 1, "words") == f"{UNKNOWN} {UNKNOWN}"
    assert whole(np.array(TEXTS), tokens="words", vocabulary=100).spec.levels == 7


def test_new_text_meets_the_vocabulary_of_the_fit(tmp_path: Path) -> None:
    data = whole(np.array(TEXTS), tokens="characters")
    model = functools.partial(bigram, size=8, levels=data.spec.levels)
    fit = pv.fit(model, data, guide=nothing, method=pv.SVI(epochs=5, batch_size=8, learning_rate=0.3), device="cpu")
    new = tmp_path / "new.txt"
    new.write_text("not to\nbe\n", encoding="utf-8")
    alone = whole(new, tokens="characters")
    assert alone.spec.fields[0].vocabulary != data.spec.fields[0].vocabulary
    numbers = fit.evaluate(alone.train)
    codes = {token: place for place, token in enumerate(data.spec.fields[0].vocabulary)}
    rows = [[codes[token] for token in [*line, END]] for line in ("not to", "be")]
    logits = next(fit.pair.parameters()).detach().log_softmax(-1)
    expected = [sum(logits[pair].item() for pair in itertools.pairwise([0, *row])) for row in rows]
    assert numbers["elbo"] == pytest.approx(np.mean(expected), rel=1e-5)
    assert fit.evaluate(pv.Ragged.from_list(rows))["elbo"] == pytest.approx(numbers["elbo"])
    with pytest.raises(ValueError, match="the vocabulary, got 'z': leave these rows out"):
        fit.evaluate(whole(np.array(["be z"]), tokens="characters").train)
    limited = whole(np.array(TEXTS), tokens="characters", vocabulary=5)
    model = functools.partial(bigram, size=8, levels=5)
    fit = pv.fit(model, limited, guide=nothing, method=pv.SVI(epochs=1), device="cpu")
    assert fit._split(whole(np.array(["be z"]), tokens="characters").train).raw[0].tolist()[3] == 1  # the unknown token


def test_blank_lines_are_told(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("to be\n\nor not\n", encoding="utf-8")
    with pytest.warns(FitWarning, match="1 blank lines are left out"):
        assert len(whole(file, tokens="words").train) == 2


@pytest.mark.parametrize(
    ("content", "name", "options", "told"),
    [
        (b"\xff\xfe", "a.txt", {"tokens": "words"}, "UTF-8 text, got the byte 0xff"),
        (b"\xff\xfe", "a.tsv", {"tokens": "words"}, "UTF-8 text, got the byte 0xff"),
        (b"a", "a.npy", {"tokens": "words"}, "tokens for .txt, .csv and .tsv"),
        (b"1,2\n3,4\n", "a.csv", {"column": "0"}, "column for text"),
        (b"a b", "a.txt", {"tokens": "words", "column": "0"}, "column for text"),
        (b"a b", "a.txt", {"tokens": "words", "label": "y"}, "label for .csv"),
        (b"1,2\n", "a.csv", {"fields": ("x",)}, "expected a column for the field 'x', got 0, 1"),
    ],
)
def test_text_that_cannot_be_read_says_why(tmp_path: Path, content: bytes, name: str, options: Any, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=told):
        pv.load_data(tmp_path / name, **options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"tokens": "letters"}, "one of None, characters, words, bytes"),
        ({"vocabulary": 10}, "tokens, which a vocabulary is of"),
        ({"source": "a.csv", "chunk": 10}, "tokens, which a chunk is of"),
        ({"tokens": "words", "vocabulary": 1}, ">= 2"),
        ({"tokens": "words", "scale": "unit"}, "no scale"),
        ({"tokens": "words", "kind": "count"}, "kind categorical"),
        ({"tokens": "bytes", "vocabulary": 9}, "all tokens of bytes"),
        ({"buckets": 0}, ">= 1"),
        ({"counts": "csr"}, "auto, dense, sparse, pairs"),
    ],
)
def test_declarations_that_say_nothing_are_refused(options: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        pv.DataSource(**options)
    with pytest.raises(ValueError, match="texts for tokens='words'"):
        pv.load_data(np.ones(5), tokens="words")


@pytest.mark.skipif(not (SHARED / "text").is_dir(), reason="no benchmark data here")
def test_a_chunk_alone_is_of_characters(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("to be\nor", encoding="utf-8")
    data = whole(tmp_path / "a.txt", chunk=3)
    assert [text(data.train, row) for row in range(3)] == ["to ", "be\n", "or"]
    assert data.source == pv.DataSource(source=str(tmp_path / "a.txt"), tokens="characters", chunk=3, valid=0.0, test=0.0)


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["a", float("nan")], r"got nan in row 1 \(from 0\)"),
        ([None, "a"], "got None in row 0"),
        (["a", 1], "got 1 in row 1"),
        (np.array(["a", None], dtype=object), "got None in row 1"),
    ],
)
def test_what_is_no_text_is_refused_with_its_row(texts: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        whole(texts, tokens="characters")


def test_half_a_surrogate_pair_is_no_bytes() -> None:
    with pytest.raises(ValueError, match=r"half of a surrogate pair in row 1 \(from 0\)"):
        whole(["a", "b\ud800"], tokens="bytes")
    whole(["b\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16", "replace")], tokens="bytes")


def test_text_that_another_tokenizer_cut_is_refused_by_both_names() -> None:
    train = pv.load_data(["the cat sat", "a dog sat"] * 20, tokens=pv.Words(minimum=9))
    fit = pv.fit(pv.SequenceModel(network=pv.LSTM(hidden=2)), train, method=pv.SVI(epochs=1))
    scored = [fit.score_samples(whole(["The CAT sat"], tokens=tokens)).log_prob for tokens in ("words", pv.Words())]
    assert torch.equal(*scored)
    for tokens, name in ((pv.Words(lower=False), r"Words\(lower=False"), ("characters", "Characters")):
        with pytest.raises(ValueError, match=rf"cut by Words\(lower=True, minimum=9\), .* got text cut by {name}"):
            fit.score_samples(whole(["The CAT sat"], tokens=tokens))


def test_tokens_are_those_of_the_vocabulary() -> None:
    data = pv.load_data(["ab", "b", "ba"] * 6, tokens="characters")
    with pytest.raises(ValueError, match="the 3 of the vocabulary, got 9"):
        pv.Tokens(levels=9).check(data.spec)
    assert pv.Tokens(levels=3).settled(data) == pv.Tokens().settled(data) == pv.Tokens(levels=3, end=0)
    values = data.train.raw.values  # type: ignore[union-attr]
    assert not values.is_floating_point()
    pv.Categorical(levels=3).check_values(values)
    with pytest.raises(ValueError, match="values outside it"):
        pv.Categorical(levels=2).check_values(values)


def test_five_thousand_sentences_of_characters(tmp_path: Path) -> None:
    lines = (SHARED / "text" / "tatoeba_en.tsv").read_text(encoding="utf-8").splitlines()[::5][:5000]
    file = tmp_path / "tatoeba.tsv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = pv.load_data(file, tokens="characters", column="0")
    assert [len(split) for split in (data.train, data.valid, data.test)] == [3500, 500, 1000]
    assert data.train.raw.dtype == torch.uint8
    assert data.train.raw.values.numel() == data.train.raw.total
    texts = {line.split("\t")[0] for line in lines}
    assert {text(data.train, place) for place in range(100)} <= texts
    reads = ("x", "length")
    shapes: Counter = Counter()
    elements = 0
    for block, rows in data.train.steps(64, generator=torch.Generator().manual_seed(0), reads=reads):
        x = block[0][rows]
        shapes[x.shape[1]] += len(x)
        elements += x.numel()
    assert len(shapes) <= 6
    assert sum(shapes.values()) == 3500
    assert elements < 1.25 * data.train.raw.total  # little is padded
    pairs = Counter(pair for place in range(3500) for pair in itertools.pairwise([0, *data.train.raw[place].tolist()]))
    V = data.spec.levels
    table = torch.full((V, V), 0.1, dtype=torch.float64)
    for pair, count in pairs.items():
        table[pair] += count
    table = (table / table.sum(1, keepdim=True)).log()
    model = functools.partial(bigram, size=3500, levels=V)
    fit = pv.fit(model, data, guide=nothing, method=pv.SVI(epochs=1, batch_size=500), device="cpu")
    with torch.no_grad():
        next(fit.pair.parameters()).copy_(table)
    for split in (data.train, data.test):
        rows = [split.raw[place].tolist() for place in range(len(split))]
        expected = sum(table[pair].item() for row in rows for pair in itertools.pairwise([0, *row]))
        numbers = fit.evaluate(split)
        assert numbers["elbo_per_token"] == pytest.approx(expected / split.raw.total, rel=1e-5)
        assert numbers["perplexity"] == pytest.approx(np.exp(-expected / split.raw.total), rel=1e-4)


# --- arrays ---------------------------------------------------------------------------------------------------------------


def test_ragged_arrays_of_files(tmp_path: Path) -> None:
    values, offsets = np.arange(6, dtype=np.int64), np.array([0, 2, 2, 6])
    np.savez(tmp_path / "lone.npz", values=values, offsets=offsets)
    np.savez(tmp_path / "x.npz", x_values=values, x_offsets=offsets, other_values=values, other_offsets=offsets, y=[0, 1, 0])
    (tmp_path / "folder").mkdir()
    np.save(tmp_path / "folder" / "values.npy", values)
    np.save(tmp_path / "folder" / "offsets.npy", offsets)
    for name in ("lone.npz", "x.npz", "folder"):
        raw = whole(tmp_path / name).train.raw
        assert [raw[place].tolist() for place in range(3)] == [[0, 1], [], [2, 3, 4, 5]]
    assert whole(tmp_path / "x.npz").spec.classes == ("0", "1")
    assert whole(tmp_path / "x.npz", key="other").train.raw.total == 6


def test_fields_of_a_file_by_their_names(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "a.npz",
        x_values=np.arange(6),
        x_offsets=[0, 2, 2, 6],
        count_values=np.ones(6),
        count_offsets=[0, 2, 2, 6],
        target=[1.0, 2.0, 3.0],
    )
    data = whole(tmp_path / "a.npz", fields=("x", "count", "target"))
    assert [field.name for field in data.spec.fields] == ["x", "count", "target"]
    assert data.spec.lengths == ("length",)
    with pytest.raises(ValueError, match=r"one of the arrays .*, got 'weight'"):
        whole(tmp_path / "a.npz", fields=("x", "weight"))
    np.savez(tmp_path / "b.npz", a_values=[1], a_offsets=[0, 1], b_values=[1], b_offsets=[0, 1])
    with pytest.raises(ValueError, match="name one with key=") as error:
        whole(tmp_path / "b.npz")
    assert "a, b" in str(error.value)


def test_a_file_may_have_splits_of_its_own_and_arrays_beside_ragged_ones(tmp_path: Path) -> None:
    parts = {f"{half}_values": [1, 2, 3] for half in ("train", "valid", "test")}
    np.savez(tmp_path / "a.npz", **parts, train_offsets=[0, 1, 3], valid_offsets=[0, 3], test_offsets=[0, 0, 3], y=[0, 1])
    data = pv.load_data(tmp_path / "a.npz")
    assert [part.raw.lengths.tolist() for part in (data.train, data.valid, data.test)] == [[1, 2], [3], [0, 3]]
    assert data.spec.fields[0].buckets == (1, 2, 3)
    assert (data.train.labels.tolist(), data.valid.y, data.test.y) == ([0, 1], None, None)
    np.savez(tmp_path / "b.npz", x=np.ones((4, 2)), z_values=[1, 2], z_offsets=[0, 2])
    assert whole(tmp_path / "b.npz").spec.event_shape == (2,)
    assert whole(tmp_path / "b.npz", key="z").spec.ragged
    with pytest.raises(ValueError, match="the ragged arrays z, got 'w'"):
        whole(tmp_path / "b.npz", key="w")


def test_bad_ragged_files_say_why(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_values=np.arange(6), x_offsets=[0, 4, 2, 6])
    with pytest.raises(ValueError, match=r"a\.npz, x_values: expected offsets that rise .* falling after row 1"):
        whole(tmp_path / "a.npz")
    rows = np.empty(2, dtype=object)
    rows[:] = [{"a": 1}, {"b": 1}]
    np.savez(tmp_path / "sketch.npz", train=rows, valid=rows, test=rows)
    with pytest.raises(ValueError, match=r"pickled objects, which are not loaded.*name_values=np.concatenate\(rows\)"):
        whole(tmp_path / "sketch.npz")


# --- drawings -------------------------------------------------------------------------------------------------------------


def test_drawings_of_a_line_each(tmp_path: Path) -> None:
    drawings = [
        {"word": "cat", "recognized": True, "drawing": [[[0, 3, 5], [1, 1, 2]], [[5, 6], [5, 5]]]},
        {"word": "dog", "recognized": True, "drawing": [[[10, 9], [0, 0], [0, 31]]]},  # with times
    ]
    file = tmp_path / "two.ndjson"
    file.write_text("\n".join(map(json.dumps, drawings)) + "\n")
    data = whole(file)
    assert data.train.raw[0].tolist() == [[0, 1, 0], [3, 0, 0], [2, 1, 1], [0, 3, 0], [1, 0, 2]]
    assert data.train.raw[1].tolist() == [[10, 0, 0], [-1, 0, 2]]
    assert (data.spec.classes, data.spec.columns, data.spec.kind) == (("cat", "dog"), ("dx", "dy", "pen"), "strokes")
    x, length = next(data.train.read(("x", "length"), 2))
    assert (x.dtype, x.shape, length.tolist()) == (torch.float32, (1, 2, 3), [2])
    file.write_text('{"word": "cat"}\n')
    with pytest.raises(ValueError, match="line 1: expected a drawing"):
        whole(file)


@pytest.mark.skipif(not (SHARED / "text").is_dir(), reason="no benchmark data here")
def test_stroke_files_keep_their_halves() -> None:
    data = pv.load_data(SHARED / "sketch" / "omniglot_strokes.npz")
    assert [len(split) for split in (data.train, data.valid, data.test)] == [30000, 1000, 1000]
    assert (data.spec.event_shape, data.spec.columns) == ((3,), ("dx", "dy", "pen"))
    assert data.train.raw.dtype == torch.int16
    assert len(data.spec.fields[0].buckets) <= 6
    assert data.spec.fields[0].longest == 157
    quick = pv.load_data(SHARED / "sketch" / "quickdraw_strokes.npz", label="label")
    assert len(quick.spec.classes) == 344
    assert sum(map(len, (quick.train, quick.valid, quick.test))) == 8600


# --- counts ---------------------------------------------------------------------------------------------------------------

COUNTS = np.array([[0, 2, 0, 1], [0, 0, 0, 0], [1, 0, 300, 0]])


def as_pairs(data: pv.Data) -> np.ndarray:
    """The matrix that pairs of words and counts stand for."""
    found = np.zeros((len(data.train), data.spec.levels), np.int64)
    words, count = data.train.raw, data.train.fields.columns["count"]
    for row in range(len(words)):
        found[row, words[row].long().numpy()] = count[row].numpy()
    return found


@pytest.mark.parametrize("kind", ["csr_matrix", "csc_array", "coo_matrix", "lil_matrix"])
def test_sparse_matrices_are_dense_or_pairs(tmp_path: Path, kind: str) -> None:
    matrix = getattr(scipy.sparse, kind)(COUNTS)
    dense = whole(matrix)
    assert (dense.train.x.tolist(), dense.spec.kind) == (COUNTS.tolist(), "count")
    assert whole(scipy.sparse.csr_matrix(COUNTS.clip(max=9))).train.x.dtype == torch.uint8
    pairs = whole(matrix, counts="pairs")
    assert as_pairs(pairs).tolist() == COUNTS.tolist()
    assert (pairs.spec.levels, pairs.spec.lengths) == (4, ("length",))
    if kind.startswith("cs"):
        scipy.sparse.save_npz(tmp_path / "a.npz", matrix)
        assert whole(tmp_path / "a.npz").train.x.tolist() == COUNTS.tolist()
        assert as_pairs(whole(tmp_path / "a.npz", counts="pairs")).tolist() == COUNTS.tolist()


def test_what_is_too_large_to_be_dense_stays_sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppl_vae.data.counts.DENSE", 10)
    held = whole(scipy.sparse.csr_matrix(COUNTS))
    assert repr(held.train) == "Split(3 x (4,), int32, unlabelled, sparse)"
    assert held.train.x.tolist() == COUNTS.tolist()
    with pytest.raises(ValueError, match="sparse matrix"):
        whole(scipy.sparse.csr_matrix(COUNTS.astype(complex)))


def test_a_multinomial_of_pairs_is_that_of_dense_counts() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.4, (40, 12))

    def dense(x: Tensor) -> None:
        logits = pyro.param("logits", torch.arange(12.0) / 6).log_softmax(-1)
        with pv.data_plate(40, x):
            pyro.factor("x", (x * logits).sum(-1), has_rsample=False)

    def pairs(x: Tensor, count: Tensor, length: Tensor) -> None:
        logits = pyro.param("logits", torch.arange(12.0) / 6).log_softmax(-1)
        with pv.data_plate(40, x):
            pyro.factor("x", (count * logits[x] * pv.sequence_mask(length, x.shape[-1])).sum(-1), has_rsample=False)

    found = []
    for model, form in ((dense, "dense"), (pairs, "pairs")):
        data = whole(scipy.sparse.csr_matrix(counts), counts=form)
        split = data.train
        reads = ("x",) if form == "dense" else ("x", "count", "length")
        total = 0.0
        for batch in split.read(reads, 7):
            trace = pyro.poutine.trace(model).get_trace(*batch)
            total += float(trace.nodes["x"]["fn"].log_factor.detach().sum())
        found.append(total)
    pyro.clear_param_store()
    assert found[1] == pytest.approx(found[0], rel=1e-6)


def test_bags_of_words_of_uci(tmp_path: Path) -> None:
    lines = ["3", "4", "4", "1 2 2", "1 4 1", "3 1 1", "3 3 300"]
    (tmp_path / "docword.few.txt").write_text("\n".join(lines) + "\n")
    with gzip.open(tmp_path / "docword.some.txt.gz", "wt") as file:
        file.write("\n".join(lines) + "\n")
    (tmp_path / "vocab.few.txt").write_text("a\nb\nc\nd\n")
    data = whole(tmp_path / "docword.few.txt")
    assert (data.train.x.tolist(), data.spec.columns) == (COUNTS.tolist(), ("a", "b", "c", "d"))
    assert whole(tmp_path / "docword.few.txt", counts="pairs").spec.fields[0].vocabulary == ("a", "b", "c", "d")
    assert whole(tmp_path / "docword.some.txt.gz").train.x.tolist() == COUNTS.tolist()
    (tmp_path / "vocab.few.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match="expected 4 different words, got 2"):
        whole(tmp_path / "docword.few.txt")
    (tmp_path / "docword.bad.txt").write_text("3\n4\n1\n9 1 1\n")
    with pytest.raises(ValueError, match="numbered from 1"):
        whole(tmp_path / "docword.bad.txt")
    (tmp_path / "docword.marked.txt").write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    assert whole(tmp_path / "docword.marked.txt").train.x.tolist() == COUNTS.tolist()
    for head, told in (("3 4 4", "'3 4 4', '1 1 1'"), ("3\n-4\n1", "'3', '-4', '1'"), ("3\n4", "'3', '4', '1 1 1'")):
        (tmp_path / "docword.bad.txt").write_text(f"{head}\n1 1 1\n")
        with pytest.raises(ValueError, match=f"expected the numbers of documents, words and counts, a line each.*got {told}"):
            whole(tmp_path / "docword.bad.txt")
    (tmp_path / "docword.bad.txt").write_text("3000000000000\n4\n1\n1 1 1\n")
    with pytest.raises(ValueError, match="1 counts of 3000000000000 documents: expected at most"):
        whole(tmp_path / "docword.bad.txt")


@pytest.mark.skipif(not (SHARED / "text").is_dir(), reason="no benchmark data here")
def test_kos_has_its_documents() -> None:
    dense, pairs = (whole(SHARED / "bow_kos" / "docword.kos.txt.gz", counts=form) for form in ("auto", "pairs"))
    assert dense.train.x.shape == (3430, 6906)
    assert int(dense.train.x.sum()) == 467714
    assert pairs.train.raw.total == 353160
    assert int(pairs.train.fields.columns["count"].values.sum()) == 467714
    assert dense.spec.columns == pairs.spec.fields[0].vocabulary
