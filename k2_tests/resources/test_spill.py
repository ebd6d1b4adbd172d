from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2_core.errors import AlreadyRunning, Damaged
from k2_resources.spill import Spill, SpillFull

ROOMY = 1 << 20
HEAD_BYTES = 8


def spill(folder, bytes_max=ROOMY, segment_bytes=64):
    return Spill(folder, bytes_max, segment_bytes)


def all_of(found):
    out = []
    while records := found.read(3):
        out += records
    return out


def segments(folder):
    return sorted(folder.glob("*.spill"))


records = st.lists(st.binary(max_size=40), max_size=40)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.binary(max_size=40)),
        st.tuples(st.just("read"), st.integers(1, 5)),
        st.tuples(st.just("release"), st.none()),
    ),
    max_size=60,
)


@settings(max_examples=40)
@given(steps)
def test_it_is_a_queue(steps):
    with tempfile.TemporaryDirectory() as folder:
        ours, model, read = spill(Path(folder)), [], []
        for step, value in steps:
            if step == "append":
                ours.append(value)
                model.append(value)
            elif step == "read":
                read += ours.read(value)
            else:
                ours.release()
        read += all_of(ours)
        ours.close()
        assert read == model
        assert ours.is_empty


@settings(max_examples=40)
@given(steps)
def test_what_was_not_released_is_there_for_the_next_process(steps):
    with tempfile.TemporaryDirectory() as folder:
        ours, appended, handed_out, released = spill(Path(folder)), [], 0, 0
        for step, value in steps:
            if step == "append":
                ours.append(value)
                appended.append(value)
            elif step == "read":
                handed_out += len(ours.read(value))
            else:
                ours.release()
                released = handed_out
        ours.close()
        again = spill(Path(folder))
        left = all_of(again)
        again.close()
        assert left == appended[len(appended) - len(left) :]
        assert len(left) >= len(appended) - released


@settings(max_examples=40)
@given(records.filter(bool), st.integers(1, 47))
def test_a_torn_tail_costs_the_last_record_only(records, torn_bytes):
    with tempfile.TemporaryDirectory() as folder:
        ours = spill(Path(folder), segment_bytes=ROOMY)
        for record in records:
            ours.append(record)
        ours.close()
        torn_bytes = min(torn_bytes, len(records[-1]) + HEAD_BYTES - 1)
        (path,) = segments(Path(folder))
        os.truncate(path, path.stat().st_size - torn_bytes)
        again = spill(Path(folder))
        assert all_of(again) == records[:-1]
        assert again.found.torn_bytes == len(records[-1]) + HEAD_BYTES - torn_bytes
        again.append(b"next")
        assert all_of(again) == [b"next"]
        again.close()


def test_a_tail_of_zeros_is_no_record(tmp_path):
    ours = spill(tmp_path)
    ours.append(b"one")
    ours.close()
    with segments(tmp_path)[-1].open("ab") as file:
        file.write(bytes(4_096))
    again = spill(tmp_path)
    assert all_of(again) == [b"one"]
    assert again.found.torn_bytes == 4_096
    again.close()


def test_damage_inside_is_set_aside_and_said(tmp_path):
    ours = spill(tmp_path, segment_bytes=30)
    for number in range(6):
        ours.append(b"record %d" % number)
    ours.close()
    first = segments(tmp_path)[0]
    content = bytearray(first.read_bytes())
    content[HEAD_BYTES + 2] ^= 1
    first.write_bytes(content)
    again = spill(tmp_path, segment_bytes=30)
    assert all_of(again) == [b"record 2", b"record 3", b"record 4", b"record 5"]
    assert again.found.damaged == (first.with_suffix(".damaged").name,)
    assert first.with_suffix(".damaged").read_bytes() == bytes(content)
    again.close()


def test_damage_while_it_is_open_stops_loudly(tmp_path):
    ours = spill(tmp_path)
    ours.append(b"record")
    segments(tmp_path)[0].write_bytes(bytes(HEAD_BYTES + 6))
    with pytest.raises(Damaged, match="byte 0"):
        ours.read(1)
    ours.close()


def test_it_says_when_it_is_full_and_keeps_what_it_has(tmp_path):
    ours = spill(tmp_path, bytes_max=100)
    with pytest.raises(SpillFull, match="at most 100") as refused:
        for _ in range(100):
            ours.append(b"0123456789")
    assert refused.value.code == "SPILL_FULL"
    assert ours.bytes_held == 90
    assert all_of(ours) == [b"0123456789"] * 5
    ours.release()
    ours.append(b"room again")
    assert ours.bytes_held == 18
    ours.close()


def test_what_is_released_leaves_the_disk(tmp_path):
    ours = spill(tmp_path)
    for number in range(50):
        ours.append(b"%d" % number)
    assert len(segments(tmp_path)) > 3
    all_of(ours)
    ours.release()
    assert segments(tmp_path) == []
    assert ours.bytes_held == 0
    ours.close()


def test_what_comes_back_is_first(tmp_path):
    ours = spill(tmp_path)
    ours.append(b"newer")
    ours.prepend([b"older", b"old"])
    ours.prepend([b"oldest"])
    assert all_of(ours) == [b"oldest", b"older", b"old", b"newer"]
    ours.close()


def test_a_record_longer_than_a_read_comes_whole(tmp_path):
    ours, long = spill(tmp_path), bytes(3 << 20)
    ours.bytes_max = 8 << 20
    ours.append(b"short")
    ours.append(long)
    assert all_of(ours) == [b"short", long]
    ours.close()


def test_one_process_at_a_time(tmp_path):
    ours = spill(tmp_path)
    with pytest.raises(AlreadyRunning, match="another name"):
        spill(tmp_path)
    ours.close()
    spill(tmp_path).close()


WRITER = """
import sys
from pathlib import Path
from k2_resources.spill import Spill
ours = Spill(Path(sys.argv[1]), 1 << 30, 4096)
number = 0
while True:
    ours.append(b"%08d" % number * 20)
    print(number, flush=True)
    number += 1
"""


@pytest.mark.parametrize("after", [3, 57, 400])
def test_a_killed_writer_leaves_everything_it_said_it_wrote(tmp_path, after):
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    said = [int(child.stdout.readline()) for _ in range(after)]
    child.send_signal(signal.SIGKILL)
    said += [int(line) for line in child.stdout if line.endswith("\n")]
    child.wait()
    child.stdout.close()
    again = spill(tmp_path)
    left = [int(record[:8]) for record in all_of(again)]
    again.close()
    assert left[: len(said)] == said
    assert left == list(range(len(left)))
    assert len(left) <= len(said) + 1
