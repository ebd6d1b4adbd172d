from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from k2_core.contracts import QUOTES, TRADES
from k2_core.quality import Flag
from k2_feeds.asx import Part, read_parts
from k2_feeds.asx_files import plan_load
from k2_feeds.companies import Companies, Listing, read_companies
from k2_feeds.lines import lines_of
from k2_feeds.outcomes import PassedOver, Refusal, Rejected, Row
from k2_tests.feeds.sample import real

NOW_US = 1_800_000_000_000_000
PRINT = b"03/11/2014,09:35:12.881,36.55,400,5,,\r\n"
BOOK = b"03/10/2014,05:43:43.676,37.7,0.0,300,0\r\n"


def part(kind, content, symbol="BHP"):
    name = f"{kind}s/{symbol}.csv"
    return Part(name, kind, symbol, frozenset({symbol}), lambda: lines_of(name, [content]))


def outcomes(*parts):
    return list(read_parts(parts, None, lambda: NOW_US))


def rows(*parts):
    found = outcomes(*parts)
    assert all(isinstance(o, Row) for o in found), found
    return [o.record for o in found]


def refusal(kind, content):
    (found,) = outcomes(part(kind, content))
    assert isinstance(found, Rejected)
    assert found.raw == content.rstrip(b"\n")
    return found.reason


def utc(microseconds):
    return datetime.fromtimestamp(microseconds / 1_000_000, UTC).isoformat()


def test_a_print_becomes_a_row_with_every_column_of_its_contract():
    (record,) = rows(part("trade", PRINT))
    assert record == {
        "message_id": "ASX:BHP:trade:2014-03-11:34512.881:36.55:400:5:0",
        "trade_id": "ASX-trade:2014-03-11:34512.881:36.55:400:5:0",
        "symbol": "BHP",
        "exchange": "ASX",
        "asset_class": "equities",
        "currency": "AUD",
        "timestamp": 1_394_490_912_881_000,
        "price": Decimal("36.55"),
        "quantity": Decimal(400),
        "side": "UNKNOWN",
        "trade_conditions": ["5"],
        "source_sequence": None,
        "platform_sequence": 0,
        "ingestion_timestamp": NOW_US,
        "vendor_data": None,
        "quality_flags": 0,
    }
    assert set(record) == {column.name for column in TRADES.feed_columns}


def test_a_quote_without_an_ask_has_none():
    (record,) = rows(part("quote", BOOK))
    assert record["message_id"] == "ASX:BHP:quote:2014-03-10:20623.676:37.7:0:300:0:0"
    assert (record["bid_price"], record["bid_quantity"]) == (Decimal("37.7"), Decimal(300))
    assert (record["ask_price"], record["ask_quantity"]) == (None, None)
    assert set(record) == {column.name for column in QUOTES.feed_columns}


def test_an_excluded_print_is_flagged_and_its_suggested_price_kept():
    (record,) = rows(part("trade", b"03/11/2014,10:00:00,42.00,20000,3,X,36.45\n"))
    assert record["quality_flags"] == Flag.VENDOR_EXCLUDED
    assert record["vendor_data"] == {"filtered_price": "36.45"}


def test_a_print_without_condition_has_no_conditions():
    (record,) = rows(part("trade", b"03/11/2014,10:00:00.5,42,1,,,\n"))
    assert record["trade_conditions"] == []
    assert record["message_id"] == "ASX:BHP:trade:2014-03-11:36000.5:42:1::0"


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        ("03/10/2014,10:00:00", "2014-03-09T23:00:00+00:00"),
        ("07/10/2014,10:00:00", "2014-07-10T00:00:00+00:00"),
        ("04/06/2014,01:59:59.999999", "2014-04-05T14:59:59.999999+00:00"),
        ("04/06/2014,02:30:00", "2014-04-05T15:30:00+00:00"),
        ("04/06/2014,03:00:00", "2014-04-05T17:00:00+00:00"),
        ("10/05/2014,02:30:00", "2014-10-04T16:30:00+00:00"),
        ("10/05/2014,03:00:00", "2014-10-04T16:00:00+00:00"),
    ],
)
def test_local_time_has_the_offset_of_its_date(local, expected):
    (record,) = rows(part("trade", f"{local},1,1,0,,\n".encode()))
    assert utc(record["timestamp"]) == expected


