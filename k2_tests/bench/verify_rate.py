"""How long a proof takes: `python -m k2_tests.bench.verify_rate [--batches 1000] [--rows 10000] [--json FILE]`.

Generated batches straight through the protocol into a lake, then `k2 verify` of it, from metadata and digests, and
`--deep`, which reads the rows.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from k2_cli.verify import proof_of
from k2_core.contracts import TRADES
from k2_core.protocol.collect import collect
from k2_core.protocol.commit import commit
from k2_core.protocol.ports import Change, Head
from k2_core.protocol.retain import expire
from k2_core.receipts import DateRows, RangeCount, Receipt
from k2_resources.duck import Duck
from k2_resources.failpoints import reach
from k2_resources.lake.catalog import Lake
from k2_resources.lake.ledger import IcebergLedger
from k2_tests.bench.command import bench
from k2_tests.lakes import DAY, FEED, TOPIC, new_lake, register
from k2_tests.ticks import table_of, trade

SYMBOLS = 20


def run(batches: int = 1_000, rows: int = 10_000) -> dict[str, Any]:
    """Build a lake of so many batches and prove it, both ways."""
    with tempfile.TemporaryDirectory() as scratch:
        lake = new_lake(Path(scratch, "k2"))
        build(lake, batches, rows)
        stored = sum(f.stat().st_size for f in Path(lake.load(TRADES).location(), "data").rglob("*.parquet"))
        duck = Duck(threads=1, memory="2GB", seconds_max=3600)
        try:
            proofs = {
                "verify": _timed(lambda: proof_of(lake, duck, TRADES)),
                "verify --deep": _timed(lambda: proof_of(lake, duck, TRADES, deep=True)),
            }
        finally:
            duck.close()
    return {"batches": batches, "rows": batches * rows, "data_bytes": stored, "proofs": proofs}


def build(lake: Lake, batches: int, rows: int) -> None:
    """Commit, collect and expire as an ingest run does."""
    register(lake)
    ledger, at, sample = IcebergLedger(lake), lake.head(TRADES), _sample(rows)
    for number in range(batches):
        at = commit(ledger, at, _change(at, sample, number)).head
        collect(ledger, TRADES, reach, at)
        if expire(ledger, at):
            at = ledger.head(TRADES)


def table(result: dict[str, Any]) -> str:
    size = f"{result['batches']:,} batches, {result['rows']:,} rows, {result['data_bytes'] / 1e6:,.0f} MB"
    lines = [f"| {size} | wall s | CPU s | findings |", "|---|---|---|---|"]
    for name, p in result["proofs"].items():
        lines.append(f"| {name} | {p['wall_seconds']:.1f} | {p['cpu_seconds']:.1f} | {p['findings']} |")
    return "\n".join(lines)


def _timed(prove: Callable[[], Any]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    proof = prove()
    spent = {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    return {**spent, "findings": len(proof.findings)}


def _sample(rows: int) -> pa.Table:
    """Rows of one batch; of the next, only ids and offsets differ."""
    sent = table_of(FEED, [trade(n) for n in range(rows)])
    columns = {
        **{name: sent[name] for name in sent.column_names},
        "kafka_offset": np.arange(rows),
        "revision": np.zeros(rows, np.int32),
        "exchange_date": [DAY] * rows,
    }
    schema = TRADES.arrow_schema()
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _change(at: Head, sample: pa.Table, number: int) -> Change:
    rows, start = len(sample), at.offsets.positions[TOPIC, 0].next
    ids = np.arange(start, start + rows)
    rng = np.random.default_rng(number)
    columns = {
        "message_id": [f"BINANCE:SYM{n % SYMBOLS}USDT:trade:{n}" for n in ids],
        "trade_id": [f"BINANCE-{n}" for n in ids],
        "symbol": np.sort([f"SYM{n % SYMBOLS}USDT" for n in range(rows)]),
        "source_sequence": ids,
        "kafka_offset": rng.permutation(ids),
    }
    for name, values in columns.items():
        at_column = sample.schema.get_field_index(name)
        field = sample.schema.field(name)
        sample = sample.set_column(at_column, field, pa.array(values, field.type))
    counted = RangeCount(TOPIC, 0, 0, start, start + rows, rows, rows)
    dates = (DateRows(DAY, FEED.name, rows),)
    return Change(Receipt(TRADES.name, "batch", f"run-{number}", "0", "1", (counted,), (1,), dates=dates), rows=sample)


if __name__ == "__main__":
    bench(__doc__, run, table, batches=1_000, rows=10_000)
