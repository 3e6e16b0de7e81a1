#!/usr/bin/env bash
# pyro-ppl 1.9.1: AutoNormal over a sub-sampled plate fits the local variables to the data of other rows.
#
# Guess:     model code with pyro.plate("data", N, subsample=rows) tells the guide which rows a batch holds.
# Behaviour: the guide makes a plate of its own of the same name and size and draws a random subsample for it; the model's plate is
#            then replayed with these rows, while the batch of data stays as it was given. Locations of N data are trained on
#            whatever datum stood in the batch at that place. No warning; the guide needs create_plates for it.
# Seen:      1000 data with noise 0.1, 3000 steps: the correlation of the locations with their data is 0.03; with create_plates 1.00.
# Bitten:    mini-batch training of any model with a latent variable of each datum under an automatic guide: local posteriors are
#            noise around the mean of all data, the ELBO converges, and nothing looks wrong but its height.
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
from pyro.infer.autoguide import AutoNormal

N, BATCH = 1000, 100


def model(rows, y):
    with pyro.plate("data", N, subsample=rows):
        z = pyro.sample("z", dist.Normal(0.0, 3.0))
        pyro.sample("y", dist.Normal(z, 0.1), obs=y)


def correlation(**how):
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    y = 3 * torch.randn(N) + 0.1 * torch.randn(N)
    guide = AutoNormal(model, init_scale=0.1, **how)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    for _ in range(3000):
        rows = torch.randperm(N)[:BATCH]
        svi.step(rows, y[rows])
    return torch.corrcoef(torch.stack([guide.locs.z.detach(), y]))[0, 1].item()


alone = correlation()
told = correlation(create_plates=lambda rows, y: pyro.plate("data", N, subsample=rows))
print(f"correlation of the local locations with their data: {alone:.2f}, with create_plates {told:.2f}")
assert abs(alone) < 0.3 and told > 0.95, "the behaviour changed"
PY
