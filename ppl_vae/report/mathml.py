"""A declaration's story as MathML, which browsers set as mathematics and screen readers read.

The stories are plain text such as ``z ~ Normal(0, I_2)``: names with ``_`` and ``^``, operators, and a few words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ppl_vae.report.markup import Markup, tag

__all__ = ["formula", "lines"]

GREEK = dict(
    zip(
        [
            "alpha",
            "beta",
            "gamma",
            "delta",
            "epsilon",
            "eta",
            "theta",
            "lambda",
            "mu",
            "nu",
            "pi",
            "rho",
            "sigma",
            "tau",
            "phi",
            "psi",
            "omega",
            "Sigma",
            "Theta",
            "Lambda",
            "Phi",
            "Psi",
        ],
        "αβγδεηθλμνπρστφψωΣΘΛΦΨ",
        strict=True,
    )
)
SYMBOLS = {"~": "\N{TILDE OPERATOR}", "|": "\N{DIVIDES}", "-": "\N{MINUS SIGN}", "..": "…", "*": "·"}
TOKEN = re.compile(r"(?P<space>\s+)|(?P<number>\d+(?:\.\d+)?(?:e[+-]?\d+)?)|(?P<name>[^\W\d_]+)|(?P<other>\.\.|.)", re.DOTALL)

Token = tuple[str, str]


def lines(story: str) -> list[str]:
    """A story's statements, parted at the semicolons outside of brackets."""
    parts, depth = [""], 0
    for character in story:
        depth += (character in "([{") - (character in ")]}")
        if character == ";" and depth <= 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def formula(text: str) -> Markup:
    """One statement as a ``math`` element that carries its text for those who read that."""
    row = tag("mrow", *_row(_tokens(text)))
    source = tag("annotation", text, encoding="text/plain")
    return tag("math", tag("semantics", row, source), display="block", aria_label=text)


def _tokens(text: str) -> list[Token]:
    return [(str(found.lastgroup), found[0]) for found in TOKEN.finditer(text)]


def _row(tokens: list[Token]) -> Iterator[Markup]:
    """Atoms with their indices and exponents, in order."""
    place = 0
    while place < len(tokens):
        kind, text = tokens[place]
        if kind == "space":
            place += 1
            if _is_product(tokens, place):
                yield tag("mspace", width="0.2em")
            continue
        atom = _atom(kind, text, "".join(token for _, token in tokens[place + 1 : place + 3]).lstrip())
        place += 1
        scripts: dict[str, Markup] = {}
        if kind == "name" and text in GREEK and place < len(tokens) and tokens[place][0] == "number":
            scripts["_"], place = _atom(*tokens[place], ""), place + 1  # mu0
        while place + 1 < len(tokens) and tokens[place][1] in ("_", "^") and tokens[place][1] not in scripts:
            mark = tokens[place][1]
            scripts[mark], place = _script(tokens, place + 1)
        yield _with_scripts(atom, scripts)


def _is_product(tokens: list[Token], place: int) -> bool:
    """Whether a space parts two factors, which a thin space shows; operators bring their own."""
    if not 2 <= place < len(tokens):
        return False
    before, after = tokens[place - 2], tokens[place]
    return (before[0] != "other" or before[1] in ")]}") and (after[0] != "other" or after[1] in "([{")


def _script(tokens: list[Token], place: int) -> tuple[Markup, int]:
    """What an index or exponent holds: one atom, perhaps with its sign."""
    kind, text = tokens[place]
    signed = text == "-" and place + 1 < len(tokens)
    if not signed:
        return _atom(kind, text, ""), place + 1
    return tag("mrow", _atom(kind, text, ""), _atom(*tokens[place + 1], "")), place + 2


def _with_scripts(atom: Markup, scripts: dict[str, Markup]) -> Markup:
    if not scripts:
        return atom
    if len(scripts) == 2:
        return tag("msubsup", atom, scripts["_"], scripts["^"])
    return tag("msub", atom, scripts["_"]) if "_" in scripts else tag("msup", atom, scripts["^"])


def _atom(kind: str, text: str, following: str) -> Markup:
    if kind == "number":
        return tag("mn", text)
    if kind == "other":
        return tag("mo", SYMBOLS.get(text, text), stretchy="false")
    if text == "sum":
        return tag("mo", "∑")
    if text in GREEK:
        return tag("mi", GREEK[text])
    if (len(text) == 1 and text != "a") or following[:1] in ("(", "^", "_", "{", "="):
        return tag("mi", text)
    return tag("mtext", f"\N{NO-BREAK SPACE}{text}\N{NO-BREAK SPACE}")
