"""Run folders as a hostile stranger could write them: none executes anything, takes much memory, or reads what is elsewhere.

``python -m tests.hostile_runs`` prints every answer.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ppl_vae as pv
from ppl_vae.report import report
from ppl_vae.storage import Checkpointer, RunFolder
from tests.table import TINY, rows

__all__ = ["CASES", "MEMORY", "REPORTS", "STATES", "answer", "answered", "tripwire"]

STATE = RunFolder.SNAPSHOT
MEMORY = 2**30
"""Bytes by which loading may raise the memory that the process has held at once."""

TRIPWIRE = "executed"
STRANGER = (
    f"from pathlib import Path\nPath({TRIPWIRE!r}).touch()\nclass Thing: pass\ndef run(*_, **__): Path({TRIPWIRE!r}).touch()\n"
)
TOUCH = f"touch {TRIPWIRE}"
SECRET = "the user's secret"
LONGEST = 1000
GUIDE = pv.AmortizedNormal(encoder=TINY)


_scratch = tempfile.TemporaryDirectory(prefix="run-")  # goes with the process


@functools.cache
def _saved() -> Path:
    """A good run of a small VAE, in a folder that lives as long as the process."""
    folder = _scratch.name
    data = _data()
    fit = pv.fit(pv.VAE(latent_dim=2, decoder=TINY), data, guide=GUIDE, method=pv.SVI(epochs=1), device="cpu")
    return pv.save_run(fit, data, Path(folder) / "run")


@functools.cache
def _stopped() -> Path:
    """A run that was stopped after its first step, and that :func:`ppl_vae.resume_run` goes on with."""
    run = Path(_scratch.name) / "stopped"
    keeper = Checkpointer(run)
    keeper.asked = signal.SIGTERM
    with contextlib.suppress(pv.Interrupted):
        pv.fit(pv.VAE(latent_dim=2, decoder=TINY), _data(), guide=GUIDE, method=pv.SVI(epochs=1), device="cpu", out=keeper)
    assert (run / STATE).is_file()
    return run


def _data() -> pv.Data:
    return pv.load_data(rows("binary", 40), y=[0, 1] * 20)


# --- writing --------------------------------------------------------------------------------------------------------------


def config(change: Callable[[dict], Any]) -> Callable[[Path], None]:
    """The run with its declaration changed."""

    def write(run: Path) -> None:
        content = yaml.safe_load((run / "config.yaml").read_text())
        change(content)
        (run / "config.yaml").write_text(yaml.safe_dump(content))

    return write


def data(change: Callable[[dict], Any]) -> Callable[[Path], None]:
    """The run with its description of the data changed."""

    def write(run: Path) -> None:
        content = json.loads((run / "data.json").read_text())
        change(content)
        (run / "data.json").write_text(json.dumps(content))

    return write


def weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    """The run with its tensors changed."""

    def write(run: Path) -> None:
        content = {name: tensor.clone() for name, tensor in load_file(run / "model.safetensors").items()}
        change(content)
        save_file(content, run / "model.safetensors")

    return write


def state(change: Callable[[dict[str, torch.Tensor], dict[str, Any]], Any]) -> Callable[[Path], None]:
    """The stopped run with the tensors of its state changed, or what is told beside them: facts, history, strides."""

    def write(run: Path) -> None:
        with safe_open(run / STATE, "pt") as file:
            told = {name: json.loads(value) for name, value in file.metadata().items()}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        change(tensors, told)
        save_file(tensors, run / STATE, {name: v if isinstance(v, str) else json.dumps(v) for name, v in told.items()})

    return write


def facts(**changed: Any) -> Callable[[Path], None]:
    """The stopped run whose state tells other facts."""
    return state(lambda tensors, told: told["facts"].update(changed))


def strides(*numbers: Any) -> Callable[[Path], None]:
    """The stopped run whose weights are to be laid out so."""
    return state(lambda tensors, told: told["strides"].update({LAYER: list(numbers)}))


def text(name: str, content: str | bytes) -> Callable[[Path], object]:
    """The run with one file replaced."""
    return lambda run: (run / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def appended(name: str, content: str) -> Callable[[Path], object]:
    return lambda run: (run / name).write_text((run / name).read_text() + content)


def model(**fields: Any) -> Callable[[Path], None]:
    """The run whose model has these fields."""
    return config(lambda content: content["model"]["init_args"].update(fields))


def thing(path: str) -> dict[str, Any]:
    """A class of a stranger's, with arguments that would do harm in many a function."""
    return {"class_path": path, "init_args": {"args": TOUCH, "command": TOUCH, "cmd": TOUCH, "shell": True}}


