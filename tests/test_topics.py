"""Topic models against enumeration, formulas, scikit-learn and gensim."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import scipy.sparse
import scipy.stats
import torch
from sklearn.decomposition import LatentDirichletAllocation
from torch import Tensor

import ppl_vae as pv
from ppl_vae.data.seeds import seeded_generator
from ppl_vae.evaluate.documents import npmi, topics_of, umass
from ppl_vae.exact import collapsed_topics, topics
from ppl_vae.likelihoods.multinomial import MultinomialDistribution
from ppl_vae.models.topics.documents import of_batch
from ppl_vae.program.context import seeded

K, V = 3, 5
ALPHA = torch.tensor([0.3, 0.5, 0.4], dtype=torch.float64)
COUNTS = torch.tensor([[2, 0, 1, 0, 1], [0, 3, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 0, 4, 2, 0]]).double()


@pytest.fixture(scope="module")
def corpus() -> Tensor:
    """60 documents of about 30 words out of 12, of three topics."""
    with seeded(0, torch.device("cpu")):
        beta = torch.distributions.Dirichlet(torch.full((3, 12), 0.2)).sample()
        theta = torch.distributions.Dirichlet(torch.full((60, 3), 0.3)).sample()
        return torch.distributions.Poisson(30 * theta @ beta).sample()


@pytest.fixture(scope="module")
def data(corpus):
    return pv.load_data(corpus, kind="count")


def topic_rows(seed: int = 0, scale: float = 1.0) -> Tensor:
    """Concentrations ``(K, V)``."""
    return scale * (0.2 + 3 * torch.rand(K, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def elbo(counts: Tensor, lam: Tensor, gamma: Tensor, eta: float) -> Tensor:
    """With q(z), word by word, from the definition."""
    log_theta, log_beta = topics.expected_log(gamma), topics.expected_log(lam)
    joint = log_theta[:, :, None] + log_beta
    phi = joint.softmax(1)
    words = (counts[:, None] * phi * (joint - phi.log())).sum()
    q, p = torch.distributions.Dirichlet(gamma), torch.distributions.Dirichlet(ALPHA)
    qs, ps = torch.distributions.Dirichlet(lam), torch.distributions.Dirichlet(torch.full_like(lam, eta))
    kl = torch.distributions.kl_divergence
    return words - kl(q, p.expand(q.batch_shape)).sum() - kl(qs, ps).sum() + topics.log_coefficient(counts).sum()


def found(counts: Tensor, log_topics: Tensor, steps: int = 200) -> tuple[Tensor, Tensor]:
    """Gamma and the bound of each document, in their order."""
    gamma, bound = counts.new_empty(len(counts), len(log_topics)), counts.new_empty(len(counts))
    for block in of_batch(counts, len(log_topics)):
        q = topics.local(block, topics.Topics.of(log_topics), ALPHA, steps)
        gamma[block.rows], bound[block.rows] = q.gamma, q.bound
    return gamma, bound


def test_the_bound_of_a_document_lies_below_all_assignments_and_proportions():
    beta, words = topics.mean(topic_rows()), [0, 2, 4, 4, 1, 0, 3]
    counts = torch.bincount(torch.tensor(words), minlength=V).double()[None]
    terms = []
    for z in itertools.product(range(K), repeat=len(words)):
        n = torch.bincount(torch.tensor(z), minlength=K)
        urn = (torch.lgamma(ALPHA + n) - torch.lgamma(ALPHA)).sum() + torch.lgamma(ALPHA.sum()) - torch.lgamma(ALPHA.sum() + 7)
        terms.append(urn + beta[list(z), words].log().sum())
    exact = torch.stack(terms).logsumexp(0) + topics.log_coefficient(counts)[0]
    bound = found(counts, beta.log())[1]
    assert exact - 3.0 < bound < exact
    program = pv.LDA(topics=K, words=None, proportions=pv.Dirichlet(concentration=tuple(ALPHA.tolist()))).build(
        pv.DataSpec(event_shape=(V,), kind="count", size=1)
    )
    program.double().assign({"topics": beta})
    with seeded(0, torch.device("cpu")), torch.no_grad():
        theta = torch.distributions.Dirichlet(ALPHA).sample((200_000,))
        sampled = program.decode(theta).log_prob(counts).logsumexp(0) - math.log(len(theta))
    assert sampled == pytest.approx(exact.item(), abs=0.01)


def test_leaving_q_of_z_out_changes_no_number_and_half_steps_climb():
    lam, eta = topic_rows(), 0.4
    values = []
    for steps in (0, 1, 2, 5, 20):
        gamma, bound = found(COUNTS, topics.expected_log(lam), steps)
        shared = topics.dirichlet_kl(lam, torch.full_like(lam, eta)).sum()
        assert (bound.sum() - shared).item() == pytest.approx(elbo(COUNTS, lam, gamma, eta).item(), abs=1e-9)
        values.append(bound.sum() - shared)
    assert all(later > earlier for earlier, later in itertools.pairwise(values))
    counts, total = topics.sweep(of_batch(COUNTS, K), topics.Topics.of(topics.expected_log(lam)), ALPHA, 20)
    assert total == pytest.approx((values[-1] + shared).item())
    assert elbo(COUNTS, eta + counts, gamma, eta) > values[-1]
    assert counts.sum() == pytest.approx(COUNTS.sum().item())


def test_the_step_of_topics_is_their_natural_gradient():
    lam, eta, rate = topic_rows(), 0.4, 0.3
    gamma, _ = found(COUNTS, topics.expected_log(lam))
    counts, _ = topics.sweep(of_batch(COUNTS, K), topics.Topics.of(topics.expected_log(lam)), ALPHA, 200)
    at = lam.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(elbo(COUNTS, at, gamma, eta), at)
    fisher = torch.diag_embed(torch.polygamma(1, lam)) - torch.polygamma(1, lam.sum(1))[:, None, None]
    natural = torch.linalg.solve(fisher, gradient)
    assert torch.allclose(lam + rate * natural, (1 - rate) * lam + rate * (eta + counts))


def test_words_that_leave_no_product_are_summed_by_logarithms():
    topic_count = 200  # between which one word is divided, so that none keeps a share that float32 knows of
    log = torch.full((topic_count, 2), -400.0)
    log[0, 0], log[1:, 1] = -0.1, -0.1
    counts, alpha = torch.tensor([[8.0, 0.0], [5.0, 1.0]]), torch.full((topic_count,), 0.002)
    (block,) = of_batch(counts, topic_count)
    low = topics.local(block, topics.Topics.of(log), alpha, 1)
    gamma = low.gamma.double()
    log_mixed = (topics.expected_log(gamma)[:, :, None] + log.double()).logsumexp(1)
    exact = (counts.double()[block.rows] * log_mixed).sum(1) - topics.dirichlet_kl(gamma, alpha.double()) + block.coefficient
    assert torch.allclose(low.bound, exact, rtol=1e-4)
    assert (low.bound < -90).any()


def test_the_bound_is_that_of_scikit_learn_without_orders_of_words(corpus):
    peer = LatentDirichletAllocation(4, doc_topic_prior=0.3, topic_word_prior=0.2, random_state=0, max_iter=3)
    peer.fit(corpus.double().numpy())
    lam = torch.from_numpy(peer.components_)
    gamma, bound = corpus.new_empty(60, 4, dtype=torch.float64), 0.0
    for block in of_batch(corpus.double(), 4):
        q = topics.local(block, topics.Topics.of(topics.expected_log(lam)), torch.full((4,), 0.3).double(), 50)
        gamma[block.rows] = q.gamma
        bound += (q.bound - block.coefficient).sum().item()
    bound -= topics.dirichlet_kl(lam, torch.full_like(lam, 0.2)).sum().item()
    assert bound == pytest.approx(peer._approx_bound(corpus.double().numpy(), gamma.numpy(), sub_sampling=False), rel=1e-6)


def test_one_topic_is_the_exact_dirichlet_multinomial(corpus, data):
    fit = pv.fit(pv.LDA(topics=1, words=pv.Dirichlet(concentration=0.7)), data, method=pv.CAVI(sweeps=3))
    x = data.train.transformed().double()
    n, eta = x.sum(0), torch.full((12,), 0.7, dtype=torch.float64)
    urn = torch.lgamma(eta.sum()) - torch.lgamma(eta.sum() + n.sum()) + (torch.lgamma(eta + n) - torch.lgamma(eta)).sum()
    exact = (urn + topics.log_coefficient(x).sum()) / len(x)
    assert fit.history[-1]["elbo"] == pytest.approx(exact.item(), abs=1e-4)
    assert fit.evaluate(data.train)["elbo"] == pytest.approx(exact.item(), abs=1e-4)


def test_a_fit_climbs_and_tells_its_own_bound_whatever_holds_the_counts(corpus, data):
    method = pv.CAVI(sweeps=30)
    fit = pv.fit(pv.LDA(topics=3), data, method=method)
    values = [row["elbo"] for row in fit.history]
    assert all(later >= earlier for earlier, later in itertools.pairwise(values))
    assert values[-1] > values[0] + 5
    numbers = fit.evaluate(data.train)
    assert numbers["elbo"] == pytest.approx(values[-1], abs=1e-4)
    shared = topics.dirichlet_kl(fit.pair.guide.concentration, torch.tensor(0.01)).sum().item() / fit.spec.size
    test = fit.evaluate(data.test)
    assert shared < min(numbers["kl"], test["kl"])
    parameters = fit.parameters()["topic"]
    assert parameters.values.sum(1) == pytest.approx([1.0] * 3)
    held = pv.load_data(scipy.sparse.csr_matrix(corpus.numpy()), counts="sparse", kind="count")
    other = pv.fit(pv.LDA(topics=3), held, method=method)
    assert torch.equal(fit.pair.guide.concentration, other.pair.guide.concentration)


def test_files_larger_than_memory_are_walked(corpus, data, tmp_path):
    np.save(tmp_path / "x.npy", corpus.numpy().astype(np.uint8))
    streamed = pv.load_data(tmp_path / "x.npy", kind="count", stream=1)
    fits = [pv.fit(pv.LDA(topics=3), each, method=pv.CAVI(sweeps=4)) for each in (data, streamed)]
    assert torch.allclose(*(fit.pair.guide.concentration for fit in fits), rtol=1e-4)


def test_a_batch_of_all_documents_at_rate_one_is_a_sweep(data):
    size = len(data.train)
    swept = pv.fit(pv.LDA(topics=3), data, method=pv.CAVI(sweeps=1, tolerance=0.0))
    stepped = pv.fit(pv.LDA(topics=3), data, method=pv.CAVI(sweeps=1, batch_size=size, delay=0.0))
    assert torch.allclose(swept.pair.guide.concentration, stepped.pair.guide.concentration, rtol=1e-4)
    batches = pv.fit(pv.LDA(topics=3), data, method=pv.CAVI(sweeps=60, batch_size=10))
    whole = pv.fit(pv.LDA(topics=3), data, method=pv.CAVI())
    assert batches.evaluate(data.train)["elbo"] == pytest.approx(whole.history[-1]["elbo"], abs=0.3)


def test_a_collapsed_pass_is_the_update_word_by_word():
    alpha, eta = ALPHA, torch.full((K, V), 0.2, dtype=torch.float64)
    blocks = [block for row in COUNTS for block in of_batch(row[None], K)]
    state = collapsed_topics.random_assignments(blocks, (K, V), torch.Generator().manual_seed(0))
    after, bound = collapsed_topics.assigned(state, blocks, alpha, eta)
    assert math.isfinite(bound)
    m = state.counts.T.clone()
    first = 0
    for block in blocks:
        q = state.words[first : first + block.words.numel()]
        words, counts = block.words[0], block.counts[0]
        n, before = (counts[:, None] * q).sum(0), m.clone()
        for place, (word, count) in enumerate(zip(words.tolist(), counts.tolist(), strict=True)):
            new = (n - q[place] + alpha) * (before[word] - q[place] + 0.2) / (before.sum(0) - q[place] + V * 0.2)
            new = new / new.sum()
            assert torch.allclose(after.words[first + place], new)
            m[word] += count * (new - q[place])
        first += len(words)
    assert torch.allclose(after.counts.T, m)


def test_collapsed_topics_are_no_worse(data):
    model = pv.LDA(topics=3)
    told = [
        pv.fit(model, data, method=pv.CAVI(sweeps=80, collapsed=collapsed)).evaluate(data.test)["completion"]
        for collapsed in (False, True)
    ]
    assert told[1] > told[0] - 0.05


@pytest.mark.parametrize("options", [{"collapsed": True}, {"batch_size": 20}, {}], ids=["collapsed", "batches", "sweeps"])
def test_a_fit_goes_on_to_the_same_bits(data, options, tmp_path):
    method = pv.CAVI(sweeps=5, tolerance=0.0, **options)
    whole = pv.fit(pv.LDA(topics=3), data, method=method)
    pv.fit(pv.LDA(topics=3), data, method=dataclasses.replace(method, sweeps=2), out=tmp_path / "run")
    resumed = pv.resume_run(tmp_path / "run", data=data, method=method)
    assert torch.equal(whole.pair.guide.concentration, resumed.pair.guide.concentration)


def test_point_estimates_are_variational_em(data):
    fit = pv.fit(pv.LDA(topics=3, words=None), data, method=pv.CAVI(sweeps=60))
    values = [row["elbo"] for row in fit.history]
    assert all(later >= earlier for earlier, later in itertools.pairwise(values))
    assert fit.evaluate(data.train)["elbo"] == pytest.approx(values[-1], abs=1e-3)
    q = fit.pair.guide
    with_prior = pv.fit(pv.LDA(topics=3), data, method=pv.CAVI(sweeps=60))
    assert values[-1] > with_prior.history[-1]["elbo"]  # no KL of topics
    assert q.concentration.numel() == 0


def test_multinomial_is_scipys_and_sums_to_one():
    probs = torch.tensor([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    p = MultinomialDistribution(probs.log(), torch.tensor(4.0))
    x = torch.tensor([[1.0, 2, 1], [0, 0, 4]])
    peer = scipy.stats.multinomial.logpmf(x.numpy(), x.sum(1).numpy(), probs.numpy())
    assert p.log_prob(x) == pytest.approx(peer, abs=1e-5)
    every = torch.tensor([[a, b, 4 - a - b] for a in range(5) for b in range(5 - a)], dtype=torch.float32)
    assert p.log_prob(every[:, None]).exp().sum(0) == pytest.approx([1.0, 1.0], abs=1e-5)
    large, exact = torch.tensor([[4e5, 1e6, 6e5], [0.2, 0.5, 0.3]], dtype=torch.float64)
    peer = scipy.stats.multinomial.logpmf(large.numpy(), 2_000_000, exact.numpy())
    assert MultinomialDistribution(exact.log(), torch.tensor(4.0)).log_prob(large).item() == pytest.approx(peer, abs=1e-6)
    with seeded(0, torch.device("cpu")):
        drawn = p.sample((4000,))
    assert (drawn.sum(-1) == 4).all()
    assert drawn.mean(0) == pytest.approx(p.mean, abs=0.08)


def test_completion_is_that_of_the_halves_by_hand(data):
    fit = pv.fit(pv.LDA(topics=3), data, method=pv.CAVI(sweeps=10))
    numbers = fit.evaluate(data.test)
    x = data.test.transformed()
    half = torch.binomial(x, torch.full_like(x, 0.5), generator=seeded_generator(0, 4))
    theta = fit.pair.guide.posterior(half).mean
    beta = topics.mean(fit.pair.guide.concentration)
    told = ((x - half) * (theta @ beta).log()).sum() / (x - half).sum()
    assert numbers["completion"] == pytest.approx(told.item(), abs=1e-5)
    orders = topics.log_coefficient(x).mean().item()
    assert numbers["words"] == pytest.approx(x.sum(1).mean().item())
    assert numbers["elbo_per_word"] == pytest.approx((numbers["elbo"] - orders) / numbers["words"], abs=1e-6)
    assert numbers["perplexity"] == pytest.approx(math.exp(-numbers["elbo_per_word"]))


def test_coherence_is_gensims():
    """Of gensim 4.4.0, CoherenceModel(coherence="c_npmi", window_size=100) and "u_mass", whose counts are not smoothed."""
    documents = [[0, 1, 2], [0, 1], [1, 2, 3], [0, 1, 2, 3], [2, 3], [0, 2, 3], [4], [1, 3]]
    there = torch.zeros(8, 5, dtype=torch.float64)
    for row, words in enumerate(documents):
        there[row, words] = 1
    top, together = torch.tensor([[0, 1, 2], [3, 2, 1]]), there.T @ there
    assert npmi(top, together, 8) == pytest.approx([0.11005011595450538, 0.09096801762200481], abs=1e-9)
    assert umass(top, together, smoothing=0.0) == pytest.approx([-0.36206325622051755, -0.41493159961295273], abs=1e-9)
    assert npmi(torch.tensor([[0, 4]]), together, 8) == -1.0


def test_prodlda_is_a_vae_with_proportions_and_counts(data):
    model = pv.VAE(
        latent_dim=3, prior=pv.LogisticNormal(), decoder=pv.Linear(batch_norm=True, bias=False), likelihood=pv.Multinomial()
    )
    fit = pv.fit(model, data, method=pv.SVI(epochs=3, batch_size=20, compile=False))
    numbers = fit.evaluate(data.test)
    assert {"completion", "npmi", "elbo_per_word"} <= numbers.keys()
    assert topics_of(fit.pair).sum(1) == pytest.approx([1.0] * 3, abs=1e-5)
    drawn = fit.sample(2, means=False)
    assert drawn.sum(1).tolist() == [round(data.train.transformed().sum(1).mean().item())] * 2


@pytest.mark.parametrize("model", [pv.LDA(topics=3), pv.LDA(topics=3, words=None, proportions=pv.LogisticNormal())])
def test_svi_fits_the_program_with_an_amortized_guide(data, model):
    fit = pv.fit(model, data, method=pv.SVI(epochs=2, batch_size=20, compile=False))
    assert math.isfinite(fit.evaluate(data.test)["elbo"])
    assert fit.encode(data.test).shape == (len(data.test), 3)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: pv.LDA(topics=0), "at least 1 topic"),
        (lambda: pv.LDA(words=pv.LogisticNormal()), "words of a Dirichlet"),
        (lambda: pv.LDA(proportions=pv.StandardNormal()), "proportions on the simplex"),
        (lambda: pv.LDA().check_values(torch.tensor([[1.0, 2.0], [0.0, 1.5]])), "got 1.5 in row 1, column 1"),
        (lambda: pv.LDA().check_values(torch.tensor([[1.0, -2.0]])), "got -2 in row 0, column 1"),
    ],
)
def test_what_cannot_be_is_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        wrong()


@pytest.mark.parametrize(
    ("model", "method", "says"),
    [
        (pv.LDA(words=None), pv.CAVI(collapsed=True), "which needs their prior"),
        (pv.LDA(proportions=pv.LogisticNormal()), pv.CAVI(), "fit this by SVI with AmortizedNormal"),
        (pv.LDA(), pv.CAVI(damping=0.5), "LDA knows no damping"),
        (pv.LDA(words=None), pv.EM(), "CAVI"),
        (pv.LDA(), pv.EM(), r"use MeanField\(\) and CAVI, or BayesianGuide\(latents=AmortizedNormal\(\)\) and SVI"),
        (pv.LDA(), pv.ClosedForm(), r"use MeanField\(\) and CAVI"),
    ],
)
def test_what_cannot_be_fitted_is_refused_with_a_remedy(data, model, method, says):
    with pytest.raises(ValueError, match=says):
        pv.fit(model, data, method=method)


def test_point_estimates_of_topics_have_no_standard_errors(data):
    fit = pv.fit(pv.LDA(topics=2, words=None), data, method=pv.CAVI(sweeps=2))
    topic = fit.parameters()["topic"]
    assert topic.se is None
    assert topic.labels[0] == ("z1", "z2")  # as the columns of codes
    assert topic.values.sum(1) == pytest.approx(np.ones(2), abs=1e-5)


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double")
def test_topics_are_encoded_in_double_precision(corpus):
    fit = pv.fit(pv.LDA(topics=2), pv.load_data(corpus, kind="count"), method=pv.CAVI(sweeps=2))
    x = corpus.float()
    assert torch.equal(fit.pair.guide.posterior(x).concentration, fit.pair.guide.posterior(x.double()).concentration)


def test_impossible_words_are_told_by_name_and_nothing_is_told_per_word_of_none(corpus):
    without = corpus.clone()
    without[:, 4] = 0
    fit = pv.fit(pv.LDA(topics=2, words=None), pv.load_data(without, kind="count"), method=pv.CAVI(sweeps=3))
    with pytest.warns(pv.FitWarning, match=r"no topic has, .* in these documents: x5\. "):
        fit.evaluate(corpus)
    fit.evaluate(without)  # in which it does not stand
    assert not {"elbo_per_word", "perplexity", "completion"} & set(fit.evaluate(torch.zeros(3, 12)))
