"""What the log and the lake say is wrong: topics that stand still, records that wait, feeds that say nothing."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from k2_assets.engine import Engine
from k2_assets.sensors import kept_engine
from k2_assets.status import engine_standings
from k2_core.alerts import Condition, Watched, levels
from k2_core.contracts import TICK_TABLES
from k2_core.errors import Halted, K2Error, PartitionPaused
from k2_core.feeds import Feed, feeds_of
from k2_core.notices import section
from k2_core.silence import is_live, silent_since_us
from k2_core.standing import TopicStanding
from k2_core.watch import Seen
from k2_core.windows import from_us, iso, to_us
from k2_resources.lake.scans import receipt_rows
from k2_resources.settings import Settings

LAG_HOLD_SECONDS = 60.0
"""A burst is more than the limit for a moment; a lag that lasts a minute is one."""
UNREACHABLE_HOLD_SECONDS = 60.0
"""A broker that restarts is back within half of it."""
FIRST_RECEIPTS = 1_000
"""Commits a watch that knows nothing reads to learn which feeds are live: an hour and a half of them."""

Changes = dict[str, Condition | None]


def lake_changes(settings: Settings, watched: Watched, seen: Seen, now_us: int) -> tuple[Changes, Seen]:
    """Look at the log and the lake. While they do not answer, only that is known."""
    try:
        engine = kept_engine(settings)
        standings = engine_standings(engine)
        heard = _heard(engine, seen)
    except K2Error as error:
        return levels(watched, "unreachable", [_unreachable(error)]), seen
    changes = levels(watched, "unreachable", ())
    changes |= levels(watched, "halt", [c for s in standings for c in _halts(s)])
    changes |= levels(watched, "lag", [c for s in standings for c in _lag(s, settings)])
    silent = _silences(engine.feeds, heard.heard_us, standings, settings.alert_silence_seconds, now_us)
    return changes | levels(watched, "silence", silent), heard


def _unreachable(error: K2Error) -> Condition:
    hold = 0.0 if isinstance(error, Halted) else UNREACHABLE_HOLD_SECONDS
    said = f"{error.code}: {error}"
    return Condition("unreachable", "Kafka or catalog", said, section(error.code, "unreachable"), hold_seconds=hold)


def _halts(standing: TopicStanding) -> Iterator[Condition]:
    if standing.halt is not None:
        halt = standing.halt
        yield Condition("halt", standing.topic, f"{halt.code}: {halt.message}", section(halt.code, "halt"))
    for p in standing.partitions:
        subject = f"{standing.topic}[{p.kafka_partition}]"
        if p.halt is not None:
            yield Condition("halt", subject, f"{p.halt.code}: {p.halt.message}", section(p.halt.code, "halt"))
        elif p.paused is not None:
            said = f"{PartitionPaused.code}: {p.paused}"
            yield Condition("halt", subject, said, section(PartitionPaused.code, "halt"))


def _lag(standing: TopicStanding, settings: Settings) -> Iterator[Condition]:
    """Too many records for a minute, or any that wait while the table does not move. A topic that stands says so."""
    lag = standing.lag
    if not lag or standing.halts or standing.paused:
        return
    where = section("lag", "lag")
    if lag > settings.alert_lag_records_max:
        said = f"{lag:,} records wait, more than {settings.alert_lag_records_max:,}"
        yield Condition("lag", standing.topic, said, where, hold_seconds=LAG_HOLD_SECONDS)
    else:
        committed = sum(p.next or 0 for p in standing.partitions)
        said = f"{lag:,} records wait and nothing was committed for {settings.alert_lag_seconds_max:.0f} s"
        hold = settings.alert_lag_seconds_max
        yield Condition("lag", standing.topic, said, where, hold_seconds=hold, progress=str(committed))


def _heard(engine: Engine, seen: Seen) -> Seen:
    """Take in what was committed since the last look: which feeds delivered what had just happened, and when."""
    receipts, heard = dict(seen.receipts), dict(seen.heard_us)
    for table in TICK_TABLES:
        state = engine.lake.state(table)
        if state is None or receipts.get(table.name) == state.sequence_number:
            continue
        feeds = {feed.name: feed for feed in feeds_of(table, engine.feeds)}
        after = receipts.get(table.name, max(state.sequence_number - FIRST_RECEIPTS, 0))
        rows = receipt_rows(engine.lake, table, after, columns=("sequence_number", "commit_time", "dates"))
        for receipt in rows.to_pylist():
            committed_us = to_us(receipt["commit_time"])
            receipts[table.name] = receipt["sequence_number"]
            for entry in receipt["dates"]:
                feed = feeds.get(entry["feed"])
                if feed is not None and entry["rows"] and is_live(feed, entry["exchange_date"], committed_us):
                    heard[feed.name] = max(committed_us, heard.get(feed.name, committed_us))
    return replace(seen, receipts=receipts, heard_us=heard)


def _silences(
    feeds: Iterable[Feed],
    heard_us: Mapping[str, int],
    standings: Iterable[TopicStanding],
    seconds_max: float,
    now_us: int,
) -> Iterator[Condition]:
    """Live feeds that said nothing for too long while their exchange trades. Records that wait are no silence."""
    waiting = {standing.topic for standing in standings if standing.lag != 0}
    for feed in feeds:
        if feed.name not in heard_us or feed.topic in waiting:
            continue
        since_us = silent_since_us(feed, heard_us[feed.name], now_us)
        if since_us is not None and now_us - since_us > seconds_max * 1_000_000:
            said = f"nothing for more than {seconds_max:.0f} s; heard of last at {iso(from_us(heard_us[feed.name]))}"
            yield Condition("silence", feed.name, said, section("silence", "silence"))
