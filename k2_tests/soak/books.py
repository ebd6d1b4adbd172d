"""The exchange's ledger against the lake: every trade once, with its price; every id it never had on the ledger of gaps."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal

from k2_core.contracts import TRADES
from k2_feeds.exchange import SimulatedExchange
from k2_resources.lake.catalog import Lake
from k2_resources.lake.scans import unfilled_gaps
from k2_resources.settings import Settings
from k2_tests.soak.collector import Collector

Key = tuple[str, int, int]
"""Symbol, numbering and trade id."""
Said = tuple[Decimal, Decimal, int]
"""Price, quantity, trade time in ms: streams and REST say no more of it."""
_NAMED_MAX = 5


@dataclass(frozen=True)
class Balance:
    """How the books compare. lost: trades the exchange has and the lake has not; unexplained: absent ids on no ledger."""

    trades: int
    lost: tuple[Key, ...]
    doubled: tuple[Key, ...]
    foreign: tuple[Key, ...]
    altered: tuple[Key, ...]
    absent: int
    unexplained: tuple[Key, ...]
    kills: int
    megabytes_max: int
    mb_per_hour_max: float

    @property
    def is_settled(self) -> bool:
        return not self.lost and not self.unexplained

    @property
    def is_exact(self) -> bool:
        return self.is_settled and not (self.doubled or self.foreign or self.altered)

    def line(self) -> str:
        """Say it in one line; examples where something is wrong."""
        wrong = {"lost": self.lost, "doubled": self.doubled, "foreign": self.foreign, "altered": self.altered}
        said = ", ".join(
            f"{len(keys)} {what}" + (f" {keys[:_NAMED_MAX]}" if keys else "") for what, keys in wrong.items()
        )
        return (
            f"{self.trades:,} trades, {said}, {self.absent} ids absent at the source, "
            f"{len(self.unexplained)} of them on no ledger {self.unexplained[:_NAMED_MAX] or ''}, "
            f"{self.kills} kills, {self.megabytes_max} MB at most, slope {self.mb_per_hour_max:.1f} MB/h"
        )


def balance(settings: Settings, running: SimulatedExchange, collector: Collector) -> Balance:
    """Compare the books as they are now."""
    lake = Lake(settings.catalog(), settings.warehouse_path())
    expected = {
        (symbol, t.session, t.trade_id): (t.price, t.quantity, t.time_us // 1_000)
        for symbol in running.symbols
        for t in running.ledger.trades(symbol)
    }
    columns = ("symbol", "message_id", "source_sequence", "price", "quantity", "timestamp")
    rows = lake.load(TRADES).scan(selected_fields=columns).to_arrow()
    times = rows["timestamp"].cast("int64").to_pylist()
    sessions = [_numbering(text) for text in rows["message_id"].to_pylist()]
    keys = list(zip(rows["symbol"].to_pylist(), sessions, rows["source_sequence"].to_pylist(), strict=True))
    values = zip(rows["price"].to_pylist(), rows["quantity"].to_pylist(), (t // 1_000 for t in times), strict=True)
    stored = dict(zip(keys, values, strict=True))
    begun = {symbol: min((at for of, *at in keys if of == symbol), default=[0, 0]) for symbol in running.symbols}
    # what was traded before a symbol was subscribed to for the first time was never to be collected
    expected = {key: said for key, said in expected.items() if [*key[1:]] >= begun[key[0]]}
    absent = {
        (symbol, *at) for symbol in running.symbols for at in running.ledger.absent(symbol) if [*at] >= begun[symbol]
    }
    return Balance(
        trades=len(stored),
        lost=tuple(sorted(expected.keys() - stored.keys())),
        doubled=tuple(sorted(key for key, times_stored in Counter(keys).items() if times_stored > 1)),
        foreign=tuple(sorted(stored.keys() - expected.keys())),
        altered=tuple(sorted(key for key in expected.keys() & stored.keys() if expected[key] != stored[key])),
        absent=len(absent),
        unexplained=tuple(sorted(absent - _explained(lake, absent))),
        kills=collector.kills,
        megabytes_max=collector.resident_bytes_max // 1_000_000,
        mb_per_hour_max=collector.mb_per_hour_max,
    )


def _explained(lake: Lake, absent: set[Key]) -> set[Key]:
    """Absent ids that lie in a gap the exchange was asked about and does not fill."""
    gaps = [gap for gap in unfilled_gaps(lake) if gap["state"] == "absent_at_source"]
    return {
        (symbol, session, number)
        for symbol, session, number in absent
        if any(
            (gap["scope"], gap["session"]) == (symbol, session) and gap["first_id"] <= number <= gap["last_id"]
            for gap in gaps
        )
    }


def _numbering(message_id: str) -> int:
    """Read the numbering off a key: `...:5` is of the first, `...:5~1` of the next."""
    return int(message_id.partition("~")[2] or 0)