def named(path: str, part: str = "prior") -> Callable[[Path], None]:
    """The run that names such a class for a part of its model, or for a part of the run."""
    return config(lambda c: c.update({part: thing(path)}) if part in c else c["model"]["init_args"].update({part: thing(path)}))


def declaring(cls: str, **fields: Any) -> dict[str, Any]:
    return {"class_path": f"ppl_vae.{cls}", "init_args": fields}


def linked(name: str, target: str = "/etc/passwd") -> Callable[[Path], None]:
    """The run in which a file is a link."""

    def write(run: Path) -> None:
        (run / name).unlink()
        (run / name).symlink_to(target)

    return write


def linked_to_sibling(name: str) -> Callable[[Path], None]:
    """The run in which a file is a relative link to the same file outside."""

    def write(run: Path) -> None:
        shutil.move(run / name, run.parent / "elsewhere")
        (run / name).symlink_to(Path("..") / "elsewhere")

    return write


def piped(name: str) -> Callable[[Path], None]:
    def write(run: Path) -> None:
        (run / name).unlink()
        os.mkfifo(run / name)

    return write


def sparse(name: str, size: int) -> Callable[[Path], None]:
    """The run in which a file is that large and takes no space."""

    def write(run: Path) -> None:
        os.truncate(run / name, size)

    return write


def pictures(number: int, size: int) -> Callable[[Path], None]:
    """The run with so many pictures, each that large, which take no space."""

    def write(run: Path) -> None:
        for place in range(number):
            shutil.copy(run / "data.png", run / f"{place}.png")
            os.truncate(run / f"{place}.png", size)

    return write


def header(tensors: dict[str, Any], size: int = 0, length: int | None = None) -> Callable[[Path], None]:
    """The run whose weights are a header and so many zero bytes."""

    def write(run: Path) -> None:
        told = json.dumps(tensors).encode()
        path = run / "model.safetensors"
        path.write_bytes(struct.pack("<Q", len(told) if length is None else length) + told)
        os.truncate(path, path.stat().st_size + size)

    return write


def of_shape(*shape: int, end: int) -> dict[str, Any]:
    return {"pair.model.decoder.layers.0.weight": {"dtype": "F32", "shape": list(shape), "data_offsets": [0, end]}}


def pickled(name: str) -> Callable[[Path], None]:
    """The run in which a file is a pickle that executes."""

    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (TOUCH,)

    return lambda run: torch.save({"pair": Harm()}, run / name)


def beside(write: Callable[[Path], object]) -> Callable[[Path], None]:
    """The run with a stranger's modules in it, where Python finds them."""

    def with_module(run: Path) -> None:
        for name in ("stranger", "torch_extra", "sitecustomize"):
            (run / f"{name}.py").write_text(STRANGER)
        write(run)

    return with_module


