"""Checks of bars: they are what the ticks below their C come to, and a day's volume is not out of all bounds."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import dagster as dg
import pyarrow as pa

from k2_assets.check_shown import chart, sample
from k2_assets.derived import rules_of
from k2_core.contracts import Table
from k2_core.derived_tables import BARS_1D
from k2_core.feeds import Feed
from k2_core.rollups import rolled_up
from k2_core.volumes import DAYS_MAX, DAYS_MIN, usual
from k2_core.windows import TIMEFRAMES
from k2_resources.lake.catalog import Lake
from k2_resources.lake.derived import recomputed_minutes
from k2_resources.lake.derived_reads import day_bars
from k2_resources.lake.volumes import daily_volumes
from k2_resources.settings import Settings

_LOOK_BACK = timedelta(days=2 * DAYS_MAX)
"""Twenty days with rows lie within forty, holidays included."""
Bars = Mapping[str, Any]


def bars_equal_ticks(lake: Lake, table: Table, feeds: tuple[Feed, ...], day: date) -> dg.AssetCheckResult:
    """Every stored bar is the one that the trades below its C come to, in every column, and none is missing."""
    if lake.state(table) is None:
        return _unbuilt()
    rules = rules_of(Settings(), feeds)
    held = day_bars(lake, table, day)
    computed = recomputed_minutes(lake, rules, day) if len(held) else None
    if computed is not None and table.name == BARS_1D.name:
        computed = rolled_up(computed, TIMEFRAMES["1d"], rules.zones)
    if computed is None or _commit(held) != _commit(computed):
        return _unbuilt()
    return bars_result(table, held, computed)


def bars_result(table: Table, held: pa.Table, computed: pa.Table) -> dg.AssetCheckResult:
    """Compare the stored bars of one date with those computed again. Both: columns of the contract."""
    found = [] if held.equals(computed) else list(_differences(table, held.to_pylist(), computed.to_pylist()))
    return dg.AssetCheckResult(
        passed=not found,
        description=f"{len(found)} values differ from what the ticks come to" if found else f"{len(held)} bars as of C",
        metadata={
            "applicable": True,
            "bars": len(held),
            "different_values": len(found),
            "trades": sum(held["trade_count"].to_pylist()),
            "sample": sample(found, ("symbol", "exchange", "window_start", "column", "stored", "from_ticks")),
        },
    )


def _unbuilt() -> dg.AssetCheckResult:
    said = "not applicable: nothing is stored of the date, or it is being built anew"
    return dg.AssetCheckResult(passed=True, description=said, metadata={"applicable": False, "different_values": 0})


def _commit(bars: pa.Table) -> int | None:
    """The commit whose trades a date was built of."""
    return bars["sequence_number"][0].as_py() if len(bars) else None


def _differences(table: Table, held: Sequence[Bars], computed: Sequence[Bars]) -> Iterable[dict[str, object]]:
    ours, others = ({tuple(row[name] for name in table.key): row for row in some} for some in (held, computed))
    for key in sorted({*ours, *others}):
        named = dict(zip(table.key, key, strict=True))
        mine, theirs = ours.get(key), others.get(key)
        if mine is None or theirs is None:
            yield {**named, "column": "all", "stored": mine and "a bar", "from_ticks": theirs and "a bar"}
            continue
        for name in mine:
            if mine[name] != theirs[name]:
                yield {**named, "column": name, "stored": mine[name], "from_ticks": theirs[name]}


def volume(lake: Lake, table: Table, _feeds: tuple[Feed, ...], day: date) -> dg.AssetCheckResult:
    """The day's volume of each symbol lies within what is usual after the twenty days before it: within five robust
    standard deviations of their median, in logarithms, or a factor of four.

    A day that is not final, and a symbol with fewer than four days before it, are not judged.
    """
    return volume_result(day, daily_volumes(lake, table, day - _LOOK_BACK, day))


def volume_result(day: date, bars: pa.Table) -> dg.AssetCheckResult:
    """Judge the volumes of one date. bars: volumes of it and of dates before it, any order."""
    days: dict[tuple[str, str], dict[date, Bars]] = {}
    for row in bars.to_pylist():
        days.setdefault((row["exchange"], row["symbol"]), {})[row["exchange_date"]] = row
    judged, found, history = 0, list[dict[str, object]](), list[float]()
    for (exchange, symbol), rows in sorted(days.items()):
        before = [float(rows[d]["volume"]) for d in sorted(rows) if d < day and rows[d]["volume"]][-DAYS_MAX:]
        bounds = usual(before)
        if day not in rows or not rows[day]["is_final"] or bounds is None:
            continue
        judged, own = judged + 1, float(rows[day]["volume"])
        if not bounds.holds(own):
            seen = {"volume": own, "low": bounds.low, "median": bounds.median, "high": bounds.high, "days": len(before)}
            found.append({"symbol": symbol, "exchange": exchange, **seen})
            history = history or [*before, own]
    return dg.AssetCheckResult(
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(found)} of {judged} volumes are not usual"
        if judged
        else f"not applicable: no symbol has a final day with {DAYS_MIN} days before it",
        metadata={
            "applicable": bool(judged),
            "symbols": judged,
            "unusual": len(found),
            "sample": sample(found, ("symbol", "exchange", "volume", "low", "median", "high", "days")),
            **({"first_unusual": chart(history, ["earlier days", "the day"], {len(history) - 1})} if found else {}),
        },
    )
