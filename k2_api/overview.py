"""What is where, in few numbers: last prices, completeness and open gaps of all symbols, and one symbol in detail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import date
from typing import Any

from k2_api.ledgers import Ledgers, Row
from k2_api.models import row_columns
from k2_api.pinning import Pinned
from k2_api.plans import Span, within
from k2_api.questions import Ticks
from k2_api.reads import Reads
from k2_api.sources import reading, source_of, steps_of, values_of
from k2_core.contracts import DAYS, INSTRUMENTS, TRADES
from k2_core.gap_states import is_settled
from k2_core.instruments import in_force
from k2_core.windows import strides

DATES_MAX = 30
"""Exchange dates looked through for last prices: a symbol that did not print on so many shows none."""


async def symbols_now(reads: Reads, ledgers: Ledgers) -> list[dict[str, Any]]:
    """Every symbol of the trades, per exchange: last price, what was said of its last closed day, its open gaps."""
    trades, days = await reads.pin(TRADES), await ledgers.pin(DAYS)
    gaps = await ledgers.gaps()

    async def made() -> list[dict[str, Any]]:
        prices = await _last_prices(reads, trades)
        told = {
            (r["exchange"], r["symbol"]): r for r in await ledgers.rows(days, "last_verdicts", {"table": TRADES.name})
        }
        holes = Counter((g["exchange"], g["scope"]) for g in gaps.unfilled if not is_settled(g))
        listed = sorted(await reads.listings(trades))
        return [_summary(at, prices.get(at), told.get(at), holes[at]) for at in listed]

    return await ledgers.once("symbols", (trades, days, gaps.at), made)


async def seen(reads: Reads, pinned: Pinned, symbol: str) -> list[Row]:
    """Where and when a table has rows of a symbol, each message by its newest revision. Grain: exchange."""
    return await _over_all(reads, pinned, Ticks(symbols=(symbol,)), "seen", Span())


async def instruments(reads: Reads, pinned: Pinned, symbol: str, day: date) -> list[Row]:
    """The descriptions of the instruments that are called by a symbol on a date, by exchange and instrument."""
    if not pinned.files:
        return []
    assert pinned.table is INSTRUMENTS
    source = source_of(pinned)
    values = {**values_of(Ticks()), **source.values(), **reading(source.files, Span()), "symbol": symbol}
    rows = await reads.duck.query(source.over("instruments_named"), values)
    held = in_force(rows.select([column.name for column in row_columns(INSTRUMENTS)]), day).to_pylist()
    found = [{**row, "vendor_data": dict(row["vendor_data"] or ())} for row in held if row["symbol"] == symbol]
    return sorted(found, key=lambda row: (row["exchange"], row["instrument_id"]))


def _summary(at: tuple[str, str], price: Row | None, told: Row | None, holes: int) -> dict[str, Any]:
    exchange, symbol = at
    return {
        "symbol": symbol,
        "exchange": exchange,
        "last_price": price and price["last_price"],
        "last_timestamp": price and price["last_timestamp"],
        "last_date": price and price["last_date"],
        "verdict": told and told["verdict"],
        "verdict_date": told and told["verdict_date"],
        "open_gaps": holes,
    }


async def _last_prices(reads: Reads, trades: Pinned) -> dict[tuple[str, str], Row]:
    """Looks backwards from the newest date until every symbol has a price."""
    wanted, found = await reads.listings(trades), dict[tuple[str, str], Row]()
    for span in _backwards(trades):
        rows = await _over_all(reads, trades, Ticks(view="eligible"), "last_prices", span)
        found = {(row["exchange"], row["symbol"]): row for row in rows} | found
        if wanted <= found.keys():
            break
    return found


def _backwards(pinned: Pinned) -> Iterator[Span]:
    dates = sorted({f.exchange_date for f in pinned.files if f.exchange_date is not None})[-DATES_MAX:]
    if dates:
        edges = [day.toordinal() for day in dates]
        for start, end in strides(edges, edges[0], edges[-1] + 1, descending=True):
            yield Span().dates(start, end)


async def _over_all(reads: Reads, pinned: Pinned, ticks: Ticks, sql: str, span: Span) -> list[Row]:
    """Rows of a statement over everything a question selects in a span."""
    source = source_of(pinned, ticks.symbols)
    files = within(source.files, span)
    if not files:
        return []
    values = {**values_of(ticks), **source.values(), **reading(files, span)}
    rows = await reads.duck.query(source.over(sql, **steps_of(ticks)), values)
    return list(rows.to_pylist())
