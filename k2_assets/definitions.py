"""The table of contents: everything Dagster knows of K2, and the place where settings meet it."""

import dagster as dg

from k2_assets.checks import check_definitions
from k2_assets.ingest import ingest_job, ingested
from k2_assets.sensors import ingest_sensor
from k2_assets.topics import topic_spec
from k2_core.contracts import INGESTED
from k2_resources.bindings import K2Resource
from k2_resources.settings import Settings, load_feeds


def build_definitions(settings: Settings | None = None) -> dg.Definitions:
    """Define K2 on one home, from its settings and feeds. Connects to nothing."""
    settings = settings or Settings()
    feeds = load_feeds(settings)
    jobs = {table.name: ingest_job(table) for table in INGESTED}
    return dg.Definitions(
        assets=[*map(topic_spec, feeds), *(ingested(table, feeds) for table in INGESTED)],
        asset_checks=[check for table in INGESTED for check in check_definitions(table, feeds)],
        jobs=list(jobs.values()),
        sensors=[ingest_sensor(table, jobs[table.name]) for table in INGESTED],
        resources={"k2": K2Resource(home=str(settings.home.absolute()))},
        executor=dg.in_process_executor,
    )


defs = build_definitions()
