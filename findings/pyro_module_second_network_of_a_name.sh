#!/usr/bin/env bash
# pyro-ppl 1.9.1: of two networks that pyro.module gets under one name, the second is never trained, and nothing is said.
#
# Guess:     pyro.module(name, net) hands net's parameters to the optimizer; a name that is taken by another module is an error.
# Behaviour: parameters are looked up by "name$$$parameter". If model and guide each register a network of their own as "net",
#            the second call finds the first one's entries and goes on with its own tensors, which no optimizer ever sees.
# Seen:      after 50 steps the encoder (guide, which runs first) has moved, the decoder has not; the store holds two entries.
# Bitten:    whoever copies a program for its twin (net, mlp, nn, encoder twice): the ELBO rises, since one half learns. Shapes do
#            not matter: even (2, 6) and (6, 2) weights pass.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.13.0 pyro-ppl==1.9.1
"$folder/venv/bin/python" -W error - <<'PY'
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO

pyro.set_rng_seed(0)
encoder, decoder, x = torch.nn.Linear(6, 2), torch.nn.Linear(2, 6), torch.randn(200, 6)


def model(x):
    pyro.module("net", decoder)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)


def guide(x):
    pyro.module("net", encoder)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(encoder(x), 1.0).to_event(1))


before = {net: net.weight.detach().clone() for net in (encoder, decoder)}
svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
for _ in range(50):
    svi.step(x)
moved = [not torch.equal(net.weight, before[net]) for net in (encoder, decoder)]
print("encoder moved", moved[0], "- decoder moved", moved[1], "- store", sorted(pyro.get_param_store().keys()))
assert moved == [True, False], "the behaviour changed"
PY
