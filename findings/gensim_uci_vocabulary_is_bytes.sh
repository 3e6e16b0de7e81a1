#!/usr/bin/env bash
# gensim 4.4.0: a UCI bag-of-words corpus has a vocabulary of bytes, so new documents come out empty.
#
# Guess:     corpora.UciCorpus(...).create_dictionary() is a Dictionary like any other: doc2bow(["apple"]) finds "apple".
# Behaviour: the words are kept as bytes. doc2bow of text matches none of them, leaves every word out as unknown, as it does
#            with words it never saw, and returns an empty document. doc2bow of bytes is empty too: it decodes its words first.
# Seen:      vocabulary {b'apple': 0, b'banana': 1}; doc2bow(["apple", "banana"]) == [] and doc2bow([b"apple"]) == [].
# Bitten:    topic models trained on the UCI sets (KOS, NIPS, Enron, NYTimes): a document that is folded in has no words, every
#            one gets the prior's topics, and held-out scores are those of empty documents. Topics print as b'...'.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet gensim==4.4.0
cd "$folder"
printf '2\n2\n3\n1 1 2\n1 2 1\n2 2 3\n' > docword.small.txt
printf 'apple\nbanana\n' > vocab.small.txt
"$folder/venv/bin/python" - <<'PY'
from gensim.corpora import UciCorpus

corpus = UciCorpus("docword.small.txt", "vocab.small.txt")
words = corpus.create_dictionary()
text, raw = words.doc2bow(["apple", "banana"]), words.doc2bow([b"apple", b"banana"])
print("corpus", list(corpus), "vocabulary", dict(words.token2id), "doc2bow of text", text, "of bytes", raw)
assert dict(words.token2id) == {b"apple": 0, b"banana": 1} and text == [] and raw == [], "the behaviour changed"
PY
