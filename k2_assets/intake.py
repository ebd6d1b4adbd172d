"""From topics to tables: the external topics, the tables that fill from them, a job and a sensor each."""

import dagster as dg

from k2_assets.ingest import ingest_job, ingested
from k2_assets.sensors import ingest_sensor
from k2_assets.topics import topic_spec
from k2_core.contracts import INGESTED
from k2_core.feeds import Feed
from k2_resources.settings import Settings


def intake_definitions(_settings: Settings, feeds: tuple[Feed, ...]) -> dg.Definitions:
    """Define topics, ingested tables, and what keeps them up with the log. Connects to nothing."""
    jobs = {table.name: ingest_job(table) for table in INGESTED}
    return dg.Definitions(
        assets=[*map(topic_spec, feeds), *(ingested(table, feeds) for table in INGESTED)],
        jobs=list(jobs.values()),
        sensors=[ingest_sensor(table, jobs[table.name]) for table in INGESTED],
    )
