"""Factor analysis in rotated coordinates: loadings W and W R give the same p(x), but not the same gap.

The posterior of z turns with the loadings, and a normal of independent dimensions fits it only along its own axes.
"""

from __future__ import annotations

import argparse
import math

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

import ppl_vae as pv
from ppl_vae.inference.training.start import start_pair


def main(degrees: list[float], rows: int, out: str) -> None:
    """Print the gap at each angle, and draw it."""
    generator = torch.Generator().manual_seed(0)
    strong_and_weak = torch.tensor([[2.0], [0.5]]) * torch.randn(2, 6, generator=generator)
    noise = torch.randn(800, 6, generator=generator)
    data = pv.load_data((torch.randn(800, 2, generator=generator) @ strong_and_weak + noise).numpy(), valid=0.0, test=0.25)
    fit = pv.fit(pv.FactorAnalysis(latent_dim=2), data, method=pv.EM())
    x = (some := data.test[:rows]).transformed()
    pairs = [rotated(fit, some, angle) for angle in degrees]
    measured = [pv.evaluate(pair, data.test, gaps=True, limit=rows) for pair in pairs]
    for angle, pair, numbers in zip(degrees, pairs, measured, strict=True):
        gap = f"approximation gap {numbers['approximation_gap']:.4f}, in closed form {closed_form(pair, x):.4f}"
        print(f"{angle:5.1f} degrees: log p(x) {numbers['log_likelihood']:.3f}, {gap}")
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(range(91), [closed_form(rotated(fit, some, angle), x) for angle in range(91)], color="gray", label="closed form")
    left.plot(degrees, [numbers["approximation_gap"] for numbers in measured], "o", label="evaluate(gaps=True)")
    left.set(xlabel="rotation of the loadings (degrees)", ylabel="approximation gap (nats per datum)")
    left.set_title("independent q; log p(x) is the same throughout")
    left.legend()
    draw(right, rotated(fit, some, 45.0), x[:1])
    figure.savefig(out, dpi=110)


def rotated(fit: pv.Fit, rows: pv.Split, angle: float) -> pv.Pair:
    """The fitted model with its loadings turned, and the best independent guide."""
    pair = pv.build(fit.model, pv.AmortizedLinear(covariance="diagonal"), fit.spec).to(fit.device)
    pair.model.load_state_dict(fit.pair.model.state_dict())
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    weight = pair.model.decoder.layers.weight.data
    weight.copy_(weight @ weight.new_tensor([[cos, -sin], [sin, cos]]))
    start_pair(pair, rows, seed=0, warm=["model"])
    return pair


def closed_form(pair: pv.Pair, x: torch.Tensor) -> float:
    """KL of the best independent normal from the posterior, whose precision P it shares the diagonal of."""
    P = torch.linalg.inv(pair.model.posterior(x).covariance_matrix[0].double())
    return 0.5 * (P.diagonal().log().sum() - torch.logdet(P)).item()


@torch.no_grad()
def draw(ax, pair: pv.Pair, x: torch.Tensor) -> None:
    """Ellipses of two standard deviations."""
    for guide, colour, label in ((pair.model, "tab:gray", "p(z | x)"), (pair.guide, "tab:blue", "q(z | x)")):
        q = guide.posterior(x)
        covariance = q.covariance_matrix[0] if hasattr(q, "covariance_matrix") else q.variance[0].diag()
        values, vectors = torch.linalg.eigh(covariance)
        angle = math.degrees(math.atan2(vectors[1, 1], vectors[0, 1]))
        width, height = (4 * values.flip(0).sqrt()).tolist()
        ax.add_patch(Ellipse(q.mean[0].tolist(), width, height, angle=angle, fc="none", ec=colour, lw=2, label=label))
    ax.autoscale_view()
    ax.set(aspect="equal", xlabel="$z_1$", ylabel="$z_2$", title="at 45 degrees: the best independent q is too narrow")
    ax.legend()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--degrees", type=float, nargs="+", default=[0.0, 15.0, 30.0, 45.0, 60.0, 75.0, 90.0])
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--out", default="rotation_gap.png")
    main(**vars(parser.parse_args()))
