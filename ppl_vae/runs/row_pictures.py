"""The pictures of a run of drawings: data, draws, reconstructions, completions, and what lies between two of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from ppl_vae import plots
from ppl_vae.data import Ragged, Split
from ppl_vae.data.vocabulary import untokenized
from ppl_vae.evaluate.paths import path_between
from ppl_vae.fitting import Fit
from ppl_vae.plots.drawings import Drawings
from ppl_vae.program.context import evaluating, seeded
from ppl_vae.types import STROKES

__all__ = ["row_pictures"]

TEMPERATURES = (0.2, 0.5, 1.0)
ROWS = 24  # of texts and series in a picture
NAMES = [f"temperature {temperature:g}" for temperature in TEMPERATURES]
SHOWN, COMPLETED, STEPS = 36, 8, 9  # drawings in a picture, of which some are completed, and between two of them

Named = tuple[str, Figure]


def row_pictures(fit: Fit, rows: Split) -> Iterator[Named]:
    """Pictures of rows of elements, by their names: some, new ones, and the states or codes behind them."""
    if fit.spec.kind == STROKES:
        yield from _of_drawings(fit, rows)
        return
    some = rows[:ROWS]
    yield "data", _pictured(fit, some.as_read().raw, "data")
    if fit.pair.can.continue_rows is not None:
        yield "samples", _pictured(fit, fit.sample(len(some)), "draws, element after element")
    if fit.pair.can.decode_rows is not None:
        yield "reconstructions", _pictured(fit, fit.reconstruct(some), "what is decoded from the codes of the data")
    if fit.pair.can.find_path is not None:
        paths = fit.encode(some, path=True)
        title = "the most probable states of each row of the data"
        yield "states", plots.series([paths[place] for place in range(len(paths))], title=title, discrete=True)


def _pictured(fit: Fit, rows: Any, title: str) -> Figure:
    """Rows as texts where they were such, else as series; of series of vectors the first few."""
    if isinstance(rows, list):
        return plots.texts(rows, title=title)
    each = [rows[place] for place in range(len(rows))]
    tokens = fit.data.tokens
    if tokens is not None and rows.vocabulary:
        return plots.texts([untokenized(row.tolist(), rows.vocabulary, tokens) for row in each], title=title)
    return plots.series(each, title=title, discrete=fit.spec.kind.levelled)


def _of_drawings(fit: Fit, rows: Split) -> Iterator[Named]:
    """Drawings, new ones or those of codes, and how begun ones go on."""
    raw = rows.raw
    assert isinstance(raw, Ragged)
    yield "data", plots.drawings(raw[:SHOWN], title="data")
    if fit.pair.can.decode_rows is not None and fit.pair.can.generate is not None:
        yield from _of_codes(fit, rows[:COMPLETED])
    elif fit.pair.can.continue_rows is not None:
        drawn = [fit.sample(COMPLETED, length=_longest(fit), temperature=temperature) for temperature in TEMPERATURES]
        yield "samples", plots.drawings_table(drawn, NAMES, title="draws from p(x)")
    longer = (raw.lengths > 1).nonzero().flatten()[:COMPLETED].tolist()
    if fit.pair.can.continue_rows is not None and longer:
        yield "completions", _completed(fit, [raw[place] for place in longer])


def _of_codes(fit: Fit, rows: Split) -> Iterator[Named]:
    """Draws given z: from the prior, of data, and on the way from one datum to another."""
    raw = rows.raw
    assert isinstance(raw, Ragged)
    with evaluating(fit.pair), seeded(0, fit.device):
        prior = fit.pair.can.generate.prior().sample((COMPLETED,))  # type: ignore[union-attr]
    drawn = [_drawn(fit, prior, temperature) for temperature in TEMPERATURES]
    z = fit.encode(rows)
    again: list[Drawings] = [raw, *(_drawn(fit, z, temperature) for temperature in TEMPERATURES)]
    yield "reconstructions", plots.drawings_table(again, ["data", *NAMES], title="data, and draws given their codes")
    yield "samples", plots.drawings_table(drawn, NAMES, title="draws given z from the prior, a column each")
    ends = [(z[place], z[place + 1]) for place in range(0, min(len(z) - 1, 8), 2)]
    ways = [_drawn(fit, path_between(*pair, STEPS, "spherical"), 0.0) for pair in ends]
    if ways:
        yield (
            "interpolations",
            plots.drawings_table(ways, title="from the code of one datum to that of another, what stands for each"),
        )


def _drawn(fit: Fit, z: Tensor, temperature: float) -> list[Tensor]:
    """A drawing for each code ``(n, K)``."""
    with evaluating(fit.pair), seeded(0, fit.device):
        x, length = fit.pair.can.decode_rows.decoded_rows(z, temperature=temperature)  # type: ignore[union-attr]
    raw = fit.transform.inverse(x)
    return [row[:size] for row, size in zip(raw, length.tolist(), strict=True)]


def _longest(fit: Fit) -> int:
    """Points of the longest drawing of the data."""
    return fit.spec.fields[0].longest or 1


def _completed(fit: Fit, rows: list[Tensor]) -> Figure:
    """Drawings of which the first half is given, and three ways to go on."""
    known = [len(row) // 2 for row in rows]
    longest = max(2 * max(known), _longest(fit))
    given = Ragged.from_list([row[:size] for row, size in zip(rows, known, strict=True)])
    drawn = [fit.sample(len(rows), given=given, length=longest, seed=seed) for seed in range(3)]
    names = ["data", "draw 1", "draw 2", "draw 3"]
    return plots.drawings_table([rows, *drawn], names, known=known, title="begun in black, gone on in red")
