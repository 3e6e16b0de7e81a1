"""Plain Pyro pairs, with what the sum of their terms is called and whether a datum has importance weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoDelta, AutoGuideList, AutoLowRankMultivariateNormal, AutoNormal
from pyro.nn import PyroModule, PyroSample
from torch import Tensor
from torch.distributions import constraints

import ppl_vae as pv

N = 30
ROWS = 12


class Programs(NamedTuple):
    """A model and a guide of rows ``(B, 2)``, of which there are 30."""

    model: Callable[..., Any]
    guide: Callable[..., Any]


class Case(NamedTuple):
    """How the programs are made, what their sum is, and whether ``iwae`` is told."""

    programs: Callable[[], Programs]
    score: str = "elbo"
    weighted: bool = True


def data() -> Tensor:
    return 1 + torch.randn(ROWS, 2, generator=torch.Generator().manual_seed(0))


def q_loc(x: Tensor) -> Tensor:
    return x[:, 0] * pyro.param("slope", torch.tensor(0.4))


def conjugate(plate: Callable[[Tensor], Any] = lambda x: pv.data_plate(N, x)) -> Programs:
    def model(x: Tensor) -> None:
        with plate(x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    def guide(x: Tensor) -> None:
        with plate(x):
            pyro.sample("z", dist.Normal(q_loc(x), 0.6))

    return Programs(model, guide)


def two_observed() -> Programs:
    def model(x: Tensor) -> None:
        pyro.sample("total", dist.Normal(0.0, 9.0), obs=torch.tensor(3.0))
        with pv.data_plate(N, x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.deterministic("twice", 2 * z)
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])
            pyro.sample("y", dist.Poisson(z.exp()), obs=x[:, 1].abs().floor())

    return Programs(model, conjugate().guide)


def rows_by_index() -> Programs:
    """Rows drawn with replacement."""
    return conjugate(lambda x: pyro.plate("data", N, subsample=torch.randint(N, (len(x),))))


def data_on_the_left(subsample_size: int | None = None) -> Programs:
    """A plate of ten inside of that over the data, of which a run sees all or some."""

    def plates(x: Tensor) -> tuple[Any, Any]:
        return pyro.plate("data", N, subsample=x, dim=-2), pyro.plate("inner", 10, subsample_size=subsample_size, dim=-1)

    def model(x: Tensor) -> None:
        outer, inner = plates(x)
        with outer:
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with inner as index:
                w = pyro.sample("w", dist.Normal(z, 1.0))
                pyro.sample("x", dist.Normal(w, 1.0), obs=x[:, :1] + index)

    def guide(x: Tensor) -> None:
        outer, inner = plates(x)
        with outer:
            pyro.sample("z", dist.Normal(q_loc(x)[:, None], 0.5))
            with inner:
                pyro.sample("w", dist.Normal(x[:, :1], 0.8))

    return Programs(model, guide)


def one_row_after_another() -> Programs:
    """A sequential plate of which a run sees a half."""

    def model(x: Tensor) -> None:
        with pv.data_plate(N, x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            for step in pyro.plate("steps", 4, subsample_size=2):
                pyro.sample(f"x_{step}", dist.Normal(z, 1.0), obs=x[:, step % 2])

    return Programs(model, conjugate().guide)


def masked(model_mask: Tensor | bool, guide_mask: Tensor | bool) -> Programs:
    def program(mask: Tensor | bool, is_model: bool) -> Callable[[Tensor], None]:
        def run(x: Tensor) -> None:
            with pv.data_plate(N, x), poutine.mask(mask=mask):
                z = pyro.sample("z", dist.Normal(0.0, 1.0) if is_model else dist.Normal(q_loc(x), 0.6))
                if is_model:
                    pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

        return run

    return Programs(program(model_mask, True), program(guide_mask, False))


def half_observed() -> Programs:
    """An entry that is missing is a latent variable of its datum."""
    seen = torch.arange(ROWS) % 3 > 0

    def model(x: Tensor) -> None:
        with pv.data_plate(N, x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0], obs_mask=seen[: len(x)])

    def guide(x: Tensor) -> None:
        with pv.data_plate(N, x):
            pyro.sample("z", dist.Normal(q_loc(x), 0.6))
            with poutine.mask(mask=~seen[: len(x)]):
                pyro.sample("x_unobserved", dist.Normal(0.0, 2.0))

    return Programs(model, guide)


def scaled(latent: float, likelihood: float) -> Programs:
    def model(x: Tensor) -> None:
        with pv.data_plate(N, x):
            with poutine.scale(scale=latent):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with poutine.scale(scale=likelihood):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    return Programs(model, poutine.scale(conjugate().guide, latent))


def factor_in_model() -> Programs:
    def model(x: Tensor) -> None:
        with pv.data_plate(N, x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.factor("x", -(z - x[:, 0]).abs())

    return Programs(model, conjugate().guide)


def beside_the_guide(term: Callable[[Tensor], Any]) -> Programs:
    def guide(x: Tensor) -> None:
        with pv.data_plate(N, x):
            pyro.sample("z", dist.Normal(q_loc(x), 0.6))
            term(x)

    return Programs(conjugate().model, guide)


def loss_in_guide() -> Programs:
    return beside_the_guide(lambda x: pyro.factor("loss", x[:, 1] - 3, has_rsample=False))


def density_in_guide() -> Programs:
    return beside_the_guide(lambda x: pyro.factor("volume", x[:, 1] - 3, has_rsample=True))


def observed_in_guide() -> Programs:
    return beside_the_guide(lambda x: pyro.sample("label", dist.Normal(0.0, 1.0), obs=x[:, 1], infer={"is_auxiliary": True}))


def point() -> Programs:
    def guide(x: Tensor) -> None:
        with pv.data_plate(N, x):
            pyro.sample("z", dist.Delta(q_loc(x)))

    return Programs(conjugate().model, guide)


SUMMED = {"enumerate": "parallel"}


def mixture() -> Programs:
    def model(x: Tensor) -> None:
        loc = pyro.param("loc", torch.tensor([-1.0, 1.5]))
        with pv.data_plate(N, x):
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.7])), infer=SUMMED)
            pyro.sample("x", dist.Normal(loc[k], 1.0), obs=x[:, 0])

    return Programs(model, lambda x: None)


def mixture_prior() -> Programs:
    """The latent variable comes from a mixture whose component is summed out."""

    def model(x: Tensor) -> None:
        loc = pyro.param("loc", torch.tensor([-1.0, 1.5]))
        with pv.data_plate(N, x):
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.7])), infer=SUMMED)
            z = pyro.sample("z", dist.Normal(loc[k], 0.5))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    return Programs(model, conjugate().guide)


def hidden_markov() -> Programs:
    """Two steps of a chain of two states, and a component that both see."""

    def model(x: Tensor) -> None:
        loc = pyro.param("loc", torch.tensor([-1.0, 1.5]))
        stay = torch.tensor([[0.8, 0.2], [0.4, 0.6]])
        with pv.data_plate(N, x):
            c = pyro.sample("c", dist.Bernoulli(0.3), infer=SUMMED)
            state: Any = torch.tensor(0)
            for step in pyro.markov(range(2)):
                state = pyro.sample(f"state_{step}", dist.Categorical(stay[state]), infer=SUMMED)
                pyro.sample(f"x_{step}", dist.Normal(loc[state] + c, 1.0), obs=x[:, step])

    return Programs(model, lambda x: None)


def topics() -> Programs:
    """A proportion for each datum, a summed topic for each of its entries."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", N, subsample=x, dim=-2):
            share = pyro.sample("share", dist.Beta(2.0, 2.0))
            with pyro.plate("entries", 2, dim=-1):
                topic = pyro.sample("topic", dist.Bernoulli(share), infer=SUMMED)
                pyro.sample("x", dist.Normal(3 * topic, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        a = pyro.param("a", torch.tensor(3.0), constraint=constraints.positive)
        with pyro.plate("data", N, subsample=x, dim=-2):
            pyro.sample("share", dist.Beta(a, 2.0).expand([len(x), 1]))

    return Programs(model, guide)


def summed_in_both() -> Programs:
    """One discrete variable is summed in the guide, another in the model."""

    def model(x: Tensor) -> None:
        loc = pyro.param("loc", torch.tensor([-1.0, 1.5]))
        with pv.data_plate(N, x):
            j = pyro.sample("j", dist.Bernoulli(0.4), infer=SUMMED)
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.7])), infer=SUMMED)
            pyro.sample("x", dist.Normal(loc[k] + j, 1.0), obs=x[:, 0])

    def guide(x: Tensor) -> None:
        with pv.data_plate(N, x):
            pyro.sample("j", dist.Bernoulli(torch.sigmoid(q_loc(x))), infer=SUMMED)

    return Programs(model, guide)


