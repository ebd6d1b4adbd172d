"""The duties of upkeep over the tables of one lake: rewrite files, forget snapshots, sweep orphans, regroup manifests.

Imports no Dagster. Each duty is safe beside batches and beside itself: what it changes is fenced, what it deletes has
been without a reference for a while.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain

import structlog

from k2_assets.engine import CODE_VERSION
from k2_core.compaction import Limits, open_from
from k2_core.contracts import INGESTED, TABLES, Table
from k2_core.errors import Damaged, FencedOut
from k2_core.protocol.collect import collect
from k2_core.protocol.ports import Outpaced
from k2_resources import failpoints
from k2_resources.failpoints import reach
from k2_resources.lake.catalog import Lake
from k2_resources.lake.compaction import compact
from k2_resources.lake.ledger import IcebergLedger
from k2_resources.lake.orphans import sweep
from k2_resources.lake.regrouping import regroup_manifests
from k2_resources.lake.retention import forget
from k2_resources.settings import Settings

log = structlog.get_logger(__name__)

Done = Mapping[str, int]
"""What a duty did to one table: counts by name."""


@dataclass(frozen=True)
class Upkeep:
    """One run of upkeep. now: what counts as old is measured from there, in UTC."""

    settings: Settings
    lake: Lake
    now: datetime
    run_id: str
    begun: float = field(default_factory=time.monotonic)

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables there are."""
        return tuple(table for table in TABLES if self.lake.catalog.table_exists(table.name))

    @property
    def limits(self) -> Limits:
        return Limits(self.settings.compaction_rows_max, self.settings.compaction_fragments_max)

    def is_time_up(self) -> bool:
        return time.monotonic() - self.begun > self.settings.upkeep_seconds_max


def open_upkeep(settings: Settings, now: datetime, run_id: str) -> Upkeep:
    """Open the lake of a home. Makes no table, but adds the columns that an older K2 did not have."""
    failpoints.arm(settings.failpoint)
    upkeep = Upkeep(settings, Lake(settings.catalog(), settings.warehouse_path()), now, run_id)
    upkeep.lake.ensure(upkeep.tables)
    return upkeep


def compaction(upkeep: Upkeep, table: Table) -> Done:
    """Rewrite closed dates once, and small files of open ones once they are many."""
    if table not in INGESTED:  # audit tables fold their files as they are appended to; derived ones are written whole
        return {}
    open_date = open_from(upkeep.now, timedelta(hours=upkeep.settings.compaction_settle_hours))
    said = {"run_id": upkeep.run_id, "code_version": CODE_VERSION}
    try:
        done = list(compact(upkeep.lake, table, upkeep.limits, open_date, is_time_up=upkeep.is_time_up, **said))
    finally:
        collect(IcebergLedger(upkeep.lake), table, reach)
    return {
        "commits": len(done),
        "dates": len(set(chain.from_iterable(r.dates for r in done))),
        "files_in": sum(r.files_in for r in done),
        "files_out": sum(r.files_out for r in done),
        "rows": sum(r.rows for r in done),
    }


def expiry(upkeep: Upkeep, table: Table) -> Done:
    """Forget old snapshots but the head, what a tag or branch names, and what is not in the audit tables yet."""
    ledger = IcebergLedger(upkeep.lake)
    if table in INGESTED:
        collect(ledger, table, reach)
    at = ledger.head(table)
    forgotten = forget(ledger, at, upkeep.now - timedelta(hours=upkeep.settings.snapshot_hours_max))
    return {"forgotten": forgotten, "kept": len(at.loaded.metadata.snapshots) - forgotten}


def orphan_sweep(upkeep: Upkeep, table: Table) -> Done:
    """Delete files that nothing has referred to for a while: of rewrites, expired snapshots and killed writers."""
    grace = timedelta(seconds=upkeep.settings.deletion_grace_seconds)
    said = {"run_id": upkeep.run_id, "code_version": CODE_VERSION}
    swept = sweep(upkeep.lake, table, now=upkeep.now, grace=grace, **said)
    return {"deleted": swept.deleted, "bytes_freed": swept.bytes_freed, "waiting": swept.waiting}


def manifests(upkeep: Upkeep, table: Table) -> Done:
    """Write the manifests of a table anew once they are many for its files."""
    before = regroup_manifests(upkeep.lake, table, run_id=upkeep.run_id, code_version=CODE_VERSION)
    return {"regrouped": before}


DUTIES: Mapping[str, Callable[[Upkeep, Table], Done]] = {
    "compaction": compaction,
    "expiry": expiry,
    "orphan_sweep": orphan_sweep,
    "manifests": manifests,
}
"""In this order: files that were rewritten are forgotten with their snapshots, and then swept."""


def attend(upkeep: Upkeep, duty: str, tables: tuple[Table, ...] | None = None) -> Iterator[tuple[Table, Done]]:
    """Do one duty for each table, yielding what was done; a rival that came first is no failure.

    Raises Damaged at the end, once every other table was attended to.
    """
    damaged: Damaged | None = None
    for table in upkeep.tables if tables is None else tables:
        try:
            done = DUTIES[duty](upkeep, table)
        except (FencedOut, Outpaced) as lost:
            log.info("outpaced", duty=duty, table=table.name, reason=str(lost))
            done = {"outpaced": 1}
        except Damaged as error:
            damaged = damaged or error
            continue
        if done:
            yield table, done
    if damaged is not None:
        raise damaged
