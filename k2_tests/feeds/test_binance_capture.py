from __future__ import annotations

import gzip
from collections import Counter

import pytest

from k2_core.errors import BadInput
from k2_feeds.binance_capture import read_capture
from k2_feeds.capture_batches import open_captures
from k2_feeds.outcomes import PassedOver, Refusal, Rejected, Row
from k2_tests.feeds.sample import real

TRADE = b'{"e":"trade","s":"BTCUSDT","t":%d,"p":"1.0","q":"2.0","T":1723161255342,"m":true}'


def capture(*lines):
    return b"".join(line + b"\n" for line in lines)


def trade_line(trade_id):
    return b"1723161254087896568 " + TRADE % trade_id


def test_the_time_of_receipt_is_cut_to_microseconds(tmp_path):
    path = tmp_path / "capture"
    path.write_bytes(capture(trade_line(5)))
    (found,) = read_capture(path)
    assert isinstance(found, Row)
    assert found.record["ingestion_timestamp"] == 1_723_161_254_087_896


def test_every_line_has_one_outcome_in_order(tmp_path):
    path = tmp_path / "capture.gz"
    bad = [b"garbage", b"1723161254087896568", b"1723161254 " + TRADE % 1, b"-723161254087896568 {}", b"\xff\xfe 1"]
    path.write_bytes(gzip.compress(capture(trade_line(1), *bad, b"", trade_line(2))))
    found = list(read_capture(path))
    assert [type(o) for o in found] == [Row, *[Rejected] * 5, PassedOver, Row]
    rejected = [o for o in found if isinstance(o, Rejected)]
    assert [(r.line, r.raw) for r in rejected] == list(enumerate(bad, start=2))
    assert [r.reason for r in rejected] == [
        Refusal.NOT_A_CAPTURE_LINE,
        Refusal.NOT_JSON,
        *[Refusal.NOT_A_CAPTURE_LINE] * 3,
    ]
    assert all(r.file == str(path) for r in rejected)


def test_lines_may_end_as_on_windows(tmp_path):
    path = tmp_path / "capture"
    path.write_bytes(capture(trade_line(1) + b"\r", b"\r"))
    assert [type(o) for o in read_capture(path)] == [Row, PassedOver]


def test_a_missing_capture_stops_the_command_before_any_is_read(tmp_path):
    there = tmp_path / "there"
    there.write_bytes(capture(trade_line(1)))
    with pytest.raises(BadInput, match="absent"):
        open_captures([there, tmp_path / "absent"])


@pytest.mark.parametrize(
    ("name", "trades", "quotes"), [("btcusdt_20240808.gz", 9_757, 28_040), ("btcusdt_20240809.gz", 10_147, 45_134)]
)
def test_a_real_capture_gives_every_trade_and_quote_once(name, trades, quotes):
    (path,) = real(f"binance/{name}")
    rows = [o for o in read_capture(path) if isinstance(o, Row)]
    rest = Counter(
        o.kind if isinstance(o, PassedOver) else "rejected" for o in read_capture(path) if not isinstance(o, Row)
    )
    assert Counter(row.feed for row in rows) == {"binance-trades": trades, "binance-quotes": quotes}
    assert len({row.record["message_id"] for row in rows}) == trades + quotes
    assert set(rest) <= {"depthUpdate", "depth snapshot"}


def test_trade_ids_of_the_real_captures_have_no_hole():
    paths = real("binance/btcusdt_20240808.gz", "binance/btcusdt_20240809.gz")
    rows = [o for path in paths for o in read_capture(path) if isinstance(o, Row) and o.feed == "binance-trades"]
    ids = [row.record["source_sequence"] for row in rows]
    assert ids == list(range(ids[0], ids[0] + 9_757 + 10_147))
