from __future__ import annotations

from datetime import date

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from k2_feeds import binance_dump, dump_batches
from k2_feeds.batches import Batch
from k2_feeds.binance_dump import plan_dumps
from k2_feeds.outcomes import Rejected, Row
from k2_tests.feeds.dumps import HEADER, at, line, lines, write_dump

DAY = date(2025, 1, 1)
NAME = "BTCUSDT-trades-2025-01-01"
RECEIVED_US = 1_800_000_000_000_000


def both(folder, content):
    """What a dump became line by line, and in blocks with their rows one by one; and how many came in columns."""
    (dump,) = plan_dumps([write_dump(folder, NAME, content, checksum=False)], without_checksum=True)
    found = list(dump_batches.read_dump(dump, RECEIVED_US))
    flat = [row for one in found for row in (one.rows() if isinstance(one, Batch) else [one])]
    return list(binance_dump.read_dump(dump, RECEIVED_US)), flat, sum(len(o) for o in found if isinstance(o, Batch))


@pytest.mark.parametrize("unit", ["ms", "us"])
@pytest.mark.parametrize("words", [{}, {"maker": "false", "best": "true"}])
def test_plain_lines_come_in_columns_and_say_the_same(tmp_path, unit, words):
    content = "\n".join([HEADER, *lines(1, 300, DAY, unit=unit, **words)]).encode()
    alone, flat, in_columns = both(tmp_path, content)
    assert flat == alone
    assert in_columns == 300


PLAIN = line(7, at(DAY, 5))
fields = st.tuples(
    st.sampled_from(["0", "7", "007", "999999999999999999", "9223372036854775807", "9223372036854775808", "-1", "1e3"]),
    st.sampled_from(["1", "0.1", ".5", "5.", "0.00000001", "0.000000010", "9999999999.99999999", "10000000000.0", "1e2", "0"]),
    st.sampled_from(["1", "0.2", "0.00000000", "9999999999.99999999", "NaN", " 1", ""]),
    st.sampled_from(["exact", "off", "0", "99999999980000000000.1", "x"]),
    st.sampled_from([str(at(DAY, 5)), str(at(DAY) - 1), str(at(DAY)), str(at(DAY, 86_400)), str(at(DAY, 86_399.999999)),
                     str(at(DAY, 5, unit="ms")), "0", "01735689605000000", "99999999999999999999"]),
    st.sampled_from(["True", "False", "true", "false", "TRUE", ""]),
    st.sampled_from(["True", "False", "true", "false", "1"]),
)  # fmt: skip


def written(values):
    """A line of chosen fields; a quote of `exact` or `off` follows from price and quantity."""
    number, price, quantity, quote, *rest = values
    if quote in ("exact", "off"):
        try:
            whole = binance_dump.Decimal(price) * binance_dump.Decimal(quantity)
            step = binance_dump.Decimal("1e-8") if quote == "off" else 0
            quote = f"{whole.quantize(binance_dump.Decimal('1e-8'), context=binance_dump._EXACT) + step:f}"
        except ArithmeticError:
            quote = "1"
    return ",".join([number, price, quantity, quote, *rest])


noise = st.sampled_from(["", " ", "\r", PLAIN + "\r", "x", PLAIN + ",", PLAIN[:-3], HEADER, "\x00", "ü" * 5, PLAIN * 3])


@given(st.lists(fields.map(written) | noise | st.just(PLAIN), max_size=6), st.booleans(), st.sampled_from(["\n", ""]))
@example(
    [line(2, at(DAY, 5), price="9999999999.99999999", quantity="9999999999.99999999", quote="99999999999.0")], True, ""
)
def test_blocks_say_of_every_line_what_lines_say(tmp_path_factory, found, with_header, end):
    told = [*([HEADER] if with_header else []), PLAIN, *found]
    alone, flat, _ = both(tmp_path_factory.mktemp("dump"), ("\n".join(told) + end).encode())
    assert flat == alone


def test_an_amount_is_compared_to_its_last_digit(tmp_path):
    price, quantity = "98765.43210987", "12345.67890123"
    exact = binance_dump._EXACT.multiply(binance_dump.Decimal(price), binance_dump.Decimal(quantity))
    for step, in_columns in (("0", 2), ("0.00000002", 1), ("1844.67440737", 1)):
        quote = f"{exact + binance_dump.Decimal(step):.8f}"
        rows = [PLAIN, PLAIN, line(9, at(DAY, 6), price=price, quantity=quantity, quote=quote)]
        alone, flat, found = both(tmp_path, "\n".join(rows).encode())
        assert flat == alone
        assert found == in_columns


def test_a_line_that_is_no_trade_is_told_by_its_number_far_into_a_file(tmp_path):
    rows = lines(1, 60_000, DAY)
    rows[45_000] = "nonsense"
    content = ("\n".join(rows) + "\n").encode()
    (dump,) = plan_dumps([write_dump(tmp_path, NAME, content)])
    found = list(dump_batches.read_dump(dump, RECEIVED_US))
    assert [one.line for one in found if isinstance(one, Rejected)] == [45_001]
    assert sum(len(one) if isinstance(one, Batch) else isinstance(one, Row) for one in found) == 59_999
