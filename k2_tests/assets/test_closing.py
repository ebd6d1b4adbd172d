"""Days closed on a real lake, and their certificates computed again by an auditor who has nothing but files."""

from __future__ import annotations

import ast
import csv
import gzip
import hashlib
import shutil
import subprocess
import sys
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from k2_assets.closing import Stamp, judge_day, publish
from k2_core.compaction import Limits
from k2_core.contracts import DAYS, TRADES
from k2_core.errors import FencedOut
from k2_core.protocol.ports import Change
from k2_core.receipts import DateRows, RangeCount, Receipt
from k2_core.screen import screen
from k2_feeds.asx import read_parts
from k2_feeds.asx_files import plan_load
from k2_feeds.companies import read_companies
from k2_feeds.outcomes import Row
from k2_resources.lake.catalog import Lake
from k2_resources.lake.compaction import compact
from k2_resources.lake.days import append_closings, closings, files_of
from k2_resources.lake.ledger import IcebergLedger
from k2_resources.settings import Settings
from k2_tests.certificate_check import SCRIPT, checked
from k2_tests.core.test_judge import TODAY
from k2_tests.feeds.sample import real
from k2_tests.lakes import DAY, FEED, Batch, collect, commit, new_lake, put, register
from k2_tests.ticks import FEEDS, table_of, trade

CONFIG = Settings().config
NEXT = DAY + timedelta(days=1)
STAMP = Stamp("run", datetime(2024, 8, 9, 1, tzinfo=UTC), "0")
NAME = f"{FEED.name} BTCUSDT {DAY}"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Four trades of one day."""
    lake = new_lake(tmp_path / "home")
    register(lake)
    put(lake, Batch([0, 1, 2, 3]))
    return lake


def close(lake: Lake, day: date = DAY) -> list[int]:
    """Close a day; the versions that came."""
    return [row["version"] for row in publish(lake, judge_day(lake, FEED, day, CONFIG), STAMP)]


def later(number: int) -> dict[str, list[object]]:
    """A trade a day later."""
    return {"exchange_date": [NEXT], "timestamp": [trade(number)["timestamp"] + timedelta(days=1)]}


def place(lake: Lake, name: str) -> Path:
    return Path(lake.warehouse) / name / "data"


def held(lake: Lake, capsys: pytest.CaptureFixture[str], data: Path | None = None) -> list[str]:
    """What the auditor says; everything must hold."""
    holds, said = checked(capsys, place(lake, "audit/days"), data or place(lake, "market_data/trades"))
    assert holds, said
    return said


def test_a_closed_day_holds_and_closing_it_again_changes_nothing(lake, capsys):
    put(lake, Batch([4], places=later(4)))
    assert (close(lake), close(lake)) == ([1], [])
    put(lake, Batch([5], places=later(5)))
    assert close(lake) == []
    assert held(lake, capsys) == [f"{NAME} 1 holds, 4 rows"]
    assert [(row["verdict"], row["expected"], row["missing"]) for row in closings(lake)] == [("complete", 4, 0)]


def test_a_day_whose_end_is_proven_by_the_next_one_becomes_complete(lake):
    close(lake)
    put(lake, Batch([4], places=later(4)))
    assert close(lake) == [2]
    assert [row["verdict"] for row in closings(lake)] == ["not_verifiable", "complete"]


def test_late_data_makes_a_version_and_the_one_before_still_holds(lake, capsys):
    close(lake)
    put(lake, Batch([4, 5]))
    assert close(lake) == [2]
    assert held(lake, capsys) == [f"{NAME} 1 holds, 4 rows", f"{NAME} 2 holds, 6 rows"]
    first, second = closings(lake, feed=FEED.name)
    assert (first["present"], second["present"]) == (4, 6)
    assert first["sha256"] != second["sha256"]


def test_a_correction_that_moves_a_row_to_another_date_changes_both_days_and_no_certificate_of_before(lake, capsys):
    close(lake)
    put(lake, Batch(revisions=[2], places=later(2)))
    assert (close(lake), close(lake, NEXT)) == ([2], [1])
    said = [f"{NAME} 1 holds, 4 rows", f"{NAME} 2 holds, 3 rows", f"{FEED.name} BTCUSDT {NEXT} 1 holds, 1 rows"]
    assert held(lake, capsys) == said
    rows = closings(lake, feed=FEED.name, day=DAY)
    assert [(row["present"], row["superseded"]) for row in rows] == [(4, 0), (3, 1)]


def test_files_have_no_part_in_a_certificate(lake, capsys, tmp_path):
    put(lake, Batch([4, 5], revisions=[2], places={"price": [Decimal(1), Decimal(2), Decimal("1E-8")]}))
    close(lake)
    one = tmp_path / "one"
    one.mkdir()
    stored = lake.load(TRADES).scan().to_arrow()
    pq.write_table(stored.take(list(reversed(range(len(stored))))), one / "all.parquet", row_group_size=2)
    assert held(lake, capsys, one) == held(lake, capsys) == [f"{NAME} 1 holds, 6 rows"]


def test_certificates_of_before_a_compaction_and_an_expiry_hold_after_it(lake, capsys):
    close(lake)
    put(lake, Batch([4], revisions=[2], places={"price": [Decimal(1), Decimal(2)]}))
    close(lake)
    before, files = held(lake, capsys), files_of(lake, FEED, DAY)
    collect(lake, TRADES)
    limits = Limits(rows_max=1_000, fragments_max=4)
    (done,) = compact(lake, TRADES, limits, NEXT, run_id="upkeep", code_version="0")
    ledger, at = IcebergLedger(lake), lake.head(TRADES)
    ledger.expire(at, [mark.snapshot_id for mark in ledger.snapshots(at)[:-1]])
    assert done.files_in == len(files) == 2
    for path in files:  # which a sweep does once its grace is over
        Path(path).unlink(missing_ok=True)
    assert held(lake, capsys) == before == [f"{NAME} 1 holds, 4 rows", f"{NAME} 2 holds, 5 rows"]
    assert close(lake) == []


def altered(stored: Path, changes: dict[str, object]) -> None:
    """Change the first row of a file behind everybody's back."""
    rows = pq.read_table(stored, partitioning=None)
    first = pa.Table.from_pylist([{**rows.slice(0, 1).to_pylist()[0], **changes}], schema=rows.schema)
    pq.write_table(pa.concat_tables([first, rows.slice(1)]), stored)


