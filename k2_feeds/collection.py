"""One feed command from its first line to its report: send, set aside, count, state the coverage."""

from __future__ import annotations

import base64
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO, runtime_checkable

import structlog

from k2_core.errors import K2Error
from k2_core.feeds import Feed
from k2_feeds import coverage
from k2_feeds.batches import Batch, widen
from k2_feeds.coverage import Event, Stamp, Tally
from k2_feeds.outcomes import Outcome, PassedOver, Refusal, Rejected, Row

REPORT_FILE = "report.json"
_LAST_FLUSH_SECONDS_MAX = 10.0
"""After an error, for what is still on its way: enough for a broker that lives."""
KINDS_MAX = 100
"""Kinds of passed-over lines told apart; the rest is counted together."""
OTHER_KINDS = "other kinds"
_SYMBOLS_TOLD_APART = 100_000
"""More symbols than any exchange lists; beyond, a source that invents them only adds to the sum of its feed."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Report:
    """What a feed command did. Every line read is in rows sent, rejected or passed_over.

    damaged: files that could not be read to their end. error: what ended the command early.
    """

    collection_id: str
    source: str
    sent: int
    acknowledged: int
    rejected: int
    passed_over: dict[str, int]
    scopes: tuple[Tally, ...]
    damaged: tuple[str, ...]
    seconds: float
    folder: str
    error: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every file was read whole and every record was acknowledged."""
        return self.error is None and not self.damaged and self.acknowledged == self.sent

    def as_dict(self) -> dict[str, Any]:
        """For JSON: times in µs since 1970."""
        return {**asdict(self), "complete": self.is_complete}


class Sender(Protocol):
    """Who takes rows to Kafka: a `FeedProducer`, or what stands before one."""

    @property
    def acknowledged(self) -> int:
        """Rows the broker has."""

    def send(self, row: Row, exchange: str) -> None:
        """Queue one row under the key EXCHANGE.SYMBOL. Raises Unreachable."""

    def flush(self, seconds_max: float = ...) -> None:
        """Wait until every row is acknowledged. Raises Unreachable."""


@runtime_checkable
class BatchSender(Sender, Protocol):
    """One who also takes many rows at once."""

    def send_some(self, batch: Batch, exchange: str) -> int:
        """Queue the first rows of a batch. Returns how many: at least one. Raises Unreachable."""


