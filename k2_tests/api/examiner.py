"""Questions at random, each answered a second time: `python -m k2_tests.api.examiner [--cases 5000] [--seed N]`.

The second reader knows nothing of K2's read path: pyiceberg scans the table as of a snapshot, and Python decides which
revisions count, filters, sorts and cuts. Answers come over HTTP, in every format, page by page.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import random
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pyarrow as pa
import pyarrow.parquet as pq

from k2_core.contracts import QUOTES, TRADES, Table
from k2_core.quality import DOUBTFUL_FLAGS, Flag
from k2_resources.settings import Settings
from k2_tests.api.conftest import fill, some_quotes
from k2_tests.api.homes import Row, lake_of, serving
from k2_tests.api.oracle import random_trades, total_order

FORMATS = ("json", "json", "json", "ndjson", "csv", "arrow", "parquet")
"""JSON is what most ask for, and has pages that are walked."""
_INSTANT = "%Y-%m-%dT%H:%M:%S.%fZ"
_LEFT_OUT = {"raw": Flag(0), "clean": DOUBTFUL_FLAGS, "eligible": Flag.VENDOR_EXCLUDED}


@dataclass(frozen=True)
class State:
    """A table as of one snapshot, read by pyiceberg."""

    table: Table
    snapshot_id: int
    version: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class Question:
    """One question: as the API is asked, and the state it is about; None where it names none and means the head."""

    state: State
    pin: Mapping[str, str]
    parameters: Mapping[str, Any]
    format: str
    is_post: bool


class Examiner:
    """Asks, and compares."""

    def __init__(self, client: httpx.Client, settings: Settings, seed: int) -> None:
        self._client = client
        self._chance = random.Random(seed)
        self._states = {table: list(_states(settings, table)) for table in (TRADES, QUOTES)}

    def examine(self, cases: int) -> None:
        """Ask so many questions. Raises AssertionError at the first wrong answer."""
        for number in range(cases):
            question = self._question()
            expected = [_shown(row, question) for row in answer_to(question)]
            found = list(self._asked(question))
            assert found == expected[: len(found)] and len(found) == len(expected), (
                f"case {number}: {question.parameters} of {question.state.table.name} at {question.pin} as "
                f"{question.format}: {len(found)} rows, {len(expected)} expected; {_first_difference(found, expected)}"
            )

    def _question(self) -> Question:
        chance = self._chance
        table = chance.choice([TRADES, TRADES, QUOTES])
        state = chance.choice(self._states[table])
        is_head = state is self._states[table][-1]
        pins: list[dict[str, str]] = [{"snapshot_id": str(state.snapshot_id)}, {"version": state.version}]
        pin = chance.choice([*pins, {}, {}, {}] if is_head else pins)
        is_post, format_ = chance.random() < 0.3, chance.choice(FORMATS)
        return Question(state, pin, self._parameters(state, is_post, format_), format_, is_post)

    def _parameters(self, state: State, is_post: bool, format_: str) -> dict[str, Any]:
        chance, row = self._chance, self._chance.choice(state.rows)
        asked: dict[str, Any] = {}
        options: list[tuple[float, str, Any]] = [
            (0.6, "symbols", sorted({row["symbol"], *chance.choice([[], [], ["DUAL"], ["NONE"]])})),
            (0.3, "exchanges", [row["exchange"]]),
            (0.4, "start_time", self._instant(state)),
            (0.4, "end_time", self._instant(state)),
            (0.3, "revisions", chance.choice(["latest", "first", "all"])),
            (0.5, "order", chance.choice(["asc", "desc"])),
            (0.3, "decimals", chance.choice(["string", "number"])),
            (0.3, "fields", chance.sample([c.name for c in state.table.columns], chance.randint(1, 6))),
        ]
        if state.table is TRADES:
            options += [
                (0.4, "view", chance.choice(["raw", "clean", "eligible"])),
                (0.2, "sides", [row["side"]]),
                (0.2, "conditions", row["trade_conditions"] or ["5"]),
                (0.2, "min_price", str(row["price"])),
                (0.2, "max_price", str(min(row["price"] * 2, Decimal("9999999999.99999999")))),
                (0.2, "min_quantity", str(row["quantity"])),
                (0.2, "max_quantity", str(row["quantity"])),
            ]
        for share, name, value in options:
            if chance.random() < share:
                asked[name] = value
        if "start_time" in asked and "end_time" in asked:
            asked["start_time"], asked["end_time"] = sorted((asked["start_time"], asked["end_time"]))
            if asked["start_time"] == asked["end_time"]:
                del asked["end_time"]
        if "fields" in asked and format_ == "csv":
            asked["fields"] = [*asked["fields"], "message_id"]  # a line of one empty cell is no line
        asked["limit"] = len(state.rows) // chance.choice([1, 1, 1, 3, 3, 20]) + 1
        return asked

    def _instant(self, state: State) -> str:
        at: datetime = self._chance.choice(state.rows)["timestamp"]
        return (at + timedelta(microseconds=self._chance.choice([0, 0, 1, -1]))).strftime(_INSTANT)

    def _asked(self, question: Question) -> Iterator[dict[str, Any]]:
        """All rows of the answer, over all its pages."""
        cursor: dict[str, str] = {}
        while True:
            response = self._sent(question, {**question.parameters, **cursor, "format": question.format})
            assert response.status_code == 200, (question.parameters, response.text)
            assert response.headers["K2-Version"] == question.state.version, question.parameters
            rows, following = _read(response, question)
            assert len(rows) <= question.parameters["limit"]
            yield from rows
            if following is None:
                return
            assert rows, "a page that goes on has rows"
            cursor = {"cursor": following}

    def _sent(self, question: Question, asked: Mapping[str, Any]) -> httpx.Response:
        name = question.state.table.short_name
        if question.is_post:
            pin = {k: int(v) if k == "snapshot_id" else v for k, v in question.pin.items()}
            return self._client.post(f"/v1/{name}/query", json={**asked, **pin})
        return self._client.get(f"/v1/{name}", params={**asked, **question.pin})


def answer_to(question: Question) -> list[Row]:
    """The rows of an answer in order, from what was read of the table."""
    asked = question.parameters
    revisions = _revisions(question.state.rows, asked.get("revisions", "latest"))
    rows = [row for row in revisions if _is_asked_for(row, asked)]
    return sorted(rows, key=lambda r: (*total_order(r), r["revision"]), reverse=asked.get("order", "desc") == "desc")


def _revisions(rows: Iterable[Row], which: str) -> Iterable[Row]:
    if which == "all":
        return rows
    if which == "first":
        return [row for row in rows if row["revision"] == 0]
    held: dict[str, Row] = {}
    for row in rows:
        if row["revision"] >= held.setdefault(row["message_id"], row)["revision"]:
            held[row["message_id"]] = row
    return held.values()


def _is_asked_for(row: Row, asked: Mapping[str, Any]) -> bool:
    at = row["timestamp"].strftime(_INSTANT)
    return (
        ("symbols" not in asked or row["symbol"] in asked["symbols"])
        and ("exchanges" not in asked or row["exchange"] in asked["exchanges"])
        and asked.get("start_time", "") <= at
        and ("end_time" not in asked or at < asked["end_time"])
        and not row["quality_flags"] & _LEFT_OUT[asked.get("view", "raw")]
        and ("sides" not in asked or row["side"] in asked["sides"])
        and ("conditions" not in asked or bool(set(asked["conditions"]) & set(row["trade_conditions"])))
        and ("min_price" not in asked or row["price"] >= Decimal(asked["min_price"]))
        and ("max_price" not in asked or row["price"] <= Decimal(asked["max_price"]))
        and ("min_quantity" not in asked or row["quantity"] >= Decimal(asked["min_quantity"]))
        and ("max_quantity" not in asked or row["quantity"] <= Decimal(asked["max_quantity"]))
    )


def _states(settings: Settings, table: Table) -> Iterator[State]:
    lake = lake_of(settings)
    loaded = lake.load(table)
    for snapshot in sorted(loaded.metadata.snapshots, key=lambda s: s.sequence_number or 0):
        state = lake.state(table, snapshot.snapshot_id)
        assert state is not None
        rows = loaded.scan(snapshot_id=snapshot.snapshot_id).to_arrow().to_pylist()
        yield State(table, snapshot.snapshot_id, state.offsets.version, [_plain(row) for row in rows])


def _plain(row: Mapping[str, Any]) -> Row:
    """Maps as dictionaries; pyarrow hands them out as pairs."""
    return {**row, "vendor_data": None if row["vendor_data"] is None else dict(row["vendor_data"])}


def _shown(row: Row, question: Question) -> dict[str, Any]:
    """A row as the question's format shows it, in Python."""
    wanted = question.parameters.get("fields")
    usual = [c.name for c in question.state.table.columns if c.origin != "lineage"]
    names = [c.name for c in question.state.table.columns if c.name in (wanted or usual)]
    is_text = question.format in ("json", "ndjson", "csv")
    is_number = question.parameters.get("decimals") == "number" and question.format in ("json", "ndjson")
    shown = {name: _value(row[name], is_text=is_text, is_number=is_number) for name in names}
    return {n: _cell(v) for n, v in shown.items()} if question.format == "csv" else shown


