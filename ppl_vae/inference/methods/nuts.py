"""Markov chain Monte Carlo over the parameters of small models, latent variables integrated out."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import pyro.infer
import torch
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor

from ppl_vae.data import Data
from ppl_vae.data.matrices import Matrices
from ppl_vae.declaration import require
from ppl_vae.inference.methods.base import Method
from ppl_vae.inference.training.clock import Stopwatch
from ppl_vae.inference.training.start import start_pair
from ppl_vae.program.machine import cpu_threads
from ppl_vae.program.pair import Pair
from ppl_vae.storage import NULL_CHECKPOINTER, AnyCheckpointer
from ppl_vae.types import FitWarning, Record, Report

__all__ = ["NUTS"]

JITTER = 1e-8  # relative to the largest variance: keeps the covariance of few draws invertible


@dataclasses.dataclass(frozen=True, kw_only=True)
class NUTS(Method):
    """The No-U-Turn sampler (Hoffman and Gelman 2014) on p(theta | x), through ``pyro.infer.MCMC``, in float64.

    Every parameter needs a prior, and latent variables are integrated out exactly, so only FactorAnalysis and GMM with priors
    are fitted. Chains run one after the other from about one start, where EM starts. The posterior means become the model's
    point estimates; the guide's q(theta) gets the draws' mean and covariance in its unconstrained coordinates. A row of weight
    w counts as w rows beside the priors.

    Loadings are rotated towards each other before they are averaged, which the likelihood does not notice; the components of a
    mixture are not relabelled, so an ``r_hat`` far above 1 may tell that chains saw them in another order.

    Args:
        seed: of the chains.
        samples: draws of each chain that count.
        warmup: draws of each chain before them, in which step size and mass matrix are adapted.
        chains: their number; two or more let ``r_hat`` see what they disagree on.
        max_parameters: more than so many numbers in theta are refused.

    Raises:
        ValueError: a number out of range.
    """

    posterior_guide: ClassVar[Literal["exact", "factors", "any"]] = "any"
    takes_weights: ClassVar[bool] = True
    live: ClassVar[bool] = False

    samples: int = 500
    warmup: int = 300
    chains: int = 2
    max_parameters: int = 200

    def __post_init__(self) -> None:
        require(self.samples >= 4, "at least 4 samples, or r_hat is not known", self.samples)
        require(self.warmup >= 1, "a warmup of at least 1", self.warmup)
        require(self.chains >= 1, "at least 1 chain", self.chains)
        require(self.max_parameters >= 1, "a max_parameters of at least 1", self.max_parameters)

    @property
    def iterations(self) -> int:
        """The draws of all chains together."""
        return self.chains * (self.warmup + self.samples)

    def run(self, pair: Pair, data: Data, report: Report, checkpointer: AnyCheckpointer = NULL_CHECKPOINTER) -> list[Record]:
        """Sample the parameters; a row of history per draw, ``stage`` telling warm-up from what counts.

        ``log_joint`` is log p(x, theta), and ``log_likelihood`` log p(x | theta), both in nats per datum; ``objective`` repeats
        the former. The last row also has ``r_hat`` (the largest of all parameters) and ``ess`` (the smallest effective number
        of draws).

        Raises:
            ValueError: parameters without a prior, too many of them, or a guide that is not over them.
            FloatingPointError: the log-density is not finite at the start.
        """
        clock = Stopwatch(report)
        self._check(pair, weighted=data.train.weights is not None)
        start_pair(pair, data.train, self.seed, warm={"guide"})
        posterior = _Posterior(pair.model, Matrices(data.train), data.train.transform.log_jacobian, data.train.total)
        record = _Recorder(posterior, clock)
        with cpu_threads(len(data.train) * posterior.coordinates.size):
            draws = torch.stack([self._chain(posterior, record, chain) for chain in range(1, self.chains + 1)])
        values, vectors = posterior.aligned(draws.flatten(0, 1))
        pair.model.assign({name: value.mean(0) for name, value in values.items()})
        pair.guide.place(*_moments(vectors, pair.model.values))
        pair.guide.keep(vectors.unflatten(0, (self.chains, self.samples)))
        summary = _diagnostics(values, self.chains)
        record.rows[-1] |= summary
        if not summary["r_hat"] < 1.1:
            warnings.warn(
                f"the chains have not mixed: r_hat is {summary['r_hat']:.3g}, expected below 1.1; raise warmup and samples, or "
                "use fewer components or factors",
                FitWarning,
                stacklevel=2,
            )
        return record.rows

    def _check(self, pair: Pair, *, weighted: bool) -> None:
        model = pair.can.weigh_parameters
        if weighted and model is not None and not pair.model_facts.takes_weights:
            raise ValueError(
                "NUTS of this model does not look at the weights of rows: load the data without (a program of your own says "
                "takes_weights = True once its log_likelihood counts rows by rows.weights)"
            )
        if model is None and pair.plain:
            raise ValueError(
                "NUTS fits FactorAnalysis and GMM whose parameters carry priors, and no plain Pyro programs: fit them by SVI "
                "with an automatic guide, or draw by pyro.infer.NUTS itself"
            )
        if model is None:
            raise ValueError(
                "NUTS cannot fit this model: its parameters carry no priors, so they have no posterior to draw from; SVI can "
                "fit it (and EM FactorAnalysis, PPCA and GMM), or declare priors such as FactorAnalysis(weights=Normal(), ...)"
            )
        if not pair.guide_facts.exact_latents:
            raise ValueError(
                "NUTS integrates the latent variables out and fits no guide over them: use "
                "BayesianGuide(latents=ExactPosterior())"
            )
        without = [name for name in pair.model.values if name not in model.parameter_sites]
        if without:
            raise ValueError(
                f"NUTS cannot fit this model: {', '.join(without)} carry no prior; give every parameter one, or fit by SVI, "
                "which takes those as point estimates"
            )
        size = model.coordinates().size
        if size > self.max_parameters:
            raise ValueError(
                f"NUTS cannot fit this model: it has {size} numbers in its parameters, more than max_parameters = "
                f"{self.max_parameters}; SVI with a BayesianGuide can, or raise max_parameters and wait"
            )

    def _chain(self, posterior: _Posterior, record: _Recorder, chain: int) -> Tensor:
        """One chain's draws ``(samples, P)`` in unconstrained coordinates."""
        kernel = pyro.infer.NUTS(potential_fn=lambda state: -posterior.density(state["theta"]), full_mass=True)
        sampler = pyro.infer.MCMC(
            kernel,
            num_samples=self.samples,
            warmup_steps=self.warmup,
            initial_params={"theta": posterior.start()},
            disable_progbar=True,
            hook_fn=lambda kernel, state, stage, i: record(state["theta"], stage, chain),
        )
        sampler.run()
        draws: Tensor = sampler.get_samples()["theta"]
        return draws


