"""What a plain model sums out, by ``infer={"enumerate": "parallel"}`` and no twin in the guide, is evaluated exactly."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import ppl_vae as pv
from ppl_vae.evaluate.bounds import log_weights
from tests.plain_programs import SUMMED

FROZEN = pv.SVI(epochs=1, learning_rate=1e-12, compile=False)


@pytest.fixture(autouse=True)
def store() -> Iterator[None]:
    """An empty parameter store before and after."""
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


def rows(count: int = 60) -> pv.Data:
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[-2.0, 0.0], [2.0, 1.0], [0.0, 3.0]])
    x = centres[torch.randint(3, (count,), generator=generator)] + 0.7 * torch.randn(count, 2, generator=generator)
    return pv.load_data(x.numpy(), valid=0.0, test=0.0, scale="none")


def test_a_gaussian_mixture_has_the_log_likelihood_of_the_declared_one() -> None:
    data = rows()
    declared = pv.fit(pv.GMM(components=3), data, method=pv.EM(max_iterations=20))
    weights, locs, covariances = (value.float() for value in declared.pair.model.gaussians)

    def model(x: Tensor) -> None:
        logits = pyro.param("logits", weights.log())
        with pv.data_plate(len(data.train), x):
            k = pyro.sample("k", dist.Categorical(logits=logits), infer=SUMMED)
            pyro.sample("x", dist.MultivariateNormal(locs[k], covariances[k]), obs=x)

    plain = pv.fit(model, data, guide=lambda x: None, method=FROZEN)
    exact = declared.evaluate(data.train)["log_likelihood"]
    for numbers in (plain.evaluate(data.train), plain.evaluate(data.train, samples=5), plain.history[0]):
        assert numbers["elbo"] == pytest.approx(exact, abs=1e-4)
    assert plain.evaluate(data.train, samples=5)["iwae"] == pytest.approx(exact, abs=1e-4)
    torch.testing.assert_close(plain.reconstruct(data.train.x), declared.reconstruct(data.train.x), atol=1e-3, rtol=1e-3)
    found = plain.sample(4000, seed=0)
    torch.testing.assert_close(found.mean(0), weights @ locs, atol=0.15, rtol=0)


def test_a_gaussian_mixture_is_fitted_by_its_sum() -> None:
    data = rows()

    def model(x: Tensor) -> None:
        logits = pyro.param("logits", torch.zeros(3))
        locs = pyro.param("locs", torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
        scales = pyro.param("scales", torch.ones(3, 2), constraint=dist.constraints.positive)
        with pv.data_plate(len(data.train), x):
            k = pyro.sample("k", dist.Categorical(logits=logits), infer=SUMMED)
            pyro.sample("x", dist.Normal(locs[k], scales[k]).to_event(1), obs=x)

    method = pv.SVI(epochs=300, batch_size=60, learning_rate=0.03, compile=False)
    fitted = pv.fit(model, data, guide=lambda x: None, method=method)
    by_em = pv.fit(pv.GMM(components=3, covariance="diagonal"), data, method=pv.EM(max_iterations=100))
    assert fitted.evaluate(data.train)["elbo"] == pytest.approx(by_em.evaluate(data.train)["log_likelihood"], abs=0.02)


def test_two_summed_sites_are_the_sum_over_their_pairs() -> None:
    data, pi, rho = rows(), torch.tensor([0.2, 0.8]), torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]])
    locs = torch.tensor([[-2.0, 0.0, 1.0], [2.0, 3.0, -1.0]])

    def model(x: Tensor) -> None:
        scale = pyro.param("scale", torch.tensor(1.0))
        with pv.data_plate(len(data.train), x):
            j = pyro.sample("j", dist.Categorical(pi), infer=SUMMED)
            k = pyro.sample("k", dist.Categorical(rho[j]), infer=SUMMED)
            loc = torch.stack([locs[j, k], (j + k).float()], -1)
            pyro.sample("x", dist.Normal(loc, scale).to_event(1), obs=x)

    x = data.train.x
    terms = [
        (pi[j] * rho[j, k]).log() + dist.Normal(torch.tensor([locs[j, k], float(j + k)]), 1.0).log_prob(x).sum(-1)
        for j, k in itertools.product(range(2), range(3))
    ]
    log_p = torch.stack(terms).logsumexp(0)
    fitted = pv.fit(model, data, guide=lambda x: None, method=FROZEN)
    assert fitted.evaluate(data.train)["elbo"] == pytest.approx(log_p.mean().item(), abs=1e-5)
    means = torch.stack([torch.tensor([locs[j, k], float(j + k)]) for j, k in itertools.product(range(2), range(3))])
    torch.testing.assert_close(fitted.reconstruct(x), torch.stack(terms).softmax(0).T @ means)
    assert fitted.latents(data.train)["kl"] == pytest.approx(0.0, abs=1e-5)


def test_words_of_documents_are_summed_over_their_topics() -> None:
    """Two topics, three words, four words a document; the share of topics is drawn, the topic of each word summed out."""
    phi = torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(3, (8, 4), generator=generator).float()

    def model(x: Tensor) -> None:
        with pyro.plate("data", 8, subsample=x, dim=-2):
            theta = pyro.sample("theta", dist.Dirichlet(torch.ones(2)))
            with pyro.plate("words", 4, dim=-1):
                topic = pyro.sample("topic", dist.Categorical(theta), infer=SUMMED)
                pyro.sample("x", dist.Categorical(phi[topic]), obs=x)

    def guide(x: Tensor) -> None:
        a = pyro.param("a", torch.tensor(1.0), constraint=dist.constraints.positive)
        with pyro.plate("data", 8, subsample=x, dim=-2):
            pyro.sample("theta", dist.Dirichlet(torch.stack([a, a]).expand(len(x), 1, 2)))

    data = pv.load_data(words.numpy(), valid=0.0, test=0.0, scale="none")
    fitted = pv.fit(model, data, guide=guide, method=FROZEN)
    # Over a Dirichlet(1, 1) a topic's count c of 4 words has the probability 1 / 5: sum over all 2^4 assignments.
    log_p = torch.stack([_by_hand(phi, document.long()) for document in words]).log()
    torch.manual_seed(0)
    with torch.no_grad():
        weights = log_weights(fitted.pair, (words,), samples=50000)
    torch.testing.assert_close(weights.logsumexp(0) - torch.log(torch.tensor(50000.0)), log_p, atol=0.02, rtol=0)
    assert fitted.evaluate(data.train, samples=2000)["iwae"] == pytest.approx(log_p.mean().item(), abs=0.02)
    codes = fitted.encode(words)
    torch.testing.assert_close(codes, torch.tensor([0.5, 0.5]).expand(8, 2))
    likeliest = (codes @ phi).argmax(-1)
    assert torch.equal(fitted.decode(codes).long(), likeliest[:, None].expand(8, 4))
    assert set(fitted.sample(200, seed=1).unique().tolist()) == {0, 1, 2}


def _by_hand(phi: Tensor, words: Tensor) -> Tensor:
    total = torch.zeros(())
    for topics in itertools.product(range(2), repeat=len(words)):
        ones = torch.tensor(float(sum(topics)))
        count = torch.tensor(float(len(words)))
        prior = (torch.lgamma(ones + 1) + torch.lgamma(count - ones + 1) - torch.lgamma(count + 2)).exp()
        total = total + prior * phi[list(topics), words].prod()
    return total
