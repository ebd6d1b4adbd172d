from __future__ import annotations

from collections import Counter, defaultdict
from itertools import islice, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from k2_feeds.exchange.market import CRASH_FACTOR, CRASH_SECONDS, Market
from k2_feeds.exchange.ticks import Print, Quote

START_US = 1_760_000_000_000_000
SYMBOLS = ("SIMBTCUSDT", "SIMETHUSDT", "SIMSOLUSDT", "SIMXRPUSDT")


def ticks(seed=1, count=20_000, rate=20.0, crash=None):
    return list(islice(Market(seed, SYMBOLS, START_US, rate, crash).ticks(), count))


def prints(found):
    return [tick for tick in found if isinstance(tick, Print)]


def test_the_same_seed_gives_the_same_market_and_another_seed_another():
    assert ticks(7, 2_000) == ticks(7, 2_000)
    assert ticks(7, 2_000) != ticks(8, 2_000)


@settings(max_examples=20)
@given(st.integers(), st.floats(0.5, 500), st.floats(0, 5))
def test_ids_are_contiguous_and_time_never_goes_back(seed, rate, crash):
    found = ticks(seed, 500, rate, crash)
    assert all(a.at_us <= b.at_us for a, b in pairwise(found))
    ids = defaultdict(list)
    for tick in prints(found):
        ids[tick.symbol].append(tick.trade_id)
        assert tick.price > 0 and tick.quantity > 0 and tick.time_us == tick.at_us
    assert all(list(range(seen[0], seen[0] + len(seen))) == seen for seen in ids.values())


def test_an_exchange_started_a_second_later_goes_on_above_the_ids_of_the_earlier_one():
    calm = [tick.trade_id for tick in prints(ticks(count=5_000)) if tick.at_us < START_US + 1_000_000]
    later = next(Market(1, SYMBOLS, START_US + 1_000_000, 20.0).ticks())
    assert isinstance(later, Print)
    assert later.trade_id > max(calm)


def test_few_symbols_trade_most():
    counts = Counter(tick.symbol for tick in prints(ticks()))
    assert [symbol for symbol, _ in counts.most_common()] == list(SYMBOLS)
    assert counts[SYMBOLS[0]] > 3 * counts[SYMBOLS[3]]


def test_trades_cluster_and_fills_of_one_order_share_their_time():
    found = prints(ticks())
    per_second = Counter((tick.at_us - START_US) // 1_000_000 for tick in found)
    assert max(per_second.values()) > 4 * 20
    assert any(a.symbol == b.symbol and a.time_us == b.time_us and a.price == b.price for a, b in pairwise(found))


def test_books_are_crossed_now_and_then():
    quotes = [tick for tick in ticks() if isinstance(tick, Quote)]
    crossed = sum(tick.bid > tick.ask for tick in quotes)
    assert 0 < crossed < len(quotes) / 100
    assert all(tick.update_id for tick in quotes)


def test_a_flash_crash_trades_a_hundred_times_as_much_and_takes_the_price_down_and_back():
    found = prints(ticks(count=60_000, crash=30.0))
    at = [((tick.at_us - START_US) / 1_000_000, tick) for tick in found if tick.symbol == SYMBOLS[0]]
    inside = [tick for second, tick in at if 30 <= second < 30 + CRASH_SECONDS]
    before = [tick for second, tick in at if second < 30]
    after = [tick for second, tick in at if 30 + CRASH_SECONDS <= second < 32 + CRASH_SECONDS]
    factor = (len(inside) / CRASH_SECONDS) / (len(before) / 30)
    assert 0.7 * CRASH_FACTOR < factor < 1.3 * CRASH_FACTOR
    assert min(tick.price for tick in inside) < 0.9 * before[-1].price
    assert after[-1].price > 0.97 * before[-1].price


def test_a_crash_can_be_had_at_any_moment():
    market = Market(1, SYMBOLS, START_US, 20.0)
    source = market.ticks()
    last = [next(source) for _ in range(100)][-1]
    market.weather.crash(last.at_us)
    inside = [next(source) for _ in range(5_000)]
    assert (inside[-1].at_us - last.at_us) / 1_000_000 < CRASH_SECONDS
