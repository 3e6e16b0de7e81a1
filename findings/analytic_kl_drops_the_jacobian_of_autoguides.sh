#!/usr/bin/env bash
# pyro-ppl 1.9.2: TraceMeanField_ELBO with AutoNormal fits positive and bounded variables without their Jacobian.
#
# Guess:     AutoNormal is a mean-field guide, so TraceMeanField_ELBO is the better objective for it: the same optimum, less noise.
# Behaviour: AutoNormal draws a constrained site as Delta(value, log_density), the log-Jacobian of the transform being the
#            log_density. Pyro's KL from a Delta is -log p(value): it leaves log_density out. The entropy is then that of the
#            unconstrained normal, and the optimum is the posterior density of another variable. Nothing is said. (NumPyro's KL
#            of a Delta has counted it since 2023.)
# Seen:      no data, s ~ LogNormal(0, 1), whose posterior is itself, and which AutoNormal holds: Trace_ELBO finds the median
#            0.99 (ELBO 0.00), TraceMeanField_ELBO 0.37 = exp(-1) (ELBO -0.56); s ~ Gamma(2, 1): 1.58 and 0.62. A Normal stays.
# Bitten:    Bayesian regressions, factor models and hierarchical models with scales, rates or weights among their variables: with
#            few data a group's standard deviation comes out too small by up to exp(variance of its logarithm), in silence.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.14.1 pyro-ppl==1.9.2
"$folder/venv/bin/python" - <<'PY'
import math
import warnings

import pyro
import pyro.distributions as dist
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal

PRIORS = {
    "LogNormal(0, 1)": dist.LogNormal(0.0, 1.0),
    "Gamma(2, 1)": dist.Gamma(2.0, 1.0),
    "Normal(0, 1)": dist.Normal(0.0, 1.0),
}


def fitted(prior, kind):
    """The median and the ELBO, by Trace_ELBO at what was found, of a variable about which there are no data."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)

    def model():
        return pyro.sample("s", prior)

    guide = AutoNormal(model, init_scale=0.5)
    svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.99}), kind(num_particles=8))
    for _ in range(400):
        svi.step()
    elbo = -Trace_ELBO(num_particles=500).loss(model, guide)
    return guide.median()["s"].item(), elbo


with warnings.catch_warnings():
    warnings.simplefilter("error")  # nothing is said
    for name, prior in PRIORS.items():
        (sampled, best), (analytic, worse) = (fitted(prior, kind) for kind in (Trace_ELBO, TraceMeanField_ELBO))
        print(f"{name}: median {sampled:.2f} by Trace_ELBO (ELBO {best:.2f}), "
              f"{analytic:.2f} by TraceMeanField_ELBO (ELBO {worse:.2f})", flush=True)
        unbounded = name.startswith("Normal")
        assert (best - worse < 0.05) == unbounded, "the behaviour changed"
        if name.startswith("Log"):
            assert abs(math.log(sampled)) < 0.2 and abs(math.log(analytic) + 1) < 0.2, "the behaviour changed"
PY
