"""Dagster from outside: what its webserver says over GraphQL, for those that never import Dagster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2 as httpx

from k2_core.errors import Unreachable
from k2_core.watch import Watch
from k2_resources.channels import parse_watch

LOCATION, REPOSITORY = "k2", "__repository__"
"""Names of the code location in every workspace of K2, and of what Dagster makes of its definitions."""
ALERTS = "alerts"
"""The sensor whose cursor is the watch."""
_QUERY = """
query K2($selector: RepositorySelector!) {
  instance { daemonHealth { allDaemonStatuses { daemonType required healthy lastHeartbeatTime } } }
  repositoryOrError(repositorySelector: $selector) {
    ... on Repository {
      sensors { name sensorState { typeSpecificData { ... on SensorData { lastTickTimestamp lastCursor } } } }
    }
  }
}
"""


@dataclass(frozen=True)
class DaemonView:
    """What the webserver knows of the daemon.

    last_tick_seconds: when any sensor ticked last, seconds since the epoch; None before the first tick, or where the
    code location cannot be loaded. unhealthy: required daemons without a recent heartbeat.
    watch: what the alerts know; None before their first tick.
    """

    last_tick_seconds: float | None
    unhealthy: tuple[str, ...]
    watch: Watch | None

    def tick_age_seconds(self, now_seconds: float) -> float | None:
        """Seconds since any sensor ticked."""
        return None if self.last_tick_seconds is None else max(now_seconds - self.last_tick_seconds, 0.0)


def daemon_view(webserver_url: str, timeout_seconds: float) -> DaemonView:
    """Ask the webserver once. Raises Unreachable."""
    selector = {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY}
    body = {"query": _QUERY, "variables": {"selector": selector}}
    url = f"{webserver_url.rstrip('/')}/graphql"
    try:
        # servers of one's own: what the environment says of proxies is for the world
        answer = httpx.post(url, json=body, timeout=timeout_seconds, trust_env=False).raise_for_status().json()
        return _view(answer["data"])
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        raise Unreachable(f"Dagster's webserver at {webserver_url}: {type(error).__name__}: {error}") from error


def _view(data: Mapping[str, Any]) -> DaemonView:
    statuses = data["instance"]["daemonHealth"]["allDaemonStatuses"]
    unhealthy = tuple(s["daemonType"] for s in statuses if s["required"] and not s["healthy"])
    states = dict(_states(data))
    ticks = [state["lastTickTimestamp"] for state in states.values() if state.get("lastTickTimestamp")]
    cursor = states.get(ALERTS, {}).get("lastCursor")
    return DaemonView(max(ticks, default=None), unhealthy, parse_watch(cursor) if cursor else None)


def _states(data: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for sensor in (data["repositoryOrError"] or {}).get("sensors", ()):
        yield sensor["name"], sensor["sensorState"]["typeSpecificData"] or {}
