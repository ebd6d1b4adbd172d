"""A cited answer is computed again to the same bytes after its files were rewritten, its snapshot forgotten, all swept."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from k2_core.compaction import Limits
from k2_core.contracts import TRADES
from k2_core.protocol import collect as collecting
from k2_resources import clock
from k2_resources.lake.catalog import Lake
from k2_resources.lake.compaction import compact, stored_files
from k2_resources.lake.ledger import IcebergLedger
from k2_resources.lake.orphans import sweep
from k2_resources.lake.retention import forget
from k2_tests.api.homes import dated, lake_of, serving, settings_of, store
from k2_tests.lakes import collect
from k2_tests.ticks import NOON, trade

SAID = {"run_id": "upkeep", "code_version": "0"}
QUESTIONS: dict[str, dict[str, Any]] = {
    "/v1/trades": {"symbol": "BTCUSDT", "limit": 5},
    "/v1/ohlcv/1m": {"symbol": "BTCUSDT", "limit": 1, "order": "asc"},
}


def asked(client: httpx.Client, path: str, **more: Any) -> httpx.Response:
    response = client.get(path, params={**QUESTIONS[path], **more})
    assert response.status_code == 200, response.text
    return response


def body(response: httpx.Response) -> bytes:
    """All of an answer but the one member that names the request."""
    return response.content.replace(response.json()["meta"]["correlation_id"].encode(), b"")


def upkeep(lake: Lake) -> None:
    """Rewrite everything, forget every snapshot but the head, and delete all that this leaves; nobody reads now."""
    assert list(compact(lake, TRADES, Limits(1_000, 32), date(2024, 8, 20), **SAID))
    collect(lake, TRADES)
    ledger, late = IcebergLedger(lake), clock.now() + timedelta(days=1)
    assert forget(ledger, lake.head(TRADES), late)
    for _ in range(2):
        swept = sweep(lake, TRADES, now=late, grace=timedelta(0), **SAID)
    assert swept.waiting == 0


def test_an_answer_below_c_is_the_same_after_compaction_expiry_and_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "IDLE_RECEIPTS_MAX", 1)
    settings = settings_of(tmp_path)
    lake = lake_of(settings)
    rows = [dated(trade(n, timestamp=NOON + timedelta(seconds=11 * n))) for n in range(20)]
    store(lake, TRADES, rows[:12])
    store(lake, TRADES, [*rows[12:], {**rows[3], "revision": 1, "price": rows[3]["price"] + 1}])
    collect(lake, TRADES)
    with serving(settings) as client:
        cursors = {path: asked(client, path).json()["pagination"]["next_cursor"] for path in QUESTIONS}
        cited = {path: asked(client, path, cursor=cursor, limit=50) for path, cursor in cursors.items()}
        for n in (3, 5):
            moved = {**rows[n], "revision": 2 if n == 3 else 1, "timestamp": NOON + timedelta(seconds=70)}
            store(lake, TRADES, [dated(trade(100 + n, timestamp=NOON + timedelta(seconds=n))), moved])
        before = [f.path for f in stored_files(lake.head(TRADES))]
        upkeep(lake)
        assert not any(Path(path).exists() for path in before)
    with serving(settings) as client:
        for path, cursor in cursors.items():
            again = asked(client, path, cursor=cursor, limit=50)
            assert body(again) == body(cited[path]), path
            assert again.headers["K2-Version"] == cited[path].headers["K2-Version"]
            fresh = asked(client, path, limit=50)
            assert fresh.headers["K2-Version"] != again.headers["K2-Version"]
        assert len(asked(client, "/v1/trades", limit=50).json()["data"]) == 22
