"""Priors by hand: log p(z) or the KL from it, in a VAE of binary data whose posterior is on the prior's support."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, linear, logsigmoid, one_hot, pad, softplus

import ppl_vae as pv
from benchmarks.peers.catalogue.densities import (
    concrete,
    exponential_noise,
    of_mixture,
    of_normal,
    projected_normal,
    spline,
    straight_through,
)
from benchmarks.peers.catalogue.entry import LOG_2_PI, NETWORK, Entry, Weights, mlp, normal, normal_kl, shown

__all__ = ["PRIORS", "WITHOUT", "given_code"]

WITHOUT = {
    "InverseWishart": "a density of the few covariance matrices of a mixture, asked once a step and not for each datum",
}
LATENT, COMPONENTS, GROUPS, BINS, LAYERS = 16, 20, 4, 8, 2
ENCODER, DECODER = "guide.encoder.network.layers", "model.decoder.layers"


def decoded(w: Weights, z: Tensor, x: Tensor, name: str = DECODER) -> Tensor:
    """Minus log p(x | z), summed."""
    return binary_cross_entropy_with_logits(mlp(w, name, z), x, reduction="sum")


def encoded(w: Weights, x: Tensor) -> Tensor:
    """What the encoder gives of x."""
    return mlp(w, ENCODER, shown(w, x, "binary"))


def closed(kl: Callable[[Weights, Tensor, Tensor], Tensor], w: Weights, x: Tensor) -> Tensor:
    """The negative ELBO of a normal posterior, its KL closed."""
    loc, scale, z = normal(encoded(w, x))
    return (kl(w, loc, scale).sum() + decoded(w, z, x)) / len(x)


def sampled(log_prior: Callable[[Weights, Tensor], Tensor], w: Weights, x: Tensor) -> Tensor:
    """The negative ELBO of a normal posterior, its KL by the draw."""
    loc, scale, z = normal(encoded(w, x))
    kl = of_normal(loc, scale, z).sum() - log_prior(w, z).sum()
    return (kl + decoded(w, z, x)) / len(x)


def moved(log_prior: Callable[[Weights, Tensor, Tensor], Tensor], w: Weights, x: Tensor, *, to: Any) -> Tensor:
    """The same of a draw that is carried to the support of p(z) by a map, which gives z, log z or such, and log |dz / du|."""
    loc, scale, u = normal(encoded(w, x))
    z, beside, log_slope = to(u)
    kl = of_normal(loc, scale, u).sum() - log_slope.sum() - log_prior(w, z, beside).sum()
    return (kl + decoded(w, z, x)) / len(x)


# --- on the real line -----------------------------------------------------------------------------------------------------


def standard(w: Weights, loc: Tensor, scale: Tensor) -> Tensor:
    """KL from Normal(0, I)."""
    return normal_kl(loc, scale)


def learned_normal(w: Weights, loc: Tensor, scale: Tensor) -> Tensor:
    """KL from independent normals of learned moments."""
    log_scale = w["model.prior.log_scale"]
    ratio = (scale / log_scale.exp()).square()
    return (ratio + ((loc - w["model.prior.loc"]) / log_scale.exp()).square() - 1 - ratio.log()) / 2


def learned_full_normal(w: Weights, loc: Tensor, scale: Tensor) -> Tensor:
    """KL from a normal of a learned covariance."""
    raw = w["model.prior.raw"]
    L = raw.tril(-1) + raw.diagonal().exp().diag()
    apart = torch.linalg.solve_triangular(L, (w["model.prior.loc"] - loc).T, upper=False).square().sum(0)
    trace = scale.square() @ torch.cholesky_inverse(L).diagonal()
    return (trace + apart - LATENT) / 2 + raw.diagonal().sum() - scale.log().sum(-1)


def laplace(w: Weights, loc: Tensor, scale: Tensor) -> Tensor:
    """KL from independent Laplace distributions of scale 1."""
    density = math.sqrt(2 / math.pi) * scale * torch.exp(-(loc / scale).square() / 2)
    return -scale.log() + math.log(2) - LOG_2_PI / 2 - 0.5 + density + loc * torch.erf(loc / scale / math.sqrt(2))


def logistic(w: Weights, z: Tensor) -> Tensor:
    """Log p(z) at scale 1."""
    return -z - 2 * softplus(-z)


def student_t(w: Weights, z: Tensor) -> Tensor:
    """Log p(z) of 5 degrees of freedom."""
    constant = math.lgamma(3) - math.lgamma(2.5) - math.log(5 * math.pi) / 2
    return constant - 3 * torch.log1p(z.square() / 5)


def automatic_relevance(w: Weights, z: Tensor) -> Tensor:
    """Log p(z), its precisions integrated out."""
    a = b = 1e-3
    constant = math.lgamma(a + 0.5) - math.lgamma(a) + a * math.log(b) - LOG_2_PI / 2
    return constant - (a + 0.5) * (b + z.square() / 2).log()


# --- mixtures -------------------------------------------------------------------------------------------------------------


def gaussian_mixture(w: Weights, z: Tensor) -> Tensor:
    """Log p(z), all of it learned."""
    return of_mixture(w["model.prior.logits"], w["model.prior.loc"], w["model.prior.log_scale"].exp(), z)


def gaussian_grid(w: Weights, z: Tensor) -> Tensor:
    """Log p(z) of the same five points in each dimension."""
    each = of_normal(w["model.prior.loc"], 0.25, z[..., None])
    return each.logsumexp(-1) - math.log(5)


def vamp(w: Weights, z: Tensor) -> Tensor:
    """Log p(z), a mixture of posteriors."""
    loc, raw = encoded(w, w["model.prior.pseudo_inputs"].clamp(0, 1)).chunk(2, -1)
    return of_mixture(z.new_zeros(COMPONENTS), loc, softplus(raw) + 1e-6, z)


def exemplar(w: Weights, z: Tensor) -> Tensor:
    """Log p(z), a mixture of normals about posterior means."""
    loc = encoded(w, w["model.prior.exemplars"]).chunk(2, -1)[0]
    return of_mixture(z.new_zeros(COMPONENTS), loc, w["model.prior.log_scale"].exp(), z)


# --- flows ----------------------------------------------------------------------------------------------------------------


def masked(w: Weights, name: str, x: Tensor) -> Tensor:
    """A masked network of one hidden layer."""

    def layer(part: str, h: Tensor) -> Tensor:
        return linear(h, w[f"{name}.{part}.weight"] * w[f"{name}.{part}.mask"], w[f"{name}.{part}.bias"])

    return layer("last", layer("layers.0", x).relu()).unflatten(-1, (x.shape[-1], -1))


def affine(x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """A shift and a scale, held within exp(+-3)."""
    loc, raw = theta.unbind(-1)
    log_scale = 3 * torch.tanh(raw / 3)
    return log_scale.exp() * x + loc, log_scale


def affine_and_spline(x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """A shift and a scale, then a spline."""
    x, log_slope = affine(x, theta[..., :2])
    y, more = spline(x, theta[..., 2:], BINS, 5.0)
    return y, log_slope + more


def flow(curve: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], w: Weights, z: Tensor) -> Tensor:
    """Log p(z), carried to a standard normal."""
    log_det = torch.zeros_like(z[..., 0])
    for layer in reversed(range(LAYERS)):
        z, log_slope = curve(z, masked(w, f"model.prior.networks.{layer}", z))
        log_det = log_det + log_slope.sum(-1)
    return -(z.square() + LOG_2_PI).sum(-1) / 2 + log_det


# --- positive numbers, boxes ----------------------------------------------------------------------------------------------


def exponential(u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """To positive numbers."""
    return u.exp(), u, u


def sigmoid(u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """To the interval from -1 to 1."""
    return 2 * u.sigmoid() - 1, u, math.log(2) + logsigmoid(u) + logsigmoid(-u)


def log_normal(w: Weights, z: Tensor, log_z: Tensor) -> Tensor:
    """Log p(z) of standard logarithms."""
    return -(log_z.square() + LOG_2_PI) / 2 - log_z


def half_normal(w: Weights, z: Tensor, log_z: Tensor) -> Tensor:
    """Log p(z) at scale 1."""
    return math.log(2) - (z.square() + LOG_2_PI) / 2


def root_inverse_gamma(w: Weights, z: Tensor, log_z: Tensor) -> Tensor:
    """Log p(z) at the concentration and rate that it has by default."""
    a, b = w["model.prior.concentration"], w["model.prior.rate"]
    return math.log(2) + a * b.log() - torch.lgamma(a) - (2 * a + 1) * log_z - b / z.square()


def uniform(w: Weights, z: Tensor, u: Tensor) -> Tensor:
    """Log p(z) in the box."""
    return torch.full_like(z, -math.log(2))


# --- the simplex, the sphere ----------------------------------------------------------------------------------------------


def stick_breaking(u: Tensor) -> tuple[Tensor, Tensor]:
    """A point on the simplex, and the logarithm of its volume element."""
    K = u.shape[-1]
    u = u - torch.arange(K, 0, -1, dtype=u.dtype).log()
    share = u.sigmoid().clamp(1e-7, 1 - 1e-7)
    z = pad(share, (0, 1), value=1.0) * pad((1 - share).cumprod(-1), (1, 0), value=1.0)
    return z, (-u + logsigmoid(u) + z[..., :-1].log()).sum(-1)


def logistic_normal(w: Weights, x: Tensor) -> Tensor:
    """The negative ELBO; log ratios to the last component are normal of variances 2 and covariances 1."""
    loc, scale, u = normal(encoded(w, x))
    z, log_slope = stick_breaking(u)
    log_z, K = z.log(), u.shape[-1]
    L = torch.linalg.cholesky(torch.eye(K) + 1)
    y = torch.linalg.solve_triangular(L, (log_z[:, :-1] - log_z[:, -1:]).T, upper=False)
    log_p = -y.square().sum(0) / 2 - L.diagonal().log().sum() - K / 2 * LOG_2_PI - log_z.sum(-1)
    kl = of_normal(loc, scale, u).sum() - log_slope.sum() - log_p.sum()
    return (kl + decoded(w, z, x)) / len(x)


def dirichlet(w: Weights, x: Tensor) -> Tensor:
    """The negative ELBO of a relaxed posterior, the concentration 2."""
    z, log_z, log_q = concrete(encoded(w, x), 0.5)
    log_p = log_z.sum() + len(x) * (math.lgamma(2 * LATENT) - LATENT * math.lgamma(2))
    return (log_q.sum() - log_p + decoded(w, z, x)) / len(x)


def sphere(w: Weights, x: Tensor) -> Tensor:
    """The negative ELBO of a projected normal posterior, the prior concentrated about a point."""
    loc = encoded(w, x)
    h = loc + torch.randn_like(loc)
    z = h / h.norm(dim=-1, keepdim=True)
    log_p = projected_normal(w["model.prior.concentration"], z)
    return (projected_normal(loc, z).sum() - log_p.sum() + decoded(w, z, x)) / len(x)


# --- codes ----------------------------------------------------------------------------------------------------------------


def codes(groups: int, w: Weights, x: Tensor) -> Tensor:
    """The negative ELBO of codes drawn straight through, from learned probabilities."""
    logits = encoded(w, x).unflatten(-1, (groups, -1))
    log_q, log_p = logits.log_softmax(-1), w["model.prior.logits"].log_softmax(-1)
    z = straight_through(log_q, exponential_noise(log_q), 0.5)
    return ((log_q.exp() * (log_q - log_p)).sum() + decoded(w, z.flatten(1), x)) / len(x)


def conditional_normal(w: Weights, x: Tensor, y: Tensor) -> Tensor:
    """The negative ELBO given labels, which all three networks see."""
    c = one_hot(y, 2).to(x)
    loc, scale, z = normal(mlp(w, "guide.encoder.network.network.layers", torch.cat([shown(w, x, "binary"), c], -1)))
    prior_loc, raw = mlp(w, "model.prior.network.layers", c).chunk(2, -1)
    prior_scale = softplus(raw) + 1e-6
    ratio = (scale / prior_scale).square()
    kl = (ratio + ((loc - prior_loc) / prior_scale).square() - 1 - ratio.log()).sum() / 2
    return (kl + decoded(w, torch.cat([z, c], -1), x, "model.decoder.network.layers")) / len(x)


def given_code(prior: pv.Prior, loss: Callable[..., Tensor], guide: pv.Guide | None = None, **changes: Any) -> Entry:
    """An entry of binary data."""
    model = pv.VAE(latent_dim=LATENT, prior=prior, decoder=NETWORK)
    small = {"kind": "binary", "columns": 32, "batch": 512}
    return Entry(model=model, guide=guide or pv.AmortizedNormal(encoder=NETWORK), loss=loss, **(small | changes))


GUMBEL, SPHERE = pv.AmortizedGumbel(encoder=NETWORK), pv.AmortizedProjectedNormal(encoder=NETWORK)

PRIORS = {
    "StandardNormal": given_code(pv.StandardNormal(), partial(closed, standard)),
    "Normal": given_code(pv.Normal(learned=True), partial(closed, learned_normal)),
    "MultivariateNormal": given_code(pv.MultivariateNormal(learned=True), partial(closed, learned_full_normal)),
    "LaplacePrior": given_code(pv.LaplacePrior(), partial(closed, laplace)),
    "Logistic": given_code(pv.Logistic(), partial(sampled, logistic)),
    "StudentTPrior": given_code(pv.StudentTPrior(), partial(sampled, student_t)),
    "AutomaticRelevance": given_code(pv.AutomaticRelevance(), partial(sampled, automatic_relevance)),
    "GaussianMixture": given_code(pv.GaussianMixture(components=COMPONENTS), partial(sampled, gaussian_mixture)),
    "GaussianGrid": given_code(pv.GaussianGrid(), partial(sampled, gaussian_grid)),
    "VampPrior": given_code(pv.VampPrior(components=COMPONENTS), partial(sampled, vamp)),
    "ExemplarPrior": given_code(pv.ExemplarPrior(components=COMPONENTS), partial(sampled, exemplar)),
    "CouplingFlow": given_code(pv.CouplingFlow(layers=LAYERS, hidden=(32,)), partial(sampled, partial(flow, affine))),
    "AutoregressiveFlow": given_code(
        pv.AutoregressiveFlow(layers=LAYERS, hidden=(32,)), partial(sampled, partial(flow, affine))
    ),
    "SplineFlow": given_code(
        pv.SplineFlow(layers=LAYERS, hidden=(32,), bins=BINS), partial(sampled, partial(flow, affine_and_spline))
    ),
    "LogNormal": given_code(pv.LogNormal(), partial(moved, log_normal, to=exponential)),
    "HalfNormal": given_code(pv.HalfNormal(), partial(moved, half_normal, to=exponential)),
    "RootInverseGamma": given_code(pv.RootInverseGamma(), partial(moved, root_inverse_gamma, to=exponential)),
    "Uniform": given_code(pv.Uniform(), partial(moved, uniform, to=sigmoid)),
    "LogisticNormal": given_code(pv.LogisticNormal(), logistic_normal),
    "Dirichlet": given_code(pv.Dirichlet(concentration=2.0), dirichlet, GUMBEL),
    "ProjectedNormal": given_code(pv.ProjectedNormal(loc=1.5), sphere, SPHERE, batch=128),
    "OneHotCategorical": given_code(pv.OneHotCategorical(learned=True), partial(codes, 1), GUMBEL),
    "FactorizedCategorical": given_code(pv.FactorizedCategorical(groups=GROUPS, learned=True), partial(codes, GROUPS), GUMBEL),
    "ConditionalNormal": Entry(
        model=pv.CVAE(latent_dim=LATENT, prior=pv.ConditionalNormal(network=NETWORK), decoder=NETWORK),
        guide=pv.AmortizedNormal(encoder=NETWORK),
        loss=conditional_normal,
        kind="binary",
        columns=32,
        batch=512,
        labels=2,
    ),
}
