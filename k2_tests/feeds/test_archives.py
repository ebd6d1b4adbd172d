from __future__ import annotations

import os
import random
import struct
import tracemalloc
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2_feeds import archives
from k2_feeds.archives import RATIO_MAX, open_archive, stated_digest
from k2_feeds.lines import Damage
from k2_feeds.outcomes import Refusal, Unusable
from k2_tests.feeds.dumps import state_checksum, write_zip

NAME = "a.csv"
NOISE = random.Random(1).randbytes(300_000).hex().encode()


def content(path, digest=None):
    with open_archive(path, NAME, digest) as archive:
        return list(archive.pieces())


def refusal(path, digest=None):
    with pytest.raises(Unusable) as problem:
        content(path, digest)
    return problem.value.reason


def patched(path, signature, offset, layout, value):
    """Overwrite a field of the first header with a signature."""
    raw = bytearray(path.read_bytes())
    struct.pack_into(layout, raw, raw.index(signature) + offset, value)
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_entry_comes_whole_and_may_be_read_again(tmp_path, method):
    path = write_zip(tmp_path / "a.zip", {NAME: NOISE}, method=method)
    with open_archive(path, NAME, stated_digest(path)) as archive:
        assert [b"".join(archive.pieces()) for _ in range(2)] == [NOISE, NOISE]


def test_a_digest_that_differs_is_refused_before_the_archive_is_opened(tmp_path):
    path = write_zip(tmp_path / "a.zip", {NAME: NOISE})
    digest = stated_digest(path)
    path.write_bytes(b"not a zip")
    assert refusal(path, digest) is Refusal.CHECKSUM_MISMATCH


@pytest.mark.parametrize(
    "stated",
    [
        "",
        "abc",
        "0" * 64,
        f"{'0' * 64}  b.zip",
        f"{'x' * 64}  a.zip",
        f"{'0' * 64}  ../a.zip",
        f"{'0' * 64}  a.zip\n{'0' * 5000}",
    ],
    ids=["empty", "short", "no name", "another name", "no hex", "a path", "too long"],
)
def test_a_checksum_file_that_says_something_else_is_refused(tmp_path, stated):
    path = write_zip(tmp_path / "a.zip", {NAME: b"x"})
    (tmp_path / "a.zip.CHECKSUM").write_text(stated)
    with pytest.raises(Unusable) as problem:
        stated_digest(path)
    assert problem.value.reason is Refusal.CHECKSUM_MISMATCH


@pytest.mark.parametrize(
    "name", ["../a.csv", "/a.csv", "x/a.csv", "..\\a.csv", "a.csv\0.exe", "A.csv", "b.csv", "a.csv/"]
)
def test_any_other_name_inside_is_refused(tmp_path, name):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        entry = zipfile.ZipInfo("placeholder")
        entry.filename = name
        archive.writestr(entry, b"x")
    assert refusal(path) is Refusal.WRONG_NAME


@pytest.mark.parametrize("entries", [{}, {NAME: b"x", "b.csv": b"y"}], ids=len)
def test_an_archive_of_none_or_several_is_refused(tmp_path, entries):
    assert refusal(write_zip(tmp_path / "a.zip", entries)) is Refusal.SEVERAL_ENTRIES


def test_a_directory_is_refused_before_it_is_taken_into_memory(tmp_path):
    path = write_zip(tmp_path / "a.zip", {f"{i:0200}": b"" for i in range(20_000)}, method=zipfile.ZIP_STORED)
    tracemalloc.start()
    assert refusal(path) is Refusal.SEVERAL_ENTRIES
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_an_encrypted_entry_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {NAME: b"x"})
    assert refusal(patched(path, b"PK\x01\x02", 8, "<H", 0x1)) is Refusal.ENCRYPTED


def test_a_compression_that_chooses_its_own_memory_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {NAME: NOISE}, method=zipfile.ZIP_LZMA)
    assert refusal(path) is Refusal.NOT_AN_ARCHIVE


