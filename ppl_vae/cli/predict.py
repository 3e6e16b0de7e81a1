"""``ppl-vae predict``: the component or the class of each row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_vae import runs
from ppl_vae.cli.options import data_options, declared_rows, rows_of, run_options
from ppl_vae.cli.output import TABLES, as_arrays, as_table, done, writer

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

__all__ = ["options", "run"]


def run(
    *,
    run: str,
    data: str | None,
    data_root: str | None,
    label: str | None,
    y: str | None,
    split: str | None,
    samples: int,
    priors: list[float],
    out: str,
    seed: int,
    device: str,
    trust: list[str],
    json: bool,
) -> None:
    """Write the most probable component or class of each row, and the probability of each.

    A table (.csv, .parquet) has `component`, `class` or the name of a network's hidden node, and a column `p_...` for each; an
    .npz file has them as `predicted`, `probabilities` and `names`, an .npy file the first alone.
    """
    write = writer(out, *TABLES, ".npz", ".npy")
    fitted = runs.load_run(run, trust=trust, device=device)
    facts = fitted.pair.model_facts
    labelled = facts.labelled or facts.classifies
    rows: Any = declared_rows(fitted, data, data_root, label=label)  # whose labels, which are predicted, may be absent
    if split is not None or not labelled:
        _, rows = rows_of(fitted, data, data_root, split or "all", label=label, y=y)
    probabilities = fitted.predict_proba(rows, samples=samples, seed=seed, priors=priors or None).cpu().numpy()
    called, values = fitted.predicts
    names = fitted.class_names if labelled else np.array(values or range(probabilities.shape[1]))
    predicted = names[probabilities.argmax(1)]
    columns: dict[str, Any] = {called: predicted}
    columns |= {f"p_{name}": column for name, column in zip(names, probabilities.T, strict=True)}
    write(as_table(columns) | as_arrays({"predicted": predicted, "probabilities": probabilities, "names": names}))
    counts = {str(name): int((predicted == name).sum()) for name in names}
    done({"n": len(predicted), "predicted": counts, "out": out}, as_json=json)


def options(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    run_options(parser)
    data_options(parser, default="all")
    parser.add_argument("--samples", type=int, default=100, help="draws per row, where the model does not know p(k | x)")
    what = "p(y) of each class, in their order, of a model conditioned on labels; all alike otherwise"
    parser.add_argument("--priors", type=float, nargs="+", default=[], help=what)
    parser.add_argument("--out", type=str, required=True, help="a table: .csv, .parquet; or .npz, .npy")
