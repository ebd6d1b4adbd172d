"""Dagster's daemon, seen from a process that outlives it: how it is, and an alert when it falls silent.

The daemon tells what is wrong, but cannot tell its own silence. Each round is exclusive on a home, and what was told is
kept there: of several APIs one tells, and a restart repeats nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from k2_core.alerts import Condition, levels
from k2_core.errors import AlreadyRunning, Unreachable
from k2_core.notices import section
from k2_core.watch import Telling, Watch, telling
from k2_resources import clock
from k2_resources.channels import deliver_due, links_of, open_channels, parse_watch, write_watch
from k2_resources.dagster_graphql import DaemonView, daemon_view
from k2_resources.settings import Settings
from k2_resources.supervisor import sole_owner

PATIENCE_SECONDS = 1.0
"""A webserver that takes longer counts as absent: health and scrapes must answer while things are broken."""
ROUND_SECONDS = 15.0
"""Between two rounds of the watch; the silence it tells lasts minutes."""
ROUND_PATIENCE_SECONDS = 10.0
"""A busy webserver is not a silent daemon."""
_SUBJECT = "Dagster's daemon"

LOG = logging.getLogger("k2.api")


class DaemonLook:
    """Asks Dagster's webserver, one question at a time however many ask."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._looking: asyncio.Task[DaemonView | None] | None = None

    async def look(self) -> DaemonView | None:
        """The daemon as it is now; None where nobody can tell within a second."""
        url = self._settings.dagster()
        if url is None:
            return None
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(asyncio.to_thread(_view, url, PATIENCE_SECONDS))
        try:
            return await asyncio.wait_for(asyncio.shield(self._looking), PATIENCE_SECONDS)
        except TimeoutError:
            return None

    def telling(self, view: DaemonView | None) -> Telling | None:
        """What people are told by the alerts and about the daemon; None while neither is known."""
        return telling_of(view, self._settings)


class DaemonWatch:
    """Tells people when the daemon falls silent, and when it is back."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._webserver: str | None = None
        self._is_first = True

    async def run(self) -> None:
        """Go round until cancelled. A round that fails is logged, and the next one tries again."""
        while True:
            try:
                await asyncio.to_thread(self.round)
            except Exception:
                LOG.exception("the watch over Dagster's daemon failed")
            await asyncio.sleep(ROUND_SECONDS)

    def round(self) -> None:
        """Deliver what is due, look once, and write down what is new. Raises Misconfigured."""
        channels = open_channels(self._settings)
        # a webserver that crashed has no address while it is down
        self._webserver = self._settings.dagster() or self._webserver
        if not channels or self._webserver is None:
            return
        file = watch_file(self._settings)
        with suppress(AlreadyRunning), sole_owner(file.with_suffix(".lock")):
            watch = stored_watch(file)
            if self._is_first:  # what was held before this process began was held by nobody meanwhile
                watch = replace(watch, watched=replace(watch.watched, held={}))
            watch = replace(watch, outbox=deliver_due(watch.outbox, channels, links_of(self._settings)))
            wrong = silence(self._webserver, self._settings.alert_daemon_seconds)
            now_us = clock.now_us()
            _store(file, watch.noted(levels(watch.watched, "daemon", wrong), watch.seen, channels, now_us))
            self._is_first = False


def silence(webserver: str, seconds_max: float) -> Iterator[Condition]:
    """What is wrong with the daemon now. Half of its time is waited for here: a stack that starts has an old tick."""
    view = _view(webserver, ROUND_PATIENCE_SECONDS)
    age = view.tick_age_seconds(clock.now().timestamp()) if view is not None else None
    if view is None:
        said = f"Dagster's webserver at {webserver} does not answer, so nobody can tell whether the daemon lives"
    elif age is None:
        said = "no sensor has ever ticked, or the code location cannot be loaded"
    elif age > seconds_max / 2:
        said = f"no sensor has ticked for more than {seconds_max:.0f} s"
    else:
        return
    yield Condition("daemon", _SUBJECT, said, section("daemon", "daemon"), hold_seconds=seconds_max / 2)


def telling_of(view: DaemonView | None, settings: Settings) -> Telling | None:
    """What people are told: by Dagster, as its webserver says, and about its daemon, as this home says."""
    own, alerts = stored_watch(watch_file(settings)), view.watch if view is not None else None
    if view is None and own == Watch():
        return None
    return telling([own] if alerts is None else [own, alerts], clock.now_us())


def watch_file(settings: Settings) -> Path:
    """Where a home keeps what was told about its daemon."""
    return settings.home / "alerts" / "daemon.json"


def _view(webserver: str, seconds: float) -> DaemonView | None:
    try:
        return daemon_view(webserver, seconds)
    except Unreachable:
        return None


def stored_watch(file: Path) -> Watch:
    """Read a watch; one that knows nothing where there is none."""
    try:
        return parse_watch(file.read_text())
    except FileNotFoundError:
        return Watch()


def _store(file: Path, watch: Watch) -> None:
    unfinished = file.with_suffix(".new")
    unfinished.write_text(write_watch(watch))
    unfinished.replace(file)
