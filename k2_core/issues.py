"""Which rows the latest load of a day no longer holds, told from a sketch of that load.

A day of a file source is loaded whole; loaded again, it is a re-issue, and a line the vendor withdrew leaves a stored
row that no record speaks of. So a load states for each (feed, symbol, exchange date) how many keys it had, and a sketch
of them in one kilobyte whatever their number: an invertible Bloom lookup table. Taking it from the sketch of the stored
keys leaves those in which the two differ, and a few dozen of those can be named. No list of keys has to be kept.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.quality import Reason

ISSUED = "issued"
"""Event of a coverage statement that speaks of an issue."""

Ids = npt.NDArray[np.uint64]
"""64-bit digests of keys: among 100,000 keys two are equal once in four billion days."""

_PARTS, _PART_CELLS = 4, 16
_CELLS = _PARTS * _PART_CELLS
"""Each key is in one cell of each part. Measured: 30 differences are all named in 99 of 100 cases, 40 in 95."""
_CELL = np.dtype([("count", "<i4"), ("ids", "<u8"), ("checks", "<u4")])
_ID_BYTES = 8


@dataclass(frozen=True, eq=False)
class Sketch:
    """What some keys come to, each counted once. cells: shape (64,): how many, and the sums of what they are."""

    cells: npt.NDArray[np.void]

    @classmethod
    def of(cls, ids: Ids) -> Sketch:
        """Sketch of keys by their ids, each given once."""
        cells, checks = np.zeros(_CELLS, _CELL), _checks(ids)
        for places in _places(ids):
            np.add.at(cells["count"], places, 1)
            np.add.at(cells["ids"], places, ids)
            np.add.at(cells["checks"], places, checks)
        return cls(cells)

    def __add__(self, other: Sketch) -> Sketch:
        return self._combined(other, 1)

    def __sub__(self, other: Sketch) -> Sketch:
        return self._combined(other, -1)

    def _combined(self, other: Sketch, sign: int) -> Sketch:
        """All sums wrap around, so they can be taken back exactly."""
        cells = self.cells.copy()
        for name in _CELL.names or ():
            theirs = other.cells[name]
            cells[name] = cells[name] + theirs if sign > 0 else cells[name] - theirs
        return Sketch(cells)

    @property
    def is_empty(self) -> bool:
        """Whether no key is in it, or each as often as it was taken away."""
        return not any(self.cells[name].any() for name in _CELL.names or ())

    @property
    def digest(self) -> str:
        """SHA-256: the same for the same keys, in whatever order they came."""
        return hashlib.sha256(self.cells.tobytes()).hexdigest()

    def named(self) -> tuple[list[int], list[int], Sketch]:
        """The ids that are in it once, those that were taken away once, and what could not be told apart."""
        left, more, fewer = self, list[int](), list[int]()
        while (found := _alone(left.cells)) is not None:
            count, number = found
            (more if count > 0 else fewer).append(number)
            one = Sketch.of(np.array([number], np.uint64))
            left = left - one if count > 0 else left + one
        return more, fewer, left


def id_of(key: str) -> int:
    """64-bit id of a key."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=_ID_BYTES).digest(), "little")


def ids_of(keys: Iterable[str]) -> Ids:
    """64-bit ids of keys."""
    return np.fromiter(map(id_of, keys), np.uint64)


