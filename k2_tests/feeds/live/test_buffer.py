from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2_feeds.live.buffer import Buffer, Received
from k2_resources.spill import Spill, SpillFull


def frame(number):
    return Received(1_700_000_000_000_000 + number, b'{"t":%d}' % number)


def numbers(frames):
    return [received.received_us - 1_700_000_000_000_000 for received in frames]


def buffer(folder, bytes_max=1_000, spill_bytes_max=1 << 20):
    return Buffer(Spill(folder, spill_bytes_max, 128), bytes_max)


def drained(ours):
    ours.end()
    out = []
    while (batch := ours.take(7, 0.0)) is not None:
        out += numbers(batch)
        ours.release()
    return out


@settings(max_examples=40)
@given(st.lists(st.one_of(st.just("put"), st.integers(1, 6)), max_size=80))
def test_frames_come_out_once_and_in_order_through_memory_and_disk(steps):
    with tempfile.TemporaryDirectory() as folder:
        ours, put, taken = buffer(Path(folder)), 0, []
        for step in steps:
            if step == "put":
                ours.put(frame(put))
                put += 1
            else:
                taken += numbers(ours.take(step, 0.0))
                ours.release()
        taken += drained(ours)
        ours.spill.close()
        assert taken == list(range(put))
        assert ours.bytes_held == 0
        assert ours.spill.bytes_held == 0


def test_memory_is_bounded_and_the_rest_lies_on_disk(tmp_path):
    ours = buffer(tmp_path, bytes_max=2_000)
    for number in range(500):
        ours.put(frame(number))
    assert ours.bytes_held <= 2_000
    assert ours.spilled > 450
    assert drained(ours) == list(range(500))
    ours.spill.close()


def test_what_was_in_hand_or_in_memory_is_kept_before_what_is_on_disk(tmp_path):
    ours = buffer(tmp_path, bytes_max=1_000)
    for number in range(20):
        ours.put(frame(number))
    assert numbers(ours.take(2, 0.0)) == [0, 1]
    assert ours.keep() > 2
    ours.spill.close()
    again = buffer(tmp_path)
    assert drained(again) == list(range(20))
    again.spill.close()


def test_what_was_released_is_not_kept(tmp_path):
    ours = buffer(tmp_path, bytes_max=1 << 20)
    for number in range(10):
        ours.put(frame(number))
    ours.take(4, 0.0)
    ours.release()
    ours.take(2, 0.0)
    assert ours.keep() == 6
    ours.spill.close()
    again = buffer(tmp_path)
    assert drained(again) == [4, 5, 6, 7, 8, 9]
    again.spill.close()


def test_a_full_disk_is_told_to_both_sides(tmp_path):
    ours = buffer(tmp_path, bytes_max=500, spill_bytes_max=500)
    with pytest.raises(SpillFull):
        for number in range(1_000):
            ours.put(frame(number))
    with pytest.raises(SpillFull):
        ours.take(1, 0.0)
    with pytest.raises(SpillFull):
        ours.put(frame(0))
    ours.spill.close()


def test_a_reader_is_woken_by_a_frame_and_by_the_end(tmp_path):
    ours, taken = buffer(tmp_path), []

    def read():
        while (batch := ours.take(5, 10.0)) is not None:
            taken.extend(numbers(batch))
            ours.release()

    reader = threading.Thread(target=read)
    reader.start()
    ours.put(frame(1))
    ours.end()
    reader.join(5.0)
    assert not reader.is_alive()
    assert taken == [1]
    ours.spill.close()