ALTERATIONS: list[dict[str, object]] = [
    {"price": Decimal("61838.63000001")}, {"side": "SELL"}, {"message_id": "BINANCE:BTCUSDT:trade:9"},
    {"exchange_date": NEXT}, {"kafka_offset": 99},
]  # fmt: skip


def test_a_row_altered_in_a_copy_of_a_file_fails_with_the_name_of_its_day(lake, capsys, tmp_path):
    close(lake)
    for number, changes in enumerate(ALTERATIONS):
        copy = Path(shutil.copytree(place(lake, "market_data/trades"), tmp_path / f"copy{number}"))
        altered(next(copy.rglob("*.parquet")), changes)
        holds, (said,) = checked(capsys, place(lake, "audit/days"), copy)
        assert not holds, changes
        assert said.startswith(f"{NAME} 1 FAILED: ")


def test_a_row_that_was_taken_away_fails_and_so_does_asking_for_what_nobody_closed(lake, capsys, tmp_path):
    close(lake)
    copy = Path(shutil.copytree(place(lake, "market_data/trades"), tmp_path / "copy"))
    file = next(copy.rglob("*.parquet"))
    pq.write_table(pq.read_table(file, partitioning=None).slice(1), file)
    holds, (said,) = checked(capsys, place(lake, "audit/days"), copy)
    assert not holds
    assert "present is 3, the certificate says 4" in said
    assert checked(capsys, place(lake, "audit/days"), copy, FEED.name, "ETHUSDT") == (False, [])


def left_over(lake: Lake, **changes: object) -> pa.Table:
    """Rows of a writer that lost: those of the table, changed."""
    rows = lake.load(TRADES).scan().to_arrow().to_pylist()
    return pa.Table.from_pylist([{**row, **changes} for row in rows], schema=TRADES.arrow_schema())


def test_what_losers_of_a_race_left_in_the_folder_counts_once_or_not_at_all(lake, capsys, tmp_path):
    close(lake)
    copy = Path(shutil.copytree(place(lake, "market_data/trades"), tmp_path / "copy"))
    (copy / "torn.parquet").write_bytes(b"PAR1")
    beyond: list[dict[str, object]] = [{}, {"kafka_offset": 77, "message_id": "other"}, {"kafka_epoch": -1}]
    for number, changes in enumerate(beyond):
        pq.write_table(left_over(lake, **changes), copy / f"loser{number}.parquet")
    held(lake, capsys, copy)


def test_files_that_contradict_each_other_are_told_and_the_list_of_those_that_count_decides(lake, capsys, tmp_path):
    close(lake)
    loser = place(lake, "market_data/trades") / "loser.parquet"
    pq.write_table(left_over(lake, side="SELL"), loser)
    holds, (said,) = checked(capsys, place(lake, "audit/days"), place(lake, "market_data/trades"))
    assert not holds
    assert "revision 0 says two things in these files" in said
    listed = tmp_path / "files.txt"
    listed.write_text("\n".join(files_of(lake, FEED, DAY)) + "\n")
    assert held(lake, capsys, listed) == [f"{NAME} 1 holds, 4 rows"]


