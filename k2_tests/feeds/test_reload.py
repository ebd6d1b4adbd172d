from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from k2_core.errors import Misconfigured, NotFound
from k2_core.feeds import SourceOfRecord, parse_feeds
from k2_feeds.batches import Batch
from k2_feeds.coverage import Stamp
from k2_feeds.outcomes import PassedOver, Rejected, Row
from k2_feeds.records import OTHER_DAY, day_of_record
from k2_feeds.reload import reload
from k2_feeds.simulator import Simulation
from k2_tests.feeds.dumps import lines, write_dump
from k2_tests.feeds.homes import FEEDS, ends, home_on, since
from k2_tests.small_exchange import START_MS, small_exchange

TRADES = FEEDS["binance-trades"]
DAY = date(2025, 1, 2)


@pytest.fixture
def home(tmp_path, broker, registry_url):
    return home_on(tmp_path / "home", broker, registry_url)


@pytest.fixture
def dumps(home):
    return home.home / TRADES.source_of_record.place


def outcomes(home, feed, day):
    """What a day is, rows in columns one by one."""
    found = day_of_record(feed, day, home.home, lambda: Stamp("c0ffee", "test", 1_790_000_000_000_000))
    return [one for outcome in found for one in (outcome.rows() if isinstance(outcome, Batch) else [outcome])]


def ids(found):
    return [outcome.record["source_sequence"] for outcome in found if isinstance(outcome, Row)]


def test_every_feed_names_a_source_we_can_read_or_none():
    assert {name for name, feed in FEEDS.items() if feed.source_of_record is None} == {"binance-quotes", "coverage"}


def test_a_feed_without_a_source_of_record_says_so(home):
    with pytest.raises(Misconfigured, match="names no source_of_record for binance-quotes"):
        reload(FEEDS["binance-quotes"], DAY, settings=home)


def test_a_source_that_is_not_there_is_named(home):
    with pytest.raises(NotFound, match=r"records/binance/trades does not exist.*binance-trades"):
        reload(TRADES, DAY, settings=home)


def test_a_day_the_source_does_not_hold_is_said_with_what_it_holds(home, dumps):
    write_dump(dumps, "BTCUSDT-trades-2025-01-05", lines(1, 2, date(2025, 1, 5)))
    with pytest.raises(
        NotFound, match=r"no dump of trades of 2025-01-02; it holds dumps of \[2025-01-05, 2025-01-06\)"
    ):
        outcomes(home, TRADES, DAY)


def test_the_day_is_taken_from_its_own_dump_and_else_from_its_month(home, dumps):
    month = [*lines(1, 2, date(2025, 1, 1)), *lines(3, 2, DAY), *lines(5, 2, date(2025, 1, 3))]
    write_dump(dumps / "monthly", "AUSDT-trades-2025-01", month)
    write_dump(dumps / "monthly", "BUSDT-trades-2025-01", month)
    write_dump(dumps / "daily", "AUSDT-trades-2025-01-02", lines(30, 1, DAY))
    found = outcomes(home, TRADES, DAY)
    assert ids(found) == [30, 3, 4]
    assert found.count(PassedOver(OTHER_DAY)) == 4


def test_a_day_arrives_in_the_log_with_its_coverage(home, dumps, broker):
    write_dump(dumps, f"RELOADUSDT-trades-{DAY}", lines(1, 5, DAY))
    before = ends(broker)
    report = reload(TRADES, DAY, settings=home)
    assert (report.sent, report.acknowledged, report.is_complete) == (5, 5, True)
    assert report.source == "binance-trades of 2025-01-02 again, from binance-dumps records/binance/trades"
    keys = [key for key, _ in since(broker, before, TRADES)]
    assert keys == [b"BINANCE.RELOADUSDT"] * 5
    events = [record["event"] for _, record in since(broker, before, FEEDS["coverage"])]
    assert events == ["opened", "closed", "closed"]


