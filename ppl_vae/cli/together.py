"""A verb in several processes, as torchrun starts them: one of them speaks for all."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from ppl_vae.launched import launched

__all__ = ["check_shared", "first_to_say", "together"]

SHARED = ("fit", "compare", "evaluate")
"""Verbs whose work several processes share."""


@contextlib.contextmanager
def together() -> Iterator[bool]:
    """The processes that were started together as a group; whether this is the one that tells what is found.

    Raises:
        LostProcessError: the others did not come.
    """
    if launched() == 1:
        yield True
        return
    from ppl_vae.program.processes import joined

    with joined() as processes, contextlib.ExitStack() as stack:
        if not processes.first:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(Path(os.devnull).open("w"))))
        yield processes.first
        sys.stdout.flush()


def check_shared(verb: str) -> None:
    """Raise ``ValueError`` for a verb that one process does by itself, if there are several."""
    if (count := launched()) > 1 and verb not in SHARED:
        command = "ppl-vae select --jobs N, which begins others itself" if verb == "select" else f"ppl-vae {verb}"
        raise ValueError(f"expected one process for {verb}, got {count}: start it without torchrun, {command}")


def first_to_say(message: str, *, only: bool = False) -> bool:
    """Whether no other process has told this message, or with ``only`` any."""
    if launched() == 1:
        return True
    from ppl_vae.program import processes

    return processes.first_to_say(message, only=only)
