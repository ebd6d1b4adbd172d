"""Alerts: what is wrong now becomes edges, one when it begins and one when it is over, and edges become notices.

Pure: who looks at the world says what is wrong; what people have been told is a value that he keeps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Literal, get_args

Kind = Literal["check", "run", "silence", "lag", "halt", "unreachable", "daemon"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Severity = Literal["warn", "error"]
Turn = Literal["firing", "recovered"]

NOTICE_ALERTS_MAX = 100
"""Alerts one notice carries: a table of four thousand dates may fail at once. The others are counted."""
SUMMARY_CHARACTERS_MAX = 500
"""Longer summaries are cut: an error may quote a whole plan, and the state is stored anew at each look."""
_KEY_CHARACTERS = 32
"""128 bits of a SHA-256: no two edges of one installation meet."""


@dataclass(frozen=True)
class Condition:
    """Something that is wrong now.

    kind, subject, partition: its name for good. section: where docs/RUNBOOK.md speaks of it, as an anchor.
    hold_seconds: how long it must last before anybody is told; another `progress` begins that time anew, and ends a
    condition that was held for it.
    """

    kind: Kind
    subject: str
    summary: str
    section: str
    severity: Severity = "error"
    partition: str = ""
    run_id: str = ""
    hold_seconds: float = 0.0
    progress: str = ""

    @property
    def key(self) -> str:
        return f"{self.kind}:{self.subject}:{self.partition}"


@dataclass(frozen=True)
class Fire:
    """A condition whose begin is an edge already. edge: the number of that edge."""

    condition: Condition
    since_us: int
    edge: int


@dataclass(frozen=True)
class Held:
    """A condition that has not lasted long enough yet."""

    since_us: int
    progress: str


@dataclass(frozen=True)
class Watched:
    """Every condition that is known to be wrong, by its key, and how many edges there have been."""

    edges: int = 0
    firing: Mapping[str, Fire] = field(default_factory=dict)
    held: Mapping[str, Held] = field(default_factory=dict)

    def keys_of(self, kind: Kind) -> set[str]:
        """Keys of one kind that may turn out to be over."""
        return {key for key in (*self.firing, *self.held) if key.startswith(f"{kind}:")}


@dataclass(frozen=True)
class Alert:
    """One edge. at_us, edge: when it was seen and its number; with the condition they make its idempotency key."""

    turn: Turn
    condition: Condition
    since_us: int
    at_us: int
    edge: int

    @property
    def idempotency_key(self) -> str:
        """The same at each delivery of this edge, another for every other edge."""
        return _digest(self.condition.key, self.turn, str(self.edge), str(self.at_us))


@dataclass(frozen=True)
class Notice:
    """Edges told together: one turn, one kind, one section of the runbook. more: how many are only counted."""

    alerts: tuple[Alert, ...]
    more: int = 0

    @property
    def idempotency_key(self) -> str:
        """The same at each delivery of this notice."""
        return _digest(*(alert.idempotency_key for alert in self.alerts))

    @property
    def turn(self) -> Turn:
        return self.alerts[0].turn

    @property
    def severity(self) -> Severity:
        """The worst of its alerts."""
        return "error" if any(alert.condition.severity == "error" for alert in self.alerts) else "warn"


Changes = Mapping[str, Condition | None]
"""Key -> what is wrong, or None where nothing is any more. An absent key is not known now, and stays as it is."""


def levels(watched: Watched, kind: Kind, wrong: Iterable[Condition]) -> dict[str, Condition | None]:
    """Changes of a kind that is looked at as a whole: whatever is not wrong now is over."""
    found: dict[str, Condition | None] = dict.fromkeys(watched.keys_of(kind))
    return found | {condition.key: condition for condition in wrong}


def turned(watched: Watched, changes: Changes, now_us: int) -> tuple[Watched, tuple[Alert, ...]]:
    """Find the edges between what was known and what is seen now, and what is known from here on.

    What goes on firing is no edge, unless it got worse than a warning.
    """
    firing, held = dict(watched.firing), dict(watched.held)
    alerts: list[Alert] = []

    def edge(turn: Turn, condition: Condition, since_us: int) -> Alert:
        alerts.append(Alert(turn, condition, since_us, now_us, watched.edges + len(alerts) + 1))
        return alerts[-1]

    for key, condition in sorted(changes.items()):
        fire = firing.get(key)
        if fire is not None and (condition is None or _moved(fire.condition, condition)):
            edge("recovered", fire.condition, fire.since_us)
            del firing[key]
            fire = None
        if condition is None:
            held.pop(key, None)
        elif fire is None:
            since_us = _since(held.get(key), condition, now_us)
            held[key] = Held(since_us, condition.progress)
            if now_us - since_us >= condition.hold_seconds * 1_000_000:
                firing[key] = Fire(condition, since_us, edge("firing", _cut(condition), since_us).edge)
                del held[key]
        elif (fire.condition.severity, condition.severity) == ("warn", "error"):
            firing[key] = Fire(condition, fire.since_us, edge("firing", _cut(condition), fire.since_us).edge)
    return Watched(watched.edges + len(alerts), firing, held), tuple(alerts)


def grouped(alerts: Iterable[Alert]) -> list[Notice]:
    """Gather edges into notices: those that begin first, in a stable order."""
    ordered = sorted(alerts, key=lambda alert: (*_group(alert), alert.edge))
    notices = []
    for _, group in groupby(ordered, key=_group):
        together = tuple(group)
        notices.append(Notice(together[:NOTICE_ALERTS_MAX], max(len(together) - NOTICE_ALERTS_MAX, 0)))
    return notices


def _group(alert: Alert) -> tuple[str, str, str]:
    return alert.turn, alert.condition.kind, alert.condition.section


def _moved(was: Condition, seen: Condition) -> bool:
    """Whether what was held until it fired has moved on since."""
    return was.hold_seconds > 0 and was.progress != seen.progress


def _since(held: Held | None, condition: Condition, now_us: int) -> int:
    return held.since_us if held is not None and held.progress == condition.progress else now_us


def _cut(condition: Condition) -> Condition:
    return replace(condition, summary=condition.summary[:SUMMARY_CHARACTERS_MAX])


def _digest(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:_KEY_CHARACTERS]
