from __future__ import annotations

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2_feeds import lines
from k2_feeds.batches import Batch
from k2_feeds.binance_capture import parse_capture, read_capture
from k2_feeds.capture_batches import parse_block, read_capture_batches
from k2_feeds.collection import Collection
from k2_feeds.lines import Block, lines_of, read_blocks, read_lines
from k2_feeds.outcomes import Rejected, Row
from k2_feeds.producer import FeedProducer
from k2_tests.feeds.homes import FEEDS, caught_up, ends, home_on, since
from k2_tests.feeds.sample import real

TRADE = (
    '{received} {{"stream":"{stream}@trade","data":{{"e":"trade","E":{E},"s":"{s}","t":{t},"p":"{p}","q":"{q}",'
    '"T":{T},"m":{m},"M":{M}}}}}'
)
TICKER = '{received} {{"stream":"{stream}@bookTicker","data":{{"u":{t},"s":"{s}","b":"{p}","B":"{q}","a":"{p2}","A":"{q2}"}}}}'
PLAIN = {"received": "1723161254087896568", "s": "BTCUSDT", "t": "3735683259", "p": "61837.63000000", "q": "0.02000000",
         "E": "1723161255343", "T": "1723161255342", "m": "true", "M": "true", "p2": "61837.64000000", "q2": "1.5"}  # fmt: skip
NUMBERS = ("0.00000000", "0", "1", "0.0", "1.5", "-1.0", "+1.5", "1e5", "1E-8", "NaN", "Infinity", "10000000000.0", "1.",
           "9999999999.99999999", "9999999999.999999999", "46000000000.00000000", "0.00000001", "0.000000001", "01.5",
           ".5", "", " 1.0", "1.0 ", "00000000000001.5", "1.50000000000", "\u0661.0", "1_0.0", '1.0","p":"2.0', "1\\u002e0")  # fmt: skip
INTEGERS = ("0", "1", "01", "-1", "-0", "1.0", "1e5", '"5"', "true", "null", "[]", "{}", "999999999999999999",
            "1000000000000000000", "9223372036854775807", "9223372036854775808", "99999999999999", "100000000000000",
            "1723161255342123", "99999999999999999", "100000000000000000", "1" * 5_000, "NaN", " 5")  # fmt: skip
SYMBOLS = ("ETHBTC", "1000SATSUSDT", "btcusdt", "A", "", "*", "A:B", "../etc/passwd", "BTC USDT", "币安人生USDT", "BTC\\u0055SDT",
           "ABCDEFGHIJKLMNO", "ABCDEFGHIJKLMNOP", "A" * 128, "A" * 129, "BTC\tUSDT", 'A"B', "A\\", "ÀUSDT")  # fmt: skip
FIELDS = {
    "received": ("172316125408789656", "17231612540878965680", "9999999999999999999", "-723161254087896568", "1723161254087896568 "),
    "stream": ("", "BTCUSDT", "ethusdt", "!bookTicker", "btcusdt@x", "a" * 40), "s": SYMBOLS, "t": INTEGERS, "E": INTEGERS,
    "T": INTEGERS, "p": NUMBERS, "q": NUMBERS, "p2": NUMBERS, "q2": NUMBERS, "m": ("false", "null", "1", '"true"', "True", "tru"),
    "M": ("false", "null", "fals", "falsey"),
}  # fmt: skip


def written(template, changes):
    fields = {**PLAIN, **changes}
    return template.format(**{"stream": fields["s"].lower(), **fields}).encode("utf-8", "surrogatepass")


@st.composite
def hostile(draw):
    """A line that is not quite as the exchange writes it: fields replaced, bytes changed, ends and blanks added."""
    names = draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=2, unique=True))
    changes = {name: draw(st.sampled_from(FIELDS[name])) for name in names}
    line = bytearray(written(draw(st.sampled_from((TRADE, TICKER))), changes))
    for at in draw(st.lists(st.integers(0, len(line)), max_size=draw(st.sampled_from((0, 0, 0, 1, 3))))):
        line[at : at + draw(st.integers(0, 2))] = draw(
            st.sampled_from((b"", b" ", b"0", b"}", b'"', b"\xff", b"\\", b"\x01"))
        )
    return bytes(line) + draw(st.sampled_from((b"", b"", b"", b"\r", b" ", b"\t\r", b"}", b"\r\r")))


