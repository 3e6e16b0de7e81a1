"""Tasks over processes. What they share goes to each process once, and nothing of it over a disk or shared memory.

This process works too, from the front of the tasks, while others, which take seconds to begin, take theirs from the back, where
the longest are as a rule. They are begun once the tasks turn out to take longer than that.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch

from ppl_vae.selection.work import Outcome, Plan, Task, perform

__all__ = ["performed"]

WORTH = 3.0  # seconds that tasks took before other processes are begun
_shared: dict[str, bytes | Plan] = {}
"""In a process of the pool: what all its tasks share."""


def performed(tasks: Sequence[Task], plan: Plan, jobs: int) -> Iterator[tuple[Task, Outcome]]:
    """The tasks as they are done: one after another, or in so many processes that each take their part of the cores.

    Raises:
        ValueError: declarations that another process cannot import, or a process that ended.
    """
    if min(jobs, len(tasks)) <= 1:
        yield from ((task, perform(task, plan)) for task in tasks)
        return
    left, began, shared = deque(tasks), time.monotonic(), _packed(plan)
    with _threads(max(1, torch.get_num_threads() // jobs)):
        while left and (len(left) < 2 or time.monotonic() - began < WORTH):
            yield _first(left, plan)
        if left:
            with _Others(left, shared, min(jobs - 1, len(left))) as others:
                for _ in range(len(left)):
                    yield others.found() or (_first(left, plan) if left else others.next())


def _first(left: deque[Task], plan: Plan) -> tuple[Task, Outcome]:
    task = left.popleft()
    return task, perform(task, plan)


class _Others:
    """Other processes, each of which takes tasks from the back once it has begun.

    Args:
        left: the tasks; whoever takes one takes it out.
        shared: the plan.
        number: of processes.
    """

    def __init__(self, left: deque[Task], shared: bytes, number: int) -> None:
        self._left = left
        self._done: queue.SimpleQueue[tuple[Task | None, Future[Any]]] = queue.SimpleQueue()
        begin = partial(_begin, shared, torch.get_num_threads())
        self._pool = ProcessPoolExecutor(number, mp_context=get_context("spawn"), initializer=begin)
        for _ in range(number):
            self._pool.submit(os.getpid).add_done_callback(partial(self._another, None))

    def __enter__(self) -> _Others:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def found(self) -> tuple[Task, Outcome] | None:
        """What was done meanwhile, if anything was."""
        with contextlib.suppress(queue.Empty):
            return self._outcome(*self._done.get_nowait())
        return None

    def next(self) -> tuple[Task, Outcome]:
        """What is done next."""
        return self._outcome(*self._done.get())

    def _another(self, task: Task | None, future: Future[Any]) -> None:
        """Tell of a task that is done, and begin another; called in a thread of the pool, first when a process has begun."""
        if future.cancelled():
            return
        if task is not None or future.exception() is not None:
            self._done.put((task, future))
        with contextlib.suppress(IndexError, RuntimeError):  # none is left, or the pool was shut down or broke, which is told
            following = self._left.pop()
            self._pool.submit(_perform, following).add_done_callback(partial(self._another, following))

    def _outcome(self, task: Task | None, future: Future[Any]) -> tuple[Task, Outcome]:
        try:
            found = future.result()
        except BrokenProcessPool:
            raise ValueError(
                "a process that fitted candidates ended: expected memory for each of them, and of a script what it does under "
                "`if __name__ == '__main__':`; else use jobs=1"
            ) from None
        if task is None or not found:
            raise KeyboardInterrupt
        outcome = pickle.loads(found)
        assert isinstance(outcome, Outcome)
        return task, outcome


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    """So many threads for this process, which has its part of the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _packed(plan: Plan) -> bytes:
    try:
        return pickle.dumps(plan)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(f"these declarations cannot go to other processes ({error}): use jobs=1") from None


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
