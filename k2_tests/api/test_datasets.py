"""Datasets, symbols, statistics and estimates, beside what pyiceberg finds in the same tables."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2 as httpx
import pytest

from k2_api.dataset_models import (
    DatasetsAnswer,
    EstimateAnswer,
    OverviewAnswer,
    RangeAnswer,
    ReadyAnswer,
    SchemaAnswer,
    StatsAnswer,
    SymbolAnswer,
)
from k2_api.pinning import HEAD_SECONDS
from k2_core.contracts import INSTRUMENTS, QUOTES, TRADES
from k2_core.errors import Unreachable
from k2_resources.settings import Settings
from k2_tests.api import oracle
from k2_tests.api.homes import Row, dated, lake_of, serving, settings_of, store
from k2_tests.api.ledger_homes import plain
from k2_tests.api.test_protocol import HOSTILE, check_problem
from k2_tests.ticks import NOON, trade

MODELS: dict[str, Any] = {
    "/v1/datasets": DatasetsAnswer,
    "/v1/datasets/asx-trades/schema": SchemaAnswer,
    "/v1/datasets/asx-trades/range": RangeAnswer,
    "/v1/stats": StatsAnswer,
    "/v1/overview": OverviewAnswer,
    "/v1/symbols/DUAL": SymbolAnswer,
}


def data(client: httpx.Client, path: str, **params: Any) -> Any:
    response = client.get(path, params=params)
    assert response.status_code == 200, response.text
    return response.json()["data"]


@pytest.mark.parametrize("path", MODELS)
def test_every_answer_fits_its_description_and_needs_a_key(client: httpx.Client, path: str) -> None:
    assert httpx.get(client.base_url.join(path), trust_env=False).status_code == 401
    response = client.get(path)
    MODELS[path].model_validate_json(response.content, strict=True)
    assert response.headers["K2-Version"]


def test_datasets_are_the_feeds_of_ticks(client: httpx.Client) -> None:
    found = {d["dataset"]: d for d in data(client, "/v1/datasets")}
    assert list(found) == ["asx-quotes", "asx-trades", "binance-quotes", "binance-trades"]
    assert (found["asx-trades"]["exchange"], found["asx-trades"]["timezone"]) == ("ASX", "Australia/Sydney")
    assert found["binance-trades"]["sequence_rule"] == "contiguous"


def test_a_schema_is_the_contract(client: httpx.Client) -> None:
    found = data(client, "/v1/datasets/binance-quotes/schema")
    assert [c["name"] for c in found["columns"]] == [c.name for c in QUOTES.columns]
    assert [c["type"] for c in found["columns"]] == [str(c.type) for c in QUOTES.columns]
    assert (found["table"], found["key"]) == (QUOTES.name, list(QUOTES.key))


@pytest.mark.parametrize("dataset", ["nothing", "coverage", "asx-instruments", "%00", "x" * 300])
@pytest.mark.parametrize("what", ["schema", "range", "condition"])
def test_an_unknown_dataset_is_not_found(client: httpx.Client, dataset: str, what: str) -> None:
    response = client.get(f"/v1/datasets/{dataset}/{what}")
    assert response.status_code == (422 if len(dataset) > 256 else 404)
    check_problem(response)


@pytest.mark.parametrize(("dataset", "exchange"), [("asx-trades", "ASX"), ("binance-trades", "BINANCE")])
def test_a_range_is_that_of_the_newest_revisions(
    client: httpx.Client, rows: list[Row], dataset: str, exchange: str
) -> None:
    kept = oracle.asked(rows, exchange=exchange)
    found = data(client, f"/v1/datasets/{dataset}/range")
    assert found == plain(
        {
            "dataset": dataset,
            "first_timestamp": kept[0]["timestamp"],
            "last_timestamp": kept[-1]["timestamp"],
            "first_date": kept[0]["exchange_date"],
            "last_date": kept[-1]["exchange_date"],
        }
    )


def test_the_range_of_a_dataset_without_rows_is_open(client: httpx.Client) -> None:
    assert set(data(client, "/v1/datasets/asx-quotes/range").values()) == {"asx-quotes", None}


def test_stats_count_each_message_once(
    client: httpx.Client, filled: Settings, rows: list[Row], quote_rows: list[Row]
) -> None:
    found = data(client, "/v1/stats")
    assert (found["trades_count"], found["quotes_count"]) == tuple(len(oracle.newest(r)) for r in (rows, quote_rows))
    assert (found["connection_active"], found["error"]) == (True, None)
    assert found["warehouse_path"] == filled.warehouse_path()
    counted = client.get("/v1/trades", params={"count": "true", "limit": 1}).json()["pagination"]["total"]
    assert counted == found["trades_count"]


def test_stats_of_a_store_that_does_not_answer_say_why(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    with serving(settings) as client:
        (tmp_path / "catalog.db").write_bytes(b"no database any more" * 1000)
        time.sleep(2 * HEAD_SECONDS)
        response = client.get("/v1/stats")
        found = response.json()["data"]
        ready = client.get("/ready")
    assert (found["connection_active"], found["trades_count"], found["error"]) == (True, None, Unreachable.code)
    assert response.headers["Cache-Control"] == "no-store"
    assert ready.status_code == 503
    assert {d["name"]: d["status"] for d in ready.json()["dependencies"]}["catalog"] == "unhealthy"


def test_a_server_is_ready_once_its_lake_answers(client: httpx.Client) -> None:
    response = httpx.get(client.base_url.join("/ready"), trust_env=False)
    assert (response.status_code, response.json()["status"]) == (200, "ready")
    ReadyAnswer.model_validate_json(response.content, strict=True)


def test_a_symbol_tells_where_it_was_seen(client: httpx.Client, rows: list[Row]) -> None:
    found = data(client, "/v1/symbols/DUAL")
    for seen in found["seen"]:
        kept = oracle.asked(rows, symbol="DUAL", exchange=seen["exchange"])
        assert seen == plain(
            {
                "exchange": seen["exchange"],
                "table": TRADES.name,
                "rows": len(kept),
                "first_timestamp": kept[0]["timestamp"],
                "last_timestamp": kept[-1]["timestamp"],
                "first_date": min(r["exchange_date"] for r in kept),
                "last_date": max(r["exchange_date"] for r in kept),
            }
        )
    assert [seen["exchange"] for seen in found["seen"]] == ["ASX", "BINANCE"]
    assert [s["table"] for s in data(client, "/v1/symbols/ONLYQUOTED")["seen"]] == [QUOTES.name]
    for unknown in ("NOSUCH", "dual", *(value for value in HOSTILE if value.strip(" /.\r\n\0"))):
        response = client.get(f"/v1/symbols/{quote(unknown, safe='')}")
        assert response.status_code in (404, 422), unknown
        check_problem(response)


def test_the_overview_has_the_last_eligible_price_of_every_symbol(client: httpx.Client, rows: list[Row]) -> None:
    found = data(client, "/v1/overview")
    assert [(s["exchange"], s["symbol"]) for s in found] == [
        ("ASX", "DUAL"),
        ("BINANCE", "BTCUSDT"),
        ("BINANCE", "DUAL"),
    ]
    for shown in found:
        last = oracle.asked(rows, symbol=shown["symbol"], exchange=shown["exchange"], eligible=True)[-1]
        assert shown["last_price"] == f"{last['price']:.8f}"
        assert (shown["last_timestamp"], shown["last_date"]) == tuple(plain([last["timestamp"], last["exchange_date"]]))
        assert (shown["verdict"], shown["open_gaps"]) == (None, 0)


@pytest.mark.parametrize("asked", [{}, {"symbols": ["DUAL"]}, {"exchanges": ["ASX"]}, {"data_type": "quotes"}])
def test_an_estimate_is_never_below_what_a_question_has(
    client: httpx.Client, rows: list[Row], quote_rows: list[Row], asked: dict[str, Any]
) -> None:
    response = client.post("/v1/estimate", json=asked)
    assert response.status_code == 200, response.text
    EstimateAnswer.model_validate_json(response.content, strict=True)
    found = response.json()["data"]
    stored = quote_rows if asked.get("data_type") == "quotes" else rows
    question = {"symbol": asked.get("symbols", [None])[0], "exchange": asked.get("exchanges", [None])[0]}
    assert found["rows_max"] >= len(oracle.asked(stored, **question))
    assert found["files"] > 0 and found["bytes"] > 0


def test_an_estimate_of_nothing_is_nothing_and_a_wrong_one_is_refused(client: httpx.Client) -> None:
    nothing = client.post("/v1/estimate", json={"end_time": "2000-01-01"}).json()["data"]
    assert nothing == {"rows_max": 0, "bytes": 0, "files": 0}
    for wrong in (
        {"data_type": "bars"},
        {"symbols": ["x"] * 101},
        {"start_time": "2024-01-02", "end_time": "2024-01-01"},
        {"as_of": "2024-01-01", "version": "0" * 64},
        [],
    ):
        assert client.post("/v1/estimate", json=wrong).status_code == 422, wrong
    assert client.post("/v1/estimate", json={"version": "0" * 64}).status_code == 404


def instrument(number: int, symbol: str, valid_from: date, **changes: Any) -> Row:
    return {
        "message_id": f"ASX:{symbol}:instrument:{valid_from}:{number}",
        "revision": 0,
        "instrument_id": f"ASX-{number}",
        "symbol": symbol,
        "exchange": "ASX",
        "asset_class": "equities",
        "currency": "AUD",
        "valid_from": valid_from,
        "valid_to": None,
        "timestamp": NOON,
        "name": f"{symbol} as of {valid_from}",
        "ingestion_timestamp": NOON,
        "vendor_data": {"sector": "mining"},
        "quality_flags": 0,
        "exchange_date": NOON.date(),
        **changes,
    }


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """OLD was renamed NEW in 2020; its name was corrected once."""
    settings = settings_of(tmp_path_factory.mktemp("named"))
    lake = lake_of(settings)
    old, new = instrument(7, "OLD", date(2010, 1, 1)), instrument(7, "NEW", date(2020, 1, 1))
    store(
        lake,
        INSTRUMENTS,
        [old, new, {**new, "revision": 1, "name": "New Ltd"}, instrument(8, "OTHER", date(2010, 1, 1))],
    )
    store(lake, TRADES, [dated(trade(1, symbol="OTHER", exchange="ASX"))])
    with serving(settings) as client:
        yield client


@pytest.mark.parametrize(
    ("symbol", "day", "names"),
    [
        ("OLD", "2019-12-31", ["OLD as of 2010-01-01"]),
        ("OLD", "2020-01-01", None),
        ("NEW", "2020-01-01", ["New Ltd"]),
        ("NEW", None, ["New Ltd"]),
        ("NEW", "2015-01-01", None),
        ("OTHER", None, ["OTHER as of 2010-01-01"]),
        ("OTHER", "2009-01-01", []),
    ],
)
def test_an_instrument_is_described_as_on_the_date(
    named: httpx.Client, symbol: str, day: str | None, names: list[str] | None
) -> None:
    response = named.get(f"/v1/symbols/{symbol}", params={"date": day} if day else {})
    if names is None:
        assert response.status_code == 404
        return
    SymbolAnswer.model_validate_json(response.content, strict=True)
    found = response.json()["data"]["instruments"]
    assert [i["name"] for i in found] == names
    assert all(i["vendor_data"] == {"sector": "mining"} for i in found)
