"""A broker that is slow, away or gone: memory stays bounded, nothing is dropped, and the end says where."""

from __future__ import annotations

import json
import time

import pytest

from k2_core.errors import AlreadyRunning
from k2_feeds.exchange import ExchangeSettings, exchange
from k2_feeds.live import steady
from k2_resources.embedded_broker import broker_file, embedded_broker
from k2_resources.spill import Spill
from k2_tests.feeds.homes import TOPICS, home_on
from k2_tests.feeds.live.conftest import SYMBOLS
from k2_tests.feeds.live.scene import Scene, stopped, until

FIRST = SYMBOLS[0]


@pytest.fixture
def stoppable(tmp_path, own_broker, registry_url):
    """A scene over a broker of our own, and the process id of that."""
    bootstrap, process_id = own_broker
    settings = ExchangeSettings(symbols=SYMBOLS, speed=60.0, trades_per_second=10.0, awaits_client=True)
    with exchange(settings) as running:
        scene = Scene(running, home_on(tmp_path / "home", bootstrap, registry_url), tmp_path, bootstrap)
        with scene.stack:
            yield scene, process_id


def test_a_broker_that_pauses_costs_disk_and_no_trade(stoppable):
    scene, process_id = stoppable
    with scene.collecting(memory_bytes_max=2_000) as run:
        until(lambda: len(scene.ids(FIRST)) > 10)
        with stopped(process_id):
            until(lambda: run.live.buffer.spilled > 500)
            assert run.live.buffer.bytes_held <= 2_000
            assert run.live.buffer.spill.bytes_held > 50_000
        scene.running.pause()
        until(lambda: all(scene.has_all(symbol) for symbol in SYMBOLS))
        until(lambda: run.live.buffer.spill.bytes_held == 0)
    assert run.ended().is_complete
    assert set(scene.ids(FIRST).values()) == {1}


def test_a_feed_that_is_full_stops_loudly_and_the_next_one_goes_on_there(stoppable):
    scene, process_id = stoppable
    run = scene.start(memory_bytes_max=2_000, spill_bytes_max=400_000, drain_seconds=0.3)
    until(lambda: len(scene.ids(FIRST)) > 10)
    with stopped(process_id):
        until(lambda: run.live.collection.folder.joinpath("report.json").exists())
        scene.running.pause()
    report = run.ended()
    run.live.buffer.spill.close()
    assert report.error is not None
    assert report.error.startswith(("SPILL_FULL", "UNREACHABLE"))
    assert not report.is_complete
    assert "failed" not in scene.states()
    kept = Spill(scene.folder / "live", 1 << 20)
    assert kept.found.records > 100
    kept.close()

    with scene.collecting() as again:
        until(lambda: again.live.buffer.spill.bytes_held == 0 and scene.states().get("failed"))
    assert again.ended().is_complete
    failed = {s["symbol"]: s for s in scene.states()["failed"]}
    assert failed[FIRST]["collection_id"] == report.collection_id
    for symbol in SYMBOLS:
        ids = scene.ids(symbol)
        assert set(ids) == set(range(min(ids), max(ids) + 1))
        assert max(ids) > failed[symbol]["last_id"]


def test_a_broker_that_comes_back_elsewhere_gets_what_the_lost_one_did_not_acknowledge(
    tmp_path, registry_url, monkeypatch
):
    monkeypatch.setattr(steady, "_TRUST_SECONDS", 2.0)
    settings = ExchangeSettings(symbols=SYMBOLS, speed=60.0, trades_per_second=5.0, awaits_client=True)
    with exchange(settings) as running, embedded_broker(TOPICS, tmp_path / "second") as second:
        with embedded_broker(TOPICS, tmp_path / "first") as first:
            home = home_on(tmp_path / "home", first, registry_url)
            scene = Scene(running, home, tmp_path, first)
            run = scene.start(memory_bytes_max=50_000)
            until(lambda: len(scene.ids(FIRST)) > 10)
            had = {symbol: max(scene.ids(symbol)) for symbol in SYMBOLS}
        assert broker_file(tmp_path / "first").exists()
        scene.broker, scene.before = second, dict.fromkeys(scene.before, 0)
        home.endpoints_file.write_text(json.dumps({"kafka": second, "registry": registry_url}))
        time.sleep(0.5)
        running.pause()
        until(lambda: all(max(scene.truth(s)) in scene.ids(s) for s in SYMBOLS))
        run.live.stop()
        assert run.ended().is_complete
        run.live.buffer.spill.close()
        for symbol in SYMBOLS:
            # what the first acknowledged is its own affair; the second continues without a hole
            ids = scene.ids(symbol)
            assert set(ids) == set(range(min(ids), max(ids) + 1))
            assert min(ids) <= had[symbol] + 500
        scene.stack.close()


def test_two_feeds_do_not_share_a_folder(stoppable):
    scene, _ = stoppable
    held = Spill(scene.folder / "live", 1 << 20)
    with pytest.raises(AlreadyRunning):
        scene.start()
    held.close()
