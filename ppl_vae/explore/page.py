"""A fit as one page to move about in: nothing on it is fetched from elsewhere, and it runs its own script alone."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

from ppl_vae.arguments import whole
from ppl_vae.explore.blob import Blob
from ppl_vae.explore.content import Explored, content_of, explored
from ppl_vae.explore.limits import MOST_BYTES, ROWS
from ppl_vae.explore.sections import sections
from ppl_vae.fitting import Fit
from ppl_vae.fitting.inputs import Given
from ppl_vae.models import Model
from ppl_vae.report.document import document, save
from ppl_vae.report.markup import Markup, tag
from ppl_vae.report.mathml import formula, lines
from ppl_vae.report.style import STYLE

__all__ = ["explore", "page_of", "shown"]

SCRIPTS = ("graph.js", "numbers.js", "drawing.js", "codes.js", "views.js", "page.js")


def explore(fit: Fit, out: str | Path, data: Given | None = None, *, rows: int = ROWS, title: str = "") -> Path:
    """Write a page on which the codes of a fit are moved and what they decode to is seen.

    It has the plane of any two dimensions at equal steps of prior probability, a slider for each dimension, the codes of data
    with these beside their reconstructions, ways between two data, differences of class means, classes, components, levels and
    loadings, as far as the model has such. It is one file of at most 6 MB and makes no request.

    Where torch makes a graph of p(x | z), the decoder is in the page and any code is decoded in the browser as
    :meth:`Fit.decode` does it; elsewhere, as for texts and drawings, the nearest of some hundred decodings is shown.
    ``ppl_vae.explore.serve`` answers for any code of any fit.

    Args:
        fit: a fit whose data have codes: free numbers, or one of several values, as the component of a mixture.
        out: the page, which ends in ``.html``.
        data: rows that it shows, by default those that were held out of the fit.
        rows: how many at most; of large ones fewer are shown.
        title: of the page, by default the name of the model.

    Returns:
        Where the page is.

    Raises:
        ValueError: a model without such codes, no data, another suffix, or a page that would be larger than 6 MB.

    Examples:
        ``pv.explore(fit, "page.html")``
    """
    return save(out, page_of(shown(fit, data, rows=rows), title or type(fit.model).__name__))


def shown(fit: Fit, data: Given | None = None, *, rows: int = ROWS) -> Explored:
    """A fit with the data that its page shows.

    Raises:
        ValueError: see :func:`explore`.
    """
    if not isinstance(fit, Fit):
        raise ValueError(f"expected a fit, got {type(fit).__name__}: give what pv.fit returned, or pv.load_run(folder)")
    rows = whole("rows", rows)
    if rows < 1:
        raise ValueError(f"expected at least 1 row, got {rows}")
    data = fit.held_out if data is None else data
    if data is None:
        raise ValueError("expected data to show of a fit that was loaded, got none: give data, such as pv.load_data(fit.data)")
    return explored(fit, fit.as_split(data), most=rows)


def page_of(found: Explored, title: str, *, token: str = "") -> str:
    """The page, or with a token that of a server which decodes for it.

    Raises:
        ValueError: it would be larger than 6 MB.
    """
    blob = Blob()
    content = content_of(found, blob, live=bool(token))
    content |= {"title": title, "token": token}
    style = STYLE + _read("style.css")
    held = tag("script", Markup(_inert(json.dumps(content))), type="application/json", id="content")
    numbers = tag("script", Markup(blob.text()), type="text/plain", id="numbers")
    script = "\n".join(["(() => {", '"use strict";', *map(_read, SCRIPTS), "})();"])
    fit = found.fit
    story = [formula(line) for line in lines(fit.model.story())] if isinstance(fit.model, Model) else [tag("code", "a program")]
    lead = f"{len(found.places)} data of {Path(str(fit.data.source)).name}"
    body = [*sections(content, title, lead, story), held, numbers]
    text = document(title, *body, style=style, script=script, connect="'self'" if token else "'none'")
    if len(text.encode()) > MOST_BYTES:
        size = len(text.encode()) / 1e6
        raise ValueError(f"expected a page of at most {MOST_BYTES / 1e6:g} MB, got {size:.1f} MB: show fewer rows, or serve it")
    return text


def _inert(text: str) -> str:
    """JSON that ends no element, whatever names are in it."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _read(name: str) -> str:
    return resources.files("ppl_vae.explore").joinpath("script", name).read_text(encoding="utf-8")
