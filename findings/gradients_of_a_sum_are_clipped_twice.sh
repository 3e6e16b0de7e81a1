#!/usr/bin/env bash
# torch 2.14.1: torch.autograd.grad gives parameters that are added to each other one gradient, which clip_grad_norm_ scales twice.
#
# Guess:     torch.autograd.grad(loss, parameters) gives each parameter a gradient of its own, as loss.backward() does, and after
#            clip_grad_norm_(parameters, c) their norm is at most c and no less than it has to be.
# Behaviour: where a loss sees two parameters through their sum, the two gradients are one tensor under two names. Whatever then
#            works in place, as clip_grad_norm_ and clip_grad_value_ do, does it twice to these, by default and with foreach=True,
#            and once to all others: the step has another direction. backward() makes copies, so the same code with .grad from
#            there is right. Nothing is said.
# Seen:      weights a + b and c with gradients of norm 3, 3 and 3: clipped to 1 in all, backward() leaves (0.577, 0.577, 0.577);
#            autograd.grad (0.111, 0.111, 0.577), a norm of 0.598. With five summands each is scaled by the fifth power.
# Bitten:    loops that take gradients as values and put them into .grad before they clip (meta-learning, alternating losses,
#            recorded or compiled steps), where residual weights, low-rank corrections, shared and own offsets, or the effects of
#            a hierarchical regression are added to each other; a small clip norm all but stops these parameters.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.14.1
cat > "$folder/clip.py" <<'PY'
import torch
from torch.nn.utils import clip_grad_norm_


def clipped(summands, by_values, foreach):
    """The norms of the gradients of parameters that are added up, and of one beside them, after clipping to 1 in all."""
    added = [torch.zeros(3, requires_grad=True) for _ in range(summands)]
    alone = torch.zeros(3, requires_grad=True)
    target = torch.full((3,), 3**0.5)
    loss = (sum(added[1:], added[0]) * target).sum() + (alone * target).sum()
    parameters = [*added, alone]
    if by_values:
        gradients = torch.autograd.grad(loss, parameters)
        assert gradients[0] is gradients[1], "gradients of a sum are tensors of their own now"
        for parameter, gradient in zip(parameters, gradients):
            parameter.grad = gradient
    else:
        loss.backward()
    clip_grad_norm_(parameters, 1.0, foreach=foreach)
    return torch.stack([parameter.grad.norm() for parameter in parameters])


for foreach in (None, False, True):
    backward, values = clipped(2, False, foreach), clipped(2, True, foreach)
    print(f"foreach={foreach}: backward {backward.tolist()}, autograd.grad {values.tolist()}, in all {values.norm():.3f}")
    assert torch.allclose(backward, torch.full((3,), 3**-0.5)), "backward() is clipped otherwise now"
    assert torch.allclose(values, torch.tensor([1 / 9, 1 / 9, 3**-0.5])), "autograd.grad is clipped otherwise now"
five = clipped(5, True, None)
assert torch.allclose(five, torch.tensor([*[3 * (1 / 54**0.5) ** 5] * 5, 6**-0.5]), rtol=1e-4), "five are scaled otherwise now"
print("as stated")
PY
"$folder/venv/bin/python" "$folder/clip.py"
