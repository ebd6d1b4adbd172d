"""Rows in every format: the same ones, exact, and noticed when cut off."""

from __future__ import annotations

import hashlib
import time
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2_api.app import create_app
from k2_api.formats import FORMATS, Ending, encoder, negotiated
from k2_core.contracts import QUOTES, TRADES
from k2_tests.api import oracle
from k2_tests.api.bodies import NAMES, CutOffError, read_body
from k2_tests.api.homes import Row, dated, lake_of, serving, settings_of, store
from k2_tests.ticks import trade

SHOWN = [c.name for c in TRADES.columns if c.origin != "lineage"]
FIXED = {"X-Correlation-ID": "the-same"}


def shown(rows: list[Row], names: list[str] = SHOWN) -> list[Row]:
    return [{name: row[name] for name in names} for row in rows]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("limit", [1, 37, 10_000])
def test_a_page_holds_the_same_rows_in_every_format(
    client: httpx.Client, rows: list[Row], name: str, limit: int
) -> None:
    response = client.get("/v1/trades", params={"format": name, "limit": limit})
    found = read_body(name, response.content, response.headers)
    assert found == shown(oracle.newest(rows)[::-1][:limit])
    assert response.headers["K2-Row-Count"] == str(len(found))
    assert response.headers["Content-Type"].startswith(FORMATS[name].media_type)  # type: ignore[index]


@pytest.mark.parametrize("name", [n for n in NAMES if n != "json"])
def test_without_a_limit_every_row_comes_in_any_format_but_json(
    client: httpx.Client, rows: list[Row], name: str
) -> None:
    sent = {"format": name, "order": "asc", "symbol": "DUAL", "fields": "symbol,price,timestamp,message_id"}
    response = client.get("/v1/trades", params=sent)
    names = ["message_id", "symbol", "timestamp", "price"]
    assert read_body(name, response.content, response.headers) == shown(oracle.asked(rows, symbol="DUAL"), names)
    assert "Content-Length" not in response.headers, "it is streamed"


@pytest.mark.parametrize("name", NAMES)
def test_pages_of_every_format_are_a_partition(client: httpx.Client, rows: list[Row], name: str) -> None:
    sent: dict[str, Any] = {"format": name, "limit": 333, "fields": "message_id,revision"}
    found, link = [], None
    while sent:
        response = client.get("/v1/trades", params=sent)
        found += read_body(name, response.content, response.headers)
        cursor = response.headers.get("K2-Next-Cursor")
        link = response.headers.get("Link")
        sent = {**sent, "cursor": cursor} if cursor else {}
        if link:
            followed = client.get(link.partition(">")[0].removeprefix("<"))
            assert followed.content.startswith(client.get("/v1/trades", params=sent, headers=FIXED).content[:200])
    assert found == shown(oracle.newest(rows)[::-1], ["message_id", "revision"])


@pytest.mark.parametrize("name", NAMES)
def test_quotes_keep_their_nulls_in_every_format(client: httpx.Client, quote_rows: list[Row], name: str) -> None:
    response = client.get("/v1/quotes", params={"format": name, "limit": 1000})
    names = [c.name for c in QUOTES.columns if c.origin != "lineage"]
    assert read_body(name, response.content, response.headers) == shown(oracle.newest(quote_rows)[::-1], names)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("limit", ["limit=9", ""])
def test_a_body_cut_off_anywhere_is_noticed(client: httpx.Client, name: str, limit: str) -> None:
    response = client.get(f"/v1/trades?format={name}&fields=symbol,price,timestamp&symbol=BTCUSDT&{limit}")
    body = response.content
    assert read_body(name, body, response.headers)
    places = sorted({*range(1, min(len(body), 1200), 7), *range(max(1, len(body) - 400), len(body))})
    for place in places:
        if name == "json" and body[place:].strip() == b"":
            continue
        with pytest.raises(CutOffError):
            read_body(name, body[:place], response.headers)


def test_a_body_is_the_same_however_its_rows_are_stored(tmp_path: Path) -> None:
    rows = oracle.random_trades(seed=11, rows=60)
    bodies: dict[str, set[tuple[str, bytes]]] = {name: set() for name in NAMES}
    for commits in (1, 4):
        config = settings_of(tmp_path / f"in {commits}")
        lake, width = lake_of(config), -(-len(rows) // commits)
        for start in range(0, len(rows), width):
            store(lake, TRADES, rows[start : start + width])
        with serving(config) as client:
            for name, found in bodies.items():
                whole = client.get("/v1/trades", params={"format": name, "count": "true"}, headers=FIXED)
                found.add((whole.headers["K2-Version"], without_time(whole.content)))
    assert {name: len(found) for name, found in bodies.items()} == dict.fromkeys(NAMES, 1)


def without_time(body: bytes) -> bytes:
    """JSON says when its state was committed."""
    return body.partition(b',"meta":')[0] if body.startswith(b'{"success"') else body


@pytest.mark.parametrize(
    ("accept", "name"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "json"),
        ("application/x-ndjson", "ndjson"),
        ("text/csv;q=0.5, application/vnd.apache.parquet", "parquet"),
        ("application/vnd.apache.arrow.stream, */*;q=0.1", "arrow"),
        ("TEXT/CSV", "csv"),
        ("text/csv;q=0, */*", "json"),
        ("text/csv;q=x", "json"),
        ("image/png", "json"),
        ("\x00, ;;;q=1,,", "json"),
    ],
)
def test_accept_chooses_the_format(accept: str, name: str) -> None:
    assert negotiated(accept).name == name
    assert negotiated(accept, "csv").name == "csv", "what is asked for by name comes first"


