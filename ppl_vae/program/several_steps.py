"""Several steps by one call of a compiled one, by a loop in its library (``several_steps.h``).

    inputs = state, batch (B, ...), rates (R,), all rows (N, ...), rates (K, R), rows (K, B), constants

A step reads the first three. Where ``rows`` is empty a call is one step on the batch; else the library takes K steps, each on
the rows of its number.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

__all__ = ["Several", "insert_loop"]

HEADER = Path(__file__).with_suffix(".h")
ENTRY = re.compile(r"(void \w+::run_impl\([^{]*\)\s*\{\n)")
CALL = """    if (ppl_vae::several(
            input_handles, this->num_inputs(), output_handles, this->num_outputs(), {state}, {fields},
            [&](AtenTensorHandle* handles, AtenTensorHandle* found) {{
              this->run_impl(handles, found, stream, proxy_executor);
            }}))
      return;
"""


class Several(NamedTuple):
    """Where what is read lies among the inputs of a step.

    Attributes:
        state: tensors that come first, which a step changes.
        fields: of a batch.
    """

    state: int
    fields: int


def insert_loop(source: str, where: Several) -> str:
    """The code that torch's compiler has written to call what it made, with the loop at its entry.

    Where it does not look as expected it stays as it is: who asks for several steps finds out that one was taken.
    """
    entry = ENTRY.search(source)
    if entry is None:
        return source
    loop = CALL.format(state=where.state, fields=where.fields)
    return f"{HEADER.read_text()}\n{source[: entry.end()]}{loop}{source[entry.end() :]}"  # its path may be none for a compiler
