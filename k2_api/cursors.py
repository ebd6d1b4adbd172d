"""Cursors: where the next page begins, in a form a client can neither read into nor change."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import asdict, dataclass

from k2_api.problems import Problem

_SIGNATURE_BYTES = 16
"""Half of SHA-256: forging one takes 2^128 guesses against a key only the server has."""


@dataclass(frozen=True)
class Cursor:
    """The last row of a page, and the state and question it belongs to.

    question: digest of table and filters; a cursor continues only the question it came from. version: digest of C, the
    state for ever, whatever becomes of its snapshot. key: the sort key of the last row. offset: rows on the pages
    before. total: rows of the whole question, where the first page counted them.
    """

    question: str
    version: str
    key: tuple[int | str, ...]
    offset: int
    total: int | None = None


@dataclass(frozen=True)
class CursorBox:
    """Seals and opens cursors with one secret."""

    secret: str

    def seal(self, cursor: Cursor) -> str:
        """The opaque text of a cursor."""
        payload = json.dumps(asdict(cursor), separators=(",", ":")).encode()
        return _text(self._sign(payload) + payload)

    def open(self, text: str, question: str) -> Cursor:
        """Read a cursor back. Raises Problem 400 for one that is not ours or belongs to another question."""
        try:
            sealed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            raise _invalid("the cursor is not one of this server") from None
        payload = sealed[_SIGNATURE_BYTES:]
        if _text(sealed) != text or not hmac.compare_digest(sealed[:_SIGNATURE_BYTES], self._sign(payload)):
            raise _invalid("the cursor is not one of this server")
        try:
            content = json.loads(payload)
            cursor = Cursor(**{**content, "key": tuple(content["key"])})
        except (TypeError, KeyError):
            raise _invalid("the cursor is of another release") from None
        if cursor.question != question:
            raise _invalid("the cursor belongs to a request with other filters")
        return cursor

    def _sign(self, payload: bytes) -> bytes:
        return hmac.digest(self.secret.encode(), payload, "sha256")[:_SIGNATURE_BYTES]


def _text(sealed: bytes) -> str:
    return base64.urlsafe_b64encode(sealed).decode().rstrip("=")


def digest(*parts: str) -> str:
    """A short name for a question or a state: 32 hex digits of SHA-256."""
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:32]


def _invalid(detail: str) -> Problem:
    return Problem(400, "INVALID_CURSOR", f"{detail}; start again without it")
