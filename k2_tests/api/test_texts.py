"""Statements put together from steps: what is used once stands in its place, what nobody asked for is left out."""

from __future__ import annotations

from typing import Any

import pytest

from k2_api.texts import composed, lean
from k2_core.contracts import QUOTES, TRADES
from k2_core.projections import select_list, shown_columns
from k2_resources.duck import Duck

PAGE = {"stored": "stored", "corrections": "corrections", "rows": "newest_rows", "selected": "selected"}


def test_a_step_that_is_used_twice_is_stated_once() -> None:
    steps = {"below": "below", "in_files": "stored", "stored": "stored_below"}
    both = {**steps, "corrections_in_files": "corrections", "corrections": "corrections_below", "rows": "newest_rows"}
    text = composed("row_count", **both, selected="selected").text
    assert text.count("unnest($nexts::BIGINT[])") == 1
    assert text.startswith("WITH below AS (")
    assert "WITH" not in composed("row_count", rows="stored", selected="selected").text


def test_a_condition_on_nothing_is_left_out_with_its_parameter() -> None:
    statement = composed("newest_first", **PAGE)
    values: dict[str, Any] = {**dict.fromkeys(statement.parameters), "start": 0, "end": 0, "files": [], "limit": 1}
    short = lean(statement, {**values, "corrected_files": []})
    assert short.parameters == {"start", "end", "files", "corrected_files", "limit"}
    assert "after" not in short.text
    asked = lean(statement, {**values, "corrected_files": [], "symbols": ["X"], "after_id": "x", "exchanges": ["Y"]})
    assert {"symbols", "exchanges", "after_us", "after_revision"} <= asked.parameters
    assert "date" not in asked.text and "flags" not in asked.text


def test_a_statement_says_the_same_with_and_without_the_conditions_on_nothing() -> None:
    duck = Duck()
    statement = composed("prints")
    rows = (
        "(SELECT 'BUY' AS side, ['5'] AS trade_conditions, 1::DECIMAL(18, 8) AS price, 2::DECIMAL(18, 8) AS quantity)"
    )
    whole = type(statement)(statement.text.replace("FROM chosen", f"FROM {rows} AS chosen"), statement.parameters)
    for more, count in (
        ({}, 1),
        ({"sides": ["SELL"]}, 0),
        ({"price_min": "1.00000001"}, 0),
        ({"quantity_max": "2"}, 1),
    ):
        values = {**dict.fromkeys(whole.parameters), **more}
        assert len(duck.fetch(whole, values)) == len(duck.fetch(lean(whole, values), values)) == count
    duck.close()


def test_fields_are_shown_in_contract_order_and_unknown_ones_refused() -> None:
    assert [c.name for c in shown_columns(TRADES, ("price", "kafka_offset", "symbol"))] == [
        "symbol",
        "price",
        "kafka_offset",
    ]
    assert "kafka_offset" not in {c.name for c in shown_columns(QUOTES)}
    with pytest.raises(KeyError, match="nothing"):
        select_list(TRADES, "json", ("nothing",), "string")