def _value(value: Any, *, is_text: bool, is_number: bool) -> Any:
    if isinstance(value, Decimal):
        return value if is_number or not is_text else f"{value:.8f}"
    if isinstance(value, datetime) and is_text:
        return value.strftime(_INSTANT)
    if isinstance(value, date) and not isinstance(value, datetime) and is_text:
        return value.isoformat()
    return value


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return value if isinstance(value, list | dict) else str(value)


def _read(response: httpx.Response, question: Question) -> tuple[list[dict[str, Any]], str | None]:
    """Rows of one page, and the cursor of the next. Raises AssertionError where the page is not whole."""
    body, following = response.content, response.headers.get("K2-Next-Cursor")
    if question.format == "json":
        answer = json.loads(body, parse_float=Decimal)
        assert answer["pagination"]["next_cursor"] == following
        return [_numbers(row, question) for row in answer["data"]], following
    if question.format == "ndjson":
        *lines, last = body.splitlines(keepends=True)
        end = json.loads(last)["_end"]
        assert (end["rows"], end["version"]) == (len(lines), question.state.version)
        assert end["sha256"] == hashlib.sha256(b"".join(lines)).hexdigest()
        return [_numbers(json.loads(line, parse_float=Decimal), question) for line in lines], end["next_cursor"]
    if question.format == "csv":
        rows = list(csv.DictReader(io.StringIO(body.decode(), newline="")))
        assert response.headers["K2-Row-Count"] == str(len(rows))
        nested = [c.name for c in question.state.table.columns if pa.types.is_nested(c.type)]
        return [{k: json.loads(v) if v and k in nested else v for k, v in row.items()} for row in rows], following
    table = pq.read_table(io.BytesIO(body)) if question.format == "parquet" else pa.ipc.open_stream(body).read_all()
    maps = [f.name for f in table.schema if pa.types.is_map(f.type)]
    return [
        {k: dict(v) if v is not None and k in maps else v for k, v in r.items()} for r in table.to_pylist()
    ], following


def _numbers(row: dict[str, Any], question: Question) -> dict[str, Any]:
    """A decimal without a fraction is an integer to a JSON parser."""
    if question.parameters.get("decimals") != "number":
        return row
    decimals = [c.name for c in question.state.table.columns if pa.types.is_decimal(c.type)]
    return {k: Decimal(v) if v is not None and k in decimals else v for k, v in row.items()}


def _first_difference(found: Sequence[Any], expected: Sequence[Any]) -> str:
    for at, (one, other) in enumerate(zip(found, expected, strict=False)):
        if one != other:
            return f"row {at}: {one} instead of {other}"
    return "one is the beginning of the other"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        settings = fill(Path(home) / "k2", random_trades(asked.seed, rows=900), some_quotes())
        with serving(settings) as client:
            Examiner(client, settings, asked.seed).examine(asked.cases)
    print(f"{asked.cases:,} questions, every answer as read a second time, seed {asked.seed}")
    sys.exit(0)


if __name__ == "__main__":
    main()
