"""What no source should hold, one case a test: each has a stated outcome, and its neighbours are rows as ever."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from decimal import Decimal

import pytest

from k2_assets.engine import ingest_until_caught_up
from k2_core.contracts import QUOTES, TRADES
from k2_feeds import coverage, lines
from k2_feeds.asx import read_parts
from k2_feeds.asx_files import plan_load
from k2_feeds.batches import Batch
from k2_feeds.capture_batches import read_capture_batches
from k2_feeds.collection import Collection
from k2_feeds.outcomes import PassedOver, Refusal, Rejected, Row
from k2_feeds.producer import FeedProducer
from k2_resources.lake.scans import dead_letters
from k2_resources.lake.verify import verify
from k2_tests.stacks import stack
from k2_tests.ticks import FEEDS

NOW_US = 1_760_000_000_000_000
RECEIVED = 1_723_161_254_087_896_568
EVENT_MS = 1_723_161_255_342
BEFORE, AFTER = 100, 200
"""Trade ids of the lines before and after a hostile one."""
REJECTED, PASSED, ROW, LETTER = "rejected", "passed over", "row", "row for the dead letters"
MEBIBYTE = 1 << 20


def frame(stream="trade", **changes):
    """A frame as the exchange writes it; changes are JSON text, None takes a key away."""
    event = {"e": '"trade"', "E": str(EVENT_MS + 1), "s": '"BTCUSDT"', "t": "150", "p": '"61837.63000000"',
             "q": '"0.02000000"', "T": str(EVENT_MS), "m": "true", "M": "true"} | changes  # fmt: skip
    told = ",".join(f'"{key}":{value}' for key, value in event.items() if value is not None)
    return f'{{"stream":"btcusdt@{stream}","data":{{{told}}}}}'.encode()


def line(content, received=RECEIVED):
    return b"%d " % received + content


CAPTURE = {
    "truncated frame": (line(frame()[:-9]), REJECTED, Refusal.NOT_JSON),
    "bytes that are not UTF-8": (line(frame().replace(b"BTCUSDT", b"BTC\xff")), REJECTED, Refusal.NOT_UTF8),
    "NaN as a number": (line(frame(p="NaN")), REJECTED, Refusal.NOT_JSON),
    "NaN as text": (line(frame(p='"NaN"')), REJECTED, Refusal.NOT_A_NUMBER),
    "infinity": (line(frame(q='"Infinity"')), REJECTED, Refusal.NOT_A_NUMBER),
    "negative price": (line(frame(p='"-1.00000000"')), REJECTED, Refusal.NOT_POSITIVE),
    "no quantity": (line(frame(q='"0.00000000"')), REJECTED, Refusal.NOT_POSITIVE),
    "overflow": (line(frame(p='"10000000000.00000000"')), REJECTED, Refusal.DECIMAL_OVERFLOW),
    "46 billion units": (line(frame(q='"46116860414.00000000"')), REJECTED, Refusal.DECIMAL_OVERFLOW),
    "a number of 5,000 digits": (line(frame(p="1" * 5_000)), REJECTED, Refusal.NOT_JSON),
    "11 decimals": (line(frame(p='"0.00000000001"')), REJECTED, Refusal.TOO_MANY_DECIMALS),
    "11 decimals of which three are zeros": (line(frame(p='"0.00000001000"')), ROW, None),
    "unicode symbol": (line(frame(s='"币安人生USDT"')), ROW, None),
    "path as a symbol": (line(frame(s='"../../etc/passwd"')), ROW, None),
    "symbol with the separator of keys": (line(frame(s='"A:B"')), REJECTED, Refusal.BAD_SYMBOL),
    "symbol of all symbols": (line(frame(s='"*"')), REJECTED, Refusal.BAD_SYMBOL),
    "symbol with a control character": (line(frame(s='"BTC\\u0000USDT"')), REJECTED, Refusal.BAD_SYMBOL),
    "symbol of 129 characters": (line(frame(s=f'"{"A" * 129}"')), REJECTED, Refusal.BAD_SYMBOL),
    "half a surrogate pair": (line(frame(s='"\\ud83d"')), REJECTED, Refusal.BAD_SYMBOL),
    "time in seconds": (line(frame(T="1723161255")), LETTER, None),
    "time in nanoseconds": (line(frame(T=f"{EVENT_MS}000000")), REJECTED, Refusal.IMPLAUSIBLE_TIME),
    "a time in the year 4000": (line(frame(T="64060588800000")), LETTER, None),
    "a time before 1970": (line(frame(T="-1")), REJECTED, Refusal.IMPLAUSIBLE_TIME),
    "time of receipt in microseconds": (b"1723161254087896 " + frame(), REJECTED, Refusal.NOT_A_CAPTURE_LINE),
    "end of line as on Windows": (line(frame()) + b"\r", ROW, None),
    "missing key": (line(frame(p=None)), REJECTED, Refusal.MISSING_VALUE),
    "further keys": (line(frame(z='"new"')), ROW, None),
    "id as text": (line(frame(t='"150"')), REJECTED, Refusal.WRONG_TYPE),
    "id beyond 64 bits": (line(frame(t=str(2**63))), REJECTED, Refusal.BAD_ID),
    "negative id": (line(frame(t="-5")), REJECTED, Refusal.BAD_ID),
    "deep JSON": (line(b'{"a":' * 100_000), REJECTED, Refusal.NOT_JSON),
    "deep JSON that ends": (line(b"[" * 50_000 + b"]" * 50_000), REJECTED, Refusal.NOT_JSON),
    "JSON of another shape": (line(b"[1,2]"), REJECTED, Refusal.WRONG_TYPE),
    "a line of 10 MB of another stream": (line(frame("depth", e='"depthUpdate"', b=f'"{"x" * 10 * MEBIBYTE}"')), PASSED, "depthUpdate"),
    "a line of 17 MB": (line(b"x" * 17 * MEBIBYTE), REJECTED, Refusal.LINE_TOO_LONG),
    "zeros": (bytes(300), REJECTED, Refusal.NOT_A_CAPTURE_LINE),
    "a blank line": (b"  \t", PASSED, "blank line"),
    "a futures trade": (line(frame(X='"MARKET"')), PASSED, "futures trade"),
    "a quote with half a side": (line(b'{"u":5,"s":"BTCUSDT","b":"1.0","B":"0.0","a":"2.0","A":"1.0"}'), REJECTED, Refusal.HALF_A_SIDE),
}  # fmt: skip
"""Case -> a line of a capture, what becomes of it, and why."""


def outcomes(path):
    """Outcomes of a capture, line by line."""
    return [o for found in read_capture_batches(path) for o in (found.rows() if isinstance(found, Batch) else (found,))]


def ids(found):
    return [o.record["source_sequence"] for o in found if isinstance(o, Row)]


def written(path, *content):
    path.write_bytes(b"\n".join(content) + b"\n")
    return path


def neighbours(*content):
    """Lines with a good one before and after them, and enough of others to be read in step."""
    many = [line(frame(t=str(1_000 + i))) for i in range(100)]
    return [line(frame(t=str(BEFORE))), *content, line(frame(t=str(AFTER))), *many]


@pytest.mark.parametrize("case", CAPTURE)
def test_a_hostile_line_of_a_capture_has_its_outcome_and_its_neighbours_are_rows(tmp_path, case):
    content, kind, said = CAPTURE[case]
    found = outcomes(written(tmp_path / "capture", *neighbours(content)))
    assert len(found) == 103
    own = [o for o in found if not isinstance(o, Row) or o.record["source_sequence"] == 150]
    assert len(own) == 1
    assert [i for i in ids(found) if i != 150] == [BEFORE, AFTER, *range(1_000, 1_100)]
    if kind == REJECTED:
        assert isinstance(own[0], Rejected)
        assert (own[0].reason, own[0].line) == (said, 2)
        assert own[0].raw == (content[: lines.KEPT_BYTES_MAX] if said == Refusal.LINE_TOO_LONG else content)
    elif kind == PASSED:
        assert own == [PassedOver(said)]
    else:
        assert isinstance(own[0], Row)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gz"])
def test_an_early_end_inside_a_line_is_said_and_every_whole_line_is_a_row(tmp_path, pack):
    content = b"\n".join(neighbours())
    path = tmp_path / "capture"
    path.write_bytes(pack(content[: content.rindex(b"\n") + 50]))
    assert ids(outcomes(path)) == ids(outcomes(written(tmp_path / "whole", *neighbours())))[:-1]
    assert [o.reason for o in outcomes(path) if isinstance(o, Rejected)] == [Refusal.NOT_JSON]


@pytest.mark.parametrize("harm", ["truncated", "overwritten", "foreign bytes behind it"])
def test_a_damaged_gz_gives_what_comes_before_the_damage_and_says_where_it_is(tmp_path, harm):
    """Bytes that were overwritten may decode to other text before that shows: only what precedes them is certain."""
    packed = bytearray(gzip.compress(b"\n".join(neighbours()) + b"\n"))
    certain = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(packed[: len(packed) // 2]).count(b"\n")
    if harm == "truncated":
        del packed[len(packed) // 2 :]
    elif harm == "overwritten":
        packed[len(packed) // 2 : len(packed) // 2 + 20] = bytes(20)
    else:
        packed, certain = packed + b"no gzip member", 102
    path = tmp_path / "capture.gz"
    path.write_bytes(packed)
    *rows, last = outcomes(path)
    assert ids(rows)[:certain] == [BEFORE, AFTER, *range(1_000, 1_100)][:certain] != []
    assert (last.reason, last.damaged, last.line) == (Refusal.DAMAGED_FILE, True, len(rows) + 1)
    assert harm == "overwritten" or len(rows) == certain


def test_a_file_that_grows_while_it_is_read_is_read_on_and_its_collection_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "READ_BYTES", 4_096)
    path = written(tmp_path / "capture", *neighbours())
    reading = read_capture_batches(path)
    found = [next(reading)]
    with path.open("ab") as file:
        file.write(line(frame(t="2000")) + b"\n" + line(frame(t="2001"))[:-40])
    found += reading
    assert ids(row for batch in found if isinstance(batch, Batch) for row in batch.rows())[-1] == 2_000
    last = found[-1]
    assert (last.reason, last.damaged) == (Refusal.DAMAGED_FILE, True)
    assert "written to while it was read" in last.detail
    with path.open("ab") as file:
        file.write(line(frame(t="2001"))[-40:] + b"\n")
    assert ids(outcomes(path))[-2:] == [2_000, 2_001]


PRINT, BOOK = b"03/11/2014,10:00:01.000,36.55,400,0,,", b"03/11/2014,10:00:01.000,36.55,36.56,400,500"
ASX = {
    "header": ("trade", b"date,time,price,volume,sales_condition,exclude_record_flag,filtered_price", Refusal.HEADER),
    "column too few": ("trade", PRINT[:-1], Refusal.WRONG_COLUMNS),
    "column too many": ("trade", PRINT + b",", Refusal.WRONG_COLUMNS),
    "bytes that are not UTF-8": ("trade", PRINT.replace(b",0,", b",\xff,"), Refusal.NOT_UTF8),
    "NaN": ("trade", PRINT.replace(b"36.55", b"NaN"), Refusal.NOT_A_NUMBER),
    "negative": ("trade", PRINT.replace(b"36.55", b"-36.55"), Refusal.NOT_POSITIVE),
    "no volume": ("trade", PRINT.replace(b"400", b"0"), Refusal.NOT_POSITIVE),
    "overflow": ("trade", PRINT.replace(b"36.55", b"1e10"), Refusal.DECIMAL_OVERFLOW),
    "46 billion shares": ("trade", PRINT.replace(b"400", b"46116860414"), Refusal.DECIMAL_OVERFLOW),
    "11 decimals": ("trade", PRINT.replace(b"36.55", b"36.55000000001"), Refusal.TOO_MANY_DECIMALS),
    "unicode digits": ("trade", PRINT.replace(b"400", "\u0664\u0660\u0660".encode()), Refusal.NOT_A_NUMBER),
    "time in seconds of the day": ("trade", PRINT.replace(b"10:00:01.000", b"36001.000"), Refusal.IMPLAUSIBLE_TIME),
    "a 25th hour": ("trade", PRINT.replace(b"10:00", b"25:00"), Refusal.IMPLAUSIBLE_TIME),
    "day before month": ("trade", PRINT.replace(b"03/11", b"13/03"), Refusal.IMPLAUSIBLE_TIME),
    "unknown flag": ("trade", PRINT.replace(b",0,,", b",0,Y,"), Refusal.UNKNOWN_FLAG),
    "condition with the separator of keys": ("trade", PRINT.replace(b",0,", b",A:B,"), Refusal.BAD_CONDITION),
    "condition of 33 characters": ("trade", PRINT.replace(b",0,", b"," + b"x" * 33 + b","), Refusal.BAD_CONDITION),
    "a line of 17 MB": ("trade", PRINT + b"x" * 17 * MEBIBYTE, Refusal.LINE_TOO_LONG),
    "a trade among quotes": ("quote", PRINT, Refusal.WRONG_COLUMNS),
    "half a side": ("quote", BOOK.replace(b",400,", b",0,"), Refusal.HALF_A_SIDE),
    "negative size": ("quote", BOOK.replace(b",500", b",-500"), Refusal.NOT_POSITIVE),
}  # fmt: skip
"""Case -> kind of file, a line of it, and why it is rejected."""


def load(folder, **contents):
    """The outcomes of one ASX load of BHP. contents: trades and quotes, lines each."""
    paths = {}
    for name, content in contents.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        paths[name] = [written(folder / name / "BHP.csv", *content)]
    return list(read_parts(plan_load(paths.get("trades", []), paths.get("quotes", []), None), None, lambda: NOW_US))


@pytest.mark.parametrize("case", ASX)
def test_a_hostile_line_of_an_asx_file_is_rejected_and_its_neighbours_are_rows(tmp_path, case):
    kind, content, reason = ASX[case]
    good = PRINT if kind == "trade" else BOOK
    before, own, after = load(tmp_path, **{f"{kind}s": [good, content, good.replace(b":01.", b":02.") + b"\r"]})
    assert [type(o) for o in (before, after)] == [Row, Row]
    assert (own.reason, own.line, own.feed, own.symbol) == (reason, 2, f"asx-{kind}s", "BHP")


def test_lines_of_an_asx_file_that_are_equal_are_fills_of_their_own_and_disorder_changes_no_key(tmp_path):
    content = [PRINT, PRINT.replace(b":01.", b":03."), PRINT, PRINT.replace(b":01.", b":02.")]
    keys = [o.record["message_id"] for o in load(tmp_path / "a", trades=content)]
    assert len(set(keys)) == 4
    assert sorted(o.record["message_id"] for o in load(tmp_path / "b", trades=sorted(content))) == sorted(keys)


def hostile_capture():
    """Every case in one capture, each under an id of its own, with duplicates, disorder, a hole and an id reset."""
    cases = [
        content.replace(b'"t":150,', b'"t":%d,' % (2_000 + n)) for n, (content, _, _) in enumerate(CAPTURE.values())
    ]
    later = EVENT_MS + 7_200_000
    eth = [frame(s='"ETHUSDT"', t=str(n)) for n in (500, 502, 501, 501, 505)]
    again = [frame(s='"ETHUSDT"', t=str(n), T=str(later + n)) for n in (1, 2, 1)]
    content = [neighbours()[0]]
    for case in cases:
        content += [case, line(frame(t=str(10_000 + len(content))))]
    return [*content, *map(line, eth), *map(line, again), *neighbours()[1:]]


def expected_keys():
    """Keys of the trades that must be in the lake."""
    kinds = [kind for _, kind, _ in CAPTURE.values()]
    symbols = {"unicode symbol": "币安人生USDT", "path as a symbol": "../../etc/passwd"}
    names = [symbols.get(case, "BTCUSDT") for case in CAPTURE]
    own = {
        f"BINANCE:{name}:trade:{2_000 + n}"
        for n, (kind, name) in enumerate(zip(kinds, names, strict=True))
        if kind == ROW
    }
    plain = {BEFORE, AFTER, *range(1_000, 1_100), *(10_001 + 2 * n for n in range(len(CAPTURE)))}
    eth = {*map(str, (500, 501, 502, 505)), "1~1", "2~1"}
    return own | {f"BINANCE:BTCUSDT:trade:{i}" for i in plain} | {f"BINANCE:ETHUSDT:trade:{i}" for i in eth}


def collected(here, folder, found, *names):
    """Send outcomes as one collection of some feeds; gives its report."""
    feeds = [FEEDS[name] for name in names]
    lake = here.engine().lake
    tables = {feed.topic: feed.table for feed in FEEDS.values()}
    with FeedProducer(
        here.settings, [*feeds, FEEDS[coverage.COVERAGE_FEED]], committed=lambda t: lake.committed(tables[t], t)
    ) as producer:
        return Collection(folder.name, "hostile", feeds, folder, lambda: NOW_US).run(found, producer)


def test_in_the_lake_all_neighbours_are_rows_nothing_vanished_and_again_changes_nothing(tmp_path, registry_url):
    capture = written(tmp_path / "capture", *hostile_capture())
    prints = [PRINT, *(content for kind, content, _ in ASX.values() if kind == "trade"), PRINT]
    with stack(tmp_path / "home", registry_url) as here:
        engine = here.engine()
        stored = []
        for turn in ("first", "second"):
            crypto = collected(here, tmp_path / turn, read_capture_batches(capture), "binance-trades", "binance-quotes")
            shares = collected(here, tmp_path / f"asx {turn}", load(tmp_path, trades=prints), "asx-trades")
            assert crypto.is_complete
            assert shares.is_complete
            assert crypto.sent + crypto.rejected + sum(crypto.passed_over.values()) == len(hostile_capture())
            assert (shares.sent, shares.rejected) == (2, len(prints) - 2)
            kept = (tmp_path / turn / "capture.rejected").read_text().splitlines()
            reasons = Counter(str(reason) for _, kind, reason in CAPTURE.values() if kind == REJECTED)
            assert Counter(json.loads(text)["reason"] for text in kept) == reasons
            ingest_until_caught_up(engine)
            columns = ("message_id", "revision", "price", "quantity")
            stored.append(
                sorted(
                    map(
                        tuple,
                        (
                            row.values()
                            for row in engine.lake.load(TRADES).scan(selected_fields=columns).to_arrow().to_pylist()
                        ),
                    )
                )
            )
        crypto_keys = {key for key, *_ in stored[0] if key.startswith("BINANCE")}
        assert crypto_keys == expected_keys()
        assert len(stored[0]) == len(crypto_keys) + 2
        assert stored[1] == stored[0]
        assert all(revision == 0 and price > 0 and quantity > Decimal(0) for _, revision, price, quantity in stored[0])
        letters = dead_letters(engine.lake, TRADES).num_rows
        assert letters == 2 * sum(kind == LETTER for _, kind, _ in CAPTURE.values())
        assert [verify(engine.lake, table).findings for table in (TRADES, QUOTES)] == [(), ()]
    assert not list(tmp_path.rglob("passwd*"))
