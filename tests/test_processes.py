"""Several processes that work on one fit together: two real ones over gloo, against one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, multiprocessing

from ppl_vae.program.processes import Processes, alone, current


def _work(rank: int, count: int, place: str, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{place}/group", rank=rank, world_size=count)
    torch.save(work(*arguments), f"{place}/{rank}.pt")
    distributed.destroy_process_group()


def in_processes(place: Path, work: Callable[..., Any], *arguments: Any, count: int = 2) -> list[Any]:
    """What the work gives in each of so many processes; ``work`` is a function of a module."""
    multiprocessing.start_processes(_work, (count, str(place), work, arguments), nprocs=count, start_method="fork")
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
    assert lone == Processes()
    assert tensors[0].tolist() == [1.0, 2.0]


def _together() -> dict[str, Any]:
    processes = current()
    rank = processes.rank
    sums = [torch.full((2, 2), rank + 1.0), torch.tensor(rank + 1), torch.tensor(rank + 0.5), torch.zeros(0)]
    processes.sum_(sums)
    first = [torch.tensor([rank + 3.0]), torch.tensor([rank + 3])]
    processes.broadcast_(first)
    processes.same("equal", "a word")
    with alone():
        lone = current().count
    try:
        processes.same(f"rows {rank}", "the data")
    except ValueError as error:
        said = str(error)
    return {"sums": sums, "first": first, "lone": lone, "said": said, "count": processes.count}


def test_two_processes_add_share_and_compare(tmp_path: Path) -> None:
    for found in in_processes(tmp_path, _together):
        assert [tensor.tolist() for tensor in found["sums"]] == [[[3.0, 3.0], [3.0, 3.0]], 3, 2.0, []]
        assert [tensor.tolist() for tensor in found["first"]] == [[3.0], [3]]
        assert (found["lone"], found["count"]) == (1, 2)
        assert found["said"].startswith("expected the data to be the same in all 2 processes, got 'rows 0' in process 0 and")
