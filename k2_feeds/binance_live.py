"""Binance spot as it happens: sockets, order, memory and repair put together to one collection.

Three threads: sockets fill the buffer, this one empties it into Kafka, a third asks REST for what is missing.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from k2_core.errors import K2Error, Misconfigured, Unreachable
from k2_feeds import coverage
from k2_feeds.binance_frames import QUOTES_FEED, TRADES_FEED, microseconds, parse_frame
from k2_feeds.collection import Collection, Report
from k2_feeds.coverage import Stamp, Tally
from k2_feeds.live.admission import Admission, Breaker
from k2_feeds.live.buffer import Buffer, Received
from k2_feeds.live.intake import Intake
from k2_feeds.live.links import Timing
from k2_feeds.live.mending import PATIENCE_SECONDS, Known, Mending
from k2_feeds.live.sequencer import Sequencer
from k2_feeds.live.steady import Connect, SteadyProducer
from k2_feeds.live.streams import STREAMS_MAX, spread, streams_of
from k2_feeds.live.vitals import Silence, Skew
from k2_feeds.outcomes import Outcome, PassedOver, Rejected, Row, Unusable
from k2_feeds.repair import Repair
from k2_resources.binance.stream import Endpoint

NAME = "binance-live"
REPEATED = "repeated"
"""Kind under which frames are counted that came before: on two connections, or from REST."""
UNSTATED_FILE = "unstated.jsonl"
_FRAMES_MAX = 2_000
"""Frames between two flushes: a tenth of a second of work."""
_TAKE_SECONDS = 0.2
"""How late a found trade or a stop is noticed while no frame comes."""
_SAY_SECONDS = 60.0
_JOIN_SECONDS = 15.0

LakeKnows = Callable[[str], Known | None]
"""Symbol -> what the lake holds of its trades; None where it holds none."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Plan:
    """What to read and how patiently.

    symbol_silence_seconds: after so long without a frame a symbol is called stale. drain_seconds: how long an orderly
    end waits for the broker before it leaves the rest on disk. breaker_seconds: how long an open breaker stays open.
    """

    symbols: tuple[str, ...]
    quotes: bool = False
    endpoint: Endpoint = field(default_factory=Endpoint)
    timing: Timing = field(default_factory=Timing)
    streams_max: int = STREAMS_MAX
    symbol_silence_seconds: float = 300.0
    drain_seconds: float = 20.0
    breaker_seconds: float = 30.0
    patience_seconds: float = PATIENCE_SECONDS

    @property
    def feeds(self) -> tuple[str, ...]:
        """Names of the feeds it fills."""
        return (TRADES_FEED, QUOTES_FEED) if self.quotes else (TRADES_FEED,)


