"""Sequence state as a table: what one feed has seen, small enough to be written anew with every commit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from k2_core.sequences import Ids, Intervals, ScopeState, Stretch
from k2_core.verdict import State

STATE_SCHEMA = pa.schema(
    [
        pa.field("scope", pa.string(), nullable=False),
        pa.field("session", pa.int32(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("first", pa.int64(), nullable=False),
        pa.field("last", pa.int64(), nullable=False),
    ]
)
"""kind: `seen` and `dead` are inclusive intervals of ids; `high` is the highest id, in both columns; `stretch` is an
inclusive interval of event time in ms; `adrift` is an event time in ms and an id. A file without stretches is of a K2
that knew one numbering a scope, number 0."""

_Part = tuple[str, int, str, Ids, Ids]
"""Scope, session, kind, and the two columns."""


def state_table(state: State) -> pa.Table:
    """Project a state to rows, scopes in order."""
    parts = [part for scope in sorted(state) for part in _parts(scope, state[scope]) if len(part[3])]
    if not parts:
        return STATE_SCHEMA.empty_table()
    lengths = np.array([len(firsts) for *_, firsts, _ in parts])
    which = pa.array(np.repeat(np.arange(len(parts)), lengths))
    texts = [pa.array([part[column] for part in parts], pa.string()).take(which) for column in (0, 2)]
    sessions = np.repeat(np.array([part[1] for part in parts], np.int32), lengths)
    firsts, lasts = (np.concatenate([part[column] for part in parts]) for column in (3, 4))
    return pa.table([texts[0], sessions, texts[1], firsts, lasts], schema=STATE_SCHEMA)


def _parts(scope: str, state: ScopeState) -> Iterator[_Part]:
    for session, numbering in sorted(state.numberings().items()):
        high = np.array([] if numbering.high is None else [numbering.high], np.int64)
        mine = [s for s in state.stretches if s.session == session]
        yield scope, session, "seen", numbering.seen.firsts, numbering.seen.lasts
        yield scope, session, "dead", numbering.dead.firsts, numbering.dead.lasts
        yield scope, session, "high", high, high
        yield scope, session, "stretch", *_columns((s.start_ms, s.end_ms) for s in mine)
    yield scope, state.session, "adrift", *_columns(sorted(state.adrift))


def _columns(pairs: Iterator[tuple[int, int]] | list[tuple[int, int]]) -> tuple[Ids, Ids]:
    both = np.array(list(pairs), np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def state_from(table: pa.Table) -> dict[str, ScopeState]:
    """Read a state back; the inverse of `state_table`."""
    found: dict[str, dict[int, dict[str, Intervals]]] = {}
    for scope, session, kind, firsts, lasts in _runs(table):
        found.setdefault(scope, {}).setdefault(session, {})[kind] = Intervals(firsts, lasts)
    return {scope: _scope_state(sessions) for scope, sessions in found.items()}


def _runs(table: pa.Table) -> Iterator[_Part]:
    """The rows of each scope, session and kind, which lie together."""
    if not len(table):
        return
    scopes, kinds = (table[name].combine_chunks().dictionary_encode() for name in ("scope", "kind"))
    sessions, firsts, lasts = (table[name].to_numpy() for name in ("session", "first", "last"))
    codes = np.stack([scopes.indices.to_numpy(), sessions, kinds.indices.to_numpy()])
    edges = np.flatnonzero((codes[:, 1:] != codes[:, :-1]).any(axis=0)) + 1
    names, words = scopes.dictionary.to_pylist(), kinds.dictionary.to_pylist()
    for start, end in zip([0, *edges.tolist()], [*edges.tolist(), len(table)], strict=True):
        scope, session, kind = codes[:, start].tolist()
        yield names[scope], session, words[kind], firsts[start:end], lasts[start:end]


_NONE = Intervals()


def _scope_state(sessions: dict[int, dict[str, Intervals]]) -> ScopeState:
    stretches = tuple(
        Stretch(start, end, session)
        for session, kinds in sessions.items()
        for start, end in zip(*_lists(kinds.get("stretch", _NONE)), strict=True)
    )
    adrift = frozenset(
        pair for kinds in sessions.values() for pair in zip(*_lists(kinds.get("adrift", _NONE)), strict=True)
    )
    numberings = {session: _numbering(session, kinds) for session, kinds in sessions.items()}
    return ScopeState.of(numberings, tuple(sorted(stretches, key=lambda s: s.start_ms)), adrift)


def _numbering(session: int, kinds: dict[str, Intervals]) -> ScopeState:
    high = kinds.get("high", _NONE).highest
    return ScopeState(kinds.get("seen", _NONE), kinds.get("dead", _NONE), high, session)


def _lists(columns: Intervals) -> tuple[list[int], list[int]]:
    return columns.firsts.tolist(), columns.lasts.tolist()
