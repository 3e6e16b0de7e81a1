"""Guides by hand: how z is drawn given x and what its density is, in a VAE of binary data and a standard prior."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear, one_hot, softplus

import ppl_vae as pv
from benchmarks.peers.catalogue.densities import of_normal, spline
from benchmarks.peers.catalogue.entry import LOG_2_PI, MIN_SCALE, NETWORK, Entry, Weights, mlp, normal, normal_kl, shown
from benchmarks.peers.catalogue.priors import LATENT, affine, codes, decoded, dirichlet, encoded, given_code, sphere

__all__ = ["GUIDES", "WITHOUT"]

OF_MODELS = "the model's own arithmetic is all that there is: "
WITHOUT = {
    "BayesianGuide": "draws parameters once a step, by Pyro's automatic guides, and not for each datum",
    "ExactPosterior": f"has no numbers of its own; {OF_MODELS}benchmarks.em has models that know their posterior",
    "MeanField": f"is not climbed by gradient steps but by sweeps; {OF_MODELS}benchmarks.exact has LDA and Ising",
    "NearestCode": "benchmarks.svi has it beside hand-written PyTorch: --sizes vq",
    "Noising": "benchmarks.svi has it beside hand-written PyTorch: --sizes unet",
    "SemiAmortized": "its loss holds derivatives of the ELBO by z, which torch.compile does not trace through autograd",
    "TopDown": "benchmarks.svi has it beside hand-written PyTorch: --sizes hvae",
}
RANK, COMPONENTS, CONTEXT, LAYERS = 2, 4, 20, 2


# --- normals --------------------------------------------------------------------------------------------------------------


def diagonal(w: Weights, x: Tensor) -> Tensor:
    """Independent normals."""
    loc, scale, z = normal(encoded(w, x))
    return (normal_kl(loc, scale) + decoded(w, z, x)) / len(x)


def full(w: Weights, x: Tensor) -> Tensor:
    """A normal of a Cholesky factor."""
    loc, triangle = encoded(w, x).split([LATENT, LATENT * (LATENT + 1) // 2], -1)
    raw = triangle.new_zeros(len(x), LATENT * LATENT).index_copy(-1, w["guide.entries"], triangle).unflatten(-1, (LATENT, -1))
    scale = softplus(raw.diagonal(dim1=1, dim2=2)) + MIN_SCALE
    L = raw.tril(-1) + scale.diag_embed()
    z = loc + (L @ torch.randn_like(loc)[..., None])[..., 0]
    kl = (loc.square().sum() + L.square().sum() - loc.numel()) / 2 - scale.log().sum()
    return (kl + decoded(w, z, x)) / len(x)


def low_rank(w: Weights, x: Tensor) -> Tensor:
    """A diagonal covariance and a few directions, its determinant by Sylvester's lemma."""
    loc, raw, W = encoded(w, x).unflatten(-1, (2 + RANK, LATENT)).split([1, 1, RANK], 1)
    loc, scale, W = loc[:, 0], softplus(raw[:, 0]) + MIN_SCALE, W.mT
    directions, each = torch.randn(len(x), RANK), torch.randn(len(x), LATENT)
    z = loc + (W @ directions[..., None])[..., 0] + scale * each
    variance = scale.square()
    capacitance = torch.eye(RANK) + W.mT @ (W / variance[..., None])
    log_det = 2 * (torch.linalg.cholesky(capacitance).diagonal(dim1=1, dim2=2).log().sum() + scale.log().sum())
    kl = (loc.square().sum() + variance.sum() + W.square().sum() - loc.numel() - log_det) / 2
    return (kl + decoded(w, z, x)) / len(x)


def affine_map(w: Weights, x: Tensor) -> Tensor:
    """Means by an affine map, one covariance for all."""
    rows = (x - w["guide.center"]) / w["guide.unit"]
    loc, raw = linear(rows, w["guide.weight"], w["guide.bias"]), w["guide.raw"]
    L = raw.tril(-1) + raw.diagonal().exp().diag()
    z = loc + torch.randn_like(loc) @ L.T
    kl = (loc.square().sum() + len(x) * (L.square().sum() - LATENT)) / 2 - len(x) * raw.diagonal().sum()
    return (kl + decoded(w, z, x)) / len(x)


def point(w: Weights, x: Tensor) -> Tensor:
    """Minus the joint density at a point."""
    z = encoded(w, x)
    return ((z.square() + LOG_2_PI).sum() / 2 + decoded(w, z, x)) / len(x)


# --- mixtures and flows ---------------------------------------------------------------------------------------------------


