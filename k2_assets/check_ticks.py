"""Checks of what trades and quotes say: books left crossed, prices far from those around them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2_assets.check_shown import SAMPLE_ROWS, hours, hours_chart, sample
from k2_core.certificates import newest
from k2_core.conditions import Update
from k2_core.contracts import Table
from k2_core.crosses import crosses
from k2_core.feeds import Feed
from k2_core.outliers import outliers
from k2_core.prints import COLUMNS, prints_of
from k2_core.screen import int64s
from k2_resources.lake.catalog import Lake
from k2_resources.lake.days import revised_keys
from k2_resources.lake.scans import day_rows
from k2_resources.rule_sets import update_rules
from k2_resources.settings import Settings

_SCALE, _UNIT = 8, 10.0**8
"""Prices are judged in units of 1e-8."""
_BOOK = ("symbol", "timestamp", "bid_price", "ask_price", "source_sequence", "platform_sequence")


def crossed_quotes(lake: Lake, table: Table, feeds: tuple[Feed, ...], day: date) -> dg.AssetCheckResult:
    """No book was left crossed in continuous trading: the last state of an instant has its bid at or below its ask.

    Venues update one side after the other, so a state that another one of the same instant replaces says nothing. A
    locked book, bid equal to ask, is counted and fails nobody.
    """
    rows, found, by_hour, locked = _newest(lake, table, feeds, day, _BOOK), [], np.zeros(24, np.int64), 0
    for feed in feeds:
        own = rows.filter(pc.equal(rows["kafka_topic"], feed.topic)).combine_chunks()
        if not len(own):
            continue
        judged = crosses(own, feed.sessions)
        standing = own.filter(pa.array(judged.standing))
        lasting = pc.equal(own["bid_price"], own["ask_price"]).fill_null(False).to_numpy(zero_copy_only=False)
        locked += int((lasting & judged.continuous & ~judged.replaced).sum())
        by_hour += hours(int64s(standing["timestamp"]), feed.timezone)
        found.append(standing)
    crossed = sum(map(len, found))
    shown = [row for part in found for row in part.sort_by("timestamp").slice(0, SAMPLE_ROWS).to_pylist()]
    return dg.AssetCheckResult(
        passed=not crossed,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{crossed} books were left crossed" if crossed else f"{len(rows)} quotes, no book left crossed",
        metadata={
            "quotes": len(rows),
            "crossed": crossed,
            "locked": locked,
            "sample": sample(shown, ("symbol", "timestamp", "bid_price", "ask_price", "message_id")),
            **({"crossed_by_hour": hours_chart(by_hour, range(24))} if crossed else {}),
        },
    )


def outlying_prices(lake: Lake, table: Table, feeds: tuple[Feed, ...], day: date) -> dg.AssetCheckResult:
    """No print that moves prices is far from those around it: further from their median than ten times their median
    absolute deviation, plus half a percent of it or ten of the smallest steps between the day's prices.

    What the conditions of its exchange, or its vendor, leave out of prices is not judged. Nothing is removed.
    """
    rows, config = _newest(lake, table, feeds, day, COLUMNS), Settings().config
    judged, found, by_hour = 0, list[dict[str, Any]](), np.zeros(24, np.int64)
    for symbol in _moving(rows, config) if len(rows) else ():
        places, verdict = symbol.places, outliers(symbol.price)
        judged += len(places)
        at = np.flatnonzero(verdict.is_outlier)
        told = rows.take(pa.array(places[at]))
        for row, median, limit in zip(told.to_pylist(), verdict.median[at], verdict.limit[at], strict=True):
            away = abs(row["price"] / Decimal(int(median)).scaleb(-_SCALE) - 1)
            found.append({**row, "median": median / _UNIT, "limit": limit / _UNIT, "percent": float(100 * away)})
        for feed in feeds:
            own = told.filter(pc.equal(told["kafka_topic"], feed.topic))
            by_hour += hours(int64s(own["timestamp"]), feed.timezone)
    return _outliers_result(judged, found, by_hour)


@dataclass(frozen=True)
class _Moving:
    """The prints of one symbol and exchange that move prices, in total order. places: of each among the rows."""

    price: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]


def _moving(rows: pa.Table, config: Path) -> list[_Moving]:
    prints = prints_of(rows, lambda exchange: update_rules(config, exchange))
    moving = np.flatnonzero(prints.may(Update.HIGH))
    groups = np.split(moving, np.flatnonzero(np.diff(prints.scopes[moving])) + 1)
    return [_Moving(prints.price[own], prints.places[own]) for own in groups]


def _outliers_result(
    judged: int, found: Sequence[Mapping[str, Any]], by_hour: npt.NDArray[np.int64]
) -> dg.AssetCheckResult:
    worst = sorted(found, key=lambda row: -row["percent"])
    return dg.AssetCheckResult(
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(found)} of {judged} prices are far from those around them",
        metadata={
            "prices": judged,
            "outliers": len(found),
            "percent_max": round(worst[0]["percent"], 4) if worst else 0.0,
            "sample": sample(worst, ("symbol", "timestamp", "price", "median", "limit", "message_id")),
            **({"outliers_by_hour": hours_chart(by_hour, range(24))} if found else {}),
        },
    )


def _newest(lake: Lake, table: Table, feeds: tuple[Feed, ...], day: date, columns: Sequence[str]) -> pa.Table:
    """Rows of a date as they were last stated: newest revisions, also where that lies on another date."""
    names = list(dict.fromkeys([*columns, "message_id", "revision", "kafka_topic"]))
    rows = day_rows(lake, table, day, names)
    if not len(rows):
        return rows
    at = lake.head(table)
    revised = pa.concat_tables(revised_keys(at, feed) for feed in feeds)
    return rows.filter(pa.array(newest(rows, revised.combine_chunks()))).combine_chunks()
