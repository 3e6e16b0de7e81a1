"""``ppl-vae compare``: one declared model by several methods, or saved runs side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ppl_vae import fitting
from ppl_vae import runs as saved
from ppl_vae.cli.output import print_json, say_saved
from ppl_vae.data import DataSource
from ppl_vae.storage import check_free
from ppl_vae.storage.folder import COMPARISON_FILES

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from ppl_vae.fitting import Comparison
    from ppl_vae.guides import Guide
    from ppl_vae.inference import Method
    from ppl_vae.models import Model
    from ppl_vae.runs import RunComparison

__all__ = ["options", "run"]


def run(
    *,
    runs: list[str],
    across_data: bool,
    samples: int | None,
    trust: list[str],
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
    """Put saved runs side by side; or fit one declared model by several methods: what each reaches, and how fast."""
    from ppl_vae.evaluate.metrics import UNIT
    from ppl_vae.fitting.callbacks.progress import quiet as say_nothing
    from ppl_vae.fitting.fit import DIGITS, without_data

    folder = None if out is None else check_free(out, overwrite=overwrite, kind="comparison")
    found: Comparison | RunComparison
    save: Any
    if runs:
        found = saved.compare_runs(runs, across_data=across_data, samples=samples, trust=trust, device=device)
        title, save = f"{UNIT}, {found.split} data; ±: standard error over the data; s: seconds", saved.save_run_comparison
    elif across_data or samples is not None:
        raise ValueError("--across-data and --samples are for saved runs: name their folders, ppl-vae compare RUN1 RUN2")
    else:
        progress = say_nothing if quiet or json else None
        data = without_data(model, DIGITS if data == DataSource() else data)
        found = fitting.compare(model, data, methods=methods, guides=guides, seeds=seeds, device=device, progress=progress)
        title = f"{model}\n{model.unit}; s: seconds{'; ±: standard deviation over seeds' if seeds > 1 else ''}"
        save = saved.save_comparison
    if folder is not None:
        save(found, folder, overwrite=overwrite)
    if json:
        return print_json(found.to_dict())
    if not quiet:
        print(f"{title}\n{found}")
        say_saved(folder)
    return None


def options(parser: ArgumentParser, families: Any) -> None:
    """Add the verb's options, some of which hold members of ``families``."""
    parser.add_argument("runs", type=str, nargs="*", help="run folders to put side by side; no option of a fit matters then")
    what = "also runs of other data, splits or binarizations, whose numbers do not compare"
    parser.add_argument("--across_data", "--across-data", action="store_true", help=what)
    what = "evaluate the runs anew, on test data where all have some, with so many samples per datum"
    parser.add_argument("--samples", type=int | None, default=None, help=what)
    what = "modules of yours whose classes the runs may name"
    parser.add_argument("--trust", type=str, nargs="+", default=[], help=what)
    what = "the model: a class name, an import path or a YAML file; by default FactorAnalysis"
    parser.add_argument("--model", type=families.Model, default=None, sub_configs=True, help=what)
    what = "how to fit: [EM,SVI], or with fields [EM,{class_path: SVI, init_args: {epochs: 20}}]"
    parser.add_argument("--methods", type=list[families.Method], default=["ppl_vae.EM", "ppl_vae.SVI"], help=what)
    what = "approximate posteriors for the methods that fit them, likewise; by default what suits model and method"
    parser.add_argument("--guides", type=list[families.Guide] | None, default=None, help=what)
    what = "a source (see --data.source) or a YAML file"
    parser.add_argument("--data", type=DataSource, default=DataSource(), sub_configs=True, help=what)
    parser.add_argument("--seeds", type=int, default=1, help="fits of each row; above 1 the table gives mean and spread")
    parser.add_argument("--out", type=str | None, help=f"the folder to write: {', '.join(COMPARISON_FILES)}")
    parser.add_argument("--overwrite", action="store_true", help="replace the comparison in that folder")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda, cuda:1, mps, or auto")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
