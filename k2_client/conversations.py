"""How the server is talked to: attempts, pauses, pages, and streams that go on where they broke. No socket in sight."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Generator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from k2_client.arrow_stream import ArrowStream
from k2_client.errors import Broken, Refused, Unavailable
from k2_client.retries import PASSING, Retry
from k2_client.steps import Call, Conversation, Fault, Hand, Head, Pause, Receive, Send, Step

_MICROSECOND = timedelta(microseconds=1)
PINS = frozenset({"version", "snapshot_id", "as_of", "tag"})
"""Parameters that name a state of the table."""
_OK = 200
PAGE_ROWS = 10_000
"""Rows of one answer, where not all are wanted: the most the server gives with a limit."""


@dataclass(frozen=True)
class Reply:
    """A whole answer."""

    head: Head
    body: bytes

    def json(self) -> Any:
        """The body as JSON. Raises Broken."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise Broken(f"the answer is no JSON: {error}") from None


def whole(call: Call, retry: Retry) -> Generator[Step, Any, Reply]:
    """Ask until there is a whole answer. Raises Refused, Unavailable, Broken."""
    attempt = 0
    while True:
        attempt += 1
        found = yield from _once(call)
        if isinstance(found, Reply):
            if found.head.status == _OK:
                return _undamaged(found)
            if not _may_pass(found):
                raise refusal(found)
        yield from _again(found, attempt, retry)


def pages(call: Call, retry: Retry) -> Conversation:
    """Hand out the rows of each page of a JSON answer, following its cursors."""
    while True:
        answer = (yield from whole(call, retry)).json()
        yield Hand(answer["data"])
        cursor = (answer.get("pagination") or {}).get("next_cursor")
        if cursor is None:
            return
        kept = {name: value for name, value in call.parameters.items() if name not in PINS}
        call = replace(call, parameters={**kept, "cursor": cursor})  # the cursor names the state


def rows(call: Call, retry: Retry, limit: int | None) -> Conversation:
    """Hand out the record batches of a tick question as they come, each row once, in order, from one version.

    At least one, so that the columns are known; its metadata say the version. call: in Arrow, with the column timestamp
    among its fields. Raises Refused, Unavailable, Broken.
    """
    place = _Place(call, limit)
    attempt = 0
    while not place.is_filled:
        attempt += 1
        before = place.count
        found = yield from _some(place)
        if found is None and place.is_at_end:
            break
        if found is None:
            attempt = 0
            continue
        if isinstance(found, Reply) and not _may_pass(found):
            raise refusal(found)
        if place.count > before:
            attempt = 1
        yield from _again(found, attempt, retry)
    if not place.count and place.columns is not None:
        yield Hand(place.told(pa.RecordBatch.from_pylist([], place.columns)))


def handed(answer: Generator[Step, Any, Reply]) -> Conversation:
    """Hand out a whole answer."""
    yield Hand((yield from answer))


def refusal(reply: Reply) -> Refused:
    """What an answer that is no success says."""
    try:
        said = json.loads(reply.body)
        errors = tuple(dict(e) for e in said.get("errors", ()))
        return Refused(reply.head.status, said["code"], said["detail"], said.get("request_id", ""), errors)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Refused(reply.head.status, "UNKNOWN", reply.body[:200].decode(errors="replace"))


