"""Kafka topics as external assets: what stands upstream of every table, and how far the tables are behind."""

import dagster as dg

from k2_assets.engine import Engine
from k2_core.contracts import Column, Table
from k2_core.feeds import Feed, feeds_of

OWNER = "team:market_data"


def topic_key(feed: Feed) -> dg.AssetKey:
    """The asset of a topic is named after its feed: topics have dots, feeds are what people say."""
    return dg.AssetKey(["kafka", feed.name])


def topic_spec(feed: Feed) -> dg.AssetSpec:
    """Describe one topic. Dagster observes it and never makes it."""
    return dg.AssetSpec(
        topic_key(feed),
        description=f"Topic {feed.topic}: {feed.kind}s of {feed.exchange}, sequence rule `{feed.rule}`.",
        group_name="topics",
        kinds={"kafka"},
        owners=[OWNER],
        metadata={
            "dagster/column_schema": dg.TableSchema([shown_column(column) for column in feed.table.feed_columns]),
            "topic": feed.topic,
            "subject": feed.subject,
            "kafka_partitions": feed.kafka_partitions,
            "rule": feed.rule,
            "timezone": feed.timezone,
            "table": feed.table.name,
        },
    )


def shown_column(column: Column, *, unique: bool = False) -> dg.TableColumn:
    """Project a column of a contract to what Dagster shows of it."""
    choices = [f"one of {', '.join(column.choices)}"] if column.choices else []
    constraints = dg.TableColumnConstraints(nullable=column.nullable, unique=unique, other=choices)
    unit = f" Unit: {column.unit}." if column.unit else ""
    return dg.TableColumn(column.name, str(column.type), f"{column.doc}{unit}", constraints)


def observe(engine: Engine, table: Table) -> list[dg.AssetObservation]:
    """Observe the topics of one table: records waiting, and the log's bounds per Kafka partition. Raises Halted."""
    waiting = engine.lag(table)
    marks = engine.kafka.watermarks(waiting)
    bounds = {
        topic: {str(p): [m.low, m.high] for (t, p), m in sorted(marks.items()) if t == topic} for topic in waiting
    }
    return [
        dg.AssetObservation(
            topic_key(feed),
            metadata={
                "lag_records": waiting[feed.topic],
                "records_in_log": sum(high - low for low, high in bounds[feed.topic].values()),
                "watermarks": dg.MetadataValue.json(bounds[feed.topic]),
            },
        )
        for feed in feeds_of(table, engine.feeds)
    ]
