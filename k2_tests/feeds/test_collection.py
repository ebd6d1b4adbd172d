from __future__ import annotations

import base64
import json

import pytest

from k2_core.errors import BadInput
from k2_feeds.collection import KINDS_MAX, Collection
from k2_feeds.outcomes import PassedOver, Refusal, Rejected, Row
from k2_feeds.producer import FeedProducer
from k2_feeds.simulator import Simulation
from k2_tests.feeds.homes import FEEDS, caught_up, ends, home_on, since

NAMES = ("binance-trades", "binance-quotes")
COVERAGE = FEEDS["coverage"]
NOW_US = 1_800_000_000_000_000
ROWS = [o for o in Simulation(days=1, rows_per_day=5).outcomes(lambda: 0) if isinstance(o, Row) and o.feed in NAMES]
GARBAGE = Rejected("day/capture.gz", 7, Refusal.NOT_JSON, "no JSON", b"\xff\x00")
BAD_TRADE = Rejected("day/x.csv", 1, Refusal.HEADER, "a header", "é,1".encode(), "binance-trades", "SIMETHBTC")
CUT = Rejected("day/capture.gz", 9, Refusal.DAMAGED_FILE, "truncated", b"{", damaged=True)


@pytest.fixture
def run(tmp_path, broker, registry_url):
    """Run outcomes as one collection; gives the report and the coverage statements it made."""
    settings = home_on(tmp_path / "home", broker, registry_url)

    def run(outcomes):
        before = ends(broker)
        feeds = [FEEDS[name] for name in NAMES]
        collection = Collection("c0ffee", "capture.gz", feeds, tmp_path / "out", lambda: NOW_US)
        with FeedProducer(settings, [*feeds, COVERAGE], committed=caught_up(broker)) as producer:
            report = collection.run(outcomes, producer)
        return report, {r["message_id"].removeprefix("COVERAGE:c0ffee:"): r for _, r in since(broker, before, COVERAGE)}

    return run


def test_every_line_is_sent_set_aside_or_counted(run):
    report, _ = run([*ROWS, GARBAGE, PassedOver("depthUpdate"), PassedOver("depthUpdate")])
    assert (report.sent, report.acknowledged, report.rejected) == (len(ROWS), len(ROWS), 1)
    assert report.passed_over == {"depthUpdate": 2}
    assert report.is_complete


def test_rejected_lines_are_kept_with_their_place_and_bytes(run, tmp_path):
    run([GARBAGE, BAD_TRADE])
    (garbage,) = (tmp_path / "out" / "capture.gz.rejected").read_text().splitlines()
    (bad,) = (tmp_path / "out" / "x.csv.rejected").read_text().splitlines()
    place = {"file": "day/capture.gz", "line": 7, "reason": "not_json", "detail": "no JSON"}
    assert json.loads(garbage) == place | {"raw_base64": base64.b64encode(b"\xff\x00").decode()}
    assert json.loads(bad)["raw"] == "é,1"


def test_the_report_lies_beside_what_was_rejected(run, tmp_path):
    report, _ = run([*ROWS, GARBAGE])
    stored = json.loads((tmp_path / "out" / "report.json").read_text())
    assert stored == json.loads(json.dumps(report.as_dict()))
    assert stored["complete"]


def test_coverage_states_per_symbol_what_was_collected(run):
    _, stated = run([*ROWS, BAD_TRADE, GARBAGE])
    trades = [r for r in ROWS if r.feed == "binance-trades"]
    own = [r.record for r in trades if r.symbol == "SIMETHBTC"]
    found = stated["binance-trades/SIMETHBTC:closed"]
    assert (found["rows"], found["rejected"]) == (5, 1)
    assert (found["first_id"], found["last_id"]) == (own[0]["source_sequence"], own[-1]["source_sequence"])
    assert found["opened"] < found["closed"]
    total = stated["binance-trades/*:closed"]
    assert (total["rows"], total["rejected"], total["first_id"]) == (15, 2, None)
    assert stated["binance-quotes/*:closed"]["rejected"] == 1
    assert stated["binance-quotes/*:opened"]["rows"] == 0
    assert len(stated) == 2 + 2 * 3 + 2


def test_a_damaged_file_fails_its_collection_after_all_rows_were_sent(run):
    report, stated = run([*ROWS, CUT])
    assert report.acknowledged == len(ROWS)
    assert report.damaged == ("day/capture.gz, line 9: truncated",)
    assert not report.is_complete
    assert stated["binance-trades/*:failed"]["rows"] == 15


def test_a_source_that_breaks_off_is_a_failed_collection_with_a_report(run):
    def breaking():
        yield from ROWS[:4]
        raise BadInput("day/capture.gz: I/O error")

    report, stated = run(breaking())
    assert (report.sent, report.acknowledged) == (4, 4)
    assert report.error == "BAD_INPUT: day/capture.gz: I/O error"
    assert not report.is_complete
    assert "binance-trades/*:failed" in stated


def test_an_interrupted_collection_says_so_and_ends(run, tmp_path):
    def interrupted():
        yield from ROWS[:4]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(interrupted())
    stored = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (stored["sent"], stored["acknowledged"], stored["complete"]) == (4, 4, False)


def test_endless_kinds_are_counted_together(run):
    report, _ = run(PassedOver(f"kind {i}") for i in range(3 * KINDS_MAX))
    assert len(report.passed_over) == KINDS_MAX + 1
    assert sum(report.passed_over.values()) == 3 * KINDS_MAX


def test_an_empty_source_is_complete_and_covered(run):
    report, stated = run([])
    assert report.is_complete
    assert stated["binance-trades/*:closed"]["rows"] == 0
    assert stated["binance-trades/*:closed"]["opened"] is None
