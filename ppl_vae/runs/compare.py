"""Saved runs in one table: any models, guides and methods, as long as they were scored on the same data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ppl_vae import plots
from ppl_vae.data import DataSource
from ppl_vae.data.named import SETS
from ppl_vae.declaration import require
from ppl_vae.evaluate.metrics import UNIT
from ppl_vae.fitting.table import aligned, short
from ppl_vae.program.processes import by_first
from ppl_vae.runs.comparison import write_comparison
from ppl_vae.runs.load import load_fit
from ppl_vae.runs.saved import SavedRun
from ppl_vae.scores import RECONSTRUCTION
from ppl_vae.storage import RunFolder
from ppl_vae.text import as_line, is_number
from ppl_vae.types import SCORES, DataSpec, Record, Score

__all__ = ["RunComparison", "compare_runs", "save_run_comparison"]

SPLITS = ("test", "valid")
COLUMNS = {  # in this order, as many of them as are known of some run
    **{score.name: score.label for score in SCORES.values() if score != RECONSTRUCTION},
    "iwae": "iwae",
    "log_likelihood": "log-lik.",
    "reconstruction": "reconstruction",
    "kl": "KL",
    "active_units": "active units",
    "bits_per_dim": "bits/dim",
    "samples": "samples",
    "iterations": "iterations",
    "seconds": "s",
}
WORDS = ("run", "model", "guide", "method", "data")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RunComparison:
    """What :func:`compare_runs` found; ``print`` shows the table.

    Attributes:
        rows: a dictionary per run: ``run``, ``model``, ``guide``, ``method``, its numbers on the split, each with its standard
            error ``*_se`` where there is one, ``iterations`` and ``seconds``; ``data`` where the runs are not of the same.
        histories: of each run the rows of its history.
        split: which split the numbers are of.
        scores: of each run the score of its program, if that has one of its own.
    """

    rows: list[Record]
    histories: list[list[Record]]
    split: str
    scores: list[Score | None] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        return self.to_markdown()

    def to_dict(self) -> dict[str, Any]:
        """The unit, the split and the rows, as plain values."""
        return {"unit": UNIT, "split": self.split, "rows": self.rows}

    def to_markdown(self) -> str:
        """The rows as a Markdown table whose columns are also aligned as text; ± is the standard error over the data."""
        columns = {score.name: score.label for score in self.scores if score is not None} | COLUMNS
        names = [name for name in (*WORDS, *columns) if any(row.get(name) is not None for row in self.rows)]
        table = [[columns.get(name, name) for name in names], *([_cell(row, name) for name in names] for row in self.rows)]
        return aligned(table, words=sum(name in WORDS for name in names))


def compare_runs(
    runs: Sequence[str | Path],
    *,
    across_data: bool = False,
    samples: int | None = None,
    trust: Iterable[str] = (),
    device: str = "auto",
) -> RunComparison:
    """Put saved runs side by side, in nats per datum of the source's own data.

    The numbers are those that the runs were saved with; with ``samples`` they are computed anew, alike for all.

    Args:
        runs: the folders, at least two.
        across_data: also runs of other data, splits or binarizations, whose numbers do not compare; the table says so.
        samples: evaluate each run with so many samples per datum, on test data where all have some, else on validation data.
        trust: modules, besides ppl_vae, whose classes the declarations may name.
        device: where they are evaluated.

    Raises:
        ValueError: fewer than two runs, a folder that is no finished run, runs without numbers of a split that all have, or
            runs of different data: which, and in what they differ.
    """
    folders = [Path(run) for run in runs]
    if len({folder.resolve() for folder in folders}) < 2 or len(set(folders)) < len(folders):
        raise ValueError(f"expected at least two runs, each once, got {', '.join(map(str, runs)) or 'none'}")
    found = [_Run(folder, tuple(trust)) for folder in folders]
    differing = _differences(found)
    if differing and not across_data:
        raise ValueError(
            f"{_difference(found, differing[0])}, so their numbers do not compare: pass across_data (--across-data) to see "
            "them side by side all the same"
        )
    split = _common_split(found, anew=samples is not None)
    rows = [run.row(split, samples, device) for run in found]
    if differing:
        rows = [
            {**row, "data": ", ".join(str(run.conditions[name]) for name in differing)}
            for row, run in zip(rows, found, strict=True)
        ]
    return RunComparison(rows=rows, histories=[run.history for run in found], split=split, scores=[run.score for run in found])


@by_first
def save_run_comparison(comparison: RunComparison, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write ``comparison.json``, ``comparison.md`` and ``comparison.png`` into a new folder.

    Args:
        comparison: what :func:`compare_runs` returned.
        path: the folder.
        overwrite: replace a comparison that is there.

    Raises:
        ValueError: the folder is taken.
    """
    text = f"{UNIT}, {comparison.split} data; ±: standard error over the data; s: seconds.\n\n{comparison}\n"
    figure = plots.runs(comparison.rows, comparison.histories, comparison.scores or None)
    return write_comparison(path, comparison.to_dict(), text, figure, overwrite=overwrite)


