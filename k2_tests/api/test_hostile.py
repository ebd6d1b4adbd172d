"""Requests made to do harm, each with its outcome; after each of them the next client is served as if nothing was.

Parameters have their own lists in test_protocol; SQL has its own in hostile_sql.
"""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest

from k2_api.connections import HEAD_BYTES_MAX, HEADERS_MAX
from k2_tests.api.sockets import answers, connected, head, rest
from k2_tests.api.test_protocol import check_problem

SMUGGLED = b"GET /v1/smuggled HTTP/1.1\r\nHost: k2\r\n\r\n"
NO_HTTP = {
    "a length and chunks": b"POST / HTTP/1.1\r\nHost: k2\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": b"POST / HTTP/1.1\r\nHost: k2\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: k2\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\n",
    "one length twice": b"POST / HTTP/1.1\r\nHost: k2\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "a length beyond all numbers": b"POST / HTTP/1.1\r\nHost: k2\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n",
    "chunked in disguise": b"POST / HTTP/1.1\r\nHost: k2\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked, then not": b"POST / HTTP/1.1\r\nHost: k2\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"POST / HTTP/1.1\r\nHost: k2\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\nHost: k2\r\nX: a\r\n Transfer-Encoding: chunked\r\n\r\n",
    "lines that end without CR": b"GET / HTTP/1.1\nHost: k2\n\n",
    "a bare CR in a header": b"GET / HTTP/1.1\r\nHost: k2\r\nX: a\rTransfer-Encoding: chunked\r\n\r\n",
    "a NUL in a header": b"GET / HTTP/1.1\r\nHost: k2\r\nX: \0\r\n\r\n",
    "a chunk of no size": b"POST / HTTP/1.1\r\nHost: k2\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a chunk beyond all sizes": b"POST / HTTP/1.1\r\nHost: k2\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"F" * 20
    + b"\r\n",
    "no host in the target": b"GET http:// HTTP/1.1\r\nHost: k2\r\n\r\n",
    "no path in the target": b"GET http://evil.example HTTP/1.1\r\nHost: k2\r\n\r\n",
    "a space in the target": b"GET / v1 HTTP/1.1\r\nHost: k2\r\n\r\n",
    "bytes in the target": b"GET /?symbol=\xff HTTP/1.1\r\nHost: k2\r\n\r\n",
    "a tunnel": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: k2\r\n\r\n",
    "HTTP/2 without asking": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/3": b"GET / HTTP/3.0\r\nHost: k2\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 32,
    "another language": b"HELO k2\r\n\r\n",
}
BODIES: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"}{",
    "half of it": b'{"symbols": ["DUAL"',
    "no object": b"[]",
    "a number": b"1",
    "null": b"null",
    "a text": b'"symbols"',
    "nested beyond measure": b"[" * 200_000,
    "nested objects": b'{"symbols":' * 100_000,
    "a number of many digits": b'{"limit": ' + b"9" * 10_000 + b"}",
    "no number": b'{"limit": NaN, "offset": Infinity, "batch_size": -Infinity}',
    "bytes that are no text": b'{"symbol": "\xff\xfe"}',
    "half a character": b'{"symbol": "\\ud800", "symbols": ["\\ud800"]}',
    "a mark before it": b"\xef\xbb\xbf{}",
    "UTF-16": '{"symbol": "DUAL"}'.encode("utf-16"),
    "one name twice": b'{"symbols": ["DUAL"], "symbols": "; DROP TABLE trades"}',
    "a prototype": b'{"__proto__": {"limit": 1}, "constructor": {}, "__class__": "x"}',
    "other types": b'{"symbols": {"a": 1}, "symbol": ["a"], "limit": "1; --", "start_time": {}, "metrics": 1, "fields": 7}',
    "SQL": json.dumps({n: ["' OR 1=1 --"] for n in ("symbols", "fields", "exchanges", "metrics")}).encode(),
    "a bomb": gzip.compress(bytes(1 << 20)),
}


@pytest.fixture(autouse=True)
def unharmed(client: httpx.Client) -> Iterator[None]:
    """Whatever a test has sent, somebody else gets an answer."""
    yield
    with httpx.Client(base_url=client.base_url, headers=client.headers, trust_env=False, timeout=60) as other:
        assert other.get("/v1/symbols").status_code == 200


