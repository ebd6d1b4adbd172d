"""Alerts by webhook: one POST of JSON per notice."""

from __future__ import annotations

from dataclasses import dataclass, field

import httpx2 as httpx

from k2_core.errors import Unreachable
from k2_core.notices import Message

IDEMPOTENCY_HEADER = "Idempotency-Key"
"""Name of the header from the IETF draft of that title; payment services made it common."""


@dataclass(frozen=True)
class Webhook:
    """One address that takes notices. The token is a secret: it goes into the header and into no message."""

    url: str
    token: str | None = field(default=None, repr=False)
    timeout_seconds: float = 5.0

    def deliver(self, message: Message) -> None:
        """Post one message; any 2xx is a receipt. Raises Unreachable."""
        headers = {IDEMPOTENCY_HEADER: message.idempotency_key}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            # the status is the answer: a body is never waited for, so a slow one cannot hold a tick
            with httpx.stream(
                "POST", self.url, json=message.document, headers=headers, timeout=self.timeout_seconds
            ) as answer:
                status = answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise Unreachable(f"webhook: {type(error).__name__}: {error}") from error
        if not httpx.codes.is_success(status):
            raise Unreachable(f"webhook: answered {status}, expected 2xx")
