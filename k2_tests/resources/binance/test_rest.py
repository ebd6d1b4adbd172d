"""Binance's REST asked over a real socket: weights, refusals, troubles that pass and troubles that do not."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2_core.errors import BadInput, Misconfigured, Unreachable
from k2_resources.binance import rest as rest_module
from k2_resources.binance.rest import BinanceRest
from k2_resources.binance.weights import WINDOW_SECONDS, WeightBudget
from k2_tests.conftest import free_port
from k2_tests.small_exchange import Reply, SmallExchange, rest_trade, small_exchange

BUSY = Reply(503, b'{"code":-1008,"msg":"Server is currently overloaded."}')


@pytest.fixture(scope="module")
def serving() -> Iterator[SmallExchange]:
    with small_exchange() as here:
        yield here


@pytest.fixture
def here(serving: SmallExchange) -> SmallExchange:
    serving.begin_anew()
    serving.lists("BTCUSDT", range(1, 21))
    return serving


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def rest(here: SmallExchange, waits: list[float]) -> Iterator[BinanceRest]:
    """Waits are noted and hardly made: what is obeyed is how long it was to be."""

    def wait(seconds: float) -> None:
        waits.append(seconds)
        time.sleep(min(seconds, 0.02))

    with BinanceRest(here.url, wait=wait, pause_seconds_first=0.001) as rest:
        yield rest


def test_trades_come_as_the_exchange_wrote_them_with_the_digest_of_its_bytes(
    rest: BinanceRest, here: SmallExchange
) -> None:
    answer = rest.trades("BTCUSDT", 19, limit=5)
    assert answer.document == [rest_trade(19), rest_trade(20)]
    assert (answer.status, answer.asked) == (200, "/api/v3/historicalTrades?symbol=BTCUSDT&fromId=19&limit=5")
    assert answer.sha256 == hashlib.sha256(json.dumps(answer.document).encode()).hexdigest()


def test_symbols_of_any_script_reach_the_exchange(rest: BinanceRest, here: SmallExchange) -> None:
    here.lists("币安人生USDT", [7])
    assert rest.trades("币安人生USDT", 0).document == [rest_trade(7)]
    asked = rest.exchange_info(["币安人生USDT", "A&B=C"])["symbols"]
    assert json.loads(asked) == ["币安人生USDT", "A&B=C"]
    assert rest.server_time_ms() == 1_735_689_600_000


def test_an_unknown_symbol_is_bad_input_with_the_words_of_the_exchange_and_asked_once(
    rest: BinanceRest, here: SmallExchange
) -> None:
    with pytest.raises(BadInput, match=r"HTTP 400, -1121: Invalid symbol\."):
        rest.trades("NOPE", 0)
    assert len(here.asked) == 1


def test_a_busy_exchange_is_asked_again_with_growing_pauses(
    rest: BinanceRest, here: SmallExchange, waits: list[float]
) -> None:
    here.replies.extend(
        [BUSY, Reply(502, b"<html>Bad Gateway</html>"), Reply(200, b"<html>welcome"), Reply(200, b"{}")]
    )
    assert len(rest.trades("BTCUSDT", 1).document) == 20
    assert len(here.asked) == 5
    assert len(waits) == 4


def test_an_exchange_that_stays_busy_is_unreachable_and_says_what_it_said(
    rest: BinanceRest, here: SmallExchange
) -> None:
    here.replies.extend([BUSY] * rest_module.ATTEMPTS_MAX)
    with pytest.raises(Unreachable, match=r"HTTP 503, -1008: Server is currently overloaded\.; tried 6 times"):
        rest.trades("BTCUSDT", 1)
    assert len(here.asked) == rest_module.ATTEMPTS_MAX


def test_nobody_there_is_unreachable(waits: list[float]) -> None:
    with (
        BinanceRest(f"http://127.0.0.1:{free_port()}", attempts_max=2, wait=waits.append) as rest,
        pytest.raises(Unreachable, match="tried 2 times"),
    ):
        rest.server_time_ms()


@pytest.mark.parametrize("url", ["", "api.binance.com", "ftp://api.binance.com", "http://", "http://x:port"])
def test_an_address_that_is_none_is_misconfigured(url: str) -> None:
    with pytest.raises(Misconfigured):
        BinanceRest(url)


@pytest.mark.parametrize("status", [429, 418])
def test_silence_is_kept_as_long_as_the_exchange_asks_for_it(
    status: int, rest: BinanceRest, here: SmallExchange, waits: list[float]
) -> None:
    here.replies.append(Reply(status, b'{"code":-1003,"msg":"Too much request weight used"}', {"Retry-After": "1"}))
    began = time.monotonic()
    assert len(rest.trades("BTCUSDT", 1).document) == 20
    first, second = (at for at, _ in here.asked)
    assert second - first >= 1.0
    assert time.monotonic() - began < 3
    assert max(waits) <= 1.0


def test_a_long_ban_is_told_at_once_and_nothing_is_sent_until_it_ends(rest: BinanceRest, here: SmallExchange) -> None:
    here.replies.append(Reply(418, b'{"code":-1003,"msg":"IP banned until 1735689600000"}', {"Retry-After": "259200"}))
    for _ in range(2):
        with pytest.raises(Unreachable, match=r"asks for silence for another 2\d{5} s"):
            rest.trades("BTCUSDT", 1)
    assert len(here.asked) == 1


@pytest.mark.parametrize("text", [None, "soon", "-5", "9" * 40])
def test_a_retry_after_that_says_nothing_means_a_minute(
    text: str | None, here: SmallExchange, waits: list[float]
) -> None:
    here.replies.append(Reply(429, b"", {} if text is None else {"Retry-After": text}))
    with BinanceRest(here.url, wait_seconds_max=5, wait=waits.append) as rest, pytest.raises(Unreachable) as refused:
        rest.trades("BTCUSDT", 1)
    assert "another 60 s" in str(refused.value)


def test_what_was_used_from_this_address_counts_whoever_used_it(here: SmallExchange, waits: list[float]) -> None:
    class Enough(Exception):
        pass

    def wait(seconds: float) -> None:
        waits.append(seconds)
        raise Enough

    here.used_weight = 5_990
    with BinanceRest(here.url, wait=wait) as rest:
        rest.trades("BTCUSDT", 1)
        with pytest.raises(Enough):
            rest.trades("BTCUSDT", 1)
    assert WINDOW_SECONDS - 1 < waits[0] <= WINDOW_SECONDS
    assert len(here.asked) == 1


@pytest.mark.parametrize(
    "body", [b"[1]", b"null", b'{"a":1}', b"[" * 100_000, b"\xff\xfe", b'[{"id":1', b"9" * 5_000, b'[{"id":NaN}, 2]']
)
def test_what_is_no_answer_of_an_exchange_ends_in_an_error_and_never_in_a_crash(
    body: bytes, rest: BinanceRest, here: SmallExchange
) -> None:
    here.replies.extend([Reply(200, body)] * rest_module.ATTEMPTS_MAX)
    with pytest.raises(Unreachable):
        rest.trades("BTCUSDT", 1)


def test_an_endless_answer_is_not_read_to_its_end(
    rest: BinanceRest, here: SmallExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest_module, "ANSWER_BYTES_MAX", 1_000)
    here.replies.append(Reply(200, b" " * 5_000))
    with pytest.raises(Unreachable, match="more than 1,000 bytes"):
        rest.trades("BTCUSDT", 1)


@given(
    st.integers(50, 200),
    st.lists(st.tuples(st.integers(1, 50), st.floats(0, 40), st.one_of(st.none(), st.integers(0, 200))), max_size=60),
)
def test_no_sixty_seconds_hold_more_than_the_budget(limit: int, requests: list[tuple[int, float, int | None]]) -> None:
    """requests: weight, seconds of thought before it, and the use the exchange tells."""
    now = 0.0
    budget, spent = WeightBudget(limit, lambda: now), []
    for weight, pause, told in requests:
        now += pause
        while (seconds := budget.seconds_until(weight)) > 0:
            assert seconds <= WINDOW_SECONDS + 1e-6
            now += seconds
        spent.append((now, weight))
        now += 0.2
        budget.note(weight, told)
    for start, _ in spent:
        assert sum(weight for at, weight in spent if start <= at < start + WINDOW_SECONDS) <= limit


def test_a_request_that_never_fits_is_told_at_once() -> None:
    with pytest.raises(Misconfigured, match="weighs 25"):
        WeightBudget(20).seconds_until(25)
