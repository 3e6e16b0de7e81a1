"""The places of the page, which its script fills."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ppl_vae.report.markup import Markup, tag

__all__ = ["sections"]

SLIDERS = 12
"""So many dimensions have a slider at first; all others are in a fold below them."""


def sections(content: dict[str, Any], title: str, lead: str, story: Iterable[Markup]) -> list[Markup]:
    """The body of the page, without its data and its script.

    Args:
        content: what the script reads.
        title: of the page.
        lead: what it shows.
        story: the model as mathematics.
    """
    free, labels = len(content["dims"]), content["data"]["classes"] if content["data"]["labels"] else []
    several = len(content["data"]["rows"]) > 1
    parts = [
        _plane(free, content["event"]["kind"], content["source"]) if free else None,
        _sliders(content["dims"]) if free else None,
        _data(free),
        _between() if free and several else None,
        _attribute(labels) if free and len(labels) > 1 else None,
        *(_choice(choice) for choice in content["choices"] if not content["components"]),
        _section("Components", "components", "What each stands for, with its weight.") if content["components"] else None,
        _levels(content["levels"]) if content["levels"] and content["decoder"]["kind"] != "nearest" else None,
        _section("Loadings", "loadings", "What one unit of a factor adds: blue more, red less.")
        if content["loadings"]
        else None,
    ]
    head = tag(
        "header",
        tag("h1", title),
        tag("p", lead, class_="lead"),
        tag("details", tag("summary", "The model"), tag("div", *story, class_="story")),
        tag("noscript", tag("p", "This page needs its own script, which it carries with it.", class_="note")),
        tag("p", "", id="trouble", class_="note", role="alert"),
    )
    main = tag("main", _now(), tag("div", *(part for part in parts if part is not None), class_="parts"), class_="explorer")
    return [head, main, tag("footer", tag("span", "", id="source"), " Written by ppl_vae; this page makes no request.")]


def _now() -> Markup:
    """What is shown now, and what can be done with it."""
    return tag(
        "section",
        tag("h2", "Shown"),
        tag("div", _figure("decoded", "Decoded"), _figure("datum", "Datum"), class_="pair"),
        tag("p", "", id="told", aria_live="polite"),
        tag(
            "div",
            *(_button(name, label) for name, label in BUTTONS.items()),
            class_="buttons",
        ),
        class_="now",
        aria_label="Shown",
    )


BUTTONS = {"centre": "Centre", "draw": "Random code", "png": "Save PNG", "link": "Copy link"}


def _figure(name: str, label: str) -> Markup:
    return tag("figure", tag("div", "", id=name, class_="event"), tag("figcaption", label), id=f"{name}-figure")


def _button(name: str, label: str) -> Markup:
    return tag("button", label, id=name, type="button")


def _section(title: str, name: str, note: str, *inside: Markup) -> Markup:
    strip = tag("div", "", id=name, class_="strip")
    return tag("section", tag("h2", title), tag("p", note, class_="hint"), *inside, strip)


def _plane(free: int, kind: str, source: str) -> Markup:
    chosen = tag("div", _select("across", "Across"), _select("up", "Up"), class_="row") if free > 1 else ""
    grid = tag("canvas", "", id="plane", tabindex="0", role="img", aria_label="The plane of two dimensions, decoded")
    codes = tag("canvas", "", id="codes", tabindex="0", role="img", aria_label="Codes of data")
    told = f"Equal steps of probability under {source}. Click, drag, or use the arrow keys."
    planes = [tag("figure", grid, tag("figcaption", told))] if kind != "text" else []
    how = "Codes of the data. Click the nearest, or use the arrow keys."
    planes.append(tag("figure", codes, tag("figcaption", how, tag("span", "", id="legend", class_="legend"))))
    return tag("section", tag("h2", "Plane"), chosen, tag("div", *planes, class_="planes"))


def _select(name: str, label: str) -> Markup:
    return tag("label", tag("span", label), tag("select", "", id=name))


def _sliders(dims: list[dict[str, Any]]) -> Markup:
    active = sum(dim["active"] for dim in dims)
    order = "their KL in nats per datum" if dims[0]["kl"] is not None else "how much their mean varies"
    note = f"{active} of {len(dims)} are in use; in the order of {order}."
    first = tag("div", "", id="sliders", class_="sliders")
    rest = tag("details", tag("summary", f"{len(dims) - SLIDERS} more"), tag("div", "", id="more-sliders", class_="sliders"))
    return tag(
        "section", tag("h2", "Dimensions"), tag("p", note, class_="hint"), first, *([rest] if len(dims) > SLIDERS else [])
    )


def _data(free: int) -> Markup:
    number = tag("label", tag("span", "Row"), tag("input", id="row", type="number", min="0", step="1"))
    ends = (_button("as-a", "Take as A"), _button("as-b", "Take as B")) if free else ()
    row = tag("div", number, _button("previous", "Previous"), _button("next", "Next"), *ends, class_="row")
    return _section("Data", "near", "The data nearest to the code that is shown.", row)


def _between() -> Markup:
    ends = tag("p", "", id="ends", class_="hint")
    where = tag("label", tag("span", "From A to B"), tag("input", id="between", type="range", min="0", max="1", step="0.01"))
    how = tag("label", tag("span", "Path"), tag("select", tag("option", "linear"), tag("option", "spherical"), id="path"))
    row = tag("div", where, how, class_="row")
    return tag("section", tag("h2", "Between two data"), ends, row, tag("div", "", id="way", class_="strip"))


def _attribute(labels: list[str]) -> Markup:
    options = [tag("option", name, value=str(place)) for place, name in enumerate(labels)]
    both = [
        tag("label", tag("span", label), tag("select", *options, id=name))
        for name, label in (("minus", "From the mean of"), ("plus", "to the mean of"))
    ]
    strength = tag("label", tag("span", "Strength"), tag("input", id="strength", type="range", min="-2", max="2", step="0.05"))
    note = "Adds the difference of two classes' mean codes to the code that is shown."
    return _section("Attribute", "strengths", note, tag("div", *both, strength, class_="row"))


def _choice(choice: dict[str, Any]) -> Markup:
    note = f"The same code with each value of {choice['name']}."
    return _section(f"Values of {choice['name']}", f"choice-{choice['start']}", note)


def _levels(levels: list[str]) -> Markup:
    note = "A level that is let go is at the mean which the prior has given those above it."
    boxes = [
        tag("label", tag("input", type="checkbox", id=f"level-{place}", checked=""), f" {name}")
        for place, name in enumerate(levels)
    ]
    return _section("Levels", "descent", note, tag("div", *boxes, class_="row"))
