"""Rows of different lengths: how they are held, which batches they make, and that padding changes no number."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn
from torch.nn.functional import pad

import ppl_vae as pv
from ppl_vae.data.buckets import bucket_lengths
from ppl_vae.data.fingerprint import fingerprint
from ppl_vae.data.raw import Raw
from ppl_vae.evaluate.rows import batches, in_row_order
from ppl_vae.inference.training.clock import Stopwatch
from ppl_vae.inference.training.loop import Training
from ppl_vae.program.base import GuideProgram, ModelProgram
from ppl_vae.storage import NULL_CHECKPOINTER
from ppl_vae.storage.snapshot import Snapshot

LEVELS = 7


def sentences(count: int = 300, seed: int = 0, longest: int = 30) -> list[np.ndarray]:
    """Rows of 1 to 30 of 7 tokens."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, LEVELS, rng.integers(1, longest + 1)) for _ in range(count)]


def loaded(rows: Any, **options: Any) -> pv.Data:
    rows = rows if isinstance(rows, pv.Ragged) else pv.Ragged.from_list(rows)
    return pv.load_data(rows, **{"kind": "categorical", "valid": 0.0, "test": 0.0, **options})


def bigram(x: Tensor, length: Tensor, *, size: int = 1, levels: int = LEVELS) -> None:
    """log p(x) = sum_t log p(x_t | x_(t-1)), token 0 before the first."""
    logits = pyro.param("logits", torch.zeros(levels, levels))
    each = dist.Categorical(logits=logits[pad(x, (1, -1))]).mask(pv.sequence_mask(length, x.shape[-1]))
    with pv.data_plate(size, x):
        pyro.sample("x", each.to_event(1), obs=x)


def nothing(x: Tensor, length: Tensor) -> None:
    """No latent variable."""


def levels(x: Tensor, length: Tensor, *, size: int) -> None:
    """Each row has a level z ~ Normal(m, 1); its numbers are Normal(z, 0.5)."""
    loc = pyro.param("loc", torch.tensor(0.0))
    inside = pv.sequence_mask(length, x.shape[-1])
    with pv.data_plate(size, x):
        z = pyro.sample("z", dist.Normal(loc.expand(len(x)), 1.0))
        pyro.sample("x", dist.Normal(z[..., None] + torch.zeros(x.shape[-1]), 0.5).mask(inside).to_event(1), obs=x)


def propose_levels(x: Tensor, length: Tensor, *, size: int) -> None:
    """The exact posterior of a prior around 0.3."""
    precision = 1 + length / 0.25
    total = torch.where(pv.sequence_mask(length, x.shape[-1]), x, 0.0).sum(-1)
    with pv.data_plate(size, x):
        pyro.sample("z", dist.Normal((pyro.param("prior", torch.tensor(0.0)) + total / 0.25) / precision, precision**-0.5))


def series(count: int = 120, seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [(rng.normal() + 0.5 * rng.normal(size=rng.integers(1, 9))).astype(np.float32) for _ in range(count)]


def fitted(data: pv.Data, model: Callable = bigram, guide: Callable = nothing, **options: Any) -> pv.Fit:
    method = pv.SVI(**{"epochs": 2, "batch_size": 32, "learning_rate": 0.05, **options})
    return pv.fit(functools.partial(model, size=len(data.train)), data, guide=guide, method=method, device="cpu")


# --- how they are held ----------------------------------------------------------------------------------------------------


def test_rows_come_back_as_they_went_in() -> None:
    rows = [*sentences(20), np.zeros(0, np.int64)]
    held = pv.Ragged.from_list(rows)
    assert (len(held), held.dtype, held.values.dtype) == (21, torch.uint8, torch.uint8)
    assert held.total == sum(map(len, rows)) == held.offsets[-1]
    for place, row in enumerate(rows):
        assert held[place].tolist() == row.tolist()
    some = held[torch.tensor([20, 3, 3])]
    assert [some[place].tolist() for place in range(3)] == [[], rows[3].tolist(), rows[3].tolist()]
    assert some.values.data_ptr() == held.values.data_ptr()
    own = some.compact()
    assert own.total == len(own.values) == 2 * len(rows[3])
    assert [own[place].tolist() for place in range(3)] == [some[place].tolist() for place in range(3)]
    assert torch.equal(held[2:4].padded(slice(None), 40)[1, : len(rows[3])], torch.from_numpy(rows[3]))
    assert not held.padded(slice(None), 40)[:, 30:].any()


def test_elements_of_a_row_may_be_vectors() -> None:
    rows = [np.arange(6.0).reshape(2, 3), np.zeros((0, 3)), np.ones((1, 3))]
    held = pv.Ragged.from_list(rows)
    assert held.shape == (3, 3)
    assert held.padded(slice(None), 3).shape == (3, 3, 3)
    assert torch.cat(list(held.split(2))).tolist() == np.concatenate(rows).tolist()


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([0, 255], torch.uint8),
        ([-1, 255], torch.int16),
        ([0, 40000], torch.int32),
        ([0, 2**40], torch.int64),
        ([True, False], torch.uint8),
        (np.float16([0.5]), torch.float32),
        (np.float64([0.5]), torch.float64),
    ],
)
def test_values_are_kept_in_the_smallest_dtype(values: Any, dtype: torch.dtype) -> None:
    assert pv.Ragged(values, [0, len(values)]).dtype == dtype


