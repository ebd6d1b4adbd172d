from __future__ import annotations

import gzip

import pytest

from k2_core.errors import BadInput
from k2_feeds.lines import LINE_BYTES_MAX, Line, content_digest, lines_of, read_lines
from k2_feeds.outcomes import Refusal, Rejected

ROWS = b"".join(b"%d,%d\n" % (i, i * 7919 % 10_007) for i in range(20_000))


def contents(path):
    return [line.content for line in read_lines(path) if isinstance(line, Line)]


def damage(path):
    return [line for line in read_lines(path) if isinstance(line, Rejected)]


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz", "rows"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_is_known_by_its_first_bytes_and_not_by_its_name(tmp_path, name, pack):
    path = tmp_path / name
    path.write_bytes(pack(b"a\nb\r\n\nc"))
    assert [(line.number, line.content) for line in read_lines(path)] == [(1, b"a"), (2, b"b\r"), (3, b""), (4, b"c")]


def test_an_empty_file_has_no_lines(tmp_path):
    for name, content in (("plain", b""), ("packed", gzip.compress(b""))):
        (tmp_path / name).write_bytes(content)
        assert list(read_lines(tmp_path / name)) == []


def test_members_one_after_the_other_are_one_file_and_zeros_behind_them_are_padding(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"a\nb") + gzip.compress(b"c\nd\n") + bytes(700_000))
    assert (contents(path), damage(path)) == ([b"a", b"bc", b"d"], [])


def test_a_truncated_file_gives_every_whole_line_and_then_its_damage(tmp_path):
    path = tmp_path / "x.gz"
    packed = gzip.compress(ROWS)
    path.write_bytes(packed[: len(packed) // 2])
    whole, found = contents(path), damage(path)
    assert ROWS.startswith(b"\n".join(whole) + b"\n")
    assert len(whole) > 5_000
    assert [(d.reason, d.line, d.damaged) for d in found] == [(Refusal.DAMAGED_FILE, len(whole) + 1, True)]


def test_a_last_line_cut_by_the_damage_is_never_a_line(tmp_path):
    path = tmp_path / "x.gz"
    member = gzip.compress(b"first\nsecond,123")
    path.write_bytes(member[:-8])
    assert contents(path) == [b"first"]
    assert damage(path)[0].raw == b"second,123"


def test_bytes_overwritten_in_the_middle_are_damage_with_its_position(tmp_path):
    path = tmp_path / "x.gz"
    packed = bytearray(gzip.compress(ROWS))
    packed[len(packed) // 2 : len(packed) // 2 + 64] = b"\xff" * 64
    path.write_bytes(packed)
    found = damage(path)
    assert len(found) == 1
    assert "damaged at byte" in found[0].detail
    assert len(contents(path)) > 1_000


def test_a_wrong_checksum_is_damage(tmp_path):
    path = tmp_path / "x.gz"
    packed = bytearray(gzip.compress(ROWS))
    packed[-6] ^= 1
    path.write_bytes(packed)
    assert contents(path) == ROWS.splitlines()
    assert "data check" in damage(path)[0].detail


def test_garbage_behind_a_member_is_damage(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"a\n") + b"garbage")
    assert contents(path) == [b"a"]
    assert len(damage(path)) == 1


def test_a_line_too_long_is_set_aside_and_the_next_one_read():
    pieces = [b"a\n", *[b"x" * (1 << 20)] * 20, b"\nb\n"]
    first, second, third = lines_of("test", pieces)
    assert (first, third) == (Line(1, b"a"), Line(3, b"b"))
    assert isinstance(second, Rejected)
    assert (second.reason, second.line) == (Refusal.LINE_TOO_LONG, 2)
    assert str(20 << 20) in second.detail
    assert len(second.raw) < LINE_BYTES_MAX


def test_a_file_that_cannot_be_opened_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match=r"nothing\.gz"):
        next(read_lines(tmp_path / "nothing.gz"))


def test_a_file_and_its_packed_twin_have_one_digest(tmp_path):
    plain, packed = tmp_path / "a", tmp_path / "b"
    plain.write_bytes(ROWS)
    packed.write_bytes(gzip.compress(ROWS))
    assert content_digest(plain) == content_digest(packed)
