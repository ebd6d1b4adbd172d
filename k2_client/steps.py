"""What a conversation with the server asks its driver to do. No socket in sight, so both clients share it."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Value = str | int | bool | Sequence[str]


@dataclass(frozen=True)
class Call:
    """One request. parameters: of the query string. body: sent as JSON."""

    method: str
    path: str
    parameters: Mapping[str, Value] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Head:
    """What came before the body. headers: names in lower case."""

    status: int
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Fault:
    """The connection failed: it could not be made, or broke."""

    reason: str


@dataclass(frozen=True)
class Send:
    """Send a call, closing what was open. Answered with a Head or a Fault."""

    call: Call


@dataclass(frozen=True)
class Receive:
    """Receive the next bytes of the body. Answered with bytes, none at the end, or a Fault."""


@dataclass(frozen=True)
class Pause:
    """Wait. Answered with nothing."""

    seconds: float


@dataclass(frozen=True)
class Hand:
    """Hand a piece of the result to the caller. Answered with nothing."""

    piece: Any


Step = Send | Receive | Pause | Hand
Conversation = Generator[Step, Any, Any]
