"""Programs of more than one argument: by position, by name, with labels, with lengths and masks, partly labelled."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, config_enumerate
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch import Tensor
from torch.distributions import constraints

import ppl_vae as pv

N = 60
TRUE = torch.tensor([1.0, -2.0])


@pytest.fixture(autouse=True)
def store() -> Iterator[None]:
    """An empty parameter store before and after."""
    pyro.clear_param_store()
    yield
    assert dict(pyro.get_param_store()) == {}


def regression() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, 2, generator=generator)
    return x, x @ TRUE + 1.1 * torch.randn(N, generator=generator)


def model(x: Tensor, y: Tensor) -> None:
    """y = w x + z + noise of the scale 0.5."""
    w = pyro.param("w", torch.zeros(2))
    with pyro.plate("data", N, subsample=x):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
        pyro.sample("y", dist.Normal(x @ w + z, 0.5), obs=y)


def guide(x: Tensor, y: Tensor) -> None:
    slope = pyro.param("slope", torch.tensor(0.0))
    offset = pyro.param("offset", torch.zeros(2))
    scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("data", N, subsample=x):
        pyro.sample("z", dist.Normal(slope * y + x @ offset, scale))


def all_of(data: Any, **options: Any) -> pv.Data:
    return pv.load_data(data, valid=0.0, test=0.0, **options)


def method(steps: int = 400, **options: Any) -> pv.SVI:
    return pv.SVI(**{"epochs": steps, "batch_size": N, "learning_rate": 0.03, "schedule": "constant", **options})


def with_pyro(
    model: Callable, guide: Callable, *arguments: Tensor, steps: int = 400, loss: Any = None, lr: float = 0.03
) -> float:
    """Minus the loss per datum of Pyro's own loop, over its last quarter; the store is left as it ends."""
    svi = SVI(model, guide, pyro.optim.Adam({"lr": lr}), loss or Trace_ELBO())
    torch.manual_seed(0)
    return -float(np.mean([svi.step(*arguments) for _ in range(steps)][-steps // 4 :])) / len(arguments[0])


def parameters(fitted: pv.Fit) -> dict[str, Tensor]:
    """Those of both programs, by the names that the programs give them."""
    return {name.rpartition(".")[2]: value.detach() for name, value in fitted.pair.named_parameters()}


def ours(fitted: pv.Fit, column: str = "elbo") -> float:
    rows = fitted.history[-len(fitted.history) // 4 :]
    return float(np.mean([row[column] for row in rows]))


def evidence(x: Tensor, y: Tensor, w: Tensor) -> float:
    """Log p(y | x) of a datum, z integrated out."""
    return dist.Normal(x @ w, (1 + 0.25) ** 0.5).log_prob(y).mean().item()


@pytest.mark.parametrize("compile", [False, "auto"])
def test_a_supervised_program_ends_where_pyros_own_loop_ends(compile: Any) -> None:
    x, y = regression()
    fitted = pv.fit(model, all_of((x, y)), guide=guide, method=method(compile=compile))
    numbers = fitted.evaluate((x, y), samples=200)
    theirs = with_pyro(model, guide, x, y)
    w = pyro.get_param_store()["w"].detach()
    pyro.clear_param_store()
    assert ours(fitted) == pytest.approx(theirs, abs=0.05)
    found = parameters(fitted)["w"]
    torch.testing.assert_close(found, w, atol=0.1, rtol=0)
    known = evidence(x, y, found)
    assert numbers["iwae"] == pytest.approx(known, abs=0.01)
    assert numbers["elbo"] == pytest.approx(known, abs=0.05)


def test_recorded_and_compiled_steps_read_the_fields_of_their_own_batch() -> None:
    x, y = regression()
    ends = []
    for compile in (False, "auto", True):
        short = method(150, compile=compile, batch_size=20, learning_rate=0.01)
        fitted = pv.fit(model, all_of((x, y)), guide=guide, method=short)
        ends.append(torch.cat([value.detach().flatten() for value in fitted.pair.parameters()]))
    torch.testing.assert_close(ends[1], ends[0], rtol=0, atol=0)
    torch.testing.assert_close(ends[2], ends[0], rtol=1e-3, atol=1e-3)


def test_fields_are_split_shuffled_and_batched_together() -> None:
    x = torch.arange(100.0)[:, None]
    data = pv.load_data((x, np.arange(100), np.arange(100) % 2 == 0, np.arange(200.0).reshape(100, 2)))
    assert [len(split) for split in (data.train, data.valid, data.test)] == [70, 10, 20]
    met = []
    for split in (data.train, data.valid, data.test):
        for a, b, c, d in split.read(("0", "1", "2", "3"), 7):
            assert (a.dtype, b.dtype, c.dtype, d.dtype) == (torch.float32, torch.int64, torch.bool, torch.float32)
            assert torch.equal(a[:, 0].long(), b)
            assert torch.equal(c, b % 2 == 0)
            assert torch.equal(d[:, 0], 2 * a[:, 0])
            met += b.tolist()
    assert sorted(met) == list(range(100))
    assert [column.dtype for column in data.train.fields.columns.values()] == [torch.int32, torch.bool, torch.float32]
    steps = [
        (block[0][rows], block[1][rows])
        for block, rows in data.train.steps(9, generator=torch.Generator().manual_seed(0), reads=("0", "1"))
    ]
    assert [len(a) for a, _ in steps] == [9] * 7 + [7]
    assert all(torch.equal(a[:, 0].int(), b) for a, b in steps)
    assert repr(data.valid) == "Split(10 x (1,), float32, unlabelled, beside 1, 2, 3)"


def test_the_transform_is_for_x_alone() -> None:
    x, y = regression()
    data = all_of({"y": 100 + y, "x": 7 * x}, scale="standardize")
    batch, target = next(data.train.read(("x", "y"), N))
    torch.testing.assert_close(batch.std(0, correction=0), torch.ones(2))
    torch.testing.assert_close(target, 100 + y)


# --- by name --------------------------------------------------------------------------------------------------------------


def swapped(*, y: Tensor, weight: Tensor, x: Tensor) -> None:
    model(x, y)


def test_fields_by_name_reach_each_program_by_its_own_names() -> None:
    x, y = regression()
    data = {"x": x, "y": y, "weight": torch.ones(N)}
    by_position = pv.fit(model, all_of((x, y)), guide=guide, method=method(40))
    by_name = pv.fit(swapped, all_of(data), guide=guide, method=method(40))
    assert ours(by_name) == ours(by_position)
    assert by_name.evaluate(data) == by_position.evaluate((x, y))
    assert by_name.evaluate({"y": y, "weight": torch.ones(N), "x": x}) == by_name.evaluate(all_of(data).train)


def test_an_automatic_guide_hands_on_what_its_model_reads() -> None:
    x, y = regression()

    def shared(images: Tensor, *, targets: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", N, subsample=images):
            pyro.sample("y", dist.Normal((images * w).sum(-1), 1.1), obs=targets)

    fitted = pv.fit(shared, all_of({"images": x, "targets": y}), guide=AutoNormal(shared), method=method(600))
    precision = x.T @ x / 1.21 + torch.eye(2)
    exact = torch.linalg.solve(precision, x.T @ y / 1.21)
    found = fitted.pair.guide.locs.w.detach()
    torch.testing.assert_close(found, exact, atol=0.06, rtol=0)


@pytest.mark.parametrize("how", ["partial", "closure", "handler"])
def test_what_is_the_same_for_all_batches_is_bound_beforehand(how: str) -> None:
    x, y = regression()

    def sized(x: Tensor, y: Tensor, *, size: int, label: str = "") -> None:
        model(x, y)

    bound = {
        "partial": functools.partial(sized, size=N),
        "closure": lambda x, y: sized(x, y, size=N),
        "handler": poutine.scale(config_enumerate(functools.partial(sized, size=N)), scale=1.0),
    }[how]
    expected = pv.fit(model, all_of((x, y)), guide=guide, method=method(5))
    for data in ((x, y), {"x": x, "y": y}):
        fitted = pv.fit(bound, all_of(data), guide=guide, method=method(5))
        assert fitted.history[-1]["elbo"] == expected.history[-1]["elbo"]


def test_a_module_of_ones_own_is_called_by_name_and_keeps_what_it_declares() -> None:
    class Own(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.size = N
            self.w = PyroParam(torch.zeros(2))

        def forward(self, target: Tensor, x: Tensor) -> None:
            with pv.data_plate(self.size, x):
                z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
                pyro.sample("y", dist.Normal(x @ self.w + z, 0.5), obs=target)

    def proposal(x: Tensor, target: Tensor) -> None:
        guide(x, target)

    x, y = regression()
    own = Own()
    fitted = pv.fit(own, all_of({"x": x, "target": y}), guide=proposal, method=method(300))
    assert evidence(x, y, own.w.detach()) == pytest.approx(evidence(x, y, TRUE), abs=0.1)
    assert fitted.pair.model.size == N


# --- class labels ---------------------------------------------------------------------------------------------------------


def test_class_labels_reach_the_programs_that_ask_for_them() -> None:
    data = pv.load_data("digits")
    met: dict[str, Tensor | None] = {}

    def run(name: str, x: Tensor, y: Tensor | None) -> None:
        met[name] = y
        with pv.data_plate(len(data.train), x):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z[..., None, None, None] + torch.zeros(1, 8, 8), 1.0).to_event(3), obs=x)

    def propose(x: Tensor) -> None:
        with pv.data_plate(len(data.train), x):
            pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)).expand(len(x)), 1.0))

    programs: dict[str, Callable] = {
        "second": lambda x, classes: run("second", x, classes),
        "named": lambda x, *, y: run("named", x, y),
        "optional": lambda x, size=3, y=None: run("optional", x, y),
        "other": lambda x, ys=None: run("other", x, ys),
        "alone": lambda x: run("alone", x, None),
    }
    for program in programs.values():
        fitted = pv.fit(program, data, guide=propose, method=pv.SVI(epochs=1, batch_size=500))
        fitted.evaluate(data.test)
    assert {name: None if y is None else y.dtype for name, y in met.items()} == {
        "second": torch.int64,
        "named": torch.int64,
        "optional": torch.int64,
        "other": None,
        "alone": None,
    }


