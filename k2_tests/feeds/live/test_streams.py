from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2_core.errors import BadInput
from k2_feeds.live.streams import STREAMS_MAX, spread, streams_of, symbol_of


def test_a_symbol_is_one_stream_and_with_quotes_two():
    assert streams_of(["btcUSDT", "ETHUSDT", "BTCUSDT"], quotes=False) == [("btcusdt@trade",), ("ethusdt@trade",)]
    assert streams_of(["BTCUSDT"], quotes=True) == [("btcusdt@trade", "btcusdt@bookTicker")]
    assert symbol_of("btcusdt@bookTicker") == "BTCUSDT"


@pytest.mark.parametrize("symbols", [[], [""], ["BTC/USDT"], ["btcusdt@trade"], ["A?B"], ["*"], ["X" * 200]])
def test_what_can_be_no_symbol_is_refused(symbols):
    with pytest.raises(BadInput):
        streams_of(symbols, quotes=False)


@given(st.integers(1, 3_000), st.booleans())
def test_streams_are_spread_within_the_limit_over_as_few_connections_as_that_takes(symbols, quotes):
    streams = streams_of((f"S{i}" for i in range(symbols)), quotes=quotes)
    connections = spread(streams)
    assert [name for names in connections for name in names] == [name for names in streams for name in names]
    assert max(map(len, connections)) <= STREAMS_MAX
    per_connection = STREAMS_MAX // (2 if quotes else 1)
    assert len(connections) == -(-symbols // per_connection)
    assert max(map(len, connections)) - min(map(len, connections)) <= (2 if quotes else 1)
