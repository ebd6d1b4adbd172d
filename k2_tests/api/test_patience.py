"""Requests that take too long, and clients that leave."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import httpx2 as httpx
import pytest

from k2_api.app import create_app
from k2_core.contracts import TRADES
from k2_resources.duck import QueryTimeout
from k2_tests.api.homes import dated, lake_of, serving, settings_of, store
from k2_tests.resources.test_duck import ENDLESS
from k2_tests.ticks import trade

BUSY_SECONDS = 4.0


def test_a_request_past_its_deadline_is_a_timeout(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, query_seconds_max=0.0005)
    store(lake_of(settings), TRADES, [dated(trade(1))])
    with serving(settings) as client:
        response = client.get("/v1/trades")
    assert (response.status_code, response.json()["code"]) == (504, "TIMEOUT")


def test_a_client_that_leaves_takes_its_query_along(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, query_threads=1)
    store(lake_of(settings), TRADES, [dated(trade(1))])
    app = create_app(settings)
    with serving(settings, app) as client:
        duck = app.state.backend.reads.duck
        busy = threading.Thread(target=occupy, args=(duck,))
        busy.start()
        with pytest.raises(httpx.ReadTimeout):
            client.get("/v1/trades", timeout=0.5)
        gone = {"endpoint": "/v1/trades", "method": "GET", "status_code": "499"}
        while app.state.metrics.registry.get_sample_value("k2_http_requests_total", gone) != 1:
            assert busy.is_alive()
            time.sleep(0.02)
        assert busy.is_alive(), "the server noticed while the cursor was still taken"
        busy.join()
        assert len(client.get("/v1/trades").json()["data"]) == 1


def occupy(duck: object) -> None:
    with pytest.raises(QueryTimeout):
        duck.fetch(ENDLESS, {}, seconds=BUSY_SECONDS)  # type: ignore[attr-defined]
