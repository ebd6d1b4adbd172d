"""How the daemon is and who is told of its silence: a real Dagster webserver, a real webhook, the API over real HTTP."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import httpx2 as httpx
import pytest
import uvicorn
from click.testing import CliRunner
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, SensorInstigatorData
from dagster._core.test_utils import InProcessTestWorkspaceLoadTarget
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster_webserver.webserver import DagsterWebserver

from k2_api.daemon import DaemonWatch, watch_file
from k2_cli.status import is_healthy, status
from k2_core.alerts import Condition
from k2_core.watch import Seen, Watch
from k2_resources import clock
from k2_resources.channels import parse_watch, write_watch
from k2_resources.settings import Settings
from k2_tests.api.homes import lake_of, serving
from k2_tests.receivers import webhook

WRONG = Condition("halt", "market.trades[3]", "PARTITION_PAUSED: a storm", "somewhere")


@dataclass
class Webserver:
    """Dagster's own, on an instance whose daemon is played by the test."""

    url: str
    context: WorkspaceProcessContext
    state: InstigatorState | None = None

    def tick(self, age_seconds: float, watch: Watch | None = None) -> None:
        """Leave behind what a daemon does when a sensor has ticked."""
        data = SensorInstigatorData(
            last_tick_timestamp=clock.now().timestamp() - age_seconds,
            cursor=None if watch is None else write_watch(watch),
        )
        instance = self.context.instance
        if self.state is None:
            location = self.context.create_request_context().get_code_location("k2")
            sensor = location.get_repository("__repository__").get_sensor("alerts")
            origin = sensor.get_remote_origin()
            self.state = InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING, data)
            instance.add_instigator_state(self.state)
        else:
            instance.update_instigator_state(self.state.with_data(data))


@pytest.fixture(scope="module")
def webserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webserver]:
    origin = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="k2_tests.api.alerting"), location_name="k2")
    home = tmp_path_factory.mktemp("dagster")
    with ExitStack() as opened:
        overrides = {"telemetry": {"enabled": False}}
        instance = opened.enter_context(dg.DagsterInstance.local_temp(str(home), overrides=overrides))
        target = InProcessTestWorkspaceLoadTarget(origin)
        context = opened.enter_context(WorkspaceProcessContext(instance, target))
        with _served(DagsterWebserver(context).create_asgi_app()) as url:
            yield Webserver(url, context)


@contextmanager
def _served(app: Any) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


def _patiently(client: httpx.Client, path: str, words: str) -> httpx.Response:
    """Ask until an answer has the words: a second is short for a webserver on a busy machine."""
    for _ in range(60):
        if words in (answer := client.get(path)).text:
            return answer
    raise AssertionError(f"{path} never said {words}: {answer.text}")


def _settings(home: Path, webserver: Webserver, **changes: Any) -> Settings:
    return Settings(home=home, dagster_url=webserver.url, **changes)


def test_health_shows_the_last_tick_what_fires_and_how_long_people_wait(tmp_path: Path, webserver: Webserver) -> None:
    settings = _settings(tmp_path, webserver)
    lake_of(settings)
    minute_ago = clock.now_us() - 90_000_000
    webserver.tick(3, Watch().noted({WRONG.key: WRONG}, Seen(), ["webhook"], minute_ago))
    with serving(settings) as client:
        said = _patiently(client, "/health", '"answers":true').json()
        metrics = _patiently(client, "/metrics", "k2_dagster_answers 1.0").text
    assert 3 <= said["daemon"]["last_tick_age_seconds"] < 60
    assert (said["alerts"]["firing"], said["alerts"]["undelivered"]) == (1, 1)
    assert said["alerts"]["oldest_undelivered_age_seconds"] >= 90
    assert said["status"] == "degraded", "somebody has not been told for more than a minute"
    assert "k2_alerts_undelivered 1.0" in metrics
    assert "k2_daemon_tick_age_seconds" in metrics


