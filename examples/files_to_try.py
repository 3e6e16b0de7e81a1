"""Texts, series, drawings, pictures and cells as the pages name them, so that the commands there run as they stand.

They are written where it is run; a line of what it prints is files and what is in them. ``tables_to_try.py`` writes the tables.
Cells need anndata. Published files are not among them: tinyshakespeare.txt, docword.kos.txt with vocab.kos.txt, sheep.npz.
"""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

STARTS = ("To be", "To die", "To sleep", "To dream", "To end")
MIDDLES = ("or not to be", "no more", "perchance", "and by a sleep")
ENDS = ("that is the question", "to say we end", "to take arms", "must give us pause", "in that sleep of death")

rng = np.random.default_rng(0)


def texts() -> None:
    """A sentence a line."""
    lines = rng.permutation([", ".join(words) + "." for words in itertools.product(STARTS, MIDDLES, ENDS)])
    for name in ("lines.txt", "sentences.txt"):
        Path(name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"lines.txt, sentences.txt    {len(lines)} sentences, one a line: {lines[0]}")


def arrays() -> None:
    """Points (N, 2), images (N, 8, 8), series (N, T, 2), drawings as rows (dx, dy, pen) with offsets."""
    np.save("points.npy", rng.normal(size=(300, 2)) + np.repeat([[0, 0], [6, 0], [0, 6]], 100, axis=0))
    np.save("new.npy", (load_digits().images[:50] < 8).astype(np.uint8))
    time = np.arange(40) / 3 + rng.uniform(0, 6, (60, 1))
    np.savez("series.npz", x=np.stack([np.sin(time), np.cos(time)], axis=2) + rng.normal(0, 0.2, (60, 40, 2)))
    drawings = []
    for corners in rng.integers(3, 7, 300):
        angle = 2 * np.pi * (np.arange(corners + 1) / corners + rng.random())
        places = rng.uniform(20, 60) * np.stack([np.cos(angle), np.sin(angle)], axis=1) + rng.normal(0, 2, (corners + 1, 2))
        drawings.append(np.column_stack([np.diff(places, axis=0, prepend=0), np.arange(corners + 1) == corners]).round())
    np.savez("sketches.npz", points=np.concatenate(drawings).astype(np.int16), offsets=np.cumsum([0, *map(len, drawings)]))
    print("points.npy, new.npy         300 points in three heaps; 50 digits in black and white, exchanged")
    print("series.npz, sketches.npz    60 series of 40 pairs that swing; 300 polygons drawn by a shaky hand")


def pictures() -> None:
    """The left of two photographs, and a square of the right of one: as it is, with noise, with pixels torn out."""
    china, flower = load_sample_images().images
    Path("photos").mkdir(exist_ok=True)
    colour = china[150:278, 500:628]
    truth = np.asarray(Image.fromarray(colour).convert("L"))
    mask = rng.random(truth.shape) < 0.3
    made = {"truth": truth, "mask": 255 * mask, "torn": np.where(mask, 0, truth)}
    made |= {"photos/china": china[:, :480], "photos/flower": flower[:, :480]}
    made |= {name: image + rng.normal(0, 25, image.shape) for name, image in {"noisy": truth, "colour": colour}.items()}
    for name, image in made.items():
        shown = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
        (shown.convert("L") if "/" in name else shown).save(f"{name}.png")
    print("photos                      parts of two photographs; of another part truth, noisy, colour, torn, mask (.png)")


def cells() -> None:
    """Counts of 50 genes in 440 cells of two types from two batches."""
    import anndata

    kind, batch = rng.choice(["B", "T"], 440), rng.choice(["one", "two"], 440)
    rates = np.where((kind[:, None] == "B") == (np.arange(50) % 2 == 0), 4.0, 0.5) * rng.lognormal(0, 0.5, (440, 1))
    counts = rng.poisson(rates * np.where(batch[:, None] == "one", 1.0, np.linspace(0.5, 2.0, 50))).astype(np.float32)
    for name, rows in {"cells": slice(400), "new_cells": slice(400, 440)}.items():
        anndata.AnnData(counts[rows], obs={"cell_type": kind[rows], "batch": batch[rows]}).write_h5ad(f"{name}.h5ad")
    print("cells.h5ad, new_cells.h5ad  400 and 40 cells: counts of 50 genes, cell_type and batch")


if __name__ == "__main__":
    for make in (texts, arrays, pictures, *([cells] if importlib.util.find_spec("anndata") else [])):
        make()
