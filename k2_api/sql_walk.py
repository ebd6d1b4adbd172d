"""How a parsed statement is walked: checks of members, put together to checks of nodes. Not listed is refused.

A check gets the value of one member and the names of WITH in sight; it returns when the value is harmless.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from k2_api.problems import Problem

Node = dict[str, Any]
Names = frozenset[str]
Check = Callable[["Walk", Any, Names], None]

DEPTH_MAX = 200
"""Nodes inside one another. What people write has some tens; Python's own limit is a thousand calls."""
MESSAGE_LETTERS_MAX = 300
"""Of an error the engine words; it may quote the statement."""


def refused(reason: str) -> Problem:
    """The problem of a statement that is understood and must not run."""
    return Problem(422, "SQL_REFUSED", f"the statement is not run: {reason}")


def failed(message: str) -> Problem:
    """The problem of a statement the engine cannot make sense of, in its words."""
    return Problem(422, "SQL_ERROR", message.split("\n", 1)[0][:MESSAGE_LETTERS_MAX])


@dataclass
class Walk:
    """One walk over a tree: which tables are granted, which of them it met, and how deep it is now."""

    granted: Names
    found: set[str] = field(default_factory=set)
    depth: int = 0


def members(node: Node, allowed: Mapping[str, Check], walk: Walk, ctes: Names, what: str) -> None:
    """Check each member of a node. One that is not listed is refused, whatever it holds."""
    walk.depth += 1
    if walk.depth > DEPTH_MAX:
        raise refused("it is nested too deeply")
    for name, value in node.items():
        if name not in allowed:
            raise refused(f"{name} of {what} is not among what may be used")
        allowed[name](walk, value, ctes)
    walk.depth -= 1


def fine(walk: Walk, value: Any, ctes: Names) -> None:
    """A scalar that only says how, never what."""
    if isinstance(value, dict | list):
        raise refused("a part of it is not among what may be used")


def names(walk: Walk, value: Any, ctes: Names) -> None:
    """A list of names."""
    if not all(isinstance(name, str) for name in value):
        raise refused("a name in it is none")


def empty(walk: Walk, value: Any, ctes: Names) -> None:
    """A member that is there and says nothing."""
    if value not in (None, "", [], {}, False):
        raise refused(f"{shown(value)} is not among what may be used")


def one_of(*harmless: Any) -> Check:
    """One of these values."""

    def check(walk: Walk, value: Any, ctes: Names) -> None:
        if value not in harmless:
            raise refused(f"{shown(value)} is not among what may be used")

    return check


def each(inner: Check) -> Check:
    """A list, each element checked."""

    def check(walk: Walk, value: Any, ctes: Names) -> None:
        for one in value:
            inner(walk, one, ctes)

    return check


def maybe(inner: Check) -> Check:
    """A value or null."""

    def check(walk: Walk, value: Any, ctes: Names) -> None:
        if value is not None:
            inner(walk, value, ctes)

    return check


def record(what: str, **allowed: Check) -> Check:
    """A node without a kind of its own, known by where it stands."""

    def check(walk: Walk, value: Any, ctes: Names) -> None:
        members(value, allowed, walk, ctes, what)

    return check


def kinds(table: Mapping[str, Mapping[str, Check]], member: str, common: Mapping[str, Check]) -> Check:
    """A node that names its kind in `member`: the kind must be listed, and says which members it may have."""

    def check(walk: Walk, value: Any, ctes: Names) -> None:
        kind = str(value[member])
        if kind not in table:
            raise refused(f"{kind} is not among what may be used")
        members(value, {**common, **table[kind]}, walk, ctes, kind)

    return check


def shown(value: Any) -> str:
    """A value as it may be quoted in a refusal."""
    return json.dumps(value)[:40]
