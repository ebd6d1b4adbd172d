"""Aggregations: of the prints in the range and no others, exact, in every form."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pyarrow.parquet as pq
import pytest

from k2_api.bar_shapes import AggregationAnswer
from k2_core.contracts import TRADES
from k2_core.windows import iso
from k2_tests.api import oracle
from k2_tests.api.homes import Row, dated, lake_of, serving, settings_of, store
from k2_tests.ticks import NOON, trade

INTERVALS = {"1min": "1m", "5min": "5m", "15min": "15m", "30min": "30m", "1hour": "1h", "1day": "1d"}
RANGES = [
    (NOON - timedelta(days=1), NOON + timedelta(days=5)),
    (NOON.replace(hour=0), NOON + timedelta(minutes=1)),
    (NOON - timedelta(minutes=20, seconds=-30), NOON + timedelta(days=1, minutes=1, microseconds=1)),
]


def asked(client: httpx.Client, **question: Any) -> httpx.Response:
    sent = {"symbols": ["DUAL"], "metrics": ["ohlcv"], "interval": "1hour", **question}
    return client.post("/v1/aggregations", json={k: iso(v) if isinstance(v, datetime) else v for k, v in sent.items()})


@pytest.mark.parametrize("span", RANGES)
@pytest.mark.parametrize("interval", INTERVALS)
def test_buckets_are_of_the_prints_in_the_range(
    client: httpx.Client, rows: list[Row], interval: str, span: tuple[datetime, datetime]
) -> None:
    metrics = ["ohlcv", "vwap", "trade_count", "volume_profile"]
    answer = asked(
        client, symbols=["DUAL", "BTCUSDT"], metrics=metrics, interval=interval, start_time=span[0], end_time=span[1]
    ).json()
    assert AggregationAnswer.model_validate(answer)
    for symbol in ("DUAL", "BTCUSDT"):
        inside = oracle.asked(rows, symbol=symbol, start=span[0], end=span[1], eligible=True)
        # what is no longer in the range must not show, so the oracle has no other rows
        expected = oracle.bars([{**row, "revision": 0} for row in inside], INTERVALS[interval])
        shown = [
            oracle.read_bar({**b, "window_start": b["interval_start"], "window_end": b["interval_end"]})
            for b in answer["data"]
            if b["symbol"] == symbol
        ]
        assert sorted(shown, key=lambda b: (b["window_start"], b["exchange"])) == expected
        assert profiles(answer["data"], symbol) == levels(inside, INTERVALS[interval])
    assert answer["request_summary"] == {
        "symbols": ["DUAL", "BTCUSDT"],
        "metrics": metrics,
        "interval": interval,
        "start_time": iso(span[0]),
        "end_time": iso(span[1]),
        "bucket_count": len(answer["data"]),
    }


def profiles(buckets: list[dict[str, Any]], symbol: str) -> dict[Any, Any]:
    return {
        (b["exchange"], b["interval_start"]): [
            (Decimal(level["price"]), Decimal(level["volume"]), level["trade_count"]) for level in b["volume_profile"]
        ]
        for b in buckets
        if b["symbol"] == symbol
    }


def levels(rows: list[Row], timeframe: str) -> dict[Any, Any]:
    volumes: dict[Any, Counter[Decimal]] = defaultdict(Counter)
    counts: dict[Any, Counter[Decimal]] = defaultdict(Counter)
    for row in rows:
        key = (row["exchange"], iso(oracle.window(row, timeframe)[0]))
        volumes[key][row["price"]] += row["quantity"]
        counts[key][row["price"]] += 1
    return {key: [(p, volumes[key][p], counts[key][p]) for p in sorted(volumes[key])] for key in volumes}


def test_only_what_was_asked_for_is_told(client: httpx.Client) -> None:
    span = {"start_time": RANGES[0][0], "end_time": RANGES[0][1]}
    (vwap, *_), (twap, *_) = (asked(client, metrics=[m], **span).json()["data"] for m in ("vwap", "twap"))
    assert [name for name, value in vwap.items() if value is not None][4:] == ["vwap"]
    assert [name for name, value in twap.items() if value is not None][4:] == ["twap"]
    bars = client.get("/v1/bars/1h", params={"symbol": "DUAL", **{k: iso(v) for k, v in span.items()}}).json()["data"]
    told = {
        (b["exchange"], b["interval_start"]): b["twap"] for b in asked(client, metrics=["twap"], **span).json()["data"]
    }
    assert told == {(bar["exchange"], bar["window_start"]): bar["twap"] for bar in bars}


def test_the_average_over_time_of_a_cut_interval_ends_with_the_range(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    prices = [(-30, 7), (0, 10), (60, 20), (130, 90)]
    rows = [dated(trade(n, timestamp=NOON + timedelta(seconds=s), price=Decimal(p))) for n, (s, p) in enumerate(prices)]
    store(lake_of(settings), TRADES, rows)
    with serving(settings) as client:
        span = {
            "symbols": ["BTCUSDT"],
            "start_time": NOON - timedelta(seconds=10),
            "end_time": NOON + timedelta(seconds=120),
        }
        found = {
            interval: asked(client, metrics=["twap"], interval=interval, **span).json()["data"]
            for interval in ("1hour", "1day")
        }
    assert [b["twap"] for b in found["1hour"]] == ["15.00000000"]  # the window before noon has no print in the range
    assert [b["twap"] for b in found["1day"]] == ["15.00000000"]


def test_a_file_has_the_same_buckets(client: httpx.Client) -> None:
    question = {"metrics": ["ohlcv", "vwap"], "start_time": RANGES[0][0], "end_time": RANGES[0][1]}
    data = asked(client, **question).json()["data"]
    as_csv, as_parquet = (asked(client, **question, format=form) for form in ("csv", "parquet"))
    assert as_csv.headers["Content-Disposition"] == 'attachment; filename="aggregations.csv"'
    assert {r.headers["X-Record-Count"] for r in (as_csv, as_parquet)} == {str(len(data))}
    lines = list(csv.DictReader(io.StringIO(as_csv.text)))
    assert [{k: v or None for k, v in line.items()} for line in lines] == [
        {k: None if v is None else str(v) for k, v in bucket.items()} for bucket in data
    ]
    table = pq.read_table(io.BytesIO(as_parquet.content))
    assert [f"{v:f}" for v in table["vwap"].to_pylist()] == [b["vwap"] for b in data]
    assert table["interval_start"].to_pylist() == [datetime.fromisoformat(b["interval_start"]) for b in data]


@pytest.mark.parametrize(
    "wrong",
    [
        {"symbols": []},
        {"symbols": ["A"] * 51},
        {"symbols": "DUAL"},
        {"metrics": []},
        {"metrics": ["vwap", "median"]},
        {"interval": "1m"},
        {"start_time": NOON + timedelta(days=9)},
        {"format": "xml"},
        {"start_time": None},
    ],
)
def test_a_question_out_of_bounds_is_refused(client: httpx.Client, wrong: dict[str, Any]) -> None:
    question = {"start_time": NOON, "end_time": NOON + timedelta(days=1), **wrong}
    answer = asked(client, **question)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "VALIDATION_ERROR")


def test_symbols_with_nothing_have_no_bucket(client: httpx.Client) -> None:
    answer = asked(client, symbols=["NOSUCH", "'; DROP"], start_time=NOON, end_time=NOON + timedelta(days=1)).json()
    assert (answer["success"], answer["data"], answer["request_summary"]["bucket_count"]) == (True, [], 0)
