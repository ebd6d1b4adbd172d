from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k2_core.contracts import QUOTES, TRADES
from k2_core.quality import Flag
from k2_feeds.binance_frames import currency_of, parse_frame
from k2_feeds.outcomes import PassedOver, Refusal, Row, Unusable

RECEIVED_US = 1_723_161_254_087_896
TRADE = {"e": "trade", "E": 1723161255343, "s": "BTCUSDT", "t": 3735683259, "p": "61837.63000000", "q": "0.02000000",
         "T": 1723161255342, "m": True, "M": True}  # fmt: skip
TICKER = {"u": 50093239212, "s": "BTCUSDT", "b": "61837.63000000", "B": "3.78826000", "a": "61837.64000000", "A": "1.5"}
GONE = object()


def frame(event, **changes):
    changed = {**event, **changes}
    return json.dumps({key: value for key, value in changed.items() if value is not GONE}).encode()


def row(content):
    found = parse_frame(content, RECEIVED_US)
    assert isinstance(found, Row)
    return found


def refusal(content):
    with pytest.raises(Unusable) as refused:
        parse_frame(content, RECEIVED_US)
    return refused.value.reason


def test_a_trade_becomes_a_row_with_every_column_of_its_contract():
    found = row(frame(TRADE))
    assert (found.feed, found.symbol) == ("binance-trades", "BTCUSDT")
    assert found.record == {
        "message_id": "BINANCE:BTCUSDT:trade:3735683259",
        "trade_id": "BINANCE-3735683259",
        "symbol": "BTCUSDT",
        "exchange": "BINANCE",
        "asset_class": "crypto",
        "currency": "USDT",
        "timestamp": 1_723_161_255_342_000,
        "price": Decimal("61837.63"),
        "quantity": Decimal("0.02"),
        "side": "SELL",
        "trade_conditions": [],
        "source_sequence": 3735683259,
        "platform_sequence": None,
        "ingestion_timestamp": RECEIVED_US,
        "vendor_data": {"E": "1723161255343"},
        "quality_flags": 0,
    }
    assert set(found.record) == {column.name for column in TRADES.feed_columns}


def test_a_book_ticker_has_the_time_of_receipt_and_says_so():
    record = row(frame(TICKER)).record
    assert record["timestamp"] == record["ingestion_timestamp"] == RECEIVED_US
    assert record["quality_flags"] == Flag.RECEIVE_TIME_AS_EVENT_TIME
    assert record["message_id"] == "BINANCE:BTCUSDT:quote:50093239212"
    assert (record["bid_price"], record["ask_quantity"]) == (Decimal("61837.63"), Decimal("1.5"))
    assert set(record) == {column.name for column in QUOTES.feed_columns}


def test_a_side_of_zeros_is_absent():
    record = row(frame(TICKER, a="0.00000000", A="0.00000000")).record
    assert (record["ask_price"], record["ask_quantity"]) == (None, None)


def test_the_buyer_is_the_aggressor_when_the_maker_sold():
    assert row(frame(TRADE, m=False)).record["side"] == "BUY"


def test_milliseconds_and_microseconds_are_told_apart_by_their_size():
    assert row(frame(TRADE, T=1_735_689_600_123_456)).record["timestamp"] == 1_735_689_600_123_456
    assert row(frame(TRADE, T=1_735_689_600_123)).record["timestamp"] == 1_735_689_600_123_000


def test_a_trade_says_the_same_raw_and_wrapped():
    wrapped = json.dumps({"stream": "btcusdt@trade", "data": TRADE}).encode()
    assert parse_frame(wrapped, RECEIVED_US) == parse_frame(frame(TRADE), RECEIVED_US)


def test_a_wrapped_book_ticker_is_known_by_its_stream():
    wrapped = json.dumps({"stream": "btcusdt@bookTicker", "data": TICKER}).encode()
    assert parse_frame(wrapped, RECEIVED_US) == parse_frame(frame(TICKER), RECEIVED_US)


def test_prices_as_json_numbers_are_exact():
    content = frame(TRADE).replace(b'"61837.63000000"', b"61837.63000001").replace(b'"0.02000000"', b"3")
    assert row(content).record["price"] == Decimal("61837.63000001")
    assert row(content).record["quantity"] == 3


@pytest.mark.parametrize(
    ("pair", "currency"),
    [("BTCUSDT", "USDT"), ("BTCFDUSD", "FDUSD"), ("USDTTRY", "TRY"), ("ETHBTC", "BTC"), ("USDT", "UNKNOWN"),
     ("币安人生USDC", "USDC"), ("WHATEVER", "UNKNOWN")],
)  # fmt: skip
def test_the_currency_is_the_longest_known_quote_asset(pair, currency):
    assert currency_of(pair) == currency


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","U":1,"u":2}}', "depthUpdate"),
        (b'{"stream":"btcusdt@depth20@100ms","data":{"lastUpdateId":1,"bids":[],"asks":[]}}', "depth20@100ms"),
        (b'{"lastUpdateId":1,"bids":[],"asks":[]}', "depth snapshot"),
        (b'{"e":"aggTrade","a":1,"s":"BTCUSDT"}', "aggTrade"),
        (b'{"e":"kline"}', "kline"),
        (b'{"e":"blockTrade","t":1,"s":"BTCUSDT"}', "blockTrade"),
        (b'{"result":null,"id":1}', "answer"),
        (b'{"error":{"code":2,"msg":"x"},"id":1}', "answer"),
        (b'{"stream":"!miniTicker@arr","data":[{"e":"24hrMiniTicker"}]}', "miniTicker@arr"),
        (b'{"stream":"!serverShutdown","data":{"e":"serverShutdown"}}', "serverShutdown"),
        (b"{}", "unnamed"),
        (frame(TRADE, X="MARKET"), "futures trade"),
        (frame(TICKER, e="bookTicker", T=1, E=1), "futures bookTicker"),
    ],
)
def test_other_frames_are_passed_over_by_their_kind(content, kind):
    assert parse_frame(content, RECEIVED_US) == PassedOver(kind)


