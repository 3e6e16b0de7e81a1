"""Tasks over processes. What they share goes to each process once, and nothing of it over a disk or shared memory."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

import torch

from ppl_vae.selection.work import Outcome, Plan, Task, perform

__all__ = ["performed"]

_shared: dict[str, bytes | Plan] = {}
"""In a process of the pool: what all its tasks share."""


def performed(tasks: Sequence[Task], plan: Plan, jobs: int) -> Iterator[tuple[Task, Outcome]]:
    """The tasks as they are done: one after another here, or in so many processes that each take their part of the cores.

    Raises:
        ValueError: declarations that another process cannot import, or a process that ended.
    """
    if min(jobs, len(tasks)) <= 1:
        yield from ((task, perform(task, plan)) for task in tasks)
        return
    try:
        shared = pickle.dumps(plan)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(f"these declarations cannot go to other processes ({error}): use jobs=1") from None
    threads = max(1, torch.get_num_threads() // jobs)
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_begin, initargs=(shared, threads))
    try:
        yield from _as_completed(pool, tasks)
    except BrokenProcessPool:
        raise ValueError(
            "a process that fitted candidates ended: expected memory for each of them, and of a script what it does under "
            "`if __name__ == '__main__':`; else use jobs=1"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _as_completed(pool: ProcessPoolExecutor, tasks: Sequence[Task]) -> Iterator[tuple[Task, Outcome]]:
    # The last first, which are the longest as a rule, so that no process is left alone with one.
    waiting: dict[Future[bytes], Task] = {pool.submit(_perform, task): task for task in reversed(tasks)}
    while waiting:
        done, _ = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            yield waiting.pop(future), _outcome(future.result())


def _begin(shared: bytes, threads: int) -> None:
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    _shared["plan"] = shared


def _perform(task: Task) -> bytes:
    """The outcome in one piece: tensors would go by shared memory, of which there may be little."""
    plan = _shared["plan"]
    if isinstance(plan, bytes):
        plan = _shared["plan"] = _plan(plan)
    try:
        return pickle.dumps(perform(task, plan))
    except KeyboardInterrupt:
        return b""


def _plan(shared: bytes) -> Plan:
    try:
        plan = pickle.loads(shared)
    except (AttributeError, ImportError) as error:
        raise ValueError(
            f"the declarations name a class that another process does not find ({error}): define it in a module, or use jobs=1"
        ) from None
    assert isinstance(plan, Plan)
    return plan


def _outcome(found: bytes) -> Outcome:
    if not found:
        raise KeyboardInterrupt
    outcome = pickle.loads(found)
    assert isinstance(outcome, Outcome)
    return outcome
