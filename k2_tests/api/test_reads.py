"""The engine itself, asked without HTTP: what it selects, how it plans, what it refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    ManifestWriterV2,
)
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table.snapshots import Operation
from pyiceberg.typedef import Record
from pyiceberg.types import LongType

from k2_api.questions import Ticks
from k2_api.reads import Pinned, Reads
from k2_core.contracts import QUOTES, TRADES
from k2_core.errors import Damaged
from k2_core.quality import Flag
from k2_core.windows import EPOCH, to_us
from k2_resources.duck import Duck
from k2_resources.lake.catalog import Lake
from k2_resources.lake.manifests import Append
from k2_resources.settings import Settings
from k2_tests.api import oracle
from k2_tests.api.homes import Row, dated, lake_of, settings_of, store
from k2_tests.ticks import NOON, trade

DOUBTED = Flag.VENDOR_EXCLUDED | Flag.RECEIVE_BEFORE_EVENT | Flag.CROSSED | Flag.OUT_OF_SESSION
HIDDEN = {"raw": Flag(0), "clean": DOUBTED, "eligible": Flag.VENDOR_EXCLUDED}


@pytest.fixture(scope="module")
def duck() -> Iterator[Duck]:
    duck = Duck()
    yield duck
    duck.close()


def read(reads: Reads, pinned: Pinned, ticks: Ticks, shape: Any = "json") -> pa.Table:
    """All rows of a question, its parts one after the other."""
    return pa.concat_tables([reads.duck.fetch(p.statement, p.values) for p in reads.parts(pinned, ticks, shape)])


def keys(rows: pa.Table) -> list[tuple[str, int]]:
    return list(zip(rows["message_id"].to_pylist(), rows["revision"].to_pylist(), strict=True))


def some(values: list[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), max_size=2, unique=True).map(tuple)


INSTANTS = st.integers(-1, 60 * 24 * 4 * 2).map(lambda half: to_us(NOON.replace(hour=0)) + half * 30_000_000)
BOUNDS = st.none() | st.decimals("-1", "10000000000", places=8) | st.sampled_from([Decimal("1e30"), Decimal("1e-9")])
QUESTIONS = st.builds(
    Ticks,
    symbols=some(["DUAL", "BTCUSDT", "NOSUCH", "'; --"]),
    exchanges=some(["ASX", "BINANCE", ""]),
    start_us=INSTANTS,
    end_us=INSTANTS,
    view=st.sampled_from(["raw", "clean", "eligible"]),
    revisions=st.sampled_from(["latest", "first", "all"]),
    sides=some(["BUY", "SELL", "UNKNOWN"]),
    conditions=some(["5", 'q"\\', "9"]),
    price_min=BOUNDS,
    quantity_max=BOUNDS,
    descending=st.booleans(),
    limit=st.integers(20, 200),
)


def expected(rows: list[Row], ticks: Ticks) -> list[Row]:
    """What the question selects of the stored rows, in its order."""
    seen = {"latest": oracle.newest(rows), "first": [r for r in rows if not r["revision"]], "all": rows}
    chosen = [row for row in seen[ticks.revisions] if _is_meant(row, ticks)]
    return sorted(chosen, key=lambda r: (*oracle.total_order(r), r["revision"]), reverse=ticks.descending)


def _is_meant(row: Row, ticks: Ticks) -> bool:
    return (
        (not ticks.symbols or row["symbol"] in ticks.symbols)
        and (not ticks.exchanges or row["exchange"] in ticks.exchanges)
        and ticks.start_us <= to_us(row["timestamp"]) < ticks.end_us
        and not row["quality_flags"] & HIDDEN[ticks.view]
        and (not ticks.sides or row["side"] in ticks.sides)
        and (not ticks.conditions or bool(set(ticks.conditions) & set(row["trade_conditions"])))
        and (ticks.price_min is None or row["price"] >= ticks.price_min)
        and (ticks.quantity_max is None or row["quantity"] <= ticks.quantity_max)
    )


def test_every_question_is_answered_as_plain_python_answers_it(filled: Settings, rows: list[Row], duck: Duck) -> None:
    reads = Reads(lake_of(filled), duck)
    pinned = asyncio.run(reads.pin(TRADES))

    @settings(deadline=None, max_examples=40)
    @given(QUESTIONS)
    def check(ticks: Ticks) -> None:
        wanted = [(r["message_id"], r["revision"]) for r in expected(rows, ticks)]
        found = [keys(duck.fetch(p.statement, p.values)) for p in reads.parts(pinned, ticks, "json")]
        assert [key for part in found for key in part] == wanted
        assert asyncio.run(_paged(reads, pinned, ticks)) == wanted
        assert asyncio.run(reads.count(pinned, ticks)) == len(wanted)
        assert reads.estimate(pinned, ticks)[0] >= len(wanted)

    check()


async def _paged(reads: Reads, pinned: Pinned, ticks: Ticks) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    after = None
    while True:
        page = await reads.page(pinned, ticks, after)
        told = [json.loads(text) for text in page.rows]
        found += [(row["message_id"], row["revision"]) for row in told]
        assert len(told) == ticks.limit or page.next_key is None
        if (after := page.next_key) is None:
            return found


@pytest.mark.parametrize("shape", ["text", "columns"])
def test_the_shapes_show_the_same_rows_and_only_the_fields_asked_for(filled, rows, duck, shape):
    reads = Reads(lake_of(filled), duck)
    pinned = asyncio.run(reads.pin(TRADES))
    ticks = Ticks(fields=("price", "timestamp", "trade_conditions", "revision"), limit=None, descending=False)
    shown = read(reads, pinned, ticks, shape)
    assert shown.column_names == ["revision", "timestamp", "price", "trade_conditions"]
    if shape == "columns":
        schema = pa.schema([TRADES.arrow_schema().field(name) for name in shown.column_names])
        assert shown.cast(schema).to_pylist() == [{n: r[n] for n in schema.names} for r in oracle.newest(rows)]
    else:
        assert shown["price"].to_pylist() == [f"{r['price']:.8f}" for r in oracle.newest(rows)]
        assert shown["timestamp"].to_pylist() == [
            r["timestamp"].strftime("%Y-%m-%dT%H:%M:%S.%fZ") for r in oracle.newest(rows)
        ]
        assert [json.loads(c) for c in shown["trade_conditions"].to_pylist()] == [
            r["trade_conditions"] for r in oracle.newest(rows)
        ]


def test_a_sheet_holds_the_shown_columns_and_the_key_of_its_last_row(filled, rows, duck):
    reads = Reads(lake_of(filled), duck)
    pinned = asyncio.run(reads.pin(TRADES))
    ticks = Ticks(fields=("price",), limit=10, descending=False)
    first = asyncio.run(reads.sheet(pinned, ticks, None, "columns"))
    second = asyncio.run(reads.sheet(pinned, ticks, first.next_key, "columns"))
    assert first.rows.column_names == ["price"]
    assert [*first.rows["price"].to_pylist(), *second.rows["price"].to_pylist()] == [
        r["price"] for r in oracle.newest(rows)[:20]
    ]


def test_a_new_snapshot_is_planned_without_reading_the_manifests_of_the_old(tmp_path: Path, duck: Duck) -> None:
    lake = lake_of(settings_of(tmp_path))
    for n in range(3):
        store(lake, TRADES, [dated(trade(n))])
    reads = Reads(Lake(lake.catalog.properties["uri"], lake.warehouse), duck)
    assert asyncio.run(_count(reads)) == 3
    before = lake.load(TRADES).current_snapshot()
    assert before is not None
    old = [manifest.manifest_path for manifest in before.manifests(lake.load(TRADES).io)]
    store(lake, TRADES, [dated(trade(3))])
    for path in old:
        Path(path).unlink()
    assert asyncio.run(_count(reads)) == 4


async def _count(reads: Reads) -> int:
    await asyncio.sleep(0.02)
    return await reads.count(await reads.pin(TRADES), Ticks())


def test_states_and_their_files_are_found_again_without_a_look_at_the_catalog(filled, duck):
    reads = Reads(lake_of(filled), duck)

    async def twice() -> tuple[Pinned, Pinned]:
        return await reads.pin(TRADES), await reads.pin(TRADES)

    first, second = asyncio.run(twice())
    assert first is second


def test_columns_are_found_by_their_field_ids(tmp_path: Path, duck: Duck) -> None:
    """One file was written when a column had another name, one before another column of an old name came to be."""
    lake = lake_of(settings_of(tmp_path))
    rename(lake, "platform_sequence", "position")
    stored = {**dated(trade(1)), "platform_sequence": 77, **LINEAGE}
    append(lake, {**stored, "position": stored.pop("platform_sequence")})
    rename(lake, "position", "platform_sequence")
    store(lake, TRADES, [dated({**trade(2), "platform_sequence": 78, "timestamp": NOON + timedelta(seconds=1)})])
    assert shown(lake, duck, "platform_sequence") == [77, 78]
    with lake.load(TRADES).update_schema(allow_incompatible_changes=True) as update:
        update.delete_column("platform_sequence")
    with lake.load(TRADES).update_schema() as update:
        update.add_column("platform_sequence", LongType())
    assert shown(lake, duck, "platform_sequence") == [None, None]
    assert shown(lake, duck, "trade_id") == ["BINANCE-1", "BINANCE-2"]


LINEAGE = {"kafka_topic": "t", "kafka_epoch": 0, "kafka_partition": 0, "kafka_offset": 0}


def rename(lake: Lake, name: str, to: str) -> None:
    with lake.load(TRADES).update_schema() as update:
        update.rename_column(name, to)


def append(lake: Lake, row: Row) -> None:
    """Write a row as another engine would, by the schema there is now."""
    loaded = lake.load(TRADES)
    loaded.append(pa.Table.from_pylist([row], schema=loaded.schema().as_arrow()))


def shown(lake: Lake, duck: Duck, name: str) -> list[Any]:
    reads = Reads(lake, duck)
    found = read(reads, asyncio.run(reads.pin(TRADES)), Ticks(descending=False, fields=(name,)), "columns")
    values: list[Any] = found[name].to_pylist()
    return values


class _DeletesWriter(ManifestWriterV2):
    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


class _MergeOnRead(Append):
    """What another engine commits to delete a row: a file of positions, and no data file rewritten."""

    def _process_manifests(self, manifests: list[ManifestFile]) -> list[ManifestFile]:
        spec, schema = self._transaction.table_metadata.spec(), self.schema()
        output = self.new_manifest_output()
        with _DeletesWriter(spec, schema, output, self._snapshot_id, "deflate") as writer:
            writer.add_entry(ManifestEntry.from_args(
                status=ManifestEntryStatus.ADDED, snapshot_id=self._snapshot_id, data_file=_positions()
            ))  # fmt: skip
        self._listed = [*manifests, writer.to_manifest_file()]
        return self._listed


def _positions() -> DataFile:
    return DataFile.from_args(
        content=DataFileContent.POSITION_DELETES,
        file_path="positions.parquet",
        file_format=FileFormat.PARQUET,
        partition=Record((NOON.date() - EPOCH.date()).days),
        record_count=1,
        file_size_in_bytes=1,
    )


def test_a_table_with_delete_files_is_refused_and_not_shown_with_the_deleted_rows(tmp_path: Path, duck: Duck) -> None:
    lake = lake_of(settings_of(tmp_path))
    store(lake, TRADES, [dated(trade(1)), dated(trade(2))])
    loaded: IcebergTable = lake.load(TRADES)
    with loaded.transaction() as transaction, _MergeOnRead(Operation.DELETE, transaction, loaded.io):
        pass
    with pytest.raises(Damaged, match="delete files"):
        asyncio.run(Reads(lake, duck).pin(TRADES))


def test_a_table_that_nothing_was_committed_to_has_no_rows(tmp_path: Path, duck: Duck) -> None:
    reads = Reads(lake_of(settings_of(tmp_path)), duck)
    pinned = asyncio.run(reads.pin(QUOTES))
    assert (list(reads.parts(pinned, Ticks(), "json")), asyncio.run(reads.count(pinned, Ticks()))) == ([], 0)
    assert asyncio.run(reads.page(pinned, Ticks(), None)).rows == []
    assert reads.estimate(pinned, Ticks()) == (0, 0, 0)