class LiveFeed:
    """One run of the live feed. `run` in one thread, `stop` and `abandon` from any other.

    collection: of this run, over the feeds of the plan. repair: who fills holes; None leaves them open.
    """

    def __init__(
        self,
        plan: Plan,
        collection: Collection,
        buffer: Buffer,
        connect: Connect,
        *,
        repair: Repair | None = None,
        lake_knows: LakeKnows = lambda _: None,
        ending: threading.Event | None = None,
    ) -> None:
        """ending: set when nothing more is asked of REST. Raises BadInput for symbols that can be none."""
        self.plan = plan
        self.collection = collection
        self.buffer = buffer
        self.abandoned = threading.Event()
        self.producer = SteadyProducer(connect, abandoned=self.abandoned)
        self.sequencer = Sequencer()
        self.skew = Skew()
        self.silence = Silence(plan.symbol_silence_seconds)
        self.admission = Admission(breaker=Breaker(open_seconds=plan.breaker_seconds))
        self._feeds = {feed.name: feed for feed in collection.feeds}
        self.mending = Mending(
            self._feeds[TRADES_FEED],
            repair,
            self._stamp,
            self.sequencer.missing,
            self.sequencer.session,
            plan.patience_seconds,
            ending=ending or threading.Event(),
        )
        self._lake_knows = lake_knows
        self._opened: set[tuple[str, str]] = set()
        self._heard: set[str] = set()
        self._began_us = collection.now_us()
        self._frames = 0
        self._said = time.monotonic()
        streams = streams_of(plan.symbols, quotes=plan.quotes)
        self.intake = Intake(
            spread(streams, plan.streams_max),
            plan.endpoint,
            buffer,
            collection.now_us,
            plan.timing,
            self.admission,
            self.silence,
            self._intake_ended,
        )

    def run(self) -> Report:
        """Collect until stopped. Raises what the producer raises before anything is sent.

        Whatever ends it, what is not acknowledged then lies on disk for the next run of the same name.
        """
        self._say_what_was_left()
        with self.producer:
            self._state_what_was_left()
            for symbol in {symbol.upper() for symbol in self.plan.symbols}:
                if (known := self._lake_knows(symbol)) is not None:
                    self.sequencer.begin(symbol, known.last_id, newest_us=known.newest_us, session=known.session)
                    self.mending.begin(symbol, known)
            self.mending.start()
            self.intake.start()
            try:
                return self.collection.run(self._outcomes(), self.producer)
            finally:
                self._settle()

    def stop(self) -> None:
        """End in order: close the connections, send what came, state what was covered. Returns at once."""
        self.intake.stop()
        self._hurry()

    def abandon(self) -> None:
        """End without waiting for the broker any longer; what it does not have stays on disk."""
        self.intake.stop()
        self.abandoned.set()

    def _outcomes(self) -> Iterator[Outcome]:
        try:
            while (batch := self.buffer.take(_FRAMES_MAX, _TAKE_SECONDS)) is not None:
                if self.abandoned.is_set():
                    raise Unreachable("the broker did not take everything in time; the rest waits for the next start")
                for received in batch:
                    yield from self._read(received)
                yield from self._found()
                self.producer.flush()
                self.buffer.release()
                self._say()
        except BaseException:
            self._hurry()
            raise

    def _read(self, received: Received) -> Iterator[Outcome]:
        self._frames += 1
        try:
            outcome = parse_frame(received.content, received.received_us)
        except Unusable as problem:
            yield Rejected(NAME, self._frames, problem.reason, problem.detail, received.content)
            return
        if isinstance(outcome, PassedOver):
            yield outcome
            return
        if outcome.feed not in self._feeds:
            raise Misconfigured(
                f"{self.buffer.spill.folder} holds frames of {outcome.feed} that an earlier run left: "
                "start the feed with --quotes once more"
            )
        self._look_at_the_clock(outcome)
        yield from self._placed(outcome)

    def _found(self) -> Iterator[Outcome]:
        """What REST had of the holes."""
        for outcome in self.mending.outcomes():
            is_repeated = (
                isinstance(outcome, Row)
                and outcome.feed == TRADES_FEED
                and not self.sequencer.fill(outcome.symbol, outcome.record["source_sequence"])
            )
            yield PassedOver(REPEATED) if is_repeated else outcome

    def _placed(self, row: Row) -> Iterator[Outcome]:
        """The row if it is new, after the statement that its symbol is being collected."""
        number = row.record["source_sequence"]
        is_first = (row.feed, row.symbol) not in self._opened
        if row.feed == TRADES_FEED:
            admitted = self.sequencer.trade(row.symbol, number, row.record["timestamp"])
            is_new = admitted.is_new
            if admitted.began_anew:
                log.warning("ids begin anew", feed=NAME, symbol=row.symbol, first=number)
                self.mending.forget(row.symbol)
            if admitted.hole:
                self.mending.notice(row.symbol, admitted.hole, was_closed=row.symbol not in self._heard)
            if row.record["ingestion_timestamp"] >= self._began_us:
                self._heard.add(row.symbol)
        else:
            is_new = self.sequencer.quote(row.symbol, number)
        if not is_new:
            yield PassedOver(REPEATED)
            return
        if is_first:
            self._opened.add((row.feed, row.symbol))
            tally = Tally(row.feed, row.symbol, first_id=number)
            yield from coverage.ending([self._feeds[row.feed]], [tally], "opened", self._stamp())
        yield row

    def _look_at_the_clock(self, row: Row) -> None:
        sent = (row.record["vendor_data"] or {}).get("E")
        if sent is not None:
            sent_us = microseconds(int(sent), "event time E")
            self.skew.took(time.monotonic(), (row.record["ingestion_timestamp"] - sent_us) / 1_000_000)

    def _stamp(self) -> Stamp:
        return Stamp(self.collection.collection_id, self.collection.source, self.collection.now_us())

    def _intake_ended(self, error: BaseException | None) -> None:
        if error is not None:
            log.error("nothing more is received", feed=NAME, reason=f"{getattr(error, 'code', '')}: {error}")
        self._hurry()

    def _hurry(self) -> None:
        """From now on the broker has so much time and no more."""
        timer = threading.Timer(self.plan.drain_seconds, self.abandoned.set)
        timer.daemon = True
        timer.start()

    def _settle(self) -> None:
        """Let nothing be lost that is not acknowledged."""
        self.intake.stop()
        self.intake.join(_JOIN_SECONDS)
        left = self.mending.stop(_JOIN_SECONDS)
        self._keep_unstated()
        try:
            kept = self.buffer.keep()
        except K2Error as error:
            # trades among them are found missing by their ids at the next start
            log.error("frames in memory are lost", feed=NAME, frames=self.buffer.frames_held, reason=str(error))
            return
        if left or kept:
            log.warning("ended with work left", feed=NAME, holes=left, frames_on_disk=kept)

    def _say(self) -> None:
        now = time.monotonic()
        if now - self._said >= _SAY_SECONDS:
            self._said = now
            log.info(
                "collecting",
                feed=NAME,
                rows=self.collection.sent,
                acknowledged=self.producer.acknowledged,
                rejected=self.collection.rejected,
                holes_open=self.mending.holes,
                bytes_on_disk=self.buffer.spill.bytes_held,
            )

    @property
    def _unstated(self) -> Path:
        return self.buffer.spill.folder / UNSTATED_FILE

    def _keep_unstated(self) -> None:
        """Statements the broker did not take are made by the next run: where a collection ended must be known."""
        rows = [row.record for row, _ in self.producer.unacknowledged if row.feed == coverage.COVERAGE_FEED]
        if rows:
            with self._unstated.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(record) + "\n" for record in rows)

    def _state_what_was_left(self) -> None:
        if not self._unstated.exists():
            return
        for record in _whole_lines(self._unstated.read_text(encoding="utf-8").splitlines()):
            self.producer.send(Row(coverage.COVERAGE_FEED, str(record["feed"]), record), coverage.EXCHANGE)
        self.producer.flush()
        self._unstated.unlink()

    def _say_what_was_left(self) -> None:
        found = self.buffer.spill.found
        if found.records or found.torn_bytes or found.damaged:
            log.warning(
                "an earlier run left frames on disk; they are sent first",
                feed=NAME,
                frames=found.records,
                torn_bytes=found.torn_bytes,
                damaged=list(found.damaged),
            )


def _whole_lines(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """JSON lines; one that was cut short by a kill is left out."""
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            log.warning("a statement of an earlier run was cut short", feed=NAME)
