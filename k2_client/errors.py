"""Every way a call to K2 fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


class K2ClientError(Exception):
    """Raised when K2 gave no answer that can be used."""


@dataclass(eq=False)
class Refused(K2ClientError):
    """Raised when K2 says no: the question is wrong, or not for this key. Asking again changes nothing.

    code: a stable word, e.g. VALIDATION_ERROR. request_id: names the request in the server's log. errors: per wrong
    parameter what is wrong with it.
    """

    status: int
    code: str
    detail: str
    request_id: str = ""
    errors: tuple[Mapping[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.detail} (request {self.request_id or 'unknown'})"


class Unavailable(K2ClientError):
    """Raised when K2 could not be reached, or was busy, as often as the client was to ask."""


class Broken(K2ClientError):
    """Raised when an answer is not what was sent: cut off, changed, or not from K2."""
