#!/usr/bin/env bash
# pyro-ppl 1.9.1: Trace_ELBO().loss_and_grads gives a program made of plain torch modules no gradient at all.
#
# Guess:     loss_and_grads computes the loss and its gradients, as its name says, for whatever parameters the loss hangs on.
# Behaviour: it calls backward only if some site of the traces is a pyro.param. A model and a guide that are nn.Modules with
#            ordinary layers have none: the loss comes back, every .grad stays None. differentiable_loss(...).backward() works.
# Seen:      loss_and_grads: 0 of 4 parameters have a gradient; differentiable_loss: 4 of 4. RenyiELBO does the same.
# Bitten:    training loops with torch.optim around Pyro's losses: nothing moves, the loss jitters with its samples as if it were
#            stuck, and no error is raised (optimizers skip parameters without gradients).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.13.0 pyro-ppl==1.9.1
"$folder/venv/bin/python" -W error - <<'PY'
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import RenyiELBO, Trace_ELBO
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.decoder = nn.Linear(2, 6)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)


class Guide(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(6, 2)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 1.0).to_event(1))


def gradients(climb):
    model, guide = Model(), Guide()
    climb(model, guide, torch.randn(50, 6))
    return sum(parameter.grad is not None for half in (model, guide) for parameter in half.parameters())


trace = gradients(Trace_ELBO().loss_and_grads)
renyi = gradients(RenyiELBO(num_particles=2).loss_and_grads)
differentiable = gradients(lambda *arguments: Trace_ELBO().differentiable_loss(*arguments).backward())
print(f"parameters with a gradient, of 4: loss_and_grads {trace}, RenyiELBO {renyi}, differentiable_loss {differentiable}")
assert (trace, renyi, differentiable) == (0, 0, 4), "the behaviour changed"
PY
