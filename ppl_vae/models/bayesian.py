"""Factor analysis and Gaussian mixtures whose parameters carry priors, so that data leave a posterior over them too.

    theta ~ p(theta)                    weights, locations, scales or covariances, drawn once
    for n in 1..N:
        z_n ~ p(z | theta)              Normal(0, I), or Categorical(pi)
        x_n ~ p(x | z_n, theta)

Attias (1999); Bishop (2006), chapter 10. A parameter without a prior stays a point estimate. What a fitted program offers
besides its story (``decode``, ``log_prob``, ``posterior``) is at the point estimates that the method left in its buffers.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from pyro.ops.indexing import Vindex
from torch import Tensor, nn
from torch.distributions import biject_to, constraints, transform_to

from ppl_vae.declaration import family_members
from ppl_vae.exact import covariances, linear_gaussian, mixture, mixture_start, moments, profile
from ppl_vae.exact import posterior as exact
from ppl_vae.priors import Prior, StandardNormal
from ppl_vae.priors.base import Support
from ppl_vae.priors.inverse_wishart import covariance
from ppl_vae.program.hooks import Start
from ppl_vae.program.pair import data_plate
from ppl_vae.types import DataSpec

__all__ = ["BayesianFactorModel", "BayesianMixtureModel", "BayesianModel", "Coordinates", "check_complete", "check_priors"]

Values = Mapping[str, Tensor]

CONSTRAINTS: dict[Support, Any] = {
    "real": constraints.real,
    "positive": constraints.positive,
    "simplex": constraints.simplex,
    "covariance": covariance,
}


def check_priors(supports: Mapping[str, Support], priors: Mapping[str, Prior]) -> None:
    """Raise ``ValueError`` if a prior has its mass where its parameter has none."""
    for name, prior in priors.items():
        if prior.support != supports[name]:
            valid = sorted(
                cls.__name__ for cls in family_members(Prior) if issubclass(cls, Prior) and cls.support == supports[name]
            )
            raise ValueError(f"{name}: expected a {supports[name]} prior ({', '.join(valid)}), got {prior!r}")


def check_complete(spec: DataSpec, priors: Mapping[str, Prior]) -> None:
    """Raise ``ValueError`` if entries may be missing and a parameter carries a prior."""
    if spec.missing and priors:
        raise ValueError(
            f"priors of parameters ({', '.join(priors)}) need complete data: fill missing entries or drop those rows, or "
            "declare no priors and fit by EM"
        )


class Given(NamedTuple):
    """How a parameter enters a program: its prior if it has one, its support and its value before any data are seen."""

    prior: Prior | None
    support: Support
    start: Tensor

    def build(self, name: str) -> Drawn | Estimated:
        """The parameter as a module whose call returns its value."""
        if self.prior is None:
            return Estimated(self.start, CONSTRAINTS[self.support])
        return Drawn(name, self.prior.build(tuple(self.start.shape)), self.start)


class Drawn(nn.Module):
    """A parameter with a prior: a global site of the program. The buffer ``point`` is its estimate once a method found one."""

    point: Tensor
    prior: Any

    def __init__(self, site: str, prior: nn.Module, start: Tensor) -> None:
        super().__init__()
        self.site = site
        self.prior = prior
        self.register_buffer("point", start.clone())
        self.draw: Tensor | None = None

    def forward(self) -> Tensor:
        """Draw it."""
        return pyro.sample(self.site, self.prior())

    @property
    def value(self) -> Tensor:
        """The draw inside ``BayesianModel.given``, else the point estimate."""
        return self.point if self.draw is None else self.draw

    def assign(self, value: Tensor) -> None:
        """Write the point estimate."""
        self.point.copy_(value)


class Estimated(nn.Module):
    """A parameter without a prior, ``raw`` in unconstrained coordinates."""

    def __init__(self, start: Tensor, constraint: Any) -> None:
        super().__init__()
        self.transform = transform_to(constraint)
        self.raw = nn.Parameter(self.transform.inv(start).clone())

    def forward(self) -> Tensor:
        """Its value."""
        return self.value

    @property
    def value(self) -> Tensor:
        """Its value."""
        return self.transform(self.raw)

    def assign(self, value: Tensor) -> None:
        """Write the estimate."""
        self.raw.copy_(self.transform.inv(value))


class Coordinates:
    """All drawn parameters as one vector ``(..., P)`` of real numbers, in which guides and samplers move."""

    def __init__(self, priors: Mapping[str, dist.Distribution]) -> None:
        self.priors = priors
        self.transforms = {name: biject_to(prior.support) for name, prior in priors.items()}
        self.shapes = {name: self.transforms[name].inverse_shape(prior.event_shape) for name, prior in priors.items()}
        self.size = sum(map(math.prod, self.shapes.values()))

    def pack(self, values: Values) -> Tensor:
        """From values ``(..., *event)`` by name to the vector."""
        parts = []
        for name, transform in self.transforms.items():
            raw = transform.inv(values[name])
            parts.append(raw.reshape(*raw.shape[: raw.dim() - len(self.shapes[name])], -1))
        return torch.cat(parts, -1)

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """The vector's parts by name, in their unconstrained shapes."""
        parts = vector.split([math.prod(shape) for shape in self.shapes.values()], -1)
        return {
            name: part.reshape(*part.shape[:-1], *shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def unpack(self, vector: Tensor) -> dict[str, Tensor]:
        """From the vector to values by name."""
        return {name: self.transforms[name](part) for name, part in self.split(vector).items()}

    def log_prior(self, vector: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """The values at a vector ``(P,)``, log p(theta), and the log of the volume that the coordinates add to it."""
        values, density, volume = {}, vector.new_zeros(()), vector.new_zeros(())
        for name, part in self.split(vector).items():
            values[name] = self.transforms[name](part)
            density = density + self.priors[name].log_prob(values[name])
            volume = volume + self.transforms[name].log_abs_det_jacobian(part, values[name]).sum()
        return values, density, volume


class BayesianModel(PyroModule):
    """What programs with priors on their parameters share.

    Args:
        size: N, the number of training data.
        theta: the parameters by name, in the order of the story.
    """

    theta: Any

    def __init__(self, size: int, theta: Mapping[str, Given]) -> None:
        super().__init__()
        self.size = size
        self.theta = nn.ModuleDict({name: given.build(name) for name, given in theta.items()})

    def draw(self) -> dict[str, Tensor]:
        """Every parameter, drawn where it has a prior: the story's first lines."""
        return {name: parameter() for name, parameter in self.theta.items()}

    @property
    def drawn(self) -> dict[str, Drawn]:
        """The parameters that carry a prior."""
        return {name: parameter for name, parameter in self.theta.items() if isinstance(parameter, Drawn)}

    @property
    def parameter_sites(self) -> tuple[str, ...]:
        """The names of their sites."""
        return tuple(self.drawn)

    @property
    def values(self) -> dict[str, Tensor]:
        """Every parameter: its draw inside :meth:`given`, else its point estimate."""
        return {name: parameter.value for name, parameter in self.theta.items()}

    def coordinates(self) -> Coordinates:
        """The drawn parameters as one vector."""
        return Coordinates({name: parameter.prior() for name, parameter in self.drawn.items()})

    @contextlib.contextmanager
    def given(self, draws: Values) -> Iterator[None]:
        """Everything the program offers at these draws of its parameters, not at the point estimates."""
        try:
            for name, parameter in self.drawn.items():
                parameter.draw = draws[name]
            yield
        finally:
            for parameter in self.drawn.values():
                parameter.draw = None

    @torch.no_grad()
    def assign(self, values: Values) -> None:
        """Write point estimates into the program."""
        for name, value in values.items():
            self.theta[name].assign(value)


class BayesianFactorModel(BayesianModel):
    """Factor analysis, z standard normal: ``weights (D, K)``, ``loc (D,)``, ``scale (D,)``, or ``(1,)`` if isotropic.

    Noise scales below ``floor`` count as ``floor``. An event of several axes is modelled as one vector of D elements.
    """

    learning_rate = 2e-2
    supports: Mapping[str, Support] = {"weights": "real", "loc": "real", "scale": "positive"}

    def __init__(
        self, *, size: int, columns: int, latent_dim: int, isotropic: bool, floor: float, priors: Mapping[str, Prior]
    ) -> None:
        starts = {
            "weights": torch.randn(columns, latent_dim) / latent_dim**0.5,
            "loc": torch.zeros(columns),
            "scale": torch.full((1 if isotropic else columns,), max(0.5, 2 * floor)),
        }
        super().__init__(size, {name: Given(priors.get(name), self.supports[name], start) for name, start in starts.items()})
        self.latent_shape = (latent_dim,)
        self.isotropic = isotropic
        self.floor = floor
        self.prior = StandardNormal().build(self.latent_shape)

    def forward(self, x: Tensor) -> Tensor:
        """The story, with the batch x ``(B, *event)`` observed."""
        theta = self.draw()
        with data_plate(self.size, x):
            z = pyro.sample("z", self.prior())
            return pyro.sample("x", self.likelihood(z, **theta), obs=x.flatten(1))

    def likelihood(self, z: Tensor, weights: Tensor, loc: Tensor, scale: Tensor) -> dist.Distribution:
        """p(x | z, theta) for z ``(..., K)``."""
        mean = torch.einsum("...dk,...k->...d", weights, z) + loc
        return dist.Normal(mean, scale.clamp_min(self.floor)).to_event(1)

    def decode(self, z: Tensor) -> dist.Distribution:
        """p(x | z) for z ``(..., K)``."""
        return self.likelihood(z, **self.values)

    @property
    def parameters_em(self) -> linear_gaussian.Parameters:
        """Mu ``(D,)``, W ``(D, K)`` and the noise variances psi ``(D,)``, in float64."""
        return self._em(self.values)

    @property
    def loadings(self) -> Tensor:
        """W ``(D, K)``, which the likelihood fixes only up to a rotation."""
        return self.values["weights"].detach()

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log p(x) of each datum at the point estimates, in nats, ``(B,)``; computed in float64."""
        return exact.log_prob(self.parameters_em, x.flatten(1).double())

    def posterior(self, x: Tensor) -> dist.Distribution:
        """The exact p(z | x, theta) of each datum, x ``(B, *event)``; draws may lie in a batch left of the data's."""
        loc, W, psi = self.parameters_em
        scaled = W / psi.unsqueeze(-1)
        precision = torch.eye(W.shape[-1], dtype=W.dtype, device=W.device) + W.mT @ scaled
        covariance = torch.cholesky_inverse(torch.linalg.cholesky(precision))
        projected = torch.einsum("...dk,...d->...k", scaled, x.flatten(1) - loc)
        mean = torch.einsum("...jk,...k->...j", covariance, projected)
        return dist.MultivariateNormal(mean.to(x.dtype), scale_tril=torch.linalg.cholesky(covariance).to(x.dtype))

    def log_likelihood(self, rows: Any) -> Callable[[Values], Tensor]:
        """From all parameters by name to log p(rows | theta) in nats, z integrated out; its cost does not grow with N."""
        seen = moments.moments(rows)
        return lambda values: seen.rows * linear_gaussian.log_likelihood(self._em(values), seen)

    def align(self, draws: Values) -> dict[str, Tensor]:
        """Draws ``(S, ...)`` with each one's loadings rotated towards the point estimate's: p(x) knows no rotation."""
        W = draws["weights"]
        U, _, V = torch.linalg.svd(W.mT @ self.loadings.to(W))
        return {**draws, "weights": W @ (U @ V)}

    def start_fit(self, context: Start) -> None:
        """Start where EM starts, so that methods differ only in how they go on."""
        seen = moments.moments(context.rows)
        floor = linear_gaussian.noise_floor(seen).clamp_min(self.floor**2)
        loc, W, noise = profile.initial(seen, self.latent_shape[0], floor=floor)
        scale = noise.mean(0, keepdim=True).sqrt() if self.isotropic else noise.sqrt()
        self.assign({"weights": W, "loc": loc, "scale": scale})

    def _em(self, values: Values) -> linear_gaussian.Parameters:
        loc = values["loc"].double()
        noise = values["scale"].double().clamp_min(self.floor).square()
        noise = noise.expand(*noise.shape[:-1], loc.shape[-1])
        return linear_gaussian.Parameters(loc, values["weights"].double(), noise)


class BayesianMixtureModel(BayesianModel):
    """Gaussian mixture: ``weights (C,)``, ``locs (C, D)`` and its spread.

    ``covariances`` ``(C, D, D)`` full, ``(D, D)`` tied, or ``scales`` ``(C, D)`` diagonal, ``(C, 1)`` spherical; scales below
    ``floor`` count as ``floor``. An event of several axes is modelled as one vector of D elements.
    """

    learning_rate = 1e-2
    supports: Mapping[str, Support] = {
        "weights": "simplex",
        "locs": "real",
        "scales": "positive",
        "covariances": "covariance",
    }

    def __init__(
        self, *, size: int, columns: int, components: int, structure: str, floor: float, priors: Mapping[str, Prior]
    ) -> None:
        C, D = components, columns
        spread = SPREADS[structure](floor)
        starts = {
            "weights": torch.full((C,), 1 / C),
            "locs": torch.randn(C, D),
            spread.site: spread.start(C, D),
        }
        super().__init__(size, {name: Given(priors.get(name), self.supports[name], start) for name, start in starts.items()})
        self.spread = spread
        self.structure = covariances.covariance(structure)
        self.floor = floor
        self.latent_shape = (C,)

    def forward(self, x: Tensor) -> Tensor:
        """The story, with the batch x ``(B, *event)`` observed."""
        theta = self.draw()
        locs, scale_tril = theta["locs"], self.spread.scale_tril(theta)
        with data_plate(self.size, x):
            k = pyro.sample("k", dist.Categorical(probs=theta["weights"]))
            loc, L = Vindex(locs)[..., k, :], Vindex(scale_tril)[..., k, :, :]
            return pyro.sample("x", dist.MultivariateNormal(loc, scale_tril=L, validate_args=False), obs=x.flatten(1))

    @property
    def parameters_em(self) -> mixture.Parameters:
        """Weights ``(C,)``, means ``(C, D)`` and covariances in the shape of their structure, in float64."""
        values = {name: value.double() for name, value in self.values.items()}
        return mixture.Parameters(values["weights"], values["locs"], self.spread.covariances(values))

    def prior(self) -> dist.Distribution:
        """p(k), one-hot, whose mean is pi."""
        return dist.OneHotCategorical(probs=self.values["weights"])

    def decode(self, z: Tensor) -> dist.Distribution:
        """p(x | k) for one-hot z ``(..., C)``; responsibilities give the mean and covariance averaged by them."""
        values = self.values
        L = self.spread.scale_tril(values)
        return dist.MultivariateNormal(z @ values["locs"], covariance_matrix=torch.einsum("...c,cij->...ij", z, L @ L.mT))

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log p(x) of each datum at the point estimates, in nats, ``(B,)``; computed in float64."""
        return mixture.log_prob(self.parameters_em, x.flatten(1), self.structure)

    def posterior(self, x: Tensor) -> dist.Distribution:
        """The exact p(k | x, theta) of each datum, one-hot; draws may lie in a batch left of the data's."""
        return dist.OneHotCategorical(logits=self._joint(self.values, x).to(x.dtype))

    def log_likelihood(self, rows: Any) -> Callable[[Values], Tensor]:
        """From all parameters by name to log p(rows | theta) in nats, k summed out."""
        x = torch.cat(list(rows))
        return lambda values: self._joint(values, x).logsumexp(-1).sum()

    def align(self, draws: Values) -> dict[str, Tensor]:
        """The draws as they are: chains start at one labelling and seldom leave it."""
        return dict(draws)

    def start_fit(self, context: Start) -> None:
        """Start where EM starts, so that methods differ only in how they go on."""
        components, floor, generator = self.latent_shape[0], self.floor**2, context.generator()
        start = mixture_start.initial(context.rows, components, self.structure, generator=generator, floor=floor)
        self.assign({"weights": start.weights, "locs": start.locs, **self.spread.values(start.covariances)})

    def _joint(self, values: Values, x: Tensor) -> Tensor:
        """Log p(k, x | theta), ``(..., B, C)``, in float64."""
        theta = {name: value.double() for name, value in values.items()}
        L = self.spread.scale_tril(theta)
        gaps = x.flatten(1).double().mT - theta["locs"].unsqueeze(-1)  # (..., C, D, B): one solve for all rows
        distance = torch.linalg.solve_triangular(L, gaps, upper=False).square().sum(-2)
        constant = theta["weights"].log() - L.diagonal(dim1=-2, dim2=-1).log().sum(-1) - L.shape[-1] / 2 * math.log(2 * math.pi)
        joint = (constant.unsqueeze(-1) - distance / 2).mT
        return joint if joint.dim() == 2 else joint.squeeze(-3)  # draws stand left of the data's axis, which they have not


RIDGE = 1e-3  # of the mean variance, added to where covariances start: constant columns would be singular in float32


class Full:
    """One covariance matrix for each component."""

    site = "covariances"

    def __init__(self, floor: float) -> None:
        self.floor = floor

    def start(self, components: int, columns: int) -> Tensor:
        """Identities."""
        return torch.eye(columns).repeat(components, 1, 1)

    def scale_tril(self, values: Values) -> Tensor:
        """Cholesky factors ``(..., C, D, D)``."""
        return torch.linalg.cholesky(values[self.site])

    def covariances(self, values: Values) -> Tensor:
        """What ``ppl_vae.exact`` calls the covariances of this structure."""
        return values[self.site]

    def values(self, estimate: Tensor) -> dict[str, Tensor]:
        """A start of the parameter by name from what ``ppl_vae.exact`` calls the covariances."""
        variance = estimate.diagonal(dim1=-2, dim2=-1)
        return {self.site: estimate + RIDGE * variance.mean(-1, keepdim=True).expand_as(variance).diag_embed()}


class Tied(Full):
    """One covariance matrix for all components."""

    def start(self, components: int, columns: int) -> Tensor:
        """An identity."""
        return torch.eye(columns)

    def scale_tril(self, values: Values) -> Tensor:
        """Cholesky factors ``(..., C, D, D)``."""
        C, D = values["locs"].shape[-2:]
        L = torch.linalg.cholesky(values[self.site]).unsqueeze(-3)
        return L.expand(*L.shape[:-3], C, D, D)


class Diagonal(Full):
    """One scale for each component and column."""

    site = "scales"

    def start(self, components: int, columns: int) -> Tensor:
        """Ones."""
        return torch.ones(components, columns)

    def scale_tril(self, values: Values) -> Tensor:
        """Cholesky factors ``(..., C, D, D)``."""
        C, D = values["locs"].shape[-2:]
        scales = values[self.site].clamp_min(self.floor)
        return scales.expand(*scales.shape[:-2], C, D).diag_embed()

    def covariances(self, values: Values) -> Tensor:
        """Variances ``(C, D)``."""
        return values[self.site].clamp_min(self.floor).square()

    def values(self, estimate: Tensor) -> dict[str, Tensor]:
        """Scales from variances."""
        return {self.site: estimate.sqrt()}


class Spherical(Diagonal):
    """One scale for each component."""

    def start(self, components: int, columns: int) -> Tensor:
        """Ones."""
        return torch.ones(components, 1)

    def covariances(self, values: Values) -> Tensor:
        """Variances ``(C,)``."""
        return super().covariances(values).squeeze(-1)

    def values(self, estimate: Tensor) -> dict[str, Tensor]:
        """Scales from variances."""
        return {self.site: estimate.sqrt().unsqueeze(-1)}


SPREADS: dict[str, type[Full]] = {"full": Full, "tied": Tied, "diagonal": Diagonal, "spherical": Spherical}