def mixture(w: Weights, x: Tensor) -> Tensor:
    """A mixture of normals, its draws with the gradients of their conditional distribution functions (Graves 2016)."""
    numbers = encoded(w, x).unflatten(-1, (COMPONENTS, -1))
    logits, loc, raw = numbers.split([1, LATENT, LATENT], -1)
    logits, scale = logits[..., 0].log_softmax(-1), softplus(raw) + MIN_SCALE
    with torch.no_grad():
        which = (logits - torch.empty_like(logits).exponential_().log()).argmax(-1)[:, None, None].expand(-1, 1, LATENT)
        z = loc.gather(1, which)[:, 0] + scale.gather(1, which)[:, 0] * torch.randn(len(x), LATENT)
    density = of_normal(loc, scale, z[:, None])
    shares = (logits[..., None] + density.cumsum(-1) - density).softmax(1)
    e = (z[:, None] - loc) / scale
    below = torch.special.ndtr(e)
    uniform = (shares * below).sum(1)
    with torch.no_grad():
        tilted = shares * (below - uniform[:, None])
        slope = (tilted.mT @ (-e / scale)).tril(-1) + (shares * density.exp()).sum(1).diag_embed()
    z = z - torch.linalg.solve_triangular(slope, (uniform - uniform.detach())[..., None], upper=False)[..., 0]
    log_q = torch.logsumexp(logits + of_normal(loc, scale, z[:, None]).sum(-1), -1).sum()
    return (log_q + (z.square() + LOG_2_PI).sum() / 2 + decoded(w, z, x)) / len(x)


def told(w: Weights, name: str, x: Tensor, context: Tensor) -> Tensor:
    """A masked network of one hidden layer that sees a context."""

    def weight(part: str) -> Tensor:
        return w[f"{name}.{part}.weight"] * w[f"{name}.{part}.mask"]

    h = linear(x, weight("layers.0"), w[f"{name}.layers.0.bias"]) + linear(context, w[f"{name}.context.weight"])
    return linear(h.relu(), weight("last"), w[f"{name}.last.bias"]).unflatten(-1, (LATENT, -1))


def flow(curve: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], w: Weights, x: Tensor) -> Tensor:
    """A normal carried through maps that see the data."""
    seen = shown_to_both(w, x)
    loc, scale, z = normal(mlp(w, "guide.base.encoder.network.layers", seen))
    log_q = of_normal(loc, scale, z).sum()
    context = mlp(w, "guide.encoder.network.layers", seen)
    for layer in range(LAYERS):
        z, log_slope = curve(z, told(w, f"guide.layers.{layer}", z, context))
        log_q = log_q - log_slope.sum()
    return (log_q + (z.square() + LOG_2_PI).sum() / 2 + decoded(w, z, x)) / len(x)


def shown_to_both(w: Weights, x: Tensor) -> Tensor:
    """Both encoders see the same."""
    return shown(w, x, "binary")


# --- classes --------------------------------------------------------------------------------------------------------------


def summed(w: Weights, x: Tensor) -> Tensor:
    """Every code is decoded once, and weighed for each datum."""
    log_q = encoded(w, x).log_softmax(-1)
    K = log_q.shape[-1]
    logits = mlp(w, "model.decoder.layers", torch.eye(K))
    nats = softplus(logits).sum(-1) - x @ logits.T
    return (log_q.exp() * (log_q + math.log(K) + nats)).sum() / len(x)


def classifier(w: Weights, x: Tensor, y: Tensor) -> Tensor:
    """Rows with labels: the ELBO given the class, and a tenth of the classifier's loss."""
    seen, c = x - w["guide.shown.0.loc"], one_hot(y, 4).to(x)
    loc, scale, z = normal(mlp(w, "guide.encoder.network.layers", torch.cat([seen, c], -1)))
    logits = mlp(w, "guide.classifier.layers", seen)
    learned = 0.1 * w["guide.rows_per_label"] * cross_entropy(logits, y, reduction="sum") + len(x) * math.log(4)
    nats = decoded(w, torch.cat([z, c], -1), x, "model.decoder.network.layers")
    return (normal_kl(loc, scale) + learned + nats) / len(x)


def stacked(w: Weights, x: Tensor, y: Tensor) -> Tensor:
    """Rows with labels: two levels, the class of the first."""
    c, ln2 = one_hot(y, 4).to(x), math.log(2)
    loc1, scale1, z1 = normal(encoded(w, x))
    logits = mlp(w, "guide.classifier.network.layers", z1)
    learned = 0.1 * w["guide.rows_per_label"] * cross_entropy(logits, y, reduction="sum") + len(x) * math.log(4)
    loc2, raw2 = mlp(w, "guide.rest.network.network.layers", torch.cat([z1, c], -1)).chunk(2, -1)
    scale2 = softplus(raw2) / ln2
    z2 = loc2 + scale2 * torch.randn_like(scale2)
    prior_loc, prior_raw = mlp(w, "model.network.network.network.layers", torch.cat([z2, c], -1)).chunk(2, -1)
    prior_scale = softplus(prior_raw) / ln2
    ratio = (scale1 / prior_scale).square()
    kl = (ratio + ((loc1 - prior_loc) / prior_scale).square() - 1 - ratio.log()).sum() / 2 + normal_kl(loc2, scale2)
    return (kl + learned + decoded(w, z1, x)) / len(x)


