"""What goes wrong on purpose, and what becomes of it.

Fits are killed (``kill -9``) at random moments and resumed until they end, and compared with the fit that was never killed, bit
by bit. Steps are made not finite in known ways, and the post-mortems must name the site and the cause, and where they are known
the parameter and the rows. Fits are repeated in one process, and what they leave in memory is counted. Bad inputs and hostile
runs are those of the tests.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import importlib
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

import ppl_vae as pv
from benchmarks import series
from ppl_vae.storage import Checkpointer, RunFolder

Row = dict[str, Any]
N, D, K = 64, 6, 2
TINY = pv.MLP(hidden=(8,))


# --- kills ----------------------------------------------------------------------------------------------------------------


def kills(tries: int, seed: int = 0) -> Row:
    """Kill fits at random moments, each of them until it ends in spite of it; each end compared with the undisturbed one.

    Eager SVI, recorded SVI and EM take turns.
    """
    moments = random.Random(seed)
    survived = equal = fits = 0
    with tempfile.TemporaryDirectory() as folder:
        whole = {kind: _undisturbed(Path(folder) / kind, kind) for kind in KINDS}
        while survived < tries:
            kind = list(KINDS)[fits % len(KINDS)]
            undisturbed, seconds = whole[kind]
            run = Path(folder) / str(fits)
            fits += 1
            while survived < tries and _child(run, kind, moments.uniform(0.0, seconds)):
                survived += 1
            _child(run, kind, None)
            equal += (run / "model.safetensors").read_bytes() == undisturbed
    return {"kills survived": survived, "kills tried": tries, "fits": fits, "fits with equal bits": equal}


def _undisturbed(run: Path, kind: str) -> tuple[bytes, float]:
    """The weights that a fit ends with, and its seconds."""
    began = time.perf_counter()
    _child(run, kind, None)
    return (run / "model.safetensors").read_bytes(), time.perf_counter() - began


def _child(run: Path, kind: str, moment: float | None) -> bool:
    """Begin or resume a fit in a process of its own, and kill it after so many seconds; whether that hit it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, none of which is needed
        child = os.fork()
    if child == 0:
        code = 1
        try:
            _fit(run, **KINDS[kind]())
            code = 0
        finally:
            os._exit(code)
    if moment is not None:
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("a fit ended with an error")
    return os.WIFSIGNALED(status)


def _fit(run: Path, *, binarize: Literal["dynamic", "none"], **options: Any) -> None:
    data = pv.load_data("digits", binarize=binarize)
    data = dataclasses.replace(data, train=data.train[:400], valid=data.valid[:50], test=data.test[:50])
    if (run / "config.yaml").exists() and ((run / RunFolder.SNAPSHOT).exists() or (run / "history.jsonl").exists()):
        pv.resume_run(run, data=data, every=0.0)
    else:
        pv.fit(data=data, out=Checkpointer(run, every=0.0), **options)


def _svi(compile: Literal["auto", False]) -> Row:
    method = pv.SVI(epochs=6, batch_size=64, compile=compile, patience=5, restore_best=True)
    guide = pv.AmortizedNormal(encoder=TINY)
    return {"binarize": "dynamic", "model": pv.VAE(latent_dim=2, decoder=TINY), "guide": guide, "method": method}


def _em() -> Row:
    method = pv.EM(n_init=3, max_iterations=20, tolerance=0.0)
    return {"binarize": "none", "model": pv.GMM(components=3, covariance="spherical"), "method": method}


KINDS: dict[str, Callable[[], Row]] = {"eager": lambda: _svi(False), "recorded": lambda: _svi("auto"), "EM": _em}


# --- steps that are not finite --------------------------------------------------------------------------------------------


class Model(nn.Module):
    """Data around a linear function of z, their mean as ``shift`` says, their scale as ``spread`` says."""

    def __init__(self, shift: Callable[[Tensor, Tensor], Tensor] | None = None, spread: Callable | None = None) -> None:
        super().__init__()
        self.decoder = nn.Linear(K, D)
        self.offset = nn.Parameter(torch.zeros(()))
        self.shift, self.spread = shift, spread

    def forward(self, x: Tensor) -> None:
        """The story."""
        with pv.data_plate(N, x):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([K]).to_event(1))
            loc = self.decoder(z) + (self.shift(self.offset, x) if self.shift else 0.0)
            scale = self.spread(self.offset, x) if self.spread else torch.ones(())
            pyro.sample("x", dist.Normal(loc, scale).to_event(1), obs=x)


class Guide(nn.Module):
    """A linear guide, its scale multiplied by what ``spread`` says."""

    def __init__(self, spread: Callable | None = None) -> None:
        super().__init__()
        self.encoder = nn.Linear(D, 2 * K)
        self.spread = spread

    def forward(self, x: Tensor) -> None:
        """The factorization."""
        with pv.data_plate(N, x):
            loc, raw = self.encoder(x).chunk(2, -1)
            scale = nn.functional.softplus(raw) * (self.spread(x) if self.spread else 1.0)
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))


def _rows(value: float | None = None, place: int = 7) -> Tensor:
    """Standard normal data, in one row of which every entry is ``value``."""
    x = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
    if value is not None:
        x[place] = value
    return x


