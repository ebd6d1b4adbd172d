"""When days are closed: each evening by schedule; and whenever receipts name a date that is over, by a sensor.

The sensor keeps no truth. Its cursor says how far it has read the receipts and which dates they named; without it, it
reads them all again, and closings that find nothing changed publish nothing.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any, Self
from zoneinfo import ZoneInfo

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.storage.tags import PARTITION_NAME_TAG

from k2_assets.partitions import is_partition
from k2_assets.runs import ATTEMPT_TAG, UNDER_WAY
from k2_assets.sensors import back_off_seconds
from k2_core.contracts import TICK_TABLES
from k2_core.day_tables import ALL_SYMBOLS
from k2_core.days import HALT
from k2_core.exchange_dates import day_bounds
from k2_core.feeds import Feed, feeds_of
from k2_resources import clock
from k2_resources.bindings import K2Resource
from k2_resources.lake.catalog import Lake
from k2_resources.lake.days import closings, latest
from k2_resources.lake.scans import open_gaps, receipt_rows
from k2_resources.settings import Settings

BLOCKED_TAG = "k2/blocked"
"""What held up the day a run was to close; a run that failed otherwise has none."""
STATE_TAG = "k2/day_state"
"""Digest of everything a closing depended on when it was asked for."""
CLOSED_MARK = "k2/closed"
"""Metadata key: table -> sequence number of the commit a date was closed at."""

AFTER_SCHEDULE = timedelta(minutes=5)
"""The schedule closes the day that has just ended; the sensor comes for what it left."""
DATES_MAX = 200
"""Dates the cursor holds; further receipts are read once there is room."""
LOOKED_AT_MAX, REQUESTS_MAX = 20, 5
"""Dates looked up in Dagster's storage, and runs asked for, in one tick."""
RECEIPTS_MAX = 5_000
"""Receipts read in one tick and table."""


def close_key(exchange: str) -> dg.AssetKey:
    """The asset of an exchange's day close."""
    return dg.AssetKey([f"day_close_{exchange.lower()}"])


def close_job(exchange: str) -> str:
    """The job of an exchange's day close, and its schedule: an op of Dagster's has the name of the asset."""
    return f"close_{exchange.lower()}"


def over_at(feed: Feed, day: date, settings: Settings) -> datetime:
    """When a date of an exchange may be closed: its local midnight, and a grace for what was under way."""
    return day_bounds(day, feed.timezone)[1] + timedelta(minutes=settings.day_close_grace_minutes)