class _Run:
    """A finished run; ``conditions`` are what must be the same for numbers to compare."""

    def __init__(self, path: Path, trust: tuple[str, ...]) -> None:
        folder = RunFolder(path)
        folder.identity()  # of a newer format nothing else can be read
        self.folder = path
        self.metrics, described, self.history = _results(folder)
        self.score = folder.score()
        self.saved = SavedRun.open(path, trust=trust)
        try:
            self.conditions = _conditions(self.saved.experiment.data, described)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is not a whole run: {type(error).__name__} {as_line(error)}") from None
        except ValueError as error:
            raise ValueError(f"{path}: {as_line(error, most=600)}") from None

    def row(self, split: str, samples: int | None, device: str) -> Record:
        """The run's row of the table."""
        numbers = self.metrics.get(split, {})
        if samples is not None:
            fit = load_fit(self.saved, device=device)
            numbers = fit.evaluate(fit.rows(fit.data, split), samples=samples)
        declared = self.saved.experiment.parts
        parts = {name: short(declared[name]) for name in ("model", "guide", "method")}
        costs = {"iterations": len(self.history), "seconds": None} | _numbers(self.metrics)
        return {
            "run": str(self.folder),
            **parts,
            **_numbers(numbers),
            **{name: costs[name] for name in ("iterations", "seconds")},
        }


def _numbers(named: Mapping[str, Any]) -> Record:
    """Those of the values that are finite numbers."""
    return {name: value for name, value in named.items() if is_number(value)}


def _conditions(source: DataSource, described: Mapping[str, Any]) -> dict[str, Any]:
    """What the numbers of a run are about, by the words of a data declaration.

    A density of values and a probability of levels are different things, whatever scale they are seen on.
    """
    fields, transform = described["spec"], described["transform"]
    spec = DataSpec(event_shape=tuple(fields["event_shape"]), kind=fields["kind"], size=fields["size"])
    content = described.get("fingerprint", "unknown" if source.source == "array" else "named")
    require(isinstance(content, str), "a fingerprint of the data as text", content)
    discrete = transform["dequantize"] or source.dequantize or spec.kind.discrete
    binarized = "none" if source.binarize == "auto" else source.binarize
    return {
        "source": source.name if source.name in (*SETS, "digits", "sprites") else source.source,
        "key": source.key,
        "shape": spec.event_shape,
        "size": spec.size,
        "missing": source.missing,
        "valid": source.valid,
        "test": source.test,
        "seed": source.seed,
        "binarize": binarized,
        "kind": "probabilities of levels" if discrete else "densities",
        "content": content,
    }


def _differences(runs: Sequence[_Run]) -> list[str]:
    """Names of what differs. Arrays without a fingerprint cannot be told apart, so they are taken to."""
    names = [name for name in runs[0].conditions if len({run.conditions[name] for run in runs}) > 1]
    if "content" in names and not _contents_differ(runs):
        names.remove("content")
    unknown = [run for run in runs if run.conditions["content"] == "unknown"]
    return [*names, "content"] if unknown and "content" not in names else names


def _contents_differ(runs: Sequence[_Run]) -> bool:
    """Whether two fingerprints that look at as many rows differ; of others nobody can say."""
    forms: dict[str, set[str]] = {}
    for run in runs:
        form, _, _ = run.conditions["content"].rpartition("-")
        forms.setdefault(form, set()).add(run.conditions["content"])
    named = any(run.conditions["content"] in ("unknown", "named") for run in runs)
    return named or any(len(each) > 1 for each in forms.values())


def _difference(runs: Sequence[_Run], name: str) -> str:
    first = runs[0]
    other = next((run for run in runs if run.conditions[name] != first.conditions[name]), runs[1])
    if name == "content":
        return f"{first.folder} and {other.folder} may be of different data: what they were fitted to differs, or is not known"
    return (
        f"the runs differ in {name}: {first.folder} has {first.conditions[name]}, {other.folder} has {other.conditions[name]}"
    )


def _common_split(runs: Sequence[_Run], *, anew: bool) -> str:
    """The split that all runs have numbers of; to find them anew, runs that have none yet do not count."""
    held = [[split for split in SPLITS if isinstance(run.metrics.get(split), dict)] for run in runs]
    for split in SPLITS:
        if all(split in one or (anew and not one) for one in held):
            return split
    splits = ", ".join(f"{' and '.join(one) or 'none'} of {run.folder}" for run, one in zip(runs, held, strict=True))
    advice = "fit them to data that hold out the same" if all(held) else "evaluate them anew with samples (--samples)"
    raise ValueError(f"expected runs with numbers of the same split, test or valid, got {splits}: {advice}")


def _cell(row: Record, name: str) -> str:
    value, error = row.get(name), row.get(f"{name}_se")
    if value is None or isinstance(value, (str, int)):
        return "-" if value is None else str(value)
    return f"{value:.3f}" + ("" if error is None else f" ± {error:.3f}")


def _results(folder: RunFolder) -> tuple[dict[str, Any], dict[str, Any], list[Record]]:
    """Metrics, description of the data and history, which a finished run has."""
    try:
        return folder.metrics(), folder.description(), folder.history()
    except ValueError as error:
        raise ValueError(f"{folder.path} is not a finished run: {as_line(error)}") from None
