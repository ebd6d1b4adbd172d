from __future__ import annotations

import json
import tracemalloc
from datetime import date
from decimal import Decimal

import pytest

from k2_core.errors import BadInput
from k2_feeds import archives
from k2_feeds.binance_dump import dump_named, plan_dumps, read_dump, zips_below
from k2_feeds.binance_frames import parse_frame
from k2_feeds.outcomes import PassedOver, Refusal, Rejected, Row
from k2_tests.feeds.dumps import HEADER, at, line, lines, state_checksum, write_dump, write_zip

DAY = date(2025, 1, 1)
NAME = "BTCUSDT-trades-2025-01-01"
RECEIVED_US = 1_800_000_000_000_000


def outcomes(folder, rows, name=NAME):
    return read_named(write_dump(folder, name, rows))


def read_named(path, **options):
    return read_all([path], **options)


def read_all(paths, **options):
    return [outcome for dump in plan_dumps(paths, **options) for outcome in read_dump(dump, RECEIVED_US)]


def rows(found):
    return [outcome.record for outcome in found if isinstance(outcome, Row)]


def whole_refusal(found):
    """The refusal of a file of which nothing was sent."""
    (rejected,) = found
    assert isinstance(rejected, Rejected)
    assert (rejected.damaged, rejected.line, rejected.symbol) == (True, 0, "BTCUSDT")
    return rejected.reason


def refusals(found):
    """Lines that were refused, by number; the file itself is well."""
    assert not any(outcome.damaged for outcome in found if isinstance(outcome, Rejected))
    return {outcome.line: outcome.reason for outcome in found if isinstance(outcome, Rejected)}


def test_a_row_says_the_same_as_the_frame_of_its_trade(tmp_path):
    (row,) = outcomes(tmp_path, [line(7, at(DAY, 3.000125), maker="false", best="true")])
    frame = {"e": "trade", "E": at(DAY, 4), "s": "BTCUSDT", "t": 7, "p": "100.5", "q": "0.2", "T": at(DAY, 3.000125),
             "m": False, "M": True}  # fmt: skip
    told = parse_frame(json.dumps(frame).encode(), RECEIVED_US)
    assert {**row.record, "vendor_data": None} == {**told.record, "vendor_data": None}


@pytest.mark.parametrize(("unit", "seconds"), [("ms", 1.001), ("us", 1.00125)])
def test_the_unit_of_a_file_is_told_by_the_size_of_its_times(tmp_path, unit, seconds):
    records = rows(outcomes(tmp_path, lines(1, 3, DAY, unit=unit)))
    assert [record["timestamp"] for record in records][:2] == [at(DAY), at(DAY, seconds)]


@pytest.mark.parametrize("unit", ["ms", "us"])
def test_a_file_of_two_units_is_refused_before_a_row_of_it_is_sent(tmp_path, unit):
    found = [*lines(1, 20_000, DAY, unit="ms" if unit == "us" else "us"), line(20_001, at(DAY, 30_000, unit=unit))]
    assert whole_refusal(outcomes(tmp_path, found)) is Refusal.MIXED_UNITS


def test_a_header_is_passed_over_and_its_absence_is_normal(tmp_path):
    found = outcomes(tmp_path, [HEADER, *lines(1, 2, DAY)])
    assert found[0] == PassedOver("header")
    assert [record["source_sequence"] for record in rows(found)] == [1, 2]


@pytest.mark.parametrize(
    "header", ["id,qty,price,quote_qty,time,is_buyer_maker,is_best_match", "id,price,qty,quote_qty,time,is_buyer_maker"]
)
def test_another_header_refuses_the_file_because_rows_are_taken_by_position(tmp_path, header):
    assert whole_refusal(outcomes(tmp_path, [header, *lines(1, 2, DAY)])) is Refusal.HEADER


