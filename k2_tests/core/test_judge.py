from __future__ import annotations

import random
from datetime import date, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest

from k2_core.judge import decide
from k2_core.quality import Flag, Reason
from k2_core.screen import screen
from k2_core.verdict import DUPLICATE, REVISION, WRITTEN
from k2_tests.ticks import FEEDS, NOON, asx_trade, quote, table_of, trade

TODAY = date(2026, 11, 21)
TRADES_FEED, QUOTES_FEED, ASX_FEED = FEEDS["binance-trades"], FEEDS["binance-quotes"], FEEDS["asx-trades"]


class Lake:
    """Rows and state of one feed, kept in memory: what the real lake gives the judge."""

    def __init__(self, feed):
        self.feed, self.state = feed, {}
        self.rows = feed.table.arrow_schema().empty_table()
        self.gaps, self.dead, self.verdicts = {}, [], []

    def feed_in(self, *records):
        screened = screen(self.feed, table_of(self.feed, records), TODAY)
        verdict = decide(self.feed, screened, self.state, self.find)
        self.state, self.rows = verdict.state, pa.concat_tables([self.rows, verdict.rows])
        self.dead += screened.dead
        self.verdicts.append(verdict)
        for event in verdict.gaps:
            self.gaps[event.gap_id] = event.state
        return verdict

    def find(self, wanted):
        """Stored rows as the real lake finds them: nothing outside the bounds that are asked for."""
        keys, days = set(wanted.message_ids.to_pylist()), wanted.dates
        first, last = wanted.times or (None, None)
        kept = [
            row["message_id"] in keys
            and row["symbol"] in wanted.symbols
            and (days is None or row["exchange_date"] in days)
            and (first is None or first <= row["timestamp"] <= last)
            for row in self.rows.to_pylist()
        ]
        return self.rows.filter(pa.array(kept, pa.bool_()))

    @property
    def stored(self):
        columns = ["message_id", "revision", "price" if self.feed.kind == "trade" else "bid_price", "timestamp"]
        return sorted(tuple(row.values()) for row in self.rows.select(columns).to_pylist())

    @property
    def open_gaps(self):
        return sorted(g for g, state in self.gaps.items() if state == "open")


def test_a_record_delivered_twice_is_stored_once():
    lake = Lake(TRADES_FEED)
    assert lake.feed_in(trade(1), trade(2), trade(2)).outcome.tolist() == [WRITTEN, WRITTEN, DUPLICATE]
    assert lake.feed_in(trade(2), trade(3)).outcome.tolist() == [DUPLICATE, WRITTEN]


def test_other_content_under_the_same_key_is_the_next_revision_and_a_return_is_counted():
    lake = Lake(TRADES_FEED)
    lake.feed_in(trade(1), trade(1, price=Decimal(2)))
    verdict = lake.feed_in(trade(1), trade(1, price=Decimal(3)), trade(1, price=Decimal(2)))
    assert verdict.outcome.tolist() == [DUPLICATE, REVISION, DUPLICATE]
    assert verdict.reverted == 2
    assert lake.rows["revision"].to_pylist() == [0, 1, 2]


def test_a_finer_time_unit_is_no_new_content():
    lake = Lake(TRADES_FEED)
    verdict = lake.feed_in(trade(1), trade(1, timestamp=NOON + timedelta(microseconds=1_250)))
    assert verdict.outcome.tolist() == [WRITTEN, DUPLICATE]
    assert verdict.precision_upgrades == 1


def test_two_different_microseconds_are_different_content():
    fine = [trade(1, timestamp=NOON + timedelta(microseconds=us)) for us in (1_250, 1_251, 1_000)]
    assert Lake(TRADES_FEED).feed_in(*fine).outcome.tolist() == [WRITTEN, REVISION, DUPLICATE]


def test_a_revision_that_moves_the_print_touches_both_days():
    lake = Lake(TRADES_FEED)
    lake.feed_in(trade(1))
    verdict = lake.feed_in(trade(1, timestamp=NOON + timedelta(days=9)))
    assert verdict.outcome.tolist() == [REVISION]
    assert verdict.touched == {date(2024, 8, 8)}
    assert verdict.rows["exchange_date"].to_pylist() == [date(2024, 8, 17)]