def test_health_is_degraded_by_a_silent_daemon_and_says_nothing_of_one_it_does_not_know(
    tmp_path: Path, webserver: Webserver
) -> None:
    lake_of(Settings(home=tmp_path))
    webserver.tick(1_000, Watch())
    with serving(_settings(tmp_path, webserver)) as client:
        said = _patiently(client, "/health", '"answers":true').json()
    assert said["status"] == "degraded"
    assert said["daemon"]["last_tick_age_seconds"] >= 1_000
    with serving(Settings(home=tmp_path)) as client:
        said = client.get("/health").json()
    assert (said["status"], said["daemon"]) == ("healthy", None)
    assert said["alerts"] == {"firing": None, "undelivered": None, "oldest_undelivered_age_seconds": None}


def test_k2_status_shows_the_same_and_what_a_channel_said(
    tmp_path: Path, webserver: Webserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch().noted({WRONG.key: WRONG}, Seen(), ["webhook"], clock.now_us() - 90_000_000)
    refused = replace(watch, outbox=watch.outbox.failed("webhook", "webhook: answered 403, expected 2xx", 0))
    webserver.tick(3, refused)
    monkeypatch.setenv("K2_DAGSTER_URL", webserver.url)
    said = CliRunner().invoke(status, ["--json", "--home", str(tmp_path)])
    report = json.loads(said.stdout)
    assert report["services"]["dagster"]["answers"] is True
    assert 3 <= report["daemon"]["last_tick_age_seconds"] < 60
    assert report["daemon"]["is_late"] is False
    assert report["alerts"]["oldest_undelivered_age_seconds"] >= 90
    assert report["alerts"]["is_late"] is True
    assert report["alerts"]["refusals"] == {"webhook": "webhook: answered 403, expected 2xx"}
    shown = CliRunner().invoke(status, ["--home", str(tmp_path)]).stdout
    assert "alerts: firing 1; undelivered 1; oldest_undelivered_age_seconds" in shown
    services = {"api": {"answers": True}}
    assert not is_healthy(services, {}, {"alerts": report["alerts"]})
    assert is_healthy(services, {}, {"daemon": report["daemon"]})


def test_silence_of_the_daemon_is_told_once_by_one_of_several_and_its_end_too(
    tmp_path: Path, webserver: Webserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with webhook() as posts:
        settings = _settings(tmp_path, webserver, alert_webhook_url=posts.url)
        one, other = DaemonWatch(settings), DaemonWatch(settings)

        def rounds(shift_seconds: float = 0.0) -> list[str]:
            """Two of each, the first of them as if that much time had passed."""
            file = watch_file(settings)
            if file.exists():
                watch = parse_watch(file.read_text())
                held = {
                    k: replace(h, since_us=h.since_us - round(shift_seconds * 1e6))
                    for k, h in watch.watched.held.items()
                }
                file.write_text(write_watch(replace(watch, watched=replace(watch.watched, held=held))))
            for each in (one, other, one, other):
                each.round()
            return [post["state"] for post in posts.taken]

        webserver.tick(59)
        assert rounds() == []
        webserver.tick(100_000)
        assert rounds() == [], "a stack that starts has an old tick"
        assert rounds(61) == ["firing"]
        assert posts.taken[0]["kind"] == "daemon"
        assert posts.taken[0]["runbook"].endswith("#alert-daemon-dagsters-daemon-is-silent")
        again = DaemonWatch(settings)
        again.round()
        again.round()
        assert len(posts.taken) == 1, "a restart repeats nothing"
        webserver.tick(0)
        assert rounds() == ["firing", "recovered"]


def test_a_webserver_that_does_not_answer_is_told_too(
    tmp_path: Path, webserver: Webserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with webhook() as posts:
        gone = Settings(
            home=tmp_path, dagster_url="http://127.0.0.1:1", alert_webhook_url=posts.url, alert_daemon_seconds=0.001
        )
        watch = DaemonWatch(gone)
        for _ in range(3):
            watch.round()
            time.sleep(0.01)
    (post,) = posts.taken
    assert "nobody can tell" in post["alerts"][0]["summary"]
