"""Reference data through Dagster as any other table: sensor, run, partitions, checks, status."""

from datetime import UTC, date, datetime

from k2_assets.status import lake_status
from k2_core.contracts import INSTRUMENTS
from k2_resources.lake.verify import verify
from k2_tests.assets.conftest import DagsterHome
from k2_tests.core.test_instruments import listing

TOLD = date(2024, 8, 8)


def test_descriptions_are_asked_for_stored_checked_and_told(home: DagsterHome) -> None:
    feed = home.feed("asx-instruments")
    home.send(feed, listing("OLD"), listing("NEW", date(2012, 1, 1)), listing("BAD", valid_to=date(2000, 1, 1)))
    skipped = home.tick(INSTRUMENTS)
    assert "3 records wait" in skipped.skip_message
    assert home.run(INSTRUMENTS).success
    assert home.days(INSTRUMENTS) == [TOLD.isoformat()]
    told = {e.check_name: e.passed for e in home.evaluations(INSTRUMENTS)}
    fine = ("duplicate_keys", "receipts_equal_rows", "schema", "value_rules")
    assert told == {"dead_letters": False, **dict.fromkeys(fine, True)}
    assert verify(home.engine.lake, INSTRUMENTS).findings == ()
    status = lake_status(home.stack.settings)
    (table,) = (t for t in status["tables"] if t["table"] == INSTRUMENTS.name)
    assert (table["rows"], table["dead_letters"], table["open_gaps"]) == (2, 1, 0)
    assert {topic["lag"] for topic in status["topics"] if topic["topic"] == feed.topic} == {0}


def test_a_date_is_asked_for_from_the_ui(home: DagsterHome) -> None:
    home.send(home.feed("binance-instruments"), binance("AUSDT"))
    assert home.run(INSTRUMENTS, day=date(2026, 1, 5)).success
    assert home.days(INSTRUMENTS) == ["2026-01-05"]


def binance(symbol: str) -> dict[str, object]:
    """A pair as exchangeInfo tells it on one day."""
    at = datetime(2026, 1, 5, 12, tzinfo=UTC)
    names = {"symbol": symbol, "exchange": "BINANCE", "asset_class": "crypto", "currency": "USDT"}
    key = {"message_id": f"BINANCE:{symbol}:instrument:2026-01-05:{symbol}", "instrument_id": f"BINANCE-{symbol}"}
    times = {"valid_from": at.date(), "timestamp": at, "ingestion_timestamp": at}
    return {**listing(symbol), **names, **key, **times, "quality_flags": 0}
