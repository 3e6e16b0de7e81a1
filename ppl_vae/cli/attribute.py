"""``ppl-vae attribute``: a direction between two classes in the space of codes, and data moved along it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ppl_vae import runs
from ppl_vae.cli.options import data_options, rows_of, run_options
from ppl_vae.cli.output import done, print_json, writer
from ppl_vae.cli.walks import SUFFIXES, as_pictured, row_at, walks_writers
from ppl_vae.types import DirectionBy

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser
    from torch import Tensor

    from ppl_vae.data import Split
    from ppl_vae.fitting import Fit
    from ppl_vae.fitting.resynthesis import Attribute, Resynthesis

__all__ = ["options", "run"]

SHOWN = 6  # rows, where none are named


def run(
    *,
    run: str,
    positive: str,
    negative: str | None,
    second: str | None,
    second_negative: str | None,
    by: DirectionBy,
    rows: list[int] | None,
    strengths: list[float],
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
    """Find the direction from the codes of one class to those of another, and resynthesize rows along it.

    The direction is found from the training rows and measured on those of the split. Rows, by default some that lack the
    attribute, are decoded at every strength: 0 is the reconstruction, 1 leads as far as from the mean of the one class to that
    of the other. With `--second` the first of the rows is decoded on a grid of two directions. Texts are printed; images,
    drawings and columns are a picture (.png); `x`, the codes and the directions are arrays (.npz, .npy).
    """
    import numpy as np

    write = None if out is None else writer(out, *SUFFIXES)
    fitted = runs.load_run(run, trust=trust, device=device)
    train, test = (rows_of(fitted, data, data_root, part, label=label, y=y)[1] for part in ("train", split or "test"))
    kinds = [(positive, negative)] + ([] if second is None else [(second, second_negative)])
    names = [_name(*kind) for kind in kinds]
    found = [_between(fitted, train, test, *kind, by=by, seed=seed) for kind in kinds]
    rows = rows or _kinds(fitted, test, *kinds[0])[1].nonzero().flatten()[:SHOWN].tolist()
    texts: list[list[str]] | None = None
    if write is not None or fitted.data.tokens is not None:
        shown = [row_at(test, place) for place in (rows if second is None else rows[:1])]
        moved = [fitted.resynthesize(row, found, [strengths] * len(found), seen=as_pictured(fitted, out)) for row in shown]
        decoded, codes = _ways(moved, grid=second is not None)
        texts = decoded if isinstance(decoded, list) and isinstance(decoded[0][0], str) else None
        if write is not None:
            at = [f"{strength:g}" for strength in strengths]
            ways = [f"row {place}" for place in rows] if second is None else at
            title = f"along {names[0]}" if second is None else f"row {rows[0]}: down {names[0]}, across {names[1]}"
            extra = {"strengths": np.array(strengths, dtype=np.float32), **_directions(found)}
            write(walks_writers(fitted, decoded, codes, ways, at, title=title, extra=extra))
    _say(names, found, texts, out, as_json=json)


def _between(
    fitted: Fit, train: Split, test: Split, positive: str, negative: str | None, *, by: DirectionBy, seed: int
) -> Attribute:
    """The attribute of a class, against another or against all others."""
    one, other = _kinds(fitted, train, positive, negative)
    held_one, held_other = _kinds(fitted, test, positive, negative)
    return fitted.attribute(train[one], train[other], test=(test[held_one], test[held_other]), by=by, seed=seed)


def _kinds(fitted: Fit, rows: Split, positive: str, negative: str | None) -> tuple[Tensor, Tensor]:
    """Which rows are of a class ``(N,)``, and which of another or of any other."""
    if rows.y is None:
        raise ValueError("expected rows with classes, got none: name the column of labels (--label)")
    if positive == negative:
        raise ValueError(f"expected two classes to tell apart, got {positive} twice: leave --negative out for all others")
    one = rows.y == int(fitted.classes(positive))
    other = (rows.y >= 0) & ~one if negative is None else rows.y == int(fitted.classes(negative))
    return one, other


def _name(positive: str, negative: str | None) -> str:
    return f"{positive} against {'all others' if negative is None else negative}"


def _ways(moved: list[Resynthesis], *, grid: bool) -> tuple[Any, Any]:
    """Data and codes as rows of steps: a row a datum, or of a grid a row a strength of the first attribute."""
    import torch
    from torch import Tensor

    from ppl_vae.program.sites import leaves

    codes = [leaves(each.codes) for each in moved]
    axis = 2 if grid else 1  # of the one datum of each
    together = {
        name: codes[0][name].squeeze(axis) if grid else torch.stack([each[name].squeeze(axis) for each in codes])
        for name in codes[0]
    }
    decoded = [each.decoded for each in moved]
    if isinstance(decoded[0], Tensor):
        return (decoded[0].squeeze(2) if grid else torch.stack([x.squeeze(1) for x in decoded])), together
    cells = decoded[0] if grid else decoded
    return [[step[0] for step in way] for way in cells], together


def _directions(found: list[Attribute]) -> dict[str, Any]:
    """Arrays of the directions, by site of several latent variables."""
    from ppl_vae.program.sites import leaves

    return {
        "_".join(["direction", *([str(place)] if len(found) > 1 else []), *([name] if name else [])]): part.cpu().numpy()
        for place, attribute in enumerate(found, 1)
        for name, part in leaves(attribute.direction, "").items()
    }


def _say(names: list[str], found: list[Attribute], texts: list[list[str]] | None, out: str | None, *, as_json: bool) -> None:
    """Print how well each direction tells its classes apart, and texts."""
    if as_json:
        told = {} if texts is None else {"texts": texts}
        numbers = ("accuracy", "accuracy_se", "separation", "n", "by")
        each = [{"attribute": name} | {key: vars(one)[key] for key in numbers} for name, one in zip(names, found, strict=True)]
        print_json({"attributes": each, **told, "out": out})
        return
    for name, one in zip(names, found, strict=True):
        print(f"{name}: {one}")
    for way in texts or ():
        print("\n".join(way), end="\n\n")
    if out is not None:
        done({"out": out}, as_json=False)


def options(parser: ArgumentParser) -> None:
    """Add the verb's options."""
    run_options(parser)
    parser.add_argument("--positive", type=str, required=True, help="the class that has the attribute, by its name")
    parser.add_argument("--negative", type=str | None, help="the class that lacks it; all others otherwise")
    parser.add_argument("--second", type=str | None, help="the class of a second attribute, for a grid of the two")
    parser.add_argument("--second_negative", "--second-negative", type=str | None, help="the class that lacks the second")
    parser.add_argument(
        "--by", type=DirectionBy, default="means", help="the difference of means, or a linear probe: means or probe"
    )
    parser.add_argument("--rows", type=int, nargs="+", help="numbers of rows of the split, from 0")
    strengths = [-1.0, -0.5, 0.0, 0.5, 1.0, 1.5]
    parser.add_argument("--strengths", type=float, nargs="+", default=strengths, help="how far to go along a direction")
    data_options(parser, default="test")
    parser.add_argument("--out", type=str | None, help="a .png picture, or arrays: .npz, .npy")
