"""Several steps of a compiled fit by one call are those of as many calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import ppl_vae as pv
from ppl_vae.inference.training import compiled, stepper
from ppl_vae.program import compiling
from ppl_vae.program.capture import capture
from ppl_vae.program.several_steps import Several, insert_loop
from ppl_vae.types import FitWarning

K, B, N = 3, 4, 10
SEVERAL = compiled.Compiled.several


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PPL_VAE_CACHE", str(tmp_path_factory.mktemp("compiled")))
        yield


def moved(w: Tensor, count: Tensor, x: Tensor, y: Tensor, known: Tensor, rates: Tensor, *_: Tensor) -> list[Tensor]:
    """A step that changes its state in place, draws, and reads fields of several types."""
    chosen = torch.where(known[:, None, None], x, -x).sum((0, 2)) + torch.randn(3)
    w.mul_(0.9).add_(rates[0] * chosen + rates[1] * y.to(w.dtype).mean())
    count.add_(1)
    return [w.sum().reshape(1)]


def test_a_library_takes_the_steps_of_all_rows_that_it_is_given() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(N, 3, 2, generator=generator), torch.randint(7, (N,), generator=generator)
    known = torch.rand(N, generator=generator) < 0.5
    fields, rates = [x, y, known], torch.rand(K, 2, generator=generator)
    rows = torch.stack([torch.randperm(N, generator=generator)[:B] for _ in range(K)])
    alone = [*[torch.empty(0)] * 4, torch.empty(0, 0, dtype=torch.int64)]

    def start() -> list[Tensor]:
        return [torch.ones(3), torch.zeros((), dtype=torch.int64)]

    inputs = [*(field[:B] for field in fields), rates[0], *alone]
    library = capture(moved, start(), inputs).compiled(*start(), *inputs, several=Several(2, 3))
    singly, together = start(), start()
    torch.manual_seed(1)
    for chosen, rate in zip(rows, rates, strict=True):
        last = library(*singly, *(field[chosen] for field in fields), rate, *alone)
    after = torch.rand(1)
    torch.manual_seed(1)
    buffers = [*(torch.empty_like(field[:B]) for field in fields), torch.empty(2)]
    found = library(*together, *buffers, *fields, rates, rows)
    assert torch.equal(torch.rand(1), after)
    assert torch.equal(found[0], last[0])
    assert together[1] == K
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(together, singly, strict=True))
    expected = start()
    torch.manual_seed(1)
    for chosen, rate in zip(rows, rates, strict=True):
        moved(*expected, *(field[chosen] for field in fields), rate)
    torch.testing.assert_close(together[0], expected[0])
    for outside in (-1, N):  # a mistake is an error, not memory of others
        with pytest.raises(RuntimeError):
            library(*together, *buffers, *fields, rates[:1], torch.tensor([[0, 1, 2, outside]]))
    library(*together, *buffers, *fields, rates[:1], rows[:1])  # and leaves the library as it was
    assert together[1] == K + 1


def test_code_that_looks_otherwise_is_left_alone() -> None:
    source = "void AOTInductorModel::run_impl(\n    int* handles // {not stolen)\n) {\n    work();\n}\n"
    assert "work" in insert_loop(source, Several(1, 1))
    other = "int main() { return 0; }\n"
    assert insert_loop(other, Several(1, 1)) == other


def trained(monkeypatch: pytest.MonkeyPatch, at_once: int, **options: Any) -> tuple[pv.Fit, list[int]]:
    """A compiled fit, and how many steps its calls took."""
    calls: list[int] = []

    def counted(self: Any, block: Any, batches: Any) -> bool:
        taken = SEVERAL(self, block, batches)
        calls.append(len(batches) if taken else 0)
        return taken

    monkeypatch.setattr(stepper, "AT_ONCE", at_once)
    monkeypatch.setattr(compiled.Compiled, "several", counted)
    x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    data = pv.load_data(x, y=torch.arange(100) % 2, valid=0.0, test=0.0)
    model = pv.CVAE(latent_dim=2, likelihood=pv.Gaussian(), decoder=pv.MLP(hidden=(8,)))
    method = pv.SVI(epochs=3, batch_size=8, learning_rate=0.01, schedule="cosine", compile=True, **options)
    return pv.fit(model, data, method=method, progress=lambda row: None), calls


def test_a_fit_by_several_steps_at_once_is_the_fit_by_single_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    singly, none = trained(monkeypatch, 1)
    together, calls = trained(monkeypatch, 5)
    assert none == []
    assert set(calls) == {5, 2} and sum(calls) >= 3 * 12 - 3  # noqa: PT018 - the first is eager, and epochs end with 4 rows
    for ours, theirs in zip(together.pair.state_dict().values(), singly.pair.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    for row, other in zip(together.history, singly.history, strict=True):
        assert {**row, "seconds": 0} == {**other, "seconds": 0}


@pytest.mark.slow
def test_where_there_is_no_loop_steps_are_taken_one_by_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    looped, _ = trained(monkeypatch, 5)
    monkeypatch.setenv("PPL_VAE_CACHE", str(tmp_path))
    monkeypatch.setattr(compiling, "insert_loop", lambda source, where: source)
    singly, calls = trained(monkeypatch, 5)
    assert set(calls) == {0}
    for ours, theirs in zip(looped.pair.state_dict().values(), singly.pair.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_step_that_is_not_finite_is_named_and_skipped_as_by_single_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    real, told = stepper.Stepper.finite, []

    def finite(self: stepper.Stepper) -> bool:
        return real(self) and not (self.epoch == 1 and self.batch_index >= 7 and not self.skipped)

    monkeypatch.setattr(stepper.Stepper, "finite", finite)
    for at_once in (1, 5):
        with pytest.warns(FitWarning, match="is left out") as caught:
            fit, _ = trained(monkeypatch, at_once, on_nonfinite="skip")
        told.append((str(caught[0].message).partition(":")[0], fit.history[-1]["objective"]))
    assert told[0] == told[1]
    assert "step 7 of epoch 2" in told[0][0]


def test_a_bad_library_is_made_anew_and_odd_paths_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / 'a cache\'s "path"'
    monkeypatch.setenv("PPL_VAE_CACHE", str(folder))
    x = torch.arange(6.0)
    graph = capture(lambda x: [x.exp() + 1], [], [x])
    torch.testing.assert_close(graph.compiled(x)(x)[0], x.exp() + 1)
    (library,) = folder.iterdir()
    library.write_bytes(library.read_bytes()[:2000])
    torch.testing.assert_close(graph.compiled(x)(x)[0], x.exp() + 1)
    assert [*folder.iterdir()] == [library]
