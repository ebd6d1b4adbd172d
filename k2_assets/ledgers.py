"""The ledgers beside the tables: gaps, receipts, dead letters. Copied from receipts, never written by anything else.

Every ingest run copies what it committed; materializing the gap ledger copies whatever is left and counts what is open.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from k2_assets.check_shown import sample
from k2_assets.runs import record_process
from k2_assets.tables import asset_key, column_schema, iceberg_spec
from k2_assets.topics import OWNER
from k2_core.contracts import COVERAGE, DEAD_LETTERS, GAPS, INGESTED, RECEIPTS, TRADES, Table
from k2_core.feeds import Feed
from k2_core.gap_states import is_settled
from k2_core.protocol.collect import collect
from k2_resources.bindings import K2Resource
from k2_resources.failpoints import reach
from k2_resources.lake.catalog import Lake
from k2_resources.lake.ledger import IcebergLedger
from k2_resources.lake.scans import unfilled_gaps
from k2_resources.settings import Settings

GROUP = "audit"
CRON = "*/15 * * * *"
"""The checks of a date tell a gap at once; the ledger's plots want a point now and then."""
_SHOWN = ("gap_id", "severity", "size", "exchange_date", "state")


def ledgers_definitions(_settings: Settings, _feeds: tuple[Feed, ...]) -> dg.Definitions:
    """Define the three ledgers, and when that of gaps is counted."""
    job = dg.define_asset_job(
        "count_gaps",
        selection=dg.AssetSelection.assets(asset_key(GAPS)),
        description="Copy what receipts still hold into the ledgers, and count the gaps by state.",
        executor_def=dg.in_process_executor,
    )
    schedule = dg.ScheduleDefinition(
        name="count_gaps", job=job, cron_schedule=CRON, default_status=dg.DefaultScheduleStatus.RUNNING
    )
    copied = [_copied(table) for table in (RECEIPTS, DEAD_LETTERS)]
    return dg.Definitions(assets=[gaps, *copied], jobs=[job], schedules=[schedule])


@dg.asset(
    key=asset_key(GAPS),
    deps=[asset_key(TRADES), asset_key(COVERAGE)],
    description=f"One row is {GAPS.grain}. The state of a gap is that of its last event; see `k2 gaps`.",
    group_name=GROUP,
    kinds={"iceberg"},
    owners=[OWNER],
    pool="ledgers",
    metadata={"dagster/column_schema": column_schema(GAPS), "dagster/table_name": GAPS.name},
)
def gaps(context: dg.AssetExecutionContext, k2: K2Resource) -> dg.MaterializeResult:
    """Copy what receipts still hold, and count the gaps by state."""
    record_process(context.instance, context.run.run_id)
    settings = k2.settings()
    lake = Lake(settings.catalog(), settings.warehouse_path())
    lake.ensure()
    for table in INGESTED:
        collect(IcebergLedger(lake), table, reach)
    return dg.MaterializeResult(metadata=gap_metadata(unfilled_gaps(lake)))


def gap_metadata(unfilled: Sequence[Mapping[str, object]]) -> dict[str, Any]:
    """Count unfilled gaps by state, and show the largest of those somebody has to see to."""
    waiting = sorted((gap for gap in unfilled if not is_settled(gap)), key=lambda gap: -int(str(gap["size"])))
    states = Counter(str(gap["state"]) for gap in unfilled)
    return {
        "open_gaps": len(waiting),
        "missing_ids": sum(int(str(gap["size"])) for gap in waiting),
        "settled_gaps": len(unfilled) - len(waiting),
        "states": dg.MetadataValue.json(dict(states)),
        "largest": sample(waiting, _SHOWN),
    }


def _copied(table: Table) -> dg.AssetSpec:
    description = f"One row is {table.grain}. Copied by every ingest run from the receipts of its commits."
    return iceberg_spec(table, [asset_key(source) for source in INGESTED], GROUP, description)