def test_a_receive_time_that_stands_in_for_the_event_time_is_no_content():
    lake = Lake(QUOTES_FEED)
    flag = int(Flag.RECEIVE_TIME_AS_EVENT_TIME)
    again = quote(5, quality_flags=flag, timestamp=NOON + timedelta(seconds=9))
    assert lake.feed_in(quote(5, quality_flags=flag), again).outcome.tolist() == [WRITTEN, DUPLICATE]


def test_a_late_quote_is_stored_and_its_copy_is_not():
    lake = Lake(QUOTES_FEED)
    lake.feed_in(quote(10), quote(20))
    assert lake.feed_in(quote(15)).outcome.tolist() == [WRITTEN]
    assert lake.feed_in(quote(15), quote(20)).outcome.tolist() == [DUPLICATE, DUPLICATE]


def test_identical_prints_of_a_file_are_all_stored_and_loading_it_again_adds_none():
    lake = Lake(ASX_FEED)
    prints = [asx_trade("36000.5", k) for k in range(3)]
    assert lake.feed_in(*prints).outcome.tolist() == [WRITTEN] * 3
    assert lake.feed_in(*prints).outcome.tolist() == [DUPLICATE] * 3
    assert lake.rows["exchange_date"].to_pylist() == [date(2014, 3, 11)] * 3


@pytest.mark.parametrize("feed", [TRADES_FEED, QUOTES_FEED], ids=["contiguous", "monotonic"])
def test_a_correction_back_to_the_old_time_is_the_next_revision_of_what_was_moved_away(feed):
    lake, made = Lake(feed), trade if feed is TRADES_FEED else quote
    price = "price" if feed is TRADES_FEED else "bid_price"
    for minutes, value in ((0, 1), (5 * 24 * 60, 2), (0, 3)):
        lake.feed_in(made(7, **{price: Decimal(value)}, timestamp=NOON + timedelta(minutes=minutes)))
    assert sorted(lake.rows["revision"].to_pylist()) == [0, 1, 2]


@pytest.mark.parametrize(
    "changes",
    [
        {"message_id": "BINANCE:BTCUSDT:trade:1"},
        {"symbol": "RIO"},
        {"timestamp": NOON},
        {"message_id": "ASX:BHP:quote:2014-03-11:36000.5:36.55:400:5:0"},
    ],
)
def test_a_key_without_an_id_must_name_its_own_place(changes):
    lake = Lake(ASX_FEED)
    lake.feed_in(asx_trade("36000.5"), {**asx_trade("36000.6"), **changes})
    assert [d.reason for d in lake.dead] == [Reason.KEY_MISMATCH]


def test_the_same_key_moved_within_its_day_is_a_revision_however_the_deliveries_are_split():
    moved = asx_trade("36000.5", timestamp=asx_trade("36000.5")["timestamp"] + timedelta(minutes=5))
    together, apart = Lake(ASX_FEED), Lake(ASX_FEED)
    together.feed_in(asx_trade("36000.5"), moved)
    apart.feed_in(asx_trade("36000.5"))
    apart.feed_in(moved)
    assert together.stored == apart.stored
    assert sorted(apart.rows["revision"].to_pylist()) == [0, 1]


@pytest.mark.parametrize(("first", "second"), [(["a", "b"], ["a\x1fb"]), ([], [""]), (["ab"], ["a", "b"])])
def test_condition_lists_that_only_look_alike_are_different_content(first, second):
    lake = Lake(TRADES_FEED)
    verdict = lake.feed_in(trade(1, trade_conditions=first), trade(1, trade_conditions=second))
    assert verdict.outcome.tolist() == [WRITTEN, REVISION]


def test_a_record_that_contradicts_itself_does_not_account_for_a_lost_id():
    lake = Lake(TRADES_FEED)
    lake.feed_in(trade(1), trade(2, exchange="EVIL"), trade(3), trade(4, message_id="x"), trade(5))
    assert lake.open_gaps == ["binance-trades:BTCUSDT:0:2-2", "binance-trades:BTCUSDT:0:4-4"]


def test_a_hole_opens_and_a_late_id_closes_it():
    lake = Lake(TRADES_FEED)
    lake.feed_in(trade(1), trade(5))
    assert lake.open_gaps == ["binance-trades:BTCUSDT:0:2-4"]
    lake.feed_in(trade(3))
    assert lake.open_gaps == ["binance-trades:BTCUSDT:0:2-2", "binance-trades:BTCUSDT:0:4-4"]
    lake.feed_in(trade(4), trade(2))
    assert lake.open_gaps == []