@pytest.mark.parametrize(
    ("values", "offsets", "told"),
    [
        ([1, 2, 3], [0, 2, 1, 3], "falling after row 1"),
        ([1, 2, 3], [0, 2], "0 to 2: give np.cumsum"),
        ([1, 2, 3], [1, 3], "got 1 to 3"),
        ([1, 2, 3], [0.0, 3.0], "whole numbers"),
        ([1, 2, 3], [[0, 3]], r"of shape \(1, 2\)"),
        ([1.0, np.nan], [0, 2], "finite values, got NaN"),
        ([1.0, np.inf], [0, 2], "finite values, got inf"),
        (["a", "b"], [0, 2], "as numbers"),
        ([[1, 2], [3]], [0, 2], "one dense array"),
        (5, [0, 1], "as numbers"),
    ],
)
def test_what_is_no_ragged_array_is_refused(values: Any, offsets: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        pv.Ragged(values, offsets)


def test_rows_one_by_one_have_elements_of_one_shape() -> None:
    with pytest.raises(ValueError, match=r"row 0 of \(2,\), row 1 of \(2, 3\)"):
        pv.Ragged.from_list([[1, 2], np.ones((2, 3))])
    with pytest.raises(ValueError, match="at least one row"):
        pv.Ragged.from_list([])
    with pytest.raises(ValueError, match="0 to 1, got 0 to 2"):
        pv.Ragged([0, 2], [0, 2], vocabulary=("a", "b"))


def padding(lengths: np.ndarray, ends: tuple[int, ...]) -> int:
    """Elements that rows take in buckets."""
    return sum(min(end for end in ends if end >= length) for length in lengths)


@pytest.mark.parametrize("seed", range(5))
def test_buckets_pad_the_fewest_elements(seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 12, 40)
    distinct = sorted(set(lengths.tolist()))
    for most in (1, 2, 3, 4):
        found = bucket_lengths(lengths, most)
        cuts = itertools.combinations(distinct[:-1], min(most, len(distinct)) - 1)
        assert len(found) <= most
        assert padding(lengths, found) == min(padding(lengths, (*cut, distinct[-1])) for cut in cuts)


def test_many_distinct_lengths_are_told_apart_coarsely() -> None:
    lengths = np.random.default_rng(0).integers(1, 100_000, 20_000)
    found = bucket_lengths(lengths)
    assert len(found) == 6
    assert found[-1] == lengths.max()
    assert padding(lengths, found) < 1.2 * lengths.sum()
    assert bucket_lengths(np.array([], int)) == ()


# --- batches --------------------------------------------------------------------------------------------------------------


def test_a_pass_visits_each_row_once_in_batches_of_one_bucket() -> None:
    rows = sentences()
    data = pv.load_data({"x": pv.Ragged.from_list(rows), "row": np.arange(300)}, kind="categorical", valid=0.0, test=0.0)
    reads = ("x", "row", "length")
    passes = []
    for seed in (0, 0, 1):
        generator = torch.Generator().manual_seed(seed)
        passes.append([[part[of] for part in block] for block, of in data.train.steps(32, generator=generator, reads=reads)])
    assert all(torch.equal(a, b) for one, other in zip(*passes[:2], strict=True) for a, b in zip(one, other, strict=True))
    assert [row[1].tolist() for row in passes[0]] != [row[1].tolist() for row in passes[2]]
    buckets = data.spec.fields[0].buckets
    assert len(buckets) <= 6
    assert buckets[-1] == data.spec.fields[0].longest == max(map(len, rows))
    met = []
    for x, numbers, length in passes[0]:
        assert x.shape[1] in buckets
        for seen, number, long in zip(x, numbers.tolist(), length.tolist(), strict=True):
            assert seen[:long].tolist() == rows[number].tolist()
            assert not seen[long:].any()
            assert x.shape[1] == min(end for end in buckets if end >= long)
            met.append(number)
    assert sorted(met) == list(range(300))
    sizes = [len(x) for x, *_ in passes[0]]
    full = [size == 32 for size in sizes]
    assert full == sorted(full, reverse=True)  # smaller last ones come last
    lengths = [x.shape[1] for x, *_ in passes[0]]
    assert lengths != sorted(lengths)  # of all buckets among each other


def test_every_row_is_as_likely_anywhere() -> None:
    data = loaded(sentences(60))
    places = torch.zeros(60)
    for seed in range(200):
        order = [of for _, of in data.train.steps(60, generator=torch.Generator().manual_seed(seed), reads=("x",))]
        places[torch.cat(order)[:10]] += 1
    assert places.max() < 200


def test_the_rows_of_a_split_come_bucket_by_bucket_and_in_their_order_again() -> None:
    rows = sentences(50)
    data = loaded(rows)
    found = list(data.train.read(("x", "length"), 8))
    order = data.train.order(("x", "length")).tolist()
    flat = [row[:long].tolist() for x, length in found for row, long in zip(x, length.tolist(), strict=True)]
    assert flat == [rows[place].tolist() for place in order]
    assert found[0][0].dtype == found[0][1].dtype == torch.int64
    in_order = list(data.train.batches(8))
    assert [len(x) for x in in_order] == [8] * 6 + [2]
    assert [row[: len(rows[place])].tolist() for place, row in enumerate(itertools.chain(*in_order))] == [
        r.tolist() for r in rows
    ]


def test_one_long_row_pads_no_other() -> None:
    rows = [np.ones(200_000, np.uint8), *(np.ones(3, np.uint8) for _ in range(20_000))]  # padded as a whole: 4 GB of bytes
    data = loaded(rows)
    found = [tuple(x.shape) for x, _ in data.train.read(("x", "length"), 10_000)]
    assert found == [(10_000, 3), (10_000, 3), (1, 200_000)]


def test_several_ragged_fields_share_a_length_where_they_are_as_long() -> None:
    x, count = pv.Ragged([1, 2, 3], [0, 1, 3]), pv.Ragged([5.0, 6.0, 7.0], [0, 1, 3])
    other = pv.Ragged([1, 1, 1, 1], [0, 3, 4])
    data = pv.load_data({"x": x, "count": count, "other": other}, valid=0.0, test=0.0)
    assert data.spec.lengths == ("length", "other_length")
    assert [field.buckets for field in data.spec.fields] == [(1, 2), (1, 2), (3,)]
    first, second = data.train.read(("x", "count", "other", "length", "other_length"), 5)
    assert [part.tolist() for part in first] == [[[1.0]], [[5.0]], [[1, 1, 1]], [1], [3]]
    assert [part.tolist() for part in second] == [[[2.0, 3.0]], [[6.0, 7.0]], [[1, 0, 0]], [2], [1]]


def test_a_ragged_field_beside_rows_of_one_length() -> None:
    data = pv.load_data({"x": np.arange(6.0).reshape(3, 2), "words": pv.Ragged([1, 2, 3], [0, 1, 1, 3])}, valid=0.0, test=0.0)
    found = [(x.tolist(), words.shape[1], length.tolist()) for x, words, length in data.train.read(("x", "words", "length"), 5)]
    assert found == [([[0.0, 1.0], [2.0, 3.0]], 1, [1, 0]), ([[4.0, 5.0]], 2, [2])]


# --- numbers --------------------------------------------------------------------------------------------------------------


def counts(rows: list[np.ndarray]) -> tuple[Tensor, Counter]:
    """The maximum-likelihood logits of a bigram model, and the pairs that were counted."""
    pairs = Counter(pair for row in rows for pair in itertools.pairwise([0, *row.tolist()]))
    table = torch.zeros(LEVELS, LEVELS, dtype=torch.float64)
    for (before, after), count in pairs.items():
        table[before, after] = count
    return (table / table.sum(1, keepdim=True)).log().clamp(min=-1e4), pairs


def test_a_bigram_model_is_what_counting_says() -> None:
    rows = sentences()
    data = loaded(rows)
    logits, pairs = counts(rows)
    expected = sum(count * logits[pair].item() for pair, count in pairs.items())
    fit = fitted(data, epochs=150, batch_size=300, learning_rate=0.1)
    numbers = fit.evaluate(data.train)
    tokens = sum(map(len, rows))
    assert numbers["elbo_per_token"] == pytest.approx(expected / tokens, abs=2e-4)  # trained
    with torch.no_grad():
        next(fit.pair.parameters()).copy_(logits)
    numbers = fit.evaluate(data.train)
    assert numbers["elbo_per_token"] == pytest.approx(expected / tokens, rel=1e-6)
    assert numbers["elbo"] == pytest.approx(expected / 300, rel=1e-6)
    assert numbers["perplexity"] == pytest.approx(np.exp(-expected / tokens), rel=1e-6)
    assert numbers["tokens"] == pytest.approx(tokens / 300)
    own = np.array([sum(logits[pair].item() for pair in itertools.pairwise([0, *row.tolist()])) for row in rows])
    sizes = np.array(list(map(len, rows)))
    ratio = own.sum() / sizes.sum()
    assert numbers["elbo_per_token_se"] == pytest.approx(np.sqrt(((own - ratio * sizes) ** 2).sum()) / sizes.sum(), rel=1e-5)
    assert "bits_per_dim" not in numbers
    last = fit.history[-1]
    assert last["elbo_per_token"] == pytest.approx(last["elbo"] / (tokens / 300))


def test_a_latent_variable_of_each_row_has_its_exact_marginal() -> None:
    rows = series()
    data = pv.load_data(pv.Ragged.from_list(rows), valid=0.0, test=0.0)
    fit = fitted(data, levels, functools.partial(propose_levels, size=120), epochs=200, learning_rate=0.02)
    loc = next(value for name, value in fit.pair.named_parameters() if name.endswith("loc")).item()
    assert loc == pytest.approx(np.mean([row.mean() for row in rows]), abs=0.1)
    exact = [
        dist.MultivariateNormal(torch.full((len(row),), loc), 0.25 * torch.eye(len(row)) + 1.0).log_prob(torch.from_numpy(row))
        for row in rows
    ]
    numbers = fit.evaluate(data.train, samples=50)
    assert numbers["iwae"] == pytest.approx(float(torch.stack(exact).mean()), abs=5e-3)
    assert numbers["iwae_per_token"] == pytest.approx(float(torch.stack(exact).sum()) / sum(map(len, rows)), abs=2e-3)


def test_a_guide_with_parameters_of_each_row_knows_its_rows() -> None:
    rows = series()
    data = pv.load_data(pv.Ragged.from_list(rows), valid=0.0, test=0.0)
    model = functools.partial(levels, size=120)
    guide = AutoNormal(model, create_plates=lambda x, length: pv.data_plate(120, x))
    method = pv.SVI(epochs=150, batch_size=32, learning_rate=0.1)
    fit = pv.fit(model, data, guide=guide, method=method, device="cpu")
    found = next(value for name, value in fit.pair.named_parameters() if name.endswith("locs.z_unconstrained")).detach()
    loc = next(value for name, value in fit.pair.named_parameters() if name.endswith("loc")).item()
    exact = torch.tensor([(loc + row.sum() / 0.25) / (1 + len(row) / 0.25) for row in rows])
    assert (found - exact).abs().mean() < 0.1
    assert fit.evaluate(data.train)["elbo"] == pytest.approx(fit.history[-1]["elbo"], abs=0.3)


def per_datum(pair: Any, split: pv.Split) -> Tensor:
    """Log p(x) of each row, in the rows' order."""
    found = []
    for batch in batches(pair, split, 16):
        trace = pyro.poutine.trace(pair.programs.model).get_trace(*batch)
        trace.compute_log_prob()
        site = trace.nodes["x"]
        found.append(site["log_prob"] / site["scale"])
    return in_row_order(pair, split, torch.cat(found))


@pytest.mark.parametrize("buckets", [(30,), (37,), (64,), (5, 11, 17, 23, 30), (10, 41)])
def test_longer_padding_changes_no_number_beyond_rounding(buckets: tuple[int, ...]) -> None:
    rows = sentences()
    data, other = (loaded(pv.Ragged.from_list(rows, buckets=each)).to(dtype=torch.float64) for each in ((), buckets))
    fit = fitted(data)
    fit.pair.double()
    with torch.no_grad():
        pair = fit.pair
        expected, found = per_datum(pair, data.train), per_datum(pair, other.train)
    alone = [per_datum(pair, loaded([row]).train).item() for row in rows[:20]]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(expected[:20], torch.tensor(alone, dtype=expected.dtype), rtol=1e-12, atol=1e-12)


def test_longer_padding_changes_no_fit() -> None:
    rows = sentences()
    ends = []
    for buckets in ((30,), (64,)):  # one batch of all, so that both go the same way
        fit = fitted(loaded(pv.Ragged.from_list(rows, buckets=buckets)), batch_size=300, epochs=20)
        ends.append(next(fit.pair.parameters()).detach())
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-4, atol=1e-5)


