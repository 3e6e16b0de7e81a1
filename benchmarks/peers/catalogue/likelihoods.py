"""Likelihoods by hand: log p(x | h) of the decoder's features h, in a VAE of a normal posterior and its closed-form KL."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, logsigmoid, softplus

import ppl_vae as pv
from benchmarks.peers.catalogue.entry import LOG_2_PI, NETWORK, Data, Entry, Weights, mlp, normal, normal_kl, shown

__all__ = ["LIKELIHOODS", "WITHOUT"]

WITHOUT = {
    "Auto": "proposes a MixedTable, which is an entry, and is gone when the steps begin",
    "Strokes": "benchmarks.svi has it beside hand-written PyTorch: --sizes sketch",
    "Tokens": "benchmarks.svi has it beside hand-written PyTorch, as text: --sizes text ragged; of flat rows it is Categorical",
}
TOTAL, LEVELS, COMPONENTS, RANK, MARGIN, FLOOR = 255, 16, 5, 5, 0.5 / 255, 1e-3
HALF = 0.5
START = 0.25  # of a discretized logistic's scale
SHIFT = HALF - FLOOR + math.log(-math.expm1(FLOOR - HALF))  # softplus of it is the scale that features of zero give


def bound(log_prob: Callable[[Weights, Tensor, Tensor], Tensor], features: int, kind: Data, w: Weights, x: Tensor) -> Tensor:
    """The negative ELBO of a batch in nats per datum."""
    seen = shown(w, x, kind, LEVELS)
    if log_prob is masked:
        seen = seen.nan_to_num()
    loc, scale, z = normal(mlp(w, "guide.encoder.network.layers", seen))
    h = mlp(w, "model.decoder.layers", z).unflatten(-1, (features, -1))
    return (normal_kl(loc, scale) - log_prob(w, h, x).sum()) / len(x)


# --- real numbers ---------------------------------------------------------------------------------------------------------


def learned_scale(w: Weights) -> Tensor:
    """One for all, or one each."""
    return w["model.likelihood.log_scale"].exp() + FLOOR


def amortized(h: Tensor) -> tuple[Tensor, Tensor]:
    """Location and scale of each datum and element."""
    loc, raw = h.unbind(1)
    return loc, softplus(raw + SHIFT) + FLOOR


def of_normal(loc: Tensor, scale: Tensor, x: Tensor) -> Tensor:
    """The log-density."""
    return -((x - loc) / scale).square() / 2 - scale.log() - LOG_2_PI / 2


def gaussian(w: Weights, h: Tensor, x: Tensor) -> Tensor:
    """A learned scale."""
    return of_normal(h[:, 0], learned_scale(w), x)


def gaussian_amortized(w: Weights, h: Tensor, x: Tensor) -> Tensor:
    """A scale from the decoder."""
    return of_normal(*amortized(h), x)


def laplace(w: Weights, h: Tensor, x: Tensor) -> Tensor:
    """A learned scale."""
    scale = learned_scale(w)
    return -(x - h[:, 0]).abs() / scale - (2 * scale).log()


def student_t(w: Weights, h: Tensor, x: Tensor) -> Tensor:
    """A scale from the decoder and learned degrees of freedom."""
    loc, scale = amortized(h)
    df = 1 + w["model.likelihood.family.log_excess"].exp()
    constant = torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2) - (df * math.pi).log() / 2
    return constant - scale.log() - (df + 1) / 2 * torch.log1p(((x - loc) / scale).square() / df)


def low_rank(w: Weights, h: Tensor, x: Tensor) -> Tensor:
    """S (I + G G^T) S, shared, by Woodbury's identity."""
    scale, G = learned_scale(w), w["model.likelihood.factor"]
    y = (x - h[:, 0]) / scale
    L = torch.linalg.cholesky(torch.eye(RANK) + G.T @ G)
    projected = torch.linalg.solve_triangular(L, (y @ G).T, upper=False)
    log_det = 2 * (scale.log().sum() + L.diagonal().log().sum())
    return -(y.square().sum(1) - projected.square().sum(0) + log_det + x.shape[1] * LOG_2_PI) / 2


def mixture_density(w: Weights, h: Tensor, x: Tensor) -> Tensor:
    """Normals mixed for each element."""
    logits, mean, raw = h.unflatten(1, (3, COMPONENTS)).unbind(1)
    mean = mean + w["model.likelihood.centers"][:, None]
    each = of_normal(mean, softplus(raw + SHIFT) + FLOOR, x[:, None])
    return torch.logsumexp(logits.log_softmax(1) + each, 1)


def masked(w: Weights, h: Tensor, x: Tensor) -> Tensor:
    """A scale from the decoder, entries that are not there left out."""
    there = ~x.isnan()
    return torch.where(there, of_normal(*amortized(h), x.nan_to_num()), 0.0)


# --- from 0 to 1 ----------------------------------------------------------------------------------------------------------


