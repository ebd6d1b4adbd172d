"""Homes for API tests: a real lake filled by the real commit protocol, and the API served over real HTTP."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx2 as httpx
import pyarrow as pa
from fastapi import FastAPI

from k2_api.app import create_app
from k2_cli.serve import listen, server_of
from k2_core.contracts import CONTRACT_VERSION, Table
from k2_core.protocol.ports import Change
from k2_core.receipts import DateRows, RangeCount, Receipt
from k2_resources.lake.catalog import Lake
from k2_resources.settings import Settings
from k2_tests.lakes import commit

Row = dict[str, Any]
_ZONES = {"ASX": "Australia/Sydney", "BINANCE": "UTC"}
_TOPIC = "market.test"
_UNLIMITED = {"api_rate_per_minute": 1_000_000, "api_probes_per_minute": 1_000_000}
"""Tests ask more than people do."""


def settings_of(home: Path, **changes: Any) -> Settings:
    return Settings(home=home, **{**_UNLIMITED, **changes})


def lake_of(settings: Settings) -> Lake:
    settings.home.mkdir(parents=True, exist_ok=True)
    lake = Lake(settings.catalog(), settings.warehouse_path())
    lake.ensure()
    return lake


def dated(row: Mapping[str, Any]) -> Row:
    """A row as the judge would store it: revision, and the date of its exchange."""
    instant: datetime = row["timestamp"]
    local = instant.astimezone(ZoneInfo(_ZONES.get(row["exchange"], "UTC")))
    return {"revision": 0, "exchange_date": local.date(), **row}


def store(lake: Lake, table: Table, rows: Iterable[Mapping[str, Any]], touched: Iterable[date] = ()) -> None:
    """Commit rows as one batch of one Kafka range. touched: dates that lose a row by it."""
    at = lake.head(table)
    position = at.offsets.positions.get((_TOPIC, 0))
    start = position.next if position else 0
    lineage = {"kafka_topic": _TOPIC, "kafka_epoch": 0, "kafka_partition": 0}
    stored = [{**row, **lineage, "kafka_offset": start + i} for i, row in enumerate(rows)]
    stored.sort(key=lambda row: (row["symbol"], row["timestamp"]))
    count = RangeCount(_TOPIC, 0, 0, start, start + len(stored), read=len(stored), written=len(stored))
    named = Counter(row["exchange_date"] for row in stored if "exchange_date" in row) | dict.fromkeys(touched, 0)
    dates = tuple(DateRows(day, "test", named[day]) for day in sorted(named))
    receipt = Receipt(table.name, "batch", "test", "test", CONTRACT_VERSION, (count,), dates=dates)
    commit(lake, at, Change(receipt, pa.Table.from_pylist(stored, schema=table.arrow_schema())))


@contextmanager
def serving(settings: Settings, app: FastAPI | None = None) -> Iterator[httpx.Client]:
    """A client with the right key of a server that runs meanwhile. app: made by the caller, who wants to look inside."""
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    server = server_of(settings, app or create_app(settings), log_level="error")
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    key = settings.api_key_file.read_text().strip()
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": key}, timeout=60, trust_env=False
        ) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