@dataclass
class Collection:
    """The running counts of one command, and the folder of what it had to set aside.

    collection_id: unique to this command. source: where the lines come from. now_us: the clock, µs UTC.
    on_count: told the rows sent so far, now and then. Statements among the outcomes are sent, and are no rows.
    """

    collection_id: str
    source: str
    feeds: Sequence[Feed]
    folder: Path
    now_us: Callable[[], int]
    on_count: Callable[[int], None] | None = None

    sent: int = 0
    stated: int = 0
    acknowledged: int = 0
    rejected: int = 0
    unattributed: int = 0
    reasons: Counter[Refusal] = field(default_factory=Counter)
    passed_over: Counter[str] = field(default_factory=Counter)
    tallies: dict[tuple[str, str], Tally] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    _files: dict[str, TextIO] = field(default_factory=dict)

    def run(self, outcomes: Iterable[Outcome | Batch], producer: Sender) -> Report:
        """Send everything, then write the report beside what was rejected.

        A broker that is lost is in the report, with what was acknowledged; an interrupt is raised again after the
        feed has stated that it failed.
        """
        started = time.monotonic()
        error: K2Error | None = None
        try:
            self._collect(outcomes, producer)
        except K2Error as problem:
            error = problem
        except BaseException as end:
            self._conclude(producer, "failed")
            self._report(time.monotonic() - started, f"{type(end).__name__}: {end}")
            raise
        error = self._conclude(producer, "failed" if error or self.damaged else "closed") or error
        return self._report(time.monotonic() - started, f"{error.code}: {error}" if error else None)

    def _collect(self, outcomes: Iterable[Outcome | Batch], producer: Sender) -> None:
        self._state(coverage.opening(self.feeds, self._stamp()), producer)
        exchanges = {feed.name: feed.exchange for feed in self.feeds}
        before = producer.acknowledged
        try:
            for outcome in outcomes:
                if isinstance(outcome, Row) and outcome.feed == coverage.COVERAGE_FEED:
                    producer.send(outcome, coverage.EXCHANGE)
                    self.stated += 1
                elif isinstance(outcome, Row):
                    producer.send(outcome, exchanges[outcome.feed])
                    self._count(outcome)
                elif isinstance(outcome, Batch):
                    self._send_batch(outcome, exchanges[outcome.feed], producer)
                else:
                    self._set_aside(outcome)
            producer.flush()
        except BaseException:
            with suppress(K2Error):
                producer.flush(_LAST_FLUSH_SECONDS_MAX)
            raise
        finally:
            # of what a lost broker left open, rather too few than too many count as arrived
            self.acknowledged = max(0, producer.acknowledged - before - self.stated)

    def _count(self, row: Row) -> None:
        self.sent += 1
        self._tally(row.feed, row.symbol).add(row.record)
        if self.on_count and self.sent % 1_000 == 0:
            self.on_count(self.sent)

    def _send_batch(self, batch: Batch, exchange: str, producer: Sender) -> None:
        if not isinstance(producer, BatchSender):
            for row in batch.rows():
                producer.send(row, exchange)
                self._count(row)
            return
        while len(batch):
            done = producer.send_some(batch, exchange)
            for tally in batch[:done].tallies():
                widen(self._tally(tally.feed, tally.symbol), tally)
            self.sent += done
            if self.on_count:
                self.on_count(self.sent)
            batch = batch[done:]

    def _set_aside(self, outcome: Rejected | PassedOver) -> None:
        if isinstance(outcome, PassedOver):
            known = outcome.kind in self.passed_over or len(self.passed_over) < KINDS_MAX
            self.passed_over[outcome.kind if known else OTHER_KINDS] += 1
            return
        self.rejected += 1
        self.reasons[outcome.reason] += 1
        if self.reasons[outcome.reason] == 1:
            log.warning(
                "a line is rejected and kept; more of this reason are only counted",
                feed=outcome.feed,
                symbol=outcome.symbol,
                reason=str(outcome.reason),
                file=outcome.file,
                line=outcome.line,
            )
        if outcome.feed:
            self._tally(outcome.feed, outcome.symbol or coverage.ALL).rejected += 1
        else:
            self.unattributed += 1
        if outcome.damaged:
            self.damaged.append(f"{outcome.file}, line {outcome.line}: {outcome.detail}")
        self._write(outcome)

    def _stamp(self) -> Stamp:
        return Stamp(self.collection_id, self.source, self.now_us())

    def _tally(self, feed: str, symbol: str) -> Tally:
        if (feed, symbol) not in self.tallies and len(self.tallies) >= _SYMBOLS_TOLD_APART:
            symbol = coverage.ALL
        return self.tallies.setdefault((feed, symbol), Tally(feed, symbol))

    def _write(self, rejected: Rejected) -> None:
        name = f"{Path(rejected.file).name}.rejected"
        if name not in self._files:
            self.folder.mkdir(parents=True, exist_ok=True)
            # line by line: a rejected line must outlive a command that is killed
            self._files[name] = (self.folder / name).open("a", encoding="utf-8", buffering=1)
        self._files[name].write(json.dumps(rejected_line(rejected), ensure_ascii=True) + "\n")

    def _conclude(self, producer: Sender, event: Event) -> K2Error | None:
        """State what was collected. Returns why that could not be said, if it could not."""
        for file in self._files.values():
            file.close()
        symbols = [tally for tally in self.tallies.values() if tally.symbol != coverage.ALL]
        sums = coverage.sums(self.feeds, self.tallies.values(), self.unattributed)
        rows = coverage.ending(self.feeds, [*symbols, *sums], event, self._stamp())
        try:
            self._state(rows, producer)
        except K2Error as error:
            return error
        return None

    def _state(self, statements: Iterable[Row], producer: Sender) -> None:
        for statement in statements:
            producer.send(statement, coverage.EXCHANGE)
        producer.flush()

    def _report(self, seconds: float, error: str | None) -> Report:
        scopes = tuple(sorted(self.tallies.values(), key=lambda t: (t.feed, t.symbol)))
        report = Report(
            collection_id=self.collection_id,
            source=self.source,
            sent=self.sent,
            acknowledged=self.acknowledged,
            rejected=self.rejected,
            passed_over=dict(self.passed_over),
            scopes=scopes,
            damaged=tuple(self.damaged),
            seconds=round(seconds, 3),
            folder=str(self.folder),
            error=error,
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / REPORT_FILE).write_text(json.dumps(report.as_dict(), indent=2) + "\n")
        return report


def rejected_line(rejected: Rejected) -> dict[str, Any]:
    """One line of a .rejected file: the bytes as text where they are UTF-8, else as raw_base64."""
    told: dict[str, Any] = {
        "file": rejected.file,
        "line": rejected.line,
        "reason": str(rejected.reason),
        "detail": rejected.detail,
    }
    try:
        return {**told, "raw": rejected.raw.decode("utf-8")}
    except UnicodeDecodeError:
        return {**told, "raw_base64": base64.b64encode(rejected.raw).decode()}