@dataclasses.dataclass(frozen=True)
class Fault:
    """A fit that does not stay finite, and what its post-mortem must say.

    Attributes:
        model, guide: built or declared.
        x: the data.
        site: the guilty one.
        cause: what the likeliest cause must match.
        parameter: what the suspect's name must match.
        rows: the guilty rows; ``None`` if they are many.
        options: of SVI.
    """

    model: Callable[[], Any]
    guide: Callable[[], Any]
    x: Tensor
    site: str
    cause: str
    parameter: str = ""
    rows: list[int] | None = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


VAE = pv.VAE(latent_dim=2, likelihood=pv.Gaussian(scale="amortized"), decoder=TINY)
AMORTIZED = pv.AmortizedNormal(encoder=TINY)
RATE = "the learning rate is too large"
EDGE = "a logarithm, a root or a quotient at the edge of its domain"
FAULTS: dict[str, Fault] = {
    "learning rate 1e3": Fault(lambda: VAE, lambda: AMORTIZED, _rows(), "x", RATE, "layers", options={"learning_rate": 1e3}),
    "sgd, learning rate 1e30": Fault(
        Model, Guide, _rows(), "z", RATE, options={"learning_rate": 1e30, "optimizer": "sgd", "batch_size": N}
    ),
    "a row of 1e30": Fault(Model, Guide, _rows(1e30), "z", "the data reach 1e[+]30", rows=[7]),
    "a scale of zero, model": Fault(
        lambda: Model(spread=lambda w, x: (1 + w) * (x[:, :1] != 9.0).float()), Guide, _rows(9.0), "x", "runs to zero", rows=[7]
    ),
    "a scale of zero, guide": Fault(
        Model, lambda: Guide(spread=lambda x: (x[:, :1] != 9.0).float()), _rows(9.0), "z", "runs to zero", rows=[7]
    ),
    "the logarithm of zero": Fault(
        lambda: Model(shift=lambda w, x: w + (x[:, :1] - 9.0).abs().log()), Guide, _rows(9.0), "x", EDGE, rows=[7]
    ),
    "a root of zero, its slope": Fault(
        lambda: Model(shift=lambda w, x: (w * x[:, :1]).square().sqrt()), Guide, _rows(0.0), "x", EDGE, "offset"
    ),
    "zero by zero": Fault(
        lambda: Model(shift=lambda w, x: (x[:, :1] - 9.0) / (x[:, 1:2] - 9.0)), Guide, _rows(9.0), "x", EDGE, rows=[7]
    ),
}


def injected(name: str) -> pv.NonFiniteError | None:
    """Fit with a fault; what is raised."""
    fault = FAULTS[name]
    data = pv.load_data(fault.x.clamp(-10.0, 10.0).numpy(), valid=0.0, test=0.0, scale="none")
    data.train.raw.copy_(fault.x)  # behind the door, which takes a lone huge value for a missing one
    options = {"epochs": 3, "batch_size": 16, "learning_rate": 1e-3, **fault.options}
    torch.manual_seed(0)
    try:
        pv.fit(fault.model(), data, guide=fault.guide(), method=pv.SVI(**options))
    except pv.NonFiniteError as error:
        return error
    return None


def named(name: str, error: pv.NonFiniteError | None) -> bool:
    """Whether the post-mortem says what it must."""
    fault = FAULTS[name]
    if error is None:
        return False
    found = error.postmortem
    told = found.site == fault.site and re.search(fault.cause, found.causes[0]) is not None
    return told and fault.parameter in found.parameter["name"] and fault.rows in (None, found.rows)


def nonfinite() -> Row:
    """Inject every fault."""
    results = {name: named(name, injected(name)) for name in FAULTS}
    wrong = [name for name, right in results.items() if not right]
    return {"non-finite injected": len(results), "named correctly": sum(results.values()), "not named": wrong}


# --- leaks ----------------------------------------------------------------------------------------------------------------


def leaks(fits: int, before: int = 20) -> Row:
    """Bytes that a fit leaves in the process's memory, recorded steps and evaluations included."""
    for _ in range(before):
        _small_fit()
    start = _resident()
    for _ in range(fits):
        _small_fit()
    return {"fits in one process": fits, "bytes per fit": (_resident() - start) / fits}


def _small_fit() -> None:
    data = pv.load_data(np.random.default_rng(0).integers(0, 2, (64, 12)), valid=0.2, test=0.0)
    pv.fit(
        pv.VAE(latent_dim=2, decoder=TINY),
        data,
        guide=AMORTIZED,
        method=pv.SVI(epochs=1, batch_size=16, compile=False),
        device="cpu",
    )


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- what must be refused --------------------------------------------------------------------------------------------------


def tables() -> Row:
    """Inputs and run folders that must be refused."""
    found: Row = {}
    for module, tried, right in (
        ("bad_inputs", "bad inputs tried", "answered properly"),
        ("hostile_runs", "hostile runs tried", "refused"),
    ):
        cases = importlib.import_module(f"tests.{module}")
        found |= {tried: len(cases.CASES), right: sum(map(cases.answered, cases.CASES))}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="fits to kill")
    parser.add_argument("--fits", type=int, default=1000, help="fits in one process")
    series.add_json(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: Row = {}
    for part in (
        lambda: kills(options.kills),
        nonfinite,
        tables,
        lambda: leaks(options.fits),
    ):
        found |= part()
        print(json.dumps(found), file=sys.stderr)  # a run of many minutes may be stopped
    if options.json:
        series.tell(found, options)
        return
    print("\n".join(f"{name}: {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
