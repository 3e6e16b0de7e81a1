#!/usr/bin/env bash
# torch 2.14.1: on a CPU, optimizers with fused=True update other numbers than those of a parameter that is a slice.
#
# Guess:     fused=True is another implementation of the same update, and refuses what it cannot do, as it refuses integers.
# Behaviour: nn.Parameter(weight[:, 1:3]) is a leaf like any other: it trains by the default implementation, which follows strides.
#            The fused kernels of Adam, AdamW, SGD and Adagrad take the same number of numbers one after another from where the slice
#            begins. They move numbers of the tensor around it that have no gradient, and leave most of the parameter as it was.
#            Nothing is said. Dense parameters, transposed ones too, are updated rightly.
# Seen:      three steps of 0.1 by a gradient of ones on columns 1 and 2 of a 4 x 6 tensor of zeros: the default moves these eight
#            numbers to -0.3 (Adagrad -0.2284); fused, entries 1 to 5 of the first row and 0 to 2 of the second have moved, four of
#            which are not the parameter's, and its two last rows are still 0.
# Bitten:    low-rank or partial fine-tuning that makes a block of a weight the parameter, weights cut out of one flat buffer,
#            parameters set by weight[:, keep] after pruning; and whoever turns fused=True on for speed in code that trained.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.14.1
cat > "$folder/slice.py" <<'PY'
import torch


def moved(kind, whole, part, fused):
    """What three steps make of a tensor of zeros of which a part is the parameter."""
    parameter = torch.nn.Parameter(part(whole))
    optimizer = kind([parameter], lr=0.1, fused=fused)
    for _ in range(3):
        parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    return whole


def columns(whole):
    return whole[:, 1:3]


for kind in (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad):
    plain, fused = (moved(kind, torch.zeros(4, 6), columns, fused) for fused in (False, True))
    inside = columns(plain)
    print(f"{kind.__name__:8} default {inside.unique().tolist()}; fused moves", fused.nonzero().tolist())
    assert (inside != 0).all() and plain.count_nonzero() == 8, "the default moves something else now"
    outside = fused.clone()
    outside[:, 1:3] = 0
    assert outside.count_nonzero() == 4 and (fused[2:] == 0).all(), "fused behaves otherwise now"
    for dense in (lambda whole: whole[1:3], lambda whole: whole.T):
        same = [moved(kind, torch.zeros(4, 6), dense, fused) for fused in (False, True)]
        assert torch.allclose(*same), "dense parameters part"
print("as stated")
PY
"$folder/venv/bin/python" "$folder/slice.py"
