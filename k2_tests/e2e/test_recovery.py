"""The stack on generated data: the tour, kill -9 of everything at once, a wiped Dagster home."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import dagster as dg
import psutil
import pytest

from k2_assets.runs import DIED_TAG
from k2_core.contracts import QUOTES, TRADES
from k2_resources.lake.catalog import Lake
from k2_resources.settings import Settings
from k2_tests.e2e.stack import UNCLOSED, command, environment, k2, running, wait_for

pytestmark = pytest.mark.timeout(900)
ROWS, KILLED_ROWS = 300, 6_000
SOON = {"K2_BATCH_AGE_SECONDS": "0", **UNCLOSED}
"""What arrives is ingested with the next tick."""


@pytest.fixture(scope="module")
def toured(tmp_path_factory):
    """A home on which the tour was walked once."""
    home = tmp_path_factory.mktemp("e2e") / "a home with spaces"
    tour = k2(home, "demo", "--once", "--rows", ROWS, check=False, **SOON)
    return home, tour


def lake_of(home: Path) -> Lake:
    settings = Settings(home=home)
    return Lake(settings.catalog(), settings.warehouse_path())


def rows_of(home: Path, *symbols: str) -> dict[str, int]:
    """Stored rows per symbol, over both tick tables."""
    lake, found = lake_of(home), dict.fromkeys(symbols, 0)
    for table in (TRADES, QUOTES):
        for symbol in lake.load(table).scan(selected_fields=("symbol",)).to_arrow()["symbol"].to_pylist():
            if symbol in found:
                found[symbol] += 1
    return found


def simulation(seed: int, symbol: str, rows: int) -> tuple[object, ...]:
    market = ("--seed", seed, "--symbols", symbol, "--equities", f"{symbol}AX", "--rows", rows)
    return ("feed", "simulate", *market, "--json")


def simulate(home: Path, seed: int, symbol: str, rows: int) -> dict[str, object]:
    report: dict[str, object] = json.loads(k2(home, *simulation(seed, symbol, rows)).stdout.splitlines()[-1])
    return report


def expected_rows(report: dict[str, object]) -> dict[str, int]:
    found: dict[str, int] = {}
    for truth in report["truth"]:
        found[truth["symbol"]] = found.get(truth["symbol"], 0) + truth["rows"]
    return found


def is_running(instance: dg.DagsterInstance) -> bool:
    """Whether a run has started and none is about to: what is killed then has a process that has named itself."""
    started, starting = (
        instance.get_runs(dg.RunsFilter(statuses=[status]), limit=1)
        for status in (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING)
    )
    return bool(started) and not starting


def test_the_tour_ends_with_every_number_agreeing(toured):
    _, tour = toured
    assert tour.returncode == 0, tour.stdout + tour.stderr
    assert "29 of 29 numbers agree" in tour.stdout
    assert "open gap binance-trades:SIMBTCUSDT" in tour.stdout


def test_the_tour_leaves_no_process_and_no_lock_behind(toured):
    home, _ = toured
    assert [p for p in psutil.process_iter(["environ"]) if (p.info["environ"] or {}).get("K2_HOME") == str(home)] == []
    assert not (home / "run" / "endpoints.json").exists()


@pytest.fixture(scope="module")
def wiped(toured):
    """The same home after Dagster's was wiped, up again and fed. Here with Dagster's own launcher.

    Nothing but Dagster depends on how a run is launched; the tour before and the recovery after it have the fast one.
    """
    home, _ = toured
    before = rows_of(home, "SIMBTCUSDT", "ASIM")
    shutil.rmtree(home / "dagster")
    with running(home, K2_LAUNCHER="standard", **SOON) as stack:
        report = simulate(home, 8, "SIMWIPE", ROWS)
        stack.await_ingested()
        yield stack, report, before


def test_a_wiped_dagster_home_changes_nothing_and_the_next_run_goes_on(wiped):
    stack, report, before = wiped
    assert sum(before.values()) > 0
    assert rows_of(stack.home, *before) == before
    assert rows_of(stack.home, *expected_rows(report)) == expected_rows(report)


@pytest.fixture(scope="module")
def recovered(wiped):
    """The same home after kill -9 of everything in the middle of a feed, up again, and the feed sent again."""
    stack, *_ = wiped
    home, lake = stack.home, lake_of(stack.home)
    before = lake.state(TRADES).sequence_number
    with subprocess.Popen(
        command(home, *simulation(7, "SIMKILL", KILLED_ROWS)),
        env=environment(home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as feed:
        wait_for(lambda: lake.state(TRADES).sequence_number > before, 200, "a first commit")
        killed = stack.kill_everything()
        feed.kill()
    wait_for(lambda: not any(map(psutil.pid_exists, killed)), 30, "the dead to be gone")
    with running(home, **SOON) as again:
        report = simulate(home, 7, "SIMKILL", KILLED_ROWS)
        again.await_ingested()
        yield again, report


def test_kill_9_of_every_process_at_once_then_up_goes_on_exactly(recovered):
    """The broker forgets what it held; the feed sends again, and everything converges."""
    stack, report = recovered
    assert rows_of(stack.home, *expected_rows(report)) == expected_rows(report)


def test_a_second_up_on_the_same_home_is_refused_with_the_pid_of_the_first(recovered):
    stack, _ = recovered
    refused = k2(stack.home, "up", check=False)
    assert refused.returncode == 2
    assert str(stack.process.pid) in refused.stderr


def test_status_is_healthy_and_names_the_key_file_but_not_the_key(recovered):
    stack, _ = recovered
    told = k2(stack.home, "status").stdout
    assert "K2 is healthy" in told
    assert str(stack.home / "api.key") in told.replace("\n", "")
    assert (stack.home / "api.key").read_text().strip() not in told
    assert (stack.home / "api.key").stat().st_mode & 0o777 == 0o600


def test_kill_9_of_the_daemon_and_of_the_run_it_forked_then_the_next_tick_goes_on_exactly(recovered):
    stack, _ = recovered
    daemon = psutil.Process(stack.endpoints["pids"]["daemon"])
    words = command(stack.home, *simulation(9, "SIMDAEMON", ROWS))
    with (
        stack.dagster() as instance,
        subprocess.Popen(words, env=environment(stack.home), stdout=subprocess.PIPE, text=True) as feed,
    ):
        wait_for(lambda: is_running(instance), 120, "a run")
        for process in [daemon, *daemon.children(recursive=True)]:
            process.kill()
        report = json.loads(feed.communicate()[0].splitlines()[-1])
    stack.await_ingested()
    with stack.dagster() as instance:
        told = [run.tags[DIED_TAG] for run in instance.get_runs() if DIED_TAG in run.tags]
    assert stack.endpoints["pids"]["daemon"] != daemon.pid
    assert rows_of(stack.home, *expected_rows(report)) == expected_rows(report)
    assert told


def test_an_ordered_stop_drains_and_leaves_a_lake_that_proves_itself(recovered):
    stack, _ = recovered
    assert stack.stop() == 0
    k2(stack.home, "verify", "--deep")
