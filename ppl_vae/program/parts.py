"""Parts of a pair by their dotted names, such as ``model.decoder``, and a pair of which only some parts learn."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

from ppl_vae.program.pair import Pair

__all__ = ["Parts", "training_only"]

UNCONSTRAINED = "_unconstrained"  # at the end of the name under which a PyroModule keeps a constrained parameter
MOST_NAMES = 20


class Parts:
    """Which modules and tensors of a pair belong to some of its parts.

    A module belongs to them if it lies in one, or holds one.

    Args:
        pair: model and guide; plain programs have met a batch.
        names: of modules, parameters or buffers, each with all that is in it; nothing stands for everything.

    Attributes:
        still: the modules that do not belong to them.
        tensors: the parameters and buffers that do, by their names in the pair. Of a module that holds a part these are its own
            buffers alone.

    Raises:
        ValueError: a name of no part.
    """

    def __init__(self, pair: Pair, names: Sequence[str] = ()) -> None:
        modules = dict(pair.named_modules(remove_duplicate=False))
        parameters = dict(pair.named_parameters(remove_duplicate=False))
        tensors = pair.state_dict(keep_vars=True)
        _check(names, {_plain(name) for name in (*modules, *parameters, *tensors) if name})
        names = names or ("",)
        awake = {id(module) for name, module in modules.items() if _inside(name, names) or _holds(name, names)}
        self.still = tuple(module for module in pair.modules() if id(module) not in awake)
        trained = {id(value) for name, value in parameters.items() if _inside(_plain(name), names)}
        fixed = {id(value) for value in parameters.values()} - trained
        self.tensors = {
            name
            for name, value in tensors.items()
            if id(value) in trained or (id(value) not in fixed and id(modules[name.rpartition(".")[0]]) in awake)
        }


@contextlib.contextmanager
def training_only(pair: Pair, names: Sequence[str]) -> Iterator[Parts]:
    """A pair of which only these parts learn inside, and all of them as before afterwards.

    Parameters of the others need no gradient, and their modules are in evaluation mode whatever the pair is told: dropout,
    statistics of batch norm and whatever else is done in training mode alone stand still too.

    Args:
        pair: model and guide.
        names: of the parts; nothing stands for everything.

    Raises:
        ValueError: a name of no part.
    """
    parts = Parts(pair, names)
    named = pair.named_parameters()
    frozen = [value for name, value in named if value.requires_grad and name not in parts.tensors]
    modes = [(module, module.training) for module in parts.still]
    try:
        for value in frozen:
            value.requires_grad_(False)
        pair.still = parts.still
        for module in parts.still:
            module.training = False
        yield parts
    finally:
        pair.still = ()
        for module, mode in modes:
            module.training = mode
        for value in frozen:
            value.requires_grad_(True)


def _plain(name: str) -> str:
    return name.removesuffix(UNCONSTRAINED)


def _inside(name: str, parts: Iterable[str]) -> bool:
    """Whether a name is that of a part, or of something in one."""
    return any(not part or name == part or name.startswith(f"{part}.") for part in parts)


def _holds(name: str, parts: Iterable[str]) -> bool:
    """Whether a part lies in what has this name."""
    return any(not name or part.startswith(f"{name}.") for part in parts)


def _check(parts: Sequence[str], known: set[str]) -> None:
    """Raise ``ValueError`` for a part that does not exist, with the names of those that lie beside it."""
    for part in parts:
        if part in known:
            continue
        above = part.rpartition(".")[0]
        while above and above not in known:
            above = above.rpartition(".")[0]
        levels = (1,) if above else (1, 2)
        depths = [len(above.split(".")) + level if above else level for level in levels]
        there = sorted(name for name in known if len(name.split(".")) in depths and _inside(name, [above]))
        told = ", ".join(there[:MOST_NAMES]) + (", ..." if len(there) > MOST_NAMES else "")
        raise ValueError(f"expected parts of model and guide for only, got {part!r}: choose from {told or above}")