def test_permuting_rows_changes_nothing() -> None:
    rows = sentences()
    order = np.random.default_rng(3).permutation(300)
    data = loaded(rows)
    fit = fitted(data)
    permuted = loaded([rows[place] for place in order]).train
    ours, theirs = per_datum(fit.pair, data.train), per_datum(fit.pair, permuted)
    torch.testing.assert_close(theirs, ours[torch.from_numpy(order)], rtol=1e-6, atol=1e-6)
    one, other = fit.evaluate(data.train), fit.evaluate(permuted)
    assert {name: other[name] for name in one} == pytest.approx(one, rel=1e-6)
    assert fit.evaluate(data.train, limit=7)["n"] == 7


def test_all_batches_together_count_each_row_once() -> None:
    """The gradients of a pass, weighed as steps weigh them, are those of all data."""
    rows = sentences(90)
    data = loaded(rows)
    logits = torch.zeros(LEVELS, LEVELS, requires_grad=True)

    def loss(x: Tensor, length: Tensor) -> Tensor:
        each = dist.Categorical(logits=logits[pad(x, (1, -1))]).mask(pv.sequence_mask(length, x.shape[-1]))
        return -each.to_event(1).log_prob(x).mean()

    generator = torch.Generator().manual_seed(0)
    steps = [
        [part[of].long() for part in block] for block, of in data.train.steps(32, generator=generator, reads=("x", "length"))
    ]
    of_steps = sum(torch.autograd.grad(loss(*batch), logits)[0] * (len(batch[0]) / 32) for batch in steps)
    (of_all,) = torch.autograd.grad(loss(data.train.raw.padded(slice(None), 30).long(), data.train.raw.lengths), logits)
    torch.testing.assert_close(of_steps, of_all * 90 / 32)


