"""Raw captures of Binance streams: each line is the receive time in ns, a space, and the JSON frame as it came."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from k2_feeds.binance_frames import parse_frame
from k2_feeds.lines import Line, read_lines
from k2_feeds.outcomes import Outcome, Outcomes, PassedOver, Refusal, Rejected, Unusable

_RECEIVED_DIGITS = range(18, 20)
"""Nanoseconds since 1970, from 1973 to 2286; fewer digits are another unit."""
BLANK = "blank line"


def read_capture(path: Path) -> Outcomes:
    """What each line of one capture became, in file order. Raises BadInput when it cannot be opened."""
    return parse_capture(str(path), read_lines(path))


def parse_capture(file: str, lines: Iterable[Line | Rejected]) -> Outcomes:
    """What each line became, in order. file: how to name where they come from."""
    for line in lines:
        yield line if isinstance(line, Rejected) else outcome_of(file, line)


def outcome_of(file: str, line: Line) -> Outcome:
    """What one line became."""
    content = line.content.strip()
    if not content:
        return PassedOver(BLANK)
    try:
        received, _, frame = content.partition(b" ")
        return parse_frame(frame, _received_us(received))
    except Unusable as problem:
        return Rejected(file, line.number, problem.reason, problem.detail, line.content)


def _received_us(digits: bytes) -> int:
    if len(digits) not in _RECEIVED_DIGITS or not digits.isdigit():
        found = digits[:40].decode("utf-8", "backslashreplace")
        raise Unusable(
            Refusal.NOT_A_CAPTURE_LINE, f"the line begins with {found!r}, expected the receive time in nanoseconds"
        )
    return int(digits) // 1_000
