from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from k2_feeds.exchange.ledger import Ledger, Published
from k2_feeds.exchange.ticks import UNIT, Print, Quote, text, units

S = "SIMBTCUSDT"


def trade(trade_id, time_us=10, price=3 * UNIT, quantity=UNIT // 2, maker=False):
    return Print(S, time_us, trade_id, time_us, price, quantity, maker)


def filled(*trades):
    ledger = Ledger()
    for one in trades:
        ledger.add(one)
    return ledger


@given(st.integers(0, 10**18))
def test_numbers_are_written_with_eight_decimals_and_read_back(value):
    assert units(Decimal(text(value))) == value
    assert len(text(value).partition(".")[2]) == 8


def test_a_trade_is_told_as_it_was_published():
    ledger = filled(trade(5, time_us=7, maker=True))
    assert ledger.trades(S) == [Published(0, 5, 7, Decimal(3), Decimal("0.5"), buyer_is_maker=True)]
    assert ledger.trade_count() == ledger.trade_count(S) == 1
    assert ledger.trades("NOBODY") == []


@given(st.lists(st.integers(0, 30)), st.integers(0, 30), st.integers(1, 10))
def test_pages_from_an_id_agree_with_a_naive_list(ids, first, count):
    ledger = filled(*map(trade, ids))
    kept = sorted(set(ids))
    assert [one.trade_id for one in ledger.from_id(S, first, count)] == [i for i in kept if i >= first][:count]
    assert [one.trade_id for one in ledger.latest(S, count)] == kept[-count:]
    assert [one.trade_id for one in ledger.trades(S)] == kept


rarely = st.sampled_from([False] * 4 + [True])  # most neighbours belong together, so that late ones come between
fills = st.tuples(st.integers(0, 12), rarely.map(int), rarely.map(lambda other: 1 + other), st.integers(1, 9), rarely)


@given(st.lists(fills), st.lists(fills))
def test_aggregates_cover_every_trade_once_also_after_late_ones(early, late):
    ledger = filled(*(trade(*one) for one in early))
    whole(ledger, early)
    for one in late:
        ledger.add(trade(*one))
    whole(ledger, [*early, *late])


def whole(ledger, expected):
    """Aggregates are numbered without holes, hold all quantity, and end where time, price, side or ids change."""
    kept = {}
    for trade_id, time_us, price, quantity, maker in expected:
        kept.setdefault(trade_id, (time_us, price, maker, quantity))
    found = ledger.aggregates(S, 1_000, first_id=1, start_us=None, end_us=None)
    assert [one.aggregate_id for one in found] == list(range(1, len(found) + 1))
    assert sum(one.quantity for one in found) == sum(values[3] for values in kept.values())
    covered = [i for one in found for i in range(one.first.trade_id, one.last_id + 1)]
    assert covered == sorted(kept)
    for one in found:
        assert len({kept[i][:3] for i in range(one.first.trade_id, one.last_id + 1)}) == 1
    for a, b in pairwise(found):
        assert b.first.trade_id > a.last_id + 1 or kept[a.last_id][:3] != kept[b.first.trade_id][:3]


def test_aggregates_are_found_by_id_by_time_and_from_the_end():
    ledger = filled(*(trade(i, time_us=10 * i) for i in range(1, 8)))
    ids = lambda **options: [one.aggregate_id for one in ledger.aggregates(S, 3, **options)]  # noqa: E731
    assert ids(first_id=2, start_us=None, end_us=None) == [2, 3, 4]
    assert ids(start_us=35, end_us=50) == [4, 5]
    assert ids(start_us=None, end_us=20) == [1, 2]
    assert ids(start_us=None, end_us=None) == [5, 6, 7]


def test_another_numbering_hides_the_earlier_one_from_rest_and_not_from_the_truth():
    ledger = filled(trade(100), trade(101))
    ledger.begin_session(S)
    ledger.add(trade(1))
    ledger.miss(S, 2)
    ledger.withhold(S, 1)
    assert [one.trade_id for one in ledger.from_id(S, 0, 10)] == [1]
    told = [(one.session, one.trade_id) for one in ledger.trades(S)]
    assert told == [(0, 100), (0, 101), (1, 1)]
    for start in range(4):
        for end in range(4):
            assert [(one.session, one.trade_id) for one in ledger.trades(S, start, end)] == told[start:end]
    assert ledger.absent(S) == [(1, 2)]
    assert ledger.withheld(S) == [(1, 1)]


def test_quotes_are_kept_in_their_order():
    ledger = Ledger()
    ledger.add_quote(Quote(S, 1, 9, 2 * UNIT, UNIT, 3 * UNIT, UNIT))
    ledger.add_quote(Quote(S, 2, 12, 0, 0, 3 * UNIT, UNIT))
    assert [row[0] for row in ledger.quotes(S)] == [9, 12]
    assert ledger.quotes(S)[1] == (12, Decimal(0), Decimal(0), Decimal(3), Decimal(1))
    assert (ledger.symbols(), ledger.quote_count(S), ledger.quote_count("NOBODY")) == ([S], 2, 0)
