#!/usr/bin/env bash
# torch 2.14.1: the first optimizer of a process imports torch's compiler, whether or not anything is compiled.
#
# Guess:     torch.optim.Adam(parameters) stores its settings; what torch.compile needs is imported by torch.compile.
# Behaviour: the methods by which an optimizer takes its parameters are shut off from the compiler by a decorator that imports
#            torch._dynamo when such a method is first called, to ask it how. With it come sympy, torch.distributed's tensors and
#            the rest of the compiler, several hundred modules. TORCH_COMPILE_DISABLE=1 does not spare it. A step of the same
#            formula written by hand imports nothing.
# Seen:      one core (AMD, Zen 4): the first torch.optim.SGD 1.1 to 1.3 s, 893 modules and 159 MiB; the second less than 0.0001 s.
#            Nothing was compiled.
# Bitten:    whatever begins often and trains little: command lines, tests, workers of a hyperparameter search, serverless
#            fine-tuning; and whoever measures how soon training begins, since importing torch is over by then.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.14.1
cat > "$folder/first.py" <<'PY'
import resource
import sys
import time

import torch


def mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


parameters = [torch.nn.Parameter(torch.zeros(3))]
(parameters[0] - 1).square().sum().backward()
with torch.no_grad():
    parameters[0] -= 0.1 * parameters[0].grad  # a step by hand
print("torch", torch.__version__)
by_hand = [name for name in ("torch._dynamo", "sympy") if name in sys.modules]
modules, memory, began = len(sys.modules), mib(), time.perf_counter()
torch.optim.SGD(parameters, lr=0.1)
first = time.perf_counter() - began
added = len(sys.modules) - modules
began = time.perf_counter()
torch.optim.SGD(parameters, lr=0.1)
second = time.perf_counter() - began
print(f"by hand: {by_hand or 'nothing of the compiler'}")
print(f"the first optimizer: {first:.2f} s, {added} modules, {mib() - memory:.0f} MiB; the second: {second:.4f} s")
assert not by_hand, "the compiler is imported before"
assert {"torch._dynamo", "sympy"} <= set(sys.modules), "an optimizer imports no compiler any more"
assert added > 300, "few modules are left"
print("as stated")
PY
"$folder/venv/bin/python" "$folder/first.py"
TORCH_COMPILE_DISABLE=1 "$folder/venv/bin/python" "$folder/first.py"
