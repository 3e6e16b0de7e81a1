#!/usr/bin/env bash
# torch 2.13.0 (and 2.14.1): what has probability 0 has a finite log_prob, which differs by dtype, and kl_divergence says otherwise.
#
# Guess:     log_prob of an event of probability 0 is -inf, and a KL summed over the support is what kl_divergence gives.
# Behaviour: Categorical, OneHotCategorical, Bernoulli and Multinomial given by probs clamp these by the dtype's epsilon before the
#            logarithm; given by logits they do not, and kl_divergence looks at the probs themselves.
# Seen:      Categorical(probs=[1, 0]).log_prob(1): -15.94 in float32, -36.04 in float64, -inf given by logits. KL([.5, .5] || [1, 0]):
#            inf by kl_divergence, 7.28 nats as the sum over both states. Three impossible draws of a Multinomial: -47.8.
# Bitten:    evidence that cannot be (a zero of a probability table) gets a likelihood and a posterior instead of an error; bounds that
#            are summed over states are finite where they are infinite, and other in double precision; tests of support that pass.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.13.0
"$folder/venv/bin/python" -W error - <<'PY'
import torch
from torch.distributions import Categorical, Multinomial, kl_divergence

certain = torch.tensor([1.0, 0.0])
p, q = Categorical(torch.tensor([0.5, 0.5])), Categorical(certain)
states = torch.arange(2)
single = q.log_prob(torch.tensor(1)).item()
double = Categorical(certain.double()).log_prob(torch.tensor(1)).item()
by_logits = Categorical(logits=certain.log()).log_prob(torch.tensor(1)).item()
formula = kl_divergence(p, q).item()
summed = (p.probs * (p.log_prob(states) - q.log_prob(states))).sum().item()
thrice = Multinomial(3, certain).log_prob(torch.tensor([0.0, 3.0])).item()
print(f"log_prob of what has probability 0: {single:.2f} in float32, {double:.2f} in float64, {by_logits} given by logits")
print(f"KL: {formula} by kl_divergence, {summed:.2f} summed over the states; a multinomial's three impossible draws {thrice:.1f}")
assert -16 < single < -15 and -37 < double < -36 and by_logits == -float("inf"), "the behaviour changed"
assert formula == float("inf") and 7 < summed < 8 and -48 < thrice < -47, "the behaviour changed"
PY
