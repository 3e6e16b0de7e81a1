"""The tables that the pages name, made or part of scikit-learn, so that the commands there run as they stand.

They are written where it is run; a line of what it prints is a file and what is in it. ``files_to_try.py`` writes the others.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_iris

rng = np.random.default_rng(0)


def write(name: str, content: str, header: str, *columns: np.ndarray) -> None:
    """A csv file of columns, and what is in it."""
    rows = np.column_stack([column.astype(object) for column in columns])
    lines = [",".join(header.split()), *(",".join(map(str, row)) for row in rows)]
    Path(name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{name:16}{content}")


def people() -> None:
    """Columns of all kinds, with gaps."""
    height = rng.normal(170, 9, 500).round(1)
    weight = np.where(rng.random(500) < 0.1, "", (height - 100 + rng.normal(0, 4, 500)).round(1).astype(str))
    rest = rng.poisson(3, 500), rng.random(500) < 0.3, rng.choice(["Aalen", "Bonn", "Celle"], 500)
    names = "height_cm weight_kg visits smokes town"
    write("people.csv", "500 people, a tenth of the weights missing", names, height, weight, *rest)


def flowers() -> None:
    """Columns of numbers."""
    iris, names = load_iris(), "sepal_length sepal_width petal_length petal_width"
    kind = iris.target_names[iris.target]
    write("iris.csv", "150 flowers, four lengths in cm", names, iris.data)
    write("table.csv", "the same", names, iris.data)
    write("new.csv", "four of them", names, iris.data[10::36])
    gaps = np.where(np.eye(4) > 0, "", iris.data[10::36].astype(str))
    write("gaps.csv", "the same four, a length missing in each", names, gaps)
    write("labelled.csv", "all of them, and their kind", f"{names} kind", iris.data, kind)
    write("survey.csv", "all of them, and w, what a row counts", f"{names} w", iris.data, 1 + np.arange(150) % 3)


def questions() -> None:
    """Columns of zeros and ones, which two traits lead to, and of counts, of two kinds of documents."""
    trait, names = rng.normal(size=(400, 2)), " ".join(f"q{i}" for i in range(12))
    answers = (rng.random((400, 12)) < 1 / (1 + np.exp(-trait @ rng.normal(0, 2, (2, 12))))).astype(int)
    kind = np.where(np.arange(400) % 5 > 0, "", np.where(trait[:, 0] < 0, "left", "right"))
    counts = rng.poisson(rng.lognormal(0, 0.5, (400, 1)) * np.where(trait[:, :1] < 0, [6, 1] * 6, [1, 6] * 6))
    write("answers.csv", "12 answers, 0 or 1, of 400 people", names, answers)
    write("some_labels.csv", "the same, a fifth of them with their kind", f"{names} kind", answers, kind)
    write("counts.csv", "counts of 12 words in 400 documents", names.replace("q", "word"), counts)


def weather() -> None:
    """Columns with causal arrows: the clouds, which nobody wrote down, lead to sprinkler and rain, and these to wet grass."""
    cloudy = rng.random(500) < 0.5
    sprinkler, rain = rng.random(500) < np.where(cloudy, 0.1, 0.5), rng.random(500) < np.where(cloudy, 0.8, 0.2)
    wet = rng.random(500) < np.array([0.01, 0.9, 0.99])[sprinkler.astype(int) + rain]
    days = np.where(np.stack([sprinkler, rain, wet], axis=1), "yes", "no")
    write("weather.csv", "500 days: sprinkler, rain, wet grass", "sprinkler rain wet", days)


if __name__ == "__main__":
    people()
    flowers()
    questions()
    weather()