@pytest.mark.parametrize("request_text", NO_HTTP.values(), ids=NO_HTTP)
def test_what_two_servers_could_read_differently_is_refused_and_nothing_after_it_is_read(
    client: httpx.Client, request_text: bytes
) -> None:
    ((status, text),) = answers(client, request_text + SMUGGLED)
    assert status == 400
    assert b"connection: close" in text.lower()
    body = json.loads(text.partition(b"\r\n\r\n")[2])
    assert body["code"] in ("BAD_REQUEST", "INVALID_CONTENT_LENGTH")


@pytest.mark.parametrize(
    ("request_text", "expected"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        (b"GET /v1/symbols\r\n\r\n", 505),
        (b"GET * HTTP/1.1\r\nHost: k2\r\nConnection: close\r\n\r\n", 404),
        (b"TRACE / HTTP/1.1\r\nHost: k2\r\nConnection: close\r\n\r\n", 405),
        (b"GET //evil.example/v1/trades/ HTTP/1.1\r\nHost: k2\r\nConnection: close\r\n\r\n", 404),
        (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: k2\r\nConnection: close\r\n\r\n", 404),
        (b"GET /static-offline-docs/..%2f..%2f..%2fetc/passwd HTTP/1.1\r\nHost: k2\r\nConnection: close\r\n\r\n", 404),
        (b"GET /V1/symbols HTTP/1.1\r\nHost: k2\r\nConnection: close\r\n\r\n", 404),
        (b"GET /v1%2fsymbols HTTP/1.1\r\nHost: k2\r\nConnection: close\r\n\r\n", 401),
        (b"GET http://k2/v1/symbols HTTP/1.1\r\nHost: k2\r\nConnection: close\r\n\r\n", 401),
        (b"GET / HTTP/1.0\r\n\r\n", 200),
    ],
)
def test_an_odd_request_has_a_plain_answer(client: httpx.Client, request_text: bytes, expected: int) -> None:
    ((status, text),) = answers(client, request_text)
    assert status == expected
    assert b"location:" not in text.lower() and b"root:" not in text


def test_a_path_with_a_slash_at_its_end_is_the_path_itself_and_sends_nobody_elsewhere(client: httpx.Client) -> None:
    found = client.get("/v1/symbols/", headers={"Host": "evil.example"})
    assert (found.status_code, found.json()["data"]) == (200, client.get("/v1/symbols").json()["data"])


@pytest.mark.parametrize(
    "big",
    [
        b"X: " + b"x" * (1 << 20) + b"\r\n",
        b"X: " + b"x" * (HEAD_BYTES_MAX + 1) + b"\r\n",
        b"".join(b"X-%d: x\r\n" % n for n in range(HEADERS_MAX + 1)),
        b"Cookie: " + b"a=b; " * (HEAD_BYTES_MAX // 4) + b"\r\n",
    ],
    ids=["a megabyte", "a byte too many", "too many lines", "cookies"],
)
def test_a_head_too_large_is_refused_before_it_is_kept(client: httpx.Client, big: bytes) -> None:
    found = answers(client, b"GET /v1/symbols HTTP/1.1\r\nHost: k2\r\n", big, b"\r\n")
    assert [status for status, _ in found] == [431]


def test_an_endless_head_is_refused_long_before_its_end(client: httpx.Client) -> None:
    with connected(client) as stream:
        stream.sendall(b"GET /v1/symbols?")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            for _ in range(1 << 12):
                stream.sendall(b"x" * (1 << 16))


def test_a_head_of_ordinary_size_in_many_pieces_is_read(client: httpx.Client) -> None:
    request = head(client, "X: " + "x" * (HEAD_BYTES_MAX - 4_000), "Connection: close")
    pieces = [request[at : at + 5_000] for at in range(0, len(request), 5_000)]
    assert [status for status, _ in answers(client, *pieces)] == [200]


def test_rubbish_after_a_good_request_harms_only_whoever_sent_it(client: httpx.Client) -> None:
    ((status, text),) = answers(client, head(client) + b"\0\1\2 rubbish\r\n\r\n" + SMUGGLED)
    assert status == 200
    assert text.count(b'"success":true') == 1


def test_requests_in_one_packet_are_answered_in_their_order(client: httpx.Client) -> None:
    paths = ["/v1/symbols", "/v1/nothing", "/", "/v1/trades?limit=0"]
    last = head(client, "Connection: close")
    found = answers(client, b"".join(head(client, path=path) for path in paths) + last)
    assert [status for status, _ in found] == [200, 404, 200, 422, 200]


def test_a_trailer_changes_nothing_of_the_request_it_ends(client: httpx.Client) -> None:
    key = client.headers["X-API-Key"]
    chunks = f"0\r\nX-API-Key: {key}\r\nX-Correlation-ID: forged\r\n\r\n".encode()
    start = b"GET /v1/symbols HTTP/1.1\r\nHost: k2\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    for pieces in ([start + chunks], [start, chunks]):
        ((status, text),) = answers(client, *pieces, pause_seconds=0.2)
        assert (status, b"forged" in text) == (401, False)


def test_a_question_in_another_language_is_answered_in_this_one_and_then_no_more(client: httpx.Client) -> None:
    for language in ("h2c", "websocket"):
        asked = head(client, "Connection: Upgrade", f"Upgrade: {language}", "Sec-WebSocket-Version: 13")
        ((status, text),) = answers(client, asked + SMUGGLED)
        assert (status, b"connection: close" in text.lower()) == (200, True)


def test_a_header_cannot_be_put_into_an_answer(client: httpx.Client) -> None:
    told = client.get("/v1/trades?symbol=a%0d%0aX-Injected:%201&cursor=%0d%0aX-Injected:%201")
    assert told.status_code == 400
    assert "x-injected" not in told.headers
    forged = client.get("/v1/symbols", headers={"X-Correlation-ID": "a\tb"})
    assert "\t" not in forged.headers["X-Correlation-ID"]


def test_a_client_that_closes_its_half_has_left(client: httpx.Client) -> None:
    before = gone(client)
    with connected(client) as stream:
        stream.sendall(head(client, "Content-Length: 10", method="POST", path="/v1/symbols") + b"12345")
        stream.shutdown(socket.SHUT_WR)
        assert rest(stream) == b"", "half a body is not asked of anybody"
    since = time.monotonic()
    while gone(client) == before:
        assert time.monotonic() - since < 30
        time.sleep(0.05)


@pytest.mark.parametrize(
    "question",
    [
        "limit=\uff11\uff10",
        "limit=\u0665",
        "limit=1e3",
        "limit=1,000",
        "limit=0x10",
        "limit=99999999999999999999999999999999",
        "limit=-9223372036854775809",
        "start_time=\uff12\uff10\uff12\uff14-01-01T00:00:00Z",
        "start_time=2024-02-30T00:00:00Z",
        "start_time=2024-01-01T25:00:00Z",
        "start_time=99999-01-01T00:00:00Z",
        "start_time=2024-01-01T00:00:00%2B99:99",
        "start_time=9" + "9" * 400,
    ],
)
def test_numbers_and_dates_are_those_of_the_description_only(client: httpx.Client, question: str) -> None:
    told = client.get(f"/v1/trades?{question}")
    assert (told.status_code, check_problem(told)["code"]) == (422, "VALIDATION_ERROR")


def gone(client: httpx.Client) -> float:
    """Requests whose client left."""
    lines = (line for line in client.get("/metrics").text.splitlines() if 'status_code="499"' in line)
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("k2_http_requests_total"))


def bodied(client: httpx.Client) -> list[tuple[str, dict[str, Any]]]:
    document = client.get("/openapi.json").json()
    return [(path, found["post"]) for path, found in document["paths"].items() if "post" in found]


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_no_body_breaks_a_route_that_takes_one(client: httpx.Client, body: bytes) -> None:
    operations = bodied(client)
    assert len(operations) >= 5
    for path, operation in operations:
        for kind in ("application/json", "text/plain", "") if len(body) < 10 else ("application/json",):
            told = client.post(path.replace("{snapshot_id}", "1"), content=body, headers={"Content-Type": kind})
            assert str(told.status_code) in operation["responses"], (path, told.text)
            assert told.status_code < 500, (path, told.text)
            if told.status_code != 200:
                check_problem(told)
