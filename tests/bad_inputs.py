"""Bad inputs and the answer that each deserves: one line that names what was expected, or, where it is no fault, a result.

``python -m tests.bad_inputs`` prints every answer.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import ppl_vae as pv
from ppl_vae import cli
from ppl_vae.priors.values import Elementwise
from ppl_vae.report import report
from tests.table import rows

__all__ = ["CASES", "BadInput", "answer", "answered"]

FINE = ""
"""The answer to an input that looks odd and is not: a result."""

N = 40
WHOLE = {"valid": 0.0, "test": 0.0}
REALS = rows("real", N).numpy().reshape(N, -1)
BINARY = rows("binary", N)
IMAGES = (255 * rows("unit_interval", N)).to(torch.uint8).numpy()
LONGEST = 700  # characters of an answer


class BadInput(NamedTuple):
    """An attempt in an empty folder, and the pattern that the one line of its answer matches; :data:`FINE` if it is to work."""

    attempt: Callable[[Path], object]
    message: str


class RefusalError(ValueError):
    """What the command line said, with the exit code 2."""


# --- attempts -------------------------------------------------------------------------------------------------------------


def load(source: Any, **options: Any) -> Callable[[Path], object]:
    """Load what is in memory."""
    return lambda folder: pv.load_data(source, **{**WHOLE, **options})


def file(name: str, content: bytes | Callable[[Path], object], **options: Any) -> Callable[[Path], object]:
    """Write a file and load it; a file in a folder stands for the folder."""

    def attempt(folder: Path) -> object:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content) if isinstance(content, bytes) else content(path)
        return pv.load_data(path if path.parent == folder else path.parent, **{**WHOLE, **options})

    return attempt


def declared(text: str | bytes, cls: Any = pv.Model) -> Callable[[Path], object]:
    """Read a declaration from a YAML file."""

    def attempt(folder: Path) -> object:
        path = folder / "declared.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return cls.from_yaml(path)

    return attempt


def fit(data: Any = BINARY, *, method: Any = None, guide: Any = None, model: Any = None, **changes: Any) -> Any:
    """Fit a small VAE, or the model."""
    network = pv.MLP(hidden=(5,))

    def attempt(folder: Path) -> object:
        fitted = pv.fit(
            pv.VAE(**{"latent_dim": 2, "decoder": network, **changes}) if model is None else model,
            data() if callable(data) else data,
            guide=pv.AmortizedNormal(encoder=network) if guide is None and model is None else guide,
            method=method or pv.SVI(epochs=1),
            device="cpu",
        )
        assert all(value == value for value in fitted.history[-1].values()), "NaN in the history"
        return fitted

    return attempt


@functools.cache
def fitted() -> pv.Fit:
    """A fit to the binary rows."""
    return fit()(Path())


def ask(question: Callable[[pv.Fit], object]) -> Callable[[Path], object]:
    """Ask something of a fit."""
    return lambda folder: question(fitted())


@functools.cache
def conditional() -> pv.Fit:
    """A fit to the binary rows and two classes."""
    data = pv.load_data(BINARY, y=[0, 1] * (N // 2), **WHOLE)
    return fit(data, model=pv.CVAE(latent_dim=2), guide=pv.AmortizedNormal())(Path())


def fit_with(**arguments: Any) -> Callable[[Path], object]:
    """Fit with these arguments of the call."""
    return lambda folder: pv.fit(pv.VAE(latent_dim=2), BINARY, **{"method": pv.SVI(epochs=1), "device": "cpu", **arguments})


def compared(**arguments: Any) -> Callable[[Path], object]:
    """Compare with these arguments of the call."""
    return lambda folder: pv.compare(pv.PPCA(latent_dim=1), REALS, **{"methods": [pv.EM()], "device": "cpu", **arguments})


def denied(attempt: Callable[[Path], object], suffix: str) -> Callable[[Path], object]:
    """The attempt where files with that suffix may not be read."""
    opened = io.open

    def refuse(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if str(file).endswith(suffix) and "r" in mode:
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file, mode, *rest, **options)

    def without_permission(folder: Path) -> object:
        pv.load_data(REALS)
        with mock.patch.object(Path, "open", refuse):
            return attempt(folder)

    return without_permission


def damaged_weights(folder: Path) -> object:
    """A run whose weights are no such file."""
    fit_with(out=folder / "run")(folder)
    (folder / "run" / "model.safetensors").write_bytes(b"hello")
    return pv.load_run(folder / "run", device="cpu")


def verb(*arguments: str, **files: bytes | Callable[[Path], object]) -> Callable[[Path], object]:
    """Run the command line in a folder with these files, underscores for dots in their names."""

    def attempt(folder: Path) -> None:
        for name, content in files.items():
            path = folder / name.replace("_", ".")
            path.write_bytes(content) if isinstance(content, bytes) else content(path)
        before = sorted(folder.rglob("*"))
        out, err = io.StringIO(), io.StringIO()
        with _standing(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main(list(arguments))
        if code == 0:
            return
        line = err.getvalue()
        assert (code, out.getvalue(), line.count("\n")) == (2, "", 1), f"exit code {code}: {line}"
        assert sorted(folder.rglob("*")) == before, "something was written"
        raise RefusalError(line.strip())

    return attempt


def listed(text: str) -> Callable[[Path], object]:
    """List what can be declared where the folder of models holds this."""

    def attempt(folder: Path) -> object:
        (folder / "models").mkdir()
        (folder / "models" / "a.yaml").write_text(text)
        return verb("list")(folder)

    return attempt


@contextlib.contextmanager
def _standing(folder: Path) -> Iterator[None]:
    """In that folder, with Python's path as it was afterwards."""
    home, path = Path.cwd(), list(sys.path)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(home)
        sys.path[:] = path


# --- files ----------------------------------------------------------------------------------------------------------------


def npy(header: str, body: bytes = b"", version: int = 1) -> bytes:
    """A .npy file with that header."""
    text = header.encode("latin1") + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text + body


def array_header(shape: str, descr: str = "<f8") -> str:
    return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"


