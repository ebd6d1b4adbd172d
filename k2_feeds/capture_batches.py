"""Captures in blocks: trades and book tickers of combined streams, as the exchange writes them, become columns.

Every line written any other way (its keys in another order, a blank, an escape, a number that is not what it must be)
is read by k2_feeds.binance_capture, and what that says of it stands. Both say the same of every line: a property test.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from k2_core.frames import Longs
from k2_feeds.batches import Batch
from k2_feeds.binance_capture import outcome_of
from k2_feeds.capture_columns import plain_rows
from k2_feeds.lines import Block, Line, line_of, read_blocks, read_lines
from k2_feeds.outcomes import Outcome, Rejected, Row
from k2_feeds.scan import PAD_BYTES

_ROWS_PER_BREAK = 64
"""Where rows read alone are more frequent, they would cut the columns into pieces that cost more than they save."""


def open_captures(paths: Iterable[Path]) -> list[Iterator[Outcome | Batch]]:
    """What the lines of each capture became, in the order given. Raises BadInput when any cannot be opened."""
    paths = list(paths)
    for path in paths:
        next(read_lines(path), None)
    return [read_capture_batches(path) for path in paths]


def read_capture_batches(path: Path) -> Iterator[Outcome | Batch]:
    """What the lines of one capture became; the rows of each feed in file order. Raises BadInput."""
    for block in read_blocks(path):
        if isinstance(block, Rejected):
            yield block
        else:
            yield from parse_block(str(path), block)


def parse_block(file: str, block: Block) -> Iterator[Outcome | Batch]:
    """What the lines of one block became. file: how to name where they come from."""
    content = block.content if block.content.endswith(b"\n") else block.content + b"\n"
    data = np.frombuffer(content + bytes(PAD_BYTES), np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    starts = np.concatenate(([0], ends[:-1] + 1))
    found = plain_rows(data, starts, ends - (data[ends - 1] == ord("\r")))
    alone = np.ones(len(ends), np.bool_)
    for lines, _ in found:
        alone[lines] = False

    def outcome(at: int) -> Outcome:
        line = line_of(file, block.number + at, content[starts[at] : ends[at]])
        return outcome_of(file, line) if isinstance(line, Line) else line

    others = [(at, outcome(at)) for at in np.flatnonzero(alone).tolist()]
    if sum(isinstance(other, Row) for _, other in others) * _ROWS_PER_BREAK > len(ends):
        return map(outcome, range(len(ends)))
    return _in_order(found, others)


def _in_order(found: Sequence[tuple[Longs, Batch]], others: Iterable[tuple[int, Outcome]]) -> Iterator[Outcome | Batch]:
    """Columns cut where a row that was read alone belongs between theirs. found: with the line of each row."""
    done = [0] * len(found)
    for at, other in others:
        if isinstance(other, Row):
            for i, (lines, batch) in enumerate(found):
                before = int(np.searchsorted(lines, at))
                if before > done[i]:
                    yield batch[done[i] : before]
                    done[i] = before
        yield other
    for i, (_, batch) in enumerate(found):
        if len(batch) > done[i]:
            yield batch[done[i] :]
