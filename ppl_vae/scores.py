"""What the mean of log p(x, z) - log q(z | x) is of a pair, and what it may be called.

Of densities it is the ELBO. Of a point in place of q it is log p(x, z), and of a code without p(z) log p(x | z); terms that are
weighed, or are no densities, sum to something else. Whatever prints or draws the number asks its score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, asdict, dataclass
from typing import Any, Literal

from ppl_vae.named import Named

__all__ = [
    "ELBO",
    "LOG_JOINT",
    "RECONSTRUCTION",
    "SCORES",
    "UNNORMALIZED_OBJECTIVE",
    "WEIGHTED_OBJECTIVE",
    "Score",
    "score_of",
]

PARTS = ("reconstruction", "kl")
TAKEN = frozenset(
    {"epoch", "chain", "stage", "objective", "objective_name", "learning_rate", "seconds"}
    | {"kl", "log_likelihood", "gap", "iwae", "k_hat_bad", "ais", "bits_per_dim", "samples", "n", "n_effective", "unit"}
)
"""What else stands in rows of a history and among the numbers of an evaluation."""

BOUNDS = {"lower": "A lower bound on {}", "exact": "{} itself", None: "No bound on {}"}


@dataclass(frozen=True, eq=False)
class Score(Named):
    """What the number is that a pair's terms sum to, in nats per datum. It equals its name: ``pair.score == "elbo"``.

    A program tells its own by an attribute: ``model.score = Score("evidence", "log p(x)", bound="exact")``.

    Args:
        name: the key in rows of a history, and among the numbers of an evaluation.
        label: what people read.
        bound: whether it bounds log p(x) from below, is it exactly, or neither.
        parts: which of ``reconstruction`` and ``kl`` are told beside it.
        points: whether points stand in place of posteriors, so that one sample is as good as many.
        note: a few words more, such as what it consists of.
        target: what it bounds or is, of programs without data.

    Raises:
        ValueError: a name that is none or is taken, no label, another bound or part, or an ELBO by its label that is no lower
            bound.
    """

    name: str
    label: str
    bound: Literal["lower", "exact"] | None = None
    _: KW_ONLY
    parts: tuple[str, ...] = ()
    points: bool = False
    note: str = ""
    target: str = "log p(x)"

    def __post_init__(self) -> None:
        named = isinstance(self.name, str) and self.name.isidentifier() and self.name not in TAKEN
        named = named and not (self.name.startswith("valid_") or self.name.endswith("_se"))
        for field, expected, found in (
            ("name", "a name of its own, such as 'evidence'", named),
            ("label", "a line of text", isinstance(self.label, str) and self.label.isprintable() and bool(self.label)),
            ("bound", "lower, exact or none", self.bound in ("lower", "exact", None)),
            ("parts", f"some of {' and '.join(PARTS)}", isinstance(self.parts, tuple) and set(self.parts) <= {*PARTS}),
            ("points", "true or false", isinstance(self.points, bool)),
            ("note", "a line of text", isinstance(self.note, str) and self.note.isprintable()),
            ("target", "a line of text", isinstance(self.target, str) and self.target.isprintable()),
        ):
            if not found:
                raise ValueError(f"expected {field} of a score: {expected}, got {str(getattr(self, field))[:80]!r}")
        if self.bound != "lower" and "elbo" in self.label.lower():
            raise ValueError(
                f"a score that is no lower bound on log p(x) is no ELBO, got the label {self.label!r}: give another, or "
                "bound='lower' if it is one"
            )

    @property
    def title(self) -> str:
        """The label, and of what is no bound the note."""
        return f"{self.label}: {self.note}" if self.note and not self.bound else self.label

    @property
    def meaning(self) -> str:
        """Sentences that say whether it bounds log p(x), and what it consists of."""
        what = BOUNDS[self.bound].format(self.target)
        return f"{what[0].upper()}{what[1:]}{': ' if self.note else ''}{self.note}. Higher is better."

    @staticmethod
    def of(value: object) -> Score:
        """The score of a name, or a score of one's own.

        Raises:
            ValueError: no such name, or a score under the name of one of :data:`SCORES` that is another.
        """
        own = isinstance(value, Score)
        found = SCORES.get(str(value)) if isinstance(value, (str, Score)) else None
        if found is None and not own:
            raise ValueError(
                f"expected a score of {', '.join(SCORES)}, got {str(value)[:80]!r}: give the program's attribute one of them, "
                "or a Score of your own"
            )
        if own and found is not None and vars(found) != vars(value):
            raise ValueError(f"expected a name of its own of a score, got {str(value)!r}, which is the name of {found!r}")
        return found or value  # type: ignore[return-value]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a run folder keeps them."""
        return {**asdict(self), "parts": list(self.parts)}

    @classmethod
    def from_dict(cls, fields: Any) -> Score:
        """The score that :meth:`to_dict` told.

        Raises:
            ValueError: not the fields of a score.
        """
        try:
            return cls.of(cls(**{**fields, "parts": tuple(fields.get("parts", ()))}))
        except (TypeError, AttributeError):
            raise ValueError(f"expected the fields of a score, got {str(fields)[:80]!r}") from None


ELBO = Score("elbo", "ELBO", "lower", parts=PARTS, note="reconstruction - KL")
LOG_JOINT = Score("log_joint", "log p(x, z)", parts=("reconstruction",), points=True, note="at a point in place of a posterior")
RECONSTRUCTION = Score("reconstruction", "reconstruction", parts=("reconstruction",), points=True, note="log p(x | z)")
WEIGHTED_OBJECTIVE = Score("weighted_objective", "weighted objective", note="terms with scales of their own")
UNNORMALIZED_OBJECTIVE = Score("unnormalized_objective", "unnormalized objective", note="terms that are no densities")

SCORES: dict[str, Score] = {
    score.name: score for score in (ELBO, LOG_JOINT, RECONSTRUCTION, WEIGHTED_OBJECTIVE, UNNORMALIZED_OBJECTIVE)
}
"""The scores that the library finds by itself, by their names; programs may have others."""


def score_of(row: Mapping[str, Any], own: Score | None = None) -> Score:
    """The score that a row of numbers is about: ``own`` if it is there, else the first of :data:`SCORES`, else the ELBO."""
    known = (*([] if own is None else [own]), *SCORES.values())
    return next((score for score in known if row.get(score.name) is not None), ELBO)
