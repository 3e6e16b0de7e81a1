"""PPCA is the linear VAE: three ways to one maximum, and what a fixed noise variance switches off.

The first table has PPCA's maximum likelihood by the closed form, by EM and by scikit-learn (Tipping and Bishop 1999), and the
ELBO of a VAE with a linear decoder, which has the same maximum and is tight there (Lucas et al. 2019). The second one fixes
sigma^2: the dimensions that stay active are as many as the covariance has eigenvalues above it.
"""

from __future__ import annotations

import argparse

import torch
from sklearn.decomposition import PCA

import ppl_vae as pv

ROWS, COLUMNS, LATENT_DIM = 500, 10, 4


def samples(scales: torch.Tensor) -> torch.Tensor:
    """Rows whose covariance has nearly the eigenvalues scales^2 + 0.25, and 0.25 for the rest, ``(ROWS, COLUMNS)``."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(COLUMNS, len(scales), generator=generator)).Q
    noise = 0.5 * torch.randn(ROWS, COLUMNS, generator=generator)
    return torch.randn(ROWS, len(scales), generator=generator) * scales @ axes.T + noise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=400, help="full-batch steps of the linear VAE")
    parser.add_argument("--variances", type=float, nargs="+", default=[0.5, 2.5, 6.0, 20.0])
    options = parser.parse_args()

    x = samples(torch.tensor([3.5, 2.0, 1.2]))
    data = pv.load_data(x, valid=0.0, test=0.0)
    svi = pv.SVI(epochs=options.epochs, batch_size=ROWS, learning_rate=5e-2)
    closed, em = (pv.fit(pv.PPCA(latent_dim=3), data, method=method) for method in (pv.ClosedForm(), pv.EM(tolerance=1e-12)))
    pca = PCA(3).fit(x.double().numpy())
    pca.explained_variance_ *= (ROWS - 1) / ROWS  # scikit-learn divides by N - 1, maximum likelihood by N
    pca.noise_variance_ *= (ROWS - 1) / ROWS
    linear = pv.VAE(latent_dim=3, decoder=pv.Linear(), likelihood=pv.Gaussian(scale="shared"))
    vae = pv.fit(linear, data, guide=pv.AmortizedLinear(), method=svi)
    print(f"PPCA, closed form       {closed.evaluate(data.train)['log_likelihood']:11.6f} nats per datum")
    print(f"PPCA, EM                {em.evaluate(data.train)['log_likelihood']:11.6f}")
    print(f"scikit-learn PCA.score  {pca.score(x.double().numpy()):11.6f}")
    print(f"linear VAE, its ELBO    {vae.evaluate(data.train, samples=100)['elbo']:11.6f}")

    eigenvalues = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
    print(f"\neigenvalues: {', '.join(f'{value:.2f}' for value in eigenvalues[: LATENT_DIM + 1])}, ...")
    print("sigma^2  eigenvalues above  active dimensions")
    for variance in options.variances:
        likelihood = pv.Gaussian(scale="fixed", value=variance**0.5)
        model = pv.VAE(latent_dim=LATENT_DIM, decoder=pv.Linear(), likelihood=likelihood)
        fitted = pv.fit(model, data, guide=pv.AmortizedLinear(covariance="diagonal"), method=svi)
        active = int((fitted.encode(data.train).var(0) > 0.05).sum())
        print(f"{variance:7.2f}  {int((eigenvalues[:LATENT_DIM] > variance).sum()):17}  {active:17}")


if __name__ == "__main__":
    main()
