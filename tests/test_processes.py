"""Several processes that work on one fit together: two real ones over gloo, against one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor, distributed, multiprocessing, nn

import ppl_vae as pv
from ppl_vae.inference.training import division, step
from ppl_vae.inference.training.division import Division
from ppl_vae.inference.training.optimizers import OPTIMIZERS, OptimizerState
from ppl_vae.inference.training.shares import Shares
from ppl_vae.program import common_memory
from ppl_vae.program import processes as processes_module
from ppl_vae.program.processes import Processes, _digest, alone, current
from ppl_vae.types import FitWarning

ROWS = 13
Answers = dict[str, Any]


def _work(rank: int, count: int, place: str, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{place}/group", rank=rank, world_size=count)
    torch.save(work(*arguments), f"{place}/{rank}.pt")
    distributed.destroy_process_group()


def in_processes(place: Path, work: Callable[..., Any], *arguments: Any, count: int = 2) -> list[Any]:
    """What the work gives in each of so many processes; ``work`` is a function of a module."""
    multiprocessing.set_forkserver_preload(["torch", "pyro", "ppl_vae", "tests.test_processes"])
    given = (count, str(place), work, arguments)
    multiprocessing.start_processes(_work, given, nprocs=count, start_method="forkserver")
    return [torch.load(place / f"{rank}.pt") for rank in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("rows", [0, 1, 6, 20])
def test_parts_hold_every_row_once_and_differ_by_one_at_most(count: int, rows: int) -> None:
    parts = [range(rows)[Processes(rank, count).part(rows)] for rank in range(count)]
    assert [row for part in parts for row in part] == list(range(rows))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_lone_process_leaves_all_as_it_is() -> None:
    tensors = [torch.tensor([1.0, 2.0])]
    lone = current()
    lone.sum_(tensors)
    lone.broadcast_(tensors)
    lone.same(object(), "an object")
    lone.same_tensors({"a": tensors[0]}, "here")
    assert lone == Processes()
    assert tensors[0].tolist() == [1.0, 2.0]
    assert lone.from_first(lambda: 3) == 3


def _together() -> Answers:
    processes = current()
    rank = processes.rank
    sums = [torch.full((2, 2), rank + 1.0), torch.tensor(rank + 1), torch.tensor(rank + 0.5), torch.zeros(0)]
    processes.sum_(sums)
    first = [torch.tensor([rank + 3.0]), torch.tensor([rank + 3])]
    processes.broadcast_(first)
    processes.same("equal", "a word")
    processes.same_tensors({"a": torch.tensor(torch.nan)}, "here")
    with alone():
        lone = current().count
    return {
        "sums": [tensor.tolist() for tensor in sums],
        "first": [tensor.tolist() for tensor in first],
        "lone": lone,
        "from first": processes.from_first(lambda: (processes.rank, current().count)),
        "same": _said(lambda: processes.same(f"rows {rank}", "the data")),
        "tensors": _said(lambda: processes.same_tensors({"a": torch.ones(2), "b": torch.tensor(rank)}, "here")),
        "raised": _said(lambda: processes.from_first(lambda: [][rank])),
    }


def _said(work: Callable[[], Any]) -> str:
    try:
        return str(work())
    except (ValueError, IndexError, FloatingPointError) as error:
        return str(error)


def test_two_processes_add_share_and_compare(tmp_path: Path) -> None:
    first, second = in_processes(tmp_path, _together)
    assert first == second
    assert first["sums"] == [[[3.0, 3.0], [3.0, 3.0]], 3, 2.0, []]
    assert (first["first"], first["lone"], first["from first"]) == ([[3.0], [3]], 1, (0, 1))
    assert first["same"].startswith(
        "expected the data to be the same in all 2 processes, got 'rows 0' in process 0 and 'rows 1'"
    )
    assert first["tensors"] == "here expected the same numbers in all 2 processes, got others in b"
    assert first["raised"] == "list index out of range"


def _in_memory(folder: str) -> Answers:
    common_memory.FOLDER = Path(folder)
    processes = current()
    memory = processes.common_memory(3, 5)
    if memory is not None:
        assert not memory.any()
        processes.wait()
        memory[processes.rank] = processes.rank + 1
    processes.wait()
    return {"memory": memory, "left": [path.name for path in Path(folder).glob("ppl_vae-*")]}


@pytest.mark.skipif(sys.platform != "linux", reason="files in memory are Linux's")
@pytest.mark.parametrize("there", [True, False])
def test_processes_see_common_memory_where_there_is_some(tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "memory"
    if there:
        folder.mkdir()
    for one in in_processes(tmp_path, _in_memory, str(folder), count=3):
        assert one["left"] == []
        if there:
            assert torch.equal(one["memory"], torch.tensor([1.0, 2.0, 3.0])[:, None].expand(3, 5))
        else:
            assert one["memory"] is None


WAYS = {name: {} for name in OPTIMIZERS} | {"clipped": {"clip_norm": 0.3}, "skipped": {"skip_norm": 8.0, "clip_norm": 2.0}}


def _shared_gradient(x: Tensor) -> None:
    loc = pyro.param("a", torch.zeros(4)) + pyro.param("b", torch.zeros(4))
    with pyro.plate("data", ROWS, subsample_size=len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


def _divided() -> Answers:
    """What fits come to whose updates these processes divide, and in the first of them alone; and the state of one."""
    division.WORTH_DIVIDING, step.WORTH_RECORDING = 8, 3
    found: Answers = {}
    for name, bound in WAYS.items():
        given = {"optimizer": name if name in OPTIMIZERS else "adam", "learning_rate": 0.03, **bound}
        found[name] = _found(_fit(compile="auto", **given))
        if current().first:
            with alone():
                found["lone", name] = _found(_fit(compile="auto", **given))
    processes_module.LARGE = 2  # numbers of which messages are summed where they lie
    for name, worth in (("messages", 10**9), ("memory", 1)):
        division.WORTH_DIVIDING = worth
        method = pv.SVI(epochs=3, batch_size=5, optimizer="sgd", learning_rate=0.01, schedule="constant")
        data = pv.load_data(_rows().numpy(), valid=0.0, test=0.0)
        found[name] = _found(pv.fit(_shared_gradient, data, guide=lambda x: None, method=method))
        if current().first:
            with alone():
                found["lone", name] = _found(pv.fit(_shared_gradient, data, guide=lambda x: None, method=method))
    weight = nn.Parameter(torch.arange(7.0))
    optimizer = OPTIMIZERS["adam"]([weight, nn.Parameter(torch.ones(4))], 0.1)
    optimizer.division = Division.of(current(), optimizer.parameters, len(optimizer.kept))
    found["divided"] = optimizer.division is not None
    weight.grad = torch.ones(7) * (1 + current().rank)
    numbers = torch.tensor([1.0, 2.0, 3.0])
    Shares(current()).sum_(optimizer, numbers, same=True)
    found["norm"] = optimizer.gradient_norm()
    optimizer.step()
    found["state"] = {name: value.clone() for name, value in optimizer.state().moments[0].items()}
    current().wait()
    optimizer.restore(OptimizerState(5, {0: {"step": torch.tensor(5.0), "exp_avg": weight.detach() + 1}}))
    current().wait()
    found["restored"] = {name: value.clone() for name, value in optimizer.state().moments[0].items()}
    return {**found, "numbers": numbers, "weight": weight.detach()}


@pytest.mark.skipif(sys.platform != "linux", reason="files in memory are Linux's")
@pytest.mark.parametrize("count", [2, 3])
def test_processes_that_divide_the_update_come_to_the_numbers_of_one(tmp_path: Path, count: int) -> None:
    found = in_processes(tmp_path, _divided, count=count)
    first = found[0]
    for name in (*WAYS, "messages", "memory"):
        for part, value in first[name].items():
            assert all(torch.equal(value, other[name][part]) for other in found)
            torch.testing.assert_close(value, first["lone", name][part], rtol=1e-4, atol=1e-5)
    total = sum(range(1, count + 1))
    for other in found:
        assert other["divided"]
        assert other["numbers"].tolist() == [count, 2 * count, 3 * count]
        torch.testing.assert_close(other["norm"], torch.tensor(7.0).sqrt() * total)
        torch.testing.assert_close(other["weight"], torch.arange(7.0) - 0.1)
        torch.testing.assert_close(other["state"]["exp_avg"], torch.full((7,), 0.1 * total))
        torch.testing.assert_close(other["state"]["exp_avg_sq"], torch.full((7,), 0.001 * total**2))
        assert torch.equal(other["restored"]["exp_avg"], other["weight"] + 1)
        assert not other["restored"]["exp_avg_sq"].any()
        assert (other["state"]["step"], other["restored"]["step"]) == (1, 5)


def test_a_digest_hangs_on_every_bit_and_its_place() -> None:
    x = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    moved = [x.clone() for _ in range(3)]
    moved[0][[5, 70_005]] = torch.stack([x[5].nextafter(x[6]), x[70_005].nextafter(x[5] - 9)])  # by one bit each
    moved[1][[1, 2]] = x[[2, 1]]
    moved[2][199_999] = -x[199_999]
    odd = torch.arange(9, dtype=torch.uint8)
    for other in moved:
        assert _digest(other) != _digest(x)
    assert _digest(x.clone()) == _digest(x)
    assert _digest(odd[1:8]) == _digest(odd[1:8].clone()) != _digest(odd[:7])
    assert _digest(torch.zeros(0)) == 0


def _rows() -> Tensor:
    return torch.rand(ROWS, 4, generator=torch.Generator().manual_seed(0))


def _fit(out: Path | None = None, guide: Any = None, weights: Any = None, **given: Any) -> pv.Fit:
    vae = pv.VAE(latent_dim=2, decoder=pv.MLP(hidden=(3,)), likelihood=pv.Gaussian())
    data = pv.load_data(_rows().numpy(), valid=0.0, test=0.0, weights=weights)
    method = pv.SVI(**{"epochs": 2, "batch_size": 5, "schedule": "constant", "compile": False, **given})
    return pv.fit(vae, data, guide=guide or pv.AmortizedNormal(encoder=pv.MLP(hidden=(3,))), method=method, out=out)


def _found(fit: pv.Fit) -> Answers:
    """The numbers that a fit comes to."""
    rows = [[row["objective"], row["elbo"], row["kl"]] for row in fit.history]
    return {"history": torch.tensor(rows), **{name: value.clone() for name, value in fit.pair.state_dict().items()}}


def _model(x: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(torch.zeros(4), 1.0).to_event(1))
    with pyro.plate("data", ROWS, subsample_size=len(x)):
        z = pyro.sample("z", dist.Gamma(2.0 * torch.ones(len(x)), 1.0))
        pyro.sample("x", dist.Normal(loc + z[:, None], 1.0).to_event(1), obs=x)


def _guide(x: Tensor) -> None:
    pyro.sample("loc", dist.Normal(pyro.param("mean", torch.zeros(4)), 0.1).to_event(1))
    rate = pyro.param("rate", torch.ones(()), constraint=dist.constraints.positive)
    with pyro.plate("data", ROWS, subsample_size=len(x)):
        pyro.sample("z", dist.Gamma(1.0 + x.sum(1), rate))


def _crosswise(x: Tensor) -> None:
    """A model whose rows hang on each other."""
    weight = pyro.param("weight", torch.ones(4))
    with pyro.plate("data", ROWS, subsample_size=len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([len(x)]))
        pyro.sample("x", dist.Normal(weight * (x - x.mean(0)) + z[:, None], 1.0).to_event(1), obs=x)


def _normal(x: Tensor) -> None:
    with pyro.plate("data", ROWS, subsample_size=len(x)):
        pyro.sample("z", dist.Normal(pyro.param("a", torch.zeros(())), 1.0).expand([len(x)]))


SHARED: dict[str, dict[str, Any]] = {
    "recorded, an uneven last batch": {"clip_norm": 0.5},
    "eager, a last batch of fewer rows than processes": {
        "batch_size": 6,
        "clip_norm": 0.5,
        "alternate": "steps",
        "objective": pv.IWAE(samples=2),
        "weights": torch.arange(1.0, ROWS + 1).numpy(),
    },
}


def _fits(out: Path) -> Answers:
    """What fits come to in these processes, and in the first of them alone; one is kept in a folder."""
    step.WORTH_RECORDING = 3
    division.WORTH_DIVIDING = 8  # small networks too
    found: Answers = {}
    for name, given in SHARED.items():
        how = {} if "batch_size" in given else {"out": out, "compile": "auto"}
        found[name] = _found(_fit(**given, **how))
        if current().first:
            with alone():
                found["lone", name] = _found(_fit(**given))
    rows = _rows().numpy()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", FitWarning)
        own = pv.fit(_model, pv.load_data(rows, valid=0.0, test=0.0), guide=_guide, method=pv.SVI(epochs=1, compile=False))
    found["non-finite"] = _said(lambda: _fit(learning_rate=1e30, epochs=1))
    found["own noise"] = own.pair.state_dict()
    found["told"] = [str(each.message) for each in told] if current().first else [""] * len(told)
    other = pv.load_data(rows + current().rank, valid=0.0, test=0.0)
    norm = pv.AmortizedNormal(encoder=pv.MLP(hidden=(3,), norm="batch"))
    data = pv.load_data(rows, valid=0.0, test=0.0)
    found["refused"] = [
        _said(lambda: pv.fit(pv.FactorAnalysis(latent_dim=1), other, method=pv.SVI(epochs=1))),
        _said(lambda: _fit(objective=pv.BetaELBO(free_bits=0.1))),
        _said(lambda: _fit(guide=norm)),
        _said(lambda: pv.fit(_crosswise, data, guide=_normal, method=pv.SVI(epochs=1, compile=False))),
        _said(lambda: pv.fit(_model, data, guide=_guide, method=pv.NUTS())),
    ]
    return found


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Answers, Answers, Path]:
    """What two processes found, and the run folder of a fit of theirs."""
    place = tmp_path_factory.mktemp("processes")
    first, second = in_processes(place, _fits, place / "run")
    return first, second, place / "run"


@pytest.mark.parametrize("name", SHARED)
def test_two_processes_come_to_the_numbers_of_one(fits: tuple[Answers, Answers, Path], name: str) -> None:
    first, second, _ = fits
    for part, value in first[name].items():
        assert torch.equal(value, second[name][part])
        torch.testing.assert_close(value, first["lone", name][part], rtol=1e-4, atol=1e-5)


def test_noise_that_cannot_be_shared_is_each_process_s_own_and_told(fits: tuple[Answers, Answers, Path]) -> None:
    first, second, _ = fits
    assert [text.partition(" (")[0] for text in first["told"]] == ["each process draws noise of its own"]
    assert second["told"] == []
    for name, value in first["own noise"].items():
        assert torch.equal(value, second["own noise"][name])
        assert value.isfinite().all()


def test_what_is_not_finite_is_found_alike(fits: tuple[Answers, Answers, Path]) -> None:
    first, second, _ = fits
    assert first["non-finite"] == second["non-finite"]
    assert "epoch 1" in first["non-finite"]


def test_what_processes_cannot_share_is_refused_by_all(fits: tuple[Answers, Answers, Path]) -> None:
    first, second, _ = fits
    assert first["refused"] == second["refused"]
    for text, part in zip(
        first["refused"],
        (
            "expected the data to be the same",
            "expected one process for objective",
            "buffers that follow",
            "of its parts",
            "for NUTS",
        ),
        strict=True,
    ):
        assert part in text, text


def test_a_run_of_two_processes_goes_on_in_one(fits: tuple[Answers, Answers, Path]) -> None:
    *_, folder = fits
    longer = pv.SVI(epochs=3, batch_size=5, schedule="constant", clip_norm=0.5)
    resumed = pv.resume_run(folder, method=longer, data=pv.load_data(_rows().numpy(), valid=0.0, test=0.0))
    whole = _fit(epochs=3, clip_norm=0.5)
    torch.testing.assert_close(_found(resumed)["history"], _found(whole)["history"], rtol=1e-4, atol=1e-5)
    assert len((folder / "history.jsonl").read_text().splitlines()) == 3


def _torchrun(count: int, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), *arguments]


def _children(process: subprocess.Popen[str]) -> list[int]:
    listed = subprocess.run(["ps", "--ppid", str(process.pid), "-o", "pid="], capture_output=True, text=True, check=False)
    return [int(word) for word in listed.stdout.split()]


def _lines(text: str) -> list[str]:
    """What the command itself says, not torchrun."""
    return [line for line in text.splitlines() if line.startswith("ppl-vae: ")]


@pytest.mark.slow
def test_torchrun_fits_dies_as_one_and_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    method = ["--method", "SVI", "--method.epochs", "2000", "--method.compile", "false", "--device", "cpu"]
    words = ["fit", "--model", "VAE", *method, "--out", str(folder), "--keep_every", "0.2"]
    command = _torchrun(2, "-m", "ppl_vae", *words)
    began = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    history = folder / "history.jsonl"
    until = time.monotonic() + 900
    while not (history.exists() and len(history.read_text().splitlines()) >= 2 and (folder / "training.safetensors").exists()):
        assert began.poll() is None, began.communicate()
        assert time.monotonic() < until
        time.sleep(0.2)
    os.kill(_children(began)[1], signal.SIGKILL)
    _, said = began.communicate(timeout=300)
    assert began.returncode != 0
    assert len(_lines(said)) == 1, said
    assert "lost the others" in _lines(said)[0]
    before = len(history.read_text().splitlines())
    went_on = subprocess.Popen(
        _torchrun(3, "-m", "ppl_vae", "fit", "--resume", str(folder), "--device", "cpu"),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    while len(history.read_text().splitlines()) < before + 2:
        assert went_on.poll() is None, went_on.communicate()
        assert time.monotonic() < until
        time.sleep(0.2)
    went_on.send_signal(signal.SIGTERM)
    _, said = went_on.communicate(timeout=300)
    assert len(_lines(said)) == 1, said
    assert "go on with: ppl-vae fit --resume" in _lines(said)[0]
    epochs = [json.loads(line)["epoch"] for line in history.read_text().splitlines()]
    assert epochs == list(range(1, len(epochs) + 1))


@pytest.mark.slow
def test_verbs_of_one_process_say_so_once() -> None:
    ran = subprocess.run(_torchrun(2, "-m", "ppl_vae", "list"), capture_output=True, text=True, check=False)
    expected = "ppl-vae: error: expected one process for list, got 2: start it without torchrun, ppl-vae list"
    assert _lines(ran.stderr) == [expected]
