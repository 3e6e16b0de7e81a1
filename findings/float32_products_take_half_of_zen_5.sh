#!/usr/bin/env bash
# torch 2.14.1, AMD Zen 5: products of float32 matrices run at half of what oneDNN, in the same wheel, reaches on them.
#
# Guess:     torch's CPU build takes AVX-512 for all it does where `torch.backends.cpu.get_cpu_capability()` says AVX512, so a
#            linear layer is about as fast as the processor, and as a convolution's products.
# Behaviour: nn.Linear, torch.mm and with them all of a dense network's training go to MKL, which has kernels for AVX-512 for
#            Intel's processors alone and takes AVX2 on AMD's. On Zen 4 that loses little; from Zen 5 on, whose units are twice
#            as wide, half. oneDNN, which torch has for convolutions and for bfloat16, asks for the instructions and not for
#            the maker: what torch's compiler calls for layers of fixed weights takes half of the time, and the same layer after
#            torch.utils.mkldnn.to_mkldnn (inference only) is faster with all its copies. torch.compile calls MKL's products in
#            training. NumPy's OpenBLAS is at half, too; jax is not.
# Seen:      one core of an AMD EPYC of family 26, 512 x 784 times 784 x 2000: nn.Linear 14.7 ms (109 GFLOP/s), to_mkldnn 10.6
#            (150), torch.ops.mkldnn._linear_pointwise on plain tensors, the copy of its weights included, 6.8 (235).
# Bitten:    whoever trains dense networks on EPYC 9005 or Ryzen 9000, and whoever compares torch with jax there: a step of a VAE
#            of MNIST took 1.7 times as long as NumPyro's.
# Needs:     an AMD processor of family 26 or later with AVX-512; on others there is nothing to be seen, which the script says.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.14.1
cat > "$folder/times.py" <<'PY'
import re
import time
import warnings
from pathlib import Path
from statistics import median

import torch
from torch.utils.mkldnn import to_mkldnn

warnings.simplefilter("ignore")
torch.set_num_threads(1)
torch.manual_seed(0)
told = Path("/proc/cpuinfo").read_text()[:1000] if Path("/proc/cpuinfo").exists() else ""
family = re.search(r"family\s*:\s*(\d+)", told)
zen_5 = "AuthenticAMD" in told and family is not None and int(family[1]) >= 26
print("torch", torch.__version__, torch.backends.cpu.get_cpu_capability(), "family", family and family[1])
if not zen_5 or torch.backends.cpu.get_cpu_capability() != "AVX512":
    print("this processor is no Zen 5 with AVX-512: there is nothing to be seen here")
    raise SystemExit


def seconds(function):
    for _ in range(5):
        function()
    taken = []
    for _ in range(15):
        began = time.process_time()
        function()
        taken.append(time.process_time() - began)
    return median(taken)


layer = torch.nn.Linear(784, 2000).eval()
x = torch.randn(512, 784)
other, weight, bias = to_mkldnn(layer), layer.weight.detach(), layer.bias.detach()
ways = {
    "nn.Linear": lambda: layer(x),
    "to_mkldnn(nn.Linear)": lambda: other(x),
    "mkldnn._linear_pointwise": lambda: torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], ""),
}
with torch.no_grad():
    expected = layer(x)
    found = {name: seconds(way) for name, way in ways.items()}
    for name, way in ways.items():
        rate = 2 * 512 * 784 * 2000 / found[name] / 1e9
        same = torch.allclose(way(), expected, atol=1e-4)
        print(f"{name:26} {1e3 * found[name]:6.2f} ms {rate:5.0f} GFLOP/s, same result {same}")
slow = found.pop("nn.Linear")
assert slow > 1.6 * found["mkldnn._linear_pointwise"] and slow > 1.3 * found["to_mkldnn(nn.Linear)"], "nn.Linear keeps up now"
print("as stated")
PY
"$folder/venv/bin/python" "$folder/times.py"
