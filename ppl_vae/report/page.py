"""A run folder as one HTML page: nothing on it is fetched from elsewhere, and nothing on it runs."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ppl_vae.arguments import as_path, names
from ppl_vae.declaration import Declaration
from ppl_vae.fitting.experiment import PARTS
from ppl_vae.fitting.table import short
from ppl_vae.guides import Guide
from ppl_vae.models import Model
from ppl_vae.report.document import checked, document, save
from ppl_vae.report.markup import Markup, joined, table, tag
from ppl_vae.report.mathml import formula, lines
from ppl_vae.report.words import PICTURES, caption, meanings, number, with_error
from ppl_vae.storage import RunFolder, RunIdentity
from ppl_vae.text import MIB, denied, from_json, from_yaml, inside, is_number
from ppl_vae.types import SCORES, Score, pass_name, score_of

__all__ = ["report"]

PNG = b"\x89PNG\r\n\x1a\n"
MOST_TEXT = 8 * MIB
MOST_HISTORY = 64 * MIB
MOST_LINE = MIB  # of the history: a line of JSON takes twenty times its size while it is read
MOST_NUMBERS = 2_000_000  # of the history, some hundred bytes each
MOST_COLUMNS = 1000  # of any table
MOST_SPLITS = 100
MOST_PICTURE = 16 * MIB
MOST_PICTURES = 64 * MIB  # together: the page is in memory a few times over
MOST_EPOCHS = 40  # in the table of the history


def report(run: str | Path, out: str | Path | None = None, *, trust: Iterable[str] = ()) -> Path:
    """Write a page about a run: its declaration as mathematics, numbers, curves, pictures, and how to run it again.

    The page is one file. It makes no request, runs no script, and shows text from the run as text, so that a stranger's run
    is safe to look at. Nothing is computed: it tells what the folder holds.

    Args:
        run: the run folder.
        out: the page; by default ``report.html`` in the folder.
        trust: modules, besides ppl_vae, whose classes may be imported to tell the story of what they declare.

    Returns:
        Where the page is.

    Raises:
        ValueError: no run there, a file that cannot be read, is larger than a page can show or leads out of the folder, or a
            page that would not end in ``.html`` or cannot be written.
    """
    run, trust = as_path(run), names("trust", trust)
    out = checked(run / "report.html" if out is None else out)
    try:
        text = _page(RunFolder.open(run), trust)
    except OSError as error:
        raise denied(run, error) from None
    return save(out, text)


def _page(run: RunFolder, trust: Iterable[str]) -> str:
    declared = _read(run, run.CONFIG, from_yaml, {})
    metrics = _read(run, run.METRICS, from_json, {})
    evaluation = _read(run, run.EVALUATION, from_json, {})
    history = _read(run, run.HISTORY, _rows, [], at_most=MOST_HISTORY)
    environment = _read(run, run.ENVIRONMENT, from_json, {})
    pictures, score = _pictures(run), run.score()
    title = run.path.resolve().name
    sections = {
        "Model": _model(declared, tuple(trust)),
        "Numbers": _numbers(metrics, score),
        "Evaluation": _evaluation(evaluation, len(history), score),
        "Training": _training(pictures, history, score),
        "Pictures": _figures({name: data for name, data in pictures.items() if name not in CURVES}),
        "Run it again": _again(run, declared),
        "Environment": _environment({**environment, **_run_id(run.identity())}),
    }
    content = [tag("section", tag("h2", name), *parts) for name, parts in sections.items() if parts]
    body = [
        tag("header", tag("h1", title), tag("p", _lead(declared), class_="lead"), _facts(metrics, score)),
        tag("main", *content),
        tag("footer", "Written by ppl_vae. Log-probabilities are in nats per datum, constants kept."),
    ]
    return document(title, *body)


def _lead(declared: Mapping[str, Any]) -> str:
    """What was fitted to what, by their names alone."""
    model, guide, method = (_class_name(declared.get(name)) for name in ("model", "guide", "method"))
    data = declared.get("data")
    source = data.get("source", "data") if isinstance(data, Mapping) else "data"
    return f"{model} with {guide}, fitted to {source} by {method}"


def _class_name(part: Any) -> str:
    path = part.get("class_path", "?") if isinstance(part, Mapping) else part
    return str(path).rpartition(".")[2]


def _facts(metrics: Mapping[str, Any], score: Score | None) -> Markup:
    """The most telling numbers, large."""
    name, numbers = next(
        ((split, metrics[split]) for split in ("test", "valid") if isinstance(metrics.get(split), dict)), ("", {})
    )
    own, known = [] if score is None else [score.name], meanings(score)
    wanted = ("log_likelihood", "iwae", *own, *SCORES, "kl", "active_units", "bits_per_dim", "elbo_per_token", "perplexity")
    tiles = [(f"{name} {known[one][0]}", with_error(numbers, one)) for one in wanted if one in numbers]
    tiles += [(label, number(metrics[one]) + unit) for one, label, unit in COSTS if one in metrics]
    return tag(
        "dl", *(tag("div", tag("dt", label), tag("dd", *_number_and_error(value))) for label, value in tiles), class_="facts"
    )


COSTS = (("iterations", "iterations", ""), ("seconds", "time", " s"))


def _number_and_error(value: str) -> Iterator[str]:
    """A number, and what follows the plus-minus in small letters."""
    main, plus_minus, error = value.partition(" ± ")
    yield main
    if plus_minus:
        yield tag("small", f" ± {error}")


def _model(declared: Mapping[str, Any], trust: Sequence[str]) -> list[Markup]:
    """The stories of model and guide as mathematics, and the method."""
    found = []
    for name, label in (("model", "Generative model"), ("guide", "Approximate posterior"), ("method", "Method")):
        if name in declared:
            found.append(tag("div", tag("p", label), *_story(name, declared[name], trust), class_="story"))
    return found


def _story(name: str, part: Any, trust: Sequence[str]) -> list[Markup]:
    try:
        declaration: Declaration = PARTS[name].from_dict(part, trust=trust)
        if not isinstance(declaration, Model | Guide):
            return [tag("code", short(declaration))]
        return [formula(line) for line in lines(declaration.story())]
    except ValueError:
        return [tag("span", f"{_class_name(part)}: a class that is not trusted here; its fields are below", class_="note")]


def _numbers(metrics: Mapping[str, Any], score: Score | None) -> list[Markup]:
    splits = {split: numbers for split, numbers in metrics.items() if isinstance(numbers, dict)}
    names = list(dict.fromkeys(name for numbers in splits.values() for name in numbers if not name.endswith("_se")))
    _check_width(RunFolder.METRICS, names, splits)
    names = [name for name in names if any(not isinstance(n.get(name), (list, dict)) for n in splits.values() if name in n)]
    if not names:
        return []
    known = meanings(score)
    labels = [known.get(name, (name, ""))[0] for name in names]
    rows = ([label, *(with_error(n, name) for n in splits.values())] for label, name in zip(labels, names, strict=True))
    unit = f"In {metrics.get('unit', 'nats per datum')}; ± is the standard error over the data."
    if is_number(best := metrics.get("without_latents")):
        unit += f" Without latent variables the likelihood reaches {number(best)} on the training data."
    words = [known[name] for name in names if name in known]
    meaning = tag("dl", *(joined((tag("dt", label), tag("dd", what))) for label, what in words), class_="words")
    return [table(unit, ["", *splits], rows), tag("details", tag("summary", "What the numbers mean"), meaning)]


def _evaluation(evaluation: Mapping[str, Any], iterations: int, score: Score | None) -> list[Markup]:
    """What was found since, with a word if the fit went on after it."""
    then = evaluation.get("iterations", iterations)
    note = f"Of the run as it was after {number(then)} iterations; it has {iterations} now."
    return [*([tag("p", note, class_="note")] if then != iterations else []), *_numbers(_columns(evaluation), score)]


def _columns(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The unit, and each split's numbers; those of its codes, samples and probe in columns of their own."""
    found = {"unit": evaluation["unit"]} if "unit" in evaluation else {}
    for split, numbers in evaluation.items():
        if isinstance(numbers, dict):
            parts = {name: part for name, part in numbers.items() if isinstance(part, dict)}
            found[split] = {name: value for name, value in numbers.items() if name not in parts}
            found |= {f"{split}: {name.replace('_', ' ')}": part for name, part in parts.items()}
    return found