def zip_of_zeros(path: Path) -> None:
    """An honest archive of 256 MiB of zeros in a quarter of one."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as member:
        member.write(npy(array_header("(4, 67108864)", "|u1")))
        for _ in range(64):
            member.write(bytes(2**22))


def zip_that_lies(path: Path) -> None:
    """An archive whose directory declares a member of almost 4 GiB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy(array_header("(1, 536870000)"), bytes(800)))
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\x01\x02")
    content[place + 24 : place + 28] = struct.pack("<I", 536870000 * 8 + 128)
    path.write_bytes(bytes(content))


def small_memory(attempt: Callable[[Path], object]) -> Callable[[Path], object]:
    """The attempt on a machine with 64 MiB of free memory."""

    def on_small_machine(folder: Path) -> object:
        with mock.patch("ppl_vae.memory.free", return_value=2**26):
            return attempt(folder)

    return on_small_machine


def archive(**members: bytes) -> Callable[[Path], object]:
    """A zip archive of these .npy files."""

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as file:
            for name, content in members.items():
                file.writestr(f"{name}.npy", content)

    return write


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A gray PNG that declares this size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def image(path: Path, size: tuple[int, int] = (5, 4), mode: str = "L") -> None:
    from PIL import Image

    Image.new(mode, size).save(path)


def two_images(path: Path) -> None:
    image(path)
    image(path.with_name("b.png"), (4, 5))


def cut_image(path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])


def gray_16_bit(path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.full((4, 4), 60000, np.uint16)).save(path)


def loop(path: Path) -> None:
    path.symlink_to(path)


def dangling(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def linked(path: Path) -> None:
    """A link to a good file elsewhere is the user's own."""
    np.save(path.with_suffix(".elsewhere.npy"), REALS)
    path.symlink_to(path.with_suffix(".elsewhere.npy"))


def saved(array: Any) -> Callable[[Path], object]:
    return lambda path: np.save(path, array, allow_pickle=True)


def shortened(write: Callable[[Path], object], by: int) -> Callable[[Path], object]:
    return lambda path: (write(path), path.write_bytes(path.read_bytes()[:-by]))


def parquet_bomb(path: Path) -> None:
    """A few kilobytes that declare 256 MiB: runs of one value."""
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table({f"c{i}": pa.array(np.zeros(2**20)) for i in range(8)})
    with parquet.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for _ in range(4):
            writer.write_table(table)


def laughs(levels: int = 40) -> str:
    """A YAML document whose anchors stand for 2^levels words."""
    lines = ["a0: &a0 [ha, ha]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, levels))]
    return "\n".join([*lines, f"class_path: VAE\ninit_args: {{latent_dim: *a{levels - 1}}}"])


# --- programs of users whose shapes do not fit ----------------------------------------------------------------------------


class Unfolded(Elementwise):
    """A prior's module that leaves its dimensions in the batch shape."""

    def forward(self) -> Any:
        return self.family(**dict(self.named_buffers()))


def prior_of(shape: tuple[int, ...], module: Any = Elementwise) -> pv.Prior:
    """A user's own prior whose built module has this shape, whatever was asked for."""

    class Mine(pv.StandardNormal):
        def build(self, _: tuple[int, ...]) -> Any:
            return module(dist.Normal, loc=torch.zeros(shape), scale=torch.ones(shape))

    return Mine()


def decoder_of(shape: tuple[int, ...]) -> pv.Network:
    """A user's own network that gives results of this shape, whatever was asked for."""

    class Mine(pv.MLP):
        def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> Any:
            return pv.MLP(hidden=()).build(in_shape, shape)

    return Mine()


class Narrow(torch.nn.Module):
    """A network for three inputs and no other number."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 12)

    def forward(self, z: Tensor) -> Tensor:
        return self.layer(z).unflatten(-1, (1, 1, 3, 4))


def narrow_decoder() -> pv.Network:
    class Mine(pv.MLP):
        def build(self, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> Any:
            return Narrow()

    return Mine()


def plain(model_event: int = 1, guide_event: int = 1, guide_dim: int = 2, x_event: int = 1, cut: int = 0) -> Any:
    """A plain Pyro pair of rows of reals; the numbers say how many dimensions each site folds into its event."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", N, subsample=x):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).expand((len(x), 2)).to_event(model_event))
            mean = (z.sum(-1, keepdim=True) * torch.ones(x.shape[-1] - cut)).reshape(len(x), -1)
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(x_event), obs=x)

    def guide(x: Tensor) -> None:
        loc = pyro.param("loc", lambda: torch.zeros(guide_dim))
        with pyro.plate("data", N, subsample=x):
            pyro.sample("z", dist.Normal(loc, 1.0).expand((len(x), guide_dim)).to_event(guide_event))

    data = pv.load_data(torch.from_numpy(REALS), **WHOLE)
    return lambda folder: pv.fit(model, data, guide=guide, method=pv.SVI(epochs=1, batch_size=16), device="cpu")


def no_plate(x: Tensor) -> None:
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z, 1.0).expand(x.shape).to_event(2), obs=x)


def one_latent(x: Tensor) -> None:
    pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))


# --- the table ------------------------------------------------------------------------------------------------------------

constant = np.where(np.arange(REALS.shape[1]) % 3 == 0, 7.0, REALS)
masked = np.ma.masked_array(REALS, mask=REALS > 2)
wide = np.random.default_rng(0).normal(size=(6, 50))
counts = rows("count", N)