def bottom_up(w: Weights, x: Tensor) -> Tensor:
    """A second group of latent variables, its posterior given the first."""
    seen = x - w["guide.steps.0.shown.0.loc"]
    loc1, scale1, z1 = normal(mlp(w, "guide.steps.0.network.layers", seen))
    loc2, scale2, z2 = normal(mlp(w, "guide.steps.1.layers", z1))
    prior_loc, raw = mlp(w, "model.down.0.layers", z2).chunk(2, -1)
    log_p = of_normal(prior_loc, softplus(raw) + MIN_SCALE, z1).sum() - (z2.square() + LOG_2_PI).sum() / 2
    log_q = of_normal(loc1, scale1, z1).sum() + of_normal(loc2, scale2, z2).sum()
    return (log_q - log_p + decoded(w, z1, x)) / len(x)


def of_vae(guide: pv.Guide, loss: Callable[..., Tensor], **changes: Any) -> Entry:
    """With a standard normal prior."""
    return given_code(pv.StandardNormal(), loss, guide, **changes)


def of_classes(model: pv.Model, guide: pv.Guide, loss: Callable[..., Tensor]) -> Entry:
    """Of rows of four classes."""
    return Entry(model=model, guide=guide, loss=loss, kind="binary", columns=32, batch=512, labels=4)


NORMAL = pv.AmortizedNormal(encoder=NETWORK)


def of_flow(transform: Any, curve: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Entry:
    """Two layers on a normal."""
    guide = pv.AmortizedFlow(base=NORMAL, transform=transform, layers=LAYERS, hidden=(32,), encoder=NETWORK, context=CONTEXT)
    return of_vae(guide, partial(flow, curve))


GUIDES = {
    "AmortizedNormal": of_vae(NORMAL, diagonal),
    "AmortizedNormal-full": of_vae(pv.AmortizedNormal(encoder=NETWORK, covariance="full"), full),
    "AmortizedNormal-low_rank": of_vae(pv.AmortizedNormal(encoder=NETWORK, covariance="low_rank", rank=RANK), low_rank),
    "AmortizedLinear": of_vae(pv.AmortizedLinear(), affine_map),
    "AmortizedMixture": of_vae(pv.AmortizedMixture(encoder=NETWORK, components=COMPONENTS), mixture),
    "AmortizedFlow-iaf": of_flow("iaf", affine),
    "AmortizedFlow-spline": of_flow("spline", partial(spline, bins=8, bound=5.0)),
    "AmortizedDelta": of_vae(pv.AmortizedDelta(encoder=NETWORK), point),
    "AmortizedGumbel": given_code(pv.OneHotCategorical(learned=True), partial(codes, 1), pv.AmortizedGumbel(encoder=NETWORK)),
    "AmortizedGumbel-simplex": given_code(pv.Dirichlet(concentration=2.0), dirichlet, pv.AmortizedGumbel(encoder=NETWORK)),
    "AmortizedProjectedNormal": given_code(
        pv.ProjectedNormal(loc=1.5), sphere, pv.AmortizedProjectedNormal(encoder=NETWORK), batch=128
    ),
    "AmortizedCategorical": given_code(pv.OneHotCategorical(), summed, pv.AmortizedCategorical(encoder=NETWORK)),
    "AmortizedClassifier": of_classes(
        pv.SemiSupervisedVAE(latent_dim=LATENT, decoder=NETWORK),
        pv.AmortizedClassifier(encoder=NETWORK, classifier=NETWORK),
        classifier,
    ),
    "BottomUp": Entry(
        model=pv.HierarchicalVAE(
            groups=(pv.Group(latent_dim=LATENT, network=NETWORK), pv.Group(latent_dim=LATENT, network=NETWORK)),
            decoder=NETWORK,
            skip=False,
        ),
        guide=pv.BottomUp(encoder=NETWORK),
        loss=bottom_up,
        kind="binary",
        columns=32,
        batch=512,
    ),
    "StackedClassifier": of_classes(
        pv.StackedSemiSupervisedVAE(latent_dim=LATENT, rest_dim=LATENT, network=NETWORK, decoder=NETWORK),
        pv.StackedClassifier(encoder=NETWORK, classifier=NETWORK, rest=NETWORK),
        stacked,
    ),
}
