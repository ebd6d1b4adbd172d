"""`k2 ingest`: the ingestion jobs in this process, and what `k2 up` does between broker and daemon."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from k2_assets.in_process import Ingested


@click.command()
@click.option("--until-caught-up", is_flag=True, help="Go on until nothing waits; otherwise one run per table.")
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), default=None, help="K2_HOME.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
def ingest(until_caught_up: bool, home: Path | None, as_json: bool) -> None:
    """Run the ingestion jobs of Dagster in this process, without its daemon."""
    from k2_assets.in_process import ingest as ingest_in_process
    from k2_assets.in_process import open_instance
    from k2_cli.services import REPOSITORY
    from k2_resources import telemetry
    from k2_resources.settings import Settings

    telemetry.configure("ingest")
    settings = Settings(home=home) if home else Settings()
    started = time.monotonic()
    with open_instance(settings.dagster_home, REPOSITORY / "dagster.yaml") as instance:
        done = list(ingest_in_process(settings, instance, until_caught_up=until_caught_up))
    seconds = round(time.monotonic() - started, 3)
    if as_json:
        click.echo(json.dumps({"seconds": seconds, "tables": [asdict(table) for table in done]}, indent=2))
    else:
        _show(done, seconds)


def _show(done: list[Ingested], seconds: float) -> None:
    from k2_cli.tables import show_table

    counts = ("runs", "commits", "read", "written", "duplicates", "revisions", "dead")
    rows = [(d.table, *(f"{getattr(d, name):,}" for name in counts)) for d in done]
    show_table(("table", *counts), rows)
    click.echo(f"{sum(d.read for d in done):,} records in {seconds:.1f} s")


@click.command(hidden=True)
def adopt() -> None:
    """Register topics, adopt those of a new embedded broker, and fail runs whose processes are gone."""
    from k2_assets.adoption import register_and_adopt
    from k2_assets.engine import open_engine
    from k2_assets.in_process import open_instance
    from k2_assets.runs import STARTING_SECONDS_MAX, fail_dead_runs
    from k2_cli.services import REPOSITORY
    from k2_core.contracts import INGESTED
    from k2_resources import telemetry
    from k2_resources.settings import Settings

    telemetry.configure("adopt")
    settings = Settings()
    with open_engine(settings) as engine:
        for table in INGESTED:
            adopted = register_and_adopt(engine, table, f"adopt-{os.getpid()}")
            if adopted is not None:
                click.echo(f"{adopted.table}: adopted {', '.join(adopted.topics)}: {adopted.why}")
    # without a daemon nobody can be starting a run; with one, this is a broker that came back under it
    has_daemon = "daemon" in settings.endpoints().get("pids", {})
    with open_instance(settings.dagster_home, REPOSITORY / "dagster.yaml") as instance:
        for run_id in fail_dead_runs(instance, STARTING_SECONDS_MAX if has_daemon else 0.0):
            click.echo(f"run {run_id} was failed: its process is gone")
