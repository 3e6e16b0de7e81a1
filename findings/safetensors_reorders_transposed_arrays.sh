#!/usr/bin/env bash
# safetensors 0.8.0: the numpy half saves an array that is not C-contiguous with its values in another order.
#
# Guess:     save_file({"w": w.T}) writes w.T, or refuses it as the torch half does ("non contiguous tensor").
# Behaviour: the bytes of the buffer are written as they lie, under the shape of the view. A transposed or Fortran-ordered
#            array comes back with the right shape, the right dtype and the right values in the wrong places. Nothing is said.
# Seen:      [[0, 1, 2], [3, 4, 5]].T is written, [[0, 1], [2, 3], [4, 5]] comes back.
# Bitten:    exports of loadings, weights and components, which linear algebra hands out transposed (numpy's and scipy's SVD,
#            QR and eigh give Fortran order), pandas frames' .to_numpy(), weights converted between frameworks.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 pandas==3.0.0 safetensors==0.8.0
"$folder/venv/bin/python" -W error - <<'PY'
import numpy as np
import pandas as pd
from safetensors.numpy import load, save

loadings = np.arange(6, dtype=np.float32).reshape(2, 3)
frame = pd.DataFrame({"a": np.arange(3.0), "b": np.arange(3.0, 6.0)}).to_numpy()
for what, array in (("transposed", loadings.T), ("frame", frame), ("contiguous", np.ascontiguousarray(loadings.T))):
    back = load(save({"w": array}))["w"]
    same = np.array_equal(array, back)
    print(f"{what}: C-contiguous {array.flags.c_contiguous}, shape {back.shape}, written {array.tolist()}, read {back.tolist()}")
    assert back.shape == array.shape
    assert same == array.flags.c_contiguous, "the behaviour changed"
assert not frame.flags.c_contiguous
PY
