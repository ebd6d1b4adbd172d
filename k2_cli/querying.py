"""The engine at work for `k2 query`: one question, one state, rows written as they are computed."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import click
import pyarrow as pa
from pydantic import BaseModel, ValidationError

from k2_api.bar_answers import bar_texts
from k2_api.bar_models import BarsQuestion
from k2_api.bar_pages import Asked, page_of
from k2_api.bar_reads import BarReads
from k2_api.bar_texts import plain_texts
from k2_api.formats import FORMATS, Ending, encoder
from k2_api.problems import Problem
from k2_api.questions import At, Ticks
from k2_api.reads import Pinned, Reads
from k2_api.streams import Window, Writing
from k2_api.tick_models import QuotesQuestion, TradesQuestion
from k2_cli.tables import show_table
from k2_core.contracts import TRADES, Table
from k2_core.derived_tables import BARS_1M
from k2_core.errors import BadInput, NotFound, Unwritable
from k2_core.projections import Shape, shown_columns
from k2_core.windows import INTERVALS
from k2_resources.duck import Duck
from k2_resources.lake.catalog import Lake
from k2_resources.lake.derived_reads import bar_rules
from k2_resources.settings import Settings, load_feeds

BARS_A_READ = 10_000
"""Bars computed at a time: some megabytes."""
SHOWN_OF_BARS = (
    *("symbol", "exchange", "exchange_date", "window_start", "window_end", "open_price", "high_price", "low_price"),
    *("close_price", "volume", "trade_count", "excluded_count", "vwap", "twap", "twap_coverage", "gap_count"),
    *("is_final", "conditions_version"),
)
"""Columns of a bar: those of /v1/bars."""

Model = TypeVar("Model", bound=BaseModel)
Batches = AsyncGenerator[pa.RecordBatch, None]


@dataclass(frozen=True)
class Output:
    """How rows are written and where: path None = stdout. limit None = all."""

    form: str
    path: Path | None
    limit: int | None

    @property
    def shape(self) -> Shape:
        """What the engine has to hand over for it."""
        return "text" if self.form == "table" else FORMATS[self.form].shape  # type: ignore[index]


def parsed(model: type[Model], options: Mapping[str, Any]) -> Model:
    """A question out of the options of a command. Raises BadInput."""
    try:
        return model.model_validate({name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        found = [f"{'.'.join(map(str, e['loc'])) or 'question'}: {e['msg']}" for e in error.errors()]
        raise BadInput("; ".join(found)) from None


@dataclass(frozen=True)
class TickQuery:
    """What `k2 query trades|quotes` asks: a question of the API, answered by the same engine."""

    question: TradesQuestion | QuotesQuestion

    async def count_rows(self, settings: Settings) -> int:
        """How many rows the question has."""
        async with _engine(settings) as reads:
            return await reads.count(await self._pinned(reads), self.question.ticks())

    async def write(self, settings: Settings, output: Output) -> None:
        """Write the rows. Raises K2Error; a file is there when all of it is."""
        async with _engine(settings) as reads:
            pinned = await self._pinned(reads)
            ticks = replace(self.question.ticks(), limit=output.limit)
            columns = shown_columns(pinned.table, ticks.fields)
            schema = pa.schema([pa.field(c.name, c.type, nullable=c.nullable) for c in columns])
            await _write(output, schema, _ticks(reads, pinned, ticks, output.shape), pinned)

    async def _pinned(self, reads: Reads) -> Pinned:
        return await _pin(reads, self.question.table, self.question.at())


@dataclass(frozen=True)
class BarQuery:
    """What `k2 query bars` asks."""

    question: BarsQuestion
    interval: str

    async def write(self, settings: Settings, output: Output) -> None:
        """Write the bars. Raises K2Error; a file is there when all of it is."""
        async with _engine(settings) as reads:
            pinned = await _pin(reads, TRADES, self.question.at())
            bars = BarReads(reads, reads.lake, bar_rules(settings.config, load_feeds(settings)))
            schema = pa.schema([BARS_1M.arrow_schema().field(name) for name in SHOWN_OF_BARS])
            await _write(output, schema, self._batches(bars, pinned, output.shape), pinned)

    async def _batches(self, bars: BarReads, pinned: Pinned, shape: Shape) -> Batches:
        question, after = self.question, None
        asked = Asked(question.asked(question.symbol, INTERVALS[self.interval]), question.descending, BARS_A_READ)
        while True:
            page = await page_of(bars, pinned, replace(asked, after=after))
            yield self._shaped(page.bars, shape)
            after = page.next_key
            if after is None:
                return

    def _shaped(self, bars: pa.Table, shape: Shape) -> pa.RecordBatch:
        if shape == "json":
            return pa.record_batch({"json": pa.array(bar_texts(bars, self.interval, numbers=False), pa.string())})
        shown = bars.select(SHOWN_OF_BARS)
        if shape == "text":
            shown = pa.table({name: plain_texts(shown[name]) for name in SHOWN_OF_BARS})
        return shown.combine_chunks().to_batches()[0] if len(shown) else pa.RecordBatch.from_pylist([], shown.schema)


@asynccontextmanager
async def _engine(settings: Settings) -> AsyncIterator[Reads]:
    """The reads of a home, and a query pool that lasts as long as the block."""
    if settings.catalog_uri is None and not (settings.home / "catalog.db").exists():
        raise NotFound(f"no catalog in {settings.home}: nothing was ever ingested there")
    lake = Lake(settings.catalog(), settings.warehouse_path())
    duck = Duck(threads=settings.query_threads, memory=settings.query_memory, seconds_max=settings.query_seconds_max)
    try:
        yield Reads(lake, duck)
    finally:
        duck.close()


async def _pin(reads: Reads, table: Table, at: At) -> Pinned:
    try:
        return await reads.pin(table, at)
    except Problem as problem:
        raise NotFound(problem.detail) from None


async def _ticks(reads: Reads, pinned: Pinned, ticks: Ticks, shape: Shape) -> Batches:
    for part in reads.parts(pinned, ticks, shape):
        async with aclosing(reads.duck.stream(part.statement, part.values)) as batches:
            async for batch in batches:
                yield batch


async def _write(output: Output, schema: pa.Schema, batches: Batches, pinned: Pinned) -> None:
    if output.form == "table":
        rows = await _show(schema, batches, output.limit)
    else:
        rows = await _write_body(output, schema, batches, pinned)
    click.echo(f"{rows:,} rows of {pinned.table.name} as of version {pinned.version}", err=True)


async def _show(schema: pa.Schema, batches: Batches, limit: int | None) -> int:
    window, texts = Window(0, limit), []
    async with aclosing(batches):
        async for batch in batches:
            texts += [tuple("" if v is None else v for v in row.values()) for row in _inside(window, batch, schema)]
            if window.has_more:
                break
    show_table(schema.names, texts if sys.stdout.isatty() or not texts else [tuple(schema.names), *texts])
    return window.rows


def _inside(window: Window, batch: pa.RecordBatch, schema: pa.Schema) -> list[dict[str, str | None]]:
    found: list[dict[str, str | None]] = window.cut(batch).select(schema.names).to_pylist()
    return found


async def _write_body(output: Output, schema: pa.Schema, batches: Batches, pinned: Pinned) -> int:
    form = FORMATS[output.form]  # type: ignore[index]
    writing = Writing(encoder(form, schema), Window(0, output.limit), is_digested=form.is_digested)
    lead, tail = (b"[", b"]\n") if output.form == "json" else (b"", b"")
    with _sink(output) as sink:
        sink.write(lead)
        async with aclosing(writing.pieces(batches)) as pieces:
            async for piece in pieces:
                sink.write(piece)
        sink.write(writing.end(Ending(writing.window.rows, writing.sha256, pinned.version, None)) + tail)
    return writing.window.rows


@contextmanager
def _sink(output: Output) -> Iterator[BinaryIO]:
    """Where bytes go. A file appears under its name when all of it is there."""
    if output.path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    draft = output.path.with_name(f".{output.path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            yield file
        draft.replace(output.path)
    except OSError as error:
        raise Unwritable(f"{output.path}: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)
