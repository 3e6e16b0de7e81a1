"""Networks that see what came earlier, and the distributions of rows that they make: laws, exactly."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import ppl_vae as pv
import ppl_vae.inference.training.step
from ppl_vae.fitting.build import build
from ppl_vae.inference.training.clock import Stopwatch
from ppl_vae.inference.training.loop import Training
from ppl_vae.models.sequences import LatentSequenceProgram, SequenceProgram
from ppl_vae.nn.autoregressive import Autoregressive, continued
from ppl_vae.nn.causal import CausalModule, Elements
from ppl_vae.program.capture import CaptureError, capture
from ppl_vae.storage import NULL_CHECKPOINTER
from ppl_vae.types import Field

CONTEXT, LEVELS = 3, 5

CAUSAL: dict[str, pv.CausalNetwork] = {
    "LSTM": pv.LSTM(hidden=8),
    "LSTM-deep": pv.LSTM(hidden=8, layers=2, embedding=5, projection=3, enters="state", dropout=0.2, word_dropout=0.5),
    "LSTM-inputs": pv.LSTM(hidden=8, enters="inputs"),
    "CausalConv": pv.CausalConv(hidden=8, layers=3),
    "CausalConv-ngram": pv.CausalConv(hidden=8, layers=1, kernel=2, enters="inputs"),
    "Transformer": pv.Transformer(hidden=8, heads=2),
    "Transformer-state": pv.Transformer(hidden=8, heads=2, layers=1, enters="state", dropout=0.2),
}
ENCODERS: dict[str, Any] = {
    "LSTM": pv.LSTM(hidden=6),
    "LSTM-both": pv.LSTM(hidden=6, layers=2, bidirectional=True, projection=4),
    "LSTM-mean": pv.LSTM(hidden=6, bidirectional=True, pool="mean"),
    "LSTM-max": pv.LSTM(hidden=6, pool="max"),
    "CausalConv": pv.CausalConv(hidden=6, layers=2),
    "CausalConv-max": pv.CausalConv(hidden=6, layers=2, pool="max"),
    "Transformer": pv.Transformer(hidden=8, heads=2),
}
KINDS = {"tokens": (Elements(levels=LEVELS), (LEVELS,)), "vectors": (Elements((2,)), (3, 2))}
networks = pytest.mark.parametrize("network", CAUSAL.values(), ids=CAUSAL)
kinds = pytest.mark.parametrize("kind", KINDS)


def rows_of(kind: str, n: int, steps: int) -> Tensor:
    torch.manual_seed(1)
    return torch.randint(LEVELS, (n, steps)) if kind == "tokens" else torch.randn(n, steps, 2).double()


def made(module: Any) -> Any:
    """In float64, far from its start, as it is evaluated."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.data.normal_(0.0, 0.5)
    return module.double().eval()


def causal(network: pv.CausalNetwork, kind: str, context: int = CONTEXT) -> CausalModule:
    elements, features = KINDS[kind]
    return made(network.build_causal(elements, features, context))


def context(n: int) -> Tensor:
    return torch.randn(n, CONTEXT, generator=torch.Generator().manual_seed(2)).double()


# --- networks -------------------------------------------------------------------------------------------------------------


@kinds
@networks
def test_one_pass_is_step_by_step(network: pv.CausalNetwork, kind: str) -> None:
    module, x, z = causal(network, kind), rows_of(kind, 4, 9), context(4)
    features, state = module.start(z, 4)
    found = [features]
    for place in range(8):
        features, state = module.step(x[:, place], state)
        found.append(features)
    torch.testing.assert_close(torch.stack(found, 1), module(x, z), rtol=1e-10, atol=1e-10)


@networks
def test_features_hang_on_earlier_elements_alone(network: pv.CausalNetwork) -> None:
    module, x = causal(network, "vectors"), rows_of("vectors", 1, 6)

    def features(row: Tensor) -> Tensor:
        return module(row, context(1)[0]).sum((-1, -2))  # (T,)

    found = torch.autograd.functional.jacobian(features, x[0])  # of place i by element j, (T, T, 2)
    depends = found.abs().amax(-1)
    assert not depends.triu().any()  # exactly
    assert (depends.diagonal(-1) > 0).all()


