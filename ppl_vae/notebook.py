"""What notebooks show of our objects: titles, texts, tables and curves as HTML, everything escaped, nothing loaded."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

__all__ = ["box", "curves", "table"]

WIDTH, HEIGHT, MARGIN = 420, 160, 6
COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728")


def box(title: str, *parts: str) -> str:
    """A title above parts, which are HTML already."""
    return f"<div><strong>{html.escape(title)}</strong>{''.join(parts)}</div>"


def table(rows: Mapping[str, object], text: str = "") -> str:
    """A text, if there is one, above names and what they stand for.

    Examples:
        >>> table({"a < b": 1})
        '<table><tr><th style="text-align: left">a &lt; b</th><td style="text-align: left">1</td></tr></table>'
    """
    left = 'style="text-align: left"'
    cells = [
        f"<tr><th {left}>{html.escape(name)}</th><td {left}>{html.escape(str(value))}</td></tr>" for name, value in rows.items()
    ]
    told = f'<p style="font-family: monospace">{html.escape(text)}</p>' if text else ""
    return f"{told}<table>{''.join(cells)}</table>" if cells else told


def curves(series: Mapping[str, Sequence[float]]) -> str:
    """Lines of numbers one after another as an inline picture, what is not finite left out; nothing of fewer than two points.

    Examples:
        >>> curves({"ELBO": [-2.0, -1.0]}).count("polyline"), curves({"ELBO": [-2.0]})
        (1, '')
    """
    points = {name: [(x, y) for x, y in enumerate(values) if math.isfinite(y)] for name, values in series.items()}
    points = {name: found for name, found in points.items() if len(found) > 1}
    if not points:
        return ""
    heights = [y for found in points.values() for _, y in found]
    low, spread = min(heights), (max(heights) - min(heights)) or 1.0
    longest = max(found[-1][0] for found in points.values()) or 1
    lines, keys = [], []
    for color, (name, found) in zip(COLORS * len(points), points.items(), strict=False):
        across, upwards = (WIDTH - 2 * MARGIN) / longest, (HEIGHT - 2 * MARGIN) / spread
        places = " ".join(f"{MARGIN + across * x:.1f},{HEIGHT - MARGIN - upwards * (y - low):.1f}" for x, y in found)
        lines.append(f'<polyline fill="none" stroke="{color}" points="{places}"/>')
        keys.append(f'<span style="color: {color}">{html.escape(name)}</span>')
    told = f"{low:.5g} to {low + spread:.5g}"
    picture = f'<svg width="{WIDTH}" height="{HEIGHT}" role="img">{"".join(lines)}</svg>'
    return f"<div>{', '.join(keys)}: {told}</div>{picture}"
