"""What browsers are told: which pages may read answers, and what a page of ours may load and who may frame it."""

from __future__ import annotations

from collections.abc import Sequence

STRICT = b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""For everything that is no page: whoever makes a browser show it as one gets nothing to run."""
PAGE = (
    b"default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"font-src 'self' data:; connect-src 'self'; worker-src blob:; "
    b"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""For HTML: its own scripts, and connections to where it came from only, so that nothing it knows can be sent away."""
_EVERYWHERE: Sequence[tuple[bytes, bytes]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
_STRICT = (*_EVERYWHERE, (b"content-security-policy", STRICT))
_PAGE = (*_EVERYWHERE, (b"content-security-policy", PAGE))
ASKED_WITH = ("X-API-Key", "Authorization", "Content-Type", "X-Correlation-ID", "If-None-Match", "K2-Timeout-Seconds")
"""Headers a page of another origin may send, once its origin is allowed."""
READ = (
    "X-Correlation-ID", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit",
    "RateLimit-Policy", "Retry-After", "ETag", "Link", "Content-Disposition", "X-Record-Count", "K2-Version",
    "K2-Snapshot-Id", "K2-Row-Count", "K2-Source", "K2-Gaps", "K2-Quality",
)  # fmt: skip
"""Headers such a page may read."""


def protective(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The protective headers an answer lacks. headers: its own, names in lower case; what a route sets stands."""
    own = dict(headers)
    policy = _PAGE if own.get(b"content-type", b"").startswith(b"text/html") else _STRICT
    return [pair for pair in policy if pair[0] not in own]


def origins(setting: str) -> list[str]:
    """The origins of a setting, separated by commas."""
    return [origin.strip() for origin in setting.split(",") if origin.strip()]