def test_the_name_of_a_kind_stays_short():
    found = parse_frame(json.dumps({"e": "x" * 100_000}).encode(), RECEIVED_US)
    assert isinstance(found, PassedOver)
    assert len(found.kind) == 40


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"p": "NaN"}, Refusal.NOT_A_NUMBER),
        ({"p": "Infinity"}, Refusal.NOT_A_NUMBER),
        ({"p": "-1"}, Refusal.NOT_POSITIVE),
        ({"p": "0.00000000"}, Refusal.NOT_POSITIVE),
        ({"q": "0"}, Refusal.NOT_POSITIVE),
        ({"q": "46116860414.00000000"}, Refusal.DECIMAL_OVERFLOW),
        ({"p": "0.123456789"}, Refusal.TOO_MANY_DECIMALS),
        ({"p": None}, Refusal.WRONG_TYPE),
        ({"p": True}, Refusal.WRONG_TYPE),
        ({"p": GONE}, Refusal.MISSING_VALUE),
        ({"t": GONE}, Refusal.MISSING_VALUE),
        ({"s": GONE}, Refusal.MISSING_VALUE),
        ({"m": GONE}, Refusal.MISSING_VALUE),
        ({"T": GONE}, Refusal.MISSING_VALUE),
        ({"t": True}, Refusal.WRONG_TYPE),
        ({"t": "1"}, Refusal.WRONG_TYPE),
        ({"t": -1}, Refusal.BAD_ID),
        ({"t": 2**63}, Refusal.BAD_ID),
        ({"m": 1}, Refusal.WRONG_TYPE),
        ({"m": "true"}, Refusal.WRONG_TYPE),
        ({"T": 0}, Refusal.IMPLAUSIBLE_TIME),
        ({"T": -5}, Refusal.IMPLAUSIBLE_TIME),
        ({"T": 1_723_161_255_342_000_000}, Refusal.IMPLAUSIBLE_TIME),
        ({"T": "1723161255342"}, Refusal.WRONG_TYPE),
        ({"E": "x"}, Refusal.WRONG_TYPE),
        ({"s": "A:B"}, Refusal.BAD_SYMBOL),
        ({"s": "A\u0007"}, Refusal.BAD_SYMBOL),
        ({"s": "\ud800"}, Refusal.BAD_SYMBOL),
        ({"s": ""}, Refusal.BAD_SYMBOL),
        ({"s": 5}, Refusal.WRONG_TYPE),
        ({"e": 5}, Refusal.WRONG_TYPE),
    ],
)
def test_a_trade_that_is_none_is_refused_by_its_reason(changes, reason):
    assert refusal(frame(TRADE, **changes)) is reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"b": "0.00000000"}, Refusal.HALF_A_SIDE),
        ({"A": "0"}, Refusal.HALF_A_SIDE),
        ({"a": "-1"}, Refusal.NOT_POSITIVE),
        ({"B": GONE}, Refusal.MISSING_VALUE),
        ({"u": -1}, Refusal.BAD_ID),
    ],
)
def test_a_book_ticker_that_is_none_is_refused_by_its_reason(changes, reason):
    assert refusal(frame(TICKER, **changes)) is reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", Refusal.NOT_JSON),
        (b"{", Refusal.NOT_JSON),
        (b'{"p":NaN}', Refusal.NOT_JSON),
        (b'{"t":' + b"9" * 5_000 + b"}", Refusal.NOT_JSON),
        (b"[" * 100_000, Refusal.NOT_JSON),
        (b'{"p":1e99999999999999999999}', Refusal.NOT_JSON),
        (b'{"e":"trade","s":"\xff"}', Refusal.NOT_UTF8),
        (b"[1]", Refusal.WRONG_TYPE),
        (b'"trade"', Refusal.WRONG_TYPE),
        (b'{"stream":5,"data":{}}', Refusal.WRONG_TYPE),
        (b'{"stream":"x@trade","data":"y"}', Refusal.WRONG_TYPE),
        (b'{"stream":"x@trade"}', Refusal.WRONG_TYPE),
        (b'{"stream":"x@trade","data":{}}', Refusal.MISSING_VALUE),
        (b'{"stream":"x@bookTicker","data":{}}', Refusal.MISSING_VALUE),
    ],
)
def test_a_frame_that_is_none_is_refused_by_its_reason(content, reason):
    assert refusal(content) is reason


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=4),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the first text builds a table of Unicode
@given(st.dictionaries(st.sampled_from(["e", "E", "s", "t", "p", "q", "T", "m", "u", "b", "B", "a", "A", "X"]), JSON))
def test_whatever_a_frame_holds_it_is_a_row_a_kind_or_a_refusal(changes):
    for event in (TRADE, TICKER, {}):
        try:
            found = parse_frame(json.dumps({**event, **changes}).encode(), RECEIVED_US)
        except Unusable as refused:
            assert refused.detail
        else:
            assert isinstance(found, Row | PassedOver)


@given(st.binary())
def test_whatever_the_bytes_are_they_are_a_kind_or_a_refusal(content):
    try:
        assert isinstance(parse_frame(content, RECEIVED_US), PassedOver)
    except Unusable as refused:
        assert refused.detail