# --- recorded steps, going on ---------------------------------------------------------------------------------------------


def training(data: pv.Data, keeper: Any = NULL_CHECKPOINTER, **options: Any) -> Training:
    model = functools.partial(bigram, size=len(data.train))
    pair = pv.build(model, nothing, data.spec)
    method = pv.SVI(**{"epochs": 60, "batch_size": 16, "learning_rate": 0.05, **options})
    pair.plates(*next(data.train.read(pair.reads, 16)))
    return Training(method.plan(pair), pair, data, Stopwatch(lambda row: None), keeper)


def test_each_bucket_is_recorded_once_and_replayed_to_the_same_bits() -> None:
    data = loaded(pv.Ragged.from_list(sentences(200), buckets=(10, 30)))
    ends = []
    for compile in (False, "auto"):
        found = training(data, compile=compile)
        found.run()
        ends.append(next(found.pair.parameters()).detach())
        shapes = [shapes[0] for shapes in found.stepper.steps[0]._fast]
        assert sorted(shapes) == [(16, 10), (16, 30)]
        assert found.stepper.steps[0].way == ("eager" if compile is False else "recorded")
    torch.testing.assert_close(ends[1], ends[0], rtol=0, atol=0)


@dataclasses.dataclass
class Kept:
    """A checkpointer that has a state to go on from."""

    restored: Any
    folder: None = None

    def due(self) -> bool:
        return False

    def keep(self, state: Any) -> None:
        pass


