"""What a run reports is derived from receipts, never from what the run remembers.

A report goes from the last receipt reported to the last one there is. Its last event, an observation, carries the new
mark and every other event the old one: a crash in between repeats events and never skips one. Without a mark, as in a
new Dagster home, it starts at the first receipt.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import dagster as dg
import structlog

from k2_assets.check_batches import dead_result, gaps_of, gaps_result, lag_result, schema_result
from k2_assets.checks import checks_of
from k2_assets.partitions import is_partition
from k2_assets.restated import restated
from k2_assets.tables import asset_key
from k2_assets.told import Told, receipts_after, spans, total
from k2_core.contracts import Table
from k2_core.exchange_dates import day_bounds
from k2_core.feeds import Feed, feeds_of
from k2_resources import clock
from k2_resources.failpoints import reach
from k2_resources.lake.catalog import Lake
from k2_resources.lake.receipts import RECEIPT_SUMMARY
from k2_resources.lake.scans import gap_events

MARK = "k2/reported"
"""Metadata key of the mark."""
_EVENTS_LOOKED_AT = 50
"""The newest event of a report holds the mark; events that other people log on the asset come between."""
RECEIPTS_MAX = 10_000
"""Receipts one report reads: about 20 MB. The rest is for the next run."""
ROW_CHECK_DATES_MAX = 10
"""Dates whose rows are checked in a report; history that arrives at once is checked from the UI, or at day close."""
ROW_CHECK_ROWS_MAX = 1_000_000
"""Rows of those dates together: reading and checking them takes about two seconds."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Mark:
    """How far receipts are reported: all before one, and of that one the dates up to `through`; None = all of it."""

    table_uuid: str
    sequence_number: int
    through: date | None = None

    def __str__(self) -> str:
        return f"{self.table_uuid}:{self.sequence_number}:{self.through or ''}"

    @classmethod
    def parse(cls, text: str) -> "Mark | None":
        """Read a mark back; None for a text that is none, as before the first report."""
        try:
            table_uuid, sequence_number, through = text.split(":")
            return cls(table_uuid, int(sequence_number), date.fromisoformat(through) if through else None)
        except ValueError:
            return None

    @property
    def place(self) -> tuple[int, date]:
        return self.sequence_number, self.through or date.max

    @property
    def read_after(self) -> int:
        """Sequence number past which receipts have something left to report."""
        return self.sequence_number - (self.through is not None)


@dataclass(frozen=True)
class Share:
    """What one report covers: receipts, by the date they touch, and the mark that stands when it is told."""

    receipts: tuple[Told, ...]
    days: Mapping[date, Sequence[Told]]
    mark: Mark


@dataclass(frozen=True)
class Facts:
    """What checks and gaps of all dates are told from, read once a report. feeds: of the table; others: all."""

    lake: Lake
    table: Table
    feeds: tuple[Feed, ...]
    others: tuple[Feed, ...]
    gaps: Sequence[Mapping[str, object]]
    opened: Sequence[Mapping[str, object]] = field(default=())


def last_mark(instance: dg.DagsterInstance, table: Table, table_uuid: str) -> Mark | None:
    """The furthest mark among the newest events of a table's asset; None when no report of this table is stored."""
    key = asset_key(table)
    observations = instance.fetch_observations(key, limit=_EVENTS_LOOKED_AT).records
    materializations = instance.fetch_materializations(key, limit=_EVENTS_LOOKED_AT).records
    events = [r.asset_observation or r.asset_materialization for r in (*observations, *materializations)]
    texts = [str(e.metadata[MARK].value) for e in events if e is not None and MARK in e.metadata]
    marks = [mark for mark in map(Mark.parse, texts) if mark is not None and mark.table_uuid == table_uuid]
    return max(marks, key=lambda mark: mark.place, default=None)


