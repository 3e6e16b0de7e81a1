"""``ppl-vae compare``: one declared model, several methods."""

from __future__ import annotations

from jsonargparse import ArgumentParser

from ppl_vae import runs
from ppl_vae.cli.output import print_json, say_saved
from ppl_vae.data import DataSource, load_data
from ppl_vae.guides import Guide
from ppl_vae.inference import Method, compare
from ppl_vae.inference.progress import quiet as say_nothing
from ppl_vae.models import Model

__all__ = ["options", "run"]


def run(
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
        return print_json(found.to_dict())
    if not quiet:
        print(f"{model}\n{runs.UNIT}; s: seconds{'; ±: standard deviation over seeds' if seeds > 1 else ''}\n{found}")
        say_saved(folder)
    return None


def options(parser: ArgumentParser) -> None:
    """Add the verb's options."""
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
