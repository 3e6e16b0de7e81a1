#!/usr/bin/env bash
# pyro-ppl 1.9.1: one of Pyro's guides by effects, called by a function, is trained towards the prior.
#
# Guess:     a guide is any callable: lambda x: guide(x), a method that calls it, or a function that prepares its arguments, trains
#            as the guide itself does, as with every other automatic guide.
# Behaviour: AutoNormalMessenger, AutoHierarchicalNormalMessenger, AutoRegressiveMessenger and any GuideMessenger run the model under
#            themselves. Pyro takes their traces apart only if it is handed the messenger itself; of a function around it, it traces
#            all sites that pass by. The model's observations count as the guide's then, log q holds the likelihood, and what
#            is left to climb is the distance from the prior. The loss is near zero, lower than the right one.
# Seen:      60 observations of N(mu, 1), mu ~ N(0, 10): the posterior is 3.05 +- 0.13. The guide itself ends there, with a loss of
#            84.31. In a lambda it ends at -0.42 +- 10.22, with a loss of 0.01. AutoNormal ends at the posterior either way. A
#            UserWarning names the observed site as one that the guide has and the model lacks.
# Bitten:    whoever closes over such a guide: to fix an argument, to transform a batch, to put it into a module's method, or by a
#            library that wraps programs. A lower loss looks like success.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.14.1 pyro-ppl==1.9.1
cat > "$folder/closure.py" <<'PY'
import warnings

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal, AutoNormalMessenger

warnings.simplefilter("ignore")
x = torch.randn(60, generator=torch.Generator().manual_seed(0)) + 3
spread = (1 / 100 + 60) ** -0.5
centre = float(x.sum()) * spread**2
print(f"posterior: {centre:.2f} +- {spread:.2f}")


def model(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def trained(kind, closed):
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    own = kind(model)
    guide = (lambda batch: own(batch)) if closed else own
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.03}), Trace_ELBO())
    losses = [svi.step(x) for _ in range(1500)]
    with torch.no_grad():
        draws = torch.stack([own(x)["mu"] for _ in range(400)])
    mean, sd, loss = float(draws.mean()), float(draws.std()), sum(losses[-200:]) / 200
    print(f"{kind.__name__:20} {'in a lambda' if closed else 'itself':12} mean {mean:6.2f}  sd {sd:5.2f}  loss {loss:7.2f}")
    return mean, sd, loss


whole = {closed: trained(AutoNormal, closed) for closed in (False, True)}
effects = {closed: trained(AutoNormalMessenger, closed) for closed in (False, True)}
right = [abs(mean - centre) < 0.1 and sd < 0.2 for mean, sd, _ in (*whole.values(), effects[False])]
lost = effects[True][1] > 5 and effects[True][2] < effects[False][2] - 50
assert all(right) and lost, "Pyro behaves otherwise now"
print("as stated")
PY
"$folder/venv/bin/python" "$folder/closure.py"
