from __future__ import annotations

import json
from datetime import date

from k2_core.issues import Issue, difference
from k2_core.judge import decide
from k2_core.screen import screen
from k2_core.verdict import DUPLICATE, WRITTEN
from k2_feeds.asx import Part, read_parts
from k2_feeds.coverage import COVERAGE_FEED, Stamp
from k2_feeds.issues import with_issues
from k2_feeds.lines import lines_of, read_lines
from k2_feeds.outcomes import Refusal, Rejected, Row
from k2_tests.core.test_judge import TODAY
from k2_tests.feeds.homes import FEEDS
from k2_tests.feeds.sample import real
from k2_tests.feeds.test_asx import BOOK, NOW_US, PRINT, part
from k2_tests.ticks import table_of

STAMP = Stamp("run", "a test", NOW_US)
DAY = date(2014, 3, 11)


def load(*parts):
    """Rows of a load, and the statements behind them."""
    found = list(with_issues(read_parts(parts, None, lambda: NOW_US), FEEDS, lambda: STAMP))
    rows = [o for o in found if isinstance(o, Row) and o.feed != COVERAGE_FEED]
    stated = found[len(rows) :]
    assert all(isinstance(o, Row) and o.feed == COVERAGE_FEED for o in stated)
    return rows, [o.record for o in stated]


def test_a_load_states_every_day_of_every_feed_and_symbol_behind_its_rows():
    next_day = PRINT.replace(b"/11/", b"/12/")
    _, stated = load(part("trade", PRINT * 2 + next_day), part("quote", BOOK), part("trade", PRINT, "RIO"))
    told = {(s["feed"], s["symbol"], json.loads(s["evidence"])["exchange_date"]): s["rows"] for s in stated}
    assert told == {
        ("asx-trades", "BHP", "2014-03-11"): 2,
        ("asx-trades", "BHP", "2014-03-12"): 1,
        ("asx-quotes", "BHP", "2014-03-10"): 1,
        ("asx-trades", "RIO", "2014-03-11"): 1,
    }
    assert len({s["message_id"] for s in stated}) == 4
    first = stated[0]
    assert (first["event"], first["exchange"], first["opened"]) == ("issued", "ASX", 1_394_490_912_881_000)


def test_a_statement_has_the_columns_of_its_contract():
    _, (stated,) = load(part("trade", PRINT))
    feed = FEEDS["coverage"]
    assert stated.keys() <= {column.name for column in feed.table.feed_columns}
    absent = {"letter": None, "delivered": None, "gap_id": None}
    assert table_of(feed, [{**absent, **stated}])["evidence"].to_pylist() == [stated["evidence"]]


def test_a_load_that_was_not_read_to_its_end_is_no_issue():
    damaged = Rejected("trades/BHP.csv", 2, Refusal.DAMAGED_FILE, "cut", b"", damaged=True)
    lines = lambda: iter([*lines_of("trades/BHP.csv", [PRINT]), damaged])  # noqa: E731
    found = list(with_issues(
        read_parts((Part("x", "trade", "BHP", frozenset({"BHP"}), lines),), None, lambda: NOW_US), FEEDS, lambda: STAMP
    ))  # fmt: skip
    assert [type(outcome) for outcome in found] == [Row, Rejected]


def judged(rows, stored):
    feed = FEEDS["asx-trades"]
    return decide(feed, screen(feed, table_of(feed, [row.record for row in rows]), TODAY), {}, stored)


def nothing_stored(_):
    return FEEDS["asx-trades"].table.arrow_schema().empty_table()


def test_a_line_withdrawn_from_a_real_day_is_named_by_the_statement_of_the_latest_load():
    (path,) = real("asx/trades/7078.csv.gz")
    lines = [line.content + b"\n" for line in read_lines(path) if line.content.startswith(b"03/11/2014")]
    rows, _ = load(part("trade", b"".join(lines)))
    at = next(i for i, line in enumerate(lines) if i > 10_000 and lines.count(line) == 1)
    reissued, (stated,) = load(part("trade", b"".join(lines[:at] + lines[at + 1 :])))
    stored = judged(rows, nothing_stored)
    again = judged(reissued, lambda _: stored.rows)
    assert (stored.outcome == WRITTEN).all()
    assert (again.outcome == DUPLICATE).all()
    found = difference(stored.rows["message_id"].combine_chunks(), Issue.parse(stated["evidence"]))
    assert found.withdrawn == (rows[at].record["message_id"],)
    assert (found.stored, found.issued, found.missing, found.is_whole) == (21_681, 21_680, 0, True)