def shared() -> Callable[[Tensor], None]:
    def model(x: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 3.0))
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pv.data_plate(N, x):
            pyro.sample("x", dist.Normal(mu, scale), obs=x[:, 0])

    return model


def automatic(guide: Callable[[Callable], Any]) -> Programs:
    model = shared()
    return Programs(model, guide(model))


def two_guides(model: Callable) -> AutoGuideList:
    guides = AutoGuideList(model)
    guides.append(AutoNormal(poutine.block(model, expose=["mu"])))
    guides.append(AutoDelta(poutine.block(model, expose=["scale"])))
    return guides


class Regression(PyroModule):
    """Its slope has a prior."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = PyroModule[torch.nn.Linear](1, 1)
        self.layer.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 1]).to_event(2))

    def forward(self, x: Tensor) -> None:
        mean = self.layer(x[:, :1])[..., 0]
        with pv.data_plate(N, x):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x[:, 1])


def regression() -> Programs:
    model = Regression()
    return Programs(model, AutoNormal(model))


PROGRAMS: dict[str, Case] = {
    "conjugate": Case(conjugate),
    "plate without a size": Case(lambda: conjugate(lambda x: pyro.plate("data", len(x)))),
    "two observed": Case(two_observed),
    "rows drawn with replacement": Case(rows_by_index),
    "data on the left": Case(data_on_the_left),
    "nested plate in part": Case(lambda: data_on_the_left(3), weighted=False),
    "sequential plate in part": Case(one_row_after_another, weighted=False),
    "mask of both": Case(lambda: masked(torch.arange(ROWS) % 2 > 0, torch.arange(ROWS) % 2 > 0)),
    "mask of the model": Case(lambda: masked(torch.arange(ROWS) % 2 > 0, True), "weighted_objective", False),
    "obs_mask": Case(half_observed),
    "scale of both terms": Case(lambda: scaled(3.0, 3.0), "weighted_objective", False),
    "scale of the KL": Case(lambda: scaled(0.1, 1.0), "weighted_objective", False),
    "scale of the likelihood": Case(lambda: scaled(1.0, 2.0), "weighted_objective", False),
    "scale of one": Case(lambda: scaled(1.0, 1.0)),
    "factor in the model": Case(factor_in_model, "unnormalized_objective", False),
    "density in the guide": Case(density_in_guide, "unnormalized_objective", False),
    "loss in the guide": Case(loss_in_guide),
    "observed in the guide": Case(observed_in_guide),
    "point": Case(point, "log_joint", False),
    "mixture": Case(mixture),
    "mixture prior": Case(mixture_prior),
    "hidden Markov": Case(hidden_markov),
    "topics": Case(topics),
    "summed in both": Case(summed_in_both),
    "AutoNormal": Case(lambda: automatic(AutoNormal), weighted=False),
    "AutoLowRank": Case(lambda: automatic(lambda model: AutoLowRankMultivariateNormal(model, rank=1)), weighted=False),
    "AutoDelta": Case(lambda: automatic(AutoDelta), "log_joint", False),
    "AutoGuideList": Case(lambda: automatic(two_guides), "log_joint", False),
    "PyroSample": Case(regression, weighted=False),
}