@dataclass
class _Place:
    """Where a stream of ticks stands: which row came last, and how to ask for those after it.

    at_last: how many of the rows that came have the last one's timestamp: asked again, they come again, first. room:
    rows the answer under way may still bring; None = any number.
    """

    call: Call
    limit: int | None
    version: str | None = None
    count: int = 0
    last: datetime | None = None
    at_last: int = 0
    skip: int = 0
    room: int | None = None
    columns: pa.Schema | None = None

    @property
    def is_filled(self) -> bool:
        return self.limit is not None and self.count >= self.limit

    @property
    def is_at_end(self) -> bool:
        """Whether an answer that is complete was the last one: it could have brought more, and did not."""
        return self.room is None or self.room > 0

    def next_call(self) -> Call:
        """The question for everything after the last row, in the version the first came from."""
        self.skip = self.at_last
        parameters = dict(self.call.parameters)
        if self.version is not None:
            parameters = {name: value for name, value in parameters.items() if name not in PINS}
            parameters["version"] = self.version
        if self.last is not None and parameters.get("order") == "asc":
            parameters["start_time"] = instant(self.last)
        elif self.last is not None:
            parameters["end_time"] = instant(self.last + _MICROSECOND)
        self.room = None
        if self.limit is not None and self.skip < PAGE_ROWS:
            self.room = parameters["limit"] = min(PAGE_ROWS, self.limit - self.count + self.skip)
        return replace(self.call, parameters=parameters)

    def fresh(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows of a batch that did not come before; they have come now."""
        seen = min(self.skip, batch.num_rows)
        self.skip -= seen
        if self.room is not None:
            self.room -= batch.num_rows
        batch = batch.slice(seen, None if self.limit is None else self.limit - self.count)
        if batch.num_rows:
            self._remember(batch)
        return batch

    def told(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """A batch that says which version it is of."""
        return batch.replace_schema_metadata({"k2.version": self.version or ""})

    def _remember(self, batch: pa.RecordBatch) -> None:
        times = batch.column("timestamp")
        last = times[-1].as_py()
        same = pc.sum(pc.equal(times, times[-1])).as_py()
        self.at_last = same + (self.at_last if last == self.last else 0)
        self.last = last
        self.count += batch.num_rows


def instant(at: datetime) -> str:
    """An instant as the server reads it. Raises ValueError for one without a zone, which could be any."""
    if at.tzinfo is None:
        raise ValueError(f"{at} has no time zone; K2 does not guess one")
    return at.astimezone(UTC).isoformat()


def _some(place: _Place) -> Generator[Step, Any, Reply | Fault | None]:
    """Hand out rows until the stream ends (None), fails, or there are enough."""
    head = yield Send(place.next_call())
    if isinstance(head, Fault):
        return head
    if head.status != _OK:
        return (yield from _rest(head))
    place.version = place.version or head.headers.get("k2-version")
    stream = ArrowStream()
    while True:
        piece = yield Receive()
        if isinstance(piece, Fault):
            return piece
        for batch in stream.feed(piece):
            fresh = place.fresh(batch)
            if fresh.num_rows:
                yield Hand(place.told(fresh))
        if place.is_filled and place.room is None:
            return None  # the server would go on
        if not piece:
            place.columns = stream.columns
            return None if stream.is_complete else Fault("the stream ended before its end")


def _once(call: Call) -> Generator[Step, Any, Reply | Fault]:
    head = yield Send(call)
    return head if isinstance(head, Fault) else (yield from _rest(head))


def _rest(head: Head) -> Generator[Step, Any, Reply | Fault]:
    parts: list[bytes] = []
    while True:
        piece = yield Receive()
        if isinstance(piece, Fault):
            return piece
        if not piece:
            return Reply(head, b"".join(parts))
        parts.append(piece)


def _may_pass(reply: Reply) -> bool:
    """Whether the same question may have an answer later. One that ran into its deadline would again."""
    return reply.head.status in PASSING and refusal(reply).code != "TIMEOUT"


def _again(found: Reply | Fault, attempt: int, retry: Retry) -> Generator[Step, Any, None]:
    """Wait before the next attempt. Raises Unavailable when there is none."""
    if attempt >= retry.attempts:
        reason = found.reason if isinstance(found, Fault) else str(refusal(found))
        raise Unavailable(f"no answer after {attempt} attempts; the last: {reason}")
    yield Pause(retry.pause(attempt, None if isinstance(found, Fault) else found.head.headers.get("retry-after")))


def _undamaged(reply: Reply) -> Reply:
    """The reply, if its body is the one the server hashed (RFC 9530). Raises Broken."""
    said = reply.head.headers.get("content-digest", "")
    if said.startswith("sha-256=:"):
        found = base64.b64encode(hashlib.sha256(reply.body).digest()).decode()
        if said != f"sha-256=:{found}:":
            raise Broken("the answer does not have the digest its server gave it")
    return reply
