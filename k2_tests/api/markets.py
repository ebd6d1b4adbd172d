"""A home for tests of bars: prints of every kind on closed dates and an open one, in batches, with bars built between."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from k2_core.bars import Basis
from k2_core.contracts import TRADES
from k2_core.quality import Flag
from k2_core.windows import Timeframe, iso
from k2_resources import clock
from k2_resources.lake.catalog import Lake
from k2_resources.lake.derived import build_day, build_minutes, due_days, due_minutes
from k2_resources.lake.derived_reads import Rules, bar_rules, source_of
from k2_resources.settings import Settings, load_feeds
from k2_tests.api import oracle
from k2_tests.api.homes import Row, dated, lake_of, settings_of, store
from k2_tests.core import bars_oracle
from k2_tests.lakes import collect
from k2_tests.ticks import NOON, trade

_CODES = [[], [], ["5"], ["1"], ["LT"], ["S1", "5"], ["XT"], ["25", "27"]]
_FLAGS = [0, 0, 0, 0, int(Flag.VENDOR_EXCLUDED), int(Flag.OUT_OF_SESSION), int(Flag.RECEIVE_BEFORE_EVENT)]


@dataclass
class Market:
    """A home, and what was stored in it batch by batch. versions: of the table after each."""

    settings: Settings
    lake: Lake
    rules: Rules
    batches: list[list[Row]] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)

    @classmethod
    def at(cls, home: Path) -> Market:
        settings = settings_of(home)
        return cls(settings, lake_of(settings), bar_rules(settings.config, load_feeds(settings)))

    def put(self, rows: list[Row]) -> None:
        """Commit rows as one batch and collect its receipt."""
        known = {row["message_id"]: row["exchange_date"] for row in self.rows()}
        touched = {known[row["message_id"]] for row in rows if row["message_id"] in known}
        store(self.lake, TRADES, rows, touched)
        collect(self.lake, TRADES)
        self.batches.append(rows)
        self.versions.append(self.lake.head(TRADES).offsets.version)

    def build(self) -> None:
        """Build all bars that are due."""
        source = source_of(self.lake)
        assert source is not None
        due = due_minutes(self.lake, source, self.rules)
        for day in due.days:
            build_minutes(self.lake, source, self.rules, day, until=due.until)
        for day in due_days(self.lake):
            build_day(self.lake, self.rules, day)

    def rows(self, batches: int | None = None) -> list[Row]:
        """Every row of the first so many batches."""
        return [row for batch in self.batches[:batches] for row in batch]

    def bars(self, timeframe: Timeframe, commit_time: str, batches: int | None = None, **question: Any) -> list[Row]:
        """What the API must show of a question: each bar as its JSON has it, oldest first."""
        prints = [_seen(row, **question) for row in oracle.newest(self.rows(batches))]
        prints = [p for p in prints if question.get("exchange") in (None, p["exchange"])]
        time = datetime.fromisoformat(commit_time)
        basis = Basis("", 0, time, self.rules.conditions, self.rules.zones)
        found = bars_oracle.bars((p for p in prints if p["symbol"] == question["symbol"]), timeframe, basis)
        heard = bars_oracle.bars(prints, timeframe, basis)
        final = {(b["symbol"], b["exchange"], b["window_start"]): b["is_final"] for b in heard}
        told = [b | {"is_final": final[b["symbol"], b["exchange"], b["window_start"]]} for b in found]
        start, end = question.get("start"), question.get("end")
        inside = [
            b
            for b in told
            if b["trade_count"]
            and (start is None or start <= b["window_start"])
            and (end is None or b["window_start"] < end)
        ]
        by_date = timeframe.width_us is None
        return sorted(
            inside,
            key=lambda b: (b["exchange_date"] if by_date else b["window_start"], b["window_start"], b["exchange"]),
        )


def shown(bar: Row, names: Iterable[str]) -> Row:
    """Some columns of a bar as JSON has them."""
    return {name: _plain(bar[name]) for name in names}


def random_prints(seed: int, count: int, first: int = 0) -> list[Row]:
    """Prints of two symbols, one of them on two exchanges, over three dates long over and today."""
    chance = random.Random(seed)
    return [_print(chance, first + n) for n in range(count)]


def revised(seed: int, rows: list[Row], count: int) -> list[Row]:
    """Later content of some of the rows, which moves them to other minutes and dates."""
    chance = random.Random(seed)
    last = {row["message_id"]: row for row in sorted(rows, key=lambda row: row["revision"])}
    return [_revised(chance, row) for row in chance.sample(list(last.values()), count)]


def days() -> Iterator[datetime]:
    """UTC midnights of the dates of the prints: the last one is today."""
    yield from (NOON.replace(hour=0) + timedelta(days=n) for n in range(3))
    yield clock.now().replace(hour=0, minute=0, second=0, microsecond=0)


def _print(chance: random.Random, number: int) -> Row:
    exchange = chance.choice(["BINANCE", "BINANCE", "ASX"])
    symbol = chance.choice(["DUAL", "BTCUSDT"]) if exchange == "BINANCE" else "DUAL"
    row = trade(number, symbol=symbol, exchange=exchange, message_id=f"{exchange}:{symbol}:trade:{number}")
    return dated({**row, **_content(chance, exchange)})


def _content(chance: random.Random, exchange: str) -> Row:
    midnight = chance.choice(list(days()))
    now = clock.now()
    latest = now if midnight.date() == now.date() else midnight + timedelta(days=1)
    minute = chance.choice([0, 1, 2, 3, 9, 15, 700, 701, 705, 839, 840, 841, 1439])
    at = midnight + timedelta(minutes=minute, milliseconds=chance.choice([0, 0, 500, 30_000, chance.randrange(60_000)]))
    return {
        "timestamp": min(at, latest - timedelta(seconds=chance.randrange(1, 600))),
        "price": Decimal(chance.randrange(1, 10**12)).scaleb(-8),
        "quantity": Decimal(chance.randrange(1, 10**10)).scaleb(-8),
        "source_sequence": None if exchange == "ASX" else chance.choice([None, 1, 2, 3]),
        "platform_sequence": chance.choice([None, 0, 1]),
        "trade_conditions": chance.choice(_CODES) if exchange == "ASX" else [],
        "quality_flags": chance.choice(_FLAGS),
    }


def _revised(chance: random.Random, row: Row) -> Row:
    kept = {name: value for name, value in row.items() if name != "exchange_date"}
    return dated({**kept, **_content(chance, row["exchange"]), "revision": row["revision"] + 1})


def _seen(row: Row, **question: Any) -> Row:
    """A print as a view sees it."""
    flags = row["quality_flags"]
    if question.get("view") == "raw":
        row, flags = {**row, "trade_conditions": []}, flags & ~Flag.VENDOR_EXCLUDED
    if question.get("session") == "regular" and flags & Flag.OUT_OF_SESSION:
        flags |= Flag.VENDOR_EXCLUDED
    return {**row, "quality_flags": flags}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso(value.astimezone(UTC))
    if isinstance(value, Decimal):
        return f"{value:f}"
    return value.isoformat() if hasattr(value, "isoformat") else value