@networks
@kinds
def test_contexts_matter_and_leading_axes_broadcast(network: pv.CausalNetwork, kind: str) -> None:
    module, x, z = causal(network, kind), rows_of(kind, 4, 5), context(12).reshape(3, 4, CONTEXT)
    found = module(x, z)
    assert found.shape == (3, 4, 5, *module.feature_shape)
    for each, rows in zip(z, found, strict=True):
        torch.testing.assert_close(module(x, each), rows)
    torch.testing.assert_close(module(x[0], z[0, 0]), found[0, 0])
    assert (found[0] - found[1]).abs().amax((0, 2, *range(3, found.dim() - 1)))[0] > 1e-6  # from the first element on


@networks
def test_every_parameter_has_a_gradient(network: pv.CausalNetwork) -> None:
    module = causal(network, "tokens").train()
    module(torch.arange(LEVELS).repeat(4, 3), context(4)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in module.parameters())


@kinds
@pytest.mark.parametrize("network", ENCODERS.values(), ids=ENCODERS)
def test_encoders_do_not_see_the_padding(network: Any, kind: str) -> None:
    elements, _ = KINDS[kind]
    encoder = made(network.build_encoder(elements, (2, 3)))
    x, length = rows_of(kind, 4, 7), torch.tensor([7, 1, 4, 0])
    expected = encoder(x, length)
    assert expected.shape == (4, 2, 3)
    longer = torch.cat([x, rows_of(kind, 4, 5)], 1)  # whatever stands there
    torch.testing.assert_close(encoder(longer, length), expected, rtol=1e-12, atol=1e-12)
    for place, steps in enumerate(length[:3].tolist()):
        torch.testing.assert_close(encoder(x[place, :steps]), expected[place], rtol=1e-12, atol=1e-12)
    assert (expected[0] - expected[2]).abs().max() > 1e-3


def test_bidirectional_ones_read_from_the_end() -> None:
    encoder = made(pv.LSTM(hidden=6, bidirectional=True).build_encoder(Elements(levels=LEVELS), (1,)))
    x, length = torch.tensor([[1, 2, 3, 0, 0]]), torch.tensor([3])
    with torch.no_grad():
        encoder.backwards.load_state_dict(encoder.forwards.state_dict())
        weight = encoder.output.weight
        weight[:] = torch.cat([weight[:, 6:], weight[:, :6]], 1)
        swapped = encoder(x, length)
        weight[:] = torch.cat([weight[:, 6:], weight[:, :6]], 1)
        torch.testing.assert_close(encoder(torch.tensor([[3, 2, 1]]), length), swapped)


# --- distributions of rows ------------------------------------------------------------------------------------------------


def tokens(network: pv.CausalNetwork, *, end: int | None = 0, levels: int = LEVELS, longest: int = 6) -> Autoregressive:
    module = made(network.build_causal(Elements(levels=levels), (levels,)))
    return Autoregressive(module, pv.Tokens(levels=levels, end=end).build(()), longest=longest, batch_shape=(1,))


@networks
def test_probabilities_of_all_strings_sum_to_one(network: pv.CausalNetwork) -> None:
    """Three words and an end token: rows of up to four words, and all beginnings of five."""
    p = tokens(network, levels=4, longest=5)
    total = 0.0
    for words in range(6):
        rows = torch.tensor(list(itertools.product((1, 2, 3), repeat=words))).reshape(3**words, words)
        x = torch.nn.functional.pad(rows, (0, 5 - words)).long()  # the end, and padding
        mass = p.log_prob(x).exp().sum().item()
        assert words == 5 or mass < 1
        total += mass
    assert total == pytest.approx(1.0, abs=1e-12)


