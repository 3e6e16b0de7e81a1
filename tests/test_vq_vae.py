"""Grids of codes: exact gradients, Lloyd's step, enumeration, what moves codebooks and what does not."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.cluster import KMeans
from torch import Tensor

import ppl_vae as pv
from ppl_vae.cli.fit import next_step
from ppl_vae.evaluate.bounds import elbo_terms
from ppl_vae.inference.training.optimizers import OPTIMIZERS
from ppl_vae.inference.training.start import start_pair
from ppl_vae.inference.training.step import WORTH_RECORDING, Step

EVENT = (1, 4, 4)
ROWS = 24
TINY = pv.MLP(hidden=(6,), activation="tanh")
BOOK = pv.Codebook(size=5, dim=3, grid=(2, 2), restart=None)


def x_of(rows: int = ROWS, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(rows, *EVENT, generator=generator) < 0.4).to(dtype)


def data_of(rows: int = ROWS, test: float = 0.0) -> pv.Data:
    return pv.load_data(x_of(rows).numpy(), kind="binary", valid=0.0, test=test)


def pair_of(*books: pv.Codebook, seed: int = 0, prior: Any = None) -> pv.Pair:
    torch.manual_seed(seed)
    codebook = books[0] if len(books) == 1 else books
    model = pv.VQVAE(codebook=codebook, decoder=TINY, prior=prior or pv.UniformCodes())
    return pv.build(model, pv.NearestCode(), pv.DataSpec(event_shape=EVENT, kind="binary", size=ROWS))


def two_levels() -> tuple[pv.Codebook, pv.Codebook]:
    return pv.Codebook(size=3, dim=2, grid=(1, 1), restart=None), BOOK


def moved(pair: pv.Pair, before: dict[str, Tensor]) -> list[str]:
    return [name for name, value in pair.state_dict().items() if not torch.equal(value, before[name])]


def copy_of(pair: pv.Pair) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in pair.state_dict().items()}


# --- gradients ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("update", [pv.EMA(decay=1.0), pv.Gradient()])
def test_the_outputs_get_the_decoders_gradient_and_the_pull_of_their_vectors(update: pv.CodebookUpdate) -> None:
    pair = pair_of(dataclasses.replace(BOOK, update=update, commitment=0.3)).double()
    x = x_of(dtype=torch.float64)
    outputs = pair.guide.encoders["k"](x).detach().requires_grad_()
    pair.guide.encoders["k"].forward = lambda _: outputs
    loss, *_ = pv.ELBO().build(pair)(x)
    found, *of_vectors = torch.autograd.grad(loss, [outputs, *pair.model.codebook("k").parameters()])

    book = pair.model.codebook("k")
    vectors = book(book.nearest(outputs)).detach().requires_grad_()
    nats = pair.model.likelihood(pair.model.decoder(vectors)).log_prob(x).mean()
    (of_decoder,) = torch.autograd.grad(-nats, vectors)
    distance = (outputs - vectors).detach() / ROWS  # the objective is per datum
    torch.testing.assert_close(found, of_decoder + 2 * 0.3 * distance)
    if isinstance(update, pv.Gradient):
        codes = book.nearest(outputs).flatten()
        expected = torch.zeros(5, 3).double().index_add_(0, codes, -2 * distance.movedim(1, -1).reshape(-1, 3))
        torch.testing.assert_close(of_vectors[0], expected)


def test_the_prior_learns_beside_codes_that_get_no_gradient_from_it() -> None:
    pair = pair_of(*two_levels(), prior=pv.LSTM(hidden=4))
    with torch.no_grad():
        for parameter in pair.model.prior.parameters():
            parameter.add_(torch.randn(parameter.shape))
    k = {name: codes.clone() for name, codes in pair.guide.posterior(x_of()).mean.items()}
    pair.model.prior().log_prob(k).sum().backward()
    with_gradient = {name.split(".")[0] for name, value in pair.model.named_parameters() if value.grad is not None}
    assert with_gradient == {"prior"}


# --- what the numbers are -------------------------------------------------------------------------------------------------


def test_uniform_codes_cost_their_number_of_nats_and_no_sum_over_codes_is_below_the_bound() -> None:
    pair = pair_of(pv.Codebook(size=3, dim=2, grid=(1, 2))).double()
    x = x_of(dtype=torch.float64)
    grids = torch.tensor(list(itertools.product(range(3), repeat=2))).reshape(9, 1, 1, 2)
    with torch.no_grad():
        terms = elbo_terms(pair, (x,))
        each = pair.model.decode(grids).log_prob(x) + pair.model.prior().log_prob(grids)
    torch.testing.assert_close(terms.kl, torch.full_like(terms.kl, 2 * math.log(3)), rtol=0, atol=1e-14)
    assert (each.logsumexp(0) >= terms.elbo).all()
    torch.testing.assert_close((each - terms.elbo).abs().min(0).values, torch.zeros(ROWS).double(), atol=1e-12, rtol=0)


def test_many_samples_of_certain_codes_tell_what_one_does() -> None:
    fit = pv.fit(pv.VQVAE(codebook=BOOK, decoder=TINY), data_of(), method=pv.SVI(epochs=1))
    numbers = fit.evaluate(x_of(), samples=100)
    assert numbers["iwae"] == numbers["elbo"]
    assert numbers["iwae_se"] == numbers["elbo_se"]
    assert numbers["elbo"] == pytest.approx(numbers["reconstruction"] - numbers["kl"], abs=1e-5)
    scores = fit.score_samples(x_of(), samples=100)
    assert torch.equal(scores.log_prob, fit.score_samples(x_of(), samples=1).log_prob)
    assert not scores.se.any()
    assert "--samples" not in next_step(Path("run"), fit)


def test_codes_are_counted_over_all_the_data() -> None:
    fit = pv.fit(pv.VQVAE(codebook=two_levels(), decoder=TINY), data_of(), method=pv.SVI(epochs=1))
    codes, numbers = fit.encode(x_of()), fit.evaluate(x_of())
    for name, size in (("k2", 3), ("k1", 5)):
        share = torch.bincount(codes[name].flatten(), minlength=size) / codes[name].numel()
        assert numbers[f"codes_used_{name}"] == int((share > 0).sum())
        assert numbers[f"codes_{name}"] == size
        assert numbers[f"code_perplexity_{name}"] == pytest.approx(torch.special.entr(share).sum().exp().item(), rel=1e-5)
    assert "code_perplexity_k2" not in fit.evaluate(x_of(2))  # two places of three codes


def test_codes_decode_and_data_come_from_the_prior() -> None:
    model = pv.VQVAE(codebook=two_levels(), decoder=TINY, prior=pv.LSTM(hidden=4))
    fit = pv.fit(model, data_of(), method=pv.SVI(epochs=1))
    codes = fit.encode(x_of(3))
    assert codes["k1"].shape == (3, 2, 2)
    assert codes["k1"].dtype == torch.int64
    torch.testing.assert_close(fit.decode(codes), fit.reconstruct(x_of(3)))
    assert fit.decode({"k2": codes["k2"]}).shape == (3, *EVENT)
    assert fit.sample(2, seed=1).shape == (2, *EVENT)
    with pytest.raises(ValueError, match=r"whole numbers from 0 to 2, got 0 to 3"):
        fit.decode({**codes, "k2": torch.tensor([[[3]], [[0]], [[0]]])})


# --- what moves codebooks -------------------------------------------------------------------------------------------------


def test_averages_without_memory_are_a_step_of_kmeans() -> None:
    torch.manual_seed(0)
    book = pv.Codebook(size=4, dim=3, grid=(5, 8), update=pv.EMA(decay=0.0), restart=None).build().double()
    outputs = torch.randn(2, 3, 5, 8, dtype=torch.float64)
    rows = outputs.movedim(1, -1).reshape(-1, 3)
    start = rows[[0, 10, 20, 30]]
    book.vectors.put(torch.ones(4, dtype=torch.bool), start)
    book.learn(book.nearest(outputs), outputs)
    lloyd = KMeans(4, init=start.numpy(), n_init=1, max_iter=1, algorithm="lloyd").fit(rows.numpy())
    torch.testing.assert_close(book.vectors.values, torch.from_numpy(lloyd.cluster_centers_))


@pytest.mark.parametrize("update", [pv.EMA(), pv.Gradient()])
def test_an_idle_code_is_put_at_an_output(update: pv.CodebookUpdate) -> None:
    book = dataclasses.replace(BOOK, update=update, restart=3).build()
    book.vectors.put(torch.ones(5, dtype=torch.bool), torch.tensor([[0.0] * 3] + [[50.0 + k] * 3 for k in range(4)]))
    outputs = torch.randn(2, 3, 2, 2)
    for step in range(3):
        assert int((book.vectors.values.norm(dim=1) > 10).sum()) == 4, step
        book.learn(book.nearest(outputs), outputs)
    rows = outputs.movedim(1, -1).reshape(-1, 3)
    assert (torch.cdist(book.vectors.values[1:].detach(), rows).min(1).values < 1e-4).all()
    assert (book.idle == 0).all()


@pytest.mark.parametrize("books", [(BOOK,), two_levels()], ids=["one", "two"])
def test_evaluating_first_moves_no_codebook_and_frozen_ones_stand_still(books: tuple[pv.Codebook, ...]) -> None:
    pair = pair_of(*books)
    before = copy_of(pair)
    pv.evaluate(pair, data_of().as_given().train, samples=2)
    pair.train()
    with torch.no_grad():
        pair.guide(x_of())  # also where nothing is trained
    assert moved(pair, before) == []
    pair.model.codebooks.eval()
    pv.ELBO().build(pair)(x_of())
    assert moved(pair, before) == []
    pair.model.codebooks.train()
    pv.ELBO().build(pair)(x_of())
    assert {name.split(".")[3] for name in moved(pair, before)} == {"vectors"}


def test_codebooks_start_at_what_the_encoder_gives_and_once() -> None:
    pair, data = pair_of(*two_levels()), data_of().as_given()
    start_pair(pair, data.train, seed=0)
    before = copy_of(pair)
    values: dict[str, Tensor] = {}
    with torch.no_grad():
        for name in ("k2", "k1"):
            outputs = pair.guide._outputs(name, pair.guide._features(x_of()), values)
            book = pair.model.codebook(name)
            values[name] = book.nearest(outputs)
            assert book.vectors.values.std() == pytest.approx(outputs.std().item(), rel=0.5)
    start_pair(pair, data.train, seed=1)
    assert not [name for name in moved(pair, before) if "codebooks" in name]


def steps_of(**options: Any) -> dict[str, Tensor]:
    top, bottom = (dataclasses.replace(book, restart=2, size=7) for book in two_levels())
    pair = pair_of(dataclasses.replace(top, update=pv.Gradient()), bottom).train()
    for name in ("k2", "k1"):  # far from all outputs
        book = pair.model.codebook(name)
        book.vectors.put(torch.arange(7) == 3, torch.full((7, book.dim), 99.0))
    module = pv.ELBO().build(pair)
    step = Step(module, pv.Transform(EVENT), OPTIMIZERS["adam"](module.parameters(), 1e-2), **options)
    torch.manual_seed(0)
    for _ in range(4):
        step(x_of())
    assert all(pair.model.codebook(name).vectors.values.max() < 50 for name in ("k2", "k1"))
    return {**module.state_dict(), "totals": step.totals, "recorded": torch.tensor(step.way == "recorded")}


def test_recorded_steps_move_and_restart_codes_as_eager_ones_do() -> None:
    eager, recorded = steps_of(compile=False), steps_of(ahead=WORTH_RECORDING)
    assert recorded.pop("recorded")
    for name, value in recorded.items():
        torch.testing.assert_close(value, eager[name], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_compiled_steps_take_the_gradient_before_the_codes_move(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPL_VAE_CACHE", str(tmp_path_factory.mktemp("compiled")))
    eager, compiled = steps_of(compile=False), steps_of(compile=True)
    assert not compiled.pop("recorded")
    for name, value in compiled.items():
        torch.testing.assert_close(value, eager[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ahead", [0, WORTH_RECORDING])
def test_a_skipped_step_moves_no_codebook(ahead: int) -> None:
    pair = pair_of(dataclasses.replace(BOOK, restart=2)).train()
    module, before = pv.ELBO().build(pair), copy_of(pair)
    optimizer = OPTIMIZERS["adam"](module.parameters(), 1e-2)
    step = Step(module, pv.Transform(EVENT), optimizer, skip_norm=1e-6, ahead=ahead)
    for _ in range(3):
        step(x_of())
    assert step.way == ("recorded" if ahead else "eager")
    assert step.totals[3] == 3
    assert not moved(pair, before)


def test_a_fit_goes_on_from_its_run_to_the_same_numbers(tmp_path: Path) -> None:
    model = pv.VQVAE(codebook=dataclasses.replace(BOOK, restart=4), decoder=TINY)
    whole = pv.fit(model, data_of(), method=pv.SVI(epochs=4, batch_size=8), out=tmp_path / "whole")
    read = pv.load_run(tmp_path / "whole")
    for name, value in whole.pair.state_dict().items():
        torch.testing.assert_close(read.pair.state_dict()[name], value, rtol=0, atol=0)
    assert torch.equal(read.encode(x_of()), whole.encode(x_of()))
    method = pv.SVI(epochs=4, batch_size=8, schedule="constant")
    pv.fit(model, data_of(), method=dataclasses.replace(method, epochs=2), out=tmp_path / "part")
    on = pv.resume_run(tmp_path / "part", method=method, data=data_of())
    for name, value in pv.fit(model, data_of(), method=method).pair.state_dict().items():
        torch.testing.assert_close(on.pair.state_dict()[name], value, rtol=0, atol=0)


def test_a_prior_that_waits_for_its_stage_is_not_asked(tmp_path: Path) -> None:
    model = pv.VQVAE(codebook=BOOK, decoder=TINY, prior=pv.LSTM(hidden=4))
    codes = pv.SVI(epochs=2, batch_size=8, only=("guide", "model.codebooks", "model.decoder"))
    pair = pv.build(model, pv.NearestCode(), data_of().spec)
    pair.model.prior.levels["k"].network.forward = None
    history = codes.run(pair, data_of().as_given(), lambda row: None)
    assert [row["kl"] for row in history] == pytest.approx([4 * math.log(5)] * 2, rel=1e-6)
    stages = pv.Stages(methods=(codes, pv.SVI(epochs=9, only=("model.prior",))))
    fit = pv.fit(model, data_of(), method=stages, out=tmp_path / "run")
    assert fit.history[1]["kl"] == pytest.approx(4 * math.log(5), rel=1e-6)
    assert fit.history[-1]["kl"] < 4 * math.log(5) - 0.01
    for again in (fit, pv.load_run(tmp_path / "run")):
        assert again.evaluate(x_of())["kl"] == pytest.approx(fit.evaluate(x_of())["kl"], rel=1e-6)
        assert again.evaluate(x_of())["kl"] < 4 * math.log(5) - 0.01


def test_validation_rows_see_a_prior_from_its_first_step_on(tmp_path: Path) -> None:
    codes = pv.SVI(epochs=6, only=("guide", "model.codebooks", "model.decoder", "model.likelihood"))  # long enough for a record
    stages = pv.Stages(methods=(codes, pv.SVI(epochs=9, only=("model.prior",), restore_best=True)))
    data = pv.load_data(x_of().numpy(), kind="binary", valid=0.25, test=0.0)
    fit = pv.fit(pv.VQVAE(codebook=BOOK, decoder=TINY, prior=pv.LSTM(hidden=4)), data, method=stages, out=tmp_path / "run")
    uniform = 4 * math.log(5)
    assert [row["valid_kl"] for row in fit.history[:6]] == pytest.approx([uniform] * 6, rel=1e-6)
    assert fit.history[-1]["valid_kl"] < fit.history[6]["valid_kl"] < uniform - 0.001
    assert fit.evaluate(data.valid)["kl"] == pytest.approx(pv.load_run(tmp_path / "run").evaluate(data.valid)["kl"], rel=1e-5)


# --- refusals -------------------------------------------------------------------------------------------------------------


def test_a_grid_that_the_maps_do_not_match_is_refused_with_the_shapes() -> None:
    spec = pv.DataSpec(event_shape=(1, 28, 28), kind="binary", size=ROWS)
    with pytest.raises(ValueError, match=r"^expected maps of 7 x 7 .* images of 28 x 28, .* got 14 x 14: [^\n]*$"):
        pv.build(pv.VQVAE(codebook=pv.Codebook(grid=(14, 14))), pv.NearestCode(), spec)
    small = dataclasses.replace(spec, event_shape=(1, 8, 8))
    with pytest.raises(ValueError, match=r"^expected maps of 2 x 2 .* got 7 x 7: .* codebook=Codebook\(grid=\(2, 2\)\), "):
        pv.build(pv.VQVAE(), pv.NearestCode(), small)
    with pytest.raises(
        ValueError, match=r"^expected images for the Conv of a VQVAE, got vectors of 9: declare decoder=MLP\(\)"
    ):
        pv.build(pv.VQVAE(), pv.NearestCode(), dataclasses.replace(spec, event_shape=(9,)))


def test_more_codes_than_outputs_to_start_at_are_refused() -> None:
    pair = pair_of(dataclasses.replace(BOOK, size=97))
    with pytest.raises(ValueError, match=r"24 rows x 2 x 2 = 96, got a codebook of 97"):
        start_pair(pair, data_of().as_given().train, seed=0)


def test_other_guides_and_models_are_refused_with_the_remedy() -> None:
    spec = pv.DataSpec(event_shape=EVENT, kind="binary", size=ROWS)
    with pytest.raises(ValueError, match=r"quantized: use NearestCode"):
        pv.build(pv.VQVAE(codebook=BOOK, decoder=TINY), pv.AmortizedNormal(), spec)
    with pytest.raises(ValueError, match=r"use NearestCode"):
        pv.build(pv.VQVAE(codebook=two_levels(), decoder=TINY), pv.AmortizedNormal(), spec)
    with pytest.raises(ValueError, match=r"VAE has no codebook|has no codebook: use AmortizedNormal"):
        pv.build(pv.VAE(), pv.NearestCode(), spec)


# --- what codes cost --------------------------------------------------------------------------------------------------------


def test_outputs_learn_what_their_two_nearest_codes_cost() -> None:
    torch.manual_seed(0)
    book = dataclasses.replace(BOOK, rate=0.5, warm_up=0).build().double()
    book.vectors.put(torch.ones(book.size, dtype=torch.bool), torch.randn(book.size, book.dim).double())
    outputs = torch.randn(ROWS, *BOOK.shape).double().requires_grad_()
    costs = torch.rand(ROWS, *BOOK.grid, BOOK.size).double()
    found = book.rate_loss(outputs, costs)
    assert found.shape == (ROWS,)

    rows, expected, least = outputs.movedim(1, -1), torch.zeros(ROWS).double(), []
    for place in itertools.product(range(ROWS), range(BOOK.grid[0]), range(BOOK.grid[1])):
        least.append((rows[place] - book.vectors.values).square().sum(1).sort().values[0].detach())
    for n, i, j in itertools.product(range(ROWS), range(BOOK.grid[0]), range(BOOK.grid[1])):
        near, which = (rows[n, i, j] - book.vectors.values).square().sum(1).sort()
        shares = torch.softmax(-near[:2] / torch.stack(least).mean(), 0)
        expected[n] = expected[n] + 0.5 * (shares * costs[n, i, j, which[:2]]).sum()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(each.sum(), outputs, retain_graph=True)[0] for each in (found, expected)))


@pytest.mark.parametrize("books", [(BOOK,), two_levels()])
def test_costs_are_those_of_the_prior_and_the_bound_stays_what_it_is(books: tuple[pv.Codebook, ...]) -> None:
    pair = pair_of(*(dataclasses.replace(book, rate=1.0) for book in books), prior=pv.LSTM(hidden=4)).double()
    with torch.no_grad():
        for parameter in pair.model.prior.parameters():
            parameter.add_(torch.randn(parameter.shape).double())
    x = x_of(dtype=torch.float64)
    pair.train()
    drawn = pair.guide.posterior(x).mean
    k = dict(drawn.items()) if isinstance(drawn, dict) else {"k": drawn}
    each = [-pair.model.costs(name, k, x).gather(-1, k[name].long()[..., None]).sum((-3, -2, -1)) for name in pair.model.sites]
    torch.testing.assert_close(torch.stack(each).sum(0), pair.model.prior().log_prob(k if len(k) > 1 else k["k"]))
    pair.eval()
    terms = elbo_terms(pair, (x,))
    torch.testing.assert_close(terms.kl, -torch.stack(each).sum(0))


def test_a_rate_makes_codes_cheaper() -> None:
    data = pv.load_data("digits")
    found = {}
    for rate in (0.0, 1.0):
        book = pv.Codebook(size=16, dim=4, grid=(4, 4), rate=rate, warm_up=100)
        network = pv.Conv(channels=(8,), blocks=1, spatial=True)
        model = pv.VQVAE(codebook=book, decoder=network, prior=pv.PixelCNN(channels=8, layers=2))
        fit = pv.fit(model, data, method=pv.SVI(epochs=15, batch_size=64, learning_rate=3e-3))
        found[rate] = fit.evaluate(data)
    assert found[1.0]["kl"] < found[0.0]["kl"] - 3
    assert found[1.0]["elbo"] > found[0.0]["elbo"]


def test_codes_that_cost_all_the_same_have_no_rate() -> None:
    with pytest.raises(ValueError, match="a prior that learns what codes cost"):
        pv.VQVAE(codebook=pv.Codebook(rate=1.0))
    with pytest.raises(ValueError, match="a rate of at least 0"):
        pv.Codebook(rate=-1.0)
    with pytest.raises(ValueError, match="a warm_up of at least 0 steps"):
        pv.Codebook(warm_up=-1)