def test_an_entry_that_would_grow_too_much_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {NAME: b"\0" * (2 << 20)})
    assert refusal(path) is Refusal.ZIP_BOMB
    assert content(write_zip(path, {NAME: b"\0" * (1 << 20)}))
    modest = NOISE[: (4 << 20) // RATIO_MAX] + b"\0" * (2 << 20)
    assert content(write_zip(path, {NAME: modest}))


def test_an_entry_that_lies_about_its_size_yields_no_more_than_it_says(tmp_path):
    path = write_zip(tmp_path / "a.zip", {NAME: b"\0" * (64 << 20)})
    pieces = content(patched(path, b"PK\x01\x02", 24, "<L", 1_000))
    assert sum(len(piece) for piece in pieces if isinstance(piece, bytes)) <= 1_000
    assert isinstance(pieces[-1], Damage)


def test_a_size_beyond_every_dump_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "ENTRY_BYTES_MAX", len(NOISE) - 1)
    assert refusal(write_zip(tmp_path / "a.zip", {NAME: NOISE})) is Refusal.ZIP_BOMB


@pytest.mark.parametrize("entries", [{NAME: NOISE}, {NAME: NOISE, "b.csv": b""}], ids=len)
def test_the_directory_of_large_archives_is_read(tmp_path, monkeypatch, entries):
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 0)
    path = write_zip(tmp_path / "a.zip", entries)
    assert b"PK\x06\x06" in path.read_bytes()
    if len(entries) > 1:
        assert refusal(path) is Refusal.SEVERAL_ENTRIES
    else:
        assert b"".join(content(path)) == NOISE


def test_the_form_of_large_entries_is_read(tmp_path):
    path = write_zip(tmp_path / "a.zip", {NAME: NOISE})
    with zipfile.ZipFile(path, "w") as archive, archive.open(NAME, "w", force_zip64=True) as entry:
        entry.write(NOISE)
    assert b"".join(content(path)) == NOISE


@pytest.mark.parametrize("kept", [0, 10, 21, 1_000, -1, -22])
def test_a_truncated_archive_is_refused(tmp_path, kept):
    path = write_zip(tmp_path / "a.zip", {NAME: NOISE})
    path.write_bytes(path.read_bytes()[:kept])
    assert refusal(path) is Refusal.NOT_AN_ARCHIVE


def test_something_after_the_archive_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {NAME: NOISE})
    path.write_bytes(path.read_bytes() + b"#!/bin/sh")
    assert refusal(path) is Refusal.NOT_AN_ARCHIVE


@given(at=st.integers(0, 60_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_damage_or_a_refusal_never_other_content(tmp_path_factory, at, bit):
    path = tmp_path_factory.mktemp("bits") / "a.zip"
    whole = NOISE[:100_000]
    raw = bytearray(write_zip(path, {NAME: whole}).read_bytes())
    raw[at % len(raw)] ^= 1 << bit
    path.write_bytes(raw)
    try:
        pieces = content(path)
    except Unusable:
        return
    assert isinstance(pieces[-1], Damage) or b"".join(pieces) == whole


def test_an_archive_that_changes_while_it_is_read_is_damaged(tmp_path):
    path = write_zip(tmp_path / "a.zip", {NAME: NOISE})
    with open_archive(path, NAME, None) as archive:
        pieces = archive.pieces()
        next(pieces)
        with path.open("ab") as file:
            file.write(b"more")
        assert "changed" in list(pieces)[-1].detail


def test_a_replaced_file_does_not_reach_who_has_the_old_one_open(tmp_path):
    path = write_zip(tmp_path / "a.zip", {NAME: NOISE})
    with open_archive(path, NAME, None) as archive:
        os.replace(write_zip(tmp_path / "b.zip", {NAME: b"other"}), path)
        assert b"".join(archive.pieces()) == NOISE


def test_a_checksum_that_is_there_holds(tmp_path):
    path = state_checksum(write_zip(tmp_path / "a.zip", {NAME: b"x"}))
    assert b"".join(content(path, stated_digest(path))) == b"x"