def unreported(instance: dg.DagsterInstance, lake: Lake, table: Table) -> str | None:
    """Name what is left to report, as where a run starts; None when all is told.

    A batch stays untold when its run died after the commit, or when Dagster's home is a new one.
    """
    state = lake.state(table)
    if state is None:
        return None
    mark = last_mark(instance, table, state.table_uuid)
    told = mark.read_after if mark else 0
    if state.sequence_number <= told:
        return None
    briefs = {s.sequence_number: json.loads(s.summary.get(RECEIPT_SUMMARY, "{}")) for s in lake.snapshots(table)}
    newest = max((n for n, brief in briefs.items() if n > told and brief.get("kind") == "batch"), default=None)
    return (
        None if newest is None else f"report-{newest}-after-{told}{f'-{mark.through}' if mark and mark.through else ''}"
    )


def share_of(told: Sequence[Told], before: Mark | None, table_uuid: str, dates_max: int) -> Share | None:
    """Choose what one report tells: whole receipts in commit order, until the dates would be too many.

    A receipt with more dates than that is told in parts. None when nothing is left.
    """
    place = before.place if before else (0, date.min)
    days: dict[date, list[Told]] = {}
    mark = None
    for receipt in told:
        left = [day for day in receipt.days if (receipt.sequence_number, day) > place]
        fits = _fitting(left, days, dates_max)
        if left and not fits:
            break
        for day in fits:
            days.setdefault(day, []).append(receipt)
        mark = Mark(table_uuid, receipt.sequence_number, None if fits == left else fits[-1])
        if fits != left:
            break
    if mark is None or (before is not None and mark.place <= before.place):
        return None
    return Share(tuple(r for r in told if r.sequence_number <= mark.sequence_number), days, mark)


def _fitting(left: Sequence[date], days: Mapping[date, object], dates_max: int) -> list[date]:
    """The first dates that leave no more than dates_max in all."""
    room, fits = dates_max - len(days), []
    for day in left:
        room -= day not in days
        if room < 0:
            break
        fits.append(day)
    return fits


def report(
    context: dg.AssetExecutionContext, lake: Lake, table: Table, feeds: tuple[Feed, ...], dates_max: int
) -> Mark | None:
    """Report every receipt after the last one reported, at most dates_max dates. None when there is nothing to say."""
    state = lake.state(table)
    if state is None:
        return None
    before = last_mark(context.instance, table, state.table_uuid)
    told = receipts_after(lake, table, before.read_after if before else 0, RECEIPTS_MAX)
    share = share_of(told, before, state.table_uuid, dates_max)
    if share is None:
        return None
    facts = _facts(lake, table, feeds, share)
    for event in _events(facts, share, str(before or ""), dates_max):
        context.log_event(event)
    reach("reported")
    context.log_event(_closing(facts, share))
    return share.mark


def _facts(lake: Lake, table: Table, feeds: tuple[Feed, ...], share: Share) -> Facts:
    snapshots = {told.snapshot_id for told in share.receipts}
    own = feeds_of(table, feeds)
    events = [e for feed in own for e in gap_events(lake, feed.name).to_pylist()] if share.days else []
    opened = [e for e in events if e["state"] == "open" and e["snapshot_id"] in snapshots]
    return Facts(lake, table, own, feeds, gaps_of(lake, own), opened)


def _events(
    facts: Facts, share: Share, mark: str, dates_max: int
) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation]:
    days = [day for day in sorted(share.days) if is_partition(day)]
    for day in days:
        yield _materialization(facts, day, share.days[day], mark)
    for day, name, result in _results(facts, share, days):
        yield _evaluation(facts.table, name, day, result, mark)
    snapshots = {told.snapshot_id for told in share.receipts}
    for table, day, result in restated(facts.lake, facts.table, facts.others, snapshots, dates_max):
        yield _evaluation(table, "sequence_gaps", day, result, mark)