def bernoulli(w: Weights, h: Tensor, x: Tensor) -> Tensor:
    """By logits."""
    return -binary_cross_entropy_with_logits(h[:, 0], x, reduction="sum")


def continuous_bernoulli(w: Weights, h: Tensor, x: Tensor) -> Tensor:
    """By logits, their normalizer by two terms of its power series near zero, as ``torch.distributions`` has it."""
    a = h[:, 0].abs() / 2
    far, near = a.clamp_min(0.1), a.clamp_max(0.1).square()
    closed = far + torch.log1p(-torch.exp(-2 * far)) - math.log(2) - far.log()
    return h[:, 0] * (x - 0.5) - torch.where(a < 0.1, near / 6 - near.square() / 180, closed)


def stretched(x: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms of t and 1 - t."""
    t = (x + MARGIN) / (1 + 2 * MARGIN)
    return t.log(), torch.log1p(-t)


def beta(w: Weights, h: Tensor, x: Tensor) -> Tensor:
    """Mean and concentration from the decoder."""
    logit, raw = h.unbind(1)
    c = softplus(raw + 2 + math.log(-math.expm1(-2)))
    a, b = c * torch.sigmoid(logit), c * torch.sigmoid(-logit)
    log_t, log_rest = stretched(x)
    constant = torch.lgamma(c) - torch.lgamma(a) - torch.lgamma(b)
    return (a - 1) * log_t + (b - 1) * log_rest + constant - math.log(1 + 2 * MARGIN)


def logit_normal(w: Weights, h: Tensor, x: Tensor) -> Tensor:
    """A learned scale."""
    log_t, log_rest = stretched(x)
    return of_normal(h[:, 0], learned_scale(w), log_t - log_rest) - log_t - log_rest - math.log(1 + 2 * MARGIN)


# --- levels ---------------------------------------------------------------------------------------------------------------


def categorical(w: Weights, h: Tensor, x: Tensor) -> Tensor:
    """By logits."""
    return -cross_entropy(h, x.long(), reduction="sum")


def discretized(loc: Tensor, raw: Tensor, x: Tensor) -> Tensor:
    """As in the code of PixelCNN++: differences of distribution functions, the density where these vanish."""
    log_scale = softplus(raw + math.log(START) + 7) - 7
    precision, half = (-log_scale).exp(), 1 / (LEVELS - 1)
    centred = 2 * half * x - 1 - loc
    plus, minus, middle = (centred + half) * precision, (centred - half) * precision, centred * precision
    mass = plus.sigmoid() - minus.sigmoid()
    density = middle - log_scale - 2 * softplus(middle) + math.log(2 * half)
    inside = torch.where(mass > 1e-5, mass.clamp_min(1e-12).log(), density)
    return torch.where(x == 0, logsigmoid(plus), torch.where(x == LEVELS - 1, logsigmoid(-minus), inside))


def discretized_logistic(w: Weights, h: Tensor, x: Tensor) -> Tensor:
    """One for each element."""
    loc, raw = h.unbind(1)
    return discretized(loc, raw, x)


def discretized_mixture(w: Weights, h: Tensor, x: Tensor) -> Tensor:
    """Several for each element."""
    logits, loc, raw = h.unflatten(1, (3, COMPONENTS)).unbind(1)
    each = discretized(loc + w["model.likelihood.centers"][:, None], raw, x[:, None])
    return torch.logsumexp(logits.log_softmax(1) + each, 1)


# --- counts ---------------------------------------------------------------------------------------------------------------


def binomial(w: Weights, h: Tensor, x: Tensor) -> Tensor:
    """By logits."""
    constant = math.lgamma(TOTAL + 1) - torch.lgamma(x + 1) - torch.lgamma(TOTAL - x + 1)
    return constant + x * h[:, 0] - TOTAL * softplus(h[:, 0])


def of_poisson(h: Tensor, x: Tensor) -> Tensor:
    """By log-rates."""
    return x * h - h.exp() - torch.lgamma(x + 1)


def of_negative_binomial(h: Tensor, r: Tensor, x: Tensor) -> Tensor:
    """By log-means and dispersions."""
    log_odds = h - r.log()
    counted = torch.lgamma(x + r) - torch.lgamma(r) - torch.lgamma(x + 1)
    return counted + x * logsigmoid(log_odds) + r * logsigmoid(-log_odds)


def inflated(gate: Tensor, log_prob: Tensor, x: Tensor) -> Tensor:
    """More zeros."""
    other = logsigmoid(-gate) + log_prob
    return torch.where(x == 0, torch.logaddexp(logsigmoid(gate), other), other)


def poisson(w: Weights, h: Tensor, x: Tensor) -> Tensor:
    """By log-rates."""
    return of_poisson(h[:, 0], x)


def negative_binomial(w: Weights, h: Tensor, x: Tensor) -> Tensor:
    """A learned dispersion for each element."""
    return of_negative_binomial(h[:, 0], learned_scale(w), x)


def negative_binomial_amortized(w: Weights, h: Tensor, x: Tensor) -> Tensor:
    """A dispersion from the decoder."""
    log_mean, raw = h.unbind(1)
    return of_negative_binomial(log_mean, softplus(raw + 2 - FLOOR + math.log(-math.expm1(FLOOR - 2))) + FLOOR, x)


def zero_inflated(w: Weights, h: Tensor, x: Tensor) -> Tensor:
    """Of a Poisson."""
    return inflated(h[:, 0], of_poisson(h[:, 1], x), x)


def zero_inflated_negative_binomial(w: Weights, h: Tensor, x: Tensor) -> Tensor:
    """Of a negative binomial."""
    r = w["model.likelihood.likelihood.log_scale"].exp() + FLOOR
    return inflated(h[:, 0], of_negative_binomial(h[:, 1], r, x), x)


def multinomial(w: Weights, h: Tensor, x: Tensor) -> Tensor:
    """Given the total."""
    coefficient = torch.lgamma(x.sum(1) + 1) - torch.lgamma(x + 1).sum(1)
    return coefficient + (x * h[:, 0].log_softmax(1)).sum(1)


# --- tables ---------------------------------------------------------------------------------------------------------------


def mixed_table(w: Weights, h: Tensor, x: Tensor) -> Tensor:
    """The first half of the columns binary, the others normal of a learned scale."""
    half = x.shape[1] // 2
    binary = -binary_cross_entropy_with_logits(h[:, 0, :half], x[:, :half], reduction="none").sum(1)
    scale = w["model.likelihood.likelihoods.1.log_scale"].exp() + FLOOR
    return binary + of_normal(h[:, 0, half:], scale, x[:, half:]).sum(1)


def entry(likelihood: pv.Likelihood, log_prob: Any, kind: Data, columns: int = 1000) -> Entry:
    """In a VAE of 8 latent dimensions."""
    model = pv.VAE(latent_dim=8, likelihood=likelihood, decoder=NETWORK)
    loss = partial(bound, log_prob, likelihood.features, kind)
    return Entry(model=model, guide=pv.AmortizedNormal(encoder=NETWORK), loss=loss, kind=kind, columns=columns, levels=LEVELS)


HALVES = (pv.ColumnGroup(columns=tuple(range(500)), likelihood=pv.Bernoulli()), pv.ColumnGroup())

LIKELIHOODS = {
    "Gaussian": entry(pv.Gaussian(), gaussian, "real"),
    "Gaussian-amortized": entry(pv.Gaussian(scale="amortized"), gaussian_amortized, "real"),
    "Laplace": entry(pv.Laplace(), laplace, "real"),
    "StudentT": entry(pv.StudentT(scale="amortized", learned=True), student_t, "real"),
    "LowRankGaussian": entry(pv.LowRankGaussian(rank=RANK), low_rank, "real"),
    "MixtureDensity": entry(pv.MixtureDensity(components=COMPONENTS), mixture_density, "real", 200),
    "Masked": entry(pv.Masked(likelihood=pv.Gaussian(scale="amortized")), masked, "real"),
    "Bernoulli": entry(pv.Bernoulli(), bernoulli, "binary"),
    "ContinuousBernoulli": entry(pv.ContinuousBernoulli(), continuous_bernoulli, "unit_interval"),
    "Beta": entry(pv.Beta(), beta, "unit_interval"),
    "LogitNormal": entry(pv.LogitNormal(value=HALF), logit_normal, "unit_interval"),
    "Categorical": entry(pv.Categorical(levels=LEVELS), categorical, "categorical", 100),
    "DiscretizedLogistic": entry(pv.DiscretizedLogistic(levels=LEVELS), discretized_logistic, "categorical"),
    "DiscretizedLogisticMixture": entry(
        pv.DiscretizedLogisticMixture(levels=LEVELS, components=COMPONENTS), discretized_mixture, "categorical", 200
    ),
    "Binomial": entry(pv.Binomial(total=TOTAL), binomial, "count"),
    "Poisson": entry(pv.Poisson(), poisson, "count"),
    "NegativeBinomial": entry(pv.NegativeBinomial(), negative_binomial, "count"),
    "NegativeBinomial-amortized": entry(pv.NegativeBinomial(dispersion="amortized"), negative_binomial_amortized, "count"),
    "ZeroInflated": entry(pv.ZeroInflated(), zero_inflated, "count"),
    "ZeroInflated-NegativeBinomial": entry(
        pv.ZeroInflated(likelihood=pv.NegativeBinomial()), zero_inflated_negative_binomial, "count"
    ),
    "Multinomial": entry(pv.Multinomial(), multinomial, "count"),
    "MixedTable": entry(pv.MixedTable(groups=HALVES), mixed_table, "binary"),
}
