"""Statements on k2.coverage about gaps: which can be believed, and the gap events they are.

A statement names its gap (gap_id), the state it is put in (event), and repeats feed, symbol and ids of the name, so
that one garbled field shows. What contradicts itself is a dead letter; what is merely untrue changes no row.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2_core.gap_ids import STATED, GapId
from k2_core.quality import Reason
from k2_core.verdict import GapEvent, Mask

Rule = tuple[Mask, Reason, str]
_TOLD = ("gap_id", "event", "feed", "symbol", "first_id", "last_id")


def statement_rules(rows: pa.Table) -> Iterator[Rule]:
    """Every rule about statements with the rows that break it. rows: feed columns of audit.coverage."""
    about_gaps = rows["gap_id"].is_valid().to_numpy()
    states = pc.is_in(rows["event"], pa.array(STATED)).to_numpy()
    yield states & ~about_gaps, Reason.MISSING_VALUE, "a state of a gap, but gap_id is null"
    yield about_gaps & ~states, Reason.UNKNOWN_STATE, f"gap_id, but event is none of {', '.join(STATED)}"
    wrong = np.zeros(len(rows), bool)
    for at in np.flatnonzero(about_gaps).tolist():
        wrong[at] = not _is_consistent({name: rows[name][at].as_py() for name in _TOLD})
    detail = "gap_id is not feed:scope:session:first-last of this statement's feed, symbol, first_id and last_id"
    yield wrong, Reason.BAD_GAP, detail


def _is_consistent(told: dict[str, object]) -> bool:
    try:
        gap = GapId.parse(str(told["gap_id"]))
    except ValueError:
        return False
    return (gap.feed, gap.scope, gap.first_id, gap.last_id) == tuple(told[name] for name in _TOLD[2:])


def stated_gaps(rows: pa.Table) -> tuple[GapEvent, ...]:
    """The gap events among statements that were screened, in their order. rows: columns of audit.coverage."""
    about_gaps = rows.filter(rows["gap_id"].is_valid())
    return tuple(_event(row) for row in about_gaps.to_pylist())


def _event(row: dict[str, object]) -> GapEvent:
    gap = GapId.parse(str(row["gap_id"]))
    return GapEvent(
        feed=gap.feed,
        exchange=str(row["exchange"]),
        scope=gap.scope,
        first_id=gap.first_id,
        last_id=gap.last_id,
        state=str(row["event"]),
        exchange_date=row["exchange_date"],  # type: ignore[arg-type]  # a date column
        session=gap.session,
        actor=str(row["source"]),
        evidence=row["evidence"],  # type: ignore[arg-type]  # a text column, null or not
        stated=row["timestamp"],  # type: ignore[arg-type]  # an instant column
    )
