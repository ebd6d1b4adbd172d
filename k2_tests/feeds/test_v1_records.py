from __future__ import annotations

from datetime import date
from decimal import Decimal

import pyarrow as pa
import pytest

from k2_core.contracts import QUOTES, TRADES
from k2_core.errors import BadInput
from k2_core.frames import Frames
from k2_core.quality import Flag
from k2_core.v1 import v1_schema
from k2_feeds.asx import read_parts
from k2_feeds.coverage import Stamp
from k2_feeds.issues import with_issues
from k2_feeds.outcomes import Refusal, Rejected, Row
from k2_feeds.simulator import Simulation
from k2_feeds.v1_records import V1Encoder, company_ids, that_fit_v1, v1_record, v1_subject
from k2_resources.avro_codec import decoder
from k2_tests.feeds.homes import FEEDS, WIRE_PREFIX_BYTES
from k2_tests.feeds.sample import real
from k2_tests.feeds.test_asx import BOOK, NOW_US, PRINT, outcomes, part, rows
from k2_tests.ticks import table_of

COMPANIES = {"BHP": 7078}
EXCLUDED = b"03/11/2014,07:05:19.694,40.0,25400,3,X,36.5\r\n"


def test_a_print_becomes_a_record_of_the_first_schema():
    (record,) = rows(part("trade", EXCLUDED))
    assert v1_record(record, COMPANIES) == {
        "symbol": "BHP",
        "company_id": 7078,
        "exchange": "ASX",
        "exchange_timestamp": 1_394_481_919_694,
        "price": (40_000_000).to_bytes(4, "big"),
        "volume": 25_400,
        "qualifiers": 3,
        "venue": "X",
        "buyer_id": "36.5",
        "ingestion_timestamp": NOW_US // 1_000,
        "sequence_number": 0,
    }


def test_a_side_nobody_is_on_becomes_zeros():
    (record,) = rows(part("quote", BOOK))
    found = v1_record(record, COMPANIES)
    assert (found["bid_volume"], found["ask_price"], found["ask_volume"]) == (300, b"\0", 0)


def test_the_sequence_number_is_the_occurrence_of_the_row():
    found = [v1_record(record, COMPANIES) for record in rows(part("trade", PRINT * 3))]
    assert [record["sequence_number"] for record in found] == [0, 1, 2]


def lifted(table, records, companies):
    encode = V1Encoder(table, 1, companies)
    bodies = [encode(record)[WIRE_PREFIX_BYTES:] for record in records]
    found = decoder(v1_schema(table), table)(Frames.of(bodies))
    assert not found.dead
    return found.rows


def assert_the_same(table, feed, records, companies):
    """What is lifted says of every row what the feed says in V2: the key, and all content."""
    names = ["message_id", *table.content, "quality_flags", "currency", "asset_class"]
    direct = table_of(FEEDS[feed], records).select(names)
    assert lifted(table, records, companies).select(names).equals(direct.combine_chunks())


@pytest.mark.parametrize(("table", "feed"), [(TRADES, "asx-trades"), (QUOTES, "asx-quotes")])
def test_a_simulated_day_in_v1_is_lifted_to_the_same_day(table, feed):
    parts = Simulation(days=1, rows_per_day=300, auctions=True).parts()
    found = [o.record for o in read_parts(parts, None, lambda: NOW_US) if o.feed == feed]
    assert_the_same(table, feed, found, company_ids(parts))


def test_a_real_day_in_v1_is_lifted_to_the_same_day():
    (path,) = real("asx/trades/7181.csv.gz")
    from k2_feeds.asx_files import plan_load

    parts = plan_load([path], [], None)
    found = [o.record for o in read_parts(parts, None, lambda: NOW_US)]
    assert len(found) == 232
    assert_the_same(TRADES, "asx-trades", found, company_ids(parts))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (PRINT.replace(b",5,,", b",XT,,"), Refusal.BAD_CONDITION),
        (PRINT.replace(b",5,,", b",05,,"), Refusal.BAD_CONDITION),
        (PRINT.replace(b",5,,", b",,,"), Refusal.BAD_CONDITION),
        (PRINT.replace(b".881", b".8815"), Refusal.IMPLAUSIBLE_TIME),
        (PRINT.replace(b"36.55", b"36.5500001"), Refusal.TOO_MANY_DECIMALS),
        (PRINT.replace(b",400,", b",400.5,"), Refusal.TOO_MANY_DECIMALS),
    ],
)
def test_a_row_that_v1_cannot_hold_is_set_aside_by_its_key_and_its_neighbours_are_not(line, reason):
    blank = b"\n"
    found = list(that_fit_v1(outcomes(part("trade", PRINT + line + blank + PRINT)), COMPANIES))
    assert [type(o).__name__ for o in found] == ["Row", "Rejected", "PassedOver", "Row"]
    rejected = found[1]
    assert isinstance(rejected, Rejected)
    assert (rejected.reason, rejected.feed, rejected.symbol) == (reason, "asx-trades", "BHP")
    assert rejected.raw.startswith(b"ASX:BHP:trade:2014-03-11:")


def test_every_simulated_row_fits_and_statements_pass():
    parts = Simulation(days=1, rows_per_day=200).parts()
    rows = read_parts(parts, None, lambda: NOW_US)
    found = list(that_fit_v1(with_issues(rows, FEEDS, lambda: Stamp("run", "a test", NOW_US)), company_ids(parts)))
    assert all(isinstance(outcome, Row) for outcome in found)
    assert [outcome.feed for outcome in found[-4:]] == ["coverage"] * 4


@pytest.mark.parametrize("company", ["BHP", "99999999999", "70 78", "٣"])
def test_a_company_without_a_number_is_refused_before_anything_is_sent(company):
    with pytest.raises(BadInput, match="32-bit number"):
        company_ids([part("trade", PRINT, company)])


def test_v1_has_a_subject_of_its_own_so_that_both_schemas_live_on_one_topic():
    assert v1_subject(FEEDS["asx-trades"]) == "market.equities.trades.asx-com.k2.market_data.Trade"


def test_the_excluded_flag_survives_the_way_there_and_back():
    found = rows(part("trade", EXCLUDED + PRINT))
    flags = lifted(TRADES, found, COMPANIES)["quality_flags"]
    assert flags == pa.chunked_array([[int(Flag.VENDOR_EXCLUDED), 0]], pa.int32())
    assert found[0]["price"] == Decimal(40)
    assert date(2014, 3, 11).isoformat() in found[0]["message_id"]