def test_lines_end_as_they_like(tmp_path):
    content = "\ufeff" + "\r\n".join([HEADER, *lines(1, 2, DAY), "", "  "])
    found = outcomes(tmp_path, content.encode())
    assert len(rows(found)) == 2
    assert refusals(found) == {}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (line(2, at(DAY), price="0.00000000", quantity="0.00000000", quote="0.00000000"), Refusal.NOT_POSITIVE),
        (line(2, at(DAY), price="-1"), Refusal.NOT_POSITIVE),
        (line(2, at(DAY), price="NaN"), Refusal.NOT_A_NUMBER),
        (line(2, at(DAY), price="0.000000001"), Refusal.TOO_MANY_DECIMALS),
        (line(2, at(DAY), quantity="46116860414.00000000"), Refusal.DECIMAL_OVERFLOW),
        (line(2, at(DAY), quote="much"), Refusal.NOT_A_NUMBER),
        (line(2, at(DAY), maker="TRUE"), Refusal.WRONG_TYPE),
        (line(2, at(DAY), best=""), Refusal.WRONG_TYPE),
        (line(2, 0), Refusal.MIXED_UNITS),
        (line(2, 10**18), Refusal.IMPLAUSIBLE_TIME),
        (line(2, 10**19 - 1), Refusal.IMPLAUSIBLE_TIME),
        (line(2, at(date(2025, 1, 2))), Refusal.WRONG_DATE),
        (line(2, at(DAY) - 1), Refusal.WRONG_DATE),
        (line(-2, at(DAY)), Refusal.BAD_ID),
        (line(2**63, at(DAY)), Refusal.BAD_ID),
        ("x" + line(2, at(DAY)), Refusal.BAD_ID),
        (line(2, at(DAY)).replace(",", ";"), Refusal.WRONG_COLUMNS),
        (line(2, at(DAY)).rpartition(",")[0], Refusal.WRONG_COLUMNS),
        (line(2, at(DAY)) + ",1", Refusal.WRONG_COLUMNS),
        ("\x00", Refusal.WRONG_COLUMNS),
    ],
)  # fmt: skip
def test_a_line_that_is_no_trade_is_refused_and_its_neighbours_land(tmp_path, bad, reason):
    found = outcomes(tmp_path, [line(1, at(DAY)), bad, line(3, at(DAY, 1))])
    assert refusals(found) == {2: reason}
    assert [record["source_sequence"] for record in rows(found)] == [1, 3]


def test_a_line_that_is_not_utf8_is_refused(tmp_path):
    content = "\n".join(lines(1, 1, DAY)).encode() + b"\n\xff\xfe,1,1,1,1,True,True\n"
    assert refusals(outcomes(tmp_path, content)) == {2: Refusal.NOT_UTF8}


def test_a_futures_file_is_refused_by_its_columns(tmp_path):
    found = outcomes(tmp_path, [row.rpartition(",")[0] for row in lines(1, 3, DAY)])
    assert set(refusals(found).values()) == {Refusal.WRONG_COLUMNS}
    assert rows(found) == []


@pytest.mark.parametrize("content", [b"", b"\n\n", b"<Error>NoSuchKey</Error>\n"])
def test_a_file_without_a_trade_is_refused(tmp_path, content):
    assert whole_refusal(outcomes(tmp_path, content)) is Refusal.WRONG_COLUMNS


def test_a_file_of_another_day_is_refused_whole(tmp_path):
    assert whole_refusal(outcomes(tmp_path, lines(1, 100, date(2025, 1, 3)))) is Refusal.WRONG_DATE


def test_days_are_those_of_utc_to_the_microsecond(tmp_path):
    last = at(date(2025, 1, 2)) - 1
    found = outcomes(tmp_path, [line(1, at(DAY)), line(2, last), line(3, last + 1)])
    assert refusals(found) == {3: Refusal.WRONG_DATE}


@pytest.mark.parametrize(("day", "lands"), [(date(2025, 1, 31), True), (date(2025, 2, 1), False)])
def test_a_month_holds_its_days(tmp_path, day, lands):
    found = outcomes(tmp_path, lines(1, 2, day), "BTCUSDT-trades-2025-01")
    assert bool(rows(found)) is lands


def test_what_price_and_quantity_do_not_say_is_kept(tmp_path):
    told = [
        line(1, at(DAY)),
        line(2, at(DAY), quote="20.10000001"),
        line(3, at(DAY), price="0.00000003", quantity="0.1", quote="0.00000000"),
    ]
    kept = [record["vendor_data"] for record in rows(outcomes(tmp_path, told))]
    assert kept == [None, {"quote_qty": "20.10000001"}, None]


def test_an_amount_beyond_our_decimals_is_no_reason_to_lose_a_trade(tmp_path):
    big = line(1, at(DAY), price="9999999999.00000001", quantity="9999999999.00000001", quote="99999999980000000001.2")
    (record,) = rows(outcomes(tmp_path, [big]))
    assert record["price"] == Decimal("9999999999.00000001")


@pytest.mark.parametrize(
    "name",
    ["BTCUSDT-aggTrades-2025-01-01.zip", "BTCUSDT-trades-2025-13-01.zip", "BTCUSDT-trades-2025-02-30.zip", "-trades-2025-01-01.zip",
     "BTCUSDT-trades-2025-01-01.csv", "BTCUSDT-trades-20250101.zip", "btcusdt-trades-2025-01-01.zip", "A:B-trades-2025-01-01.zip", "*-trades-2025-01-01.zip"],
)  # fmt: skip
def test_a_name_that_says_no_symbol_and_date_is_refused_before_anything_is_sent(tmp_path, name):
    write_zip(tmp_path / name, {"a": b""})
    with pytest.raises(BadInput, match="expected a name like"):
        plan_dumps([tmp_path / name])