@dataclass(frozen=True)
class Issue:
    """One load of one feed, symbol and exchange date: how many keys it had, and their sketch."""

    exchange_date: date
    keys: int
    sketch: Sketch

    def evidence(self) -> str:
        """The issue as JSON, for a coverage statement."""
        stated = {
            "exchange_date": self.exchange_date.isoformat(),
            "keys": self.keys,
            "digest": self.sketch.digest,
            "sketch": base64.b64encode(self.sketch.cells.tobytes()).decode(),
        }
        return json.dumps(stated, sort_keys=True)

    @classmethod
    def parse(cls, evidence: str) -> Issue:
        """Read what `evidence` wrote. Raises ValueError when it was changed."""
        try:
            stated = json.loads(evidence)
            content = base64.b64decode(stated["sketch"], validate=True)
            sketch = Sketch(np.frombuffer(content, _CELL).copy())
            day, keys = date.fromisoformat(stated["exchange_date"]), int(stated["keys"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not the evidence of an issue: {error!r}") from error
        if len(sketch.cells) != _CELLS or sketch.digest != stated.get("digest"):
            raise ValueError("the sketch of the issue does not match its digest")
        return cls(day, keys, sketch)


@dataclass(frozen=True)
class Difference:
    """How the stored keys of a day differ from its latest issue.

    withdrawn: stored keys the issue no longer has. missing: keys of the issue that are not stored, because they wait or
    were dead letters. is_whole: whether withdrawn names all; where too many differ, only the counts can be told.
    """

    stored: int
    issued: int
    withdrawn: tuple[str, ...]
    missing: int
    is_whole: bool


def difference(stored: pa.Array, issue: Issue) -> Difference:
    """Compare stored keys with the latest issue of their day.

    stored: every message_id of the feed, symbol and exchange date, each once. Costs a hash for each key.
    """
    keys = stored.to_pylist()
    ids = ids_of(keys)
    more, fewer, left = (Sketch.of(ids) - issue.sketch).named()
    at = np.flatnonzero(np.isin(ids, np.array(more, np.uint64)))
    return Difference(len(keys), issue.keys, tuple(sorted(keys[i] for i in at.tolist())), len(fewer), left.is_empty)


def latest_issues(statements: pa.Table) -> dict[tuple[str, str, date], Issue]:
    """The newest issue of every (feed, symbol, exchange date). statements: rows of audit.coverage, any order.

    Raises ValueError naming a statement that says it is an issue and is none.
    """
    issued = statements.filter(pc.equal(statements["event"], ISSUED))
    told = issued.select(["timestamp", "message_id", "feed", "symbol", "evidence"])
    ordered = told.sort_by([("timestamp", "ascending"), ("message_id", "ascending")]).to_pylist()
    found: dict[tuple[str, str, date], Issue] = {}
    for row in ordered:
        try:
            issue = Issue.parse(row["evidence"] or "")
        except ValueError as error:
            raise ValueError(f"{row['message_id']}: {error}") from error
        found[row["feed"], row["symbol"], issue.exchange_date] = issue
    return found


def issue_rules(statements: pa.Table) -> Iterator[tuple[npt.NDArray[np.bool_], Reason, str]]:
    """Every rule about issues with the statements that break it. statements: feed columns of audit.coverage."""
    garbled = np.zeros(len(statements), bool)
    for at in np.flatnonzero(pc.equal(statements["event"], ISSUED).to_numpy()).tolist():
        garbled[at] = not _is_issue(statements["evidence"][at].as_py())
    yield garbled, Reason.BAD_ISSUE, "an issue whose evidence is not what a load states, or was changed"


def _is_issue(evidence: str | None) -> bool:
    try:
        Issue.parse(evidence or "")
    except ValueError:
        return False
    return True


def _mixed(ids: Ids) -> Ids:
    """Spread the bits of ids once more (the finalizer of SplitMix64), so that a sum of ids shows itself as no id."""
    mixed = ids.copy()
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def _places(ids: Ids) -> Iterator[npt.NDArray[np.int64]]:
    mixed = _mixed(ids)
    for part in range(_PARTS):
        within = (mixed >> np.uint64(8 * part)) % np.uint64(_PART_CELLS)
        yield within.astype(np.int64) + part * _PART_CELLS


def _checks(ids: Ids) -> npt.NDArray[np.uint32]:
    return (_mixed(ids) >> np.uint64(32)).astype(np.uint32)


def _alone(cells: npt.NDArray[np.void]) -> tuple[int, int] | None:
    """A key that is the only one of its cell: how often, 1 or -1, and its id."""
    for sign in (1, -1):
        at = np.flatnonzero(cells["count"] == sign)
        ids = cells["ids"][at] if sign > 0 else np.uint64(0) - cells["ids"][at]
        checks = cells["checks"][at] if sign > 0 else np.uint32(0) - cells["checks"][at]
        homes = np.stack(list(_places(ids)), axis=1) if len(at) else np.empty((0, _PARTS), np.int64)
        right = (_checks(ids) == checks) & (homes == at[:, None]).any(axis=1)
        if right.any():
            return sign, int(ids[int(np.argmax(right))])
    return None