def test_identical_rows_are_numbered_over_all_parts_of_a_day():
    found = rows(part("trade", PRINT * 2), part("trade", PRINT), part("trade", PRINT.replace(b"/11/", b"/12/")))
    assert [r["message_id"].rpartition(":")[2] for r in found] == ["0", "1", "2", "0"]
    assert [r["platform_sequence"] for r in found] == [0, 1, 2, 0]
    assert len({r["message_id"] for r in found}) == 4


def test_rows_that_differ_only_in_notation_are_the_same_row():
    found = rows(part("trade", PRINT + PRINT.replace(b"36.55", b"36.5500").replace(b",400,", b",400.0,")))
    assert found[1]["message_id"] == found[0]["message_id"][:-1] + "1"


def test_trades_and_quotes_and_symbols_are_counted_apart():
    found = rows(part("trade", PRINT), part("quote", BOOK), part("trade", PRINT, "RIO"))
    assert [r["platform_sequence"] for r in found] == [0, 0, 0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"date,time,price,volume,sales_condition,exclude_record_flag,filtered_price\n", Refusal.HEADER),
        (b"03/11/2014,10:00:00,36.55,400,5,\n", Refusal.WRONG_COLUMNS),
        (b"03/11/2014,10:00:00,36.55,400,5,,,\n", Refusal.WRONG_COLUMNS),
        (b"03/11/2014;10:00:00;36.55;400;5;;\n", Refusal.WRONG_COLUMNS),
        (b"garbage\n", Refusal.WRONG_COLUMNS),
        (b"\x00\x01\x02\n", Refusal.WRONG_COLUMNS),
        (b"03/11/2014,10:00:00,36.55,400,\xff,,\n", Refusal.NOT_UTF8),
        (b"25/03/2014,10:00:00,36.55,400,5,,\n", Refusal.IMPLAUSIBLE_TIME),
        (b"02/30/2014,10:00:00,36.55,400,5,,\n", Refusal.IMPLAUSIBLE_TIME),
        (b"2014-03-11,10:00:00,36.55,400,5,,\n", Refusal.IMPLAUSIBLE_TIME),
        (b"03/11/2014,24:00:00,36.55,400,5,,\n", Refusal.IMPLAUSIBLE_TIME),
        (b"03/11/2014,10:00,36.55,400,5,,\n", Refusal.IMPLAUSIBLE_TIME),
        (b"03/11/2014,10:00:00.1234567,36.55,400,5,,\n", Refusal.IMPLAUSIBLE_TIME),
        (b"03/11/2014,10:00:00,,400,5,,\n", Refusal.NOT_A_NUMBER),
        (b'03/11/2014,10:00:00,"36.55",400,5,,\n', Refusal.NOT_A_NUMBER),
        (b"03/11/2014,10:00:00,nan,400,5,,\n", Refusal.NOT_A_NUMBER),
        (b"03/11/2014,10:00:00,0.0,400,5,,\n", Refusal.NOT_POSITIVE),
        (b"03/11/2014,10:00:00,36.55,-400,5,,\n", Refusal.NOT_POSITIVE),
        (b"03/11/2014,10:00:00,10000000000,400,5,,\n", Refusal.DECIMAL_OVERFLOW),
        (b"03/11/2014,10:00:00,36.555555555,400,5,,\n", Refusal.TOO_MANY_DECIMALS),
        (b"03/11/2014,10:00:00,36.55,400,5:6,,\n", Refusal.BAD_CONDITION),
        (b"03/11/2014,10:00:00,36.55,400," + b"5" * 2_000_000 + b",,\n", Refusal.BAD_CONDITION),
        (b"03/11/2014,10:00:00,36.55,400,5,Y,\n", Refusal.UNKNOWN_FLAG),
        (b"03/11/2014,10:00:00,36.55,400,5,X,cheap\n", Refusal.NOT_A_NUMBER),
    ],
)
def test_a_trade_line_that_is_none_is_refused_by_its_reason(content, reason):
    assert refusal("trade", content) is reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"03/10/2014,05:43:43,37.7,0.0,300,5\n", Refusal.HALF_A_SIDE),
        (b"03/10/2014,05:43:43,37.7,37.8,0,5\n", Refusal.HALF_A_SIDE),
        (b"03/10/2014,05:43:43,-37.7,37.8,1,5\n", Refusal.NOT_POSITIVE),
        (PRINT.replace(b"\r", b""), Refusal.WRONG_COLUMNS),
    ],
)
def test_a_quote_line_that_is_none_is_refused_by_its_reason(content, reason):
    assert refusal("quote", content) is reason


