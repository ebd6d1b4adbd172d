"""Sequence state as a table: what one feed has seen, small enough to be written anew with every commit."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pyarrow as pa

from k2_core.sequences import Ids, Intervals, ScopeState
from k2_core.verdict import SESSION, State

STATE_SCHEMA = pa.schema(
    [
        pa.field("scope", pa.string(), nullable=False),
        pa.field("session", pa.int32(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("first", pa.int64(), nullable=False),
        pa.field("last", pa.int64(), nullable=False),
    ]
)
"""kind: `seen` and `dead` are inclusive intervals of ids; `high` is the highest id, in both columns."""


def state_table(state: State) -> pa.Table:
    """Project a state to rows, scopes in order."""
    parts = [part for scope in sorted(state) for part in _parts(scope, state[scope])]
    return pa.concat_tables([STATE_SCHEMA.empty_table(), *parts])


def state_from(table: pa.Table) -> dict[str, ScopeState]:
    """Read a state back; the inverse of `state_table`."""
    kinds: dict[str, dict[str, tuple[list[int], list[int]]]] = defaultdict(lambda: defaultdict(lambda: ([], [])))
    for row in table.to_pylist():
        firsts, lasts = kinds[row["scope"]][row["kind"]]
        firsts.append(row["first"])
        lasts.append(row["last"])
    return {scope: _scope_state(found) for scope, found in kinds.items()}


def _scope_state(found: dict[str, tuple[list[int], list[int]]]) -> ScopeState:
    high = found["high"][0][0] if "high" in found else None
    return ScopeState(_intervals(*found["seen"]), _intervals(*found["dead"]), high)


def _intervals(firsts: list[int], lasts: list[int]) -> Intervals:
    return Intervals(np.array(firsts, np.int64), np.array(lasts, np.int64))


def _parts(scope: str, state: ScopeState) -> list[pa.Table]:
    high = np.array([] if state.high is None else [state.high], np.int64)
    kinds = (
        ("seen", state.seen.firsts, state.seen.lasts),
        ("dead", state.dead.firsts, state.dead.lasts),
        ("high", high, high),
    )
    return [_rows(scope, kind, firsts, lasts) for kind, firsts, lasts in kinds if len(firsts)]


def _rows(scope: str, kind: str, firsts: Ids, lasts: Ids) -> pa.Table:
    n = len(firsts)
    columns = [[scope] * n, [SESSION] * n, [kind] * n, firsts, lasts]
    return pa.table([pa.array(c, t) for c, t in zip(columns, STATE_SCHEMA.types, strict=True)], schema=STATE_SCHEMA)
