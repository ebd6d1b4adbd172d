"""Sources of record: what the place feeds.yaml names for a feed holds of one exchange date."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from k2_core.errors import Misconfigured, NotFound
from k2_core.exchange_dates import day_bounds
from k2_core.feeds import Feed, Reader, SourceOfRecord
from k2_core.windows import to_us
from k2_feeds.asx import moment_of, read_parts
from k2_feeds.asx_files import plan_load
from k2_feeds.asx_instruments import read_company_file
from k2_feeds.batches import Batch
from k2_feeds.binance_backfill import Wanted, backfilled, located
from k2_feeds.binance_dump import Dump, dump_named, plan_dumps, zips_below
from k2_feeds.binance_instruments import read_exchange_info
from k2_feeds.companies import read_companies
from k2_feeds.coverage import Stamp
from k2_feeds.dump_batches import read_dumps
from k2_feeds.issues import with_issues
from k2_feeds.outcomes import Outcome, PassedOver, Rejected, Row
from k2_feeds.repair import Repair
from k2_resources.binance.rest import BinanceRest

OTHER_DAY = "line of another day"
COMPANY_FILE = "company_info.csv"
_US_PER_MS = 1_000
Collected = Iterator[Outcome | Batch]
"""What a source gives to a collection."""


@dataclass(frozen=True)
class Asked:
    """One exchange date of a feed that is wanted again. home: what places are told from; stamp: who asks, and when."""

    feed: Feed
    day: date
    record: SourceOfRecord
    home: Path
    stamp: Callable[[], Stamp]

    @property
    def path(self) -> Path:
        """Where the files are. Raises NotFound."""
        path = (self.home / self.record.place).absolute()
        if not path.exists():
            raise NotFound(
                f"{path} does not exist; feeds.yaml names it as the source of record of {self.feed.name} "
                f"({self.record.reader})"
            )
        return path

    def now_us(self) -> int:
        """Tell the time, µs UTC."""
        return self.stamp().now_us

    def bounds_us(self) -> tuple[int, int]:
        """[start, end) of the day, µs UTC."""
        start, end = day_bounds(self.day, self.feed.timezone)
        return to_us(start), to_us(end)


def day_of_record(feed: Feed, day: date, home: Path, stamp: Callable[[], Stamp]) -> Collected:
    """What the source of record of a feed holds of one exchange date. stamp: of the collection, with the time of now.

    Raises Misconfigured when feeds.yaml names none, NotFound when it holds nothing of that date, BadInput, Unreachable.
    """
    record = feed.source_of_record
    if record is None:
        raise Misconfigured(f"feeds.yaml names no source_of_record for {feed.name}, so a day of it cannot be had again")
    return _READERS[record.reader](Asked(feed, day, record, home, stamp))


def _dumps(asked: Asked) -> Collected:
    """The shortest dump of each symbol that holds the day."""
    found: dict[str, Dump] = {}
    known = [dump for path in zips_below(asked.path)[0] if (dump := dump_named(path))]
    for dump in sorted(known, key=lambda dump: dump.end - dump.first, reverse=True):
        if dump.first <= asked.day < dump.end:
            found[dump.symbol] = dump
    if not found:
        held = f"dumps of [{min(d.first for d in known)}, {max(d.end for d in known)})" if known else "no dump"
        raise NotFound(f"{asked.path} holds no dump of trades of {asked.day}; it holds {held}")
    return _of_day(asked, read_dumps(plan_dumps(dump.path for dump in found.values()), asked.now_us))


def _rest(asked: Asked) -> Collected:
    """Every id of the day, as REST tells it."""
    start_us, end_us = asked.bounds_us()
    bounds_ms = start_us // _US_PER_MS, end_us // _US_PER_MS
    with BinanceRest(asked.record.place) as rest:
        wanted = [Wanted(rest.base_url, symbol, *bounds_ms) for symbol in asked.record.symbols]
        found = [progress for one in wanted if (progress := located(rest, one, None))]
    if not found:
        symbols = ", ".join(asked.record.symbols)
        raise NotFound(f"{asked.record.place} has no trade of {symbols} on {asked.day}")

    def fetched() -> Collected:
        with BinanceRest(asked.record.place) as rest:
            repair = Repair(rest, asked.now_us)
            for progress in found:
                yield from backfilled(repair, asked.feed, progress, asked.stamp, lambda _: None)

    return fetched()


def _asx_files(asked: Asked) -> Collected:
    """All files of one kind: occurrence numbers count over the day, wherever its rows are."""
    feed, folder = asked.feed, asked.path / f"{asked.feed.kind}s"
    files = sorted(path for path in folder.glob("*.csv*") if path.is_file())
    if not files:
        raise NotFound(f"{folder} holds no file")
    company_file = asked.path / COMPANY_FILE
    companies = read_companies(company_file) if company_file.exists() else None
    trades, quotes = (files, []) if feed.kind == "trade" else ([], files)
    lines = _lines_of_day(asked, read_parts(plan_load(trades, quotes, companies), companies, asked.now_us))
    return with_issues(lines, {feed.name: feed}, asked.stamp)


def _company_file(asked: Asked) -> Collected:
    """All of it: its lines say from when they hold, not when they were told."""
    return read_company_file(asked.path, asked.now_us)


def _exchange_info(asked: Asked) -> Collected:
    files = sorted(path for path in asked.path.rglob("*.json*") if path.is_file())
    if not files:
        raise NotFound(f"{asked.path} holds no exchangeInfo")
    return _lines_of_day(asked, (outcome for path in files for outcome in read_exchange_info(path, asked.now_us)))


def _of_day(asked: Asked, outcomes: Iterable[Outcome | Batch]) -> Collected:
    """Rows of the day, and the lines that may be of it."""
    start, end = asked.bounds_us()
    for outcome in outcomes:
        if not isinstance(outcome, Batch):
            yield from _lines_of_day(asked, (outcome,))
            continue
        times = outcome.columns.column("timestamp").cast(pa.int64())
        kept = outcome.columns.filter(pc.and_(pc.greater_equal(times, start), pc.less(times, end)))
        yield from (PassedOver(OTHER_DAY) for _ in range(len(outcome) - kept.num_rows))
        if kept.num_rows:
            yield Batch(outcome.feed, kept)


def _lines_of_day(asked: Asked, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    start, end = asked.bounds_us()
    for outcome in outcomes:
        if isinstance(outcome, Row):
            yield outcome if start <= outcome.record["timestamp"] < end else PassedOver(OTHER_DAY)
        elif isinstance(outcome, Rejected) and (moment := moment_of(outcome.raw)) and moment.date() != asked.day:
            yield PassedOver(OTHER_DAY)
        else:
            yield outcome


_READERS: dict[Reader, Callable[[Asked], Collected]] = {
    "binance-dumps": _dumps,
    "binance-rest": _rest,
    "binance-exchange-info": _exchange_info,
    "asx-files": _asx_files,
    "asx-companies": _company_file,
}