@networks
def test_log_prob_is_the_chain_of_what_is_drawn_from(network: pv.CausalNetwork) -> None:
    p = tokens(network)
    torch.manual_seed(3)
    x, length = p.draw((200,))
    x, length = x[:, 0], length[:, 0]
    features, state = p.network.start(None, 200)
    total = torch.zeros(200).double()
    for place in range(6):
        total += torch.where(place < length, dist.Categorical(logits=features).log_prob(x[:, place]), 0.0)
        features, state = p.network.step(x[:, place], state)
    torch.testing.assert_close(p.log_prob(x), total, rtol=1e-10, atol=1e-10)
    assert ((x == 0).int().argmax(1) + 1)[length < 6].tolist() == length[length < 6].tolist()
    inside = pv.sequence_mask(length, 6)
    assert not (x * ~inside).any()
    masked = Autoregressive(p.network, p.likelihood, longest=6, inside=inside)
    torch.testing.assert_close(masked.log_prob(x), total, rtol=1e-10, atol=1e-10)


def test_draws_follow_their_probabilities() -> None:
    p = tokens(pv.LSTM(hidden=4), levels=3, longest=3)
    rows = torch.tensor(list(itertools.product(range(3), repeat=3)))
    rows = rows[[not (row[:-1] == 0).any() or not row[int((row == 0).int().argmax()) :].any() for row in rows]]
    expected = p.log_prob(rows).exp()
    torch.manual_seed(0)
    drawn = p.draw((20_000,))[0][:, 0].long()
    shares = (drawn[:, None] == rows).all(-1).double().mean(0)
    assert expected.sum().item() == pytest.approx(1.0, abs=1e-10)
    assert ((shares - expected) / (expected * (1 - expected) / 20_000).sqrt()).abs().max() < 4


def test_of_numbers_the_density_is_the_product_of_normals() -> None:
    module = made(pv.LSTM(hidden=4).build_causal(Elements((2,)), (2, 2), CONTEXT))
    likelihood = pv.Gaussian(scale="amortized").build((2,)).double()
    z, x = context(3), torch.randn(3, 4, 2).double()
    p = Autoregressive(module, likelihood, longest=4, context=z)
    features, state = module.start(z, 3)
    total = torch.zeros(3).double()
    for place in range(4):
        total += likelihood(features).log_prob(x[:, place])
        features, state = module.step(x[:, place], state)
    torch.testing.assert_close(p.log_prob(x), total)
    assert p.sample((5,)).shape == (5, 3, 4, 2)
    means = p.point_prediction
    torch.testing.assert_close(likelihood(module(means, z)).mean, means)
    with pytest.raises(ValueError, match=r"temperature and top_p of 1 .* got 0.5 and 1"):
        p.draw(temperature=0.5)


@networks
def test_padding_counts_nothing_and_gets_no_gradient(network: pv.CausalNetwork) -> None:
    module = made(network.build_causal(Elements(levels=LEVELS), (LEVELS,)))
    x = 1 + torch.randint(LEVELS - 1, (4, 7), generator=torch.Generator().manual_seed(0))
    length = torch.tensor([7, 3, 1, 5])
    inside = pv.sequence_mask(length, 7)
    likelihood = pv.Tokens(levels=LEVELS).build(())
    p = Autoregressive(module, likelihood, longest=7, inside=inside)
    x = x * inside
    each = p.log_probs(x)
    assert (each[~inside] == 0).all()
    each.sum().backward()
    (table,) = (value for name, value in module.named_parameters() if name == "embedding.table.weight")
    assert table.grad is not None
    assert (table.grad[0] == 0).all()
    assert (table.grad[1:].abs().sum(1) > 0).all()
    longer = torch.cat([x, torch.full((4, 4), 2)], 1)
    other = Autoregressive(module, likelihood, longest=11, inside=pv.sequence_mask(length, 11))
    torch.testing.assert_close(other.log_prob(longer), p.log_prob(x), rtol=1e-12, atol=1e-12)


