"""How such an API is usually written, over the same lake and the same query engine: `python -m k2_tests.bench.rivals HOME`.

`/v1/trades`: rows become Python objects, pydantic validates them, FastAPI writes them. `/per-row`: every row of the
table as a line of JSON, one after the other, by the fastest encoder of Python objects that K2 has: pydantic's own.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import duckdb
import uvicorn
from fastapi import FastAPI, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from pydantic_core import to_json

from k2_core.contracts import TRADES
from k2_resources.duck import parquet_paths
from k2_resources.lake.catalog import Lake
from k2_resources.settings import Settings

_ROWS_AT_ONCE = 10_000


class Trade(BaseModel):
    """A trade as pydantic models have it."""

    message_id: str
    revision: int
    trade_id: str
    symbol: str
    exchange: str
    asset_class: str
    currency: str
    timestamp: datetime
    price: Decimal
    quantity: Decimal
    side: str
    trade_conditions: list[str]
    source_sequence: int | None
    platform_sequence: int | None
    ingestion_timestamp: datetime
    vendor_data: dict[str, str] | None
    quality_flags: int


class Answer(BaseModel):
    """A page of trades."""

    success: bool
    data: list[Trade]


COLUMNS = ", ".join(Trade.model_fields)
PAGE = f"""
SELECT {COLUMNS} FROM read_parquet($files)
WHERE symbol = $symbol AND timestamp >= $start AND timestamp < $end
ORDER BY timestamp DESC, source_sequence DESC, platform_sequence DESC, message_id DESC
LIMIT $limit
"""
WHOLE = f"SELECT {COLUMNS} FROM read_parquet($files) ORDER BY timestamp, source_sequence, platform_sequence, message_id"


def rivals(home: Path) -> FastAPI:
    """The application over one home."""
    settings = Settings(home=home)
    lake = Lake(settings.catalog(), settings.warehouse_path())
    state = lake.state(TRADES)
    assert state is not None
    assert state.snapshot_id is not None
    files = parquet_paths(f.path for f in lake.files(TRADES, state.snapshot_id))
    database = duckdb.connect(config={"threads": 1})
    database.execute("SET TimeZone = 'UTC'")
    app = FastAPI()

    @app.get("/health")
    def health() -> str:
        return "healthy"

    @app.get("/v1/trades", response_model=Answer)
    def trades(
        symbol: str, start_time: datetime, end_time: datetime, limit: Annotated[int, Query(le=10_000)] = 100
    ) -> dict[str, Any]:
        asked = {"files": files, "symbol": symbol, "start": start_time, "end": end_time, "limit": limit}
        return {"success": True, "data": _rows(database.cursor().execute(PAGE, asked))}

    @app.get("/per-row")
    def per_row() -> StreamingResponse:
        found = database.cursor().execute(WHOLE, {"files": files})
        return StreamingResponse(_lines(found), media_type="application/x-ndjson")

    return app


def _rows(found: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    return [dict(zip(Trade.model_fields, row, strict=True)) for row in found.fetchall()]


def _lines(found: duckdb.DuckDBPyConnection) -> Iterator[bytes]:
    while rows := found.fetchmany(_ROWS_AT_ONCE):
        for row in rows:
            yield to_json(dict(zip(Trade.model_fields, row, strict=True))) + b"\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("--port", type=int, required=True)
    asked = parser.parse_args()
    uvicorn.run(rivals(asked.home), port=asked.port, log_level="warning")


if __name__ == "__main__":
    main()
