"""`k2 maintain`: upkeep of the lake in this process, without Dagster's daemon."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

DUTIES = ("compaction", "expiry", "orphan_sweep", "manifests")
"""As k2_assets.upkeep names them, which is imported when the command runs."""


@click.command()
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), default=None, help="K2_HOME.")
@click.option("--table", "name", help="One table, e.g. trades; all otherwise.")
@click.option("--duty", "duties", multiple=True, type=click.Choice(DUTIES), help="May be given again; all otherwise.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
def maintain(home: Path | None, name: str | None, duties: tuple[str, ...], as_json: bool) -> None:
    """Compact, forget and sweep now: what the job `maintain` does each hour, safe beside a running stack.

    Files are deleted only some time after nothing refers to them any more (K2_DELETION_GRACE_SECONDS), so that
    nothing goes that a reader holds: run it again then.
    """
    from k2_assets.maintenance import sentence
    from k2_assets.upkeep import attend, open_upkeep
    from k2_cli.tables import show_table
    from k2_core.errors import NotFound
    from k2_resources import clock, telemetry
    from k2_resources.settings import Settings

    telemetry.configure("maintain")
    settings = Settings(home=home) if home else Settings()
    if settings.catalog_uri is None and not (settings.home / "catalog.db").exists():
        raise NotFound(f"no catalog in {settings.home}: nothing was ever ingested there")
    upkeep = open_upkeep(settings, clock.now(), f"maintain-{os.getpid()}")
    tables = [table for table in upkeep.tables if name in (None, table.name, table.short_name)]
    if not tables:
        raise NotFound(f"no table {name!r}; there are {', '.join(table.short_name for table in upkeep.tables)}")
    done = [
        (duty, table.name, counts)
        for duty in DUTIES
        if not duties or duty in duties
        for table, counts in attend(upkeep, duty, tuple(tables))
    ]
    if as_json:
        click.echo(json.dumps([{"duty": duty, "table": table, **counts} for duty, table, counts in done], indent=2))
    else:
        show_table(("duty", "table", "done"), [(duty, table, sentence(counts)) for duty, table, counts in done])