def test_the_answer_is_in_the_format_that_accept_asks_for(client: httpx.Client) -> None:
    response = client.get("/v1/trades?limit=3", headers={"Accept": "application/x-ndjson"})
    assert len(read_body("ndjson", response.content, response.headers)) == 3
    assert response.headers["Vary"] == "Accept"
    assert response.headers["ETag"] != client.get("/v1/trades?limit=3").headers["ETag"]


NASTY = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(['"', ",", "\r\n", "", " a "])
ROWS = st.lists(
    st.tuples(
        NASTY,
        st.none() | st.decimals(0, Decimal("9999999999.99999999"), places=8),
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.lists(NASTY, max_size=2),
        st.none() | st.dictionaries(NASTY, NASTY, max_size=2),
    ),
    max_size=40,
)
SCHEMA = pa.schema(
    [
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("bid_price", pa.decimal128(18, 8)),
        pa.field("source_sequence", pa.int64()),
        pa.field("trade_conditions", pa.list_(pa.string()), nullable=False),
        pa.field("vendor_data", pa.map_(pa.string(), pa.string())),
    ]
)


@settings(deadline=None, max_examples=60)
@given(ROWS, st.integers(1, 50), st.sampled_from(["arrow", "parquet"]))
def test_columns_are_written_exactly_and_the_same_however_they_come(rows: list[Any], size: int, name: str) -> None:
    made = [dict(zip(SCHEMA.names, row, strict=True)) for row in rows]
    table = pa.Table.from_pylist(made, schema=SCHEMA)
    body = written(name, table, size)
    assert body == written(name, table, 1_000)
    facts = {"K2-Row-Count": str(len(rows)), "K2-Version": "v"}
    assert read_body(name, body, facts) == made


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.none() | NASTY, NASTY), max_size=30), st.integers(1, 40))
def test_csv_keeps_every_text_and_tells_a_null_from_an_empty_one(rows: list[Any], size: int) -> None:
    table = pa.Table.from_pylist(
        [{"a": a, "b": b} for a, b in rows], schema=pa.schema([("a", pa.string()), ("b", pa.string())])
    )
    body = written("csv", table, size).decode()
    assert body == "a,b\n" + "".join(f"{field(a)},{field(b)}\n" for a, b in rows)


def field(text: str | None) -> str:
    if text is None:
        return ""
    must = text == "" or any(c in text for c in '",\r\n')
    return '"' + text.replace('"', '""') + '"' if must else text


def written(name: str, table: pa.Table, size: int) -> bytes:
    made = encoder(FORMATS[name], table.schema)  # type: ignore[index]
    pieces = [made.begin(), *(made.rows(batch) for batch in table.to_batches(max_chunksize=size)), made.rest()]
    sha256 = hashlib.sha256(b"".join(pieces)).hexdigest()
    return b"".join([*pieces, made.end(Ending(table.num_rows, sha256, "v", None))])


def test_a_reader_that_stops_halfway_leaves_nothing_open(tmp_path: Path) -> None:
    config = settings_of(tmp_path)
    first = dated(trade(0, vendor_data={"padding": "x" * 20_000}))
    store(lake_of(config), TRADES, [{**first, "message_id": f"BINANCE:BTCUSDT:trade:{n}"} for n in range(2_000)])
    app = create_app(config)
    with serving(config, app) as client:
        places, duck = app.state.backend.places, app.state.backend.reads.duck
        with client.stream("GET", "/v1/trades?format=ndjson") as response:
            reading = response.iter_bytes()
            taken = next(reading)
            time.sleep(0.3)
            assert taken.startswith(b'{"message_id"')
            assert places._taken == 1, "the server waits for its reader: the body is larger than what is under way"
        deadline = time.monotonic() + 20
        while places._taken or duck._streams or duck._running:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert client.get("/v1/trades?limit=1").status_code == 200


def test_instants_and_numbers_read_the_same_in_text(client: httpx.Client) -> None:
    lines = client.get("/v1/trades?format=csv&limit=1&fields=timestamp,price,quality_flags").text.splitlines()
    assert lines[0] == "timestamp,price,quality_flags"
    instant, price, flags = lines[1].split(",")
    assert datetime.fromisoformat(instant).tzinfo is not None and len(instant) == len("2024-08-08T12:00:00.000000Z")
    assert len(price.partition(".")[2]) == 8 and flags.isdigit()