class _Posterior:
    """The log-density of the parameters given the rows, in the model's unconstrained coordinates and in float64.

    ``size`` is how many rows the data count as beside the priors.
    """

    def __init__(self, model: Any, rows: Matrices, constant: float, size: float) -> None:
        self.model = model
        self.size = size
        self.constant = constant
        self.coordinates = model.coordinates()
        self.log_likelihood: Callable[[Mapping[str, Tensor]], Tensor] = model.log_likelihood(rows)

    def terms(self, vector: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log p(x | theta), log p(theta) and the log-volume of the coordinates at a vector ``(P,)``."""
        values, prior, volume = self.coordinates.log_prior(vector)
        return self.log_likelihood(values), prior, volume

    def density(self, vector: Tensor) -> Tensor:
        """Their sum, the log-density of the vector up to a constant; not finite where a matrix is singular in float64."""
        try:
            return torch.stack(self.terms(vector)).sum()
        except torch.linalg.LinAlgError:
            return vector.sum() * math.nan

    def start(self) -> Tensor:
        """The model's point estimates, moved by as much as the posterior is wide."""
        start: Tensor = self.coordinates.pack(self.model.values).double()
        start = start + self.size**-0.5 * torch.randn_like(start)
        if not bool(self.density(start).isfinite()):
            raise FloatingPointError(
                "the log-density of the parameters is not finite at the start: standardize the data, or give wider priors"
            )
        return start

    @torch.no_grad()
    def aligned(self, draws: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Draws ``(S, P)`` as values by name and as vectors, with what the likelihood does not fix brought together."""
        values = self.model.align(self.coordinates.unpack(draws))
        return values, self.coordinates.pack(values)


class _Recorder:
    """The rows of a history as the chains run."""

    def __init__(self, posterior: _Posterior, clock: Stopwatch) -> None:
        self.posterior = posterior
        self.clock = clock
        self.rows: list[Record] = []

    @torch.no_grad()
    def __call__(self, vector: Tensor, stage: str, chain: int) -> None:
        """Note one draw."""
        likelihood, prior, _ = self.posterior.terms(vector.detach())
        log_likelihood = likelihood.item() / self.posterior.size + self.posterior.constant
        log_joint = log_likelihood + prior.item() / self.posterior.size
        row = {
            "epoch": len(self.rows) + 1,
            "chain": chain,
            "stage": "warmup" if stage.lower().startswith("warmup") else "sample",
            "objective": log_joint,
            "log_joint": log_joint,
            "log_likelihood": log_likelihood,
            "seconds": self.clock.seconds,
        }
        self.rows.append(row)
        self.clock.report(row)


def _moments(vectors: Tensor, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Mean ``(P,)`` and Cholesky factor of the covariance ``(P, P)`` of draws, in the dtype of the model's values."""
    covariance = torch.cov(vectors.T).reshape(vectors.shape[1], vectors.shape[1])
    jitter = JITTER * covariance.diagonal().max().clamp_min(JITTER)
    identity = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    like = next(iter(values.values()))
    return vectors.mean(0).to(like), torch.linalg.cholesky(covariance + jitter * identity).to(like)


def _diagnostics(values: Mapping[str, Tensor], chains: int) -> Record:
    """The largest split r_hat and the smallest effective number of draws of all numbers that vary (Vehtari et al. 2021)."""
    flat = torch.cat([value.flatten(1) for value in values.values()], -1)
    flat = flat[:, flat.std(0) > 0]
    if not flat.shape[-1]:
        return {"r_hat": math.inf, "ess": 0.0}  # every proposal was refused
    flat = flat.reshape(chains, -1, flat.shape[-1])
    r_hat = split_gelman_rubin(flat, chain_dim=0, sample_dim=1).max().item()
    ess = effective_sample_size(flat, chain_dim=0, sample_dim=1).min().item()
    return {"r_hat": r_hat, "ess": ess}
