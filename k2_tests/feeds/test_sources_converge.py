"""The same trades and instruments by every way they can come, through a real log into a real lake."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from itertools import count

import pytest

from k2_assets.engine import ingest_until_caught_up
from k2_core.contracts import INSTRUMENTS, TRADES
from k2_core.instruments import in_force
from k2_feeds.asx_instruments import read_company_file
from k2_feeds.binance_dump import plan_dumps
from k2_feeds.binance_frames import parse_frame
from k2_feeds.binance_instruments import read_exchange_info
from k2_feeds.collection import Collection
from k2_feeds.dump_batches import read_dumps
from k2_feeds.producer import FeedProducer
from k2_feeds.repair import rest_row
from k2_resources.lake.scans import receipt_rows
from k2_resources.lake.verify import verify
from k2_tests.feeds.dumps import at, line, write_dump
from k2_tests.feeds.homes import FEEDS
from k2_tests.stacks import stack

DAY = date(2024, 12, 31)
RECEIVED_US = 1_790_000_000_000_000
ROWS = 20
_numbers = count()


class Home:
    """A lake behind a log, and what came of each delivery."""

    def __init__(self, running):
        self.settings = running.settings
        self.engine = running.engine()

    def take(self, feed, outcomes, table=TRADES):
        """Send, ingest, and give the receipt's counts and the sums over its ranges."""
        number = next(_numbers)
        before = len(receipt_rows(self.engine.lake, table))
        collection = Collection(
            f"c{number}", "test", [FEEDS[feed]], self.settings.home / f"c{number}", lambda: RECEIVED_US
        )
        with FeedProducer(self.settings, [FEEDS[feed], FEEDS["coverage"]]) as producer:
            report = collection.run(outcomes, producer)
        assert report.is_complete, report
        ingest_until_caught_up(self.engine)
        told = receipt_rows(self.engine.lake, table).slice(before).to_pylist()
        ranges = [r for receipt in told for r in receipt["ranges"]]
        counts = {name: sum(r[name] for r in ranges) for name in ("written", "duplicates", "revisions", "dead")}
        return {**counts, "upgrades": sum(receipt["precision_upgrades"] for receipt in told)}

    def rows(self, table=TRADES, **where):
        """Stored rows with some values, by key and revision."""
        found = self.engine.lake.load(table).scan().to_arrow().to_pylist()
        mine = [row for row in found if all(row[name] == value for name, value in where.items())]
        return sorted(mine, key=lambda row: (row["message_id"], row["revision"]))


@pytest.fixture(scope="module")
def home(tmp_path_factory, registry_url):
    with stack(tmp_path_factory.mktemp("home"), registry_url) as running:
        yield Home(running)


def took(**counts):
    return {"written": 0, "duplicates": 0, "revisions": 0, "dead": 0, "upgrades": 0, **counts}


def dump(folder, symbol, unit, **changed):
    """A day of trades half a millisecond off the full one. changed: price of a trade by its id, `p7="101"`."""
    told = [
        line(i, at(DAY, i + 0.0005, unit=unit), price=changed.get(f"p{i}", "100.5"), quantity="0.2", quote="20.1")
        for i in range(1, ROWS + 1)
    ]
    return read_dumps(plan_dumps([write_dump(folder, f"{symbol}-trades-{DAY}", told)]), lambda: RECEIVED_US)


def frames(symbol):
    for i in range(1, ROWS + 1):
        event = {"e": "trade", "E": at(DAY, i + 1, unit="ms"), "s": symbol, "t": i, "p": "100.50000000", "q": "0.2",
                 "T": at(DAY, i + 0.0005, unit="ms"), "m": True, "M": True}  # fmt: skip
        frame = {"stream": f"{symbol.lower()}@trade", "data": event}
        yield parse_frame(json.dumps(frame).encode(), RECEIVED_US)


def answers(symbol):
    """As REST tells the same trades."""
    for i in range(1, ROWS + 1):
        told = {"id": i, "price": "100.50000000", "qty": "0.20000000", "quoteQty": "20.10000000",
                "time": at(DAY, i + 0.0005), "isBuyerMaker": True, "isBestMatch": True}  # fmt: skip
        yield rest_row(symbol, told, RECEIVED_US)


@pytest.mark.parametrize("order", ["stream, REST, ms, us", "us, ms, REST, stream"])
def test_a_trade_by_stream_rest_and_dumps_is_one_row(home, tmp_path, order):
    symbol = f"W{order.replace(', ', '').upper()}USDT"
    deliver = {"stream": lambda: frames(symbol), "REST": lambda: answers(symbol),
               "ms": lambda: dump(tmp_path, symbol, "ms"), "us": lambda: dump(tmp_path, symbol, "us")}  # fmt: skip
    first, *others = order.split(", ")
    assert home.take("binance-trades", deliver[first]()) == took(written=ROWS)
    for other in others:
        found = home.take("binance-trades", deliver[other]())
        assert (found["written"], found["duplicates"], found["revisions"]) == (0, ROWS, 0)
    rows = home.rows(symbol=symbol)
    assert [(row["source_sequence"], row["revision"]) for row in rows] == sorted(
        ((i, 0) for i in range(1, ROWS + 1)), key=lambda known: str(known[0])
    )


