"""Sets with a name: scikit-learn's digits and the torchvision sets that fit in memory as one array."""

from __future__ import annotations

import difflib
import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ppl_vae.data.arrays import as_array
from ppl_vae.data.raw import Raw
from ppl_vae.data.source import DataSource

__all__ = ["EMPTY", "SETS", "empty_shape", "read_digits", "read_torchvision", "unknown_name"]


EMPTY = "empty:"
"""What names of the one empty row begin with that stands for no data, such as ``empty:4x5``."""


def empty_shape(name: str) -> tuple[int, ...]:
    """Of the empty row.

    Raises:
        ValueError: no lengths.

    Examples:
        >>> empty_shape("empty:4x5")
        (4, 5)
    """
    lengths = name.removeprefix(EMPTY).split("x")
    if not all(length.isdecimal() and int(length) for length in lengths):
        raise ValueError(f"expected the lengths of an empty row, such as {EMPTY}4x5, got {name[:80]!r}")
    return tuple(map(int, lengths))


class TorchvisionSet(NamedTuple):
    """A torchvision class and the arguments of its two halves; ``test=None`` if it has one half only."""

    cls: str
    train: dict[str, Any]
    test: dict[str, Any] | None


def _by_flag(cls: str, **options: Any) -> TorchvisionSet:
    return TorchvisionSet(cls, {**options, "train": True}, {**options, "train": False})


def _by_split(cls: str) -> TorchvisionSet:
    return TorchvisionSet(cls, {"split": "train"}, {"split": "test"})


SETS = {
    "mnist": _by_flag("MNIST"),
    "fashionmnist": _by_flag("FashionMNIST"),
    "kmnist": _by_flag("KMNIST"),
    "emnist": _by_flag("EMNIST", split="balanced"),
    "qmnist": _by_flag("QMNIST"),
    "usps": _by_flag("USPS"),
    "semeion": TorchvisionSet("SEMEION", {}, None),
    "cifar10": _by_flag("CIFAR10"),
    "cifar100": _by_flag("CIFAR100"),
    "svhn": _by_split("SVHN"),
    "stl10": _by_split("STL10"),
}


def read_digits() -> Raw:
    """The 1797 digits of 8 x 8 pixels, 17 levels, that scikit-learn brings along (Alpaydin, Kaynak 1998).

    They are read from its file: its import takes as long as torch's.
    """
    (folder,) = importlib.util.find_spec("sklearn").submodule_search_locations  # type: ignore[union-attr, misc]
    rows = np.loadtxt(Path(folder, "datasets", "data", "digits.csv.gz"), delimiter=",", dtype=np.uint8)
    return Raw(rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64), tuple("0123456789"), levels=17)


def read_torchvision(source: DataSource) -> Raw:
    """A torchvision set from ``source.folder``, downloaded if it is missing and that was allowed.

    Raises:
        ValueError: it is missing, damaged, or cannot be downloaded.
    """
    entry = SETS[source.name]
    train = _open(entry, entry.train, source)
    x, y, classes = _pixels(train, source), _labels(train), _classes(train)
    if entry.test is None:
        return Raw(x, y, classes)
    test = _open(entry, entry.test, source)
    return Raw(x, y, classes, test_x=_pixels(test, source), test_y=_labels(test))


def unknown_name(name: str) -> ValueError:
    """The error for a source that is neither a set nor a path: it lists the names, and guesses at what was meant."""
    names = ["digits", "sprites", *SETS]
    close = difflib.get_close_matches(name.lower(), names, n=1)
    guess = f" (did you mean {close[0]!r}?)" if close else ""
    return ValueError(f"expected one of {', '.join(names)}, or the path of a file or folder, got {name!r}{guess}")


def _open(entry: TorchvisionSet, arguments: dict[str, Any], source: DataSource) -> Any:
    import torchvision.datasets

    try:
        return getattr(torchvision.datasets, entry.cls)(str(source.folder), download=source.download, **arguments)
    except Exception as error:  # torchvision raises whatever its file formats and the network do
        raise _explained(error, source) from None


def _explained(error: Exception, source: DataSource) -> ValueError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if source.download and isinstance(error, (OSError, RuntimeError)):
        return ValueError(
            f"expected to download {source.source} into {source.folder}, got {reason}: is this machine offline? Put the files "
            "there yourself, or name a folder that has them (PPL_VAE_DATA / --data.root)"
        )
    if isinstance(error, FileNotFoundError) or "not found" in reason:
        return ValueError(
            f"expected {source.source} in {source.folder}, got no such files: pass download=True (--data.download true) with a "
            "network connection, or put the files there (PPL_VAE_DATA / --data.root)"
        )
    return ValueError(
        f"expected {source.source} in {source.folder}, got files that cannot be read ({reason}): fetch them again"
    )


def _pixels(dataset: Any, source: DataSource) -> np.ndarray:
    pixels = as_array(dataset.data, source.source)
    return pixels.swapaxes(1, 2) if source.name == "emnist" else pixels  # EMNIST's files are column by column


def _labels(dataset: Any) -> np.ndarray:
    try:
        labels = np.asarray(dataset.targets)
    except AttributeError:  # of STL10, SVHN and SEMEION
        labels = np.asarray(dataset.labels)
    return labels[:, 0] if labels.ndim == 2 else labels  # QMNIST keeps the class first, then facts about the writer


def _classes(dataset: Any) -> tuple[str, ...]:
    try:
        names = dataset.classes
    except AttributeError:  # of digits
        names = [str(index) for index in range(int(_labels(dataset).max()) + 1)]
    return tuple(name.split(" - ")[0] for name in names)  # "3 - three"
