"""What the tests of the live feed share: an exchange in a hurry, and a home to send to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from k2_feeds.exchange import ExchangeSettings, exchange
from k2_resources.embedded_broker import broker_file, embedded_broker
from k2_tests.feeds.homes import TOPICS, home_on
from k2_tests.feeds.live.scene import Scene

SYMBOLS = ("SIMBTCUSDT", "SIMETHUSDT", "SIMETHBTC")


@pytest.fixture
def hurried(tmp_path, broker, registry_url):
    """Open a scene: `with hurried(speed=..., ...) as scene`."""

    @contextmanager
    def open_scene(**settings) -> Iterator[Scene]:
        settings = {"symbols": SYMBOLS, "speed": 60.0, "trades_per_second": 5.0, "awaits_client": True, **settings}
        with exchange(ExchangeSettings(**settings)) as running:
            scene = Scene(running, home_on(tmp_path / "home", broker, registry_url), tmp_path, broker)
            with scene.stack:
                yield scene

    return open_scene


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory) -> Iterator[tuple[str, int]]:
    """A broker that a test may stop: its address and its process id."""
    home = tmp_path_factory.mktemp("broker")
    with embedded_broker(TOPICS, home) as bootstrap:
        yield bootstrap, json.loads(broker_file(home).read_text())["pid"]