def _results(facts: Facts, share: Share, days: Sequence[date]) -> Iterator[tuple[date, str, dg.AssetCheckResult]]:
    """State checks as the tables stand now, batch facts of the receipts being told."""
    names = checks_of(facts.table, "batch")
    for day, batches in sorted(_dead_by_day(share, days).items()):
        yield day, "dead_letters", dead_result(batches)
        yield day, "schema", schema_result(facts.lake, facts.table, batches)
    for day in days:
        if "sequence_gaps" in names:
            yield day, "sequence_gaps", gaps_result(facts.feeds, facts.gaps, day)
        if "lag" in names:
            yield day, "lag", lag_result(facts.table, facts.feeds, share.days[day], day)
        if "freshness" in names:
            yield day, "freshness", names["freshness"](facts.lake, facts.table, facts.feeds, day)
    for day in days if _are_few(facts, days) else ():
        tiers = ("rows", "day") if _is_over(facts.feeds, day) else ("rows",)
        for name, evaluate in checks_of(facts.table, *tiers).items():
            yield day, name, evaluate(facts.lake, facts.table, facts.feeds, day)


def _is_over(feeds: tuple[Feed, ...], day: date) -> bool:
    """Whether a date has ended on the clock of every feed: before that, what is missing may still come."""
    return all(day_bounds(day, feed.timezone)[1] <= clock.now() for feed in feeds)


def _dead_by_day(share: Share, days: Sequence[date]) -> dict[date, list[Told]]:
    """Batches by the date their dead letters are told on: those touched, else that of the commit."""
    found = {day: list(share.days[day]) for day in days}
    for told in share.receipts:
        if not told.days and told.total("dead"):
            found.setdefault(told.dead_days[0], []).append(told)
    return found


def _are_few(facts: Facts, days: Sequence[date]) -> bool:
    """Whether the rows of these dates are few enough to read them all in passing."""
    if len(days) > ROW_CHECK_DATES_MAX:
        return False
    state = facts.lake.state(facts.table)
    if state is None or state.snapshot_id is None:
        return True
    files = facts.lake.files(facts.table, state.snapshot_id)
    return sum(file.rows for file in files if file.exchange_date in days) <= ROW_CHECK_ROWS_MAX


def _materialization(facts: Facts, day: date, batches: Sequence[Told], mark: str) -> dg.AssetMaterialization:
    opened = [gap for gap in facts.opened if gap["exchange_date"] == day]
    metadata: dict[str, Any] = {
        "rows": sum(told.dates[day] for told in batches),
        "gaps_opened": len(opened),
        **_batch_metadata(batches),
        MARK: mark,
    }
    return dg.AssetMaterialization(asset_key(facts.table), partition=day.isoformat(), metadata=metadata)


def _batch_metadata(batches: Sequence[Told]) -> dict[str, Any]:
    """What became of all records of some batches; a batch may touch several dates, so these are not sums of a date."""
    last = batches[-1]
    return {
        "batches": len(batches),
        **{f"batch_{count}": total(batches, count) for count in ("read", "written", "duplicates", "revisions", "dead")},
        "offsets": dg.MetadataValue.json(spans(batches)),
        "snapshot_id": dg.MetadataValue.text(str(last.snapshot_id)),  # beyond what a browser counts exactly
        "sequence_number": last.sequence_number,
        "version": last.version,
        "commit_time": dg.MetadataValue.timestamp(last.commit_time),
    }


def _evaluation(table: Table, name: str, day: date, result: dg.AssetCheckResult, mark: str) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=asset_key(table),
        check_name=name,
        passed=result.passed,
        metadata={**result.metadata, MARK: mark},
        severity=result.severity,
        description=result.description,
        partition=day.isoformat(),
        blocking=False,
    )


def _closing(facts: Facts, share: Share) -> dg.AssetObservation:
    """The last event of a report: the sums of its receipts, and the new mark."""
    strange = [day.isoformat() for day in share.days if not is_partition(day)]
    if strange:
        log.warning("dates that are no partition are not shown", table=facts.table.name, dates=strange)
    metadata: dict[str, Any] = {"dates": len(share.days), **_batch_metadata(share.receipts), MARK: str(share.mark)}
    description = (
        f"{total(share.receipts, 'read')} records became {_stored(share.receipts)} rows of {len(share.days)} dates"
    )
    return dg.AssetObservation(asset_key(facts.table), description=description, metadata=metadata)


def _stored(receipts: Sequence[Told]) -> int:
    return total(receipts, "written") + total(receipts, "revisions")
