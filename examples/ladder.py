"""A model of one's own with two levels of latent variables, and its guide; what they inherit is all that a fit can be asked.

z2 ~ Normal(0, I);   z1 | z2 ~ Normal(f(z2), s(z2)^2);   x | z1 ~ p(x | decoder(z1));   q(z2, z1 | x) = q(z2 | x) q(z1 | z2, x)
"""

# ruff: noqa: D101, D102
import dataclasses

import pyro.distributions as dist
from torch import Tensor, nn

import ppl_vae as pv
from ppl_vae.models.decoded import Decoded
from ppl_vae.program.base import GuideProgram, ModelProgram
from ppl_vae.program.joint import Joint

TOP = 2


def normal(parameters: Tensor) -> dist.Distribution:
    loc, log_scale = parameters.chunk(2, dim=-1)
    return dist.Normal(loc, log_scale.exp()).to_event(1)


class LadderProgram(ModelProgram):
    def __init__(self, declared: "Ladder", spec: pv.DataSpec) -> None:
        super().__init__()
        self.size, K = spec.size, declared.latent_dim
        self.below = nn.Sequential(nn.Linear(TOP, 32), nn.Tanh(), nn.Linear(32, 2 * K))
        self.decoder = declared.decoder.build((K,), (declared.likelihood.features, *spec.event_shape))
        self.likelihood = declared.likelihood.build(spec.event_shape)

    def prior(self) -> Joint:
        z2 = dist.Normal(self.below[0].weight.new_zeros(TOP), 1.0).to_event(1)
        return Joint({"z2": z2, "z1": lambda z: normal(self.below(z["z2"]))})

    def decode(self, z: dict[str, Tensor]) -> dist.Distribution:
        return self.likelihood(self.decoder(z["z1"]))


class LadderGuideProgram(GuideProgram):
    def __init__(self, declared: "LadderGuide", model: LadderProgram, spec: pv.DataSpec) -> None:
        super().__init__()
        self.size, (K,) = spec.size, model.sites["z1"].event_shape
        self.encoder = declared.encoder.build(spec.event_shape, (2 * TOP + 2 * K,))
        self.below = nn.Linear(TOP, 2 * K)

    def posterior(self, x: Tensor) -> Joint:
        return self.at(*self.local(x))

    def local(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.encoder(x).tensor_split([2 * TOP], dim=-1))

    def at(self, *local: Tensor) -> Joint:
        return Joint({"z2": normal(local[0]), "z1": lambda z: normal(local[1] + self.below(z["z2"]))})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ladder(Decoded):
    latent_dim: int = 4
    likelihood: pv.Likelihood = pv.Bernoulli()
    decoder: pv.Network = pv.MLP(hidden=(64,))

    def build(self, spec: pv.DataSpec) -> LadderProgram:
        return LadderProgram(self, spec)

    def story(self) -> str:
        return f"z2 ~ Normal(0, I); z1 | z2 ~ Normal(f(z2), s(z2)^2); x | z1 ~ {self.likelihood.story('MLP(z1)')}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LadderGuide(pv.Guide):
    encoder: pv.Network = pv.MLP(hidden=(64,))

    def build(self, model: LadderProgram, spec: pv.DataSpec) -> LadderGuideProgram:
        return LadderGuideProgram(self, model, spec)

    def story(self) -> str:
        return f"q(z2 | x) q(z1 | z2, x), both Normal(mu, diag(sigma^2)), by {self.encoder.story('x')}"