def test_an_asx_day_has_the_keys_it_has_in_the_whole_load(home):
    folder = home.home / FEEDS["asx-trades"].source_of_record.place
    simulation = Simulation(days=3, rows_per_day=40, equities=("ASIM", "BSIM"), pairs=("SIMUSDT",))
    simulation.write(folder)
    day = date(2025, 3, 12)
    for name in ("asx-trades", "asx-quotes"):
        whole = [o for o in simulation.outcomes(lambda: 0) if isinstance(o, Row) and o.feed == name]
        expected = {row.record["message_id"] for row in whole if f":{day}:" in row.record["message_id"]}
        rows = [outcome for outcome in outcomes(home, FEEDS[name], day) if isinstance(outcome, Row)]
        assert {row.record["message_id"] for row in rows if row.feed == name} == expected != set()
        issued = {row.record["symbol"] for row in rows if row.feed == "coverage"}
        assert issued == {"ASIM", "BSIM"}


def test_a_bad_line_is_told_on_its_own_day_only(home):
    folder = home.home / FEEDS["asx-trades"].source_of_record.place / "trades"
    folder.mkdir(parents=True)
    bad = [f"03/1{n}/2025,10:00:00,-1,100,,," for n in (1, 2)]
    (folder / "ABC.csv").write_text("\n".join([*bad, "nonsense"]))
    found = outcomes(home, FEEDS["asx-trades"], date(2025, 3, 12))
    assert [outcome.line for outcome in found if isinstance(outcome, Rejected)] == [2, 3]


def test_reference_data_comes_again_from_its_files(home):
    company_file = home.home / FEEDS["asx-instruments"].source_of_record.place
    company_file.parent.mkdir(parents=True)
    company_file.write_text("company_id,symbol,start_date,end_date\n1,ABC,01/02/2003,\n")
    assert len(outcomes(home, FEEDS["asx-instruments"], DAY)) == 2
    folder = home.home / FEEDS["binance-instruments"].source_of_record.place
    folder.mkdir(parents=True)
    for day_ms in (1_735_800_000_000, 1_735_900_000_000):
        told = {"serverTime": day_ms, "symbols": [{"symbol": "AUSDT", "quoteAsset": "USDT"}]}
        (folder / f"{day_ms}.json").write_text(json.dumps(told))
    found = outcomes(home, FEEDS["binance-instruments"], DAY)
    assert [type(outcome) for outcome in found] == [Row, PassedOver]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"reader": "tape", "place": "x"}, "reader 'tape', expected one of"),
        ({"reader": "binance-dumps", "place": ""}, "expected a folder, a file or an address"),
        ({"reader": "binance-dumps"}, "place"),
        ({"reader": "binance-dumps", "place": "x", "more": 1}, "more"),
        ({"reader": "binance-dumps", "place": "x", "symbols": ["A"]}, "symbols go with binance-rest"),
        ({"reader": "binance-rest", "place": "http://x"}, "symbols go with binance-rest"),
        ("records", "binance-trades"),
    ],
)
def test_a_source_that_is_misspelt_is_refused_with_its_feed(record, said):
    entry = {"name": "binance-trades", "topic": "t", "table": "market_data.trades", "exchange": "BINANCE",
             "asset_class": "crypto", "kind": "trade", "rule": "contiguous", "timezone": "UTC", "kafka_partitions": 1}  # fmt: skip
    with pytest.raises(ValueError, match=said):
        parse_feeds({"feeds": [{**entry, "source_of_record": record}]}, lambda name: None)


def test_a_day_may_come_from_rest(home):
    with small_exchange() as exchange:
        exchange.lists("BTCUSDT", range(1, 101))
        record = SourceOfRecord("binance-rest", exchange.url, ("BTCUSDT",))
        start = datetime.fromtimestamp(START_MS / 1_000, UTC).date()
        found = outcomes(home, replace(TRADES, source_of_record=record), start)
        assert [row.record["source_sequence"] for row in found if isinstance(row, Row) and row.feed == TRADES.name] == [
            *range(1, 101)
        ]
        with pytest.raises(NotFound, match="has no trade of BTCUSDT"):
            outcomes(home, replace(TRADES, source_of_record=record), start + timedelta(days=2))


def test_a_source_may_be_an_absolute_place(home, tmp_path):
    write_dump(tmp_path / "elsewhere", f"AUSDT-trades-{DAY}", lines(1, 2, DAY))
    elsewhere = replace(TRADES, source_of_record=SourceOfRecord("binance-dumps", str(tmp_path / "elsewhere")))
    assert ids(outcomes(home, elsewhere, DAY)) == [1, 2]
