#!/usr/bin/env bash
# torch 2.13.0 (and 2.14.1): in float32 a Student t with many degrees of freedom has a density of more than 1.
#
# Guess:     as df grows the log-density tends to the normal's; its error in float32 is some 1e-6.
# Behaviour: the constant is lgamma((df + 1) / 2) - lgamma(df / 2), a difference of numbers of 10^7 or more. From df = 1e5 the
#            density is off by hundredths of a nat, at 1e6 by 0.08, at 1e7 and beyond it is 0.92 nats too HIGH for each element. The same holds
#            for NegativeBinomial (total_count 1e6: 0.65 nats) and Pyro's GammaPoisson (concentration 1e7: log-probability 0).
# Seen:      df 1e7: -0.5 at y = 1, where the normal has -1.4189; NegativeBinomial(1e6) -2.618, Poisson -1.963; GammaPoisson 0.0.
# Bitten:    everybody who learns df or a dispersion by gradients: data that are nearly normal (or Poisson) push it up, and
#            beyond 1e6 the reported log-likelihood rises by up to a nat an element for no reason; such a model wins comparisons.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.13.0 pyro-ppl==1.9.1
"$folder/venv/bin/python" - <<'PY'
import math

import torch
from pyro.distributions import GammaPoisson
from torch.distributions import NegativeBinomial, Normal, Poisson, StudentT

one, three = torch.tensor(1.0), torch.tensor(3.0)
normal = Normal(0.0, 1.0).log_prob(one).item()
for df in (1e3, 1e5, 1e6, 1e7, 1e8):
    single = StudentT(torch.tensor(df)).log_prob(one).item()
    double = StudentT(torch.tensor(df, dtype=torch.float64)).log_prob(one.double()).item()
    print(f"StudentT df {df:.0e}: float32 {single:.4f}, float64 {double:.4f}, normal {normal:.4f}")
assert StudentT(torch.tensor(1e7)).log_prob(one) > normal + 0.5, "the behaviour changed: StudentT is accurate"

poisson = Poisson(5.0).log_prob(three).item()
binomial = NegativeBinomial(torch.tensor(1e6), logits=torch.tensor(math.log(5e-6))).log_prob(three).item()
mixed = GammaPoisson(torch.tensor(1e7), torch.tensor(2e6)).log_prob(three).item()
print(f"Poisson {poisson:.4f}, NegativeBinomial of total_count 1e6 {binomial:.4f}, GammaPoisson of concentration 1e7 {mixed:.4f}")
assert abs(binomial - poisson) > 0.1 and mixed > poisson + 0.5, "the behaviour changed: the counts are accurate"
PY
