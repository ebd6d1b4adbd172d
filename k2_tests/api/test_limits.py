"""How much may be asked: rates with their prices, bodies, and what browsers of other origins are told."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from fastapi import Response

from k2_api.app import create_app
from k2_api.keys import create_key
from k2_api.rates import BYTES_PER_UNIT, EXACT_MAX, Rates
from k2_tests.api.homes import serving, settings_of
from k2_tests.api.sockets import answers, connected, head
from k2_tests.api.test_protocol import check_problem

RATE = 12
BODY_BYTES = 2_000
BODY_SECONDS = 1.0
LARGE = "/v1/large"
PAGE = "http://desk.example"
RATE_HEADERS = {"ratelimit", "ratelimit-policy", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}


class Limited:
    """A server with low limits. Each asker has a key nobody has asked with before."""

    def __init__(self, home: Path) -> None:
        rates = {"api_rate_per_minute": RATE, "api_probes_per_minute": RATE}
        bodies = {"api_body_bytes_max": BODY_BYTES, "api_body_seconds_max": BODY_SECONDS}
        self.settings = settings_of(home, **rates, **bodies, api_cors_origins=f"{PAGE}, http://b.example")
        self._secrets = [self._key(f"holder-{n}") for n in range(8)]
        self.rated = self._key("rated", RATE + 3)
        self.client: httpx.Client

    def _key(self, name: str, rate: int | None = None) -> str:
        return create_key(self.settings.api_keys_file, name, ["read"], rate_per_minute=rate)[1]

    def asker(self, secret: str | None = None) -> httpx.Client:
        headers = {"X-API-Key": secret or self._secrets.pop()}
        return httpx.Client(base_url=self.client.base_url, headers=headers, trust_env=False, timeout=60)


def large(units: int) -> Response:
    return Response(bytes(units * BYTES_PER_UNIT))


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Limited]:
    made = Limited(tmp_path_factory.mktemp("limits"))
    app = create_app(made.settings)
    app.add_api_route(LARGE, large)
    with serving(made.settings, app) as made.client:
        yield made


def left(response: httpx.Response) -> int:
    return int(response.headers["X-RateLimit-Remaining"])


def test_a_key_has_so_many_requests_a_minute_and_another_key_its_own(limited: Limited) -> None:
    with limited.asker() as client, limited.asker() as other:
        found = [client.get("/v1/symbols") for _ in range(RATE)]
        assert [r.status_code for r in found] == [200] * RATE
        assert [left(r) for r in found] == list(reversed(range(RATE)))
        refused = client.get("/v1/symbols")
        assert (refused.status_code, check_problem(refused)["code"]) == (429, "RATE_LIMIT_EXCEEDED")
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert set(refused.headers) >= RATE_HEADERS
        assert left(other.get("/v1/symbols")) == RATE - 1


def test_the_headers_are_those_of_the_draft_and_of_the_original_platform(limited: Limited) -> None:
    with limited.asker() as client:
        told = client.get("/v1/symbols").headers
    assert told["RateLimit-Policy"] == f'"key";q={RATE};w=60'
    remaining = re.fullmatch(r'"key";r=(\d+);t=(\d+)', told["RateLimit"])
    assert remaining is not None
    assert (int(remaining[1]), int(remaining[2]) <= 60) == (RATE - 1, True)
    assert (told["X-RateLimit-Limit"], told["X-RateLimit-Remaining"]) == (str(RATE), str(RATE - 1))
    assert 0 < int(told["X-RateLimit-Reset"]) - time.time() <= 61


def test_a_key_may_have_a_rate_of_its_own(limited: Limited) -> None:
    with limited.asker(limited.rated) as client:
        assert client.get("/v1/symbols").headers["X-RateLimit-Limit"] == str(RATE + 3)


def test_paths_that_cost_more_take_more_whatever_they_answer(limited: Limited) -> None:
    with limited.asker() as client:
        before = left(client.get("/v1/symbols"))
        assert left(client.get("/v1/ohlcv/batch")) == before - 5
        assert left(client.get("/v1/ohlcv/batch/")) == before - 10
        assert client.get("/v1/ohlcv/batch").status_code == 429


def test_a_large_answer_is_charged_by_its_bytes(limited: Limited) -> None:
    with limited.asker() as client:
        before = left(client.get("/v1/symbols"))
        assert len(client.get(LARGE, params={"units": 3}).content) == 3 * BYTES_PER_UNIT
        assert left(client.get("/v1/symbols")) == before - 1 - 3 - 1
        client.get(LARGE, params={"units": RATE})
        assert client.get("/v1/symbols").status_code == 429


def test_guessing_keys_is_limited_by_address_and_locks_nobody_out(limited: Limited) -> None:
    url = limited.client.base_url.join("/v1/symbols")
    wrong = [httpx.get(url, headers={"X-API-Key": f"guess-{n}"}, trust_env=False) for n in range(RATE + 1)]
    assert [r.status_code for r in wrong] == [403] * RATE + [429]
    assert httpx.get(url, trust_env=False).status_code == 429
    with limited.asker() as client:
        assert client.get("/v1/symbols").status_code == 200


def test_looks_at_health_are_limited_by_address_and_other_open_paths_are_not(limited: Limited) -> None:
    found = [limited.client.get("/health").status_code for _ in range(RATE + 1)]
    assert found == [200] * RATE + [429]
    assert {limited.client.get("/openapi.json").status_code for _ in range(RATE + 1)} == {200}
    assert limited.client.get("/metrics").status_code == 200


def test_without_a_limit_there_are_no_headers_of_one(tmp_path: Path) -> None:
    with serving(settings_of(tmp_path, api_rate_per_minute=0)) as client:
        found = [client.get("/v1/symbols") for _ in range(5)]
    assert {r.status_code for r in found} == {200}
    assert not RATE_HEADERS & set(found[0].headers)


@pytest.mark.parametrize("limit", [7, EXACT_MAX + 1])
def test_what_was_spent_comes_back_with_time(limit: int) -> None:
    rates, third = Rates(window_seconds=1), limit // 3
    while rates.take("desk", third, limit).is_granted:
        pass
    assert rates.take("somebody else", 1, limit).is_granted
    since = time.monotonic()
    while not rates.take("desk", third, limit).is_granted:
        assert time.monotonic() - since < 20
        time.sleep(0.02)


def test_in_no_window_is_more_granted_than_the_limit() -> None:
    rates, limit = Rates(window_seconds=1), 5
    granted: list[float] = []
    end = time.monotonic() + 2.5
    while (at := time.monotonic()) < end:
        if rates.take("desk", 1, limit).is_granted:
            granted.append(time.monotonic())
            assert granted[-1] >= at
        time.sleep(0.01)
    assert len(granted) >= 2 * limit
    # between the two clocks of a grant, this one's and the library's, a busy machine may put some milliseconds
    assert all(later - earlier >= 0.9 for earlier, later in zip(granted, granted[limit:], strict=False))


def test_a_price_above_the_limit_is_all_of_it() -> None:
    rates = Rates()
    assert [rates.take("desk", 10, 3).is_granted for _ in range(2)] == [True, False]
    assert rates.take("desk", 1, 3).remaining == 0


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_may_be_as_large_as_the_limit_and_no_larger(limited: Limited, is_chunked: bool) -> None:
    def post(size: int) -> httpx.Response:
        body = b"x" * size
        return limited.client.post("/", content=iter([body[:100], body[100:]]) if is_chunked else body)

    assert post(BODY_BYTES).status_code == 405, "it came as far as the route, which takes no POST"
    refused = post(BODY_BYTES + 1)
    assert (refused.status_code, refused.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert set(refused.json()["error"]) == {"code", "message", "size_mb", "limit_mb"}


def test_ten_mebibytes_are_the_limit_unless_somebody_sets_another(client: httpx.Client) -> None:
    body = bytes(10 << 20)
    assert client.post("/", content=body).status_code == 405
    for content in (body + b"x", iter([body, b"x"])):
        told = client.post("/", content=content)
        assert (told.status_code, told.json()["error"]["limit_mb"]) == (413, 10.0)


def test_a_client_that_waits_to_be_asked_for_its_body_is_refused_without_being_asked(limited: Limited) -> None:
    wait = ("Expect: 100-continue", "Content-Length: 2001")
    ((status, text),) = answers(limited.client, head(limited.client, *wait, method="POST", path="/"))
    assert (status, b"100 Continue" in text) == (413, False)
    without_key = b"POST /v1/symbols HTTP/1.1\r\nHost: k2\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    ((status, text),) = answers(limited.client, without_key)
    assert (status in (401, 429), b"100 Continue" in text) == (True, False)
    with connected(limited.client) as stream:
        stream.sendall(head(limited.client, "Expect: 100-continue", "Content-Length: 5", method="POST", path="/"))
        assert stream.recv(100).startswith(b"HTTP/1.1 100 Continue\r\n")


@pytest.mark.parametrize("length", ["-1", "+5", "0x5", "5, 5", "1e1", "\u0665", "five", "5 5", ""])
def test_a_length_that_is_no_whole_number_is_its_own_error(limited: Limited, length: str) -> None:
    request = f"POST / HTTP/1.1\r\nHost: k2\r\nContent-Length: {length}\r\n\r\nhello".encode()
    ((status, text),) = answers(limited.client, request)
    assert status == 400
    assert b'"INVALID_CONTENT_LENGTH"' in text


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity, gzip", "GZIP", "gzip, gzip"])
def test_a_compressed_body_is_never_unpacked(limited: Limited, encoding: str) -> None:
    told = limited.client.post("/", content=b"x", headers={"Content-Encoding": encoding})
    assert (told.status_code, told.json()["code"]) == (415, "UNSUPPORTED_CONTENT_ENCODING")
    assert told.headers["Accept-Encoding"] == "identity"
    assert limited.client.post("/", content=b"x", headers={"Content-Encoding": "identity"}).status_code == 405


def test_a_body_that_comes_too_slowly_is_given_up(limited: Limited) -> None:
    slow = head(limited.client, "Content-Length: 50", method="POST", path="/")
    found = answers(limited.client, slow, *[b"x"] * 20, pause_seconds=BODY_SECONDS / 5)
    assert [status for status, _ in found] == [408]


def test_pages_of_other_origins_may_ask_only_when_their_origin_is_allowed(
    limited: Limited, client: httpx.Client
) -> None:
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "x-api-key"}
    ahead = limited.client.options("/v1/symbols", headers={**asked, "X-API-Key": ""})
    assert (ahead.status_code, ahead.headers["Access-Control-Allow-Origin"]) == (200, PAGE)
    refused = limited.client.get("/v1/symbols", headers={"Origin": PAGE, "X-API-Key": "wrong"})
    assert refused.headers["Access-Control-Allow-Origin"] == PAGE
    assert "X-RateLimit-Remaining" in refused.headers["Access-Control-Expose-Headers"]
    foreign = limited.client.get("/", headers={"Origin": "http://evil.example"})
    assert "Access-Control-Allow-Origin" not in foreign.headers
    assert "Access-Control-Allow-Origin" not in client.get("/v1/symbols", headers={"Origin": PAGE}).headers
    assert client.options("/v1/symbols", headers=asked).status_code == 405


@pytest.mark.parametrize("path", ["/", "/v1/symbols", "/v1/nothing", "/v1/trades?limit=0", "/health", "/docs"])
def test_every_answer_tells_browsers_to_be_careful(client: httpx.Client, path: str) -> None:
    told = client.get(path).headers
    assert told["X-Content-Type-Options"] == "nosniff"
    assert told["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in told["Content-Security-Policy"]
    assert ("script-src" in told["Content-Security-Policy"]) == told["Content-Type"].startswith("text/html")
    assert "Server" not in told