def test_symbols_of_any_script_are_welcome(tmp_path):
    assert dump_named(tmp_path / "币安人生USDT-trades-2025-12.zip").symbol == "币安人生USDT"


def test_a_missing_checksum_needs_to_be_asked_for(tmp_path):
    path = write_dump(tmp_path, NAME, lines(1, 2, DAY), checksum=False)
    with pytest.raises(BadInput, match="--without-checksum"):
        plan_dumps([path])
    assert len(rows(read_named(path, without_checksum=True))) == 2


def test_a_checksum_that_is_there_must_hold_whatever_is_asked_for(tmp_path):
    path = write_dump(tmp_path, NAME, lines(1, 2, DAY))
    write_dump(tmp_path, NAME, lines(1, 3, DAY), checksum=False)
    assert whole_refusal(read_named(path, without_checksum=True)) is Refusal.CHECKSUM_MISMATCH


def test_an_entry_named_for_another_symbol_is_refused(tmp_path):
    path = write_zip(tmp_path / f"{NAME}.zip", {"ETHUSDT-trades-2025-01-01.csv": "\n".join(lines(1, 2, DAY)).encode()})
    assert whole_refusal(read_named(path)) is Refusal.WRONG_NAME


@pytest.mark.parametrize("kept", [40, 2_000, -5])
def test_a_truncated_archive_is_refused_by_name_and_its_neighbours_land(tmp_path, kept):
    cut = write_dump(tmp_path, "BTCUSDT-trades-2025-01-02", lines(1, 500, date(2025, 1, 2)))
    cut.write_bytes(cut.read_bytes()[:kept])
    state_checksum(cut)
    well = [write_dump(tmp_path, f"BTCUSDT-trades-2025-01-0{n}", lines(1_000 * n, 5, date(2025, 1, n))) for n in (1, 3)]
    found = read_all([*well, cut])
    refused = [outcome for outcome in found if isinstance(outcome, Rejected)]
    assert [(outcome.file, outcome.reason) for outcome in refused] == [(str(cut), Refusal.NOT_AN_ARCHIVE)]
    assert [record["source_sequence"] for record in rows(found)] == [*range(1_000, 1_005), *range(3_000, 3_005)]


def test_a_damaged_entry_sends_nothing(tmp_path):
    path = write_dump(tmp_path, NAME, lines(1, 5_000, DAY))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)
    state_checksum(path)
    assert whole_refusal(read_named(path)) is Refusal.DAMAGED_FILE


def test_dumps_are_ordered_by_symbol_and_date_each_once(tmp_path):
    names = [
        "ETHUSDT-trades-2025-01-01",
        "BTCUSDT-trades-2025-01-02",
        "BTCUSDT-trades-2025-01",
        "BTCUSDT-trades-2025-01-01",
    ]
    paths = [write_dump(tmp_path / name[:3], name, ["x"]) for name in names]
    found = [dump.path.stem for dump in plan_dumps([*paths, *paths])]
    assert found == [
        "BTCUSDT-trades-2025-01-01",
        "BTCUSDT-trades-2025-01",
        "BTCUSDT-trades-2025-01-02",
        "ETHUSDT-trades-2025-01-01",
    ]


def test_a_folder_gives_its_dumps_and_counts_other_zips(tmp_path):
    dump = write_dump(tmp_path / "spot" / "daily", NAME, ["x"])
    write_zip(tmp_path / "BTCUSDT-klines-1m-2025-01-01.zip", {"a": b""})
    assert zips_below(tmp_path) == ([dump], 1)
    with pytest.raises(BadInput, match="no dump"):
        plan_dumps([])


def peak_bytes(folder, content):
    """Most memory held while a dump is read and its rows are let go."""
    (dump,) = plan_dumps([write_dump(folder, NAME, content)])
    tracemalloc.start()
    sent = sum(isinstance(outcome, Row) for outcome in read_dump(dump, RECEIVED_US))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sent == content.count(b"\n")
    return peak


def test_memory_stays_flat_however_long_a_file_is(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "READ_BYTES", 1 << 14)
    content = ("\n".join(lines(1, 2_000, DAY)) + "\n").encode()
    assert peak_bytes(tmp_path, content * 5) < peak_bytes(tmp_path, content * 2) + len(content) // 2
