from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2_core.contracts import INSTRUMENTS
from k2_core.instruments import in_force
from k2_core.quality import Flag, Reason
from k2_core.verdict import DUPLICATE, REVISION, WRITTEN
from k2_tests.core.test_judge import Lake
from k2_tests.ticks import FEEDS

FEED = FEEDS["asx-instruments"]
TOLD = datetime(2024, 8, 8, 12, tzinfo=UTC)
LISTED = date(2008, 5, 7)


def listing(symbol="BHP", first=LISTED, *, company="7078", **changes):
    """One description, as the feed states it."""
    return {
        "message_id": f"ASX:{symbol}:instrument:{first}:{company}",
        "instrument_id": f"ASX-{company}",
        "symbol": symbol,
        "exchange": "ASX",
        "asset_class": "equities",
        "currency": "AUD",
        "valid_from": first,
        "valid_to": None,
        "timestamp": TOLD,
        "name": "A COMPANY LTD",
        "isin": None,
        "base_asset": None,
        "status": None,
        "price_increment": None,
        "quantity_increment": None,
        "ingestion_timestamp": TOLD,
        "vendor_data": None,
        "quality_flags": int(Flag.RECEIVE_TIME_AS_EVENT_TIME),
        **changes,
    }


def later(days, **changes):
    """The same description in a later delivery."""
    told = TOLD + timedelta(days=days)
    return listing(timestamp=told, ingestion_timestamp=told, **changes)


def test_a_description_told_again_on_any_later_day_is_no_news():
    lake = Lake(FEED)
    assert lake.feed_in(listing(), listing()).outcome.tolist() == [WRITTEN, DUPLICATE]
    assert lake.feed_in(later(1)).outcome.tolist() == [DUPLICATE]
    assert lake.feed_in(later(400)).outcome.tolist() == [DUPLICATE]


def test_a_company_listed_before_any_feed_was_recorded_is_stored_under_the_date_it_was_told():
    lake = Lake(FEED)
    lake.feed_in(listing(first=date(1985, 8, 13)))
    (row,) = lake.rows.to_pylist()
    assert (row["valid_from"], row["exchange_date"], lake.dead) == (date(1985, 8, 13), date(2024, 8, 8), [])


def test_a_changed_description_is_a_revision_and_a_new_symbol_a_row_of_its_own():
    lake = Lake(FEED)
    lake.feed_in(listing())
    ended, renamed = later(30, valid_to=date(2024, 9, 1)), listing("BHG", date(2024, 9, 1))
    assert lake.feed_in(ended, renamed).outcome.tolist() == [REVISION, WRITTEN]
    assert [(r["symbol"], r["revision"]) for r in lake.rows.to_pylist()] == [("BHP", 0), ("BHG", 0), ("BHP", 1)]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"valid_from": date(1899, 12, 31)}, Reason.IMPLAUSIBLE_TIME),
        ({"valid_from": date(2100, 1, 1)}, Reason.IMPLAUSIBLE_TIME),
        ({"valid_to": LISTED}, Reason.IMPLAUSIBLE_TIME),
        ({"price_increment": Decimal(0)}, Reason.NOT_POSITIVE),
        ({"message_id": "ASX:BHP:instrument:2024-08-08:7078"}, Reason.KEY_MISMATCH),
        ({"message_id": "ASX:RIO:instrument:2008-05-07:7078"}, Reason.KEY_MISMATCH),
        ({"exchange": "BINANCE"}, Reason.UNKNOWN_EXCHANGE),
        ({"timestamp": datetime(1999, 1, 1, tzinfo=UTC)}, Reason.IMPLAUSIBLE_TIME),
    ],
)
def test_a_description_that_cannot_hold_is_a_dead_letter_and_its_neighbours_land(bad, reason):
    lake = Lake(FEED)
    lake.feed_in(listing("AAA"), {**listing(), **bad}, listing("ZZZ"))
    assert [dead.reason for dead in lake.dead] == [reason]
    assert lake.rows["symbol"].to_pylist() == ["AAA", "ZZZ"]


def test_a_date_no_calendar_holds_is_a_dead_letter():
    lake = Lake(FEED)
    from k2_core.screen import screen
    from k2_tests.core.test_judge import TODAY
    from k2_tests.ticks import table_of

    rows = table_of(FEED, [listing()])
    for name in ("valid_from", "valid_to"):
        wild = pa.chunked_array([pa.array([2**31 - 1], pa.int32()).cast(pa.date32())])
        at = rows.schema.get_field_index(name)
        screened = screen(lake.feed, rows.set_column(at, rows.schema.field(name), wild), TODAY)
        assert [dead.reason for dead in screened.dead] == [Reason.IMPLAUSIBLE_TIME]


def stored(*records):
    """Rows of the table; revision 0 unless said."""
    judged = {"revision": 0, "exchange_date": TOLD.date(), "kafka_topic": "t", "kafka_epoch": 0, "kafka_partition": 0}
    rows = [{**judged, "kafka_offset": i, **record} for i, record in enumerate(records)]
    return pa.Table.from_pylist(rows, schema=INSTRUMENTS.arrow_schema())


def symbols(rows, day):
    return in_force(rows, day)["symbol"].to_pylist()


def test_a_symbol_change_does_not_rewrite_history():
    rows = stored(listing("OLD", valid_to=date(2012, 1, 1)), listing("NEW", date(2012, 1, 1)))
    asked = [date(2008, 5, 6), LISTED, date(2011, 12, 31), date(2012, 1, 1), date(2026, 1, 1)]
    assert [symbols(rows, day) for day in asked] == [[], ["OLD"], ["OLD"], ["NEW"], ["NEW"]]


def test_the_newest_revision_says_when_a_description_ends():
    rows = stored({**listing(valid_to=date(2014, 5, 1)), "revision": 1}, listing(valid_to=date(2014, 4, 1)))
    assert symbols(rows, date(2014, 4, 15)) == ["BHP"]
    assert symbols(rows, date(2014, 5, 1)) == []


def test_one_symbol_of_two_companies_at_two_times_is_told_apart():
    rows = stored(listing("ABC", company="1", valid_to=date(2010, 1, 1)), listing("ABC", date(2015, 1, 1), company="2"))
    assert in_force(rows, date(2009, 1, 1))["instrument_id"].to_pylist() == ["ASX-1"]
    assert in_force(rows, date(2016, 1, 1))["instrument_id"].to_pylist() == ["ASX-2"]


days = st.dates(date(2008, 1, 1), date(2008, 1, 20))
descriptions = st.lists(st.tuples(st.sampled_from("12"), days, st.none() | days, st.integers(0, 2)), max_size=12)


@given(descriptions, days, st.randoms())
def test_what_holds_agrees_with_asking_one_by_one_in_any_order(found, day, order):
    told = {}
    for company, first, end, revision in found:
        if end is None or end > first:
            told[company, first, revision] = {
                **listing(company=company, first=first, valid_to=end),
                "revision": revision,
            }
    records = list(told.values())
    order.shuffle(records)
    expected = {}
    for company, first in {(c, f) for c, f, _ in told if f <= day}:
        newest = max(r for c, f, r in told if (c, f) == (company, first))
        if first >= expected.get(company, (date.min, None))[0]:
            expected[company] = first, told[company, first, newest]["valid_to"]
    holds = {f"ASX-{c}": first for c, (first, end) in expected.items() if end is None or end > day}
    rows = in_force(stored(*records), day)
    assert dict(zip(rows["instrument_id"].to_pylist(), rows["valid_from"].to_pylist(), strict=True)) == holds
