"""`iceberg_scan` of DuckDB 1.5, for the bench of point reads: run by a Python of its own, which has no K2.

Arguments: a metadata file, a limit, columns. Each line of stdin is a question: symbol, start, end; each line of stdout
the number of its rows.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import duckdb


def main() -> None:
    metadata, limit, columns = sys.argv[1:]
    database = duckdb.connect(config={"threads": 1})
    packages = [Path(place) for place in sys.path if place.endswith("-packages")]
    for name in ("avro", "iceberg"):  # the first is what the second reads manifests with
        [extension] = [f for p in packages for f in p.glob(f"duckdb_extension_{name}/**/{name}.duckdb_extension")]
        database.execute(f"LOAD '{extension}'")
    database.execute("SET TimeZone = 'UTC'")
    page = f"""
        SELECT {columns} FROM iceberg_scan(?)
        WHERE symbol = ? AND timestamp >= ?::TIMESTAMPTZ AND timestamp < ?::TIMESTAMPTZ
        ORDER BY timestamp DESC, source_sequence DESC, message_id DESC LIMIT {int(limit)}
    """
    for line in sys.stdin:
        rows: Any = database.execute(page, [metadata, *json.loads(line)]).to_arrow_table()
        print(len(rows), flush=True)


if __name__ == "__main__":
    main()