def test_an_archive_issued_again_in_a_finer_unit_is_nothing_new_and_counted_apart(home, tmp_path):
    home.take("binance-trades", dump(tmp_path, "FINEUSDT", "ms"))
    again = home.take("binance-trades", dump(tmp_path, "FINEUSDT", "us"))
    assert again == took(duplicates=ROWS, upgrades=ROWS)
    same = home.take("binance-trades", dump(tmp_path, "FINEUSDT", "ms"))
    assert same == took(duplicates=ROWS)


def test_an_archive_issued_again_with_other_content_is_a_revision_of_what_changed(home, tmp_path):
    home.take("binance-trades", dump(tmp_path, "REVUSDT", "us"))
    changed = home.take("binance-trades", dump(tmp_path, "REVUSDT", "us", p7="101.5"))
    assert changed == took(revisions=1, duplicates=ROWS - 1)
    assert home.take("binance-trades", dump(tmp_path, "REVUSDT", "us", p7="101.5")) == took(duplicates=ROWS)
    revised = home.rows(symbol="REVUSDT", source_sequence=7)
    assert [(row["revision"], str(row["price"])) for row in revised] == [(0, "100.50000000"), (1, "101.50000000")]


HEADER = "company_id,symbol,company_name,ISIN,start_date,end_date\n"


def listings(tmp_path, *lines):
    path = tmp_path / "company_info.csv"
    path.write_text(HEADER + "\n".join(lines))
    return read_company_file(path, lambda: RECEIVED_US)


def test_companies_and_their_symbols_are_told_once_and_history_stays(home, tmp_path):
    old = "901,OLDY,OLD NAME LTD,AU0,06/11/2003,12/31/2013"
    assert home.take("asx-instruments", listings(tmp_path, old), INSTRUMENTS) == took(written=1)
    assert home.take("asx-instruments", listings(tmp_path, old), INSTRUMENTS) == took(duplicates=1)
    ended, renamed = "901,OLDY,OLD NAME LTD,AU0,06/11/2003,01/31/2014", "901,NEWY,NEW NAME LTD,AU0,02/01/2014,"
    changed = home.take("asx-instruments", listings(tmp_path, ended, renamed), INSTRUMENTS)
    assert changed == took(written=1, revisions=1)
    rows = home.engine.lake.load(INSTRUMENTS).scan("instrument_id == 'ASX-901'").to_arrow()
    days = [date(2003, 6, 11), date(2014, 1, 31), date(2014, 2, 1)]
    assert [in_force(rows, day)["symbol"].to_pylist() for day in days] == [["OLDY"], ["OLDY"], ["NEWY"]]
    assert sorted(rows["revision"].to_pylist()) == [0, 0, 1]


def exchange_info(tmp_path, day, **statuses):
    noon_ms = int(datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp() * 1_000)
    pairs = [
        {
            "symbol": name,
            "status": status,
            "baseAsset": name[:-4],
            "quoteAsset": "USDT",
            "filters": [],
            "permissions": [],
        }
        for name, status in statuses.items()
    ]
    path = tmp_path / f"{day}.json"
    path.write_text(json.dumps({"serverTime": noon_ms, "symbols": pairs}))
    return read_exchange_info(path, lambda: RECEIVED_US)


def test_what_the_exchange_lists_is_told_once_a_day_and_each_day_stays(home, tmp_path):
    first, second = date(2026, 1, 5), date(2026, 1, 9)
    told = {"AAUSDT": "TRADING", "BBUSDT": "TRADING"}
    assert home.take("binance-instruments", exchange_info(tmp_path, first, **told), INSTRUMENTS) == took(written=2)
    assert home.take("binance-instruments", exchange_info(tmp_path, first, **told), INSTRUMENTS) == took(duplicates=2)
    halted = {**told, "BBUSDT": "BREAK"}
    assert home.take("binance-instruments", exchange_info(tmp_path, second, **halted), INSTRUMENTS) == took(written=2)
    rows = home.engine.lake.load(INSTRUMENTS).scan("symbol == 'BBUSDT'").to_arrow()
    asked = [date(2026, 1, 4), first, date(2026, 1, 8), second]
    assert [in_force(rows, day)["status"].to_pylist() for day in asked] == [[], ["TRADING"], ["TRADING"], ["BREAK"]]
    assert set(rows["exchange_date"].to_pylist()) == {first, second}


def test_all_of_it_balances(home):
    assert [verify(home.engine.lake, table).findings for table in (TRADES, INSTRUMENTS)] == [(), ()]
