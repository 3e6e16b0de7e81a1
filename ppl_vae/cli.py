"""The command line: ``ppl-vae fit | compare | evaluate | sample | encode | list``.

Options are the fields of the declarations themselves: ``--model.prior GaussianMixture --model.prior.components 50`` is
``VAE(prior=GaussianMixture(components=50))``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import os
import re
import sys
import typing
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jsonargparse import ArgumentError, ArgumentParser

from ppl_vae import plots, runs
from ppl_vae.data import DataSource, Split, load_data
from ppl_vae.declaration import Declaration, enable_families, family_members, parse
from ppl_vae.guides import Guide
from ppl_vae.inference import SVI, Fit, Method, compare, fit
from ppl_vae.inference.fit import default_guide
from ppl_vae.inference.method import Remark
from ppl_vae.inference.progress import quiet as say_nothing
from ppl_vae.models import Model

__all__ = ["main"]

# Short spellings. A YAML file after --data is a whole declaration, anything else is its source.
ALIASES = {
    "fit": {"--data": "--data.source", "--data-root": "--data.root", "--seed": "--method.seed"},
    "compare": {"--data": "--data.source", "--data-root": "--data.root"},
}
# Given as words: the fields of a parser's own default would stay when another class is named that has them too.
MODELS = {"fit": "VAE", "compare": "FactorAnalysis"}
YAML_SUFFIXES = (".yaml", ".yml")
UNREADABLE = (
    r'Parser key "(?P<part>\w+)": Config file loop detected: (?P<file>.+) -> ',
    r"Parser key \"(?P<part>\w+)\": Unable to load config '(?P<file>.+)' - ",
)
SPLITS = ("train", "valid", "test", "all")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb: 0 if it worked, 2 and one line on standard error if the input was bad, 1 if the fit failed."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if "" not in sys.path:
        sys.path.insert(0, "")  # a user's own class is named by its import path from where the user stands
    try:
        parser = _parser()
        options = parser.instantiate(parser.parse_args(_expand(arguments)))
        chosen = {name: value for name, value in vars(options[options.verb]).items() if name != "config"}
        with _notes(quiet=chosen.get("quiet", False)):
            VERBS[options.verb](**chosen)
    except (ArgumentError, ValueError, OSError) as error:
        return _refuse(_explain(str(error)), code=2)
    except FloatingPointError as error:
        return _refuse(str(error), code=1)
    except KeyboardInterrupt:
        return _refuse("interrupted; nothing was saved", code=130)
    return 0


def fit_verb(
    *,
    model: Model,
    guide: Guide | None,
    method: Method,
    data: DataSource,
    out: str | None,
    device: str,
    overwrite: bool,
    quiet: bool,
    json: bool,
) -> None:
    """Fit a declared model to data and save the run: declaration, weights, history, metrics, pictures."""
    folder = None if out is None else runs.check_free(out, overwrite=overwrite)
    loaded = load_data(data)
    fitted = fit(model, loaded, guide=guide, method=method, device=device, progress=say_nothing if quiet or json else None)
    metrics = runs.measure(fitted, loaded.resolve(model.accepts))
    if folder is not None:
        runs.save_run(fitted, loaded, folder, metrics=metrics, overwrite=overwrite)
    if json:
        return _print_json({**metrics, "out": out})
    if not quiet:
        print(f"{fitted.model}\n{fitted.guide}")
        _print_table({name: numbers for name, numbers in metrics.items() if isinstance(numbers, dict)}, metrics["unit"])
        print(f"{metrics['iterations']} iterations in {metrics['seconds']:.1f} s on {fitted.device}")
        _say_saved(folder)
    return None


def compare_verb(
    *,
    model: Model,
    methods: list[Method],
    guides: list[Guide] | None,
    data: DataSource,
    seeds: int,
    out: str | None,
    device: str,
    overwrite: bool,
    quiet: bool,
    json: bool,
) -> None:
    """Fit one declared model by several methods: a table and a picture of what each reaches, and how fast."""
    folder = None if out is None else runs.check_free(out, overwrite=overwrite, kind="comparison")
    progress = say_nothing if quiet or json else None
    found = compare(model, load_data(data), methods=methods, guides=guides, seeds=seeds, device=device, progress=progress)
    if folder is not None:
        runs.save_comparison(found, folder, overwrite=overwrite)
    if json:
        return _print_json(found.to_dict())
    if not quiet:
        print(f"{model}\n{runs.UNIT}; s: seconds{'; ±: standard deviation over seeds' if seeds > 1 else ''}\n{found}")
        _say_saved(folder)
    return None


def evaluate_verb(
    *,
    run: str,
    data: str | None,
    data_root: str | None,
    split: str | None,
    samples: int,
    seed: int,
    device: str,
    trust: list[str],
    json: bool,
) -> None:
    """Say how good a run is on data, in nats per datum."""
    fitted = runs.load_run(run, trust=trust, device=device)
    name, rows = _rows(fitted, data, data_root, split or ("test" if data is None else "all"))
    numbers = {name: fitted.evaluate(rows, samples=samples, seed=seed)}
    if json:
        return _print_json({**numbers, "unit": runs.UNIT})
    print(f"{fitted.model}\n{fitted.guide}")
    return _print_table(numbers, runs.UNIT)


def sample_verb(
    *,
    run: str,
    n: int,
    out: str,
    y: str | None,
    draws: bool,
    seed: int,
    device: str,
    trust: list[str],
    json: bool,
) -> None:
    """Draw new data from the declared prior through the decoder: a picture (.png) or an array (.npy).

    A model conditioned on labels draws its classes in turn, or one; one that completes data completes the first test data.
    """
    write = _writer(out, ".png", ".npy")
    fitted = runs.load_run(run, trust=trust, device=device)
    given = None
    if getattr(fitted.pair.model, "known_entries", None) is not None:
        given = fitted.rows(fitted.data, "test")[:n]
        n = min(n, len(given))
    x = fitted.sample(n, x=given, y=y, draws=draws, seed=seed).cpu()
    write(
        {
            ".png": lambda path: plots.save(plots.grid(x, kind=fitted.spec.kind, title=f"samples from {run}"), path),
            ".npy": lambda path: _save_atomically(path, lambda file: np.save(file, x.numpy())),
        }
    )
    _done({"n": n, "shape": list(x.shape), "out": out}, as_json=json)


def encode_verb(
    *,
    run: str,
    data: str | None,
    data_root: str | None,
    split: str | None,
    samples: int | None,
    out: str,
    seed: int,
    device: str,
    trust: list[str],
    json: bool,
) -> None:
    """Write the posterior of the latent variables: means `z`, draws `samples`, labels `y` (.npz)."""
    write = _writer(out, ".npz")
    fitted = runs.load_run(run, trust=trust, device=device)
    _, rows = _rows(fitted, data, data_root, split or "all")
    arrays = {"z": fitted.encode(rows)}
    if samples is not None:
        arrays["samples"] = fitted.encode(rows, samples=samples, seed=seed)
    if rows.y is not None:
        arrays["y"] = rows.y
    plain: dict[str, Any] = {name: array.cpu().numpy() for name, array in arrays.items()}
    write({".npz": lambda path: _save_atomically(path, lambda file: np.savez_compressed(file, **plain))})
    _done({"n": len(rows), "arrays": {name: list(array.shape) for name, array in plain.items()}, "out": out}, as_json=json)


def list_verb(*, name: str | None, json: bool) -> None:
    """List what can be declared, or tell the story and the fields of one declaration."""
    if name is not None:
        found = {cls.__name__: cls for members in _catalogue().values() for cls in members}
        if name not in found:
            raise ValueError(f"unknown declaration {name!r}: choose from {', '.join(sorted(found))}")
        declaration = found[name]()
        story = str(declaration)
        if isinstance(declaration, Model):
            story += f"\n{default_guide(declaration, SVI())}"
        if json:
            return _print_json({"story": story, **declaration.to_dict()})
        print(f"{_summary(found[name])}\n\n{story}\n\n{declaration.to_yaml()}", end="")
        return None
    catalogue = {family: {cls.__name__: _summary(cls) for cls in members} for family, members in _catalogue().items()}
    if json:
        return _print_json(catalogue)
    for family, members in catalogue.items():
        print(f"{family}:", *(f"  {name:<18} {summary}" for name, summary in members.items()), sep="\n")
    return None


VERBS: dict[str, Callable[..., None]] = {
    "fit": fit_verb,
    "compare": compare_verb,
    "evaluate": evaluate_verb,
    "sample": sample_verb,
    "encode": encode_verb,
    "list": list_verb,
}


def _parser() -> ArgumentParser:
    enable_families()
    parser = ArgumentParser(prog="ppl-vae", description="Declared generative latent-variable models.", exit_on_error=False)
    verbs = parser.add_subcommands(dest="verb")
    for name, verb in VERBS.items():
        subparser = ArgumentParser(description=inspect.getdoc(verb), exit_on_error=False)
        _OPTIONS[name](subparser)
        subparser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
        verbs.add_subcommand(name, subparser, help=inspect.getdoc(verb))
    return parser


def _fit_options(parser: ArgumentParser) -> None:
    parser.add_argument("--config", action="config", help="a run's config.yaml: run it again, with options after it on top")
    parts: dict[str, tuple[Any, Declaration | None, str]] = {
        "model": (Model, None, "the model: a class name, an import path or a YAML file; by default VAE"),
        "guide": (Guide | None, None, "the approximate posterior, likewise; by default what suits model and method"),
        "method": (Method, SVI(), "how to fit, likewise"),
        "data": (DataSource, DataSource(), "a source (see --data.source) or a YAML file"),
    }
    for name, (base, default, what) in parts.items():
        parser.add_argument(f"--{name}", type=base, default=default, sub_configs=True, help=what)
    parser.add_argument("--out", type=str | None, help="the run folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in that folder")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda, cuda:1, mps, or auto")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def _compare_options(parser: ArgumentParser) -> None:
    what = "the model: a class name, an import path or a YAML file; by default FactorAnalysis"
    parser.add_argument("--model", type=Model, default=None, sub_configs=True, help=what)
    what = "how to fit: [EM,SVI], or with fields [EM,{class_path: SVI, init_args: {epochs: 20}}]"
    parser.add_argument("--methods", type=list[Method], default=["EM", "SVI"], help=what)
    what = "approximate posteriors for the methods that fit them, likewise; by default what suits model and method"
    parser.add_argument("--guides", type=list[Guide] | None, default=None, help=what)
    what = "a source (see --data.source) or a YAML file"
    parser.add_argument("--data", type=DataSource, default=DataSource(), sub_configs=True, help=what)
    parser.add_argument("--seeds", type=int, default=1, help="fits of each row; above 1 the table gives mean and spread")
    parser.add_argument("--out", type=str | None, help="the folder to write: comparison.json, .md and .png")
    parser.add_argument("--overwrite", action="store_true", help="replace the comparison in that folder")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda, cuda:1, mps, or auto")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def _evaluate_options(parser: ArgumentParser) -> None:
    _run_options(parser)
    _data_options(parser, default="test for the run's own data, all for others")
    parser.add_argument("--samples", type=int, default=1, help="samples per datum; above 1 gives the importance-weighted bound")


def _sample_options(parser: ArgumentParser) -> None:
    _run_options(parser)
    parser.add_argument("--n", type=int, default=64, help="how many data")
    parser.add_argument("--out", type=str, required=True, help="a .png picture or a .npy array")
    parser.add_argument("--y", type=str | None, help="a class, by its name, of a model conditioned on labels")
    parser.add_argument("--draws", action="store_true", help="draw from p(x | z) instead of taking its mean")


def _encode_options(parser: ArgumentParser) -> None:
    _run_options(parser)
    _data_options(parser, default="all")
    parser.add_argument("--samples", type=int | None, help="also draw so many codes per datum")
    parser.add_argument("--out", type=str, required=True, help="a .npz file")


def _list_options(parser: ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="a declaration, such as VAE")


def _run_options(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="a run folder")
    parser.add_argument("--seed", type=int, default=0, help="of every random draw")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda, cuda:1, mps, or auto")
    parser.add_argument("--trust", type=str, nargs="+", default=[], help="modules of yours whose classes the run may name")


def _data_options(parser: ArgumentParser, *, default: str) -> None:
    parser.add_argument("--data", type=str | None, help="a source or a YAML file; the run's own data otherwise")
    parser.add_argument("--data_root", "--data-root", type=str | None, help="folder of torchvision sets")
    parser.add_argument("--split", type=str | None, help=f"{', '.join(SPLITS)}; {default}")


_OPTIONS: dict[str, Callable[[ArgumentParser], None]] = {
    "fit": _fit_options,
    "compare": _compare_options,
    "evaluate": _evaluate_options,
    "sample": _sample_options,
    "encode": _encode_options,
    "list": _list_options,
}


def _expand(arguments: list[str]) -> list[str]:
    """A verb's short spellings written out; they come last, where `--method SVI` no longer resets them, and the model first."""
    if not arguments or arguments[0] not in ALIASES:
        return arguments
    verb, aliases = arguments[0], ALIASES[arguments[0]]
    parts: dict[str, list[str]] = {"--config": [], "--model": [], "": [], "short": []}
    words = iter(arguments[1:])
    for word in words:
        name, equals, value = word.partition("=")
        if name not in aliases and name not in ("--config", "--model"):
            parts[""].append(word)
            continue
        values = [value] if equals else list(islice(words, 1))
        whole = name == "--data" and "".join(values).endswith(YAML_SUFFIXES)
        place = name if name in parts else "" if whole else "short"
        parts[place].append("=".join([aliases[name], *(values or [""])] if place == "short" else [name, *values]))
    default = [] if parts["--model"] else [f"--model={MODELS[verb]}"]
    return [verb, *default, *chain.from_iterable(parts.values())]


