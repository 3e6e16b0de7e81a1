#!/usr/bin/env bash
# torch 2.13.0 (and 2.14.1): torch.cdist is exact for 25 rows and loses the digits of distant data from 26 rows on.
#
# Guess:     a distance function is as exact for 26 points as for 25, and a row's distance to itself is 0.
# Behaviour: from 26 rows on it multiplies |a|^2 + |b|^2 - 2 a b out, in float64 as in float32. Where data lie far from zero beside
#            their spread the squares cancel: distances to oneself are not 0, neighbours come out wrong.
# Seen:      float64 rows of spread 1 around 1e8: largest distance of a row to itself 0 with 25 rows, of order one with 26;
#            float32 around 1000 likewise. compute_mode="donot_use_mm_for_euclid_dist" is exact.
# Bitten:    kernel two-sample tests (MMD), nearest neighbours, precision and recall of samples, k-means: on years, coordinates,
#            pressures or unix times; and tests on small examples, which take the exact path and pass.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.13.0
"$folder/venv/bin/python" - <<'PY'
import torch

torch.manual_seed(0)
for dtype, offset in ((torch.float64, 1e8), (torch.float32, 1e3)):
    x = torch.randn(200, 3, dtype=dtype) + offset
    own = {n: torch.cdist(x[:n], x[:n]).diagonal().max().item() for n in (25, 26, 200)}
    exact = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    far = torch.eye(200, dtype=dtype) * 1e9
    wrong = ((torch.cdist(x, x) + far).argmin(1) != (exact + far).argmin(1)).double().mean().item()
    print(f"{dtype} around {offset:g}: largest distance of a row to itself by rows {own}, wrong nearest neighbours {wrong:.0%}")
    assert own[25] == 0 and own[200] > 0.01 and exact.diagonal().max() == 0 and wrong > 0.05, "the behaviour changed"
PY