CASES: dict[str, BadInput] = {
    # arrays: dtype
    "objects": BadInput(load(np.array([[{}, []]], dtype=object)), "booleans or dates in column '0', got dict"),
    "complex": BadInput(load(REALS.astype(complex)), "real numbers, got an array of dtype complex128"),
    "text": BadInput(load(np.array(["a", "b"])), "real numbers, got an array of dtype <U1"),
    "rows of text": BadInput(load(np.array([["a", "b"]])), FINE),
    "dates": BadInput(
        load(np.array([["2020-01-01"]], dtype="datetime64[D]")), "real numbers, got an array of dtype datetime64"
    ),
    "a record array": BadInput(load(np.zeros(9, dtype=[("a", float)])), "real numbers, got an array of dtype"),
    "a dictionary": BadInput(load({"a b": REALS}), "fields called as arguments of a program, got the name 'a b'"),
    "a dictionary of one field": BadInput(load({"x": REALS}), FINE),
    "a number": BadInput(load(3), "at least one row"),
    "nothing": BadInput(load(None), "expected"),
    "a set": BadInput(load({1.0, 2.0}), "expected"),
    "a generator": BadInput(load(row for row in REALS), "expected"),
    "bytes": BadInput(load(b"digits"), "expected"),
    "half precision": BadInput(load(torch.from_numpy(REALS).bfloat16()), FINE),
    "a tensor with a gradient": BadInput(load(torch.from_numpy(REALS).requires_grad_()), FINE),
    "a sparse tensor": BadInput(load(torch.eye(9).to_sparse()), "one dense array"),
    "a meta tensor": BadInput(load(torch.empty(9, 2, device="meta")), "one dense array"),
    "masked entries": BadInput(load(masked), "complete data, got NaN in"),
    # arrays: shape
    "ragged": BadInput(load([[1.0, 2.0], [3.0]]), "every row of one shape"),
    "no rows": BadInput(load(REALS[:0]), "at least one row"),
    "no columns": BadInput(load(REALS[:, :0]), "at least one row of at least one value"),
    "one row": BadInput(load(REALS[:1], valid=0.1, test=0.2), "expected at least 3 rows"),
    "one row, all to train on": BadInput(load(REALS[:1]), FINE),
    "labels of another number": BadInput(load(REALS, y=np.arange(3)), "one label for each of 40 rows"),
    "labels in two columns": BadInput(load(REALS, y=np.zeros((N, 2))), "one label for each of 40 rows, got labels of shape"),
    "labels that are a word": BadInput(load(REALS, y="label"), "one label for each of 40 rows"),
    # arrays: values
    "NaN": BadInput(
        load(np.where(REALS > 2, np.nan, REALS)), r"complete data, got NaN in \d+ entries of \d+ rows, first in row"
    ),
    "all NaN": BadInput(load(np.full((9, 2), np.nan), missing="ignore"), "NaN in 18 entries"),
    "infinite": BadInput(load(np.where(REALS > 2, np.inf, REALS)), r"finite values, got inf in \d+ entries"),
    "beyond float32": BadInput(load(np.full((9, 2), 1e300)), "fit float32, got 1e"),
    "beyond int32": BadInput(load(np.full((9, 2), 2**40)), FINE),
    "beyond int64": BadInput(load(np.full((9, 2), 2**63, dtype=np.uint64)), "fit int64, got 9223372036854775808"),
    "beyond any integer": BadInput(load([[10**30, 1], [2, 3]]), "expected"),
    "squares beyond float32": BadInput(load(1e30 * REALS, scale="standardize"), FINE),
    "a spread below float32": BadInput(load(1e-30 * REALS, scale="standardize"), FINE),
    "labels that are missing": BadInput(load(REALS, y=np.where(np.arange(N) > 5, np.nan, 1)), FINE),
    "labels that are fractions": BadInput(load(REALS, y=REALS[:, 0]), "integers or strings"),
    "labels that are objects": BadInput(load(REALS, y=[None] * N), "expected a label in some of 40 rows, got none"),
    "labels that are lists": BadInput(load(REALS, y=[{}] * N), "integers or strings"),
    "a label of None among names": BadInput(load(REALS, y=["a", None] * (N // 2)), FINE),
    "labels of -1 and 1": BadInput(load(REALS, y=[-1, 1] * (N // 2)), "got -1 and 1, .* recode them, or give NaN"),
    # arrays: nothing wrong
    "constant columns": BadInput(load(constant, scale="standardize"), FINE),
    "nothing but a constant": BadInput(load(np.full((9, 2), 3.0), scale="unit"), FINE),
    "not contiguous": BadInput(load(np.asfortranarray(REALS)[::-2, ::3]), FINE),
    "read-only": BadInput(load(np.broadcast_to(np.arange(4.0), (9, 4))), FINE),
    "big-endian": BadInput(load(REALS.astype(">f8")), FINE),
    "channels last": BadInput(load(np.moveaxis(np.repeat(IMAGES, 3, axis=1), 1, 3)), FINE),
    "lists": BadInput(load([[1.0, 2.0], [3.0, 4.0]]), FINE),
    # declarations of data
    "unknown set": BadInput(load("mnits"), "did you mean 'mnist'"),
    "no such file": BadInput(load("data/none.npy"), "does not exist"),
    "unknown option": BadInput(load(REALS, binarise="none"), "options among source, binarize"),
    "unknown kind": BadInput(load(REALS, kind="gray"), "kind: one of None, binary"),
    "a fraction of text": BadInput(load(REALS, valid="0.1"), "expected valid: .*got '0.1'"),
    "a fraction of NaN": BadInput(load(REALS, test=float("nan")), r"a fraction in \[0, 1\), got nan"),
    "nothing to train on": BadInput(load(REALS, valid=0.5, test=0.5), "leave rows to train on"),
    "a seed of a fraction": BadInput(load(REALS, seed=1.5), "expected seed: .*got 1.5"),
    "a seed of truth": BadInput(load(REALS, seed=True), "expected seed: .*got True"),
    "a source that is a list": BadInput(lambda folder: pv.DataSource(source=["a.npy"]), "expected source: "),
    "gray as binary": BadInput(load(IMAGES, kind="binary"), "binarize='dynamic'"),
    "negative counts": BadInput(
        load(-rows("count", N), kind="count"), "expected count data, got real data: give integers >= 0"
    ),
    # files: arrays
    "no .npy": BadInput(file("a.npy", b"hello"), "a damaged one"),
    "an empty .npy": BadInput(file("a.npy", b""), "got an empty file"),
    "a cut .npy": BadInput(file("a.npy", shortened(saved(REALS), 9)), "a damaged one"),
    "pickled objects": BadInput(
        file("a.npy", saved(np.array([{}, []], dtype=object))), "pickled objects, which are not loaded"
    ),
    "a header of code": BadInput(file("a.npy", npy("__import__('os').system('touch here')")), "a damaged one"),
    "a header of petabytes": BadInput(file("a.npy", npy(array_header("(1000000000000, 1000)"), bytes(800))), "a damaged one"),
    "a header of gigabytes": BadInput(file("a.npy", npy(array_header("(3, 1000000000)"), bytes(800))), "a damaged one"),
    "a header of negative sizes": BadInput(file("a.npy", npy(array_header("(-5, 3)"), bytes(800))), "a damaged one"),
    "a header of overflow": BadInput(file("a.npy", npy(array_header(f"({2**62}, {2**62})"), bytes(800))), "a damaged one"),
    "a header streamed": BadInput(
        file("a.npy", npy(array_header("(1000000000000, 1000)"), bytes(800)), stream=1), "a damaged one"
    ),
    "a deep header": BadInput(file("a.npy", npy("(" * 9000 + ")" * 9000)), "a damaged one"),
    "files of two shapes": BadInput(
        file("d/a.npy", lambda path: (np.save(path, REALS), np.save(path.with_name("b.npy"), REALS[:, 1:]))),
        "files of one dtype",
    ),
    "a link to itself": BadInput(file("a.npy", loop), "does not exist|a damaged one|cannot be read"),
    "a link to nowhere": BadInput(file("a.npy", dangling), "does not exist"),
    "a link to a file": BadInput(file("a.npy", linked), FINE),
    "a pipe": BadInput(file("a.npy", os.mkfifo), "expected a file or a folder"),
    "a pipe in a folder": BadInput(file("d/a.npy", os.mkfifo), "expected"),
    "a folder called .npy": BadInput(file("d/a.npy", Path.mkdir), "expected"),
    "a .npy without permission": BadInput(denied(file("a.npy", saved(REALS)), ".npy"), "cannot be read: .*denied.*permissions"),
    "a .npz without permission": BadInput(
        denied(file("a.npz", lambda path: np.savez(path, x=REALS)), ".npz"), "cannot be read: .*denied.*permissions"
    ),
    "a .csv without permission": BadInput(
        denied(file("a.csv", lambda path: path.write_text("1,2\n")), ".csv"), "cannot be read: .*denied.*permissions"
    ),
    "a name that is too long": BadInput(load(f"{'a' * 300}.npy"), "File name too long.*check the path"),
    "a home that is not there": BadInput(load("~nouser/a.npy"), "'~nouser/a.npy', whose home folder is not known"),
    "a root that is not there": BadInput(load("mnist", root="~nouser"), "'~nouser', whose home folder is not known"),
    # files: archives
    "no .npz": BadInput(file("a.npz", b"PK\x03\x04 broken"), "a damaged one"),
    "a cut .npz": BadInput(file("a.npz", shortened(lambda path: np.savez(path, x=REALS), 40)), "a damaged one"),
    "an .npz of nothing": BadInput(file("a.npz", archive()), "got none: name one with key="),
    "an .npz of two": BadInput(file("a.npz", lambda path: np.savez(path, a=REALS, b=REALS)), "got a, b: name one with key="),
    "a key that is not there": BadInput(file("a.npz", lambda path: np.savez(path, a=REALS), key="c"), "arrays a, got 'c'"),
    "an .npz of labels of text objects": BadInput(
        file("a.npz", lambda path: np.savez(path, x=REALS, y=np.array(["a", {}] * 20, dtype=object))), "pickled objects"
    ),
    "a zip bomb": BadInput(small_memory(file("a.npz", zip_of_zeros)), "at most 0.0625 GiB.*got 0.25 GiB"),
    "an archive that lies about its size": BadInput(file("a.npz", zip_that_lies), "a damaged one"),
    "a member that lies about its shape": BadInput(
        file("a.npz", archive(x=npy(array_header("(1000000000000, 1000)"), bytes(800)))), "a damaged one"
    ),
    # files: tables
    "a .csv of another encoding": BadInput(file("a.csv", "größe,b\n1,2\n".encode("latin1")), "expected UTF-8 text"),
    "a .csv of UTF-16": BadInput(file("a.csv", "a,b\n1,2\n".encode("utf-16")), "expected UTF-8 text"),
    "a .csv with zero bytes": BadInput(file("a.csv", b"a,b\n1,\0\n2,3\n"), "expected text without zero bytes"),
    "a .csv of one long cell": BadInput(file("a.csv", b"1" * 200_000), "a damaged one|fit float32"),
    "a .csv of lines of different lengths": BadInput(file("a.csv", b"1,2\n3\n"), "2 cells in line 2"),
    "a .csv of names": BadInput(file("a.csv", b"a,b\n"), "rows of data, got none"),
    "a .csv of words": BadInput(file("a.csv", b"a,b\n1,red\n3,4\n"), "numbers in column 'b', got 'red'"),
    "a .csv with a column of words": BadInput(file("a.csv", b"a,b\n1,red\n"), FINE),
    "a .csv by semicolons": BadInput(file("a.csv", b"a;b\n1;2\n"), FINE),
    "a .csv with an open quote": BadInput(
        file("a.csv", b'a,b\n1,"2\n3,4\n'), "expected 2 cells|a damaged one|expected numbers"
    ),
    "a .csv beyond float32": BadInput(file("a.csv", b"a,b\n1,1e400\n"), "finite values, got inf"),
    "a label that is no column": BadInput(file("a.csv", b"a,b\n1,2\n", label="c"), "among a, b, got 'c'"),
    "a row without a label": BadInput(file("a.csv", b"a,b\n1,\n2,u\n", label="b"), FINE),
    "no row with a label": BadInput(file("a.csv", b"a,b\n1,\n2,NA\n", label="b"), "a label in some of 2 rows"),
    "no .parquet": BadInput(file("a.parquet", b"PAR1"), "a damaged one"),
    "a .parquet that unpacks to more than memory": BadInput(
        small_memory(file("a.parquet", parquet_bomb)), "at most 0.0625 GiB.*got 0.25 GiB"
    ),
    # files: images
    "no image": BadInput(file("d/a.png", b"hello"), "a damaged one"),
    "a cut image": BadInput(file("d/a.png", cut_image), "a damaged one"),
    "images of two sizes": BadInput(file("d/a.png", two_images), "images of one size"),
    "an image of 16 bits": BadInput(file("d/a.png", gray_16_bit), "8 bits a channel"),
    "an image of gigapixels": BadInput(file("d/a.png", png(100_000, 100_000)), "expected .* at most"),
    "an image of too few pixels": BadInput(file("d/a.png", png(50, 50, bytes(100))), "a damaged one"),
    "a folder of other files": BadInput(file("d/a.txt", b"hello"), "expected images"),
    "an image that is a folder": BadInput(file("d/a.png", Path.mkdir), "expected images"),
    "a suffix that is unknown": BadInput(file("a.xlsx", b"1"), ".npy, .npz, .csv, .parquet"),
    # YAML
    "YAML that is none": BadInput(declared("a: [", pv.Model), "not valid YAML"),
    "YAML of another encoding": BadInput(declared("class_path: VAE # größe".encode("latin1")), "expected UTF-8 text"),
    "YAML with a zero byte": BadInput(declared("class_path: V\0AE"), "not valid YAML"),
    "YAML with a tag": BadInput(declared("!!python/object/apply:os.getcwd []"), "not valid YAML"),
    "YAML of two documents": BadInput(declared("class_path: VAE\n---\nclass_path: VAE\n"), "not valid YAML"),
    "a billion laughs": BadInput(declared(laughs()), "expected .*YAML"),
    "a cycle": BadInput(declared("class_path: VAE\ninit_args: &a {prior: *a}"), "expected .*YAML"),
    "a cycle of lists": BadInput(declared("&a [*a]"), "expected .*YAML"),
    "an anchor used once more": BadInput(
        declared("class_path: VAE\ninit_args: {decoder: &net {class_path: MLP, init_args: {hidden: [5]}}, latent_dim: 2}"), FINE
    ),
    "deep YAML": BadInput(declared("[" * 20_000), "not valid YAML|expected .*YAML"),
    "deep YAML that ends": BadInput(declared("[" * 5000 + "]" * 5000), "expected .*YAML"),
    "a key twice": BadInput(declared("class_path: VAE\ninit_args: {latent_dim: 2, latent_dim: 3}"), "'latent_dim' .*twice"),
    "an unknown key": BadInput(declared("class_path: VAE\ninit_args: {latent: 3}"), "'latent' is not accepted"),
    "a key that is a list": BadInput(declared("? [a, b]\n: 3\n"), "not valid YAML|expected"),
    "keys that are numbers": BadInput(declared("class_path: VAE\ninit_args: {3: 4}"), "3"),
    "a class of another family": BadInput(declared("class_path: StandardNormal"), "unknown Model 'StandardNormal'"),
    "NaN for a number": BadInput(declared("class_path: Gaussian\ninit_args: {value: .nan}", pv.Likelihood), "got nan"),
    "a date for a number": BadInput(declared("class_path: VAE\ninit_args: {latent_dim: 2020-01-01}"), "int"),
    "bytes for a number": BadInput(declared("class_path: VAE\ninit_args: {latent_dim: !!binary aGk=}"), "int"),
    "an integer of a million digits": BadInput(
        declared("class_path: VAE\ninit_args: {latent_dim: " + "9" * 10**6 + "}"), "not valid YAML|expected"
    ),
    "a YAML folder": BadInput(lambda folder: pv.Model.from_yaml(folder), "cannot be read|expected"),
    "no YAML file": BadInput(lambda folder: pv.Model.from_yaml(folder / "none.yaml"), "none.yaml"),
    # declarations
    "no latent dimension": BadInput(lambda folder: pv.VAE(latent_dim=0), "a latent_dim of at least 1, got 0"),
    "half a latent dimension": BadInput(lambda folder: pv.VAE(latent_dim=2.5), "expected latent_dim: int, got 2.5"),
    "a latent dimension of text": BadInput(lambda folder: pv.VAE(latent_dim="2"), "expected latent_dim: int, got '2'"),
    "a latent dimension of truth": BadInput(lambda folder: pv.VAE(latent_dim=True), "expected latent_dim: int, got True"),
    "a latent dimension of numpy": BadInput(lambda folder: pv.VAE(latent_dim=np.int64(2)).to_yaml(), FINE),
    "a class for a prior": BadInput(lambda folder: pv.VAE(prior=pv.StandardNormal), "expected prior: Prior"),
    "a name for a prior": BadInput(lambda folder: pv.VAE(prior="StandardNormal"), "expected prior: Prior"),
    "a width of zero": BadInput(lambda folder: pv.MLP(hidden=(0,)), "hidden widths of at least 1"),
    "a width that is no list": BadInput(lambda folder: pv.MLP(hidden=5), "expected hidden: "),
    "widths of text": BadInput(lambda folder: pv.MLP(hidden="5"), "expected hidden: "),
    "a learning rate of text": BadInput(lambda folder: pv.SVI(learning_rate="1e-3"), "expected learning_rate: .*got '1e-3'"),
    "a learning rate of NaN": BadInput(lambda folder: pv.SVI(learning_rate=float("nan")), "positive learning_rate, got nan"),
    "a clip_norm of NaN": BadInput(lambda folder: pv.SVI(clip_norm=float("nan")), "positive clip_norm, got nan"),
    "half an epoch": BadInput(lambda folder: pv.SVI(epochs=0.5), "expected epochs: int, got 0.5"),
    "no batch": BadInput(lambda folder: pv.SVI(batch_size=0), "a batch_size of at least 1"),
    "a tolerance of NaN": BadInput(lambda folder: pv.EM(tolerance=float("nan")), "got nan"),
    "a declaration within itself": BadInput(
        lambda folder: pv.Masked(likelihood=pv.Masked()), "a likelihood of independent elements"
    ),
    # fits
    "a batch larger than the data": BadInput(fit(method=pv.SVI(epochs=1, batch_size=10**6)), FINE),
    "fewer data than dimensions": BadInput(
        fit(wide, model=pv.FactorAnalysis(latent_dim=2), method=pv.EM(max_iterations=5)), FINE
    ),
    "constant columns under EM": BadInput(
        fit(constant, model=pv.FactorAnalysis(latent_dim=2), method=pv.EM(max_iterations=5)), FINE
    ),
    "more factors than columns": BadInput(
        fit(REALS, model=pv.FactorAnalysis(latent_dim=50), method=pv.EM()), "expected|latent_dim|at most"
    ),
    "more components than rows": BadInput(fit(wide, model=pv.GMM(components=30), method=pv.EM()), "distinct"),
    "gray pixels under Bernoulli": BadInput(fit(IMAGES), r"binarize the data \(binarize='dynamic'\)"),
    "negative counts under Poisson": BadInput(
        fit(-counts, likelihood=pv.Poisson()), "a likelihood of count data, but these data"
    ),
    "counts above the total": BadInput(fit(counts, likelihood=pv.Binomial(total=3)), "in the support"),
    "zeros under an open interval": BadInput(fit(IMAGES, likelihood=pv.Beta(margin=0.0)), "in the support"),
    "missing entries under SVI": BadInput(
        fit(lambda: pv.load_data(np.where(REALS > 1, np.nan, REALS), missing="ignore"), likelihood=pv.Gaussian()),
        "likelihood of complete data",
    ),
    "labels that are missing to a conditional model": BadInput(
        fit(model=pv.CVAE(latent_dim=2)), "labelled data.*give them to load_data"
    ),
    "a prior of another number of dimensions": BadInput(fit(prior=pv.Normal(loc=(0.0, 0.0, 0.0))), "expected one loc or 2"),
    "a column that is not there": BadInput(
        fit(REALS, likelihood=pv.MixedTable(groups=(pv.ColumnGroup(columns=(99,)), pv.ColumnGroup()))),
        "the columns 0 to 11 once",
    ),
    "convolutions on a table": BadInput(
        fit(REALS, likelihood=pv.Gaussian(), decoder=pv.Conv(channels=(4,))), "channels, height"
    ),
    "a model that no memory holds": BadInput(fit(latent_dim=10**12), "at most .*GiB"),
    "a layer that no memory holds": BadInput(fit(decoder=pv.MLP(hidden=(10**6, 10**6))), "at most .*GiB"),
    "a class for a model": BadInput(fit(model=pv.VAE), "VAE()"),
    "a name for a model": BadInput(fit(model="VAE"), "expected a .*model"),
    "a class for a method": BadInput(fit(method=pv.SVI), "expected a .*method"),
    "a name for a method": BadInput(fit(method="SVI"), "expected a .*method"),
    "a class for a guide": BadInput(fit(guide=pv.AmortizedNormal), "AmortizedNormal()"),
    "a device that is not there": BadInput(
        lambda folder: pv.fit(pv.VAE(), BINARY, device="nope"), "the device 'nope' does not work here"
    ),
    "data of nothing": BadInput(lambda folder: pv.fit(pv.VAE(), None), "expected"),
    # programs of users whose shapes do not fit
    "a prior of another shape": BadInput(fit(prior=prior_of((5,))), r"site 'z'.*\(5,\).*\(\d+, 2\)"),
    "a prior without an event": BadInput(fit(prior=prior_of((2,), Unfolded)), r"site 'z'.*to_event"),
    "a decoder of another shape": BadInput(fit(decoder=decoder_of((1, 1, 3, 5))), r"site 'x'.*\(1, 3, 5\).*\(\d+, 1, 3, 4\)"),
    "a decoder of too few features": BadInput(
        fit(likelihood=pv.Gaussian(scale="amortized"), decoder=decoder_of((1, 1, 3, 4))), "after the site 'z'"
    ),
    "a decoder of other inputs": BadInput(fit(decoder=narrow_decoder()), r"after the site 'z'.*\(\d+, 2\)"),
    "a model's site without an event": BadInput(plain(model_event=0), r"site 'z'.*to_event"),
    "a guide's site without an event": BadInput(plain(guide_event=0), r"site 'z'.*to_event"),
    "a guide of other dimensions": BadInput(plain(guide_dim=3), r"site 'z'.*\(2,\).*\(\d+, 3\)"),
    "an observation without an event": BadInput(plain(x_event=0), r"site 'x'.*to_event"),
    "an observation of other columns": BadInput(plain(cut=1), r"site 'x'.*\(11,\).*\(\d+, 12\)"),
    "no plate": BadInput(fit(REALS, model=no_plate, guide=one_latent), "no observed site stands in a pyro.plate"),
    "a declared model and a plain guide": BadInput(fit(guide=one_latent), "a declared model goes with a declared guide"),
    # fits that are asked
    "data of another shape": BadInput(
        ask(lambda fit: fit.evaluate(torch.zeros(5, 12))), r"shape \(n, 1, 3, 4\), got \(5, 12\)"
    ),
    "channels in another order": BadInput(ask(lambda fit: fit.encode(torch.zeros(5, 3, 4, 1))), r"shape \(n, 1, 3, 4\), got"),
    "one datum without its axis": BadInput(ask(lambda fit: fit.encode(torch.zeros(1, 3, 4))), r"shape \(n, 1, 3, 4\), got"),
    "no data": BadInput(ask(lambda fit: fit.evaluate(BINARY[:0])), "at least one datum"),
    "values of another kind": BadInput(ask(lambda fit: fit.evaluate(rows("real"))), "binary values as the model sees them"),
    "NaN to encode": BadInput(ask(lambda fit: fit.encode(torch.full((2, 1, 3, 4), float("nan")))), "expected finite values"),
    "a numpy array": BadInput(ask(lambda fit: fit.evaluate(BINARY.numpy())), FINE),
    "a path of nothing": BadInput(ask(lambda fit: fit.evaluate("data.npz")), "expected a file or a folder"),
    "codes of another size": BadInput(ask(lambda fit: fit.decode(torch.zeros(5, 3))), r"codes of shape \(..., 2\)"),
    "codes that are integers": BadInput(ask(lambda fit: fit.decode(torch.zeros(5, 2, dtype=torch.int64))), FINE),
    "no draws": BadInput(ask(lambda fit: fit.sample(0)), "at least 1 datum"),
    "half a draw": BadInput(ask(lambda fit: fit.sample(2.5)), "got n = 2.5"),
    "more draws than memory holds": BadInput(ask(lambda fit: fit.sample(10**12)), "memory|at most"),
    "labels of a model without": BadInput(ask(lambda fit: fit.sample(3, y=1)), "conditioned on nothing"),
    "a seed that is negative": BadInput(ask(lambda fit: fit.sample(3, seed=-1)), "expected a seed of 0"),
    "codes of double precision": BadInput(ask(lambda fit: fit.decode(torch.zeros(5, 2, dtype=torch.float64))), FINE),
    "codes in an array": BadInput(ask(lambda fit: fit.decode(np.zeros((5, 2)))), FINE),
    "codes in lists": BadInput(ask(lambda fit: fit.decode([[0, 1], [2, 3]])), FINE),
    "codes of nothing": BadInput(ask(lambda fit: fit.decode(None)), "latent codes as real numbers, got NoneType"),
    "codes of text": BadInput(ask(lambda fit: fit.decode("z")), "latent codes as real numbers, got str"),
    "codes that are ragged": BadInput(ask(lambda fit: fit.decode([[0, 1], [2]])), "latent codes as one dense array"),
    "codes that are complex": BadInput(
        ask(lambda fit: fit.decode(torch.zeros(5, 2) * 1j)), "codes as one dense tensor of real"
    ),
    "codes that are sparse": BadInput(ask(lambda fit: fit.decode(torch.eye(2).to_sparse())), "codes as one dense tensor"),
    "codes on the meta device": BadInput(ask(lambda fit: fit.decode(torch.ones(2, 2, device="meta"))), "codes as one dense"),
    "codes of NaN": BadInput(ask(lambda fit: fit.decode(torch.full((5, 2), float("nan")))), "finite latent codes"),
    "a number to encode": BadInput(ask(lambda fit: fit.encode(torch.tensor(1.0))), r"shape \(n, 1, 3, 4\), got \(\)"),
    "a sparse tensor to encode": BadInput(ask(lambda fit: fit.encode(BINARY.to_sparse())), "data as one dense tensor"),
    "a meta tensor to reconstruct": BadInput(
        ask(lambda fit: fit.reconstruct(torch.ones(5, 1, 3, 4, device="meta"))), "data as one dense tensor"
    ),
    "complex data for a posterior": BadInput(ask(lambda fit: fit.posterior(BINARY * 1j)), "data as one dense tensor of real"),
    "tensors to probe": BadInput(
        ask(lambda fit: fit.probe(BINARY, BINARY)), "two splits, frames or paths of rows with labels, got Tensor"
    ),
    "draws in numpy's numbers": BadInput(ask(lambda fit: fit.sample(np.int64(3), seed=np.int64(1))), FINE),
    "posterior draws in numpy's numbers": BadInput(ask(lambda fit: fit.encode(BINARY, samples=np.int64(2))), FINE),
    "draws of truth": BadInput(ask(lambda fit: fit.sample(True)), "a whole number, got n = True"),
    "draws of text": BadInput(ask(lambda fit: fit.sample("3")), "a whole number, got n = '3'"),
    "half a posterior draw": BadInput(ask(lambda fit: fit.encode(BINARY, samples=2.5)), "a whole number, got samples = 2.5"),
    "posterior draws of truth": BadInput(ask(lambda fit: fit.encode(BINARY, samples=True)), "got samples = True"),
    "samples of text": BadInput(ask(lambda fit: fit.evaluate(BINARY, samples="3")), "a whole number, got samples = '3'"),
    "samples of nothing": BadInput(ask(lambda fit: fit.evaluate(BINARY, samples=None)), "got samples = None"),
    "half a limit": BadInput(ask(lambda fit: fit.evaluate(BINARY, limit=2.5)), "a whole number, got limit = 2.5"),
    "half a row": BadInput(ask(lambda fit: fit.latents(BINARY, rows=2.5)), "a whole number, got rows = 2.5"),
    "samples of truth": BadInput(ask(lambda fit: fit.latents(BINARY, samples=True)), "got samples = True"),
    "a seed of text": BadInput(ask(lambda fit: fit.sample(3, seed="a")), "a whole number, got seed = 'a'"),
    "a seed of nothing": BadInput(ask(lambda fit: fit.evaluate(BINARY, seed=None)), "got seed = None"),
    "half a seed": BadInput(ask(lambda fit: fit.encode(BINARY, samples=1, seed=1.5)), "got seed = 1.5"),
    "classes of a model without": BadInput(ask(lambda fit: fit.by_class(2)), "conditioned on labels, such as CVAE"),
    "a class out of range": BadInput(lambda folder: conditional().sample(3, y=7), "expected classes of 0, 1, got 7"),
    # arguments of calls
    "an object for a device": BadInput(fit_with(device=object()), "expected a device such as 'cpu'"),
    "a list for a device": BadInput(fit_with(device=["cpu"]), "expected a device such as 'cpu'"),
    "the meta device": BadInput(fit_with(device="meta"), "expected a device such as 'cpu' .*got 'meta'"),
    "a number for progress": BadInput(fit_with(progress=3), "a function of a row for progress, got 3"),
    "a number to track": BadInput(fit_with(track=3), "a list of names to track, .*got 3"),
    "numbers to track": BadInput(fit_with(track=[3]), r"a list of names to track, .*got \[3\]"),
    "a name to track": BadInput(fit_with(track="active_units"), r"such as \['active_units'\], got 'active_units'"),
    "a number for loggers": BadInput(fit_with(loggers=3), "a list of loggers, got 3"),
    "a function as a logger": BadInput(fit_with(loggers=[print]), "a list of loggers, such as .*got <built-in function print>"),
    "a class as a callback": BadInput(fit_with(callbacks=[pv.Callback]), "a list of callbacks, .*got <class"),
    "a word for a warm start": BadInput(fit_with(warm_start="x"), "an earlier fit for warm_start, got 'x'"),
    "a number for a run folder": BadInput(fit_with(out=3), "a run folder for out, got 3"),
    "truth for a run folder": BadInput(fit_with(out=True), "a run folder for out, got True"),
    "a list for a run folder": BadInput(fit_with(out=[]), r"a run folder for out, got \[\]"),
    "a latent dimension beyond 64 bits": BadInput(
        lambda folder: pv.fit(pv.VAE(latent_dim=10**26), BINARY, device="cpu"), "sizes that memory holds"
    ),
    "no path of a run": BadInput(lambda folder: pv.load_run(None), "the path of a folder, got None"),
    "a number for a run": BadInput(lambda folder: pv.resume_run(3), "the path of a folder, got 3"),
    "a number to trust": BadInput(lambda folder: pv.load_run(folder, trust=3), "trust as a list of names, got 3"),
    "a run with a long name": BadInput(lambda folder: pv.load_run(folder / ("a" * 300)), "File name too long.*check the path"),
    "a number for a run to report": BadInput(lambda folder: report(3), "the path of a folder, got 3"),
    "a number of methods": BadInput(compared(methods=3), "methods as a list, .*got 3"),
    "names of methods": BadInput(compared(methods=["EM"]), "a declared method, got 'EM'"),
    "classes of methods": BadInput(compared(methods=[pv.EM]), r"write EM\(\)"),
    "one method": BadInput(compared(methods=pv.EM()), "methods as a list, .*got EM"),
    "a number of guides": BadInput(compared(guides=3), "guides as a list, .*got 3"),
    "half a seed to compare": BadInput(compared(seeds=1.5), "a whole number, got seeds = 1.5"),
    "weights that are damaged": BadInput(damaged_weights, "is not a whole run"),
    # the command line
    "cli: no such data": BadInput(verb("fit", "--data", "nope.npy", "--out", "out"), "'nope.npy', which does not exist"),
    "cli: damaged data": BadInput(verb("fit", "--data", "a.npy", "--out", "out", a_npy=b"hello"), "a damaged one"),
    "cli: NaN": BadInput(
        verb("fit", "--data", "a.npy", "--out", "out", a_npy=saved(np.full((9, 2), np.nan))), "complete data, got NaN in 18"
    ),
    "cli: no latent dimension": BadInput(verb("fit", "--model.latent_dim", "0", "--out", "out"), "at least 1, got 0"),
    "cli: half a latent dimension": BadInput(verb("fit", "--model.latent_dim", "2.5", "--out", "out"), "int"),
    "cli: unknown prior": BadInput(verb("fit", "--model.prior", "Nope", "--out", "out"), "unknown prior 'Nope': choose from"),
    "cli: unknown option": BadInput(verb("fit", "--epochs", "3"), "--epochs"),
    "cli: a billion laughs": BadInput(verb("fit", "--model", "a.yaml", "--out", "out", a_yaml=laughs().encode()), "a.yaml"),
    "cli: deep YAML": BadInput(verb("fit", "--model", "a.yaml", "--out", "out", a_yaml=b"[" * 9000), "a.yaml"),
    "cli: YAML of another encoding": BadInput(
        verb("fit", "--model", "a.yaml", "--out", "out", a_yaml="class_path: VAE # größe".encode("latin1")), "a.yaml"
    ),
    "cli: no run": BadInput(verb("evaluate", "nowhere"), "there is no run in nowhere"),
    "cli: a run that is a file": BadInput(verb("evaluate", "a.npy", a_npy=b"hello"), "there is no run in a.npy"),
    "cli: a latent dimension beyond 64 bits": BadInput(
        verb("fit", "--model.latent_dim", f"1{'0' * 26}", "--out", "out"), "sizes that memory holds"
    ),
    "cli: a home that is not there": BadInput(verb("fit", "--data", "~nouser/a.npy", "--out", "out"), "'~nouser/a.npy'"),
    "cli: a name that is too long": BadInput(verb("evaluate", "a" * 300), "File name too long"),
    "cli: a billion laughs beside the models": BadInput(listed(laughs()), FINE),
    "cli: a cycle beside the models": BadInput(listed("&a [*a]"), FINE),
    "cli: a model that no memory holds": BadInput(verb("fit", "--model.latent_dim", "1000000000000", "--out", "out"), "GiB"),
}


def answer(case: str) -> str | None:
    """What came back: the one line of a refusal, or ``None`` for a result.

    Raises:
        Exception: anything but one ``ValueError`` of one line, and none lost.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            CASES[case].attempt(Path(folder))
        except RefusalError as refusal:
            return str(refusal)
        except ValueError as error:
            if type(error) is not ValueError or "\n" in str(error) or len(str(error)) > LONGEST:
                raise
            return str(error)
    return None


def answered(case: str) -> bool:
    """Whether the input got the answer that it deserves."""
    try:
        return _deserved(case, answer(case))
    except Exception:  # which is what is being counted
        return False


def _deserved(case: str, found: str | None) -> bool:
    expected = CASES[case].message
    return found is None if expected == FINE else found is not None and re.search(expected, found) is not None


def _told(case: str) -> str:
    try:
        found = answer(case)
    except Exception as error:  # which is what is being shown
        return f"BAD  {case} -> {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return f"{'ok ' if _deserved(case, found) else 'BAD'}  {case} -> {found or 'a result'}"


if __name__ == "__main__":
    for name in CASES:
        print(_told(name), flush=True)
