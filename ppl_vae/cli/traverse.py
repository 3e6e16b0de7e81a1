"""``ppl-vae traverse``: what each dimension of a run's codes stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ppl_vae import runs
from ppl_vae.cli.options import data_options, rows_of, run_options
from ppl_vae.cli.output import done, print_json, writer
from ppl_vae.cli.walks import SUFFIXES, as_pictured, row_at, walks_writers

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from ppl_vae.fitting.traversing import Traversal

__all__ = ["options", "run"]


def run(
    *,
    run: str,
    around: int | None,
    steps: int,
    dimensions: list[str] | None,
    every: bool,
    data: str | None,
    data_root: str | None,
    label: str | None,
    y: str | None,
    split: str | None,
    out: str | None,
    seed: int,
    device: str,
    trust: list[str],
    json: bool,
) -> None:
    """Decode codes along single dimensions, through the quantiles of the prior: a picture (.png) or arrays (.npz, .npy).

    The others stand at the centre of the prior, or at the code of a datum. Dimensions that hold something come first: they are
    ordered by their KL in nats, the mean over the rows, and those whose means do not vary are left out. Texts are printed;
    drawings are a picture (.png).
    """
    write = None if out is None else writer(out, *SUFFIXES)
    fitted = runs.load_run(run, trust=trust, device=device)
    _, rows = rows_of(fitted, data, data_root, split or "test", label=label, y=y)
    found = fitted.traverse(
        rows,
        around=None if around is None else row_at(rows, around),
        steps=steps,
        dimensions=dimensions,
        active=not every,
        y=y,
        seed=seed,
        seen=as_pictured(fitted, out),
    )
    if write is not None:
        title = f"quantiles of p(z) {'at the centre' if around is None else f'around row {around}'}"
        kl = {} if found.kl is None else {"kl": found.kl.numpy()}
        extra = {"levels": found.levels.numpy(), **kl}
        columns = [f"{level:.2f}" for level in found.levels.tolist()]
        write(walks_writers(fitted, found.decoded, found.codes, _named(found), columns, title=title, extra=extra))
    _say(found, out, as_json=json)


def _named(found: Traversal) -> list[str]:
    """The dimensions with their KL."""
    if found.kl is None:
        return list(found.dimensions)
    return [f"{name}: {kl:.2f} nats" for name, kl in zip(found.dimensions, found.kl.tolist(), strict=True)]


def _say(found: Traversal, out: str | None, *, as_json: bool) -> None:
    """Print the dimensions, and texts below each."""
    texts: Any = found.decoded if isinstance(found.decoded, list) and isinstance(found.decoded[0], list) else None
    if as_json:
        kl = None if found.kl is None else found.kl.tolist()
        told = {} if texts is None else {"texts": texts}
        print_json({"dimensions": list(found.dimensions), "kl": kl, "levels": found.levels.tolist(), **told, "out": out})
        return
    for place, name in enumerate(_named(found)):
        print(name)
        for line in texts[place] if texts is not None else ():
            print(f"  {line}")
    if out is not None:
        done({"out": out}, as_json=False)


def options(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    run_options(parser)
    parser.add_argument("--around", type=int | None, help="the number of a row of the split, from 0; else the prior's centre")
    parser.add_argument("--steps", type=int, default=11, help="quantiles of each dimension")
    parser.add_argument("--dimensions", type=str, nargs="+", help="names such as z1, or z2_1 of several latent variables")
    parser.add_argument("--every", action="store_true", help="also dimensions whose posterior means do not vary")
    data_options(parser, default="test")
    parser.add_argument("--out", type=str | None, help="a .png picture, or arrays: .npz, .npy")
