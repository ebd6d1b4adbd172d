"""Alerts: a sensor that tells people what went wrong and when it is over, once each.

Each tick first sends what the outbox holds, then looks, then writes new edges into the outbox: nothing is sent that is
not stored, and the cursor, which holds all of it, moves past an edge only when every channel has taken it. A crash
between delivery and cursor delivers once more, with the same idempotency key.
"""

from collections.abc import Collection
from dataclasses import replace

import dagster as dg

from k2_assets.lake_troubles import lake_changes
from k2_assets.run_troubles import (
    all_failed_checks,
    ended_runs,
    failed_checks,
    failed_runs,
    seen_until,
    without_echoes,
)
from k2_core.alerts import Condition
from k2_core.errors import K2Error
from k2_core.feeds import Feed
from k2_core.notices import section
from k2_core.watch import Seen, Watch
from k2_resources import clock
from k2_resources.bindings import K2Resource
from k2_resources.channels import deliver_due, links_of, open_channels, parse_watch, write_watch
from k2_resources.settings import Settings

SENSOR = "alerts"
INTERVAL_SECONDS = 9
"""The daemon loops every 5 s: every second time. An edge is told at the tick after the one that saw it."""


def alerts_definitions(_settings: Settings, _feeds: tuple[Feed, ...]) -> dg.Definitions:
    """Define the sensor that alerts."""
    return dg.Definitions(sensors=[alerts])


@dg.sensor(
    name=SENSOR,
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tell people by webhook and mail what went wrong and when it is over; see docs/RUNBOOK.md.",
)
def alerts(context: dg.SensorEvaluationContext, k2: K2Resource) -> dg.SensorResult | dg.SkipReason:
    """Deliver what is due, look, and write down what is new."""
    settings = k2.settings()
    try:
        channels = open_channels(settings)
    except K2Error as error:
        return dg.SkipReason(f"{error.code}: {error}")
    if not channels:
        return dg.SkipReason("nobody to tell: set K2_ALERT_WEBHOOK_URL, or K2_ALERT_SMTP and K2_ALERT_MAIL_TO")
    watch = parse_watch(context.cursor)
    watch = replace(watch, outbox=deliver_due(watch.outbox, channels, links_of(settings)))
    if not watch.outbox.is_full:
        watch = _looked(context, settings, watch, channels)
    said = f"{len(watch.watched.firing)} firing, {len(watch.outbox.entries)} undelivered"
    return dg.SensorResult(skip_reason=said, cursor=write_watch(watch))


def _looked(context: dg.SensorEvaluationContext, settings: Settings, watch: Watch, channels: Collection[str]) -> Watch:
    """Look once. A look that fails is told like anything else: what was delivered must not be delivered again."""
    now_us = clock.now_us()
    graph = context.repository_def.asset_graph if context.repository_def is not None else None
    keys = graph.asset_check_keys if graph is not None else ()
    try:
        changes, seen = _look(context.instance, settings, keys, watch, now_us)
    except Exception as error:  # whatever it is, it is told; the next tick looks again
        context.log.exception("the look failed")
        blind = _blind(error)
        changes, seen = {blind.key: blind}, watch.seen
    return watch.noted(changes, seen, channels, now_us)


def _look(
    instance: dg.DagsterInstance,
    settings: Settings,
    keys: Collection[dg.AssetCheckKey],
    watch: Watch,
    now_us: int,
) -> tuple[dict[str, Condition | None], Seen]:
    """What is wrong now, and what no longer is: runs and checks, the log and the lake."""
    records = ended_runs(instance, watch.seen.runs_us, now_us)
    changes = failed_runs(instance, records)
    if watch.seen.runs_us is None:
        changes |= all_failed_checks(instance, keys)
    else:
        changes |= failed_checks(instance, records, watch.watched.firing)
    of_lake, seen = lake_changes(settings, watch.watched, watch.seen, now_us)
    changes = without_echoes(changes | of_lake, watch.watched.firing)
    return changes, replace(seen, runs_us=seen_until(records, watch.seen.runs_us, now_us))


def _blind(error: Exception) -> Condition:
    """A look that failed; the next that does not fail ends it, as it does whatever was unreachable."""
    return Condition("unreachable", "the watch", f"{type(error).__name__}: {error}", section("run", "run"))
