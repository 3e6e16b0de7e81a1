"""``ppl-vae select``: which value of a field the data favour."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppl_vae import fitting, selection
from ppl_vae.cli.output import print_json, say_saved
from ppl_vae.data import DataSource
from ppl_vae.declaration import Declaration
from ppl_vae.nested import plain_field
from ppl_vae.selection.criteria import By, Rule

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from ppl_vae.guides import Guide
    from ppl_vae.inference import Method
    from ppl_vae.models import Model

__all__ = ["options", "run"]


def run(
    *,
    model: Model,
    guide: Guide | None,
    method: Method | None,
    data: DataSource,
    seed: int | None,
    field: str,
    values: list[Any],
    by: By,
    rule: Rule,
    folds: int,
    samples: int,
    jobs: int,
    out: str | None,
    device: str,
    quiet: bool,
    json: bool,
) -> None:
    """Fit a model with each of several values of a field, and tell which one the data favour."""
    from ppl_vae.data import load_data
    from ppl_vae.evaluate.metrics import UNIT
    from ppl_vae.fitting.fit import settled
    from ppl_vae.selection.candidates import PARTS

    name = field.replace(".", "__")
    part, _, rest = name.partition("__")
    loaded = load_data(data)
    if method is None and (part == "method" or seed is not None):
        method = fitting.default_method(settled(model, loaded), guide, model.resolve(loaded))
    method = method if seed is None or method is None else dataclasses.replace(method, seed=seed)
    parts: dict[str, Declaration | None] = {"guide": guide, "method": method}
    declared, inner = (parts[part], rest) if rest and part in PARTS else (model, name)
    taken = values if declared is None else [plain_field(declared, inner, value) for value in values]
    found = selection.select(
        model,
        loaded,
        by=by,
        rule=rule,
        method=method,
        guide=guide,
        folds=folds,
        samples=samples,
        jobs=jobs,
        device=device,
        out=out,
        progress=not (quiet or json),
        field=name,
        values=taken,
    )
    if json:
        return print_json({"unit": UNIT, "model": str(found.best), **found.to_dict(), "out": out})
    if not quiet:
        print(f"{found.best}\n{UNIT}; s: seconds; ±: standard error over the rows\n{found}")
        say_saved(None if out is None else Path(out))
    return None


def options(parser: ArgumentParser, families: Any) -> None:
    """Add the verb's options, some of which hold members of ``families``."""
    what = "the model: a class name, an import path or a YAML file; by default GMM"
    parser.add_argument("--model", type=families.Model, default=None, sub_configs=True, help=what)
    what = "the approximate posterior, likewise; by default what suits model and method"
    parser.add_argument("--guide", type=families.Guide | None, default=None, sub_configs=True, help=what)
    what = "how to fit, likewise; by default EM or a formula where the model offers it, else SVI, by the number of rows"
    parser.add_argument("--method", type=families.Method | None, default=None, sub_configs=True, help=what)
    what = "a source (see --data.source) or a YAML file"
    parser.add_argument("--data", type=DataSource, default=DataSource(), sub_configs=True, help=what)
    parser.add_argument("--seed", type=int, default=None, help="of the method")
    what = "the field that is chosen, such as components, latent_dim, prior.components, method.epochs"
    parser.add_argument("--field", type=str, required=True, help=what)
    parser.add_argument("--values", type=list, required=True, help="its values, such as [1,2,3]")
    what = "the criterion: bic or aic of the training rows, heldout (the validation rows), or cv (folds of the training rows)"
    parser.add_argument("--by", type=By, default="bic", help=what)
    what = "the best, or the simplest within one standard error of it (heldout, cv)"
    parser.add_argument("--rule", type=Rule, default="best", help=what)
    parser.add_argument("--folds", type=int, default=5, help="of cv")
    parser.add_argument("--samples", type=int, default=100, help="per datum, of the bound where log p(x) is not known")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--out", type=str | None, help="the folder to write as fits are done; a second call goes on with it")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda, cuda:1, mps, or auto")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