def _check_width(name: str, columns: Sequence[str], splits: Mapping[str, Any] | None = None) -> None:
    """Raise ``ValueError`` if a table would have many more cells than its file has bytes."""
    if len(columns) > MOST_COLUMNS or len(splits or {}) > MOST_SPLITS:
        raise ValueError(f"{name} cannot be shown: expected at most {MOST_COLUMNS} names, of {MOST_SPLITS} splits")


def _training(pictures: Mapping[str, bytes], history: Sequence[Mapping[str, Any]], score: Score | None) -> list[Markup]:
    if not history:
        return []
    lists = {"epoch", *(name for row in history for name, value in row.items() if isinstance(value, list))}
    names = [name for name in dict.fromkeys(name for row in history for name in row) if name not in lists]
    _check_width(RunFolder.HISTORY, names)
    step = -(-len(history) // MOST_EPOCHS)
    chosen = [*history[::step], *([history[-1]] if (len(history) - 1) % step else [])]
    rows = ([number(row.get("epoch")), *(number(row.get(name)) for name in names)] for row in chosen)
    caption = f"{len(chosen)} of {len(history)} rows of the history" if step > 1 else f"All {len(history)} rows of the history"
    whole = tag("details", tag("summary", caption), table(f"{caption}, in nats per datum", [pass_name(history), *names], rows))
    return [*_figures({name: pictures[name] for name in CURVES if name in pictures}, _course(history, score)), whole]


CURVES = ("learning_curve", "tracked")
WIDE = (*CURVES, "aggregate")


def _figures(pictures: Mapping[str, bytes], course: str = "") -> list[Markup]:
    figures = []
    for name, data in pictures.items():
        told = caption(name)
        encoded = base64.b64encode(data).decode("ascii")
        image = tag("img", src=f"data:image/png;base64,{encoded}", alt=f"{told}{course}")
        figures.append(tag("figure", image, tag("figcaption", told), class_="wide" if name.startswith(WIDE) else None))
    return [tag("div", *figures, class_="pictures")] if figures else []


def _course(history: Sequence[Mapping[str, Any]], own: Score | None) -> str:
    """What a curve shows, for those who do not see it."""
    score = score_of(history[-1], own)
    held_out = f"valid_{score.name}" in history[-1]
    first, last = (number(row.get(f"valid_{score.name}" if held_out else score.name)) for row in (history[0], history[-1]))
    name = f"validation {score.label}" if held_out else score.label
    return f" The {name} goes from {first} to {last} nats per datum in {len(history)} {pass_name(history)}s."


def _pictures(run: RunFolder) -> dict[str, bytes]:
    """Pictures of the run, those that every run has first; nothing that is no PNG file or only a link.

    Raises:
        ValueError: one is too large for a page, or all together are.
    """
    found, room = {}, MOST_PICTURES
    for path in run.pictures():
        with inside(run.path, path.name).open("rb") as file:
            data = file.read(len(PNG))
            data += file.read(min(MOST_PICTURE, room) + 1) if data == PNG else b""
        room -= len(data)
        if len(data) > MOST_PICTURE or room < 0:
            most = f"{MOST_PICTURE / MIB:g} MiB, {MOST_PICTURES / MIB:g} in all"
            raise ValueError(f"{path}: expected pictures of at most {most}: move it out of the folder")
        if data.startswith(PNG):
            found[path.stem] = data
    return {name: found[name] for name in (*(one for one in PICTURES if one in found), *sorted(found.keys() - PICTURES.keys()))}


def _again(run: RunFolder, declared: Mapping[str, Any]) -> list[Markup]:
    command = f"ppl-vae fit --config {run.CONFIG} --out {shlex.quote(run.path.resolve().name)}"
    text = yaml.safe_dump(dict(declared), sort_keys=False)
    return [
        tag("p", "With the declaration below in ", tag("code", run.CONFIG), ":"),
        tag("pre", tag("code", command)),
        tag("details", tag("summary", run.CONFIG), tag("pre", tag("code", text))),
    ]


def _run_id(identity: RunIdentity) -> dict[str, Any]:
    """The id of a run that has one."""
    return {"run": identity.id} if identity.id else {}


def _environment(environment: Mapping[str, Any]) -> list[Markup]:
    flat = {**environment, **environment["versions"]} if isinstance(environment.get("versions"), dict) else environment
    rows = [[name, str(value)] for name, value in flat.items() if not isinstance(value, (dict, list)) and value is not None]
    return [table("Where it was fitted", ["", ""], rows)] if rows else []


def _rows(text: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    count = 0
    for line in filter(str.strip, text.splitlines()):
        if len(line) > MOST_LINE:
            raise ValueError(f"expected lines of at most {MOST_LINE / MIB:g} MiB, got {len(line) / MIB:.1f} MiB")
        row = from_json(line)
        if not isinstance(row, dict):
            raise ValueError("expected a line for each iteration, with its numbers by name")
        count += 1 + len(row)
        if count > MOST_NUMBERS:
            raise ValueError(f"expected at most {MOST_NUMBERS} numbers, got more")
        rows.append({name: [] if isinstance(value, (list, dict)) else value for name, value in row.items()})  # not shown
    return rows


def _read(run: RunFolder, name: str, parse: Callable[[str], Any], default: Any, *, at_most: int = MOST_TEXT) -> Any:
    """The content of a file of the folder, or ``default`` where there is none yet."""
    path = inside(run.path, name)
    found = run.read(name, parse, at_most=at_most) if path.exists() else default
    if not isinstance(found, type(default)):
        raise ValueError(f"{path} cannot be read: expected {'lines' if isinstance(default, list) else 'names and values'}")
    return found
