"""`k2 status`: what runs, where it is, and how far the lake is."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from k2_resources.settings import Settings

HEALTHY, DEGRADED, DOWN = 0, 1, 2
STATES = {HEALTHY: "healthy", DEGRADED: "degraded", DOWN: "down"}


@click.command()
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), default=None, help="K2_HOME.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of tables.")
def status(home: Path | None, as_json: bool) -> None:
    """Show services, lag, last commits, open gaps and dead letters. Exit 0 healthy, 1 degraded, 2 down."""
    from k2_resources.settings import Settings

    settings = Settings(home=home) if home else Settings()
    settings = settings.model_copy(update={"home": settings.home.resolve()})
    report = _report(settings)
    if as_json:
        click.echo(json.dumps(report, indent=2, default=str))
    else:
        _show(report)
    sys.exit(next(code for code, state in STATES.items() if state == report["state"]))


def _report(settings: Settings) -> dict[str, Any]:
    services = _services(settings)
    up = [service for service in services.values() if service["answers"]]
    lake = _lake(settings) if services["kafka"]["answers"] else {}
    told = _told(settings) if services["dagster"]["answers"] else {}
    healthy = is_healthy(services, lake, told)
    return {
        "state": STATES[DOWN if not up else HEALTHY if healthy else DEGRADED],
        "home": str(settings.home),
        "services": services,
        "api_key_file": str(settings.api_key_file) if settings.api_key_file.exists() else None,
        **told,
        **lake,
    }


def is_healthy(
    services: Mapping[str, Mapping[str, Any]], lake: Mapping[str, Any], told: Mapping[str, Any] | None = None
) -> bool:
    """Whether everything answers and nothing stands: a halted topic or a paused Kafka partition waits for somebody.

    told: of the daemon and the alerts; a silent daemon and a notice that nobody takes wait for somebody, too.
    """
    stands = any(topic["halted"] or topic["paused"] for topic in lake.get("topics", ()))
    stands = stands or any(part["is_late"] for part in (told or {}).values())
    return all(service["answers"] for service in services.values()) and "error" not in lake and not stands


def _services(settings: Settings) -> dict[str, dict[str, Any]]:
    """Service -> its address and whether it answers now."""
    from k2_cli import services

    endpoints = settings.endpoints()
    kafka = settings.kafka_bootstrap or endpoints.get("kafka")
    registry = settings.registry_url or endpoints.get("registry")
    dagster, api = settings.dagster(), endpoints.get("api")
    asked = {
        "kafka": (kafka, _kafka_answers),
        "registry": (registry, lambda url: services.answers(f"{url.split(',')[0].rstrip('/')}/subjects")),
        "dagster": (dagster, lambda url: services.answers(f"{url}/server_info")),
        "daemon": (dagster, services.daemon_is_healthy),
        "api": (api, lambda url: services.answers(f"{url}/health")),
    }
    return {name: {"url": url, "answers": url is not None and probe(url)} for name, (url, probe) in asked.items()}


def _kafka_answers(bootstrap: str) -> bool:
    """Tell whether any of the brokers listens."""
    from k2_cli.services import connects

    addresses = (address.strip().rpartition(":") for address in bootstrap.split(","))
    return any(connects(int(port), host) for host, _, port in addresses if port.isdigit())


def _told(settings: Settings) -> dict[str, Any]:
    """When the daemon ticked last, and what people are told; nothing where Dagster cannot tell."""
    from dataclasses import asdict

    from k2_api.daemon import ROUND_PATIENCE_SECONDS, telling_of
    from k2_core.errors import Unreachable
    from k2_resources import clock
    from k2_resources.dagster_graphql import daemon_view

    try:
        view = daemon_view(settings.dagster() or "", ROUND_PATIENCE_SECONDS)
    except Unreachable:
        return {}
    age, told = view.tick_age_seconds(clock.now().timestamp()), telling_of(view, settings)
    late = age is None or age > settings.alert_daemon_seconds
    daemon = {"last_tick_age_seconds": None if age is None else round(age, 3), "is_late": late}
    return {"daemon": daemon} | ({"alerts": {**asdict(told), "is_late": told.is_late}} if told else {})


def _lake(settings: Settings) -> dict[str, Any]:
    """What the lake says of itself, or why it cannot."""
    from k2_assets.status import lake_status
    from k2_core.errors import K2Error

    try:
        return dict(lake_status(settings))
    except K2Error as error:
        return {"error": f"{error.code}: {error}"}


def _show(report: dict[str, Any]) -> None:
    from k2_cli.tables import show_table

    click.echo(f"K2 is {report['state']} on {report['home']}")
    services = report["services"].items()
    show_table(
        ("service", "url", "answers"),
        [(name, said["url"] or "-", "yes" if said["answers"] else "no") for name, said in services],
    )
    for part in ("topics", "tables"):
        rows = report.get(part) or []
        columns = tuple(dict.fromkeys(key for row in rows for key in row))
        cells = [tuple(_cell(row.get(key)) for key in columns) for row in rows]
        # without a frame the names of the columns are a row of their own
        show_table(columns, cells if sys.stdout.isatty() else [columns, *cells] if cells else [])
    for part in ("daemon", "alerts"):
        said = {name: value for name, value in (report.get(part) or {}).items() if value not in (None, {}, False)}
        if said:
            click.echo(f"{part}: {'; '.join(f'{name} {_cell(value)}' for name, value in said.items())}")
    click.echo(f"API key: {report['api_key_file'] or 'made by the first `k2 up`'}")
    if "error" in report:
        click.echo(report["error"], err=True)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