def test_of_two_who_close_at_the_same_time_one_finds_nothing_left(lake):
    at, judged = lake.head(DAYS), judge_day(lake, FEED, DAY, CONFIG)
    assert len(publish(lake, judged, STAMP)) == 1
    with pytest.raises(FencedOut):
        append_closings(lake, at, [{**judged[0].row, **vars(STAMP), "version": 1}])
    assert publish(lake, judged, STAMP) == []
    assert [row["version"] for row in closings(lake)] == [1]


def test_a_day_without_a_row_is_not_collected_and_has_no_certificate(lake):
    close(lake, NEXT)
    (row,) = closings(lake, day=NEXT)
    assert (row["symbol"], row["verdict"], row["present"], row["sha256"]) == ("*", "not_collected", 0, None)
    assert row["expected"] is row["missing"] is None


def test_dead_letters_between_the_rows_of_a_day_are_counted(lake):
    put(lake, Batch([4], letters=[b"junk"]))
    put(lake, Batch([6]))
    close(lake)
    (row,) = closings(lake)
    assert (row["dead_letters"], row["duplicates"], row["lake_version"]) == (
        1,
        0,
        lake.head(TRADES).offsets.version,
    )


def test_the_script_is_short_and_needs_neither_k2_nor_a_catalog(lake, tmp_path):
    source = SCRIPT.read_text()
    assert len(source.splitlines()) <= 60
    imported = [n.name if isinstance(i, ast.Import) else i.module for i in ast.walk(ast.parse(source))
                if isinstance(i, ast.Import | ast.ImportFrom) for n in i.names]  # fmt: skip
    assert sorted(imported) == ["decimal", "hashlib", "pathlib", "pyarrow.dataset", "sys"]
    close(lake)
    words = [sys.executable, "-I", str(SCRIPT), str(place(lake, "audit/days")), str(place(lake, "market_data/trades"))]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{NAME} 1 holds, 4 rows\n", "")


def plain_digest(lines: list[list[str]]) -> str:
    """The digest of a day of prints from its file alone: csv, plain decimals, file order breaking ties."""
    seen: Counter[str] = Counter()
    rows = []
    for number, (day, clock, price, volume, condition, *_) in enumerate(lines):
        at = datetime.strptime(f"{day} {clock}", "%m/%d/%Y %H:%M:%S.%f").replace(tzinfo=ZoneInfo("Australia/Sydney"))
        local = at.replace(tzinfo=None)
        midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
        second = f"{Decimal((local - midnight) // timedelta(microseconds=1)).scaleb(-6).normalize():f}"
        fields = f"{second}:{Decimal(price).normalize():f}:{Decimal(volume).normalize():f}:{condition}"
        key = f"ASX:BHP:trade:{local.date()}:{fields}:{seen[fields]}"
        seen[fields] += 1
        micros = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        texts = (key, "BHP", str(micros), f"{Decimal(price):.8f}", f"{Decimal(volume):.8f}", "UNKNOWN", condition)
        rows.append((micros, number, "\t".join(texts) + "\n"))
    return hashlib.sha256("".join(text for *_, text in sorted(rows)).encode()).hexdigest()


def test_the_certificate_of_a_real_day_is_that_of_its_file(tmp_path, capsys):
    path, info = real("asx/trades/7078.csv.gz", "asx/company_info.csv")
    day, feed, file = date(2014, 3, 11), FEEDS["asx-trades"], tmp_path / "7078.csv"
    whole = gzip.decompress(path.read_bytes()).decode().splitlines()
    lines = [line for line in whole if line.startswith("03/11/2014,")]
    file.write_text("\n".join(lines) + "\n")
    sent = read_parts(plan_load([file], [], read_companies(info)), None, lambda: 1_394_600_000_000_000)
    rows = screen(feed, table_of(feed, [row.record for row in sent if isinstance(row, Row)]), TODAY).rows
    lake = new_lake(tmp_path / "home")
    counted = RangeCount(feed.topic, 0, 0, 0, len(rows), len(rows), len(rows))
    receipt = Receipt(TRADES.name, "batch", "run", "0", "1", (counted,), dates=(DateRows(day, feed.name, len(rows)),))
    commit(lake, lake.head(TRADES), Change(receipt, rows.select(TRADES.arrow_schema().names)))

    assert len(publish(lake, judge_day(lake, feed, day, CONFIG), STAMP)) == 1
    (row,) = closings(lake)
    cells = list(csv.reader(lines))
    assert (row["present"], row["verdict"], row["sha256"]) == (21_681, "not_verifiable", plain_digest(cells))
    totals = {s["column"]: s["total"] for s in row["sums"]}
    assert totals == {"price": sum(Decimal(c[2]) for c in cells), "quantity": sum(Decimal(c[3]) for c in cells)}
    assert held(lake, capsys) == ["asx-trades BHP 2014-03-11 1 holds, 21681 rows"]