def test_the_id_of_a_dead_letter_is_no_gap_and_its_replay_is_no_duplicate():
    lake = Lake(TRADES_FEED)
    lake.feed_in(trade(1), trade(2, price=Decimal(0)), trade(3))
    assert lake.open_gaps == []
    assert lake.feed_in(trade(2)).outcome.tolist() == [WRITTEN]


def test_gaps_of_one_symbol_are_not_those_of_another():
    lake = Lake(TRADES_FEED)
    lake.feed_in(trade(1), trade(7, symbol="ETHUSDT"), trade(3), trade(8, symbol="ETHUSDT"))
    assert lake.open_gaps == ["binance-trades:BTCUSDT:0:2-2"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (trade(1, price=Decimal(0)), Reason.NOT_POSITIVE),
        (trade(1, quantity=Decimal(-1)), Reason.NOT_POSITIVE),
        (trade(1, symbol="", message_id="BINANCE::trade:1"), Reason.MISSING_VALUE),
        (trade(1, message_id=""), Reason.MISSING_VALUE),
        (trade(1, message_id="BINANCE:BTCUSDT:trade:2"), Reason.KEY_MISMATCH),
        (trade(1, source_sequence=None), Reason.MISSING_VALUE),
        (trade(-1), Reason.BAD_ID),
        (trade(1, exchange="KRAKEN"), Reason.UNKNOWN_EXCHANGE),
        (trade(1, asset_class="options"), Reason.WRONG_ASSET_CLASS),
        (trade(1, symbol="BTC:USDT", message_id="BINANCE:BTC:USDT:trade:1"), Reason.BAD_SYMBOL),
        (trade(1, symbol="*", message_id="BINANCE:*:trade:1"), Reason.BAD_SYMBOL),
        (trade(1, symbol="X" * 10_000), Reason.BAD_SYMBOL),
        (trade(1, ingestion_timestamp=NOON.replace(year=9999)), Reason.IMPLAUSIBLE_TIME),
        (trade(1, timestamp=NOON.replace(year=2009)), Reason.IMPLAUSIBLE_TIME),
        (trade(1, timestamp=NOON.replace(year=9000)), Reason.IMPLAUSIBLE_TIME),
        (trade(1, timestamp=NOON.replace(year=2026, month=11, day=23)), Reason.IMPLAUSIBLE_TIME),
    ],
)
def test_a_row_that_breaks_a_hard_rule_dies_with_its_reason_and_its_neighbours_live(record, reason):
    lake = Lake(TRADES_FEED)
    lake.feed_in(trade(100), record, trade(101))
    assert [d.reason for d in lake.dead] == [reason]
    assert len(lake.stored) == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"bid_price": None}, Reason.HALF_A_SIDE), ({"ask_quantity": Decimal(0)}, Reason.NOT_POSITIVE)],
)
def test_half_a_side_or_a_zero_side_is_a_dead_letter(changes, reason):
    lake = Lake(QUOTES_FEED)
    lake.feed_in(quote(1, **changes), quote(2, bid_price=None, bid_quantity=None), quote(3, bid_price=Decimal(200)))
    assert [d.reason for d in lake.dead] == [reason]
    assert lake.rows["quality_flags"].to_pylist() == [Flag.ONE_SIDED, Flag.CROSSED]


def test_a_feed_cannot_state_a_flag_that_is_the_judges_to_decide():
    lake = Lake(TRADES_FEED)
    lake.feed_in(trade(1, quality_flags=int(Flag.CROSSED | Flag.VENDOR_EXCLUDED)), trade(2, ingestion_timestamp=NOON))
    assert lake.rows["quality_flags"].to_pylist() == [Flag.VENDOR_EXCLUDED, Flag.RECEIVE_BEFORE_EVENT]