def test_blank_lines_are_counted_and_a_byte_order_mark_is_no_content():
    found = outcomes(part("trade", b"\xef\xbb\xbf" + PRINT + b"\r\n\n" + PRINT))
    assert [type(o) for o in found] == [Row, PassedOver, PassedOver, Row]


def test_a_bad_line_does_not_change_what_its_neighbours_are():
    assert [o.record for o in outcomes(part("trade", PRINT + b"bad\n" + PRINT)) if isinstance(o, Row)] == rows(
        part("trade", PRINT * 2)
    )


def test_a_rejected_line_says_its_feed_and_symbol():
    (found,) = outcomes(part("trade", b"bad\n"))
    assert (found.file, found.line, found.feed, found.symbol) == ("trades/BHP.csv", 1, "asx-trades", "BHP")


def test_a_company_that_changed_its_symbol_has_the_one_of_the_day():
    old, new = Listing("OLD", date(2010, 1, 1), date(2014, 3, 11)), Listing("NEW", date(2014, 3, 13), date(2014, 3, 31))
    companies = Companies({"7078": (old, new)})
    lines = b"".join(PRINT.replace(b"/11/", b"/%d/" % day) for day in (11, 12, 13))
    one = Part("x", "trade", "7078", companies.symbols("7078"), lambda: lines_of("x", [lines]))
    found = list(read_parts((one,), companies, lambda: NOW_US))
    assert [o.symbol for o in found] == ["OLD", None, "NEW"]
    assert found[1].reason is Refusal.UNKNOWN_SYMBOL


@pytest.mark.parametrize(
    ("kind", "stem", "symbol", "count"),
    [("trade", "7078", "BHP", 91_631), ("trade", "7181", "DVN", 232),
     ("quote", "7078", "BHP", 77_849), ("quote", "7181", "DVN", 549)],
)  # fmt: skip
def test_a_real_file_gives_every_row_once(kind, stem, symbol, count):
    path, info = real(f"asx/{kind}s/{stem}.csv.gz", "asx/company_info.csv")
    companies = read_companies(info)
    files = {"trade": [], "quote": [], kind: [path]}
    found = list(read_parts(plan_load(files["trade"], files["quote"], companies), companies, lambda: NOW_US))
    assert Counter((type(o), o.symbol) for o in found) == {(Row, symbol): count}
    assert len({o.record["message_id"] for o in found}) == count


def test_real_rows_that_repeat_an_earlier_one_are_kept_as_further_occurrences():
    path, info = real("asx/trades/7078.csv.gz", "asx/company_info.csv")
    companies = read_companies(info)
    found = list(read_parts(plan_load([path], [], companies), companies, lambda: NOW_US))
    assert sum(not o.record["message_id"].endswith(":0") for o in found) == 3_194
    assert sum(bool(o.record["quality_flags"]) for o in found) == 133
