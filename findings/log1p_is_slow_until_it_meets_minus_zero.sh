#!/usr/bin/env bash
# torch 2.14.1, x86 with AVX-512: log1p and what is made of it take three to eight times as long until log1p meets minus zero.
#
# Guess:     an elementwise function takes the same time on the same numbers throughout a process.
# Behaviour: log1p, softplus, logsigmoid, binary_cross_entropy_with_logits and logaddexp of float32 are several times slower from
#            the start of a process until log1p, anywhere, meets -0.0 (which is its own result); then they are fast for good.
#            expm1 and elu are alike. In the library's vector code for AVX-512 that result is loaded behind a mask. Where nobody
#            has read the page on which it stands, a masked load of nothing does not bring it in, and the processor takes a slow
#            way round it at every call. Some other functions read the same page; infinity, NaN and minus one do not help.
#            With ATEN_CPU_CAPABILITY=avx2 there are no such loads: without a minus zero that is the faster setting. Loops that
#            torch.compile makes call the same functions.
# Seen:      4,096 numbers, one thread, AMD with AVX-512 (Zen 4), microseconds before and after it: log1p 36 and 4.3, softplus 40
#            and 7.5, logsigmoid 40 and 7.5, binary_cross_entropy_with_logits 48 and 14, logaddexp 41 and 7.6; exp 4.5 and 4.5.
# Bitten:    every Bernoulli VAE and logistic model on such a CPU, and whoever times one: runs differ by what was computed before.
#            A compiled training step of a VAE of 64-32-8 took 0.12 ms before, 0.066 ms after.
# Needs:     a processor with AVX-512; on others there is nothing to be seen, which the script says.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.14.1
cat > "$folder/times.py" <<'PY'
import time
from statistics import median

import torch
from torch.nn import functional

torch.set_num_threads(1)
torch.manual_seed(0)
x = torch.randn(4096)
y, e = (x > 0).float(), (-x.abs()).exp()
functions = {
    "log1p": lambda: torch.log1p(e),
    "softplus": lambda: functional.softplus(x),
    "logsigmoid": lambda: functional.logsigmoid(x),
    "binary_cross_entropy_with_logits": lambda: functional.binary_cross_entropy_with_logits(x, y),
    "logaddexp": lambda: torch.logaddexp(x, y),
    "exp": lambda: torch.exp(x),
}


def microseconds(function, calls=300):
    for _ in range(20):
        function()
    taken = []
    for _ in range(9):
        began = time.perf_counter()
        for _ in range(calls):
            function()
        taken.append((time.perf_counter() - began) / calls * 1e6)
    return median(taken)


print("torch", torch.__version__, torch.backends.cpu.get_cpu_capability())
if torch.backends.cpu.get_cpu_capability() != "AVX512":
    print("this processor has no AVX-512, or it is switched off: there is nothing to be seen here")
    raise SystemExit
before = {name: microseconds(function) for name, function in functions.items()}
same = {name: microseconds(function) for name, function in functions.items()}
torch.log1p(torch.full((64,), -0.0))
after = {name: microseconds(function) for name, function in functions.items()}
for name in functions:
    print(f"{name:34} {before[name]:6.1f}, again {same[name]:6.1f}, after -0.0 {after[name]:6.1f} us")
slowed = [name for name in functions if name != "exp"]
assert all(same[name] > 2 * after[name] for name in slowed), "minus zero changes nothing any more"
assert same["exp"] < 1.5 * after["exp"], "exp follows it now"
print("as stated")
PY
"$folder/venv/bin/python" "$folder/times.py"
ATEN_CPU_CAPABILITY=avx2 "$folder/venv/bin/python" "$folder/times.py"