@pytest.mark.parametrize(
    ("first", "later"), [(1, ("b", "c")), (2, ("b",)), (3, ())], ids=["each apart", "two and one", "in one batch"]
)
@pytest.mark.parametrize(
    ("values", "outcomes", "reverted"),
    [
        ("aba", [WRITTEN, REVISION, DUPLICATE], 1),
        ("abb", [WRITTEN, REVISION, DUPLICATE], 0),
        ("aab", [WRITTEN, DUPLICATE, REVISION], 0),
        ("abc", [WRITTEN, REVISION, REVISION], 0),
    ],
)
@pytest.mark.parametrize("feed", [TRADES_FEED, QUOTES_FEED, ASX_FEED], ids=["contiguous", "monotonic", "none"])
def test_returning_content_is_no_revision_however_it_is_cut(feed, values, outcomes, reverted, first, later):
    lake, told = Lake(feed), [content(feed, value) for value in values]
    verdicts = [lake.feed_in(*told[:first]), *(lake.feed_in(told[first + i]) for i in range(len(later)))]
    assert [o for v in verdicts for o in v.outcome.tolist()] == outcomes
    assert sum(v.reverted for v in verdicts) == reverted
    before = lake.stored
    again = lake.feed_in(*reversed(told), *told)
    assert set(again.outcome.tolist()) == {DUPLICATE}
    assert lake.stored == before


def content(feed, value):
    """One record that says one of several things under one key."""
    number = "abc".index(value) + 1
    if feed is ASX_FEED:
        return asx_trade("36000.5", side=["BUY", "SELL", "UNKNOWN"][number - 1])
    if feed is QUOTES_FEED:
        return quote(5, bid_price=Decimal(number))
    return trade(5, price=Decimal(number))


@pytest.mark.parametrize("fine_first", [True, False])
@pytest.mark.parametrize("apart", [True, False])
def test_a_pair_of_time_units_is_one_row_whichever_comes_first_and_counted(fine_first, apart):
    coarse, fine = trade(1), trade(1, timestamp=NOON + timedelta(microseconds=1_250))
    lake, told = Lake(TRADES_FEED), [fine, coarse] if fine_first else [coarse, fine]
    verdicts = [lake.feed_in(t) for t in told] if apart else [lake.feed_in(*told)]
    assert len(lake.rows) == 1
    assert sum(v.precision_upgrades for v in verdicts) == 1
    assert sum(v.reverted for v in verdicts) == 0


def test_rows_come_out_in_the_order_of_the_table():
    lake = Lake(TRADES_FEED)
    symbols, chance = ("BTCUSDT", "ETHUSDT", "ADA", "Zz", "äb"), random.Random(5)
    records = [
        trade(n, symbol=chance.choice(symbols), timestamp=NOON + timedelta(hours=7 * chance.randint(0, 5)))
        for n in chance.sample(range(400), 300)
    ]
    rows = lake.feed_in(*records).rows
    order = [("exchange_date", "ascending"), *((name, "ascending") for name in TRADES_FEED.table.sort)]
    assert rows.equals(rows.sort_by("kafka_offset").sort_by(order))
    assert rows.schema.equals(TRADES_FEED.table.arrow_schema())


def test_ties_stay_as_they_arrived_and_a_missing_sequence_comes_last():
    lake, at = Lake(ASX_FEED), asx_trade("36000.5")["timestamp"]
    numbers = [None, 7, None, 3, 7]
    rows = lake.feed_in(*(asx_trade("36000.5", k, source_sequence=n, timestamp=at) for k, n in enumerate(numbers))).rows
    assert rows["platform_sequence"].to_pylist() == [3, 1, 4, 0, 2]


def test_a_statement_that_is_delivered_twice_is_stored_once():
    lake = Lake(FEEDS["coverage"])
    nothing = dict.fromkeys(("first_id", "last_id", "opened", "closed", "letter", "delivered", "gap_id", "evidence"))
    told = {
        **nothing,
        "message_id": "COVERAGE:c0ffee:binance-trades/*:opened",
        "collection_id": "c0ffee",
        "event": "opened",
        "feed": "binance-trades",
        "source": "a file",
        "exchange": "BINANCE",
        "symbol": "*",
        "timestamp": NOON,
        "rows": 0,
        "rejected": 0,
        "ingestion_timestamp": NOON,
    }
    assert lake.feed_in(told, told).outcome.tolist() == [WRITTEN, DUPLICATE]
    later = {**told, "timestamp": NOON + timedelta(seconds=1)}
    assert lake.feed_in(told, later, {**told, "rows": 1}).outcome.tolist() == [DUPLICATE, DUPLICATE, REVISION]
