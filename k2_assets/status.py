"""What the lake says of itself, for `k2 status`: lag per topic, last commits, open gaps, dead letters."""

from collections import Counter
from typing import Any

from k2_assets.engine import Engine, open_engine
from k2_core.contracts import INGESTED, Table
from k2_core.errors import K2Error
from k2_core.feeds import feeds_of
from k2_resources.lake.scans import dead_letters, open_gaps
from k2_resources.settings import Settings


def lake_status(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """Describe topics and tables from ground state. Raises Unreachable, Misconfigured when no broker answers.

    A halted table has its error code and message in place of its lag.
    """
    with open_engine(settings) as engine:
        lags = {table.name: _lag(engine, table) for table in INGESTED}
        topics = [
            {
                "topic": feed.topic,
                "kafka_partitions": feed.kafka_partitions,
                "lag": lags[table.name].get(feed.topic),
                "committed": sum(engine.lake.committed(table, feed.topic).values()),
                "halted": lags[table.name].get("halted"),
            }
            for table in INGESTED
            for feed in feeds_of(table, engine.feeds)
        ]
        return {"topics": topics, "tables": _tables(engine)}


def _lag(engine: Engine, table: Table) -> dict[str, Any]:
    try:
        return dict(engine.lag(table))
    except K2Error as error:
        return {"halted": f"{error.code}: {error}"}


def _tables(engine: Engine) -> list[dict[str, Any]]:
    letters = Counter(dead_letters(engine.lake)["table_name"].to_pylist())
    gaps = Counter(gap["feed"] for gap in open_gaps(engine.lake))
    rows = []
    for table in INGESTED:
        state = engine.lake.state(table)
        assert state is not None, "opening the engine made every table"
        latest = engine.lake.snapshots(table, 1)
        rows.append(
            {
                "table": table.name,
                "snapshot_id": state.snapshot_id,
                "commit_time": state.commit_time.isoformat() if state.commit_time else None,
                "version": state.offsets.version,
                "rows": int(latest[0].summary.get("total-records", 0)) if latest else 0,
                "dead_letters": letters[table.name],
                "open_gaps": sum(gaps[feed.name] for feed in feeds_of(table, engine.feeds)),
            }
        )
    return rows