def day_schedule(
    exchange: str, own: Sequence[Feed], job: UnresolvedAssetJobDefinition, settings: Settings
) -> dg.ScheduleDefinition:
    """Close every date as soon as it is over, also one nobody sent anything of."""
    minutes, timezone = settings.day_close_grace_minutes, own[0].timezone
    days_back, hour, minute = 1 + minutes // 1_440, minutes // 60 % 24, minutes % 60

    @dg.schedule(
        job=job,
        name=close_job(exchange),
        cron_schedule=f"{minute} {hour} * * *",
        execution_timezone=timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Close the date of {exchange} that has just ended, {minutes} minutes after its midnight.",
    )
    def ended(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        day = context.scheduled_execution_time.astimezone(ZoneInfo(timezone)).date() - timedelta(days=days_back)
        return dg.RunRequest(run_key=f"{exchange}:{day}", partition_key=day.isoformat())

    return ended


@dataclass(frozen=True)
class Touched:
    """A date that receipts named. at: table -> last sequence number that did. commit: when, seconds since the epoch.

    echo: it was not named itself; the day beside it was closed.
    """

    at: dict[str, int] = field(default_factory=dict)
    commit: float = 0.0
    echo: bool = False

    def and_(self, table: str, sequence_number: int, commit: float) -> "Touched":
        """Touched again."""
        return Touched({**self.at, table: max(sequence_number, self.at.get(table, 0))}, max(commit, self.commit))

    def is_closed(self, marks: Mapping[str, int]) -> bool:
        """Whether a closing of these marks saw everything."""
        return all(marks.get(table, -1) >= number for table, number in self.at.items())


@dataclass(frozen=True)
class Cursor:
    """How far receipts are read (table -> uuid, sequence number), and the dates that wait. after: last looked at."""

    read: dict[str, tuple[str, int]] = field(default_factory=dict)
    dates: dict[str, Touched] = field(default_factory=dict)
    after: str = ""

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Read a cursor; anything that is none is an empty one."""
        try:
            told = json.loads(text or "{}")
            dates = {day: Touched(**entry) for day, entry in told.get("dates", {}).items()}
            read = {table: (uuid, int(number)) for table, (uuid, number) in told.get("read", {}).items()}
            return cls(read, dates, told.get("after", ""))
        except (ValueError, TypeError, AttributeError):
            return cls()

    def __str__(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))


def day_sensor(
    exchange: str, own: tuple[Feed, ...], job: UnresolvedAssetJobDefinition, settings: Settings
) -> dg.SensorDefinition:
    """Close what is over and was named by receipts since it was closed last, or never was."""

    @dg.sensor(
        name=f"{close_job(exchange)}_sensor",
        job=job,
        minimum_interval_seconds=settings.day_close_every_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Close dates of {exchange} that are over and changed since they were closed.",
    )
    def watch(context: dg.SensorEvaluationContext, k2: K2Resource) -> dg.SensorResult | dg.SkipReason:
        settings = k2.settings()
        if settings.catalog_uri is None and not (settings.home / "catalog.db").exists():
            return dg.SkipReason("nothing was ever ingested")
        lake = Lake(settings.catalog(), settings.warehouse_path())
        return Watch(context.instance, settings, lake, exchange, own).tick(Cursor.parse(context.cursor))

    return watch


@dataclass(frozen=True)
class Watch:
    """One look at the days of one exchange."""

    instance: dg.DagsterInstance
    settings: Settings
    lake: Lake
    exchange: str
    own: tuple[Feed, ...]

    def tick(self, cursor: Cursor) -> dg.SensorResult:
        """Read receipts on, and ask for the dates that are due."""
        read, dates = self._read_on(cursor)
        due = self._due(dates, clock.now())
        turn = [*(day for day in due if day > cursor.after), *(day for day in due if day <= cursor.after)][
            :LOOKED_AT_MAX
        ]
        requests: list[dg.RunRequest] = []
        under_way = self._under_way()
        for day in turn:
            if dates[day].is_closed(self._marks(day)):
                closed = dates.pop(day)
                dates = {**self._beside(day, closed), **dates}
            elif day not in under_way and (request := self._request(day, dates[day])) is not None:
                requests.append(request)
            cursor = Cursor(read, dates, day)
            if len(requests) == REQUESTS_MAX:
                break
        skip = None if requests else f"{len(dates)} dates wait, {len(due)} of them over"
        return dg.SensorResult(
            run_requests=requests or None, skip_reason=skip, cursor=str(Cursor(read, dates, cursor.after))
        )

    def _read_on(self, cursor: Cursor) -> tuple[dict[str, tuple[str, int]], dict[str, Touched]]:
        read, dates = dict(cursor.read), dict(cursor.dates)
        for table in TICK_TABLES:
            feeds, state = {feed.name for feed in feeds_of(table, self.own)}, self.lake.state(table)
            if not feeds or state is None or len(dates) >= DATES_MAX:
                continue
            uuid, after = read.get(table.name, ("", 0))
            columns = ("sequence_number", "commit_time", "dates")
            rows = receipt_rows(self.lake, table, after if uuid == state.table_uuid else 0, columns=columns)
            for row in rows.slice(0, RECEIPTS_MAX).to_pylist():
                for day in sorted({d["exchange_date"] for d in row["dates"] if d["feed"] in feeds}):
                    before = dates.get(day.isoformat(), Touched())
                    stamp = (row["sequence_number"], row["commit_time"].timestamp())
                    dates[day.isoformat()] = before.and_(table.name, *stamp)
                read[table.name] = (state.table_uuid, row["sequence_number"])
                if len(dates) >= DATES_MAX:
                    break
        return read, dates

    def _due(self, dates: Mapping[str, Touched], now: datetime) -> list[str]:
        """Dates that are over, and not being filled right now."""
        quiet = now.timestamp() - self.settings.day_close_settle_seconds
        return sorted(day for day, touched in dates.items() if touched.commit <= quiet and self._is_over(day, now))

    def _is_over(self, text: str, now: datetime) -> bool:
        day = date.fromisoformat(text)
        return is_partition(day) and now >= over_at(self.own[0], day, self.settings) + AFTER_SCHEDULE

    def _marks(self, day: str) -> dict[str, int]:
        """At which commits Dagster says a date was closed last."""
        key = dg.AssetRecordsFilter(asset_key=close_key(self.exchange), asset_partitions=[day])
        for record in self.instance.fetch_materializations(key, limit=1).records:
            event = record.asset_materialization
            told = event.metadata.get(CLOSED_MARK) if event else None
            if told is not None and isinstance(told.value, dict):
                return {str(table): int(str(number)) for table, number in told.value.items()}
        return {}

    def _under_way(self) -> set[str]:
        runs = self.instance.get_runs(dg.RunsFilter(job_name=close_job(self.exchange), statuses=UNDER_WAY))
        return {run.tags.get(PARTITION_NAME_TAG, "") for run in runs}

    def _request(self, day: str, touched: Touched) -> dg.RunRequest | None:
        """A run for what is known now; again after one that crashed, never after one that was blocked."""
        state = self._state(day, touched)
        tags = {STATE_TAG: state}
        before = self.instance.get_run_records(dg.RunsFilter(tags={**tags, PARTITION_NAME_TAG: day}))
        if any(BLOCKED_TAG in record.dagster_run.tags for record in before):
            return None
        attempts = max((int(r.dagster_run.tags.get(ATTEMPT_TAG, 0)) for r in before), default=0)
        ended = max((r.end_time or r.update_timestamp.timestamp() for r in before), default=0.0)
        if before and clock.now().timestamp() < ended + back_off_seconds(attempts):
            return None
        return dg.RunRequest(
            run_key=f"{self.exchange}:{day}:{state}:{attempts + 1}",
            partition_key=day,
            tags={**tags, ATTEMPT_TAG: str(attempts + 1)},
        )

    def _state(self, day: str, touched: Touched) -> str:
        """Digest of the commits that named a date and of the gaps that hold up days: repair or accept changes it."""
        told = json.dumps([self.exchange, day, sorted(touched.at.items()), self._halts])
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    @cached_property
    def _halts(self) -> list[str]:
        gaps = [gap for feed in self.own for gap in open_gaps(self.lake, feed.name)]
        return sorted(gap["gap_id"] for gap in gaps if gap["severity"] == HALT)

    def _beside(self, text: str, closed: Touched) -> dict[str, Touched]:
        """The days beside a closed one whose edges could not be proven before: now they may be."""
        if closed.echo:
            return {}
        names = {feed.name for feed in self.own if feed.rule == "contiguous"}
        found = {}
        for day in _neighbours(date.fromisoformat(text)):
            told = latest(closings(self.lake, day=day)).values() if names else ()
            if any(row["feed"] in names and _is_unproven(row) for row in told):
                found[day.isoformat()] = Touched(dict(closed.at), closed.commit, echo=True)
        return found


def _neighbours(day: date) -> Iterator[date]:
    yield day - timedelta(days=1)
    yield day + timedelta(days=1)


def _is_unproven(row: Mapping[str, Any]) -> bool:
    return bool(row["verdict"] == "not_verifiable" and row["symbol"] != ALL_SYMBOLS)
