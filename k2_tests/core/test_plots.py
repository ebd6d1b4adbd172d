from __future__ import annotations

import base64
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from k2_core.plots import bar_chart, data_uri

SVG = "{http://www.w3.org/2000/svg}"


@given(
    st.lists(st.floats(0, 1e15), max_size=40), st.lists(st.text(st.characters(codec="ascii", categories=["L", "P"])))
)
def test_any_chart_is_well_formed_and_holds_nothing_but_bars_and_text(values, labels):
    root = ElementTree.fromstring(bar_chart(values, labels, {0}))
    assert {element.tag for element in root} <= {f"{SVG}path", f"{SVG}text"}
    bars = sum((path.get("d") or "").count("M") for path in root.iter(f"{SVG}path"))
    assert bars <= len(values)


def test_the_highest_bar_fills_the_chart_and_the_marked_one_is_red():
    red, plain = "#d24235", "#4f43dd"
    paths = {p.get("fill"): p.get("d") for p in ElementTree.fromstring(bar_chart([1, 4], "ab", {1})).iter(f"{SVG}path")}
    assert "v-108h" in str(paths[red])
    assert "v-27h" in str(paths[plain])


def test_a_day_by_the_hour_stays_small():
    uri = data_uri(bar_chart([n**3 for n in range(24)], [f"{n:02}:00" for n in range(24)]))
    assert len(uri) < 1_600
    assert ElementTree.fromstring(base64.b64decode(uri.partition(",")[2]))
