from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2_core.identity import (
    Occurrences,
    canonical,
    counted_key,
    numbered_key,
    quote_fields,
    source_id,
    symbol_problem,
    trade_fields,
)

DAY = date(2014, 3, 11)
OPENING_US = 34_512_881_000


@pytest.mark.parametrize(
    ("written", "expected"),
    [("36.550", "36.55"), ("400", "400"), ("4E+2", "400"), ("1E-8", "0.00000001"), ("-0", "0"), ("0.000", "0")],
)
def test_one_value_has_one_text(written, expected):
    assert canonical(Decimal(written)) == expected


@given(st.decimals(allow_nan=False, allow_infinity=False, places=8, min_value=-(10**10), max_value=10**10))
def test_a_canonical_text_keeps_the_value_and_has_no_exponent(value):
    text = canonical(value)
    assert Decimal(text) == value
    assert "E" not in text
    assert not text.endswith(".")
    assert "." not in text or not text.endswith("0")


@pytest.mark.parametrize("endless", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_has_no_canonical_form(endless):
    with pytest.raises(ValueError, match="no canonical form"):
        canonical(Decimal(endless))


def test_a_source_with_ids_is_known_by_them():
    assert numbered_key("BINANCE", "BTCUSDT", "trade", 3735683259) == "BINANCE:BTCUSDT:trade:3735683259"


def test_a_file_trade_is_known_by_its_fields_and_occurrence():
    fields = trade_fields(OPENING_US, Decimal("36.550"), Decimal("400.0"), "5")
    key = counted_key("ASX", "BHP", "trade", DAY, fields=fields, occurrence=0)
    assert key == "ASX:BHP:trade:2014-03-11:34512.881:36.55:400:5:0"
    assert source_id(key) == "ASX-trade:2014-03-11:34512.881:36.55:400:5:0"


def test_an_absent_side_is_written_as_the_file_writes_it():
    assert quote_fields(20_623_676_000, (Decimal("37.7"), None, Decimal(300), None)) == "20623.676:37.7:0:300:0"


def test_equal_rows_are_numbered_within_symbol_kind_and_day():
    seen = Occurrences()
    numbers = [seen.next("BHP", "trade", DAY, "x") for _ in range(3)]
    others = [seen.next("RIO", "trade", DAY, "x"), seen.next("BHP", "quote", DAY, "x")]
    next_day = seen.next("BHP", "trade", date(2014, 3, 12), "x")
    assert (numbers, others, next_day) == ([0, 1, 2], [0, 0], 0)


def test_forgetting_other_symbols_keeps_the_count_of_those_that_come_again():
    seen = Occurrences()
    for symbol in ("BHP", "RIO"):
        seen.next(symbol, "trade", DAY, "x")
    seen.forget_all_but({"BHP"})
    assert (seen.next("BHP", "trade", DAY, "x"), seen.next("RIO", "trade", DAY, "x")) == (1, 0)


@pytest.mark.parametrize("symbol", ["BTCUSDT", "币安人生USDT", "👩‍🚀USDT", "BRK B", "a.b-c_d", "1000SATSUSDT"])
def test_a_symbol_may_be_in_any_script(symbol):
    assert symbol_problem(symbol) is None


@pytest.mark.parametrize("symbol", ["", "  ", "A:B", "A\nB", "A\x00", "\u2028", "A\ud800", "*", "A" * 129])
def test_a_text_that_would_break_a_key_is_no_symbol(symbol):
    assert symbol_problem(symbol)
