"""Topic models of UCI's KOS against scikit-learn, tomotopy and topica: seconds of the processor, one thread, one process each.

Documents are permuted by seed 0; 343 are held out, their words divided by fair coins. K = 50, alpha = 0.1, eta = 0.01, three
seeds. ``completion`` is the log-predictive of a word of one half given theta folded in from the other, by one evaluator of all,
in nats; ``bound`` is the ELBO of a training document without the orders of its words, in nats, as scikit-learn has it; ``mib``
is what the fit takes beside what was there before it. Each has the sweeps at which it reaches what it reaches at all, or, of
the two collapsed methods, the same completion.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import scipy.sparse
import torch

import ppl_vae as pv
from ppl_vae.exact import topics
from ppl_vae.models.topics.documents import of_batch

TOPICS, ALPHA, ETA, HELD_OUT, SEEDS = 50, 0.1, 0.01, 343, 3
SWEEPS = {"ours": 14, "ours_collapsed": 66, "sklearn": 20, "tomotopy": 700, "topica_cvb0": 200}
Found = tuple[np.ndarray, float | None]
"""Topics ``(K, V)``, and the bound where there is one."""


def kos() -> tuple[Any, Any, Any]:
    """Training documents, and both halves of those that are held out.

    Raises:
        ValueError: they are not there.
    """
    file = Path(os.environ.get("PPL_VAE_DATA", "data")) / "bow_kos" / "docword.kos.txt.gz"
    if not file.is_file():
        raise ValueError(f"{file} is absent: get it from UCI's bag of words, and name the folder above it by PPL_VAE_DATA")
    x = scipy.sparse.csr_matrix(pv.load_data(file, valid=0.0, test=0.0).train.raw.numpy()).astype(np.int64)
    rng = np.random.default_rng(0)
    order = rng.permutation(x.shape[0])
    train, test = x[order[HELD_OUT:]], x[order[:HELD_OUT]]
    half = test.copy()
    half.data = rng.binomial(test.data, 0.5)
    rest = test - half
    half.eliminate_zeros()
    return train, half, rest


def completion(beta: np.ndarray, half: Any, rest: Any) -> float:
    """Nats a word."""
    log, alpha = torch.from_numpy(beta).log(), torch.full((len(beta),), ALPHA, dtype=torch.float64)
    seen, theta = topics.Topics.of(log), torch.zeros(half.shape[0], len(beta), dtype=torch.float64)
    for block in of_batch(torch.from_numpy(half.toarray()).double(), len(beta)):
        theta[block.rows] = topics.mean(topics.local(block, seen, alpha, 100).gamma)
    log_predictive = (theta @ log.exp()).log().numpy()
    return float(rest.multiply(log_predictive).sum() / rest.sum())


def ours(train: Any, topic_count: int, sweeps: int, seed: int, *, collapsed: bool = False) -> Found:
    """Uncollapsed, or CVB0."""
    few, data = (pv.load_data(part, kind="count", counts="sparse", valid=0.0, test=0.0) for part in (train[:20], train))
    model = pv.LDA(topics=topic_count, proportions=pv.Dirichlet(concentration=ALPHA), words=pv.Dirichlet(concentration=ETA))
    pv.fit(model, few, method=pv.CAVI(sweeps=1), device="cpu", progress=None)  # what is imported when it is first used
    with measured():
        fit = pv.fit(model, data, method=pv.CAVI(sweeps=sweeps, collapsed=collapsed, seed=seed), device="cpu", progress=None)
    orders = topics.log_coefficient(data.train.transformed()).mean().item()
    return topics.mean(fit.pair.guide.concentration).double().numpy(), fit.evaluate(data.train)["elbo"] - orders


def sklearn(train: Any, topic_count: int, sweeps: int, seed: int) -> Found:
    """Batch mean field."""
    from sklearn.decomposition import LatentDirichletAllocation

    options = {"doc_topic_prior": ALPHA, "topic_word_prior": ETA, "learning_method": "batch", "n_jobs": 1}
    model = LatentDirichletAllocation(topic_count, max_iter=sweeps, random_state=seed, **options)
    with measured():
        model.fit(train)
    return model.components_ / model.components_.sum(1, keepdims=True), model.score(train) / train.shape[0]


def tomotopy(train: Any, topic_count: int, sweeps: int, seed: int) -> Found:
    """Collapsed Gibbs sampling."""
    import tomotopy as tp

    model = tp.LDAModel(k=topic_count, alpha=ALPHA, eta=ETA, seed=seed)
    model.optim_interval = 0
    for words in tokens(train):
        model.add_doc(words)
    with measured():
        model.train(sweeps, workers=1)
    beta = np.full((topic_count, train.shape[1]), 1e-12)
    beta[:, [int(word) for word in model.used_vocabs]] = [model.get_topic_word_dist(k) for k in range(topic_count)]
    return beta / beta.sum(1, keepdims=True), None


def topica_cvb0(train: Any, topic_count: int, sweeps: int, seed: int) -> Found:
    """CVB0 in Rust."""
    import topica

    model = topica.LDA(topic_count, alpha_sum=ALPHA * topic_count, beta=ETA, optimize_interval=0, seed=seed, sampler="cvb0")
    documents = list(tokens(train))
    with measured():
        model.fit(documents, iters=sweeps, num_samples=1, keep_theta_draws=False)
    beta = np.full((topic_count, train.shape[1]), 1e-12)
    beta[:, [int(word) for word in model.vocabulary]] = np.asarray(model.topic_word)
    return beta / beta.sum(1, keepdims=True), None


PEERS: dict[str, Callable[..., Found]] = {
    "ours": ours,
    "ours_collapsed": lambda *task: ours(*task, collapsed=True),
    "sklearn": sklearn,
    "tomotopy": tomotopy,
    "topica_cvb0": topica_cvb0,
}
MEASURED: dict[str, float] = {}


@contextlib.contextmanager
def measured() -> Iterator[None]:
    """Seconds of the processor, and the peak of memory above what was there."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, began = _status("VmRSS"), time.process_time()
    yield
    MEASURED.update(seconds=time.process_time() - began, mib=(_status("VmHWM") - before) / 1024)