def test_encoders_give_padding_no_gradient() -> None:
    encoder = made(pv.LSTM(hidden=6, bidirectional=True).build_encoder(Elements(levels=LEVELS), (3,)))
    encoder(torch.tensor([[1, 2, 0, 0], [3, 4, 1, 2]]), torch.tensor([2, 4])).sum().backward()
    assert (encoder.embedding.table.weight.grad[0] == 0).all()


@networks
def test_rows_go_on_after_what_is_given_of_each(network: pv.CausalNetwork) -> None:
    module, z = causal(network, "tokens"), context(3)
    likelihood = pv.Tokens(levels=LEVELS).build(())
    given, length = torch.tensor([[1, 2, 3], [4, 0, 0], [0, 0, 0]]), torch.tensor([3, 1, 0])
    found = continued(module, likelihood, given, length, 4, context=z, temperature=0.0).long()
    assert found.shape == (3, 4)
    for place, steps in enumerate(length.tolist()):
        row = given[place, :steps]
        for element in found[place]:
            row = torch.cat([row, element[None]])
            assert module(row, z[place])[-1].argmax() == element  # the most probable one after those before it
    ended = continued(module, likelihood, given, length, 4, context=z, temperature=0.0, end=int(found[0, 1]))
    assert not ended[0, 2:].any()


