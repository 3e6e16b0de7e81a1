#!/usr/bin/env bash
# torch 2.13.0 (and 2.14.1): LowRankMultivariateNormal loses whole nats in float32 although its matrix is well conditioned.
#
# Guess:     the low-rank form works on an R x R "capacitance" matrix, so its log-density is at least as accurate as the dense one.
# Behaviour: the Mahalanobis term is |x|^2/d - |L^-1 W^T x/d|^2, a difference of two large numbers. With 784 elements, 20 factors
#            with loadings of order one and noise 0.1, single data are off by about 1 nat; with 50 factors and noise 0.03 by 10 and
#            more. The same density written as |y - G m|^2 + |m|^2 (m the posterior mean of the factors) is right to 1e-3.
# Seen:      784 x 20, noise 0.1: off by 0.97 nats, as a sum of squares by 0.0004; 784 x 50, noise 0.03: off by 12, by 0.003.
# Bitten:    factor analysis and probabilistic PCA in float32, AutoLowRankMultivariateNormal guides, importance weights and
#            log-likelihoods of images under low-rank covariances: noise of nats a datum, with a bias as the factors grow.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.13.0
"$folder/venv/bin/python" - <<'PY'
import torch
from torch.distributions import LowRankMultivariateNormal

torch.manual_seed(0)


def sum_of_squares(x, W, d):
    y, G = x / d.sqrt(), W / d.sqrt()[:, None]
    L = torch.linalg.cholesky(torch.eye(G.shape[1]) + G.T @ G)
    m = torch.cholesky_solve(G.T @ y.T, L)
    mahalanobis = (y - (G @ m).T).square().sum(1) + m.square().sum(0)
    log_det = d.log().sum() + 2 * L.diagonal().log().sum()
    return -0.5 * (mahalanobis + log_det + len(d) * torch.log(torch.tensor(2 * torch.pi)))


for D, R, noise in ((784, 20, 0.1), (784, 50, 0.03)):
    W, d = torch.randn(D, R, dtype=torch.float64), torch.full((D,), noise**2, dtype=torch.float64)
    exact = LowRankMultivariateNormal(torch.zeros(D, dtype=torch.float64), W, d)
    x = exact.sample((200,))
    truth = exact.log_prob(x)
    theirs = (LowRankMultivariateNormal(torch.zeros(D), W.float(), d.float()).log_prob(x.float()) - truth).abs().max().item()
    squares = (sum_of_squares(x.float(), W.float(), d.float()) - truth).abs().max().item()
    print(f"{D} x {R}, noise {noise}: torch off by {theirs:.2f} nats, as a sum of squares by {squares:.4f}")
    assert theirs > 0.3, "the behaviour changed: LowRankMultivariateNormal is accurate"
    assert squares < 0.02
PY