# --- lengths and masks ----------------------------------------------------------------------------------------------------


def ragged() -> tuple[Tensor, Tensor, Tensor]:
    """Rows of 1 to 6 numbers around a level of their own, padded with nonsense."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 7, (N,), generator=generator)
    mask = torch.arange(6) < lengths[:, None]
    x = torch.randn(N, 1, generator=generator) + 0.5 * torch.randn(N, 6, generator=generator) + 3
    return torch.where(mask, x, torch.tensor(99.0)), lengths, mask


def levels(x: Tensor, lengths: Tensor, mask: Tensor) -> None:
    loc = pyro.param("loc", torch.tensor(0.0))
    assert mask.dtype == torch.bool
    with pyro.plate("data", N, subsample=x, dim=-2):
        z = pyro.sample("z", dist.Normal(loc.expand(len(x), 1), 1.0))
        with pyro.plate("time", 6, dim=-1), poutine.mask(mask=mask):
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)


def propose_levels(x: Tensor, lengths: Tensor, mask: Tensor) -> None:
    prior = pyro.param("prior", torch.tensor(0.0))
    precision = 1 + lengths[:, None] / 0.25
    mean = (prior + torch.where(mask, x, torch.tensor(0.0)).sum(-1, keepdim=True) / 0.25) / precision
    with pyro.plate("data", N, subsample=x, dim=-2):
        pyro.sample("z", dist.Normal(mean, precision**-0.5))


def test_ragged_rows_with_lengths_and_a_mask_give_the_marginal_of_what_is_there() -> None:
    x, lengths, mask = ragged()
    fitted = pv.fit(levels, all_of((x, lengths, mask)), guide=propose_levels, method=method())
    theirs = with_pyro(levels, propose_levels, x, lengths, mask)
    pyro.clear_param_store()
    assert ours(fitted) == pytest.approx(theirs, abs=0.03)
    loc = parameters(fitted)["loc"]
    exact = torch.stack(
        [
            dist.MultivariateNormal(loc.expand(n), 0.25 * torch.eye(n) + torch.ones(n, n)).log_prob(row[:n])
            for row, n in zip(x, lengths.tolist(), strict=True)
        ]
    )
    numbers = fitted.evaluate((x, lengths, mask), samples=50)
    assert numbers["elbo"] == pytest.approx(exact.mean().item(), abs=5e-3)
    assert numbers["iwae"] == pytest.approx(exact.mean().item(), abs=5e-3)
    longer = (torch.cat([x, torch.full((N, 4), 7.0)], 1), lengths, torch.cat([mask, torch.zeros(N, 4, dtype=torch.bool)], 1))
    with pytest.raises(ValueError, match=r"\(n, 6\)|field 2"):
        fitted.evaluate(longer)


# --- partly labelled rows -------------------------------------------------------------------------------------------------


def partly_labelled() -> tuple[Tensor, np.ma.MaskedArray]:
    """Two overlapping clusters of one number, a quarter of the 60 rows with their class."""
    generator = torch.Generator().manual_seed(2)
    y = (torch.rand(N, generator=generator) < 0.6).long()
    x = torch.tensor([-1.0, 1.5])[y] + torch.randn(N, generator=generator)
    return x[:, None], np.ma.MaskedArray(y.numpy(), mask=np.arange(N) % 4 != 0)


def clusters(x: Tensor, y: Tensor | None = None) -> None:
    logit = pyro.param("logit", torch.tensor(0.0))
    locs = pyro.param("locs", torch.tensor([-0.5, 0.5]))
    with pyro.plate("data", N, subsample=x):
        y = pyro.sample("y", dist.Categorical(logits=torch.stack([torch.zeros(()), logit])), obs=y)
        pyro.sample("x", dist.Normal(locs[y], 1.0), obs=x[:, 0])


def classify(x: Tensor, y: Tensor | None = None) -> None:
    weight, bias = pyro.param("weight", torch.tensor(1.0)), pyro.param("bias", torch.tensor(0.0))
    with pyro.plate("data", N, subsample=x):
        if y is None:
            score = weight * x[:, 0] + bias
            logits = torch.stack([torch.zeros_like(score), score], -1)
            pyro.sample("y", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})


def log_likelihood(x: Tensor, y: np.ma.MaskedArray, logit: Tensor, locs: Tensor) -> Tensor:
    """Log p(x, y) of the rows with a class, log p(x) of the others, per datum."""
    joint = torch.stack([torch.zeros(()), logit]).log_softmax(0) + dist.Normal(locs, 1.0).log_prob(x)
    seen = torch.from_numpy(~y.mask)
    labelled = joint[seen].gather(1, torch.from_numpy(y.data)[seen][:, None]).sum()
    return (labelled + joint[~seen].logsumexp(1).sum()) / N


def test_rows_with_and_without_labels_are_fitted_together() -> None:
    x, y = partly_labelled()
    logit, locs = (torch.tensor(start, requires_grad=True) for start in (0.0, [-0.5, 0.5]))
    optimizer = torch.optim.LBFGS([logit, locs], max_iter=100)

    def close() -> Tensor:
        optimizer.zero_grad()
        loss = -log_likelihood(x, y, logit, locs)
        loss.backward()
        return loss

    optimizer.step(close)
    fitted = pv.fit(
        clusters, all_of((x, y)), guide=classify, method=method(60, batch_size=10, learning_rate=0.1, schedule="cosine")
    )
    found = parameters(fitted)
    torch.testing.assert_close(found["locs"], locs.detach(), atol=0.02, rtol=0)
    torch.testing.assert_close(found["logit"], logit.detach(), atol=0.02, rtol=0)
    exact = log_likelihood(x, y, logit, locs).item()
    assert ours(fitted) == pytest.approx(exact, abs=0.02)
    assert fitted.evaluate((x, y), samples=200)["iwae"] == pytest.approx(exact, abs=0.02)
    with torch.no_grad():
        unlabelled = log_likelihood(x, np.ma.MaskedArray(y.data, mask=True), logit, locs).item()
    assert fitted.evaluate(x, samples=200)["iwae"] == pytest.approx(unlabelled, abs=0.02)


def test_rows_of_both_kinds_in_one_batch_by_an_observed_mask() -> None:
    x, partly = partly_labelled()
    y, seen = torch.from_numpy(partly.data), torch.from_numpy(~partly.mask)

    def model(x: Tensor, y: Tensor, seen: Tensor) -> None:
        logit = pyro.param("logit", torch.tensor(0.2))
        locs = pyro.param("locs", torch.tensor([-0.8, 1.8]))
        with pyro.plate("data", N, subsample=x):
            y = pyro.sample("y", dist.Categorical(logits=torch.stack([torch.zeros(()), logit])), obs=y, obs_mask=seen)
            pyro.sample("x", dist.Normal(locs[y], 1.0), obs=x[:, 0])

    def guide(x: Tensor, y: Tensor, seen: Tensor) -> None:
        weight, bias = pyro.param("weight", torch.tensor(2.6)), pyro.param("bias", torch.tensor(-1.1))
        with pyro.plate("data", N, subsample=x), poutine.mask(mask=~seen):
            score = weight * x[:, 0] + bias
            logits = torch.stack([torch.zeros_like(score), score], -1)
            pyro.sample("y_unobserved", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})

    short = method(20, learning_rate=1e-3)
    fitted = pv.fit(model, all_of((x, y, seen)), guide=guide, method=short)
    found = parameters(fitted)
    exact = log_likelihood(x, partly, found["logit"], found["locs"]).item()
    assert fitted.history[-1]["elbo"] == pytest.approx(exact, abs=1e-3)
    assert fitted.evaluate((x, y, seen), samples=200)["iwae"] == pytest.approx(exact, abs=0.01)


def test_each_kind_of_batch_is_recorded() -> None:
    x, y = partly_labelled()
    ends = []
    for compile in (False, "auto"):
        short = method(43, batch_size=10, compile=compile)
        programs = {"model": lambda *, x, label: clusters(x, label), "guide": lambda label, x: classify(x, label)}
        fitted = pv.fit(programs["model"], all_of({"x": x, "label": y}), guide=programs["guide"], method=short)
        ends.append([value.detach() for value in fitted.pair.parameters()])
    torch.testing.assert_close(ends[1], ends[0], rtol=0, atol=0)


def test_batches_are_of_one_kind_and_hold_every_row_once() -> None:
    x, y = partly_labelled()
    split = all_of((x, y)).train
    steps = list(split.steps(10, generator=torch.Generator().manual_seed(0), reads=("0", "1")))
    assert sorted(len(block) for block, _ in steps) == [1] * 5 + [2] * 2
    assert [len(rows) for _, rows in steps] == [10] * 5 + [5] * 2
    assert sorted(torch.cat([rows for _, rows in steps]).tolist()) == list(range(N))
    assert all(bool((split.fields.seen[rows]).all()) == (len(block) == 2) for block, rows in steps)
    read = list(split.read(("0", "1"), 40))
    assert [tuple(map(len, batch)) for batch in read] == [(15, 15), (40,), (5,)]
    assert torch.equal(torch.cat([batch[0] for batch in read]), split.arranged(("0", "1")).x)


# --- refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ((torch.ones(5, 2), torch.ones(4)), "expected 5 rows of the field 1, one beside each of x, got 4"),
        ((torch.ones(5, 2), 3), "for each of 5 rows, got a single one: bind what is the same for all rows with functools"),
        ({"x": torch.ones(5, 2), "y": np.arange(5).astype("M8[D]")}, "expected the field y as numbers or texts, got dtype dat"),
        ({"x": torch.ones(5, 2), "y": np.array(["a", None, "b", "", "a"])}, "a level of y for each row, got none in 2 rows"),
        ({"x": torch.ones(5, 2), "y": torch.tensor([1.0, 2, 3, 4, torch.nan])}, "y: expected complete data, got NaN"),
        ({"x": torch.ones(5, 2), "y": torch.tensor([1.0, 2, 3, 4, torch.inf])}, "y: expected finite values"),
        (
            {"x": torch.ones(5, 2), "y of": torch.ones(5)},
            "expected fields called as arguments of a program, got the name 'y of'",
        ),
        ((), "expected at least one field, got none"),
        (
            (torch.ones(2, 2), *[np.ma.MaskedArray([1, 2], mask=[True, False])] * 2),
            "expected one field that rows may lack, got 1, 2",
        ),
        ((torch.ones(2, 2), np.ma.MaskedArray([[1, 2], [3, 4]], mask=[[1, 0], [0, 0]])), "expected rows masked as a whole"),
    ],
    ids=range(10),
)
def test_fields_that_are_none_are_refused(data: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        pv.load_data(data)


def test_missing_numbers_of_a_field_are_handed_on_where_asked_for() -> None:
    y = torch.tensor([1.0, 2, torch.nan])
    data = all_of((torch.ones(3, 2), y), missing="ignore")
    assert torch.equal(data.train.column("1").isnan(), y.isnan())


def test_labels_come_as_a_field_or_with_a_lone_x() -> None:
    with pytest.raises(ValueError, match="expected no y beside several fields"):
        pv.load_data((torch.ones(5, 2), torch.ones(5)), y=[0, 1, 0, 1, 0])
    with pytest.raises(ValueError, match="expected data of one field for a declared model, got 2"):
        pv.fit(pv.FactorAnalysis(latent_dim=1), (torch.randn(20, 3), torch.ones(20)))


@pytest.mark.parametrize(
    ("program", "data", "told"),
    [
        (
            model,
            "x",
            r"expected a model that can be called with the fields x, got model\(x: .*missing a required argument: 'y'",
        ),
        (
            lambda x: None,
            "xy",
            r"that can be called with 2 fields by position, got model\(x\), which says: too many positional",
        ),
        (lambda x, y, w: None, {"x", "y"}, "missing a required argument: 'w'"),
        (
            lambda x: None,
            {"x", "y", "v"},
            r"expected fields that the programs read, got v, an argument of neither model\(x\) nor",
        ),
    ],
    ids=range(4),
)
def test_programs_that_cannot_be_called_with_the_fields_are_refused(program: Callable, data: Any, told: str) -> None:
    x, y = regression()
    known = {"x": x, "y": y, "v": y}
    given: Any = {"x": x, "xy": (x, y)}[data] if isinstance(data, str) else {name: known[name] for name in sorted(data)}
    with pytest.raises(ValueError, match=told):
        pv.fit(program, all_of(given), guide=guide, method=method(1))


def test_evaluating_other_fields_is_refused() -> None:
    x, y = regression()
    fitted = pv.fit(model, all_of((x, y)), guide=guide, method=method(1))
    for data, told in (
        (x, "expected 2 fields by position, got 1 field by position: give a tuple of 2 arrays"),
        ((x, y, y), "got 3 fields by position"),
        ({"x": x, "y": y}, "got the fields x, y: give a tuple of 2 arrays"),
        ((x, y.long()), r"expected the field 1 as real \(n\), got integer \(60,\)"),
        ((x, y[:3]), "expected 60 rows of the field 1"),
        (all_of(x).train, "none called '1'"),
    ):
        with pytest.raises(ValueError, match=told):
            fitted.evaluate(data)
    alone = pv.fit(lambda x: model(x, x[:, 0]), all_of(x), guide=lambda x: guide(x, x[:, 0]), method=method(1))
    with pytest.raises(ValueError, match="got several fields: this was fitted to x alone"):
        alone.evaluate((x, y))


def test_a_pair_made_by_hand_reads_x_alone() -> None:
    x, y = regression()
    data = all_of((x, y))
    pair = pv.build(model, guide, data.spec)
    assert pair.reads == ("0", "1")
    assert np.isfinite(pv.evaluate(pair, data.train)["elbo"])
