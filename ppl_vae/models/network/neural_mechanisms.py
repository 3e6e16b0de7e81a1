"""Built nodes whose distributions are given by neural networks.

Their state is empty: the weights are the module's own, and no step of EM changes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Generator, Tensor, nn
from torch.distributions import constraints

from ppl_vae.exact.elimination import ROWS, Factor
from ppl_vae.likelihoods import Likelihood
from ppl_vae.models.network.nodes import DiscreteMechanism, Facts, Mechanism, Node, State
from ppl_vae.nn import Network
from ppl_vae.nn.base import Flattened

__all__ = ["NeuralNumber", "NeuralStates"]


class Features(nn.Module):
    """From values of the parents to features of the likelihood ``(..., P)``, and these to a distribution."""

    like: Tensor

    def __init__(self, facts: Facts, network: Network, likelihood: Likelihood) -> None:
        super().__init__()
        self.facts = facts
        inputs = sum(facts.cards) + len(facts.numbers)
        self.network = network.build((max(inputs, 1),), (likelihood.features,))
        self.likelihood = likelihood.build(())
        self.log_mean = likelihood.log_mean
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def forward(self, values: Mapping[str, Tensor]) -> Any:
        """The distribution at places of states and standardized numbers."""
        parts = [
            nn.functional.one_hot(values[name].long(), card).to(self.like)
            for name, card in zip(self.facts.switches, self.facts.cards, strict=True)
        ]
        parts += [values[name].to(self.like).unsqueeze(-1) for name in self.facts.numbers]
        if not parts:
            return self.likelihood(self.network(self.like.new_ones(1)))
        batch = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
        return self.likelihood(self.network(torch.cat([part.expand(*batch, -1) for part in parts], -1)))

    def everywhere(self, numbers: Mapping[str, Tensor]) -> Any:
        """The distributions in every joint state of the parents, ``(n or 1, C)``."""
        axes = [torch.arange(card, device=self.like.device) for card in self.facts.cards]
        places = [grid.flatten() for grid in torch.meshgrid(*axes, indexing="ij")] if axes else []
        values = dict(zip(self.facts.switches, (place.unsqueeze(0) for place in places), strict=True))
        return self({**values, **{name: numbers[name].unsqueeze(-1) for name in self.facts.numbers}})


class NeuralStates(DiscreteMechanism):
    """A built node with states."""

    by_gradient = True

    def __init__(self, facts: Facts, declared: Node, network: Network, likelihood: Likelihood) -> None:
        super().__init__(facts, declared)
        self.features = Features(facts, network, likelihood)

    @property
    def state(self) -> State:
        """Nothing."""
        return ()

    @property
    def free_parameters(self) -> int:
        """Weights."""
        return sum(weights.numel() for weights in self.parameters())

    def assign(self, state: State) -> None:
        """Nothing to write."""

    def distribution(self, values: Mapping[str, Tensor]) -> dist.Distribution:
        """A categorical at values of the parents."""
        return dist.Categorical(logits=self._logits(self.features(values)))

    def factor(self, state: State, numbers: Mapping[str, Tensor]) -> Factor:
        """The probabilities in every joint state of the parents, of each row where the node hangs on numbers."""
        names, shape = (*self.facts.switches, self.facts.name), (*self.facts.cards, len(self.facts.states))
        probs = self._logits(self.features.everywhere(numbers)).double().softmax(-1)
        if not self.facts.numbers:
            return Factor(probs.reshape(shape), names)
        return Factor(probs.reshape(-1, *shape), (ROWS, *names))

    def statistics(self, expected: Tensor, numbers: Mapping[str, Tensor]) -> Any:
        """Nothing."""
        return ()

    def maximized(self, state: State, found: Sequence[Any]) -> State:
        """Nothing."""
        return ()

    def initial(self, marginal: Tensor, generator: Generator) -> State:
        """Nothing: weights are random from the beginning."""
        return ()

    def remark(self, found: Sequence[Any]) -> str:
        """Nothing."""
        return ""

    def _logits(self, p: Any) -> Tensor:
        """Log-probabilities of all places ``(..., L)``."""
        levels = range(len(self.facts.states))
        return torch.stack([p.log_prob(self.features.like.new_full((), place)) for place in levels], -1)


class NeuralNumber(Mechanism):
    """A built node that is a number; ``loc`` and ``unit`` are its standard units, which its likelihood may see or not."""

    by_gradient = True

    loc: Tensor
    unit: Tensor

    def __init__(self, facts: Facts, declared: Node, network: Network, likelihood: Likelihood) -> None:
        super().__init__(facts, declared)
        self.features = Features(facts, network, likelihood)
        self.unit_free = declared.unit_free
        self.whole, self.filler = likelihood.discrete, likelihood.filler
        self.register_buffer("loc", torch.zeros((), dtype=torch.float64))
        self.register_buffer("unit", torch.ones((), dtype=torch.float64))

    @property
    def state(self) -> State:
        """Nothing."""
        return ()

    @property
    def free_parameters(self) -> int:
        """Weights, and parameters of the likelihood."""
        return sum(weights.numel() for weights in self.parameters())

    def assign(self, state: State) -> None:
        """Nothing to write."""

    @torch.no_grad()
    def measure(self, loc: Mapping[str, Tensor], unit: Mapping[str, Tensor]) -> None:
        """Take new standard units; a likelihood of a logarithm of the mean starts at the mean."""
        name, log_mean, network = self.facts.name, self.features.log_mean, self.features.network
        self.loc.copy_(loc[name])
        self.unit.copy_(unit[name])
        if log_mean is not None and isinstance(network, Flattened):
            start = self.features.like.new_zeros(network.out_shape)
            start[log_mean] = loc[name].clamp_min(1e-3).log()
            network.start_at(start)

    def rounded(self, values: Tensor) -> Tensor:
        """Whole numbers where the likelihood is one of whole numbers."""
        return values.round() if self.whole else values

    def distribution(self, values: Mapping[str, Tensor]) -> Any:
        """In the units of what the model sees."""
        return self._in_units(self.features(values))

    def everywhere(self, numbers: Mapping[str, Tensor]) -> Any:
        """The distributions in every joint state of the parents ``(n or 1, C)``, in the units of what the model sees."""
        return self._in_units(self.features.everywhere(numbers))

    def factor(self, values: Tensor, numbers: Mapping[str, Tensor]) -> tuple[Factor, Tensor]:
        """The density of values ``(n,)`` in each joint state of the parents, and the log of what it is divided by.

        Args:
            values: in standard units, as are the parents that are numbers; where they are NaN they say nothing.
            numbers: these parents.
        """
        natural = self.rounded(self.loc + self.unit * values)
        p, x = self.seen(self.everywhere(numbers), natural.unsqueeze(-1).to(self.features.like))
        found = p.log_prob(x).double() + torch.where(values.isnan(), 0.0, self.unit.log()).unsqueeze(-1)
        highest = found.amax(-1, keepdim=True).nan_to_num(neginf=0.0)
        return Factor((found - highest).exp().reshape(-1, *self.facts.cards), (ROWS, *self.facts.switches)), highest[:, 0]

    def seen(self, p: Any, x: Tensor) -> tuple[Any, Tensor]:
        """The distribution of which values that are missing (NaN) say nothing, and values inside its support."""
        known = ~x.isnan()
        return p.mask(known), torch.where(known, x, self.filler)

    def _in_units(self, p: Any) -> Any:
        like = self.features.like
        return Rescaled(p, self.loc.to(like), self.unit.to(like)) if self.unit_free else p


class Rescaled(dist.TorchDistribution):
    """loc + unit y for y of another distribution of numbers."""

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, base: Any, loc: Tensor, unit: Tensor) -> None:
        self.base, self.loc, self.unit = base, loc, unit
        super().__init__(base.batch_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """Real numbers."""
        return constraints.real

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self.loc + self.unit * self.base.mean

    @property
    def variance(self) -> Tensor:
        """The variance."""
        return self.unit.square() * self.base.variance

    def expand(self, batch_shape: Any, _instance: Any = None) -> Rescaled:
        """The same of a larger batch."""
        return Rescaled(self.base.expand(torch.Size(batch_shape)), self.loc, self.unit)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density."""
        found: Tensor = self.base.log_prob((value - self.loc) / self.unit) - self.unit.log()
        return found

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws."""
        return self.loc + self.unit * self.base.sample(torch.Size(sample_shape))
