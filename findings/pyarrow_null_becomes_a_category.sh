#!/usr/bin/env bash
# pyarrow 26.0.1: ChunkedArray.to_numpy of a dictionary column puts the last category where null was.
#
# Guess:     a categorical column of a parquet file or a table, as numpy has it, is its texts, with None where null was, as
#            Array.to_numpy and to_pylist give them.
# Behaviour: of a ChunkedArray, which is what every column of a Table is, to_numpy() decodes by the places alone: a null has the
#            place -1, which numpy takes for the last category. No error, no warning, and the count of that category grows.
#            Without nulls, and after combine_chunks(), it is right. narwhals' Series.to_numpy goes the same way.
# Seen:      ["u", None, "v", "w"] -> ['u' 'w' 'v' 'w'], by narwhals 2.29.0 too; to_pylist and combine_chunks() -> None.
# Bitten:    whoever reads a parquet file with categories (pandas and polars write them as dictionaries) and takes columns to numpy:
#            missing answers become the category that sorts last, and frequencies, codes and likelihoods with them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 pyarrow==26.0.1 narwhals==2.29.0
"$folder/venv/bin/python" - "$folder" <<'PY'
import sys
import warnings

import narwhals as nw
import pyarrow as pa
from pyarrow import parquet

warnings.simplefilter("error")  # nothing is said
texts = ["u", None, "v", "w"]
path = f"{sys.argv[1]}/answers.parquet"
parquet.write_table(pa.table({"answer": pa.array(texts).dictionary_encode()}), path)
column = parquet.read_table(path)["answer"]

chunked, lone = column.to_numpy().tolist(), column.combine_chunks().to_numpy(zero_copy_only=False).tolist()
by_narwhals = nw.from_native(parquet.read_table(path))["answer"].to_numpy().tolist()
print(f"to_pylist {column.to_pylist()}, null_count {column.null_count}")
print(f"to_numpy {chunked}, after combine_chunks {lone}, by narwhals {by_narwhals}")
assert column.to_pylist() == lone == texts and column.null_count == 1, "the behaviour changed"
assert chunked == by_narwhals == ["u", "w", "v", "w"], "the behaviour changed"
PY
