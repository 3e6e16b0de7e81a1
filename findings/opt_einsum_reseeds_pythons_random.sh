#!/usr/bin/env bash
# opt_einsum 3.4.0: a contraction with optimize="auto-hq" leaves Python's global random generator at one fixed state.
#
# Guess:     looking for the order of a contraction is a pure function of the equation; programs seeded apart stay apart.
# Behaviour: from about twenty operands on "auto-hq" tries random greedy paths and seeds the module `random` itself with 0, 1, 2, ...
#            for each try. Where it stood before is lost: whatever the program was seeded with, what it draws next is the same.
# Seen:      a chain of 40 matrices; after random.seed(1), random.seed(2) and random.seed(3) the next random.random() is one number.
#            With optimize="auto" the three stay apart.
# Bitten:    shuffles, augmentations, random searches and cross-validation splits by `random` in any process that contracts a large
#            factor graph now and then (exact marginals, tensor networks): repetitions under other seeds repeat each other.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 opt_einsum==3.4.0
"$folder/venv/bin/python" -W error - <<'PY'
import random

import numpy as np
import opt_einsum

names = [opt_einsum.get_symbol(i) for i in range(41)]
equation = ",".join(a + b for a, b in zip(names, names[1:])) + "->"
matrices = [np.full((2, 2), 0.5)] * 40


def next_draw(seed, optimize):
    random.seed(seed)
    opt_einsum.contract(equation, *matrices, optimize=optimize)
    return random.random()


plain = {next_draw(seed, "auto") for seed in (1, 2, 3)}
searched = {next_draw(seed, "auto-hq") for seed in (1, 2, 3)}
print(f"next draws after three seeds: {len(plain)} different ones with auto, {len(searched)} with auto-hq")
assert len(plain) == 3 and len(searched) == 1, "the behaviour changed"
PY
