"""A small bar chart as an SVG image: what a check shows of a day, in about a kilobyte, without a drawing library."""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT, _FOOT, _HEAD = 480, 140, 16, 16
"""Pixels; the foot holds labels, the head the largest value."""
_PLAIN, _MARKED = "#4f43dd", "#d24235"
"""Dagster's own violet and red."""


def bar_chart(values: Sequence[float], labels: Sequence[str], marked: Collection[int] = ()) -> str:
    """Draw values from 0 up as bars, the marked ones in red. labels: the first and the last are written."""
    top = max(values, default=0)
    scale = (_HEIGHT - _HEAD - _FOOT) / top if top > 0 else 0
    step = _WIDTH / max(len(values), 1)
    bars = {True: "", False: ""}
    for at, value in enumerate(values):
        height = round(max(value, 0) * scale, 1)
        if height:
            bars[at in marked] += f"M{at * step:.0f} {_HEIGHT - _FOOT}v-{height:g}h{max(step - 2, 1):.0f}v{height:g}z"
    paths = [f'<path fill="{_MARKED if red else _PLAIN}" d="{path}"/>' for red, path in bars.items() if path]
    texts = [_text(0, _HEAD - 5, f"{top:g}", "start")]
    if labels:
        texts += [_text(0, _HEIGHT - 4, labels[0], "start"), _text(_WIDTH, _HEIGHT - 4, labels[-1], "end")]
    size = f'width="{_WIDTH}" height="{_HEIGHT}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-size="11">{"".join([*paths, *texts])}</svg>'


def data_uri(svg: str) -> str:
    """An image as a URI that needs no server."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _text(x: int, y: int, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
