"""kill -9 of the ingest run at each step of the protocol; the next sensor tick recovers it."""

import multiprocessing
import os
from decimal import Decimal

import dagster as dg
import pytest

from k2_core.contracts import TRADES
from k2_resources import failpoints
from k2_resources.lake.scans import dead_letters
from k2_resources.lake.verify import verify
from k2_tests.assets.conftest import QUIET, DagsterHome, open_dagster_home
from k2_tests.ticks import encoded, trade


def run_until_killed(
    home: str, dagster_home: str, environment: dict[str, str], config: dict[str, object], tags: dict[str, str]
) -> None:
    """What the launcher does with a run request, in a process that is going to die."""
    from pathlib import Path

    from k2_assets.definitions import build_definitions
    from k2_assets.runs import TABLE_TAG
    from k2_resources.settings import Settings

    os.environ.update(environment)
    job = build_definitions(Settings(home=Path(home))).resolve_job_def("ingest_trades")
    with open_dagster_home(Path(dagster_home)) as instance:
        job.execute_in_process(run_config=config, tags={TABLE_TAG: TRADES.name, **tags}, instance=instance)
    os._exit(0)


def ask(home: DagsterHome) -> dg.RunRequest:
    (request,) = home.tick(TRADES).run_requests
    return request


@pytest.mark.timeout(600)
def test_a_run_killed_at_each_step_is_recovered_by_the_next_tick(
    home: DagsterHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing lost, nothing twice, in trades and in dead letters, in one lake that meets every kill."""
    monkeypatch.setenv("K2_BATCH_AGE_SECONDS", "0")
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload([__name__, "k2_assets.warm"])
    schema_id = home.stack.register(home.binance)
    settings = home.stack.settings
    for round_, step in enumerate(failpoints.NAMES):
        first = 100 * round_
        good = [encoded(trade(n), schema_id=schema_id) for n in (first, first + 1, first + 1, first + 5)]
        bad = [encoded(trade(first + 9, price=Decimal(0)), schema_id=schema_id), b"junk"]
        home.stack.send_bytes(home.binance, [*good, *bad])
        request = ask(home)
        environment = {"K2_CONFIG": os.environ["K2_CONFIG"], "K2_FAILPOINT": f"{step}:1:kill"}
        config = {**request.run_config, **QUIET}
        arguments = (str(settings.home), str(settings.dagster_home), environment, config, dict(request.tags))
        child = forks.Process(target=run_until_killed, args=arguments)
        child.start()
        child.join(60)
        assert child.exitcode == -9, f"{step} was not reached"
        home.run(TRADES, ask(home))
        stored = home.engine.lake.load(TRADES).scan(selected_fields=("source_sequence",)).to_arrow()
        expected = [100 * n + offset for n in range(round_ + 1) for offset in (0, 1, 5)]
        assert sorted(stored["source_sequence"].to_pylist()) == expected, step
        assert len(dead_letters(home.engine.lake, TRADES)) == 2 * (round_ + 1), step
        assert home.days(TRADES) == ["2024-08-08"]
    assert verify(home.engine.lake, TRADES).findings == ()
    assert home.tick(TRADES).run_requests in (None, [])
