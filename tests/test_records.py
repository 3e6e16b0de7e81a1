"""A method's state is a record; it is flattened as it is written, and the same record when it is read."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import ppl_vae as pv
from ppl_vae.data.fingerprint import _digest, fingerprint, is_of
from ppl_vae.inference.training import nonfinite
from ppl_vae.inference.training.clock import Stopwatch
from ppl_vae.inference.training.loop import Training
from ppl_vae.inference.training.nonfinite import NonFinitePolicy
from ppl_vae.inference.training.start import meet
from ppl_vae.inference.training.state import StepState, TrainingState
from ppl_vae.storage import NULL_CHECKPOINTER, Checkpointer, RunFolder, Snapshot
from ppl_vae.storage.records import flatten, inlined, map_tensors, unflatten
from ppl_vae.storage.snapshot import read_snapshot, write_snapshot
from ppl_vae.types import FitWarning
from tests.table import TINY, rows, vae

DATA = pv.load_data(rows("binary", 40), valid=0.2, test=0.0)
SVI = pv.SVI(epochs=2, batch_size=9, compile=False, alternate="steps", restore_best=True)


class Moments(NamedTuple):
    steps: int
    of: Mapping[int, Mapping[str, Tensor]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    weights: Mapping[str, Tensor]
    rows: list[int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner = inlined()
    starts: tuple[tuple[Tensor, ...], ...]
    moments: tuple[Moments, ...]
    order: Tensor
    seconds: float


def outer() -> Outer:
    t = iter(torch.arange(20.0))
    return Outer(
        inner=Inner(weights={"a.b.0": next(t), "c": next(t)}, rows=[1, 2]),
        starts=((next(t), next(t)), (next(t),)),
        moments=(Moments(3, {0: {"mean": next(t)}, 12: {"mean": next(t), "square": next(t)}}), Moments(0, {})),
        order=next(t),
        seconds=1.5,
    )


def test_the_names_of_a_records_values() -> None:
    tensors, plain = flatten(outer())
    assert list(tensors) == [
        *("weights.a.b.0", "weights.c", "starts.0.0", "starts.0.1", "starts.1.0"),
        *("moments.0.of.0.mean", "moments.0.of.12.mean", "moments.0.of.12.square", "order"),
    ]
    assert plain == {"rows": [1, 2], "moments.0.steps": 3, "moments.1.steps": 0, "seconds": 1.5}


def test_a_record_comes_back_as_it_was() -> None:
    record = outer()
    assert unflatten(Outer, *flatten(record)) == record
    tensors, plain = flatten(record)
    with pytest.raises(KeyError, match="seconds"):
        unflatten(Outer, tensors, {name: value for name, value in plain.items() if name != "seconds"})
    with pytest.raises(KeyError, match="order"):
        unflatten(Outer, {name: value for name, value in tensors.items() if name != "order"}, plain)


def test_copies_share_no_memory() -> None:
    record = outer()
    copied = map_tensors(torch.clone, record)
    assert copied == record
    memory = [{value.data_ptr() for value in flatten(one)[0].values()} for one in (record, copied)]
    assert not memory[0] & memory[1]


def training() -> Training:
    torch.manual_seed(0)
    pair = pv.build(vae(), pv.AmortizedNormal(encoder=TINY), DATA.spec)
    meet(pair, DATA, SVI.batch_size)
    return Training(SVI.plan(pair), pair, DATA, Stopwatch(lambda row: None), NULL_CHECKPOINTER)


def equal(state: StepState, other: StepState) -> bool:
    (tensors, plain), (others, told) = flatten(state), flatten(other)
    return plain == told and tensors.keys() == others.keys() and all(torch.equal(tensors[n], others[n]) for n in tensors)


def test_a_training_state_comes_back_from_disk(tmp_path: Path) -> None:
    fit = training()
    fit.advance()
    state = fit.state()
    write_snapshot(Snapshot.of(state, fit.history), tmp_path / "state")
    found = read_snapshot(tmp_path / "state")
    back = found.record(TrainingState)
    assert equal(back.steps, state.steps)
    assert dataclasses.replace(back, steps=state.steps, order=state.order, best=state.best) == state
    assert back.best._replace(weights={}) == state.best._replace(weights={})
    assert all(torch.equal(back.best.weights[name], value) for name, value in state.best.weights.items())
    assert found.history == fit.history


def test_a_rewind_keeps_the_record() -> None:
    """What is kept is not what steps change, and going back to it is going on from it, to the same bits, again and again."""
    stepper = training().stepper
    stepper.pair.train()
    batches = list(DATA.train.steps(9, generator=torch.Generator().manual_seed(1), reads=("x",)))
    for block, chosen in batches[:2]:
        stepper.step(block, chosen)
    kept = stepper.snapshot()
    before = map_tensors(torch.clone, kept)
    ends = []
    for _ in range(3):
        for block, chosen in batches[2:]:
            stepper.step(block, chosen)
        ends.append(stepper.snapshot())
        assert equal(kept, before)
        stepper.restore(kept)
        assert equal(stepper.state(), kept)
    assert equal(ends[0], ends[1])
    assert equal(ends[1], ends[2])
    assert not equal(ends[0], kept)


class Fake:
    """Something rewindable that is no training: a counter that is not finite after its third step, unless it goes slowly."""

    def __init__(self) -> None:
        self.epoch, self.batch_index, self.rate = 0, 0, 1.0
        self.parameters: list[torch.nn.Parameter] = []
        self.told: list[str] = []

    def snapshot(self) -> SimpleNamespace:
        return SimpleNamespace(batch_index=self.batch_index)

    def restore(self, state: SimpleNamespace) -> None:
        self.batch_index = state.batch_index

    def step(self, block: list[Tensor], rows: Tensor) -> None:
        self.batch_index += 1

    def skip(self, rows: Tensor) -> None:
        self.told.append("skip")

    def damp(self, factor: float) -> None:
        self.rate *= factor

    def finite(self) -> bool:
        return self.batch_index < 3 or self.rate < 0.5

    @property
    def objective_sum(self) -> float:
        return 0.0


def test_the_policy_knows_no_more_of_a_training_than_that_it_is_rewindable(monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(save=lambda folder: None, where="here", stage="objective")
    monkeypatch.setattr(nonfinite, "examine", lambda *_, **__: found)
    fake = Fake()
    policy = NonFinitePolicy(fake, "rewind", None)  # type: ignore[arg-type]
    policy.start_pass()
    for _ in range(5):
        policy.step([], torch.arange(3))
    with pytest.warns(FitWarning, match="back to step 0 of epoch 1 with a tenth of the learning rate: here"):
        policy.check()
    assert (policy.tries, fake.batch_index, fake.rate) == (1, 5, pytest.approx(0.1))


def as_before(path: Path) -> None:
    """Write a snapshot under the names that it had before its file had a format."""
    names = {"planned_epochs": "planned", "batch_index": "taken", "active_optimizer": "turn", "rate_factor": "damping"}
    with safe_open(path, "pt") as file:
        told = {name: json.loads(value) for name, value in file.metadata().items()}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert told.pop("format") == 1
    facts = {names.get(name, name): value for name, value in told["facts"].items()}
    if "cursor.steps" in facts:
        for now, before in (("steps", "steps"), ("reference_value", "judged"), ("gained", "gained"), ("rate", "rate")):
            facts[before] = facts.pop(f"cursor.{now}")
        tensors = {name.removeprefix("starts."): value for name, value in tensors.items()}
    else:
        facts["steps"] = [facts.pop(f"optimizers.{place}.steps") for place in range(2) if f"optimizers.{place}.steps" in facts]
        facts["best"] = [facts.pop("best.value"), facts.pop("best.epoch")]
        renamed = ((name.replace("best.weights.", "best."), value) for name, value in tensors.items())
        tensors = {name.replace("optimizers.", "optimizer.").replace(".moments.", "."): value for name, value in renamed}
    told["facts"] = facts
    save_file(tensors, path, {name: json.dumps(value) for name, value in told.items()})


class KilledError(Exception):
    """The end of a process."""


class Mortal(Checkpointer):
    """Keeps a state after every step, and dies after so many."""

    left = 3

    def keep(self, snapshot: Snapshot) -> None:
        super().keep(snapshot)
        self.left -= 1
        if not self.left:
            raise KilledError


REAL = pv.load_data(rows("real", 40), valid=0.2, test=0.0)


@pytest.mark.filterwarnings("ignore::ppl_vae.types.FitWarning")
@pytest.mark.parametrize(
    ("model", "data", "method"),
    [
        (vae(), DATA, SVI),
        (pv.GMM(components=2, covariance="spherical"), REAL, pv.EM(n_init=2, max_iterations=4, tolerance=0.0)),
    ],
    ids=["SVI", "EM"],
)
def test_a_snapshot_of_before_goes_on_to_the_same_bits(
    model: pv.Model, data: pv.Data, method: pv.Method, tmp_path: Path
) -> None:
    whole = pv.fit(model, data, method=method)
    with pytest.raises(KilledError):
        pv.fit(model, data, method=method, out=Mortal(tmp_path / "run", every=0.0))
    as_before(tmp_path / "run" / RunFolder.SNAPSHOT)
    found = pv.resume_run(tmp_path / "run", data=data)
    assert {n: v.tolist() for n, v in found.pair.state_dict().items()} == {
        n: v.tolist() for n, v in whole.pair.state_dict().items()
    }


def test_a_snapshot_of_a_newer_format_is_refused_in_words(tmp_path: Path) -> None:
    save_file({}, tmp_path / "state", {"facts": '{"seconds": 1.0}', "history": "[]", "strides": "{}", "format": "2"})
    with pytest.raises(ValueError, match=r"expected format 1, got 2: a newer ppl_vae wrote it, update this one"):
        read_snapshot(tmp_path / "state")


def test_a_fingerprint_reads_every_value_and_knows_those_of_old(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    split = pv.load_data(x, weights=torch.ones(1000), valid=0.0, test=0.0).train
    first = fingerprint(split)
    assert is_of(first, split)
    for place in (1, 502, 998):
        other = x.clone()
        other[place, 1] += 1e-3
        assert not is_of(first, pv.load_data(other, weights=torch.ones(1000), valid=0.0, test=0.0).train)
    # What runs were saved with that looked at 256 rows.
    assert is_of(_old(split), split)
    assert not is_of(_old(split), split[:999])
    monkeypatch.setattr("ppl_vae.data.fingerprint.BYTES", 12 * 300)  # of larger data 300 rows from all over them
    assert not is_of(first, split)
    assert is_of(fingerprint(split), split)


def _old(split: pv.Split) -> str:
    some = split[torch.linspace(0, len(split) - 1, 256).long()]
    digest = hashlib.sha256(repr((len(split), split.event_shape, str(split.raw.dtype))).encode())
    digest.update(some.x.numpy().tobytes())
    digest.update(b"weights" + split.weights.double().numpy().tobytes())
    return digest.hexdigest()[:16]


def test_runs_tell_which_rows_have_changed_and_do_not_go_on_with_others(tmp_path: Path) -> None:
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "x.npy", x.numpy())
    source = pv.DataSource(source=str(tmp_path / "x.npy"))
    data, method = pv.load_data(source), pv.SVI(epochs=2)
    pv.fit(pv.VAE(latent_dim=1, likelihood=pv.Gaussian()), data, method=method, out=tmp_path / "run")
    fit = pv.load_run(tmp_path / "run")
    assert set(fit.fingerprints) == {"train", "valid", "test"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit.evaluate(fit.rows(fit.data, "test"))
    for name in ("train", "valid", "test"):
        row = data.part(name).raw[2]
        other = x.clone()
        other[(x == row).all(1)] += 1.0
        np.save(tmp_path / "x.npy", other.numpy())
        with pytest.warns(FitWarning, match=f"its {name} rows are others now"):
            fit.rows(fit.data, "valid")
        with pytest.raises(ValueError, match="was begun with other data"):
            pv.resume_run(tmp_path / "run", method=pv.SVI(epochs=3))
    np.save(tmp_path / "x.npy", x.numpy())
    # A run of old has a fingerprint of 256 test rows, and its state one of the training rows.
    described = json.loads((tmp_path / "run" / "data.json").read_text())
    described.pop("fingerprints")
    described["fingerprint"] = _digest(data.test, torch.arange(len(data.test)))
    (tmp_path / "run" / "data.json").write_text(json.dumps(described))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pv.load_run(tmp_path / "run").rows(fit.data, "test")