def by_feed(outcomes):
    """Outcomes in the order of each feed; what is no row in an order of its own."""
    rows = [r for o in outcomes for r in (o.rows() if isinstance(o, Batch) else (o,))]
    feeds = {r.feed for r in rows if isinstance(r, Row)}
    return {feed: [r for r in rows if isinstance(r, Row) and r.feed == feed] for feed in feeds} | {
        "others": [r for r in rows if not isinstance(r, Row)]
    }


SMALL = {"READ_BYTES": 37, "BLOCK_BYTES": 50, "LINE_BYTES_MAX": 80, "KEPT_BYTES_MAX": 20}
"""Sizes at which a short file has pieces, blocks and lines that are too long."""
PLAIN_LINES = [
    written((TRADE, TICKER)[i % 2], {"t": str(1_000 + i), "s": ("BTCUSDT", "ETHBTC")[i % 3 % 2]}) for i in range(200)
]


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 200), hostile()), min_size=1, max_size=4), st.booleans())
def test_lines_read_in_step_say_what_each_says_alone(odd, is_ended):
    found = list(PLAIN_LINES)
    for at, line in odd:
        found.insert(at, line)
    content = b"\n".join(found) + b"\n" * is_ended
    expected = by_feed(parse_capture("f", lines_of("f", [content])))
    assert by_feed(parse_block("f", Block(1, content))) == expected


def test_rows_read_alone_keep_their_place_among_the_others():
    odd = written(TRADE, {"t": "5", "p": "1"})  # no point: read alone, and a good row
    content = b"\n".join([*PLAIN_LINES[:100], odd, *PLAIN_LINES[100:]])
    found = list(parse_block("f", Block(1, content)))
    assert sum(isinstance(o, Batch) for o in found) == 4
    assert by_feed(found) == by_feed(parse_capture("f", lines_of("f", [content])))


def test_where_too_many_rows_are_odd_each_is_read_alone():
    content = b"\n".join([*PLAIN_LINES, *[written(TRADE, {"p": "1"})] * 10])
    assert not any(isinstance(o, Batch) for o in parse_block("f", Block(1, content)))


@settings(max_examples=100)
@given(st.lists(st.integers(0, 120), max_size=30), st.booleans(), st.integers(0, 40), st.booleans())
def test_blocks_hold_the_lines_of_the_file(tmp_path_factory, sizes, is_packed, cut, is_ended):
    content = b"\n".join(b"%d" % (i % 10) * n for i, n in enumerate(sizes)) + b"\n" * is_ended
    path = tmp_path_factory.mktemp("blocks") / "file"
    path.write_bytes(gzip.compress(content)[: -cut or None] if is_packed else content)
    with pytest.MonkeyPatch.context() as patch:
        for name, size in SMALL.items():
            patch.setattr(lines, name, size)
        expected = [(o.number, o.content) if not isinstance(o, Rejected) else o for o in read_lines(path)]
        found = []
        for block in read_blocks(path):
            if isinstance(block, Rejected):
                found.append(block)
                continue
            for i, line in enumerate(block.content.removesuffix(b"\n").split(b"\n")):
                told = lines.line_of(str(path), block.number + i, line)
                found.append(told if isinstance(told, Rejected) else (told.number, told.content))
    assert found == expected


def test_the_real_capture_says_the_same_in_step():
    (path,) = real("binance/btcusdt_20240808.gz")
    found = list(read_capture_batches(path))
    assert by_feed(found) == by_feed(read_capture(path))
    assert sum(len(o) for o in found if isinstance(o, Batch)) == 9_757 + 28_040


def test_batches_arrive_as_their_rows_would_and_are_counted_alike(tmp_path, broker, registry_url):
    path = tmp_path / "capture"
    path.write_bytes(b"\n".join([*PLAIN_LINES, b"garbage", written(TRADE, {"t": "5", "p": "1"}), *PLAIN_LINES[::-1]]))
    feeds = [FEEDS["binance-trades"], FEEDS["binance-quotes"]]
    settings, found = home_on(tmp_path / "home", broker, registry_url), []
    for name, read in (("batches", read_capture_batches), ("rows", read_capture)):
        before = ends(broker)
        collection = Collection(name, "capture", feeds, tmp_path / name, lambda: 1)
        with FeedProducer(settings, [*feeds, FEEDS["coverage"]], committed=caught_up(broker)) as producer:
            report = collection.run(read(path), producer)
        assert report.is_complete
        arrived = [sorted(since(broker, before, feed), key=lambda at: at[0]) for feed in feeds]  # order within a key
        found.append((arrived, report.scopes, report.sent, report.rejected))
    assert found[0] == found[1]
    assert found[0][2:] == (401, 1)
    assert sum(map(len, found[0][0])) == 401
