"""A whole HTML document that fetches nothing and runs only the script that was put into it."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from ppl_vae.report.markup import Markup, tag
from ppl_vae.report.style import STYLE
from ppl_vae.storage.atomic import write_text
from ppl_vae.text import as_line

__all__ = ["checked", "document", "save"]


def checked(out: str | Path) -> Path:
    """Where a page is to be.

    Raises:
        ValueError: its name ends in something else than ``.html``.
    """
    if not isinstance(out, (str, Path)) or Path(out).suffix not in (".html", ".htm"):
        raise ValueError(f"expected a page that ends in .html, got {str(out)!r}")
    return Path(out)


def save(out: str | Path, text: str) -> Path:
    """Write a page whole or not at all; where it is.

    Raises:
        ValueError: another suffix, or it cannot be written.
    """
    out = checked(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, text)
    except OSError as error:
        raise ValueError(f"{out} cannot be written: {as_line(error)}: choose another place with out") from None
    return out


def document(title: str, *body: str, style: str = STYLE, script: str = "", connect: str = "'none'") -> str:
    """A page whose policy refuses every request, and all scripts and styles but its own, which it knows by their hashes.

    Args:
        title: of the page.
        body: what is on it; text is escaped.
        style: its style sheet.
        script: what runs on it; nothing by default.
        connect: where the script may ask, as a policy says it: ``'self'`` of a page that a server answers.

    Raises:
        ValueError: a style or a script that would end its own element.

    Examples:
        >>> from ppl_vae.report.document import document
        >>> document("A page", "1 < 2").count("1 &lt; 2")
        1
    """
    if "</" in style or "</script" in script.lower() or "<!--" in script:
        raise ValueError("expected a style and a script without the end of their elements, got one with it: escape it")
    runs = _source(script) if script else "'none'"
    asks = f"style-src {_source(style)}; script-src {runs}; connect-src {connect}"
    policy = f"default-src 'none'; img-src data:; {asks}; base-uri 'none'; form-action 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="generator", content="ppl_vae"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    run = [tag("script", Markup(script))] if script else []
    return f"<!DOCTYPE html>\n{tag('html', head, tag('body', *body, *run), lang='en')}\n"


def _source(text: str) -> str:
    """How a policy names a text that stands in the page."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
