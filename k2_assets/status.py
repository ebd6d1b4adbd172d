"""What the lake says of itself, for `k2 status` and `k2 topics list`: lag, halts, last commits, open gaps, letters."""

from collections import Counter
from typing import Any

from k2_assets.engine import Engine, open_engine
from k2_core.contracts import DEAD_LETTERS, INGESTED
from k2_core.feeds import feeds_of
from k2_core.standing import LogView, TopicStanding, topic_standings
from k2_resources.lake.scans import open_gaps
from k2_resources.settings import Settings


def lake_status(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """Describe topics and tables from ground state. Raises Unreachable, Misconfigured when no broker answers.

    A topic that stands still says why; its neighbours say their lag all the same.
    """
    with open_engine(settings) as engine:
        return {"topics": [_topic(engine, s) for s in engine_standings(engine)], "tables": _tables(engine)}


def engine_standings(engine: Engine) -> list[TopicStanding]:
    """How every table stands in its topics now. Raises Unreachable."""
    log = look(engine)
    return [s for table in INGESTED for s in topic_standings(engine.lake.head(table), engine.feeds, log)]


def look(engine: Engine) -> LogView:
    """Everything planning asks of the log, asked once for all topics. Raises Unreachable."""
    topics = [feed.topic for feed in engine.feeds]
    return LogView(engine.kafka.incarnation(topics), engine.kafka.watermarks(topics))


def _topic(engine: Engine, standing: TopicStanding) -> dict[str, Any]:
    feed = next(feed for feed in engine.feeds if feed.topic == standing.topic)
    return {
        "topic": standing.topic,
        "kafka_partitions": feed.kafka_partitions,
        "lag": standing.lag,
        "committed": sum(p.next or 0 for p in standing.partitions),
        "halted": "; ".join(dict.fromkeys(f"{halt.code}: {halt.message}" for halt in standing.halts)) or None,
        "paused": "; ".join(f"[{p}]: {reason}" for p, reason in sorted(standing.paused.items())) or None,
    }


def _tables(engine: Engine) -> list[dict[str, Any]]:
    named = engine.lake.load(DEAD_LETTERS).scan(selected_fields=("table_name",)).to_arrow()
    letters = Counter(named["table_name"].to_pylist())
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