def laughs(levels: int = 40) -> str:
    lines = ["a0: &a0 [ha, ha]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, levels))]
    return "\n".join(lines)


LAYER = "pair.model.decoder.layers.0.weight"
WIDE = declaring("MLP", hidden=[10**6, 10**6])

CASES: dict[str, Callable[[Path], object]] = {
    # code
    "os.system": named("os.system"),
    "subprocess": named("subprocess.Popen"),
    "eval": named("builtins.eval"),
    "exec for the model": named("builtins.exec", "model"),
    "a module in the run": beside(named("stranger.Thing")),
    "a module in the run, for the guide": beside(named("stranger.Thing", "guide")),
    "a module in the run, for the method": beside(named("stranger.Thing", "method")),
    "a module in the run, for the data": beside(named("stranger.Thing", "data")),
    "a module in the run, by text": beside(model(prior="stranger.Thing")),
    "a module in the run, by YAML in text": beside(model(prior="{class_path: stranger.Thing}")),
    "a module in the run, for a number": beside(model(latent_dim=thing("stranger.Thing"))),
    "a module in the run, by a dotted key": beside(model(**{"prior.class_path": "stranger.Thing"})),
    "a module in the run, deep inside": beside(
        model(prior=declaring("VampPrior"), likelihood=declaring("Masked", likelihood=thing("stranger.Thing")))
    ),
    "a module in the run, in a list": beside(
        model(likelihood=declaring("MixedTable", groups=[{"columns": [], "likelihood": "stranger.Thing"}]))
    ),
    "a module in the run, beside init_args": beside(config(lambda c: c["model"].update(prior=thing("stranger.Thing")))),
    "a module in the run, by dict_kwargs": beside(
        config(lambda c: c["model"].update(dict_kwargs={"prior": thing("stranger.Thing")}))
    ),
    "a module of ours that imports another": named("ppl_vae.runs.shutil.rmtree"),
    "a function of ours": named("ppl_vae.save_run"),
    "our command line": named("ppl_vae.__main__.main", "model"),
    "the command line's main": named("ppl_vae.cli.main", "model"),
    "a relative import": beside(named(".stranger.Thing")),
    "a dotted path through us": beside(named("ppl_vae..stranger.Thing")),
    "a name that begins like ours": beside(named("ppl_vae_extra.Thing")),
    "a YAML tag": text("config.yaml", f"model: !!python/object/apply:os.system ['{TOUCH}']\n"),
    "a YAML tag of a module": beside(text("config.yaml", "model: !!python/name:stranger.run\n")),
    "a YAML tag of a new object": text("config.yaml", "model: !!python/object/new:os.system [id]\n"),
    "pickled weights": pickled("model.safetensors"),
    "a pickled declaration": pickled("config.yaml"),
    "a pickled history": pickled("history.jsonl"),
    "pickled data": pickled("data.json"),
    "a torch archive beside the weights": lambda run: (pickled("model.pt")(run), (run / "model.safetensors").unlink()),
    # sizes
    "a latent dimension of 10^9": model(latent_dim=10**9),
    "a latent dimension of 10^30": model(latent_dim=10**30),
    "a network of 10^12 weights": model(decoder=WIDE),
    "an encoder of 10^12 weights": config(lambda c: c["guide"]["init_args"].update(encoder=WIDE)),
    "10^5 layers": model(decoder=declaring("MLP", hidden=[1] * 50_000)),
    "a mixture of 10^12 components": model(prior=declaring("GaussianMixture", components=10**12)),
    "10^12 pseudo-inputs": model(prior=declaring("VampPrior", components=10**12)),
    "a grid of 10^9 points": model(prior=declaring("GaussianGrid", points=10**9)),
    "10^9 layers of a flow": model(prior=declaring("SplineFlow", layers=10**9)),
    "a box of 10^11 dimensions": model(latent_dim=10**11, prior=declaring("Uniform")),
    "a covariance of 10^12 entries": model(latent_dim=10**6, prior=declaring("MultivariateNormal")),
    "log-ratios of 10^12 entries": model(latent_dim=10**6, prior=declaring("LogisticNormal")),
    "10^12 levels": data(lambda d: d["spec"].update(kind="categorical", levels=10**12)),
    "data of 10^15 elements": data(lambda d: d["spec"].update(event_shape=[10**5, 10**5, 10**5])),
    "data of 10^9 dimensions": data(lambda d: d["spec"].update(event_shape=[1] * 10**5)),
    "a header of 10^12 numbers": header(of_shape(10**6, 10**6, end=4 * 10**12)),
    "a sparse file of 10^12 numbers": header(of_shape(10**6, 10**6, end=4 * 10**12), size=4 * 10**12),
    "a header of 10^18 bytes": header({}, length=10**18),
    "a header of overlapping tensors": header(
        {"a": of_shape(9, end=36).popitem()[1], "b": of_shape(9, end=36).popitem()[1]}, 36
    ),
    "a header of negative offsets": header(of_shape(3, end=-12)),
    "a header of deep JSON": lambda run: (run / "model.safetensors").write_bytes(struct.pack("<Q", 90_000) + b"[" * 90_000),
    "a sparse declaration of 8 GiB": sparse("config.yaml", 2**33),
    "a sparse history of 8 GiB": sparse("history.jsonl", 2**33),
    "sparse data of 8 GiB": sparse("data.json", 2**33),
    "weights cut short": sparse("model.safetensors", 1000),
    # text
    "a billion laughs": text("config.yaml", laughs()),
    "a cycle": text("config.yaml", "model: &a {class_path: VAE, init_args: {prior: *a}}\n"),
    "deep YAML": text("config.yaml", "[" * 100_000),
    "deep YAML that ends": text("config.yaml", "model: " + "[" * 3000 + "]" * 3000),
    "deep JSON": text("data.json", "[" * 200_000),
    "a deep history": text("history.jsonl", '{"a": ' * 100_000 + "1" + "}" * 100_000),
    "a number of 10^6 digits": text("data.json", '{"spec": {"size": ' + "9" * 10**6 + "}}"),
    "a YAML number of 10^6 digits": text("config.yaml", "model: " + "9" * 10**6),
    "a key twice": appended("config.yaml", "model: {class_path: ppl_vae.VAE}\n"),
    "a key twice in JSON": text("data.json", '{"spec": {}, "spec": {}}'),
    "another encoding": text("config.yaml", "model: größe".encode("latin1")),
    "zero bytes": text("data.json", bytes(1000)),
    "a declaration that is a list": text("config.yaml", "[1, 2]"),
    "a declaration of nothing": text("config.yaml", "null"),
    "parts that are numbers": text("config.yaml", "{model: 1, guide: 2, method: 3, data: 4}"),
    "parts that are dates": text("config.yaml", "{model: 2020-01-01, guide: 2020-01-01, method: 2020-01-01, data: 2020-01-01}"),
    "fields of other types": model(latent_dim=[1], prior=3, likelihood={"a": "b"}),
    # values
    "NaN for a scale": model(prior=declaring("Normal", loc=float("nan"))),
    "infinity for a width": model(likelihood=declaring("Gaussian", value=float("inf"))),
    "NaN for a size": text("data.json", '{"spec": {"event_shape": [1, 3, 4], "kind": "binary", "size": NaN}, "transform": {}}'),
    "NaN in the weights": weights(lambda w: [tensor.fill_(float("nan")) for tensor in w.values()]),
    "NaN in the transform": weights(lambda w: w.update({"transform.loc": torch.tensor(float("nan"))})),
    "a scale of infinity": weights(lambda w: w.update({"transform.scale": torch.tensor(float("inf"))})),
    "weights of other shapes": weights(
        lambda w: w.update({name: tensor[..., :1].clone() for name, tensor in w.items() if tensor.dim()})
    ),
    "weights of other names": weights(lambda w: w.update({"pair.model.__class__": torch.zeros(1)})),
    "no weights": weights(lambda w: w.clear()),
    "complex weights": weights(lambda w: w.update({name: tensor.to(torch.complex64) for name, tensor in w.items()})),
    "a kind that is a list": data(lambda d: d["spec"].update(kind=["binary"])),
    "a shape of truths": data(lambda d: d["spec"].update(event_shape=[True, 3, 4])),
    "classes that are numbers": data(lambda d: d["spec"].update(classes=[1, 2])),
    "columns that are numbers": data(lambda d: d["spec"].update(columns=[1, 2])),
    "columns in another number": data(lambda d: d["spec"].update(columns=["a", "b"])),
    "a transform that is a word": data(lambda d: d.update(transform="none")),
    "noise that is a word": data(lambda d: d["transform"].update(binarize="no")),
    "a history of numbers": text("history.jsonl", "1\n2\n"),
    "no history": text("history.jsonl", ""),
    # paths
    "an identity elsewhere": linked("run.json"),
    "an identity that is a device": linked("run.json", "/dev/zero"),
    "a sparse identity of 8 GiB": sparse("run.json", 2**33),
    "a pickled identity": pickled("run.json"),
    "a deep identity": text("run.json", "[" * 200_000),
    "a format of 4000 digits": text("run.json", '{"format": ' + "9" * 4000 + "}"),
    "a format that is a word": text("run.json", '{"format": "new", "id": "a"}'),
    "a format that is true": text("run.json", '{"format": true, "id": "a"}'),
    "a format below the first": text("run.json", '{"format": -1, "id": "a"}'),
    "no format": text("run.json", '{"id": "a"}'),
    "no id": text("run.json", '{"format": 1}'),
    "an id that is a path": text("run.json", '{"format": 1, "id": "../../secret"}'),
    "an id of markup": text("run.json", '{"format": 1, "id": "<script>"}'),
    "an id of a MiB": text("run.json", '{"format": 1, "id": "' + "a" * 10**6 + '"}'),
    "a declaration elsewhere": linked("config.yaml"),
    "data elsewhere": linked("data.json"),
    "a history elsewhere": linked("history.jsonl"),
    "weights elsewhere": linked_to_sibling("model.safetensors"),
    "a declaration next door": linked_to_sibling("config.yaml"),
    "weights that are a device": linked("model.safetensors", "/dev/zero"),
    "data that are a device": linked("data.json", "/dev/zero"),
    "a history that is itself": linked("history.jsonl", "history.jsonl"),
    "data that are a pipe": piped("data.json"),
    "weights that are a pipe": piped("model.safetensors"),
    "a history that is a pipe": piped("history.jsonl"),
    "a declaration that is a pipe": piped("config.yaml"),
}


STATES: dict[str, Callable[[Path], object]] = {
    "a state that is a pickle": pickled(STATE),
    "a state elsewhere": linked(STATE),
    "a state next door": linked_to_sibling(STATE),
    "a state that is a pipe": piped(STATE),
    "a state cut short": sparse(STATE, 1000),
    "a state of deep JSON": state(lambda tensors, told: told.update(facts="[" * 100_000)),
    "a state that tells nothing": state(lambda tensors, told: told.clear()),
    "facts that are a list": state(lambda tensors, told: told.update(facts=[])),
    "no facts": state(lambda tensors, told: told.update(facts={})),
    "10^6 threads": facts(threads=10**6),
    "no thread": facts(threads=0),
    "an epoch that is a word": facts(epoch="a"),
    "an epoch before the first": facts(epoch=-5),
    "steps of no number": facts(batch_index=None),
    "batches of 10^9 and less than none": facts(sizes=[10**9, -3]),
    "a rate that grows": facts(rate_factor=1e9),
    "a best without an epoch": state(lambda tensors, told: told["facts"].pop("best.epoch")),
    "another number of optimizers": facts(**{"optimizers.1.steps": 1}),
    "steps that were not planned": facts(planned_epochs="many"),
    "a state of a newer ppl_vae": state(lambda tensors, told: told.update(format=10**9)),
    "a best that is a word": facts(**{"best.value": "high"}),
    "a state of before without steps": state(lambda tensors, told: (told.pop("format"), told["facts"].update(steps=3))),
    "seconds that are a word": facts(seconds="long"),
    "rows that are numbers": state(lambda tensors, told: told.update(history=[1, 2])),
    "strides that lead backwards": strides(-5, 1),
    "strides over 10^9 numbers": strides(3 * 10**8, 1),
    "strides that are words": strides("a", "b"),
    "more strides than axes": strides(1, 1, 1),
    "a state without random numbers": state(lambda tensors, told: tensors.pop("random.cpu")),
    "random numbers that are few": state(
        lambda tensors, told: tensors.update({"random.cpu": torch.zeros(3, dtype=torch.uint8)})
    ),
    "a state without a layer": state(lambda tensors, told: tensors.pop(LAYER)),
    "a state of another shape": state(lambda tensors, told: tensors.update({LAYER: torch.zeros(1)})),
    "a state of words": state(lambda tensors, told: tensors.update({"order": torch.zeros(2, dtype=torch.uint8)})),
}
"""Those that :func:`ppl_vae.resume_run` must refuse."""

REPORTS: dict[str, Callable[[Path], object]] = {
    "an environment elsewhere, to report": linked("environment.json", "../secret.json"),
    "numbers elsewhere, to report": linked("metrics.json", "../secret.json"),
    "a history elsewhere, to report": linked("history.jsonl", "../secret.json"),
    "a declaration elsewhere, to report": linked("config.yaml", "../secret.json"),
    "an environment that is a device, to report": linked("environment.json", "/dev/zero"),
    "a picture of 8 GiB, to report": sparse("data.png", 2**33),
    "pictures of 8 GiB together, to report": pictures(600, 2**24 - 1),
    "a sparse environment of 8 GiB, to report": sparse("environment.json", 2**33),
    "a history of 10^7 rows, to report": text("history.jsonl", "{}\n" * 10**7),
    "a history of one long row, to report": text("history.jsonl", '{"a": [' + "[]," * 10**7 + "[]]}"),
    "10^5 columns, to report": text("history.jsonl", json.dumps(dict.fromkeys(map(str, range(10**5)), 1.0)) + "\n"),
    "10^4 numbers of 10^4 splits, to report": text(
        "metrics.json", json.dumps({**{str(i): {} for i in range(10**4)}, "test": dict.fromkeys(map(str, range(10**4)), 1.0)})
    ),
}
"""Those that :func:`ppl_vae.report.report` must refuse."""

CASES |= STATES | REPORTS


@contextlib.contextmanager
def tripwire(write: Callable[[Path], object], saved: Callable[[], Path] = _saved) -> Iterator[Path]:
    """A hostile copy of a good run, with the process standing in it and Python's path leading there first."""
    home, path, modules = Path.cwd(), list(sys.path), set(sys.modules)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(shutil.copytree(saved(), Path(folder) / "run"))
        (Path(folder) / "secret").write_text(SECRET)
        (Path(folder) / "secret.json").write_text(json.dumps({"password": SECRET}))
        write(run)
        os.chdir(run)
        sys.path.insert(0, str(run))
        try:
            yield run
        finally:
            os.chdir(home)
            sys.path[:] = path
            for name in {"stranger", "torch_extra", "ppl_vae_extra"} & (set(sys.modules) - modules):
                del sys.modules[name]


def answer(case: str) -> str:
    """The one line with which a run was refused.

    Raises:
        Exception: it was not, something was executed, or too much memory was taken.
    """
    saved = _stopped if case in STATES else _saved
    saved()
    with tripwire(CASES[case], saved) as run:
        before, imported = _peak(), set(sys.modules)
        try:
            _taken(case, run)
        except ValueError as error:
            told = str(error)
            if type(error) is not ValueError:
                raise
        else:
            raise AssertionError("the run was taken")
        assert not list(run.parent.rglob(TRIPWIRE)), "something was executed"
        assert not {"stranger", "torch_extra", "ppl_vae_extra"} & (set(sys.modules) - imported), "something was imported"
        assert _peak() - before < MEMORY, f"{(_peak() - before) / 2**20:.0f} MiB were taken"
        assert "\n" not in told, "more than one line"
        assert len(told) <= LONGEST, f"{len(told)} characters"
        assert "root:" not in told, "another file was read"
        assert SECRET not in told, "another file was read"
    return told


def _taken(case: str, run: Path) -> None:
    """What is to be refused."""
    if case in STATES:
        pv.resume_run(run, data=_data(), device="cpu")
    elif case in REPORTS:
        report(run)
    else:
        pv.load_run(run, device="cpu")


def answered(case: str) -> bool:
    """Whether the run was refused in one line, with nothing executed and little memory taken."""
    try:
        return bool(answer(case))
    except Exception:  # which is what is being counted
        return False


def _peak() -> int:
    """The most memory that this process has held, in bytes."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _told(case: str) -> str:
    try:
        return f"ok   {case} -> {answer(case)}"
    except Exception as error:  # which is what is being shown
        return f"BAD  {case} -> {type(error).__name__}: {' '.join(str(error).split())[:300]}"


if __name__ == "__main__":
    for name in CASES:
        print(_told(name), flush=True)