def _status(name: str) -> int:
    """KiB, or nothing where the system does not tell."""
    with contextlib.suppress(OSError):
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(lines[name].split()[0])
    return 0


def tokens(counts: Any) -> Iterator[list[str]]:
    """Each document's words by number, as often as they occur."""
    for start, end in zip(counts.indptr[:-1], counts.indptr[1:], strict=True):
        yield [str(word) for word in np.repeat(counts.indices[start:end], counts.data[start:end])]


def run(peer: str, seed: int, *, small: bool) -> dict[str, float | None]:
    """One fit, in this process."""
    train, half, rest = kos()
    train = train[:200] if small else train
    beta, bound = PEERS[peer](train, 5 if small else TOPICS, 2 if small else SWEEPS[peer], seed)
    return {**MEASURED, "completion": completion(beta, half, rest), "bound": bound}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Means over seeds of seconds, completion, bound and memory, by peer."""
    found: dict[str, Any] = {name: {} for name in ("seconds", "completion", "bound", "mib")}
    absent: dict[str, str] = {}
    for peer in PEERS:
        runs = [_apart(peer, seed, small=options.small) for seed in range(1 if options.small else SEEDS)]
        if errors := [run["error"] for run in runs if "error" in run]:
            absent[peer] = errors[0]
        for name, values in found.items():
            each = [run[name] for run in runs if run.get(name) is not None]
            values[peer] = fmean(each) if each else None
    return {**found, "absent": absent}


def _apart(peer: str, seed: int, *, small: bool) -> dict[str, Any]:
    """One fit, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.exact_lda", "--peer", peer, "--seed", str(seed)]
    command += ["--small"] if small else []
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    if done.returncode:
        return {"error": f"{done.stderr.strip().splitlines()[-1]}: pip install 'ppl_vae[bench]'"}
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", choices=list(PEERS), help="this one alone, in this process")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true", help="few documents and topics, for a look whether all runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(run(options.peer, options.seed, small=options.small) if options.peer else {"lda": measure(options)}))


if __name__ == "__main__":
    main()
