"""The state of a fit that goes on: tensors, plain facts and the history so far, in one file that is always whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ppl_vae.data import Split
from ppl_vae.inference.method import Row
from ppl_vae.memory import require_memory
from ppl_vae.text import as_line, from_json, inside

__all__ = [
    "State",
    "beside",
    "fingerprint",
    "put_random",
    "random_state",
    "read_state",
    "replaced",
    "sync",
    "taking_over",
    "write_state",
    "write_tensors",
]

SAMPLED = 256  # rows by which data are told from others
SPREAD = 16  # elements of memory for each that a tensor has: a layout with gaps has a few, a made-up one any number
STRANGE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)  # what odd values end in


class State(NamedTuple):
    """All that a method needs to go on to the same bits.

    Attributes:
        tensors: by name; those of the pair and of the data's transform are called as in ``model.safetensors``.
        facts: plain values, by name.
        history: the rows told so far.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    history: list[Row]


def write_state(state: State, path: Path) -> None:
    """Put a state in the place of the one before, which stays until the new one is whole.

    Raises:
        OSError: it cannot be written; what was there is untouched.
    """
    strides = {name: tensor.stride() for name, tensor in state.tensors.items() if not tensor.is_contiguous()}
    told = {"facts": state.facts, "history": state.history, "strides": strides}
    write_tensors(state.tensors, path, {name: json.dumps(value) for name, value in told.items()})


def read_state(path: Path) -> State:
    """A state as it was written; nothing outside of its folder is read.

    Raises:
        ValueError: a damaged file, more than fits into memory, or a link that leads out of the folder.
    """
    path = inside(path.parent, path.name)
    if not path.is_file():  # a pipe would be waited for
        raise ValueError(f"{path} is no training state: expected a file")
    require_memory(path.stat().st_size, str(path))
    try:
        with safe_open(path, "pt") as file:
            told = {key: from_json(value) for key, value in file.metadata().items()}
            facts, history, strides = told["facts"], told["history"], told["strides"]
            plain = all(isinstance(value, dict) for value in (facts, strides, *history)) and isinstance(history, list)
            if not (plain and facts["seconds"] >= 0):
                raise ValueError("expected facts, strides and rows of the history by name")
            tensors = {key: _laid_out(file.get_tensor(key), strides.get(key)) for key in file.keys()}  # noqa: SIM118
        return State(tensors, facts, history)
    except (MemoryError, OSError, SafetensorError, *STRANGE) as error:
        raise ValueError(f"{path} is no training state: {type(error).__name__} {as_line(error)}") from None


@contextlib.contextmanager
def taking_over(state: State | None) -> Iterator[None]:
    """While a method takes over a state: one that does not fit it is told as such, whatever it fails by.

    Raises:
        ValueError: the state holds something else than the method wrote.
    """
    try:
        yield
    except STRANGE as error:
        if state is None:
            raise
        told = f"{type(error).__name__} {as_line(error)}"
        raise ValueError(f"the training state does not fit the run that it lies in ({told}): fit again (--overwrite)") from None


def _laid_out(tensor: Tensor, strides: list[int] | None) -> Tensor:
    """A copy in torch's own, aligned memory with the strides that it had: the order of sums hangs on them."""
    if strides is None:
        return tensor.clone()
    once = tensor[tuple(slice(None) if stride else slice(0, 1) for stride in strides)]
    reach = sum((size - 1) * stride for size, stride in zip(once.shape, strides, strict=True))
    if min(strides) < 0 or reach > SPREAD * once.numel():
        raise ValueError(f"expected strides that fit the shape {tuple(tensor.shape)}, got {strides}")
    return torch.empty_strided(once.shape, strides, dtype=tensor.dtype).copy_(once).expand(tensor.shape)


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """A safetensors file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    plain = {name: torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach()) for name, tensor in tensors.items()}
    with replaced(path) as partial:
        try:
            save_file(plain, partial, metadata)
        except SafetensorError as error:
            raise OSError(str(error)) from None


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A file to write, which takes the place of ``path`` once it lies on the disk.

    Raises:
        OSError: it cannot be written; what was there is untouched.
    """
    partial = beside(path, "partial")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise OSError(f"{path} could not be written ({reason}); what was there before is untouched") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def beside(path: Path, what: str) -> Path:
    """A name in the same folder that nobody can know before, so that no link to elsewhere lies there."""
    return path.with_name(f".{path.name}.{what}-{secrets.token_hex(8)}")


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of files, lies on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # which has no such call for folders
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Torch's random numbers of the CPU and of a device."""
    states = {"random.cpu": torch.get_rng_state()}
    if device.type != "cpu":
        which = (device,) if device.type == "cuda" else ()
        states[f"random.{device.type}"] = torch.get_device_module(device).get_rng_state(*which)
    return states


def put_random(tensors: Mapping[str, Tensor], device: torch.device) -> None:
    """Go on with the random numbers of a state."""
    torch.set_rng_state(tensors["random.cpu"])
    if device.type != "cpu":
        which = (device,) if device.type == "cuda" else ()
        torch.get_device_module(device).set_rng_state(tensors[f"random.{device.type}"], *which)


def fingerprint(split: Split) -> str:
    """What tells these rows from others: their number, shape, type, and the values of some of them."""
    at_once = min(SAMPLED, len(split), getattr(split.raw, "at_once", SAMPLED))
    places = torch.linspace(0, len(split) - 1, at_once).long()
    some = split[places]
    digest = hashlib.sha256(repr((len(split), split.event_shape, str(split.raw.dtype))).encode())
    digest.update(some.x.cpu().contiguous().numpy().tobytes())
    if some.y is not None:
        digest.update(some.y.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
