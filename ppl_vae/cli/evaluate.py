"""``ppl-vae evaluate``: how good a run is."""

from __future__ import annotations

from jsonargparse import ArgumentParser

from ppl_vae import runs
from ppl_vae.cli.options import data_options, rows_of, run_options
from ppl_vae.cli.output import print_json, print_table

__all__ = ["options", "run"]


def run(
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
    name, rows = rows_of(fitted, data, data_root, split or ("test" if data is None else "all"))
    numbers = {name: fitted.evaluate(rows, samples=samples, seed=seed)}
    if json:
        return print_json({**numbers, "unit": runs.UNIT})
    print(f"{fitted.model}\n{fitted.guide}")
    return print_table(numbers, runs.UNIT)


def options(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    run_options(parser)
    data_options(parser, default="test for the run's own data, all for others")
    parser.add_argument("--samples", type=int, default=1, help="samples per datum; above 1 gives the importance-weighted bound")