def test_bold_and_timid_draws() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    p = pv.Tokens(levels=4).build(())(logits)
    torch.testing.assert_close(p.sharpened(1.0, 0.7).probs, torch.tensor([0.625, 0.375, 0.0, 0.0]))
    torch.testing.assert_close(p.sharpened(1.0, 0.1).probs, torch.tensor([1.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(p.sharpened(2.0, 1.0).probs, (logits / 2).softmax(-1))
    torch.testing.assert_close(p.sharpened(0.5, 1.0).probs, logits.exp().square() / logits.exp().square().sum())
    for options, told in (({"temperature": -1.0}, "at least 0"), ({"top_p": 0.0}, "in \\(0, 1\\]")):
        with pytest.raises(ValueError, match=told):
            tokens(pv.LSTM(hidden=4)).draw(**options)


# --- models ---------------------------------------------------------------------------------------------------------------


def token_spec(size: int = 8, longest: int = 6) -> pv.DataSpec:
    field = Field(name="x", event_shape=(), kind="integer", ragged=True, buckets=(longest,), length="length", levels=LEVELS)
    return pv.DataSpec(event_shape=(), kind="categorical", size=size, levels=LEVELS, fields=(field,))


def test_a_decoder_without_z_is_the_language_model() -> None:
    """Whatever q is, the ELBO is then log p(x) of the language model less the KL, so the best KL is 0."""
    spec, network = token_spec(), pv.LSTM(hidden=8)
    vae = pv.VAE(latent_dim=CONTEXT, decoder=network, likelihood=pv.Tokens(levels=LEVELS))
    pair = made(build(vae, pv.AmortizedNormal(encoder=pv.LSTM(hidden=4)), spec))
    language: SequenceProgram = made(pv.SequenceModel(network=network, likelihood=pv.Tokens(levels=LEVELS)).build(spec))
    model: LatentSequenceProgram = pair.model
    with torch.no_grad():
        of, to = model.rows.network, language.rows.network
        of.to_state.weight.zero_()
        of.to_state.bias.zero_()
        of.memory.weight_ih_l0[:, 8:].zero_()  # where z stands beside an embedded token
        for name, parameter in to.named_parameters():
            parameter.copy_(of.state_dict()[name][:, :8] if name == "memory.weight_ih_l0" else of.state_dict()[name])
    x, length = torch.tensor([[1, 2, 3, 0, 0, 0], [4, 1, 0, 2, 3, 1]]), torch.tensor([4, 6])
    exact = language.log_prob(x, length)
    data = pv.load_data(
        pv.Ragged.from_list([row[:n].tolist() for row, n in zip(x, length, strict=True)]),
        kind="categorical",
        valid=0.0,
        test=0.0,
    ).to(dtype=torch.float64)
    numbers = pv.evaluate(pair, data.train)
    kl = torch.distributions.kl_divergence(pair.guide.posterior(x, length), model.prior()).mean().item()
    assert kl > 0.1
    assert numbers["reconstruction"] == pytest.approx(exact.mean().item(), rel=1e-10)
    assert numbers["elbo"] == pytest.approx(exact.mean().item() - kl, rel=1e-10)


def test_z_enters_where_it_is_declared_to() -> None:
    parts = {
        enters: {
            name.split(".")[0]
            for name, _ in pv.LSTM(hidden=4, enters=enters).build_causal(Elements(levels=3), (3,), 2).named_parameters()
        }  # type: ignore[arg-type]
        for enters in ("state", "inputs", "both")
    }
    assert "to_state" in parts["state"] & parts["both"]
    assert "to_state" not in parts["inputs"]
    sizes = {enters: pv.LSTM(hidden=4, enters=enters).build_causal(Elements(levels=3), (3,), 2).input_size for enters in parts}  # type: ignore[arg-type]
    assert sizes == {"state": 4, "inputs": 6, "both": 6}


SENTENCES = ["to be", "or not to be", "that is the question", "nobler in the mind", "to suffer"] * 8


def test_a_text_vae_goes_all_the_way(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(SENTENCES))
    source = pv.DataSource(source=str(tmp_path / "a.txt"), tokens="characters")
    vae = pv.VAE(latent_dim=2, decoder=pv.LSTM(hidden=12, word_dropout=0.2), likelihood=pv.Tokens())
    guide = pv.AmortizedNormal(encoder=pv.LSTM(hidden=8, bidirectional=True))
    fit = pv.fit(vae, source, guide=guide, method=pv.SVI(epochs=2, batch_size=8), device="cpu", out=tmp_path / "run")
    data = pv.load_data(source)
    assert fit.model.likelihood == pv.Tokens(levels=len(data.spec.fields[0].vocabulary), end=0)  # type: ignore[union-attr]
    numbers = fit.evaluate(data.test, samples=5)
    assert numbers["elbo"] == pytest.approx(numbers["iwae"], abs=0.2)
    assert numbers["iwae_per_token"] == pytest.approx(numbers["iwae"] / numbers["tokens"], rel=1e-6)
    assert fit.encode(data.test).shape == (len(data.test), 2)
    again = pv.load_run(tmp_path / "run", device="cpu")
    assert again.evaluate(data.test, samples=5) == numbers
    texts = again.sample(3, given="to ", length=12)
    assert texts == fit.sample(3, given="to ", length=12)
    assert all(text.startswith("to ") and len(text) <= 12 for text in texts)
    assert len(set(fit.sample(20, length=5))) > 1
    timid = fit.sample(5, length=5, temperature=0.0)
    assert fit.sample(5, length=5, top_p=1e-6) == timid  # of the same z, the likeliest of each
    rows = data.test[:3]
    codes = fit.encode(rows)
    assert fit.reconstruct(rows) == fit.decode(codes)
    assert fit.decode(codes[1]) == fit.decode(codes)[1:2]
    with torch.no_grad():
        x, length = fit.pair.model.decode(codes[:1]).draw(temperature=0.0)
    text = "".join(data.spec.fields[0].vocabulary[int(token)] for token in x[0, : int(length)])
    assert fit.decode(codes[0])[0] == text.removesuffix("<end>")
    with pytest.raises(ValueError, match="leave x and y out"):
        fit.decode(codes, x=rows)


def test_a_language_model_knows_its_log_likelihood() -> None:
    data = pv.load_data(SENTENCES, tokens="words", valid=0.0, test=0.3)
    model = pv.SequenceModel(network=pv.LSTM(hidden=8))
    fit = pv.fit(model, data, method=pv.SVI(epochs=1, batch_size=8), device="cpu")
    numbers = fit.evaluate(data.test)
    assert numbers["log_likelihood"] == pytest.approx(numbers["elbo"], rel=1e-6)
    assert numbers["kl"] == 0
    assert fit.sample(2, given="to be or", length=4)[0].startswith("to be or")
    with pytest.raises(ValueError, match="without latent variables has no posterior"):
        fit.encode(data.test)


def test_rows_of_one_length_need_no_lengths() -> None:
    rows = np.random.default_rng(0).integers(0, LEVELS, (40, 6))
    data = pv.load_data(rows, kind="categorical", valid=0.0, test=0.0)
    fit = pv.fit(pv.SequenceModel(network=pv.CausalConv(hidden=8, layers=2)), data, method=pv.SVI(epochs=1), device="cpu")
    assert fit.pair.reads == ("x",)
    x = torch.from_numpy(rows)
    expected = Autoregressive(fit.pair.model.rows.network, fit.pair.model.rows.likelihood, longest=6, batch_shape=(40,))
    assert fit.evaluate(data.train)["elbo"] == pytest.approx(expected.log_prob(x).mean().item(), rel=1e-5)
    assert not fit.sample(3, temperature=0.0).diff(dim=0).any()
    drawn = fit.sample(5, given=[1, 2])
    assert drawn.shape == (5, 6)
    assert (drawn[:, :2] == torch.tensor([1.0, 2.0])).all()


def test_a_start_at_the_frequencies_of_the_tokens() -> None:
    data = pv.load_data(SENTENCES, tokens="characters", valid=0.0, test=0.0)
    model = pv.SequenceModel(network=pv.LSTM(hidden=8))
    fit = pv.fit(model, data, method=pv.SVI(epochs=1, batch_size=40, learning_rate=1e-12), device="cpu")
    counts = torch.bincount(torch.cat(list(data.train.raw.split(1000))).long()).double()
    entropy = -(counts * (counts / counts.sum()).log()).sum().item() / len(data.train)
    assert fit.evaluate(data.train)["elbo"] == pytest.approx(-entropy, rel=0.02)


def test_recorded_steps_are_the_eager_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ppl_vae.inference.training.step, "WORTH_RECORDING", 1)
    rng = np.random.default_rng(0)
    rows = pv.Ragged.from_list(
        [rng.integers(0, LEVELS, rng.integers(*ends)) for ends in ((1, 6), (6, 13)) for _ in range(20)], buckets=(5, 12)
    )
    data = pv.load_data(rows, kind="categorical", valid=0.0, test=0.0)
    vae = pv.VAE(latent_dim=2, decoder=pv.LSTM(hidden=6, word_dropout=0.3), likelihood=pv.Tokens()).settled(data)
    ends = []
    for compile in (False, "auto"):
        torch.manual_seed(0)
        pair = build(vae, pv.AmortizedNormal(encoder=pv.LSTM(hidden=6, bidirectional=True)), data.spec)
        pair.plates(*next(data.train.read(pair.reads, 20)))
        method = pv.SVI(epochs=3, batch_size=20, learning_rate=0.01, compile=compile)  # type: ignore[arg-type]
        training = Training(method.plan(pair), pair, data, Stopwatch(lambda row: None), NULL_CHECKPOINTER)
        training.run()
        assert training.stepper.steps[0].way == ("eager" if compile is False else "recorded")
        ends.append(torch.cat([parameter.detach().flatten() for parameter in pair.parameters()]))
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-5, atol=1e-6)


def test_a_recorded_lstm_has_gradients_where_none_are_enabled() -> None:
    """As annealing and gaps replay it; oneDNN keeps what they need by the mode of gradients."""
    module = pv.LSTM(hidden=4).build_causal(Elements((2,)), (1, 2)).eval()

    def gradient(x: Tensor) -> list[Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return list(torch.autograd.grad(module(x).square().sum(), [x]))

    x = torch.randn(3, 5, 2)
    with torch.no_grad():
        graph = capture(gradient, [], [x])
        torch.testing.assert_close(graph(x), gradient(x))
    if graph.keeps_by_mode:  # on this machine
        with pytest.raises(CaptureError, match="one operation already"):
            graph.compiled(x)


def test_the_encoder_runs_ahead() -> None:
    data = pv.load_data(SENTENCES, tokens="words", valid=0.0, test=0.0)
    vae = pv.VAE(latent_dim=2, decoder=pv.LSTM(hidden=4), likelihood=pv.Tokens()).settled(data)
    pair = build(vae, pv.AmortizedNormal(encoder=pv.LSTM(hidden=4)), data.spec)
    pair.plates(*next(data.train.read(pair.reads, 8)))
    method = pv.SVI(epochs=2, batch_size=10, alternate="steps", encoder_steps=3, compile=False)
    training = Training(method.plan(pair), pair, data, Stopwatch(lambda row: None), NULL_CHECKPOINTER)
    moved: list[str] = []
    step = training.stepper.step

    def seen(block: Any, rows: Tensor) -> None:
        before = {half: [p.clone() for p in getattr(pair, half).parameters()] for half in ("guide", "model")}
        step(block, rows)
        moved.extend(
            half
            for half, values in before.items()
            if any(not torch.equal(*both) for both in zip(values, getattr(pair, half).parameters(), strict=True))
        )

    training.stepper.step = seen  # type: ignore[method-assign]
    training.run()
    assert len(moved) >= 8
    assert moved == [("guide", "guide", "guide", "model")[place % 4] for place in range(len(moved))]
    with pytest.raises(ValueError, match="alternate='steps', of which encoder_steps are a part"):
        pv.SVI(encoder_steps=2)


# --- what is refused ------------------------------------------------------------------------------------------------------


def test_what_makes_no_model_of_rows_is_refused() -> None:
    data = pv.load_data(SENTENCES, tokens="characters", valid=0.0, test=0.0)
    vae = pv.VAE(latent_dim=2, decoder=pv.LSTM(hidden=4), likelihood=pv.Tokens())
    with pytest.raises(ValueError, match="encoder that reads rows of different lengths, got MLP: declare encoder=LSTM"):
        pv.fit(vae, data, device="cpu")
    for guide, told in ((pv.AmortizedLinear(), "encoder=LSTM"), (pv.ExactPosterior(), "no exact posterior")):
        with pytest.raises(ValueError, match=told):
            pv.fit(vae, data, guide=guide, device="cpu")
    with pytest.raises(ValueError, match="prior without data of its own for rows of different lengths, got VampPrior"):
        pv.fit(dataclasses.replace(vae, prior=pv.VampPrior()), data, device="cpu")
    with pytest.raises(ValueError, match="bidirectional"):
        pv.fit(pv.SequenceModel(network=pv.LSTM(bidirectional=True)), data, device="cpu")
    with pytest.raises(ValueError, match="decoder sees what came earlier"):
        pv.fit(pv.VAE(likelihood=pv.Tokens()), data, device="cpu")
    with pytest.raises(ValueError, match="Bernoulli is a likelihood of"):
        pv.fit(pv.VAE(decoder=pv.LSTM()), data, guide=pv.AmortizedNormal(encoder=pv.LSTM()), device="cpu")
    with pytest.raises(ValueError, match="at most 3 tokens, got"):
        pv.fit(pv.SequenceModel(likelihood=pv.Tokens(levels=3)), data, device="cpu")
    with pytest.raises(ValueError, match="levels of Tokens, got none"):
        pv.Tokens().features
    for wrong in ({"hidden": 0}, {"dropout": 1.0}, {"word_dropout": -0.1}, {"enters": "both "}, {"pool": "median"}):
        with pytest.raises(ValueError, match="expected"):
            pv.LSTM(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="even hidden width"):
        pv.Transformer(hidden=6, heads=4)


def test_a_text_of_which_nothing_is_told_is_a_running_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("abc\nde\n" * 100)
    with pytest.warns(pv.FitWarning, match="running text, in rows of 256 characters"):
        data = pv.load_data(path, valid=0.0, test=0.0)
    assert (data.source.tokens, data.source.chunk) == ("characters", 256)
    assert sorted(data.train.raw.lengths.tolist()) == [188, 256, 256]
    assert data.spec.fields[0].vocabulary[0] != "<end>"
    with pytest.raises(ValueError, match=r"nosuch.txt', which does not exist"):  # and no warning
        pv.load_data(tmp_path / "nosuch.txt")
    words = pv.load_data(path, tokens="words", chunk=7, valid=0.0, test=0.0)
    assert words.train.raw.total == 200
    for wrong in ({"chunk": 0}, {"tokens": "words", "chunk": 0}):
        with pytest.raises(ValueError, match="chunk"):
            pv.load_data(path, **wrong)
    with pytest.raises(ValueError, match=r"chunk for \.txt files only"):
        pv.load_data(SENTENCES, tokens="words", chunk=5)
    assert math.isfinite(pv.load_data(path, tokens="characters").train.raw.total)  # a row a line
    parts = pv.load_data(path, chunk=7)  # in the order of the text, so that neighbours are not split
    held = torch.cat([part.raw.values for part in (parts.train, parts.valid, parts.test)])
    whole = pv.load_data(path, chunk=700, valid=0.0, test=0.0).train.raw
    names = [pv.load_data(path, chunk=7).spec.fields[0].vocabulary[code] for code in held]
    assert "".join(names) == "".join(whole.vocabulary[code] for code in whole.values)


@pytest.mark.parametrize("network", [pv.LSTM, pv.CausalConv, pv.Transformer])
def test_options_without_an_effect_are_refused(network: Any) -> None:
    spec = pv.load_data(["ab", "b", "ba"], tokens="characters", valid=0, test=0).spec
    small = {"hidden": 4, **({"heads": 2} if network is pv.Transformer else {})}
    decoder = pv.VAE(latent_dim=2, likelihood=pv.Tokens(levels=3), decoder=network(**small))
    guide = pv.AmortizedNormal(encoder=network(**small))
    for model, proposal, told in (
        (pv.SequenceModel(network=network(enters="inputs", **small)), pv.ExactPosterior(), "enters .* as a network without z"),
        (pv.SequenceModel(network=network(pool="max", **small)), pv.ExactPosterior(), "pool .* as a network without z"),
        (dataclasses.replace(decoder, decoder=network(pool="max", **small)), guide, "pool .* as a decoder"),
        (decoder, pv.AmortizedNormal(encoder=network(enters="state", **small)), "enters .* as an encoder"),
    ):
        with pytest.raises(ValueError, match=f"expected no {told}, where it has no effect"):
            build(model, proposal, spec)
    build(dataclasses.replace(decoder, decoder=network(enters="inputs", **small)), guide, spec)


def test_codes_of_another_width_are_refused_and_what_is_next_works() -> None:
    from ppl_vae.cli.fit import next_step

    data = pv.load_data(["ab", "b", "ba"] * 4, tokens="characters", valid=0, test=0)
    once = pv.SVI(epochs=1, compile=False)
    model = pv.VAE(latent_dim=2, likelihood=pv.Tokens(), decoder=pv.LSTM(hidden=4))
    fit = pv.fit(model, data, guide=pv.AmortizedNormal(encoder=pv.LSTM(hidden=4)), method=once, device="cpu")
    with pytest.raises(ValueError, match=r"latent codes of shape \(..., 2\), got \(5, 3\)"):
        fit.decode(torch.zeros(5, 3))
    told = "next: ppl-vae report r, evaluate r --samples 100, encode r --out codes.csv, sample r --n 3"
    assert next_step(Path("r"), fit) == told
    exact = pv.fit(pv.SequenceModel(network=pv.LSTM(hidden=4)), data, method=once, device="cpu")
    assert next_step(Path("r"), exact) == "next: ppl-vae report r, evaluate r, sample r --n 3"
