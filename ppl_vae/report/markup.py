"""HTML that cannot be injected into: text is escaped unless it was made here."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

__all__ = ["Markup", "joined", "table", "tag"]

VOID = frozenset({"img", "input", "meta"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(element: str, /, *content: str, **attributes: Any) -> Markup:
    """An element; what is no :class:`Markup` is escaped. ``class_`` is ``class``, ``aria_label`` is ``aria-label``.

    Examples:
        >>> from ppl_vae.report.markup import tag
        >>> tag("p", "1 < 2", tag("b", "yes"), class_="sum")
        '<p class="sum">1 &lt; 2<b>yes</b></p>'
    """
    names = {key: key.rstrip("_").replace("_", "-") for key in attributes}
    inside = "".join(f' {names[key]}="{html.escape(str(value))}"' for key, value in attributes.items() if value is not None)
    opening = f"<{element}{inside}>"
    return Markup(opening if element in VOID else f"{opening}{joined(content)}</{element}>")


def joined(content: Iterable[str]) -> Markup:
    """Elements and escaped text, one after the other."""
    return Markup("".join(part if isinstance(part, Markup) else html.escape(str(part)) for part in content))


def table(caption: str, head: Iterable[str], rows: Iterable[Iterable[str]]) -> Markup:
    """A table with a caption, a row of heads and a head in front of each row, in a box that scrolls if it is wide."""
    heads = tag("thead", tag("tr", *(tag("th", cell, scope="col") for cell in head)))
    body = [
        tag("tr", *(tag("td", cell) if place else tag("th", cell, scope="row") for place, cell in enumerate(row)))
        for row in rows
    ]
    inner = tag("table", tag("caption", caption), heads, tag("tbody", *body))
    return tag("div", inner, class_="scroll", role="region", aria_label=caption, tabindex="0")