@pytest.mark.parametrize("stop", [3, 20])
def test_a_fit_goes_on_at_a_batch(stop: int) -> None:
    data = pv.load_data(pv.Ragged.from_list(sentences(200)), kind="categorical", valid=0.2, test=0.0)
    straight = training(data, epochs=4, compile=False)
    straight.run()
    broken = training(data, epochs=4, compile=False)
    snapshots: list[Any] = []
    count = itertools.count(1)
    step = broken.stepper.step

    def counted(block: Any, rows: Tensor) -> None:
        step(block, rows)
        if next(count) == stop:
            state = Snapshot.of(broken.state(), list(broken.history))
            snapshots.append(state._replace(tensors={name: value.clone() for name, value in state.tensors.items()}))

    broken.stepper.step = counted  # type: ignore[method-assign]
    broken.run()
    assert all(len(shape) == 2 for shape in snapshots[0].metadata["sizes"])
    resumed = training(data, Kept(snapshots[0]), epochs=4, compile=False)
    assert resumed.stepper.batch_index == snapshots[0].metadata["batch_index"] > 0
    resumed.run()
    for ours, theirs in zip(resumed.pair.parameters(), straight.pair.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert [row["elbo"] for row in resumed.history] == [row["elbo"] for row in straight.history]


# --- declared models, labels, fields --------------------------------------------------------------------------------------


class BagModel(ModelProgram):
    """Tokens of one distribution a row, given by a number z ~ Normal(0, 1)."""

    reads = ("x", "length")

    def __init__(self, spec: pv.DataSpec) -> None:
        super().__init__()
        self.size = spec.size
        self.slope = nn.Parameter(torch.linspace(-1, 1, spec.levels or 1))

    def prior(self) -> Any:
        return dist.Normal(self.slope.new_zeros(1), 1.0).to_event(1)

    def forward(self, x: Tensor, length: Tensor) -> None:
        with pv.data_plate(self.size, x):
            z = pyro.sample("z", self.prior())
            logits = (z * self.slope)[..., None, :].expand(*z.shape[:-1], x.shape[-1], -1)
            each = dist.Categorical(logits=logits).mask(pv.sequence_mask(length, x.shape[-1]))
            pyro.sample("x", each.to_event(1), obs=x)


class BagGuide(GuideProgram):
    """q(z | x) from the mean of the tokens."""

    def __init__(self, spec: pv.DataSpec) -> None:
        super().__init__()
        self.size = spec.size
        self.network = nn.Linear(1, 2)

    def posterior(self, x: Tensor, length: Tensor) -> Any:
        mean = (x * pv.sequence_mask(length, x.shape[-1])).sum(-1) / length
        loc, scale = self.network(mean[..., None] / 6 - 0.5).split(1, -1)
        return dist.Normal(loc, scale.exp()).to_event(1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bag(pv.Model):
    ragged: ClassVar[bool] = True
    accepts = frozenset({"categorical"})

    def check(self, spec: pv.DataSpec) -> None:
        assert spec.levels

    def build(self, spec: pv.DataSpec) -> BagModel:
        return BagModel(spec)

    def story(self) -> str:
        return "a bag of words"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadBag(pv.Guide):
    def build(self, model: Any, spec: pv.DataSpec) -> BagGuide:
        return BagGuide(spec)

    def story(self) -> str:
        return "the reader of a bag"


def test_a_declared_model_that_takes_them_goes_all_the_way(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join("".join("abcdefg"[token] for token in row) for row in sentences(120)))
    source = pv.DataSource(source=str(tmp_path / "a.txt"), tokens="characters")
    method = pv.SVI(epochs=3, batch_size=32, schedule="constant")
    fit = pv.fit(Bag(), source, guide=ReadBag(), method=method, device="cpu", out=tmp_path / "run", track=("iwae:3",))
    loaded_ = pv.load_run(tmp_path / "run", trust=[__name__], device="cpu")
    assert loaded_.spec == fit.spec
    assert loaded_.spec.fields[0].vocabulary[0] == "<end>"
    data = pv.load_data(source)
    assert loaded_.evaluate(data.test, samples=30) == fit.evaluate(data.test, samples=30)
    codes = fit.encode(data.test)
    alone = torch.cat([fit.encode(data.test[place]) for place in range(len(data.test))])
    torch.testing.assert_close(codes, alone)
    torch.testing.assert_close(fit.posterior(data.test).mean, alone)
    assert fit.encode(data.test, samples=4).shape == (4, len(data.test), 1)
    assert torch.equal(loaded_.encode(data.test), codes)
    new = pv.DataSource(source=str(tmp_path / "b.txt"), tokens="characters")
    (tmp_path / "b.txt").write_text("gab\nccc")  # a vocabulary of its own
    assert loaded_.encode(loaded_.rows(new, "all")).shape == (2, 1)
    assert fit.evaluate(data.test, ais=pv.AIS(temperatures=10, chains=2))["ais_per_token"] < 0
    assert fit.latents(data.test)["active_units"] in (0, 1)
    longer = dataclasses.replace(method, epochs=5)
    resumed = pv.resume_run(tmp_path / "run", method=longer, trust=[__name__], device="cpu")
    straight = pv.fit(Bag(), source, guide=ReadBag(), method=longer, device="cpu")
    assert [row["elbo_per_token"] for row in resumed.history] == [row["elbo_per_token"] for row in straight.history]


def test_declared_models_say_whether_they_take_them() -> None:
    data = loaded(sentences(40))
    with pytest.raises(ValueError, match=r"rows of one length for .*, got rows of different lengths"):
        pv.fit(pv.VAE(latent_dim=2), data, device="cpu")
    assert pv.Model.ragged is False


def test_class_labels_stand_beside_them() -> None:
    rows = sentences(40)
    data = pv.load_data(pv.Ragged.from_list(rows), y=np.arange(40) % 2, kind="categorical", valid=0.0, test=0.0)

    def by_class(x: Tensor, length: Tensor, y: Tensor) -> None:
        logits = pyro.param("logits", torch.zeros(2, LEVELS))
        each = dist.Categorical(logits=logits[y][:, None].expand(*x.shape, -1)).mask(pv.sequence_mask(length, x.shape[-1]))
        with pv.data_plate(40, x):
            pyro.sample("x", each.to_event(1), obs=x)

    fit = pv.fit(by_class, data, guide=nothing, method=pv.SVI(epochs=200, batch_size=40, learning_rate=0.1), device="cpu")
    shares = []
    for place in range(2):
        found = np.bincount(np.concatenate(rows[place::2]), minlength=LEVELS)
        shares.append(found / found.sum())
    torch.testing.assert_close(
        next(fit.pair.parameters()).detach().softmax(-1), torch.tensor(np.array(shares)).float(), atol=2e-2, rtol=0
    )


def test_a_program_that_leaves_lengths_unread_is_refused() -> None:
    def model(x: Tensor) -> None:
        with pv.data_plate(40, x):
            pyro.sample("x", dist.Categorical(torch.ones(LEVELS)).expand(x.shape).to_event(1), obs=x)

    with pytest.raises(ValueError, match="programs that read 'length', since rows of different lengths come padded"):
        pv.fit(model, loaded(sentences(40)), guide=lambda x: None, device="cpu")
    with pytest.raises(ValueError, match="by name"):
        pv.load_data((pv.Ragged.from_list(sentences(40)), np.ones(40)))
    with pytest.raises(ValueError, match="no field called 'length'"):
        pv.load_data({"x": pv.Ragged.from_list(sentences(40)), "length": np.ones(40)})
    with pytest.raises(ValueError, match="40 rows of the field y"):
        pv.load_data({"x": pv.Ragged.from_list(sentences(40)), "y": pv.Ragged.from_list(sentences(4))})


def test_fields_have_a_scale_of_their_own_that_new_data_get_too() -> None:
    rng = np.random.default_rng(0)
    target = rng.normal(50, 4, (60, 2))
    prices = [rng.normal(10, 3, rng.integers(1, 6)) for _ in range(60)]
    fields = {"x": rng.normal(size=(60, 1)), "y": target, "prices": pv.Ragged.from_list(prices)}
    data = pv.load_data(fields, standardize=("y", "prices"), valid=0.0, test=0.5)
    field = data.spec.fields[1]
    train = torch.cat([y for _, y in data.train.read(("x", "y"), 100)])
    torch.testing.assert_close(train.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.std(0, correction=0), torch.ones(2), atol=1e-5, rtol=0)
    (_, held_out), *_ = data.test.read(("x", "y"), 100)
    assert held_out.mean().abs() > 1e-3
    inside = torch.cat(
        [each[pv.sequence_mask(n, each.shape[1])] for _, each, n in data.train.read(("x", "prices", "length"), 9)]
    )
    assert inside.mean().item() == pytest.approx(0.0, abs=1e-5)

    def model(x: Tensor, y: Tensor, prices: Tensor, length: Tensor) -> None:
        with pv.data_plate(30, x):
            loc = pyro.param("loc", torch.zeros(2))
            pyro.sample("y", dist.Normal(loc, 1.0).expand([len(x), 2]).to_event(1), obs=y)

    fit = pv.fit(model, data, guide=lambda x, length: None, method=pv.SVI(epochs=1), device="cpu")
    seen = fit._split({name: values[:7] for name, values in fields.items()})
    found = torch.cat([y for _, y in seen.read(("x", "y"), 9)])
    expected = (torch.from_numpy(target[:7]).float() - torch.tensor(field.loc)) / torch.tensor(field.scale)
    torch.testing.assert_close(found[seen.order(("x", "y")).argsort()], expected)
    with pytest.raises(ValueError, match=r"real fields beside x \(y, prices\)"):
        pv.load_data(fields, standardize=("x",))


def test_series_are_standardized_by_the_training_rows_and_numbers_are_of_the_source() -> None:
    rows = [5 + 3 * row for row in series()]
    data = pv.load_data(pv.Ragged.from_list(rows), scale="standardize", valid=0.0, test=0.0)
    seen = torch.cat([x[pv.sequence_mask(n, x.shape[1])] for x, n in data.train.read(("x", "length"), 7)])
    assert (seen.mean().item(), seen.std(correction=0).item()) == pytest.approx((0.0, 1.0), abs=1e-5)
    plain = pv.load_data(pv.Ragged.from_list(rows), valid=0.0, test=0.0)

    def normal(x: Tensor, length: Tensor, *, size: int, loc: float, scale: float) -> None:
        each = dist.Normal(loc, scale * pyro.param("scale", torch.tensor(1.0))).expand(x.shape)
        with pv.data_plate(size, x):
            pyro.sample("x", each.mask(pv.sequence_mask(length, x.shape[-1])).to_event(1), obs=x)

    values = np.concatenate(rows)
    found = []
    for each, loc, scale in ((data, 0.0, 1.0), (plain, float(values.mean()), float(values.std()))):
        fit = fitted(each, functools.partial(normal, loc=loc, scale=scale), epochs=1, learning_rate=1e-12)
        found.append(fit.evaluate(each.train))
    for name in ("elbo", "elbo_se", "elbo_per_token", "elbo_per_token_se"):
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-4)
    assert "perplexity" not in found[0]


def test_every_field_tells_data_from_others() -> None:
    rows, counts_ = sentences(30), np.arange(30)
    first = fingerprint(loaded(rows).train)
    assert first == fingerprint(loaded(rows).train)
    changed = [rows[0][:-1] if len(rows[0]) > 1 else np.append(rows[0], 1), *rows[1:]]
    assert first != fingerprint(loaded(changed).train)

    def of(**fields: Any) -> str:
        return fingerprint(pv.load_data({"x": pv.Ragged.from_list(rows), **fields}, valid=0.0, test=0.0).train)

    assert len({of(), of(count=counts_), of(count=counts_[::-1].copy()), of(other=counts_)}) == 4


def test_new_rows_meet_a_fit_as_they_are() -> None:
    data = loaded(sentences())
    fit = fitted(data)
    rows = pv.Ragged.from_list([*sentences(5, seed=9), np.ones(45, np.int64)])  # one is longer than any before
    numbers = fit.evaluate(rows)
    assert fit.evaluate({"x": rows}) == numbers
    assert fit.evaluate(loaded(rows).train) == pytest.approx(numbers, rel=1e-6)
    assert numbers["n"] == 6
    with pytest.raises(ValueError, match="Ragged rows of the field x, got an array"):
        fit.evaluate(torch.ones(3, 4))
    with pytest.raises(ValueError, match="in \\[0, 6\\]"):
        fit.evaluate(pv.Ragged([7], [0, 1]))
    with pytest.raises(ValueError, match="rows of different lengths, got rows of one"):
        fit.evaluate(pv.load_data(np.ones((30, 3)), valid=0.0, test=0.0).train)


def test_a_raw_record_has_no_more_than_a_reader_gives() -> None:
    assert Raw(pv.Ragged([1], [0, 1])).fields is None


def test_rows_that_are_all_empty_or_of_different_lengths_are_told() -> None:
    empty = [np.array([]), np.array([])]
    with pytest.raises(ValueError, match="2 rows that are empty"):
        pv.load_data(pv.Ragged.from_list(empty), valid=0.0, test=0.0)
    with pytest.raises(ValueError, match=r"rows of different lengths: give sequences as pv.Ragged.from_list"):
        pv.load_data([np.zeros(3), np.zeros(4)])
