"""Networks of tables as text in the interchange format BIF (Cozman 1998), which bnlearn, pyAgrum and pgmpy read and write.

Read are rows by the states of the parents, ``default`` rows, and ``table`` in the order of the format (the node's own state
changing slowest) or in the other one, whichever sums to one. Nothing in a file is executed.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ppl_vae.models.network.nodes import Node
from ppl_vae.models.network.table import Table
from ppl_vae.text import MIB, as_line

__all__ = ["MOST", "read", "written"]

MOST = 32 * MIB
"""Bytes of a file."""

ENTRIES = 2**22  # of one table
ROUNDED = 1e-3  # by which the decimals of a row may miss the sum of one
TOKEN = re.compile(r'"[^"\n]*"|[{}()\[\],;|]|[^\s{}()\[\],;|"]+')
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


class Given(NamedTuple):
    """What a file says of a node: its parents, rows by their states, the default row, the whole table."""

    parents: tuple[str, ...]
    rows: dict[tuple[str, ...], list[float]]
    default: list[float] | None
    table: list[float] | None


def read(text: str) -> dict[str, Node]:
    """The nodes of a network, with their tables.

    Raises:
        ValueError: text that is no BIF, a table with a hole or of another size, a row that does not sum to one.

    Examples:
        >>> text = "variable coin { type discrete [ 2 ] { heads, tails }; } probability ( coin ) { table 0.5, 0.5; }"
        >>> read(text)["coin"].probs
        ((0.5, 0.5),)
    """
    words = Words(TOKEN.findall(COMMENT.sub(" ", text)))
    states: dict[str, tuple[str, ...]] = {}
    found: dict[str, Given] = {}
    for word in words:
        if word == "network":
            words.skip_block()
        elif word == "variable":
            name = words.name()
            states[name] = _states(name, words)
        elif word == "probability":
            name, given = _given(words, states)
            if name in found:
                raise ValueError(f"expected one table of {name}, got a second one: leave one out")
            found[name] = given
        else:
            raise ValueError(f"expected BIF: network, variable or probability, got {as_line(word, 40)!r}")
    if left := [name for name in states if name not in found]:
        raise ValueError(f"expected a table of every variable, got none of {as_line(', '.join(left))}: add probability blocks")
    if not states:
        raise ValueError("expected BIF with at least one variable, got none")
    return {
        name: Table(parents=given.parents, states=states[name], probs=_rows(name, given, states))
        for name, given in found.items()
    }


def written(nodes: Mapping[str, Node]) -> str:
    """The nodes as BIF, one line for each row of a table.

    Raises:
        ValueError: a node that is no table, or whose states or numbers are not declared.
    """
    blocks = ["network unknown {\n}\n"]
    tables = {name: node for name, node in nodes.items() if isinstance(node, Table)}
    for name, node in nodes.items():
        if name not in tables or not node.given or not node.declared_states:
            raise ValueError(f"BIF holds tables whose states and probabilities are known, which the node {name} has not")
        states = ", ".join(map(_quoted, node.declared_states))
        blocks.append(f"variable {_quoted(name)} {{\n  type discrete [ {len(node.declared_states)} ] {{ {states} }};\n}}\n")
    for name, node in tables.items():
        configurations = itertools.product(*(tables[parent].states for parent in node.parents))
        rows = [
            f"  ({', '.join(map(_quoted, states))}) {values};" if states else f"  table {values};"
            for states, values in zip(configurations, (", ".join(map(repr, row)) for row in node.rows), strict=True)
        ]
        given = f" | {', '.join(map(_quoted, node.parents))}" if node.parents else ""
        blocks.append("\n".join([f"probability ( {_quoted(name)}{given} ) {{", *rows, "}\n"]))
    return "".join(blocks)


class Words:
    """The words of a file, one after the other."""

    def __init__(self, words: list[str]) -> None:
        self.left = iter(words)

    def __iter__(self) -> Iterator[str]:
        return self.left

    def next(self) -> str:
        """The next one.

        Raises:
            ValueError: the file ends.
        """
        word = next(self.left, None)
        if word is None:
            raise ValueError("expected BIF, got a file that breaks off in a block")
        return word

    def name(self) -> str:
        """The next one, which is a name."""
        word = self.next()
        if word in set("{}()[],;|"):
            raise ValueError(f"expected a name in BIF, got {word!r}")
        return word.strip('"')

    def expect(self, *wanted: str) -> None:
        """Pass these."""
        for each in wanted:
            if (word := self.next()) != each:
                raise ValueError(f"expected {each!r} in BIF, got {as_line(word, 40)!r}")

    def until(self, end: str) -> list[str]:
        """Those before the end, without commas."""
        found = []
        while (word := self.next()) != end:
            if word != ",":
                found.append(word.strip('"'))
        return found

    def skip_block(self) -> None:
        """Pass all up to the brace that closes the next one."""
        depth = 0
        for word in iter(self.next, None):
            depth += {"{": 1, "}": -1}.get(word, 0)
            if depth == 0 and word == "}":
                return


def _states(name: str, words: Words) -> tuple[str, ...]:
    found: tuple[str, ...] = ()
    words.expect("{")
    while (word := words.next()) != "}":
        if word != "type":
            words.until(";")
            continue
        words.expect("discrete", "[")
        (count,) = words.until("]") or ("",)
        words.expect("{")
        found = tuple(words.until("}"))
        words.expect(";")
        if not count.isdigit() or int(count) != len(found):
            raise ValueError(f"expected {as_line(count, 20)} states of {name}, got {len(found)}: {as_line(', '.join(found))}")
    if not found:
        raise ValueError(f"expected states of {name}, got none")
    return found


def _given(words: Words, states: Mapping[str, tuple[str, ...]]) -> tuple[str, Given]:
    words.expect("(")
    name, *others = [word for word in words.until(")") if word != "|"] or [""]
    if unknown := [each for each in (name, *others) if each not in states]:
        raise ValueError(f"expected variables that were declared, got {as_line(unknown[0], 80)!r} in a probability block")
    given = Given(tuple(others), {}, None, None)
    words.expect("{")
    while (word := words.next()) != "}":
        if word == "(":
            key = tuple(words.until(")"))
            given.rows[key] = _numbers(name, words)
        elif word == "table":
            given = given._replace(table=_numbers(name, words))
        elif word == "default":
            given = given._replace(default=_numbers(name, words))
        else:
            words.until(";")
    return name, given


def _numbers(name: str, words: Words) -> list[float]:
    found = words.until(";")
    try:
        return [float(word) for word in found]
    except ValueError:
        raise ValueError(f"expected numbers in the table of {name}, got {as_line(' '.join(found), 80)!r}") from None


def _rows(name: str, given: Given, states: Mapping[str, tuple[str, ...]]) -> tuple[tuple[float, ...], ...]:
    levels, cards = len(states[name]), [len(states[parent]) for parent in given.parents]
    size = math.prod(cards)
    if size * levels > ENTRIES:
        raise ValueError(f"expected a table of at most {ENTRIES:,} entries, got {size * levels:,} for {name}")
    if given.table is not None:
        return _of_table(name, given.table, size, levels)
    found = []
    keys = list(itertools.product(*(states[parent] for parent in given.parents)))
    if unknown := given.rows.keys() - set(keys):
        raise ValueError(
            f"expected rows of {name} by states of {', '.join(given.parents)}, got ({', '.join(sorted(unknown)[0])})"
        )
    for key in keys:
        row = given.rows.get(key, given.default)
        told = ", ".join(f"{parent}={state}" for parent, state in zip(given.parents, key, strict=True)) or "its only one"
        if row is None:
            raise ValueError(f"expected a row of {name} for {told}, got none, and no default: add it")
        found.append(_checked(name, told, row, levels))
    return tuple(found)


def _of_table(name: str, table: list[float], size: int, levels: int) -> tuple[tuple[float, ...], ...]:
    """The rows of a table, whose order is told by what sums to one."""
    if len(table) != size * levels:
        raise ValueError(f"expected {size * levels} numbers in the table of {name}, got {len(table)}")
    own_slowest = [table[place::size] for place in range(size)]
    own_fastest = [table[place * levels : (place + 1) * levels] for place in range(size)]
    rows = next((rows for rows in (own_slowest, own_fastest) if all(map(_sums_to_one, rows))), own_slowest)
    return tuple(_checked(name, f"number {place}", row, levels) for place, row in enumerate(rows))


def _checked(name: str, told: str, row: list[float], levels: int) -> tuple[float, ...]:
    if len(row) != levels or not all(0 <= value < math.inf for value in row) or not _sums_to_one(row):
        got = f"{as_line(row, 80)} with the sum {math.fsum(row):.9g}"
        raise ValueError(f"expected {levels} probabilities that sum to 1 in the row {told} of {name}, got {got}: mend it")
    total = math.fsum(row)
    return tuple(value / total for value in row)


def _sums_to_one(row: list[float]) -> bool:
    return abs(math.fsum(row) - 1) <= ROUNDED


def _quoted(name: str) -> str:
    if '"' in name or "\n" in name:
        raise ValueError(f"expected names without quotation marks for BIF, got {name!r}")
    return name if TOKEN.fullmatch(name) and name not in set("{}()[],;|") else f'"{name}"'
