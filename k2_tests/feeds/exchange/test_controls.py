from __future__ import annotations

import json

import pytest

from k2_feeds.exchange.controls import Malformed, Subscriptions, obey, read_url

MAX = 4


def subscribed(*streams):
    return Subscriptions(is_combined=True, is_microseconds=False, streams=dict.fromkeys(streams))


def ask(subscriptions, **request):
    return json.loads(obey(json.dumps(request), subscriptions, MAX))


@pytest.mark.parametrize(
    ("target", "streams", "combined", "microseconds"),
    [
        ("/ws/btcusdt@trade", ["btcusdt@trade"], False, False),
        ("/ws/btcusdt@trade/ethusdt@bookTicker", ["btcusdt@trade", "ethusdt@bookTicker"], False, False),
        ("/ws", [], False, False),
        ("/stream", [], True, False),
        ("/stream?streams=a@trade/b@trade&timeUnit=MICROSECOND", ["a@trade", "b@trade"], True, True),
        ("/stream?timeUnit=microsecond&streams=%E5%B8%81usdt@trade", ["币usdt@trade"], True, True),
        ("/ws/%E5%B8%81usdt@trade?timeUnit=MILLISECOND", ["币usdt@trade"], False, False),
        ("/stream?streams=a@trade/a@trade", ["a@trade"], True, False),
    ],
)
def test_a_url_says_which_streams_and_how(target, streams, combined, microseconds):
    found = read_url(target, MAX)
    assert (list(found.streams), found.is_combined, found.is_microseconds) == (streams, combined, microseconds)


@pytest.mark.parametrize("target", ["/", "/api/v3/ping", "/stream/x", "/wss/a@trade"])
def test_other_paths_are_no_streams(target):
    assert read_url(target, MAX) is None


@pytest.mark.parametrize(
    "target", ["/ws/a@trade?timeUnit=NANOSECOND", "/stream?streams=a@b/c@d/e@f/g@h/i@j", "/ws/a b@trade"]
)
def test_a_url_that_cannot_be_served_is_refused(target):
    with pytest.raises(Malformed):
        read_url(target, MAX)


def test_streams_come_and_go():
    mine = subscribed("a@trade")
    assert ask(mine, method="SUBSCRIBE", params=["b@trade", "c@bookTicker"], id=1) == {"result": None, "id": 1}
    assert ask(mine, method="UNSUBSCRIBE", params=["a@trade"], id=2) == {"result": None, "id": 2}
    assert ask(mine, method="LIST_SUBSCRIPTIONS", id="x-3") == {"result": ["b@trade", "c@bookTicker"], "id": "x-3"}


def test_the_property_combined_can_be_read_and_set():
    mine = subscribed()
    assert ask(mine, method="GET_PROPERTY", params=["combined"], id=1)["result"] is True
    assert ask(mine, method="SET_PROPERTY", params=["combined", False], id=None) == {"result": None, "id": None}
    assert mine.is_combined is False


@pytest.mark.parametrize(
    ("request_text", "code"),
    [
        ("{", 3),
        ("[" * 100_000, 3),
        ("[]", 2),
        ("{}", 2),
        ('{"method":"SUBSCRIBE","params":["a@trade"]}', 2),
        ('{"method":"SUBSCRIBE","params":["a@trade"],"id":1.5}', 2),
        ('{"method":"SUBSCRIBE","params":["a@trade"],"id":99999999999999999999}', 2),
        ('{"id":1}', 2),
        ('{"method":"SUBSCIRBE","id":1}', 2),
        ('{"method":"SUBSCRIBE","params":"a@trade","id":1}', 2),
        ('{"method":"SUBSCRIBE","params":[7],"id":1}', 2),
        ('{"method":"SUBSCRIBE","params":["not a stream"],"id":1}', 2),
        ('{"method":"SUBSCRIBE","params":["a@1","a@2","a@3","a@4","a@5"],"id":1}', 2),
        ('{"method":"GET_PROPERTY","params":[],"id":1}', 2),
        ('{"method":"GET_PROPERTY","params":["combined",1],"id":1}', 2),
        ('{"method":"GET_PROPERTY","params":["colour"],"id":1}', 0),
        ('{"method":"SET_PROPERTY","params":["combined","yes"],"id":1}', 1),
    ],
)
def test_a_bad_request_is_answered_with_its_error_and_changes_nothing(request_text, code):
    mine = subscribed("z@trade")
    assert json.loads(obey(request_text, mine, MAX))["error"]["code"] == code
    assert mine == subscribed("z@trade")