def _rows(fitted: Fit, source: str | None, root: str | None, split: str) -> tuple[str, Split]:
    """The rows that a verb works on, under the fitted transform; with their name."""
    if split not in SPLITS:
        raise ValueError(f"expected a split of {', '.join(SPLITS)}, got {split!r}")
    declared = fitted.data
    if source is not None:
        is_yaml = source.endswith(YAML_SUFFIXES)
        declared = DataSource.from_yaml(Path(source)) if is_yaml else dataclasses.replace(declared, source=source)
    if root is not None:
        declared = dataclasses.replace(declared, root=root)
    return split, fitted.rows(declared, split)


def _writer(out: str, *suffixes: str) -> Callable[[dict[str, Callable[[Path], None]]], None]:
    """Check the output's suffix before any work is done; the result writes by it."""
    path = Path(out)
    if path.suffix not in suffixes:
        raise ValueError(f"expected --out to end in {' or '.join(suffixes)}, got {out!r}")

    def write(by_suffix: dict[str, Callable[[Path], None]]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        by_suffix[path.suffix](path)

    return write


def _save_atomically(path: Path, save: Callable[[typing.BinaryIO], None]) -> None:
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("wb") as file:
            save(file)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _catalogue() -> dict[str, list[type[Declaration]]]:
    families = [cls for cls in Declaration.__subclasses__() if inspect.isabstract(cls)]
    return {family.__name__: list(family_members(family)) for family in families}


def _summary(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]


def _print_json(content: dict[str, Any]) -> None:
    print(json.dumps(content))


def _print_table(splits: dict[str, dict[str, Any]], unit: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=unit, title_justify="left")
    columns = list(dict.fromkeys(name for numbers in splits.values() for name in numbers))
    for column in ["", *columns]:
        table.add_column(column, justify="right")
    for split, numbers in splits.items():
        table.add_row(split, *(f"{value:.3f}" if isinstance(value, float) else str(value) for value in numbers.values()))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _say_saved(folder: Path | None) -> None:
    if folder is not None:
        print(f"saved in {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")


def _done(content: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        _print_json(content)
    else:
        print(", ".join(f"{name}: {value}" for name, value in content.items()))


@contextlib.contextmanager
def _notes(*, quiet: bool) -> Iterator[None]:
    """What a fit remarks on is one line on standard error, said once."""
    said = set()
    others: Callable[..., None] = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if not issubclass(category, Remark):
            others(message, category, *where, **more)
        elif str(message) not in said:
            said.add(str(message))
            print(f"ppl-vae: note: {' '.join(str(message).split())}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore" if quiet else "always", category=Remark)
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def _refuse(message: str, *, code: int) -> int:
    print(f"ppl-vae: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _explain(message: str) -> str:
    """A parser's message in the words of a declaration: an unknown name lists the valid ones."""
    message = " ".join(message.split())
    if message.startswith("Unexpected config"):
        return f"expected a YAML file of {', '.join(runs.PARTS)} after --config, as a run's config.yaml is"
    for pattern in UNREADABLE:
        if found := re.search(pattern, message):
            message = _reason(found["part"], found["file"]) or message
    nested = re.search(r"Parser key \"(\w+)\": .* is abstract .*NestedArg\(key='(\w+)'", message)
    if nested:
        option = f"--{nested[1]}.{nested[2]}"
        choices = ", ".join(sorted(cls.__name__ for cls in family_members(runs.PARTS[nested[1]])))
        return f"{option} is a field of a {nested[1]}: name its class before it, --{nested[1]} with one of {choices}"
    unknown = re.search(r"Expected a dot import path string: (\S+)", message)
    keys = re.findall(r'Parser key "([\w.]+)"', message)
    if not unknown or not keys:
        return message
    option = keys[-1].rpartition(".")[2]
    names = sorted({cls.__name__ for base in _bases(option) for cls in family_members(base)})
    return f"unknown {option} {unknown[1]!r}: choose from {', '.join(names)}, or give the import path of your own class"


def _reason(part: str, file: str) -> str | None:
    """Why a YAML file declares no such part, which the parser keeps to itself."""
    try:
        parse(runs.PARTS[part], yaml.safe_load(Path(file).read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError) as error:
        return f"{file}: {' '.join(str(error).split())}"
    return None


def _bases(option: str) -> Iterator[type[Declaration]]:
    """The families that a field or option of this name holds."""
    families = {cls.__name__: cls for cls in Declaration.__subclasses__() if inspect.isabstract(cls)}
    for members in _catalogue().values():
        for cls in members:
            for field in dataclasses.fields(cls):
                if field.name == option:
                    yield from (family for name, family in families.items() if name in str(field.type))
    if (family := option.removesuffix("s").capitalize()) in families:  # --method as well as --methods
        yield families[family]
